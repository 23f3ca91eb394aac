"""What the stages of a benchmark leave: a run's files, and the checkpoint that answers.

A stage lies under a name that holds the identity of its job, so what is done is never done again,
whichever systems and seeds are asked for.
"""

import logging
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pal.core.errors import ConfigError, DataError
from pal.core.files import read_json
from pal.core.job import COMPUTING, Job, record_path
from pal.core.settings import CommandSettings

logger = logging.getLogger(__name__)

LOG = "training_log.json"

# Files and folders of a checkpoint that only training which continues from it reads.
TRAINING_STATE = (
    "optimizer*", "scheduler.pt", "scaler.pt", "rng_state*", "global_step*", "training_args.bin",
)  # fmt: skip


@dataclass
class FinishedRun:
    """One system with one seed, answered.

    Attributes:
        system: its name.
        seed: of training, data order and sampling; None for outputs from elsewhere.
        predictions: its responses.
        model: folder of the training run.
        checkpoint: the epoch's folder in it that answers.
        epoch: that epoch.
        validation_nll: its validation loss, nats a token.
        losses: its token losses on the gold responses.
    """

    system: str
    seed: int | None
    predictions: Path
    model: Path | None = None
    checkpoint: Path | None = None
    epoch: float | None = None
    validation_nll: float | None = None
    losses: Path | None = None


def stage_name(command: str, settings: CommandSettings) -> str:
    """Return what a stage is called: the identity of its job, shortened."""
    return Job(command, settings, "stage", versions=COMPUTING).identity[:12]


def is_recorded(output: Path) -> bool:
    """Return whether a stage's output lies there with the record of the job that made it.

    Both are written whole or not at all, and the name of the output holds the identity, so that no
    other stage's output can lie there.
    """
    return output.exists() and record_path(output).exists()


def read_evaluations(model: Path) -> list[Mapping[str, Any]]:
    """Return the validations of a training run, in order.

    Raises:
        ConfigError: there are none.
    """
    found = [entry for entry in read_json(model / LOG) if "eval_nll" in entry]
    if not found:
        raise ConfigError(
            f"{model}: no validation loss was logged; leave out training.eval_strategy"
        )
    return found


def choose_checkpoint(model: Path, rule: str | int) -> tuple[Path, float, float]:
    """Return the epoch's checkpoint that a rule chooses, its epoch and its validation loss.

    Args:
        model: folder of a training run.
        rule: ``lowest_loss``, ``last``, or the number of an epoch.

    Raises:
        ConfigError: no such epoch, or its checkpoint is gone.
    """
    found = read_evaluations(model)
    if rule == "lowest_loss":
        chosen = min(found, key=lambda entry: (entry["eval_nll"], entry["step"]))
    elif rule == "last":
        chosen = found[-1]
    else:
        chosen = min(found, key=lambda entry: abs(entry["epoch"] - float(rule)))
        if abs(chosen["epoch"] - float(rule)) > 0.5:
            raise ConfigError(
                f"reproduce.checkpoint={rule}: {model} has epochs 1 to {round(found[-1]['epoch'])}"
            )
    folder = model / f"checkpoint-{chosen['step']}"
    if not list(folder.glob("model*.safetensors")):
        raise ConfigError(
            f"{folder}: the checkpoint that reproduce.checkpoint={rule} chooses is not there; "
            "delete the folder above to train again, with reproduce.keep_checkpoints=true to keep "
            "every epoch (a YAML's training must save each)"
        )
    return folder, float(chosen["epoch"]), float(chosen["eval_nll"])


def remove_checkpoints(model: Path, kept: Collection[Path] = ()) -> int:
    """Remove the checkpoints of a finished training run that nothing will choose any more.

    What training needs to continue is removed from the others: it is finished.

    Args:
        model: folder of the run.
        kept: checkpoints that stay.

    Returns:
        How many bytes were removed.
    """
    if not (model / "run.json").exists():
        return 0
    before = _size(model)
    for folder in model.glob("checkpoint-*"):
        if not folder.name.removeprefix("checkpoint-").isdigit():
            continue
        if folder not in kept:
            shutil.rmtree(folder, ignore_errors=True)
            continue
        for path in [path for pattern in TRAINING_STATE for path in folder.glob(pattern)]:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    return before - _size(model)


def choosable_checkpoints(model: Path, rule: str | int) -> list[Path]:
    """Return the checkpoints that stay: of this rule, of the lowest loss and of the last epoch."""
    found = []
    for one in dict.fromkeys([rule, "lowest_loss", "last"]):
        try:
            found.append(choose_checkpoint(model, one)[0])
        except (ConfigError, DataError):  # it was removed before, or never saved
            continue
    return found


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
