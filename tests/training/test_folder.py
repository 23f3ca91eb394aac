"""What lies in a run's folder: who may read it, what it keeps to itself, who made it."""

import json
import os
import shutil
import stat
import subprocess
import sys

import pytest
from safetensors import SafetensorError
from transformers import BartConfig, BartForConditionalGeneration

from tests.jobs import ESCONV, TRAIN_RESPONSE, command, environment
from tests.training.runs import record, same, weights

SHORT = [*TRAIN_RESPONSE, "training.num_train_epochs=1", "data.max_train_samples=16"]


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_weights_have_public_modes_and_token_ids_private_ones(tmp_path, umask, monkeypatch):
    seen = {}

    def stop(trainer, checkpoint):
        seen.update({path: mode(path) for path in (tmp_path / "model").iterdir()})
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pal.training.trainer.run_training", stop)
        assert command("train", *SHORT, f"output_dir={tmp_path / 'model'}") == 130
    assert seen[tmp_path / "model" / ".tokens"] == 0o700
    assert command("train", *SHORT, f"output_dir={tmp_path / 'model'}") == 0
    files = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    assert {path.name: oct(mode(path)) for path in files if mode(path) != 0o640} == {}
    assert any(path.name == "model.safetensors" for path in files)


def test_an_unfinished_run_of_other_settings_is_refused_with_what_differs(
    tmp_path, monkeypatch, capsys
):
    def stop(trainer, checkpoint):
        raise KeyboardInterrupt

    monkeypatch.setattr("pal.training.trainer.run_training", stop)
    call = ["train", *SHORT, f"output_dir={tmp_path / 'model'}"]
    assert command(*call, "seed=3", "data.max_train_samples=8") == 130
    assert "model was finished yet, run the same command again" in capsys.readouterr().err
    assert command(*call, "seed=4", "data.max_train_samples=9") == 2
    told = capsys.readouterr().err
    assert "holds an unfinished run with other settings" in told
    assert "(differs: seed: 3, now 4; data.max_train_samples: 8, now 9; " in told
    assert command(*call, "seed=3", "data.max_train_samples=8") == 130  # continues


@pytest.mark.parametrize("error", [
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    RuntimeError("[enforce fail at inline_container.cc:603] . PytorchStreamWriter failed"),
    OSError(28, "No space left on device"),
])  # fmt: skip
def test_weights_that_cannot_be_written_name_the_folder(tmp_path, monkeypatch, capsys, error):
    """Though over a megabyte is free there."""

    def fail(trainer, checkpoint):
        raise error

    monkeypatch.setattr("pal.training.trainer.run_training", fail)
    assert command("train", *SHORT, f"output_dir={tmp_path / 'model'}") == 2
    last = capsys.readouterr().err.rstrip().split("\n")[-1]
    assert last.startswith(f"pal: error: cannot write {tmp_path / 'model'}: ")
    assert last.endswith("run the same command again to continue")


def test_no_file_of_a_run_is_a_pickle_of_its_arguments(response_model):
    endings = (".bin", ".pt", ".pth")
    pickles = {path.name for path in response_model.rglob("*") if path.suffix in endings}
    assert pickles == {"optimizer.pt", "scheduler.pt", "rng_state.pth"}


def test_python_and_the_command_line_make_the_same_bytes(tmp_path):
    code = (
        "import json, sys\n"
        "from pal.config import load_settings\n"
        "from pal.training import train\n"
        "train(load_settings(sys.argv[1], sys.argv[2:]))\n"
    )
    clean = {k: v for k, v in environment().items() if k != "MKL_CBWR"}
    config, overrides = SHORT[1], SHORT[2:]
    calls = {
        "command": ["-m", "pal.cli", "train", *SHORT],
        "python": ["-c", code, config, *overrides],
    }
    for name, call in calls.items():
        subprocess.run(
            [sys.executable, *call, f"output_dir={tmp_path / name}"], env=clean, check=True,
            capture_output=True,
        )  # fmt: skip
    assert same(weights(tmp_path / "command"), weights(tmp_path / "python"))
    assert record(tmp_path / "command")["identity"] == record(tmp_path / "python")["identity"]


@pytest.mark.parametrize("name", ["model.safetensors", "checkpoint-4/model.safetensors"])
def test_a_model_that_nobody_recorded_is_not_replaced(tmp_path, capsys, name):
    path = tmp_path / "model" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"theirs")
    assert command("train", *SHORT, f"output_dir={tmp_path / 'model'}") == 2
    assert f"holds {name.split('/')[0]}, and no record" in capsys.readouterr().err
    assert path.read_bytes() == b"theirs"
    assert {p.name for p in (tmp_path / "model").iterdir()} == {name.split("/")[0]}


def test_a_folder_that_was_moved_is_the_same_run(response_model, tmp_path):
    import shutil

    moved = tmp_path / "elsewhere"
    shutil.copytree(response_model, moved)
    before = (moved / "model.safetensors").stat().st_mtime_ns
    assert command("train", *TRAIN_RESPONSE, f"output_dir={moved}") == 0
    assert (moved / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["", "{", "[]", json.dumps({"identity": "other"})])
def test_a_folder_with_a_foreign_or_damaged_record(tmp_path, capsys, damage):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "run.json").write_text(damage)
    assert command("train", *SHORT, f"output_dir={folder}") == 2
    error = capsys.readouterr().err
    assert error.count("pal: error") == 1
    assert "overwrite=true" in error
    assert command("train", *SHORT, f"output_dir={folder}", "overwrite=true") == 0
    assert record(folder)["steps"] == 1


def test_an_output_that_is_a_file_is_one_line(tmp_path, capsys):
    (tmp_path / "model").write_text("mine")
    assert command("train", *SHORT, f"output_dir={tmp_path / 'model'}") == 2
    assert capsys.readouterr().err.count("pal: error") == 1
    assert (tmp_path / "model").read_text() == "mine"


def test_a_model_of_another_family_leaves_no_vocabulary_behind(response_model, tmp_path):
    """What stays of a tokenizer would be read in place of the new one."""
    from pal.data.tokenizer import load_tokenizer
    from tests.modeling.families import bart_tokenizer

    base, folder = tmp_path / "base", tmp_path / "model"
    tokenizer = bart_tokenizer()
    tokenizer.save_pretrained(base)
    config = BartConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64,
        decoder_ffn_dim=64, max_position_embeddings=256,
    )  # fmt: skip
    BartForConditionalGeneration(config).save_pretrained(base)
    shutil.copytree(response_model, folder)
    (folder / "tokenizers of mine").mkdir()
    call = ["train", f"data.train={ESCONV}", f"architecture.base={base}",
            "data.max_train_samples=8", "data.max_validation_samples=4",
            "architecture.template=natural", "architecture.max_context_tokens=64",
            "architecture.max_target_tokens=24", "architecture.max_persona_tokens=24",
            "training.num_train_epochs=1"]  # fmt: skip
    assert command(*call, f"output_dir={folder}", "overwrite=true") == 0
    assert command(*call, f"output_dir={tmp_path / 'fresh'}") == 0
    kept = {path.name for path in folder.iterdir()} - {"tokenizers of mine"}
    assert kept == {path.name for path in (tmp_path / "fresh").iterdir()}
    assert len(load_tokenizer(folder)) == len(load_tokenizer(tmp_path / "fresh"))
    assert (folder / "tokenizers of mine").is_dir()
