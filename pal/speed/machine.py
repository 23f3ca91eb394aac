"""Description and measured ceilings of this machine, and the time and memory of a call."""

import contextlib
import ctypes
import gc
import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROBE = (
    1024  # half the rows of the matrices that measure a CPU's rate; a GPU's have 8 times as many
)
ROUNDS = 5


def machine() -> dict[str, Any]:
    """Return the processor's name and the number of its cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:  # not Linux
        names = []
    return {"cpu": names[0] if names else platform.processor(), "cores": os.cpu_count()}


def clock(call: Callable[[], object]) -> float:
    """Return the seconds a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


@dataclass(frozen=True)
class Ceiling:
    """The measured maximum rates of a machine.

    Attributes:
        flops: rate of a large matrix product, floating-point operations per second.
        bandwidth: rate of reading memory, bytes per second.
    """

    flops: float
    bandwidth: float


def measure_ceiling(device: Any, dtype: Any) -> Ceiling:
    """Measure the rates of a large matrix product in ``dtype`` and of a read of much memory.

    Each rate is the best of five. On a CPU it is the product of the faster library: MKL, which
    torch calls in float32, or oneDNN, as packed layers call it. On AMD's processors MKL reaches
    less than half of the other's rate.
    """
    import torch

    from pal.modeling.packed import multiply_reordered, packs, reorder_weight

    small = torch.device(device).type == "cpu"
    size = PROBE * (1 if small else 4)
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    long = torch.ones(2**27 if small else 2**30, device=device)  # 0.5 or 4 GiB
    calls: list[Callable[[], Any]] = [long.sum, lambda: left @ right]
    if packs(torch.device(device), dtype):
        packed = reorder_weight(right)
        calls.append(lambda: multiply_reordered(left, packed, None))
    read, *products = (min(_timed(call, device)[1] for _ in range(ROUNDS)) for call in calls)
    return Ceiling(2 * size**3 / min(products), long.numel() * 4 / read)


def synchronize(device: Any) -> None:
    """Wait until the device has finished all its work."""
    import torch

    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize()


@dataclass(frozen=True)
class Taken:
    """Time and memory of a call.

    Attributes:
        seconds: wall time, in seconds.
        memory: peak memory beyond that before the call, on the model's device, in bytes.
        processor: seconds that the processor computed for it, all threads together, which other
            work on the machine hardly changes; None where a GPU computes.
    """

    seconds: float
    memory: int
    processor: float | None = None


def measure_call(call: Callable[[], Any], device: Any) -> tuple[Any, Taken]:
    """Run a call and return its result with its time and memory.

    On a CPU the peak is that of the resident memory of the process, sampled every 5 ms.
    """
    import torch

    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        result, seconds = _timed(call, device)
        return result, Taken(seconds, torch.cuda.max_memory_allocated() - before)
    _give_back_memory()
    started = time.process_time()
    with _ResidentPeak() as resident:
        result, seconds = _timed(call, device)
    return result, Taken(seconds, resident.peak, time.process_time() - started)


def _give_back_memory() -> None:
    """Give freed memory back to the system, lest a call seem to need none that was held before."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def _timed(call: Callable[[], Any], device: Any) -> tuple[Any, float]:
    synchronize(device)
    started = time.perf_counter()
    result = call()
    synchronize(device)
    return result, time.perf_counter() - started


class _ResidentPeak:
    """Watches the process's resident memory from a thread."""

    def __enter__(self) -> "_ResidentPeak":
        import psutil

        self._process = psutil.Process()
        self._before = self._process.memory_info().rss
        self.peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.peak = max(self.peak, self._process.memory_info().rss - self._before)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
