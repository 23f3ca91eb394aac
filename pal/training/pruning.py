"""Checkpoints go while a run trains, as soon as nothing can choose them or continue from them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from pal.training.folder import checkpoints_of, remove_checkpoint, strip_checkpoint

# Validations so far → steps whose checkpoints can be chosen.
Choosable = Callable[[Sequence[Mapping[str, Any]]], Collection[int]]


class PruneCheckpoints(TrainerCallback):
    """Removes checkpoints that nothing can choose or continue from, as each new one is complete.

    Of a run of forty epochs no more than a few lie on the disk. The newest keeps its training
    state, with which an interrupted run continues; of older ones the model alone stays, and only
    where it can be chosen.

    Args:
        output: folder of the run.
        choosable: returns, of the validations so far, the steps whose checkpoints can be chosen.
    """

    def __init__(self, output: Path, choosable: Choosable):
        self.output, self.choosable = output, choosable

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remove what the checkpoint that was just written makes useless."""
        if not state.is_world_process_zero:
            return
        kept = {*self.choosable([entry for entry in state.log_history if "eval_nll" in entry])}
        kept.add(state.best_global_step)  # what transformers loads at the end
        for step, folder in checkpoints_of(self.output).items():
            if step >= state.global_step:
                continue
            if step in kept:
                strip_checkpoint(folder)
            else:
                remove_checkpoint(folder)


class LimitCheckpoints(TrainerCallback):
    """Keeps no more checkpoints than ``save_total_limit`` says, the best and the newest among them.

    transformers counts and removes every folder ``checkpoint-*``, also one that a user made.

    Args:
        output: folder of the run.
        limit: maximum number of checkpoints; two where the best is not the newest.
    """

    def __init__(self, output: Path, limit: int):
        self.output, self.limit = output, limit

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remove the oldest ones that are too many."""
        if not args.should_save:
            return
        found = checkpoints_of(self.output)
        kept = {state.best_global_step, max(found)} & found.keys()
        others = [step for step in found if step not in kept]
        for step in others[: max(0, len(found) - max(self.limit, len(kept)))]:
            remove_checkpoint(found[step])
