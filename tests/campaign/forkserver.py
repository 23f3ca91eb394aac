"""Runs ``pal`` again and again without paying for imports: one forked process a command.

Reads one JSON object a line and answers each with ``{"code", "codes", "seconds"}``. A command is:

- ``arguments``: of the command;
- ``log``: file that its messages are appended to;
- ``kill_after``: seconds after which it is killed with SIGKILL; its code is −9 then;
- ``clock``: a seed; the clock of the process then jumps by hours and days, back and forth;
- ``largest``: bytes beyond which no file can grow (RLIMIT_FSIZE);
- ``writers``: how many processes run the command at the same time;
- ``learn``: whether what it imported is imported here, once for all that come later.
"""

import importlib
import json
import os
import random
import resource
import signal
import sys
import time


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


def start(order):
    """Start a command in a process of its own, and return its number."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    handle = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    code, before = 1, set(sys.modules)
    try:
        from pal.cli import main

        if "clock" in order:
            jumping(order["clock"])
        if "largest" in order:
            resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest"], order["largest"]))
        code = main(order["arguments"])
        if "learn" in order:
            new = [name for name in sys.modules if name not in before and name != "__main__"]
            with open(order["learn"], "w") as handle:
                json.dump(new, handle)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def learn(path):
    """Import the modules that a file names, those that can be."""
    with open(path) as handle:
        names = json.load(handle)
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:  # made by a library as it ran
            continue


def run(order):
    """Run a command as an order says."""
    started = time.monotonic()
    children = [start(order) for _ in range(order.get("writers", 1))]
    kill_after = order.get("kill_after")
    if kill_after is not None:
        while time.monotonic() - started < kill_after:
            if os.waitid(os.P_PID, children[0], os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break
            time.sleep(0.005)
        else:
            try:
                os.killpg(children[0], signal.SIGKILL)
            except ProcessLookupError:  # it has no group of its own yet
                os.kill(children[0], signal.SIGKILL)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if "learn" in order and os.path.exists(order["learn"]):
        learn(order["learn"])
    return {"code": codes[0], "codes": codes, "seconds": time.monotonic() - started}


if __name__ == "__main__":
    from pal.core.runtime import configure_runtime
    from tests.warm import preload

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    configure_runtime()
    preload()
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), file=answers, flush=True)
