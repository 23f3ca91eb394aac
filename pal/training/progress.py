"""What a person sees of a training: a bar with the time left, and one line an epoch."""

import logging
import math
import sys
from collections.abc import Sequence
from typing import Any

from transformers.trainer_callback import ProgressCallback

logger = logging.getLogger(__name__)


class EpochLines(ProgressCallback):
    """Shows the bar of transformers, and at each epoch's end its losses in words.

    transformers prints every logged dictionary; they stand in ``training_log.json``.

    Example:
        >>> trainer.remove_callback(ProgressCallback)
        >>> trainer.add_callback(EpochLines())
        epoch 1 of 2: training loss 2.512, validation loss 2.251 nats per token
    """

    def __init__(self, *, bar: bool = True):
        super().__init__()
        self.with_bar = bar

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the bar, unless ``training.disable_tqdm`` is set."""
        if self.with_bar:
            super().on_train_begin(args, state, control, **kwargs)
            if self.training_bar is not None:
                self.training_bar.set_description("train")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        if self.training_bar is not None:
            super().on_step_end(args, state, control, **kwargs)

    def on_prediction_step(
        self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        """Move the bar of validation; a log file has no room for a bar below a bar."""
        if self.with_bar and sys.stderr.isatty():
            super().on_prediction_step(args, state, control, eval_dataloader, **kwargs)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Show the loss on the bar; where nothing is validated, say how the epoch went."""
        if not state.is_world_process_zero or "loss" not in (logs or {}):
            return
        if self.training_bar is not None:
            self.training_bar.set_postfix(loss=f"{(logs or {})['loss']:.3f}", refresh=False)
        ends = state.global_step >= state.max_steps or state.epoch == int(state.epoch)
        if args.eval_strategy == "no" and ends:
            self._say(state, **kwargs)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any
    ) -> None:
        """Say how the epoch went."""
        super().on_evaluate(args, state, control, **kwargs)
        if state.is_world_process_zero and metrics:
            self._say(state, metrics, **kwargs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        if self.training_bar is not None:
            super().on_train_end(args, state, control, **kwargs)

    def _say(
        self, state: Any, metrics: dict[str, float] | None = None, *, model: Any = None, **_: Any
    ) -> None:
        line = epoch_line(
            state.epoch, state.num_train_epochs, state.log_history, metrics or {},
            with_strategies=getattr(model, "counts_rows", False),
        )  # fmt: skip
        if self.training_bar is not None:
            self.training_bar.clear()
        logger.info("%s", line)
        if self.training_bar is not None:
            self.training_bar.refresh()


def epoch_line(
    epoch: float,
    epochs: float,
    history: Sequence[dict[str, Any]],
    metrics: dict[str, float],
    *,
    with_strategies: bool = False,
) -> str:
    """Return how training goes, in words.

    Args:
        epoch: epochs done; a fraction within one.
        epochs: epochs planned.
        history: log of the trainer; each loss is the mean of the steps since the one before.
        metrics: of the validation just made, with ``eval_`` before their names.
        with_strategies: whether the training loss is the sum of one per token and one per strategy,
            as MISC's is, which cannot be compared with a validation loss.

    Example:
        >>> epoch_line(1.0, 2, [{"step": 9, "epoch": 1.0, "loss": 2.5}], {"eval_nll": 2.25})
        'epoch 1 of 2: training loss 2.500, validation loss 2.250 nats per token'
    """
    said = []
    mean = mean_loss(history, after=math.ceil(epoch) - 1)
    if mean is not None:
        said.append(f"training loss {mean:.3f}{' with that of strategies' * with_strategies}")
    if "eval_nll" in metrics:
        said.append(f"validation loss {metrics['eval_nll']:.3f}")
    line = f"epoch {epoch:.3g} of {epochs:.3g}: {', '.join(said)} nats per token"
    if "eval_strategy_accuracy" in metrics:
        line += f", {metrics['eval_strategy_accuracy']:.0%} of strategies right"
    return line


def mean_loss(history: Sequence[dict[str, Any]], *, after: float = -1) -> float | None:
    """Return the mean over steps of the losses in a log, each the mean since the one before.

    Args:
        history: log of the trainer.
        after: only losses logged after this epoch count.
    """
    before, steps, total = 0, 0, 0.0
    for entry in history:
        if "loss" not in entry:
            continue
        if entry.get("epoch", 0) > after:
            steps += entry["step"] - before
            total += (entry["step"] - before) * float(entry["loss"])
        before = entry["step"]
    return total / steps if steps else None
