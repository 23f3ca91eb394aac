"""Which stage comes next: in turn in this process, or as many as an executor takes, side by side.

A run of the benchmark is a generator. It yields lists of stages that may be done in any order, is
continued when all of a list are done, and returns its result. What a stage is can therefore depend
on what earlier ones wrote, such as the checkpoint that is chosen.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from itertools import groupby
from typing import Protocol, Self, TypeVar

from pal.benchmark.executors.progress import StageBar
from pal.benchmark.executors.tasks import LOGS, StageContext, StageReport, StageTask
from pal.core.errors import OutputError, PalError

logger = logging.getLogger(__name__)

T = TypeVar("T")
StageRun = Generator[list[StageTask], None, T]

ATTEMPTS = 3  # how often a stage is tried whose process or node dies

# Seconds until what another node wrote must be seen here; network file systems cache what is not
# there for half a minute.
VISIBLE_AFTER = 90.0


class StageExecutor(Protocol):
    """Performs stages somewhere.

    Attributes:
        width: how many stages it takes at once; None for any number.
    """

    width: int | None

    def submit(self, stage: StageTask) -> None:
        """Begin a stage, or find it again where an earlier driver began it."""

    def wait(self, seconds: float) -> list[tuple[StageTask, StageReport]]:
        """Return the stages that ended, waiting for one at most so long."""

    def stop(self) -> None:
        """Stop what runs, and return when nothing runs any more."""

    def close(self) -> None:
        """Let go of processes and connections, when nothing runs."""


def do_in_turn(runs: Sequence[StageRun[T]], announce: Callable[[str, bool], None]) -> list[T]:
    """Do the stages of one run after another in this process, and return the results.

    Args:
        runs: the runs.
        announce: function of a stage's label and whether its output exists already.
    """
    results = []
    for run in runs:
        try:
            while True:
                for label, found in groupby(next(run), key=lambda stage: stage.label):
                    group = list(found)
                    announce(label, all(stage.is_done() for stage in group))
                    for stage in group:
                        if not stage.is_done():
                            stage.perform()
        except StopIteration as end:
            results.append(end.value)
    return results


class SideBySide:
    """Does the stages of several runs at once.

    A stage that several runs need is done once. One whose process or node died is tried again; one
    that failed with an error of its own stops everything.

    Args:
        executor: what performs them.
        context: what they need of this process.
        planned: number of stages by kind, for the bar.
    """

    def __init__(
        self, executor: StageExecutor, context: StageContext, planned: Mapping[str, int]
    ):  # fmt: skip
        self.executor, self.context, self.planned = executor, context, planned
        self.queue: deque[StageTask] = deque()
        self.running: dict[str, tuple[StageTask, float]] = {}
        self.attempts: dict[str, int] = {}
        self._bar: StageBar | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
        self.executor.close()

    @property
    def bar(self) -> StageBar:
        """The bar, which the first run shows."""
        assert self._bar is not None
        return self._bar

    def run(self, runs: Sequence[StageRun[T]]) -> list[T]:
        """Do all stages of the runs, and return their results in order.

        Raises:
            PalError: a stage failed, or its process died every time; the others were stopped.
        """
        if self._bar is None:
            self._bar = StageBar(self.planned, self.executor.width)
        results: dict[int, T] = {}
        awaited: dict[int, dict[str, StageTask]] = {}

        def advance(number: int) -> None:
            """Continue a run until it waits for a stage."""
            try:
                while not awaited.get(number):
                    stages = next(runs[number])
                    awaited[number] = {
                        stage.name: stage for stage in stages if not self._is_done(stage)
                    }
            except StopIteration as end:
                results[number] = end.value
                return
            pending = {stage.name for stage in self.queue} | set(self.running)
            self.queue.extend(s for name, s in awaited[number].items() if name not in pending)

        try:
            for number in range(len(runs)):
                advance(number)
            while len(results) < len(runs):
                for stage, seconds in self._step():
                    for number in [n for n, names in awaited.items() if stage.name in names]:
                        self.bar.done(awaited[number].pop(stage.name), seconds)
                        seconds = None  # what other runs share took no time of its own
                        if not awaited[number]:
                            advance(number)
        except BaseException:
            self.bar.close()
            if self.running:
                logger.info("stopping %d stages; what they finished is kept", len(self.running))
            self.executor.stop()
            raise
        return [results[number] for number in range(len(runs))]

    def _is_done(self, stage: StageTask) -> bool:
        if not stage.is_done():
            return False
        self.bar.done(stage)
        return True

    def _step(self) -> list[tuple[StageTask, float | None]]:
        """Submit what there is room for, wait a moment, and return what is done now."""
        width = self.executor.width
        while self.queue and (width is None or len(self.running) < width):
            stage = self.queue.popleft()
            self.attempts[stage.name] = self.attempts.get(stage.name, 0) + 1
            self.executor.submit(stage)
            self.running[stage.name] = stage, time.monotonic()
        self.bar.show(self.running.values())
        finished: list[tuple[StageTask, float | None]] = []
        for stage, report in self.executor.wait(0.5):
            del self.running[stage.name]
            for text in report.warnings:
                self.bar.bar.clear()
                logger.warning("%s: %s", stage.label, text)
            if report.outcome == "finished":
                self._see(stage, report)
                finished.append((stage, report.seconds))
            elif report.outcome == "failed":
                raise self._failure(stage, report)
            elif stage.is_done():  # it ended between its publication and its report
                finished.append((stage, report.seconds))
            else:
                self._try_again(stage, report)
        return finished

    def _see(self, stage: StageTask, report: StageReport) -> None:
        """Wait until an output that a node wrote is seen here.

        Raises:
            OutputError: it is not.
        """
        until = time.monotonic() + VISIBLE_AFTER
        while not stage.is_done():
            if time.monotonic() > until:
                raise OutputError(
                    f"{stage.label}: {report.host} finished it, and {stage.output} is not seen "
                    "here; output_dir must be on storage that all nodes share"
                )
            list(stage.output.parent.glob("*"))  # makes a network file system look again
            time.sleep(0.2)

    def _try_again(self, stage: StageTask, report: StageReport) -> None:
        why, count = report.trace or "it was stopped from outside", self.attempts[stage.name]
        if count >= ATTEMPTS:
            raise OutputError(
                f"{stage.label}: its process died {count} times ({why}); {self._log(stage)} has "
                "its messages; perhaps it needs more memory (fewer reproduce.workers, more in "
                "reproduce.resources); run the same command again to continue"
            )
        self.bar.bar.clear()
        logger.warning("%s: its process died (%s); it is retried", stage.label, why)
        self.queue.appendleft(stage)

    def _failure(self, stage: StageTask, report: StageReport) -> BaseException:
        error = report.error
        if isinstance(error, PalError):
            return type(error)(f"{stage.label}: {error}")
        if error is None:
            return RuntimeError(f"{stage.label}: {report.trace}")
        error.add_note(f"{stage.label}, on {report.host}:\n{report.trace}")
        return error

    def _log(self, stage: StageTask) -> str:
        return str(self.context.root / LOGS / f"{stage.name}.log")
