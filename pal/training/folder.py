"""The folder of a training run: what it began with, its checkpoints, and what becomes of it.

``started.json`` lies there from the first step until the record, ``run.json``, takes its place. So
a folder is nothing, an interrupted run of a known identity, or a finished one.
"""

import contextlib
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pal.core.errors import DataError, OutputError
from pal.core.files import current_umask, read_json, write_json
from pal.core.job import STARTED, Job, redact

logger = logging.getLogger(__name__)

RECORD = "run.json"
LOG = "training_log.json"

# A tokenizer trained on the spot, until all processes have it; it is saved with the model.
SPOT_TOKENIZER = ".tokenizer"

# Token ids, until training is finished; an interrupted run reads them.
TOKENS = ".tokens"

# The model, until all of its files can be moved to their places.
SAVING = ".saving"

CHECKPOINT = re.compile(r"checkpoint-(\d+)")

# The file of a checkpoint that is written last.
LAST_WRITTEN = "trainer_state.json"

# The optimizer's state: of one process or DDP, of FSDP, of DeepSpeed.
OPTIMIZER = ("optimizer*", "global_step*")

# What makes a folder a model, and what makes its text token ids. What another run left of these
# would be read with the new weights: its vocabulary in place of the one they were trained with.
MODEL_FILES = (
    "model*.safetensors*", "adapter_*", "pal_config.json", "config.json", "generation_config.json",
)  # fmt: skip
TOKENIZER_FILES = (
    "tokenizer*", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json",
    "spiece.model", "sentencepiece*.model", "chat_template*",
)  # fmt: skip

# Files and folders of a checkpoint that only continued training reads. DeepSpeed's state is not
# among them: at the end the best model is loaded from it.
TRAINING_STATE = ("optimizer*", "scheduler.pt", "scaler.pt", "rng_state*", "training_args.bin")

# What DeepSpeed and FSDP load the best model from at the end; then nobody reads it any more.
SHARDED_STATE = ("global_step*", "pytorch_model_fsdp*")


class RunFolder:
    """The output folder of one run.

    Args:
        path: the folder.
        state: accelerate's process state; the first process alone writes.
        any_number: whether the run may continue on another number of processes.
    """

    def __init__(self, path: str | Path, state: Any, *, any_number: bool = False):
        self.path, self.state, self.any_number = Path(path), state, any_number

    def begun(self) -> dict[str, Any]:
        """Return the record of the finished or interrupted run that lies there, or {}."""
        for name in (RECORD, STARTED):
            if (self.path / name).exists():
                with contextlib.suppress(DataError):
                    found = read_json(self.path / name)
                    return found if isinstance(found, dict) else {}
                return {}
        return {}

    def is_finished(self, job: Job, devices: int) -> bool:
        """Return whether the folder holds this very run, finished.

        Args:
            job: the run.
            devices: how many share its steps.

        Raises:
            OutputError: another run lies there, finished or not, and is not to be replaced.
        """
        begun = self.begun()
        if job.overwrite:
            return False
        if not begun:
            self._refuse_unknown_contents()
            return False
        if (self.path / RECORD).exists():
            job.check_record(self.path / RECORD)
            return True
        if begun.get("identity") != job.identity:
            raise OutputError(
                f"{self.path} holds an unfinished run with other settings, data or versions"
                f"{job.difference_from(begun)}; give those to continue, overwrite=true to "
                "restart, or another output_dir"
            )
        if not self.any_number and begun.get("devices") != devices:
            raise OutputError(
                f"{self.path}: an unfinished run on {begun.get('devices')} processes or GPUs lies "
                f"there and would see different batches on {devices}; start the same number to "
                "continue, give overwrite=true to restart, or another output_dir (a run with a "
                "global_batch_size continues on any number, unless DeepSpeed partitions it)"
            )
        return False

    def _refuse_unknown_contents(self) -> None:
        names = [name for name in (RECORD, STARTED) if (self.path / name).exists()]
        names += [path.name for path in self.path.glob("model*.safetensors*")]
        names += [path.name for path in self.checkpoints()]
        if names:
            raise OutputError(
                f"{self.path} holds {names[0]}, and no record that can be read says what made it; "
                "give overwrite=true to replace it, or choose another output_dir"
            )

    def begin(self, job: Job, begin: Mapping[str, Any]) -> None:
        """Make the folder one of a run that begins, unless it was begun and interrupted there.

        Args:
            job: the run.
            begin: what an interrupted run continues with, its ``devices`` among it.
        """
        begun = self.begun()
        interrupted = (
            not (self.path / RECORD).exists()
            and begun.get("identity") == job.identity
            and (self.any_number or begun.get("devices") == begin["devices"])
        )
        if interrupted:
            return
        self._do(self.clear)
        record = {"identity": job.identity, "made_of": redact(job.made_of), **begin}
        self._do(lambda: write_json(self.path / STARTED, record))

    def checkpoints(self) -> list[Path]:
        """Return the folders of its checkpoints, in the order of steps."""
        return list(checkpoints_of(self.path).values())

    def last_checkpoint(self) -> Path | None:
        """Return the newest complete checkpoint; those after it, cut off by a kill, are removed."""
        last, cut = None, []
        for path in reversed(self.checkpoints()):
            if is_complete(path, None if self.any_number else self.state.num_processes):
                last = path
                break
            cut.append(path)
        self.state.wait_for_everyone()  # nobody removes before all have looked
        if cut:
            logger.warning(
                "%s holds nothing to continue from; training continues from %s",
                ", ".join(path.name for path in reversed(cut)), last.name if last else "the start",
            )  # fmt: skip
        self._do(lambda: remove_all(cut))
        return last

    def clear(self) -> None:
        """Remove what another run left: its record first, so that nothing passes for finished."""
        for name in (RECORD, STARTED, LOG):
            (self.path / name).unlink(missing_ok=True)
        for pattern in (*MODEL_FILES, *TOKENIZER_FILES):
            for path in filter(Path.is_file, self.path.glob(pattern)):
                path.unlink()
        remove_all(self.checkpoints())

    def remove(self, name: str) -> None:
        """Remove a folder of ours inside it, once all processes are done with it."""
        self._do(lambda: shutil.rmtree(self.path / name, ignore_errors=True))

    def _do(self, work: Any) -> None:
        self.state.wait_for_everyone()
        if self.state.is_main_process:
            work()
        self.state.wait_for_everyone()


def checkpoints_of(run: Path) -> dict[int, Path]:
    """Return the folders that training named ``checkpoint-STEP``, by step, in their order.

    What people keep beside them under other names, ``checkpoint-best``, is none of ours.
    """
    found = {
        int(match[1]): path
        for path in run.glob("checkpoint-*")
        if (match := CHECKPOINT.fullmatch(path.name)) and path.is_dir()
    }
    return {step: found[step] for step in sorted(found)}


def remove_checkpoint(checkpoint: Path) -> None:
    """Remove a checkpoint, its weights first: what a kill leaves of it passes for none."""
    for path in checkpoint.glob("*.safetensors"):
        path.unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


def strip_checkpoint(checkpoint: Path, *, finished: bool = False) -> None:
    """Remove from a checkpoint what only continued training reads; the model stays.

    Args:
        checkpoint: the folder.
        finished: whether training has ended, so that no best model is loaded any more.
    """
    patterns = (*TRAINING_STATE, *SHARDED_STATE) if finished else TRAINING_STATE
    for path in [path for pattern in patterns for path in checkpoint.glob(pattern)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove_all(folders: Iterable[Path]) -> None:
    """Remove folders with what is in them."""
    for folder in folders:
        shutil.rmtree(folder)


def is_complete(checkpoint: Path, processes: int | None) -> bool:
    """Return whether a checkpoint holds all that training continues from, with the same result.

    Args:
        checkpoint: its folder.
        processes: how many continue, each with what it has drawn; None where draws depend on
            batches alone.
    """
    draws = ["rng_state.pth"] if processes == 1 else []
    if processes is not None and processes > 1:
        draws = [f"rng_state_{index}.pth" for index in range(processes)]
    try:
        read_json(checkpoint / LAST_WRITTEN)
    except DataError:
        return False
    return all(zipfile.is_zipfile(checkpoint / name) for name in draws) and any(
        list(checkpoint.glob(pattern)) for pattern in OPTIMIZER
    )


def tidy_saved_files(folder: Path) -> None:
    """Let saved files have the modes that the umask gives, and no pickled arguments among them."""
    (folder / "training_args.bin").unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_file():
            os.chmod(path, 0o666 & ~current_umask())


@contextlib.contextmanager
def no_empty_folder(path: Path) -> Iterator[None]:
    """Remove what a run that never began would leave: empty folders and what was prepared.

    Raises:
        OutputError: the path is one of a file.
    """
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file; give the name of a folder as output_dir")
    created = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        begun = (path / STARTED).exists() and not (path / RECORD).exists()
        if os.environ.get("RANK", "0") == "0" and not begun:
            for name in (SPOT_TOKENIZER, TOKENS):
                shutil.rmtree(path / name, ignore_errors=True)
            for folder in created:
                with contextlib.suppress(OSError):
                    folder.rmdir()
        raise
