"""A run that was killed and continued is the run that was not: same bytes, same log."""

import json
import shutil
import signal
import time

import pytest

from pal.training.folder import checkpoints_of
from tests.jobs import TRAIN_RESPONSE, command, start, torchrun
from tests.training.runs import (
    interrupted_copy,
    log_without_times,
    record,
    same,
    steps_saved,
    weights,
)

# Dropout draws; 15 samples make four steps an epoch, the last of them smaller.
PLAIN = [
    *TRAIN_RESPONSE, "architecture.from_scratch.dropout=0.1", "architecture.max_context_tokens=48",
    "data.max_train_samples=15", "data.max_validation_samples=4",
    "training.per_device_train_batch_size=4", "training.num_train_epochs=3",
    "training.logging_steps=2", "training.save_total_limit=null",
]  # fmt: skip

BY_STEPS = ["training.save_strategy=steps", "training.save_steps=3"]
STRATEGIES = {
    "by epoch": [],
    "by steps inside of epochs": BY_STEPS,
    "by steps at the ends of epochs": ["training.save_strategy=steps", "training.save_steps=4"],
    "random order, accumulated": [
        *BY_STEPS, "training.train_sampling_strategy=random",
        "training.per_device_train_batch_size=2", "training.gradient_accumulation_steps=2",
    ],
    "ended inside of an epoch": [*BY_STEPS, "training.max_steps=10"],
    "ended early": [
        *BY_STEPS, "training.eval_strategy=steps", "training.eval_steps=3",
        "training.load_best_model_at_end=true", "early_stopping_patience=1",
        "training.learning_rate=0",
    ],
    "the best one": ["training.save_strategy=best", "training.load_best_model_at_end=true"],
}  # fmt: skip


@pytest.mark.parametrize("changes", STRATEGIES.values(), ids=STRATEGIES)
def test_a_run_continues_from_any_checkpoint_as_if_never_interrupted(tmp_path, changes):
    plain = tmp_path / "plain"
    assert command("train", *PLAIN, *changes, f"output_dir={plain}") == 0
    facts = ("validation_nll", "lowest_validation_nll", "steps", "epochs", "best_checkpoint")
    assert len(steps_saved(plain)) >= 2
    for step in steps_saved(plain)[-3:]:
        again = interrupted_copy(plain, tmp_path / f"from {step}", step)
        assert command("train", *PLAIN, *changes, f"output_dir={again}") == 0
        assert same(weights(plain), weights(again)), step
        assert log_without_times(plain) == log_without_times(again), step
        assert {f: record(plain)[f] for f in facts} == {f: record(again)[f] for f in facts}


@pytest.mark.parametrize(
    "changes",
    [[], pytest.param(BY_STEPS, marks=pytest.mark.campaign)],
    ids=["by epoch", "by steps"],
)
def test_a_killed_run_continues_to_the_same_model(tmp_path, changes):
    plain, folder = tmp_path / "plain", tmp_path / "killed"
    assert command("train", *PLAIN, *changes, f"output_dir={plain}") == 0
    process = start("train", *PLAIN, *changes, f"output_dir={folder}")
    while len(list(folder.glob("checkpoint-*/trainer_state.json"))) < 2:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if not (folder / "run.json").exists():  # as if the kill had hit while one was written
        cut = folder / f"checkpoint-{steps_saved(folder)[-1] + 1}"
        cut.mkdir()
        (cut / "model.safetensors").write_bytes(b"cut")
    assert command("train", *PLAIN, *changes, f"output_dir={folder}") == 0
    assert same(weights(plain), weights(folder))
    assert log_without_times(plain) == log_without_times(folder)
    assert steps_saved(plain) == steps_saved(folder)


def test_checkpoints_without_the_optimizer_are_not_continued_from(tmp_path, caplog, monkeypatch):
    import logging

    monkeypatch.setattr(logging.getLogger("pal"), "propagate", True)
    plain = tmp_path / "plain"
    arguments = [*PLAIN, "training.save_only_model=true", "training.save_total_limit=2"]
    assert command("train", *arguments, f"output_dir={plain}") == 0
    again = interrupted_copy(plain, tmp_path / "again", 8)
    assert command("train", *arguments, f"output_dir={again}") == 0
    assert "holds nothing to continue from; training continues from the start" in caplog.text
    assert same(weights(plain), weights(again))
    assert steps_saved(plain) == steps_saved(again)


def test_overwrite_continues_after_an_interruption(tmp_path):
    """Only what another run left is cleared: its own checkpoints are what it continues from."""
    plain = tmp_path / "plain"
    assert command("train", *PLAIN, f"output_dir={plain}") == 0
    again = interrupted_copy(plain, tmp_path / "again", 4)
    kept = again / "checkpoint-4" / "model.safetensors"
    before = kept.stat().st_mtime_ns
    assert command("train", *PLAIN, f"output_dir={again}", "overwrite=true") == 0
    assert kept.stat().st_mtime_ns == before
    assert same(weights(plain), weights(again))
    assert command("train", *PLAIN, f"output_dir={again}", "overwrite=true") == 0
    assert kept.stat().st_mtime_ns != before


@pytest.mark.parametrize("limit", [f"training.save_total_limit={n}" for n in ("null", 2)])
def test_what_people_name_checkpoint_is_theirs(tmp_path, limit):
    """Names that are no step are passed over when a run continues, and stay when it restarts."""
    plain = tmp_path / "plain"
    assert command("train", *PLAIN, limit, f"output_dir={plain}") == 0
    again = interrupted_copy(plain, tmp_path / "again", 8)
    for name in ("checkpoint-best", "checkpoint-4-copy", "checkpoint-"):
        shutil.copytree(again / "checkpoint-8", again / name)
    (again / "checkpoint-8.tar").write_bytes(b"packed")
    theirs = {path.name for path in again.iterdir()} - {path.name for path in plain.iterdir()}
    for changes in ([], ["overwrite=true"]):
        assert command("train", *PLAIN, limit, f"output_dir={again}", *changes) == 0
        assert same(weights(plain), weights(again))
        assert list(checkpoints_of(plain)) == list(checkpoints_of(again))
        assert theirs - {"started.json"} <= {path.name for path in again.iterdir()}


def test_another_number_of_processes_is_refused(tmp_path, capsys):
    """It would see other batches. What two began and one continues is in test_distributed.py."""
    plain = tmp_path / "plain"
    assert command("train", *PLAIN, *BY_STEPS, f"output_dir={plain}") == 0
    again = interrupted_copy(plain, tmp_path / "again", 3)
    begun = json.loads((again / "started.json").read_text())
    (again / "started.json").write_text(json.dumps({**begun, "devices": 2}))
    assert command("train", *PLAIN, *BY_STEPS, f"output_dir={again}") == 2
    assert "an unfinished run on 2 processes" in capsys.readouterr().err
    assert steps_saved(again) == [3]


@pytest.mark.distributed
def test_two_processes_continue_and_another_number_is_refused(tmp_path, capsys):
    plain, again = tmp_path / "plain", tmp_path / "again"
    arguments = [*PLAIN, *BY_STEPS, "training.num_train_epochs=4"]
    code, output = torchrun(2, "train", *arguments, f"output_dir={plain}")
    assert code == 0, output
    assert record(plain)["processes"] == 2
    interrupted_copy(plain, again, 3)
    assert command("train", *arguments, f"output_dir={again}") == 2
    assert "an unfinished run on 2 processes" in capsys.readouterr().err
    code, output = torchrun(2, "train", *arguments, f"output_dir={again}")
    assert code == 0, output
    assert same(weights(plain), weights(again))
    assert log_without_times(plain) == log_without_times(again)
    assert command("train", *arguments, f"output_dir={again}") == 0  # finished is finished
