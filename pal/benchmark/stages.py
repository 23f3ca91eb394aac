"""Outputs of the stages of a benchmark: files of a run, and the choice of its checkpoint.

The name of a stage's output holds the identity of its job, so a finished stage is never repeated,
whichever systems and seeds are requested.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pal.core.errors import ConfigError, DataError
from pal.core.files import read_json
from pal.core.job import COMPUTING, Job
from pal.core.settings import CommandSettings
from pal.training.folder import checkpoints_of, remove_checkpoint, strip_checkpoint

logger = logging.getLogger(__name__)

LOG = "training_log.json"


@dataclass
class FinishedRun:
    """One finished run: a system with one seed.

    Attributes:
        system: name of the system.
        seed: seed of training, data order and sampling; None for an outside system.
        predictions: file of its responses.
        model: folder of the training run.
        checkpoint: folder of the chosen epoch.
        epoch: the chosen epoch.
        validation_nll: validation loss of that epoch, nats per token.
        losses: file of its token losses on the gold responses.
        reasons: why the run lacks what some scores need, by the name of that.
    """

    system: str
    seed: int | None
    predictions: Path
    model: Path | None = None
    checkpoint: Path | None = None
    epoch: float | None = None
    validation_nll: float | None = None
    losses: Path | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)


def stage_name(command: str, settings: CommandSettings) -> str:
    """Return the name of a stage: the shortened identity of its job."""
    return Job(command, settings, "stage", versions=COMPUTING).identity[:12]


def read_evaluations(model: Path) -> list[Mapping[str, Any]]:
    """Return the validations of a training run, in order.

    Raises:
        ConfigError: the run has no validations.
    """
    found = [entry for entry in read_json(model / LOG) if "eval_nll" in entry]
    if not found:
        raise ConfigError(
            f"{model}: no validation loss was logged; leave out training.eval_strategy"
        )
    return found


def choose_checkpoint(model: Path, rule: str | int) -> tuple[Path, float, float]:
    """Return (checkpoint folder, epoch, validation loss in nats per token) that a rule chooses.

    Args:
        model: folder of a training run.
        rule: ``lowest_loss``, ``last``, or the number of an epoch.

    Raises:
        ConfigError: the epoch does not exist, or its checkpoint was removed.
    """
    found = read_evaluations(model)
    chosen = choose_evaluation(found, rule)
    if isinstance(rule, int) and abs(chosen["epoch"] - rule) > 0.5:
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


def choose_evaluation(found: Sequence[Mapping[str, Any]], rule: str | int) -> Mapping[str, Any]:
    """Return the validation, of one or more in their order, whose checkpoint a rule chooses."""
    if rule == "lowest_loss":
        return min(found, key=lambda entry: (entry["eval_nll"], entry["step"]))
    if rule == "last":
        return found[-1]
    return min(found, key=lambda entry: abs(entry["epoch"] - float(rule)))


def choosable_steps(found: Sequence[Mapping[str, Any]], rule: str | int) -> set[int]:
    """Return the steps whose checkpoints can still be chosen, by this rule or a named one.

    Args:
        found: the validations of a run so far, in their order.
        rule: the rule of the benchmark.

    Example:
        >>> log = [{"eval_nll": 2.0, "epoch": 1.0, "step": 5}]
        >>> choosable_steps([*log, {"eval_nll": 3.0, "epoch": 2.0, "step": 10}], "last")
        {5, 10}
    """
    rules = (rule, "lowest_loss", "last")
    return {choose_evaluation(found, one)["step"] for one in rules} if found else set()


def no_steps(found: Sequence[Mapping[str, Any]]) -> set[int]:
    """Return that no checkpoint of a run can be chosen, whatever its validations."""
    return set()


def remove_checkpoints(model: Path, kept: Collection[Path] = ()) -> int:
    """Remove the checkpoints of a finished training run that no rule can choose.

    The training state of the other checkpoints is removed too, since the run is finished.

    Args:
        model: folder of the run.
        kept: checkpoints to keep.

    Returns:
        Number of bytes removed.
    """
    if not (model / "run.json").exists():
        return 0
    before = _size(model)
    for folder in checkpoints_of(model).values():
        if folder in kept:
            strip_checkpoint(folder, finished=True)
        else:
            remove_checkpoint(folder)
    return before - _size(model)


def choosable_checkpoints(model: Path, rule: str | int) -> list[Path]:
    """Return the checkpoints to keep: of this rule, of the lowest loss and of the last epoch."""
    found = []
    for one in dict.fromkeys([rule, "lowest_loss", "last"]):
        try:
            found.append(choose_checkpoint(model, one)[0])
        except (ConfigError, DataError):  # removed before, or never saved
            continue
    return found


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
