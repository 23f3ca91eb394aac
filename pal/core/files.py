"""Reading and writing of files: atomic writes, strict JSON, JSON lines, compressed files, pipes.

What holds texts is written for the user alone (mode 600); figures, settings and weights as the
umask says. JSON is read strictly: no NaN, no key twice, no number that overflows. Compressed files
(gz, bz2, xz, zst) are read as what is in them. A pipe is read once, when its hash or its contents
are first asked for, and its bytes stay in memory, so that it can be used like a file.

It is long because every room reads and writes through it: each of these rules has one place.
"""

import bz2
import contextlib
import errno
import gzip
import hashlib
import json
import lzma
import os
import re
import shutil
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path, PurePath
from typing import IO, Any, Literal

from pal.core.errors import (
    DataError,
    OutputError,
    PalError,
    first_line,
    near_names,
    system_refusal,
)

# Files of a folder that do not affect a result: records of runs, and what commands write beside.
BESIDE_CONTENTS = re.compile(
    r"(run\.json|.*\.run\.json|started\.json|training_log\.json|README\.md|\..*|checkpoint-.*"
    r"|.*\.part\d+|optimizer\.pt|scheduler\.pt|trainer_state\.json|rng_state.*\.pth|scaler\.pt"
    r"|training_args\.bin|__pycache__)"
)
BLOCK = 1000  # values that are hashed at once
MOST_NAMES = 10_000  # of a folder, among which a near one is looked for
# What lies beside a user's files and is no answer to a mistyped name.
SIDE_FILE = re.compile(r"^\.|~$|\.(run\.json|part\d+|lock|sqlite-\w+|db-\w+)$")
LONGEST_NUMBER = 400  # digits; a float has 309

# Endings of compressed files.
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")

# Files that are not text, by their first bytes: what they are, and the remedy.
BINARY: dict[bytes, tuple[str, str]] = {
    b"PAR1": ("a parquet file", "give JSON lines"),
    b"ARROW1": ("an arrow file", "give JSON lines"),
    b"PK\x03\x04": ("a zip archive or a workbook", "unpack it, or save the sheet as CSV"),
    b"\x80": ("a pickle, which is code and never loaded", "write its contents as JSON lines"),
    b"%PDF": ("a PDF", "give its text"),
    b"SQLite": ("a database", "write its contents as JSON lines"),
    b"\xff\xfe": ("UTF-16 text", "save it as UTF-8"),
    b"\xfe\xff": ("UTF-16 text", "save it as UTF-8"),
}
Kind = Literal["file", "folder", "pipe", "device", "nothing"]
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def dumps(value: Any) -> str:
    """Serialise a value to one line of JSON; non-ASCII text stays readable, NaN is refused."""
    return _ENCODE(value)


_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def parse_json(text: str) -> Any:
    """Parse JSON, strictly.

    Raises:
        ValueError: the text is not JSON, or is JSON that only some parsers accept: NaN or
            Infinity, a repeated key in one object, a number of hundreds of digits, a lone
            surrogate, or nesting that is too deep.

    Example:
        >>> parse_json('{"a": 1}')
        {'a': 1}
    """
    try:
        value = json.loads(
            text, parse_constant=_refuse_constant, parse_int=_integer, parse_float=_finite,
            object_pairs_hook=_object,
        )  # fmt: skip
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if "\\u" in text and _has_surrogate(value):
        raise ValueError("it holds half a surrogate pair, which is not a character")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _integer(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} occurs twice in one object")
    return found


def _has_surrogate(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def why_not_json(error: ValueError) -> str:
    """Return the reason of an error of :func:`parse_json`, with its column if it has one."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return str(error)


class Streamed:
    """Values that :func:`fingerprint` hashes as a list without holding them all.

    Args:
        values: JSON-serialisable values.

    Example:
        >>> fingerprint(Streamed(iter([1, 2]))) == fingerprint([1, 2])
        True
    """

    def __init__(self, values: Iterable[Any]):
        self.values = values


def fingerprint(value: Any) -> str:
    """Return a short hash of a JSON-serialisable value, independent of key order.

    A mapping or a list, or one inside of it, may hold values that are :class:`Streamed`.
    """
    digest = hashlib.blake2b(digest_size=12)
    for text in _json_parts(value):
        digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _json_parts(value: Any) -> Iterator[str]:
    """Yield the JSON of a value in parts, with sorted keys."""
    if isinstance(value, Streamed):
        yield "["
        rest, between = iter(value.values), ""
        while block := list(islice(rest, BLOCK)):
            yield between + _sorted_json(block)[1:-1]
            between = ", "
        yield "]"
    elif isinstance(value, dict) and any(map(_has_streamed, value.values())):
        yield "{"
        for number, key in enumerate(sorted(value)):
            yield f"{', ' if number else ''}{_sorted_json(key)}: "
            yield from _json_parts(value[key])
        yield "}"
    elif isinstance(value, list) and any(map(_has_streamed, value)):
        yield "["
        for number, item in enumerate(value):
            yield ", " if number else ""
            yield from _json_parts(item)
        yield "]"
    else:
        yield _sorted_json(value)


def _has_streamed(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_streamed, value.values()))
    return isinstance(value, Streamed)


def _sorted_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def kind_of(
    source: str | os.PathLike[str],
) -> Literal["file", "folder", "pipe", "device", "nothing"]:
    """Return what kind of file lies at a path; a name that cannot be a path has none."""
    try:
        mode = os.stat(source).st_mode
    except PermissionError:
        return "file"  # reading it says what is wrong
    except (OSError, ValueError):
        return "nothing"
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        return "pipe"
    return "file" if stat.S_ISREG(mode) else "device"


def no_such(path: str | PurePath, what: str = "file", remedy: str = "check the path") -> str:
    """Return what to say of a path where nothing is: the near name there, or else the remedy.

    Of a path below a mistyped folder, the whole path with the near name is given if it is there.
    Endings decide between equally near names only, as ``talk.csv`` is no slip of ``plan.csv``.

    Args:
        path: what was given.
        what: what was expected there; of a "folder", only folders are near.
        remedy: what to do where no near name is there.

    Example:
        >>> no_such("talk.csv"), no_such("nothing.csv")  # where talks.csv lies
        ("no such file; did you mean 'talks.csv'?", 'no such file; check the path')
    """
    near = near_path(path, folders=what.startswith("folder"))
    return f"no such {what}; " + (f"did you mean {near!r}?" if near else remedy)


def near_path(path: str | PurePath, *, folders: bool = False) -> str | None:
    """Return the path that is there and that one where nothing is may be a slip of, or None.

    Args:
        path: what was given.
        folders: whether folders alone are near.

    Example:
        >>> near_path("talk.csv"), near_path("nothing.csv")  # where talks.csv lies
        ('talks.csv', None)
    """
    is_there = os.path.isdir if folders else os.path.exists
    there: dict[str, str] = {}
    missing = Path(path)
    try:
        while not missing.parent.exists():
            missing = missing.parent
        stem, ending = os.path.splitext(missing.name)
        rest = Path(path).relative_to(missing)
        names = [] if missing.exists() else os.listdir(missing.parent)[:MOST_NAMES]
        for name in sorted(names, key=lambda name: (name.endswith(ending), name)):
            whole = str(missing.with_name(name) / rest)
            if not SIDE_FILE.search(name) and is_there(whole):
                there[os.path.splitext(name)[0]] = whole  # of a stem, the one with the same ending
        near = near_names(stem, there)
    except (OSError, ValueError):  # a folder that cannot be read, a name that cannot be a path
        near = []
    return there[near[0]] if near else None


def file_fingerprint(path: str | Path) -> str:
    """Return a hash of a file's bytes; a process reads an unchanged file once.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        if kind_of(path) == "pipe":
            return _hash(_pipe_contents(path))
        found = os.stat(path)
        return _file_hash(str(path), found.st_size, found.st_mtime_ns, found.st_ino)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


@lru_cache(maxsize=4096)
def _file_hash(path: str, size: int, changed: int, inode: int) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:24]


def _hash(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()[:24]


def _pipe_contents(path: str | Path) -> bytes:
    found = os.stat(path)
    return _read_pipe(str(path), found.st_dev, found.st_ino)


@cache
def _read_pipe(path: str, device: int, inode: int) -> bytes:
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise DataError(f"{path}: a pipe, which only one process can read; give a file")
    if path == "/dev/stdin":  # where it is a socket, it has no name to open
        with os.fdopen(os.dup(0), "rb") as handle:
            return handle.read()
    with open(path, "rb") as handle:
        return handle.read()


def source_fingerprint(source: str | Path) -> str:
    """Return a hash of a file, or of all files in and below a folder; otherwise of the name.

    In the folder of a trained model, the record of the run, logs and other epochs do not count.
    """
    path = Path(source)
    try:
        if path.is_dir():
            files = [
                file for file in sorted(path.rglob("*"))
                if file.is_file() and not any(
                    BESIDE_CONTENTS.fullmatch(part) for part in file.relative_to(path).parts
                )
            ]  # fmt: skip
            return fingerprint([[str(f.relative_to(path)), file_fingerprint(f)] for f in files])
        if kind_of(path) in ("file", "pipe"):
            return file_fingerprint(path)
    except (OSError, ValueError):  # not the name of a file: too long, or a NUL in it
        pass
    return str(source)


@contextlib.contextmanager
def atomic_writer(path: str | Path, *, private: bool = False) -> Iterator[IO[str]]:
    """Open a temporary text file that takes the place of ``path`` only when the block ends well.

    Args:
        path: the file.
        private: make the file readable by the user alone, because it holds texts; otherwise
            the umask decides.

    Raises:
        OutputError: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OutputError(f"cannot write {path}: it is a device or a pipe; choose another output")
    name = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", suffix=".tmp",
            delete=False, newline="",
        ) as handle:  # fmt: skip
            name = handle.name
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        if not private:
            os.chmod(name, 0o666 & ~current_umask())
        os.replace(name, path)
        name = None
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        if name is not None:
            with contextlib.suppress(OSError):
                os.unlink(name)


# What a system says of a file where its folder is what it refuses.
_OF_THE_FOLDER = (
    errno.EEXIST, errno.ENOTDIR, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS,
)  # fmt: skip


def not_written(path: str | Path, error: Exception) -> OutputError:
    """Return what a system's refusal to write a path means for the user.

    The system's own words can mislead: of a folder made inside of a file it says "File exists", and
    of a file in a folder like /proc "No such file or directory".

    Example:
        >>> raise not_written("notes/out.jsonl", FileExistsError(17, "File exists"))
        OutputError: cannot write notes/out.jsonl: notes is not a folder; choose another output
    """
    why, remedy = getattr(error, "strerror", None) or first_line(error), "choose another output"
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free space"
    elif code in _OF_THE_FOLDER:
        folder = next((one for one in Path(path).parents if os.path.exists(one)), Path("/"))
        no_folder = not folder.is_dir()
        why = (
            f"{folder} is not a folder" if no_folder else f"nothing can be made in {folder} ({why})"
        )
    return OutputError(f"cannot write {path}: {why}; {remedy}")


def current_umask() -> int:
    """Return the process's umask."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def make_private(path: str | Path) -> None:
    """Restrict a file or folder to the user alone; create it if it is missing."""
    path = Path(path)
    if not path.exists():
        path.touch(mode=0o600)
    os.chmod(path, 0o700 if path.is_dir() else 0o600)


def sweep_temporary(path: str | Path) -> None:
    """Remove temporary files of killed writers of ``path``; for a folder, also those inside it.

    The caller must hold the lock of the output.
    """
    path = Path(path)
    found = [*path.parent.glob(f".{_escape(path.name)}.*.tmp")]
    if path.is_dir():
        found += [*path.glob(".*.tmp")]
    for left in found:
        with contextlib.suppress(OSError):
            left.unlink()


def _escape(name: str) -> str:
    return re.sub(r"([\[\]*?])", r"[\1]", name)


def write_text(path: str | Path, text: str, *, private: bool = False) -> None:
    """Write a text file atomically; see :func:`atomic_writer`."""
    with atomic_writer(path, private=private) as handle:
        handle.write(text)


def write_json_list(path: str | Path, values: Iterable[Any], *, private: bool = False) -> None:
    """Write what :func:`write_json` writes of a list, one value after the other."""
    with atomic_writer(path, private=private) as handle:
        between = "[\n  "
        for value in values:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2)
            handle.write(between + text.replace("\n", "\n  "))
            between = ",\n  "
        handle.write("\n]\n" if between[0] == "," else "[]\n")


def write_json(path: str | Path, value: Any, *, private: bool = False) -> None:
    """Write one JSON document, indented, atomically; see :func:`atomic_writer`."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2)
    write_text(path, text + "\n", private=private)


def write_jsonl(path: str | Path, rows: Iterable[Any], *, private: bool = True) -> None:
    """Write one JSON value per line, atomically; records hold texts, so the file is private."""
    with atomic_writer(path, private=private) as handle:
        for row in rows:
            handle.write(dumps(row) + "\n")


@contextlib.contextmanager
def new_folder(path: str | Path, *, private: bool = False) -> Iterator[Path]:
    """Yield an empty folder that takes the place of ``path`` only when the block ends well.

    A kill at any moment leaves the folder that was there before, or none, or the new one, and never
    a part of one. What is unfinished has a hidden name beside it, and the next run removes it.

    Args:
        path: the place, whose lock the caller holds; what lies there is deleted at the end.
        private: make the folder readable by the user alone.

    Raises:
        OutputError: it cannot be written, the disk is full, or there is a file.
    """
    path = Path(path)
    if not path.is_dir() and (path.exists() or path.is_symlink()):
        raise OutputError(f"{path} is not a folder, and one is to be written there; move it away")
    new, old = (path.with_name(f".{path.name}.{what}") for what in ("unfinished", "replaced"))
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(parents=True, mode=0o700 if private else 0o777)
        yield new
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(path, old)
        os.replace(new, path)
        shutil.rmtree(old, ignore_errors=True)
    except PalError:
        raise
    except Exception as error:  # of safetensors, for example
        refusal = system_refusal(error)
        if refusal is None:
            raise
        raise not_written(path, refusal) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def read_bytes(path: str | Path) -> bytes:
    """Read a file or a pipe, decompressed where it is compressed.

    Raises:
        DataError: the path is missing, a folder, unreadable, a damaged archive, or a Git LFS
            pointer.
    """
    kind = kind_of(path)
    shown = ascii(str(path))[:80] if "\0" in str(path) else str(path)[-300:]
    if kind == "nothing":
        raise DataError(f"{shown}: {no_such(path)}")
    if kind in ("folder", "device"):
        raise DataError(f"{shown}: a {kind}, not a file; give a file")
    try:
        contents = _pipe_contents(path) if kind == "pipe" else Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{shown}: cannot be read ({error.strerror})") from None
    for magic, (name, decompress) in _DECOMPRESS.items():
        if contents.startswith(magic):
            try:
                contents = decompress(contents)
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
                reason = str(error).splitlines()[0]
                raise DataError(
                    f"{shown}: a damaged {name} file ({reason}); download or compress it again"
                ) from None
            break
    if contents.startswith(LFS_POINTER):
        raise DataError(
            f"{shown}: a Git LFS pointer, not the file itself; run `git lfs pull` in its folder"
        )
    return contents


def _unpack_zst(contents: bytes) -> bytes:
    import pyarrow  # it comes with datasets; Python's own reader comes with 3.14

    with pyarrow.CompressedInputStream(pyarrow.BufferReader(contents), "zstd") as stream:
        return stream.read()


_DECOMPRESS: dict[bytes, tuple[str, Callable[[bytes], bytes]]] = {
    b"\x1f\x8b": ("gz", gzip.decompress),
    b"BZh": ("bz2", bz2.decompress),
    b"\xfd7zXZ\0": ("xz", lzma.decompress),
    b"\x28\xb5\x2f\xfd": ("zst", _unpack_zst),
}


def read_text(path: str | Path) -> str:
    """Read a UTF-8 text file, or a compressed one, or a pipe; line ends become newlines.

    Raises:
        DataError: the file is missing, empty, unreadable or not UTF-8.
    """
    return decode_text(read_bytes(path), str(path))


def decode_text(contents: bytes, name: str) -> str:
    """Decode a file's bytes to text; see :func:`read_text`.

    Args:
        contents: the bytes.
        name: name of the file, for messages.

    Raises:
        DataError: the bytes are empty or not UTF-8.
    """
    try:
        text = contents.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        for magic, (kind, remedy) in BINARY.items():
            if contents.startswith(magic):
                raise DataError(f"{name}: not UTF-8: it is {kind}; {remedy}") from None
        raise DataError(f"{name}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    if not text.strip():
        raise DataError(f"{name}: the file is empty; give one with at least one record")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_jsonl(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Yield (line number, counted from 1; value) for every non-blank line.

    Raises:
        DataError: the file is missing or empty, or a line is not JSON; the message names it.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                yield number, parse_json(line)
            except ValueError as error:
                raise DataError(
                    f"{path}, line {number}: not valid JSON ({why_not_json(error)}); "
                    "correct or delete that line"
                ) from None


def read_json(path: str | Path) -> Any:
    """Read one JSON document.

    Raises:
        DataError: the file is missing, empty or not JSON; the message names line and column.
    """
    try:
        return parse_json(read_text(path))
    except json.JSONDecodeError as error:
        begins = error.doc[error.pos : error.pos + 1] in ("{", "[")
        if error.msg == "Extra data" and error.lineno > 1 and error.colno == 1 and begins:
            raise DataError(
                f"{path}, line {error.lineno}: a second JSON value; give a file that holds one "
                "(JSON Lines are not read here)"
            ) from None
        raise DataError(
            f"{path}, line {error.lineno}: not valid JSON ({why_not_json(error)})"
        ) from None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error})") from None
