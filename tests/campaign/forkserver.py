"""Runs ``pal`` again and again without paying for imports: one forked process a command.

Reads one JSON object a line, ``{"arguments", "kill_after"?, "log"}``, and answers each with
``{"code", "seconds"}``; the code of a killed process is −9.
"""

import json
import os
import signal
import sys
import time


def preload():
    """Import what commands import, and compute nothing: threads would not survive a fork."""
    import accelerate  # noqa: F401
    import datasets  # noqa: F401
    import optuna  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401
    from transformers import Seq2SeqTrainer  # noqa: F401

    import pal.modeling.pal
    import pal.training.trainer  # noqa: F401


def run(arguments, log, kill_after=None):
    """Run a command in a process of its own, and kill it after so many seconds."""
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.setsid()
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        code = 1
        try:
            from pal.cli import main

            code = main(arguments)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    if kill_after is not None:
        while time.monotonic() - started < kill_after:
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break
            time.sleep(0.005)
        else:
            try:
                os.killpg(child, signal.SIGKILL)
            except ProcessLookupError:  # it has no group of its own yet
                os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return {"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - started}


if __name__ == "__main__":
    from pal.core.runtime import configure_runtime

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    configure_runtime()
    preload()
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        found = run(order["arguments"], order["log"], order.get("kill_after"))
        print(json.dumps(found), file=answers, flush=True)
