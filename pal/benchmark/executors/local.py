"""Stages side by side on this machine: a few processes, each doing one stage after another."""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pal.benchmark.executors.tasks import LOGS, StageContext, StageReport, StageTask
from pal.benchmark.executors.worker import GRACE


class LocalExecutor:
    """Performs stages in processes of this machine.

    A process keeps what it imported for its next stage. GPUs are dealt to the processes in turn, so
    each sees one, and several may see the same.

    Args:
        context: what the stages need of this process.
        workers: number of processes.
    """

    def __init__(self, context: StageContext, workers: int):
        self.context = context
        self.width: int | None = workers
        self.count = workers
        self.workers: list[_Worker] = []
        self.ended: queue.SimpleQueue[tuple[StageTask, StageReport]] = queue.SimpleQueue()
        self.gpus = visible_gpus()

    def submit(self, stage: StageTask) -> None:
        """Hand a stage to an idle process; start one if there is none."""
        self.workers = [one for one in self.workers if one.alive]
        idle = next((one for one in self.workers if one.stage is None), None)
        if idle is None:
            taken = {one.place for one in self.workers}
            place = next(n for n in range(self.count + 1) if n not in taken)
            gpu = self.gpus[place % len(self.gpus)] if self.gpus else None
            idle = _Worker(place, self.context, self.ended, self.count, gpu)
            self.workers.append(idle)
        idle.perform(stage)

    def wait(self, seconds: float) -> list[tuple[StageTask, StageReport]]:
        """Return the stages that ended."""
        try:
            return [self.ended.get(timeout=seconds)]
        except queue.Empty:
            return []

    def stop(self) -> None:
        """Interrupt all processes as a Ctrl-C does; kill those that do not end."""
        for one in self.workers:
            one.interrupt()
        until = time.monotonic() + GRACE
        while any(one.stage for one in self.workers) and time.monotonic() < until:
            time.sleep(0.05)
        self._end(5.0)

    def close(self) -> None:
        """End the processes, which are idle."""
        self._end(5.0)

    def _end(self, patience: float) -> None:
        until = time.monotonic() + patience
        for one in self.workers:
            one.end(max(until - time.monotonic(), 0.1))
        self.workers = []


class _Worker:
    """One process, and the thread that listens to it."""

    def __init__(
        self, place: int, context: StageContext,
        ended: "queue.SimpleQueue[tuple[StageTask, StageReport]]", width: int, gpu: str | None,
    ):  # fmt: skip
        self.place, self.context, self.ended = place, context, ended
        self.stage: StageTask | None = None
        self.alive, self.lock = True, threading.Lock()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(context.modules)}
        # Threads of processes that share the cores would wait for each other.
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // width)))
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        with open(context.root / LOGS / "workers.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pal.benchmark.executors.worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment,
                start_new_session=True,  # a Ctrl-C reaches the driver, which stops them
            )  # fmt: skip
        threading.Thread(target=self._listen, daemon=True).start()

    def perform(self, stage: StageTask) -> None:
        with self.lock:
            self.stage = stage
            if not self.alive:
                self._died()
                return
        with contextlib.suppress(BrokenPipeError):  # it died; the listener says so
            pickle.dump((stage, self.context), self._stdin())
            self._stdin().flush()

    def _stdin(self) -> Any:
        return self.process.stdin

    def _listen(self) -> None:
        while True:
            try:
                report = pickle.load(self.process.stdout)  # type: ignore[arg-type]
            except (EOFError, pickle.UnpicklingError):
                break
            stage, self.stage = self.stage, None
            if stage is not None:
                self.ended.put((stage, report))
        self.process.wait()
        with self.lock:
            self.alive = False
            self._died()

    def _died(self) -> None:
        stage, self.stage = self.stage, None
        if stage is not None:
            self.ended.put((stage, StageReport("died", trace=_ending(self.process.wait()))))

    def interrupt(self) -> None:
        if self.stage is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)

    def end(self, patience: float) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._stdin().close()
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def visible_gpus() -> Sequence[str]:
    """Return the GPUs of this machine that the user lets this process see, by name."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return []
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
