"""``pal chat`` in a pseudo-terminal and over a pipe, in a process of its own."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

from tests.jobs import ROOT, python

STREAMS = ("stdin", "stdout", "stderr")
PATIENCE = 240  # seconds; a model is loaded first


class TerminalChat:
    """A chat in a pseudo-terminal.

    Args:
        arguments: of ``pal chat``.
        columns: width.
        more: variables of its environment; None takes one out.
        before: code that the process runs first.
    """

    def __init__(self, *arguments, columns=80, before="", cwd=ROOT, **more):
        self.master, slave = pty.openpty()
        size = struct.pack("HHHH", 24, columns, 0, 0)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, size)
        code = "import fcntl, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n" + _chat(before)
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            more.setdefault(name, None)
        self.process = python(
            code, *arguments, extra={"TERM": "xterm", **more}, early="HOME" in more,
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True, cwd=cwd,
        )  # fmt: skip
        os.close(slave)
        self.seen = ""

    def read(self, until, patience=PATIENCE):
        """Return what comes up to a text, the text included."""
        end = time.monotonic() + patience
        while until not in self.seen:
            left = end - time.monotonic()
            assert left > 0, f"no {until!r} in {self.seen!r}"
            if not select.select([self.master], [], [], min(left, 1))[0]:
                assert self.process.poll() is None, self.seen
                continue
            try:
                self.seen += os.read(self.master, 65536).decode(errors="replace")
            except OSError:
                raise AssertionError(f"ended without {until!r}: {self.seen!r}") from None
        found, _, self.seen = self.seen.partition(until)
        return found + until

    def rest(self, patience=60):
        """Return (exit code, what comes until the process ends)."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.master, 65536).decode(errors="replace")
                    continue
                except OSError:
                    break
            if self.process.poll() is not None:
                break
        return self.process.wait(timeout=patience), self.seen

    def press_until_it_ends(self, key, times=5):
        """Press a key, again after seconds in which nothing happens; return as :meth:`rest`.

        A signal that comes between the prompt and Python's wait for keys is noticed with the next
        one only.
        """
        for _ in range(times):
            self.type(key)
            end = time.monotonic() + 6
            while self.process.poll() is None and time.monotonic() < end:
                if select.select([self.master], [], [], 0.2)[0]:
                    try:
                        self.seen += os.read(self.master, 65536).decode(errors="replace")
                    except OSError:
                        return self.rest()
            if self.process.poll() is not None:
                return self.rest()
        raise AssertionError(f"{key!r} ended nothing: {self.seen!r}")

    def type(self, text):
        """Type keys."""
        os.write(self.master, text.encode())

    def say(self, text):
        """Type a line and return what comes up to the next prompt."""
        self.type(text + "\r")
        self.read("\n")
        return self.read("you> ").replace("\r\n", "\n").removesuffix("you> ")

    def close(self):
        """End the process."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.master)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def over_a_pipe(given, *arguments, before="", cwd=ROOT, **more):
    """Return (exit code, standard output, standard error) of a chat whose lines are given."""
    process = python(
        _chat(before), *arguments, extra=more, cwd=cwd, **dict.fromkeys(STREAMS, subprocess.PIPE)
    )
    out, told = process.communicate(
        given.encode() if isinstance(given, str) else given, timeout=PATIENCE
    )
    return process.returncode, out.decode(), told.decode()


def _chat(before):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{before}\n"
    return code + "from pal.cli import run_program\nrun_program('chat')"
