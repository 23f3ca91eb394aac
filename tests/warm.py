"""Processes that start at once: forks of one that has imported what commands import.

A fresh process spends seconds on imports before it does what a test looks at. These get arguments,
environment, folder and streams of their own, and are killed as any process is.
What depends on how Python itself starts, on the order of imports or on variables that libraries
read as they are imported needs a fresh one; see :func:`tests.jobs.python`.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from functools import cache

# ------------------------------------------------------------------------- on the side of the tests


@cache
def _server():
    """The connection to the process that forks; it ends when this one does."""
    from tests.jobs import ROOT, environment

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    subprocess.Popen(
        [sys.executable, "-m", "tests.warm", str(theirs.fileno())], cwd=ROOT,
        env=environment(), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
    )  # fmt: skip
    theirs.close()
    return ours


class WarmProcess:
    """What tests use of :class:`subprocess.Popen`, of a process that is forked.

    Args:
        code: Python code that it runs.
        arguments: what the code finds in ``sys.argv[1:]``.
        env: all variables of its environment.
        cwd: its folder.
        stdin, stdout, stderr: PIPE, DEVNULL or a file descriptor.
        text: whether pipes carry text.
        start_new_session: whether it begins a session.
    """

    def __init__(
        self, code, arguments, *, env, stdin, stdout, stderr, cwd=".", text=False,
        start_new_session=False,
    ):  # fmt: skip
        theirs, ours = [], []
        for number, given in enumerate((stdin, stdout, stderr)):
            mine = None
            if given == subprocess.PIPE:
                read, write = os.pipe()
                end, mode = (write, "w") if number == 0 else (read, "r")
                mine = os.fdopen(end, mode if text else mode + "b")
                theirs.append(read if number == 0 else write)
            elif given == subprocess.DEVNULL:
                theirs.append(os.open(os.devnull, os.O_RDWR))
            else:
                theirs.append(os.dup(given))
            ours.append(mine)
        self.stdin, self.stdout, self.stderr = ours
        self._status, told = os.pipe()
        order = {"code": code, "arguments": [str(one) for one in arguments], "env": env,
                 "cwd": os.path.abspath(cwd), "session": start_new_session}  # fmt: skip
        socket.send_fds(_server(), [json.dumps(order).encode()], [*theirs, told])
        for descriptor in (*theirs, told):
            os.close(descriptor)
        self.args, self.returncode = code, None
        self.pid = self._number()

    def _number(self):
        found = os.read(self._status, 8)
        assert found, "the process that forks has ended"
        return int.from_bytes(found, "little", signed=True)

    def wait(self, timeout=None):
        """Return the exit code; raise TimeoutExpired if there is none in time."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = self._number()
            os.close(self._status)
        return self.returncode

    def poll(self):
        """Return the exit code, or None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number):
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def communicate(self, input=None, timeout=None):
        """Give it its input, and return (standard output, standard error) when it has ended."""
        said, end = {}, None if timeout is None else time.monotonic() + timeout

        def listen(pipe):
            said[pipe] = pipe.read()
            pipe.close()

        pipes = [pipe for pipe in (self.stdout, self.stderr) if pipe is not None]
        threads = [threading.Thread(target=listen, args=(pipe,), daemon=True)
                   for pipe in pipes if not pipe.closed]  # fmt: skip
        for thread in threads:
            thread.start()
        if input is not None:
            with contextlib.suppress(BrokenPipeError), self.stdin:  # it may read no further
                self.stdin.write(input)
        for thread in threads:
            thread.join(None if end is None else max(0, end - time.monotonic()))
        self.wait(None if end is None else max(0, end - time.monotonic()))
        return said.get(self.stdout), said.get(self.stderr)


def import_there(names):
    """Let the process that forks import modules, those that can be, for all forks to come."""
    _server().send(json.dumps(names).encode())


# ------------------------------------------------------------------------- on the other side


def preload():
    """Import what commands import, and compute nothing: threads would not survive a fork."""
    import accelerate  # noqa: F401
    import datasets  # noqa: F401
    import openai  # noqa: F401
    import optuna  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401
    from transformers import Seq2SeqTrainer  # noqa: F401

    import pal.modeling.pal
    import pal.training.trainer  # noqa: F401


def _serve(connection):
    """Fork for each order; return it in the process that is to follow it."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, 2**20, 4)
        if not message:
            sys.exit()  # the tests have ended
        if not descriptors:
            for name in json.loads(message):
                with contextlib.suppress(Exception):  # made by a library as it ran
                    importlib.import_module(name)
            continue
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # those that have ended
                continue
        if os.fork():
            for descriptor in descriptors:
                os.close(descriptor)
            continue
        # A process that waits for the one that does the work, and tells how it ended.
        connection.close()
        *streams, told = descriptors
        child = os.fork()
        if not child:
            os.close(told)
            return json.loads(message), streams
        for descriptor in streams:
            os.close(descriptor)
        os.write(told, child.to_bytes(8, "little"))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(told, code.to_bytes(8, "little", signed=True))
        os._exit(0)


def _become(order, streams):
    """Take the streams, environment and folder of an order."""
    if order["session"]:
        os.setsid()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    sys.argv = ["-c", *order["arguments"]]
    modes = [("r", {}), ("w", {"buffering": 1 if os.isatty(1) else -1}),
             ("w", {"buffering": 1, "errors": "backslashreplace"})]  # fmt: skip
    streams = (os.fdopen(number, mode, closefd=False, **how)
               for number, (mode, how) in enumerate(modes))  # fmt: skip
    sys.stdin, sys.stdout, sys.stderr = streams
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr


def _run(code):
    """Run code as the program; end as Python does, but for the second that freeing it all takes."""
    main, result = types.ModuleType("__main__"), 0
    sys.modules["__main__"] = main
    try:
        exec(compile(code, "<string>", "exec"), main.__dict__)
    except SystemExit as stop:
        result = stop.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        result = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(result)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the tests
    from pal.core.runtime import configure_runtime

    configure_runtime()
    preload()
    gc.freeze()
    order, streams = _serve(socket.socket(fileno=int(sys.argv[1])))
    _become(order, streams)
    _run(order["code"])
