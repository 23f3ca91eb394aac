"""A stage as a task: what it is made of, and how any machine that sees the folder performs it.

A task names its function and holds plain arguments, so it travels to another process, to a node of
a Ray cluster or into a Slurm job as it is. What it writes is found by the identity in its name;
nothing else comes back but a short report.
"""

import contextlib
import importlib
import logging
import os
import secrets
import socket
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from pal.benchmark.settings import StageKind
from pal.cluster.nodes import NodeContext, describe_process, not_shared, portable_error
from pal.core.errors import OutputInUse
from pal.core.files import write_text
from pal.core.job import record_beside, record_path

logger = logging.getLogger(__name__)

LOGS = "logs"  # folder of the stages' messages, beside their outputs

# Seconds that a stage waits for the lock of another process that is writing its output: one whose
# node or driver died needs a moment to notice.
PATIENCE = 120.0


@dataclass(frozen=True)
class StageTask:
    """One stage of a benchmark: a call that writes one output.

    Attributes:
        kind: what it is, for its resources.
        label: as shown.
        function: ``module:name`` of the function that does the work.
        arguments: its arguments.
        options: its arguments by name.
        output: file or folder that it writes; the identity of the work is part of its name.
        identity: identity that the output's record must have; None where the name suffices.
        on_gpu: whether it computes where a GPU would help.
    """

    kind: StageKind
    label: str
    function: str
    arguments: tuple[Any, ...]
    output: Path
    identity: str | None = None
    on_gpu: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name, unique in the benchmark's folder."""
        if self.kind == "score":
            return "scores"
        return f"{self.output.parent.name}-{self.output.stem}"

    def is_done(self) -> bool:
        """Return whether the output exists with the record of the job that made it.

        Both are written atomically, so what exists is whole; a damaged record is that of no job.
        """
        if not (self.output.exists() and record_path(self.output).exists()):
            return False
        return self.identity is None or record_beside(self.output).get("identity") == self.identity

    def perform(self) -> None:
        """Do the work in this process.

        Raises:
            PalError: it cannot be done.
        """
        module, _, name = self.function.partition(":")
        getattr(importlib.import_module(module), name)(*self.arguments, **self.options)


@dataclass
class StageReport:
    """How a stage ended.

    Attributes:
        outcome: ``finished``; ``failed`` with an error of its own; ``stopped`` by an interrupt;
            ``died`` where its process or node ended without a word.
        host: where it ran.
        seconds: how long it took.
        error: its error.
        trace: the error's traceback, or why it died.
        warnings: warnings that it logged.
    """

    outcome: Literal["finished", "failed", "stopped", "died"]
    host: str = ""
    seconds: float = 0.0
    error: BaseException | None = None
    trace: str = ""
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class StageContext(NodeContext):
    """What a stage needs of the process that asks for it.

    Attributes:
        root: folder of the benchmark.
        token: contents of the file that shows that a node sees the same folder.
    """

    root: Path
    token: str

    @classmethod
    def of_this_process(cls, root: Path, variables: Sequence[str] | None = None) -> "StageContext":
        """Return that of this process, and mark the folder.

        Args:
            root: folder of the benchmark.
            variables: variables to hand over besides the libraries'; None where the stages'
                processes have this one's environment anyway, so that no key is written anywhere.
        """
        mark = root.absolute() / LOGS / ".folder"
        mark.parent.mkdir(parents=True, exist_ok=True)
        if not mark.exists():
            write_text(mark, secrets.token_hex(8))
        token = mark.read_text(encoding="utf-8")
        return cls(root=root.absolute(), token=token, **describe_process(variables))

    def enter(self) -> None:
        """Make this process one that computes the same as the one that asks.

        Raises:
            ConfigError: it cannot: another folder, or other versions.
        """
        mark = self.root / LOGS / ".folder"
        if not mark.exists() or mark.read_text(encoding="utf-8") != self.token:
            raise not_shared(socket.gethostname(), self.root)
        super().enter()


def perform_stage(stage: StageTask, context: StageContext) -> StageReport:
    """Perform a stage on whatever machine this is, and report how it ended.

    Its messages go to a file of its name in ``logs``, one headed part an attempt. A stage whose
    output is there is not done again. An output that another process is writing is waited for.
    """
    began, warned = time.monotonic(), _Warnings()
    report = StageReport("finished", host=socket.gethostname(), warnings=warned.found)
    before = os.getcwd()
    try:
        context.enter()
        with _log_of(stage, context.root) as file, warned:
            done = _perform_once(stage)
            file.write("== finished\n" if done else "== done by another process\n")
    except KeyboardInterrupt:
        report.outcome = "stopped"
    except BaseException as error:
        report.outcome, report.trace = "failed", traceback.format_exc()
        report.error = portable_error(error)
    finally:
        os.chdir(before)
    report.seconds = time.monotonic() - began
    return report


def _perform_once(stage: StageTask) -> bool:
    """Perform a stage unless its output is there, and return whether this process did."""
    until = time.monotonic() + PATIENCE
    while not stage.is_done():
        try:
            stage.perform()
            return True
        except OutputInUse:
            if time.monotonic() > until:
                raise
        time.sleep(0.5)
    return False


@contextlib.contextmanager
def _log_of(stage: StageTask, root: Path) -> Iterator[IO[str]]:
    """Append what the stage prints and logs to its file."""
    path = root / LOGS / f"{stage.name}.log"
    with path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1) as file:
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(f"== {stage.label}: {when}, {socket.gethostname()}, process {os.getpid()}\n")
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            try:
                yield file
            except BaseException:
                file.write(traceback.format_exc())
                raise


class _Warnings(logging.Handler):
    """Collects the warnings of a stage, for the driver to show."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.getMessage())

    def __enter__(self) -> None:
        logging.getLogger("pal").addHandler(self)

    def __exit__(self, *error: object) -> None:
        logging.getLogger("pal").removeHandler(self)
