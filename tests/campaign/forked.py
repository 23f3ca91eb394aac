"""Runs ``pal`` again and again without paying for imports, in processes of :mod:`tests.warm`."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.jobs import ROOT, environment
from tests.warm import WarmProcess, import_there

CODE = "from tests.campaign.forked import follow; follow()"


class Forked:
    """Commands in processes of their own.

    Args:
        log: file that holds what the last command said.
    """

    def __init__(self, log):
        self.log = log
        self.imported = log.with_suffix(".modules")

    def __call__(self, *arguments, kill_after=None, clock=None, writers=1):
        """Run a command and return its ``code``, ``seconds``, and the ``codes`` of all writers.

        Args:
            arguments: of the command.
            kill_after: seconds after which it is killed with SIGKILL; its code is −9 then.
            clock: a seed; the clock of the process then jumps by hours and days, back and forth.
            writers: how many processes run the command at the same time.
        """
        learns = kill_after is None and writers == 1
        call = [str(argument) for argument in arguments]
        order = json.dumps([call, clock, str(self.imported) if learns else None])
        started = time.monotonic()
        with self.log.open("wb", buffering=0) as log:
            running = [
                WarmProcess(
                    CODE, [order], env=environment(OMP_NUM_THREADS="1"), cwd=ROOT,
                    stdin=subprocess.DEVNULL, stdout=log.fileno(), stderr=log.fileno(),
                    start_new_session=True,
                )
                for _ in range(writers)
            ]  # fmt: skip
        try:
            running[0].wait(kill_after)
        except subprocess.TimeoutExpired:
            try:
                os.killpg(running[0].pid, signal.SIGKILL)
            except ProcessLookupError:  # it has no group of its own yet
                running[0].kill()
        codes = [process.wait() for process in running]
        seconds = time.monotonic() - started
        if learns and codes[0] in (0, 2):
            import_there(json.loads(self.imported.read_text()))
        return {"code": codes[0], "codes": codes, "seconds": seconds}


def follow():
    """Run the command that the arguments of this process say."""
    from pal.cli import main

    arguments, clock, imported = json.loads(sys.argv[1])
    before = set(sys.modules)
    if clock is not None:
        jumping(clock)
    code = main(arguments)
    if imported is not None:  # later commands do not pay for it
        Path(imported).write_text(json.dumps([name for name in sys.modules if name not in before]))
    sys.exit(code)


def jumping(seed):
    """Let the wall clock jump at every tenth look at it or so; the monotonic one goes on."""
    chance, right, shift = random.Random(seed), time.time, [0.0]

    def now():
        if chance.random() < 0.1:
            shift[0] = chance.choice((-1, 1)) * chance.choice((1, 3600, 86400, 10 * 365 * 86400))
        return right() + shift[0]

    time.time = now
    time.time_ns = lambda: int(now() * 1e9)
    local, format_time = time.localtime, time.strftime
    time.localtime = lambda seconds=None: local(now() if seconds is None else seconds)
    time.strftime = lambda form, moment=None: format_time(form, moment or time.localtime())
