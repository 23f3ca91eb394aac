import os
import subprocess
import sys

import pytest
import torch

from pal import __version__
from pal.cli import COMMANDS, build_parser, main
from tests.jobs import ROOT, command, environment


def test_help_names_every_command():
    text = build_parser().format_help()
    for name in COMMANDS:
        assert name in text


@pytest.mark.parametrize("script", ["train", "generate", "eval"])
def test_scripts_are_the_commands(script):
    done = subprocess.run(
        [sys.executable, ROOT / f"{script}.py", "--help"],
        capture_output=True, text=True, env=environment(), check=True,
    )  # fmt: skip
    assert f"pal {script}" in done.stdout


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"pal {__version__}\n"


def test_options_and_overrides_may_be_mixed(capsys):
    assert main(["train", "task=persona_extractor", "--config", "smal", "seed=1"]) == 2
    assert "did you mean 'small'" in capsys.readouterr().err


def test_convert_authors_command(golden, tmp_path, capsys):
    from pal.modeling.checkpoint import load_response_model

    source = golden / "model"
    assert command(
        "convert-authors", source / "model.safetensors", f"config={source / 'config.json'}",
        f"output={tmp_path / 'a'}",
    ) == 0  # fmt: skip
    one = load_response_model(str(tmp_path / "a"))
    assert one.config.fusion == "reference"
    assert one.config.template == "authors"
    assert list(one.config.alpha) == [0.5] * 8
    from safetensors.torch import load_file

    torch.save(load_file(source / "model.safetensors"), tmp_path / "theirs.bin")
    assert command(
        "convert-authors", tmp_path / "theirs.bin", f"config={source / 'config.json'}",
        f"output={tmp_path / 'b'}",
    ) == 0  # fmt: skip
    two = load_response_model(str(tmp_path / "b"))
    assert all(torch.equal(a, two.state_dict()[n]) for n, a in one.state_dict().items())
    assert not [name for name in os.listdir(tmp_path / "b") if name.endswith(".bin")]


class Evil:
    def __reduce__(self):
        return (os.system, ("echo harm",))


def test_convert_authors_refuses_what_is_no_checkpoint(golden, tmp_path, capfd):
    config = f"config={golden / 'model/config.json'}"
    output = f"output={tmp_path / 'out'}"
    torch.save({"model": Evil()}, tmp_path / "evil.bin")
    assert command("convert-authors", tmp_path / "evil.bin", config, output) == 2
    captured = capfd.readouterr()
    assert "not a readable checkpoint" in captured.err
    assert "harm" not in captured.out
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.bin")
    assert command("convert-authors", tmp_path / "other.bin", config, output) == 2
    assert "not the authors' PAL model" in capfd.readouterr().err
    assert command("convert-authors", tmp_path / "none.bin", config, output) == 2
    assert "no such file" in capfd.readouterr().err
    assert command("convert-authors", tmp_path / "other.bin", config) == 2
    assert "output=DIR" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_action_takes_a_config_and_overrides(capsys):
    call = ["bench", "annotate", "--config", "pal", "limit=no"]
    assert main(call) == 2
    assert "limit" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["bench", "annotate", "--config", "pal", "--limit=3"])
    assert "unrecognized arguments: --limit=3" in capsys.readouterr().err
