"""The errors a user can meet. Each message is one line: what failed, where, and what to do next.

Commands print the message and exit with code 2; a traceback means a defect of the program.
"""

import difflib
import errno
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any


class PalError(Exception):
    """A mistake in what the user gave, reported in one line."""


class PlannedStop(Exception):
    """The planned end of a command that was asked for an estimate or a file of requests only."""


class ConfigError(PalError):
    """Settings that cannot be used; one message lists every mistake found."""


class DataError(PalError):
    """A data file that cannot be read; the message names file, record and remedy."""


class CheckpointError(PalError):
    """A model folder of the wrong kind, or incomplete."""


class OutputError(PalError):
    """An output that exists, is in use, or cannot be written."""


class OutputInUse(OutputError):
    """An output that another process is writing."""


SHORTEST_BEGINNING = 3  # letters that can stand for a name


def near_names(name: str, allowed: Iterable[str], number: int = 1) -> list[str]:
    """Return the names that a name may be a slip of, the nearest first.

    One letter of three may be another, and less than a third of a longer name: ``model`` is no slip
    of ``more``.

    Args:
        name: what was given.
        allowed: the names.
        number: how many to return at most.

    Example:
        >>> near_names("modl", ["more", "model"]), near_names("model", ["more"])
        (['model'], [])
    """
    cutoff = 0.6 if len(name) <= SHORTEST_BEGINNING else 0.7
    return difflib.get_close_matches(name, list(allowed), n=number, cutoff=cutoff)


def suggest(name: str, allowed: Iterable[str], meant: Mapping[str, str] | None = None) -> str:
    """Return ``'; did you mean X?'`` for the closest allowed name, or an empty string.

    Where none is close, one of which the given name is the beginning, or the other way round, is.

    Args:
        name: what was given.
        allowed: the names.
        meant: what to say in place of some of them.

    Example:
        >>> suggest("evalute", ["eval", "generate"]), suggest("gen", ["eval", "generate"])
        ("; did you mean 'eval'?", "; did you mean 'generate'?")
    """
    names = list(allowed)
    close = near_names(name, names)
    if not close and len(name) >= SHORTEST_BEGINNING:
        longer = [one for one in names if one.startswith(name)]
        shorter = [one for one in names if one and name.startswith(one)]
        close = longer if len(longer) == 1 else shorter if len(shorter) == 1 else []
    return f"; did you mean {(meant or {}).get(close[0], close[0])!r}?" if close else ""


# What pydantic calls things, and what people do.
_WORDS = {
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid string": "text",
    "a valid dictionary": "keys with values",
    "a valid list": "a list",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "above",
    "less than": "below",
}


def in_words(mistake: Mapping[str, Any]) -> str:
    """Return what pydantic found wrong with a value, in the words of this package's messages.

    Args:
        mistake: one of ``ValidationError.errors()``.

    Example:
        >>> in_words({"type": "int_parsing", "msg": "Input should be a valid integer"})
        'expected a whole number'
    """
    message = str(mistake["msg"])
    if mistake["type"] == "value_error":
        return message.removeprefix("Value error, ")
    if mistake["type"] == "missing":
        return "missing"
    if mistake["type"] == "extra_forbidden":
        return "no such key"
    message = message.replace(" after validation", "")
    sized = re.match(r"\w+ should have (at .*?)(, not |$)", message)  # a list, or a text
    if sized:
        return f"expected {sized[1]}"
    wanted = message.removeprefix("Input should be ")
    if wanted == message:
        return message[0].lower() + message[1:]
    wanted = wanted.partition(", unable to ")[0].partition(", got ")[0]
    wanted = wanted.partition(" or instance of ")[0]
    for theirs, ours in _WORDS.items():
        wanted = wanted.replace(theirs, ours)
    return f"expected {wanted}"


def first_line(error: BaseException) -> str:
    """Return the first line of another library's message, shortened, to quote in one of ours."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) <= 300 else f"{line[:297]}…"


# What a disk refuses, whatever was written; behind another error it is the reason for it.
OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def system_refusal(error: BaseException) -> OSError | None:
    """Return the system's refusal behind an error, also where a library has its own class for it.

    safetensors and tokenizers quote the system's number; torch says that a write failed, and the
    system's own error stands behind it or is lost.

    Example:
        >>> system_refusal(RuntimeError("I/O error: No space left on device (os error 28)")).errno
        28
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and (seen is error or seen.errno in OF_DISKS):
            return seen
        quoted = re.search(r"\(os error (\d+)\)", str(seen))
        if quoted:
            return OSError(int(quoted[1]), os.strerror(int(quoted[1])))
        seen = seen.__cause__ or seen.__context__
    if "PytorchStreamWriter failed" in str(error) or "inline_container" in str(error):
        return OSError(errno.EIO, "a write failed")
    return None


def database_reason(error: BaseException) -> str:
    """Return what SQLite says of a file, without the text that it could not read."""
    return first_line(error).partition(" with text ")[0]


def one_line(text: str) -> str:
    r"""Return a message as the line that is shown: line breaks and other controls as escapes.

    A path or a value that is quoted may hold them. Addresses lose user and password.

    Example:
        >>> one_line("a\nb.csv: no such file")
        'a\\nb.csv: no such file'
    """
    shown = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: ascii(found[0])[1:-1], text)
    return without_credentials(shown)


def without_credentials(text: str) -> str:
    """Return a text whose addresses hold neither user nor password.

    Example:
        >>> without_credentials("no answer from https://me:pw@example.org/v1")
        'no answer from https://***@example.org/v1'
    """
    return re.sub(r"(\b[A-Za-z][A-Za-z0-9+.-]*://)[^/\s'\"?#]*@", r"\1***@", text)
