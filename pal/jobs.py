"""Long jobs over batches: shared among processes, with progress, resumable at any moment."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pal.errors import OutputError
from pal.records import Journal, fingerprint, output_lock, read_json

logger = logging.getLogger(__name__)


def record_path(output: str | Path) -> Path:
    """Return where the record of a run lies: inside a folder, or beside a file."""
    output = Path(output)
    return output / "run.json" if output.is_dir() else output.with_name(output.name + ".run.json")


def is_finished(output: str | Path, identity: str, *, overwrite: bool) -> bool:
    """Whether ``output`` was finished by a run of this very identity.

    Raises:
        OutputError: something else is there and ``overwrite`` is not set.
    """
    output = Path(output)
    if output.is_dir() and not (output / "run.json").exists():
        raise OutputError(f"{output} is a folder; give the name of a file in it")
    if overwrite or not output.exists():
        return False
    record = record_path(output)
    if record.exists() and read_json(record).get("identity") == identity:
        return True
    raise OutputError(
        f"{output} exists and was not made by these settings, inputs and weights; "
        "give overwrite=true to replace it, or choose another output"
    )


def process_state() -> Any:
    """Return accelerate's process state: which of how many processes this is, on which device.

    Without an accelerator, or with ACCELERATE_USE_CPU set, processes meet over the CPU.
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=on_cpu)


@contextlib.contextmanager
def claimed(output: str | Path) -> Iterator[Any]:
    """Hold the output for this job's processes; yields accelerate's process state."""
    state = process_state()
    with contextlib.ExitStack() as stack:
        if state.is_main_process:
            stack.enter_context(output_lock(output))
        state.wait_for_everyone()
        yield state


def run_batches(
    batches: Sequence[Sequence[int]],
    work: Callable[[Sequence[int]], list[Any]],
    *,
    output: str | Path,
    identity: str,
    state: Any,
    description: str,
    overwrite: bool = False,
) -> dict[int, Any] | None:
    """Do every batch once, across processes and interruptions.

    Finished batches go to a journal beside the output; those found there are not done again.
    Batches are dealt out to the processes in turn, so each gets long and short ones.

    Args:
        batches: the plan, lists of item indices.
        work: computes one result an item of a batch.
        output: the file the results will become; names the journal.
        identity: hash of all that determines the results but the plan.
        state: accelerate's process state.
        description: what the progress bar says.
        overwrite: forget unfinished work of another identity.

    Returns:
        Results by item index on the main process, None on the others.

    Raises:
        OutputError: unfinished work of another identity lies there, or the disk is full.
    """
    from tqdm.auto import tqdm

    journal = Journal(output, fingerprint([identity, batches]), part=state.process_index)
    if overwrite and state.is_main_process:
        try:  # of an interrupted run of the very same job, so go on
            journal.read()
        except OutputError:
            journal.delete()
    state.wait_for_everyone()
    done = journal.read()
    state.wait_for_everyone()  # nobody appends before all have read
    if done and state.is_main_process:
        logger.info("%s: going on, %d of %d batches were done", output, len(done), len(batches))
    todo = [index for index in range(len(batches)) if str(index) not in done]
    mine = todo[state.process_index :: state.num_processes]
    share = len(mine) / max(len(todo), 1)
    bar = tqdm(
        total=sum(map(len, batches)),
        initial=sum(len(batch) for index, batch in enumerate(batches) if str(index) in done),
        desc=description,
        unit="item",
        disable=not state.is_main_process,
        dynamic_ncols=True,
        smoothing=0.05,
    )
    with bar:
        for index in mine:
            journal.append(str(index), work(batches[index]))
            bar.update(len(batches[index]) / share)
    journal.close()
    state.wait_for_everyone()
    if not state.is_main_process:
        return None
    done = journal.read()
    return {
        item: result
        for index, batch in enumerate(batches)
        for item, result in zip(batch, done[str(index)], strict=True)
    }


def finish(output: str | Path, identity: str) -> None:
    """Remove the journal of a job whose output is written."""
    Journal(output, identity).delete()
