"""``pal convert-authors``: which files are taken, what comes out, what is refused."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from pal.data.tokenizer import load_tokenizer, train_tokenizer
from pal.modeling.checkpoint import load_response_model
from tests.commands.authors import authors_weights, write_config
from tests.jobs import command


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path / "config.json")


def convert(source, config, output, *more):
    return command("convert-authors", source, f"config={config}", f"output={output}", *more)


def test_pickled_and_safe_weights_give_the_same_model(tmp_path, config):
    weights = authors_weights()
    save_file(weights, tmp_path / "theirs.safetensors")
    torch.save(weights, tmp_path / "theirs.bin")
    for name in ("theirs.safetensors", "theirs.bin"):
        assert convert(tmp_path / name, config, tmp_path / f"from-{name}") == 0
    one, two = (
        load_response_model(str(tmp_path / f"from-theirs.{kind}"))
        for kind in ("safetensors", "bin")
    )
    assert (one.config.fusion, one.config.template) == ("reference", "authors")
    assert list(one.config.alpha) == [0.5] * 8
    assert all(torch.equal(a, two.state_dict()[n]) for n, a in one.state_dict().items())
    assert not list((tmp_path / "from-theirs.bin").glob("*.bin"))


def state_dicts():
    weights = authors_weights()
    prefixed = {f"module.{name}": tensor for name, tensor in weights.items()}
    return {
        "prefix": prefixed,
        "state_dict": {"state_dict": weights, "epoch": 3},
        "model": {"model": weights, "optimizer": {"state": {}}},
        "both": {"model_state_dict": prefixed, "step": 7},
    }


@pytest.mark.parametrize("kind", ["prefix", "state_dict", "model", "both"])
def test_wrappers_and_prefixes_of_training_scripts_are_taken_off(tmp_path, config, kind):
    torch.save(authors_weights(), tmp_path / "plain.bin")
    torch.save(state_dicts()[kind], tmp_path / "wrapped.bin")
    assert convert(tmp_path / "plain.bin", config, tmp_path / "a") == 0
    assert convert(tmp_path / "wrapped.bin", config, tmp_path / "b") == 0
    one, two = (load_response_model(str(tmp_path / name)).state_dict() for name in "ab")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


class Evil:
    def __reduce__(self):
        return (os.system, ("echo harm",))


def test_what_is_no_such_checkpoint_is_one_line(tmp_path, config, capfd):
    def refused(contents, name="weights.bin", settings=config):
        if isinstance(contents, bytes):
            (tmp_path / name).write_bytes(contents)
        else:
            torch.save(contents, tmp_path / name)
        assert convert(tmp_path / name, settings, tmp_path / "out") == 2
        captured = capfd.readouterr()
        assert "harm" not in captured.out
        assert captured.err.count("\n") == 1
        assert "weights_only" not in captured.err
        return captured.err

    assert "holds more than tensors" in refused({"model": Evil()})
    assert "weights.bin is empty" in refused(b"")
    assert "git-lfs pointer" in refused(b"version https://git-lfs.github.com/spec/v1\noid x\n")
    assert "damaged" in refused(b"PK\x03\x04 cut off")
    assert "damaged" in refused(b"nothing", name="weights.safetensors")
    assert "not the authors' PAL model" in refused({"weight": torch.zeros(2)})
    assert "holds a list" in refused([1, 2])
    weights = authors_weights()
    without = {name: t for name, t in weights.items() if name != "persona_norm.bias"}
    assert "no 'persona_norm.bias' in it" in refused(without)
    weights["persona_norm.bias"][0] = torch.nan
    assert "not finite" in refused(weights)
    other = write_config(tmp_path / "other.json", d_model=32)
    assert "does not fit the model" in refused(authors_weights(), settings=other)
    for text in ("[]", "{", '{"d_model": 3}', '{"max_position_embeddings": "x"}'):
        (tmp_path / "odd.json").write_text(text)
        assert "odd.json" in refused(authors_weights(), settings=tmp_path / "odd.json")
    assert convert(tmp_path / "none.bin", config, tmp_path / "out") == 2
    assert "none.bin: no such file" in capfd.readouterr().err
    assert convert(tmp_path / "weights.bin", tmp_path / "none.json", tmp_path / "out") == 2
    assert "none.json: no such file" in capfd.readouterr().err
    assert command("convert-authors", tmp_path / "weights.bin", f"config={config}") == 2
    assert "output=…" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_kept(tmp_path, config, capsys):
    torch.save(authors_weights(), tmp_path / "theirs.bin")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert convert(tmp_path / "theirs.bin", config, tmp_path / "out") == 2
    assert "choose another output" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_the_tokenizer_goes_beside_the_model(tmp_path, config, capsys):
    torch.save(authors_weights(), tmp_path / "theirs.bin")
    call = (tmp_path / "theirs.bin", config, tmp_path / "out")
    assert convert(*call, f"tokenizer={tmp_path / 'nowhere'}") == 2
    assert "nowhere: no such folder; give a folder, or a hub id" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    train_tokenizer(["i am sad .", "why ?"] * 5, 60, tmp_path / "tokenizer")
    assert convert(*call, f"tokenizer={tmp_path / 'tokenizer'}") == 0
    assert "[Question]" in load_tokenizer(tmp_path / "out").get_vocab()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["template"] == "authors"
