"""The process that performs stages for :mod:`pal.benchmark.executors.local`, one after another.

It reads tasks from standard input and writes reports to standard output, pickled. When its driver
is gone, it stops as after a Ctrl-C.
"""

import os
import pickle
import queue
import signal
import sys
import threading
import time
from typing import Any

from pal.benchmark.executors.tasks import perform_stage

GRACE = 20.0  # seconds from an interrupt to the end of a process that does not end by itself


def serve_stages() -> None:
    """Perform stages until standard input ends."""
    with os.fdopen(os.dup(1), "wb") as channel:
        os.dup2(2, 1)  # what libraries print must not stand among the reports
        signal.signal(signal.SIGINT, signal.default_int_handler)
        tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=_receive, args=(tasks,), daemon=True).start()
        while (task := tasks.get()) is not None:
            pickle.dump(perform_stage(*task), channel)
            channel.flush()


def _receive(tasks: "queue.SimpleQueue[Any]") -> None:
    while True:
        try:
            tasks.put(pickle.load(sys.stdin.buffer))
        except EOFError:
            break
        except Exception as error:  # a module of the user's that cannot be imported
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            break
    tasks.put(None)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(GRACE)
    os._exit(130)


if __name__ == "__main__":
    try:
        serve_stages()
    except (KeyboardInterrupt, BrokenPipeError):
        os._exit(130)
