"""Files that survive a kill: atomic writes, JSONL with line numbers, and a resumable journal.

A long job appends finished units of work to a :class:`Journal` beside its output and writes the
output itself once, atomically, at the end. Killed at any moment, it goes on where it stopped.
"""

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from pal.errors import DataError, OutputError


def dumps(value: Any) -> str:
    """Serialise to one line of JSON, text kept readable, NaN refused."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def fingerprint(value: Any) -> str:
    """Return a short hash of a JSON-serialisable value, independent of key order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def file_fingerprint(path: Path) -> str:
    """Return a hash of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:24]


@contextlib.contextmanager
def atomic_writer(path: str | Path) -> Iterator[IO[str]]:
    """Open a temporary text file that takes the place of ``path`` only when the block ends well.

    Raises:
        OutputError: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    name = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as handle:
            name = handle.name
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
        name = None
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if name is not None:
            with contextlib.suppress(OSError):
                os.unlink(name)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_writer(path) as handle:
        handle.write(text)


def write_json(path: str | Path, value: Any) -> None:
    """Write one JSON document, indented, atomically."""
    write_text(path, json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> None:
    """Write one JSON value a line, atomically."""
    with atomic_writer(path) as handle:
        for row in rows:
            handle.write(dumps(row) + "\n")


def read_text(path: str | Path) -> str:
    """Read a UTF-8 text file.

    Raises:
        DataError: the file is missing, empty, unreadable or not UTF-8.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if not text.strip():
        raise DataError(f"{path}: the file is empty; give one with at least one record")
    return text


def read_jsonl(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Yield (line number from 1, value) of every non-blank line.

    Raises:
        DataError: missing or empty file, or a line that is not JSON (the message names it).
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{path}, line {number}: not valid JSON ({error.msg} at column {error.colno}); "
                    "mend or delete that line"
                ) from None


def read_json(path: str | Path) -> Any:
    """Read one JSON document.

    Raises:
        DataError: missing or empty file, or invalid JSON (the message names line and column).
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}: not valid JSON ({error.msg} at column {error.colno})"
        ) from None


@contextlib.contextmanager
def output_lock(path: str | Path) -> Iterator[None]:
    """Hold the only right to write ``path``; a second process is refused at once.

    Raises:
        OutputError: another process holds it.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.parent / f".{path.name}.lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise OutputError(
            f"{path}: another process is writing it; wait for it to end or choose another output"
        ) from None
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            os.unlink(lock.lock_file)


class Journal:
    """Finished units of work, one JSON line ``[key, value]`` each, beside the output they serve.

    The first line holds the job's identity (a hash of settings, inputs and weights), so work done
    under other settings is never mixed in. A line cut off by a kill is ignored and written again.
    Several processes write one journal file each and read them all.
    """

    def __init__(self, output: str | Path, identity: str, part: int = 0):
        self.output = Path(output)
        self.identity = identity
        self.path = self._path(part)
        self._handle: IO[str] | None = None

    def _path(self, part: int) -> Path:
        return self.output.parent / f"{self.output.name}.part{part}"

    def parts(self) -> list[Path]:
        """Return the journal files that lie beside the output."""
        pattern = re.compile(re.escape(self.output.name) + r"\.part\d+")
        folder = self.output.parent
        return sorted(p for p in folder.glob("*.part*") if pattern.fullmatch(p.name))

    def read(self) -> dict[str, Any]:
        """Return every finished unit of all parts, by key.

        Raises:
            OutputError: a part was written under another identity.
        """
        done: dict[str, Any] = {}
        for path in self.parts():
            lines = path.read_text(encoding="utf-8").split("\n")
            if lines[0] and lines[-1:] != lines[:1] and json.loads(lines[0]) != self.identity:
                raise OutputError(
                    f"{path}: unfinished work made with other settings, inputs or weights; "
                    "give those again to go on, or overwrite=true to start anew"
                )
            for line in lines[1:-1]:  # what follows the last newline was cut off by a kill
                key, value = json.loads(line)
                done[key] = value
        return done

    def append(self, key: str, value: Any) -> None:
        """Add one finished unit; it is on disk when this returns.

        Raises:
            OutputError: the disk is full or the folder cannot be written.
        """
        try:
            if self._handle is None:
                self._handle = self._open()
            self._handle.write(dumps([key, value]) + "\n")
            self._handle.flush()
        except OSError as error:
            raise OutputError(
                f"cannot write {self.path}: {error.strerror or error}; finished work is kept, "
                "run the same command again to go on"
            ) from error

    def _open(self) -> IO[str]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():  # drop a line that a kill cut off
            with self.path.open("rb+") as raw:
                raw.truncate(raw.read().rfind(b"\n") + 1)
        handle = self.path.open("a", encoding="utf-8")
        if handle.tell() == 0:
            handle.write(dumps(self.identity) + "\n")
        return handle

    def close(self) -> None:
        """Close this process's part."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def delete(self) -> None:
        """Remove all parts, once the output is written or to start anew."""
        self.close()
        for path in self.parts():
            path.unlink(missing_ok=True)
