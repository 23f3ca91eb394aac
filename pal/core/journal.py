"""The journal of a long job: finished units of work, written to disk as they finish.

A job appends to it and writes its output once, atomically, at the end. A job that is killed at any
moment continues where it stopped. Every line carries a checksum, so the work of a line that a kill
or a bad disk damaged is repeated.
"""

import json
import logging
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from pal.core.errors import OutputError
from pal.core.files import dumps, make_private

logger = logging.getLogger(__name__)

Place = tuple[Path, int]  # part, and offset in it, of a finished unit
BLOCK = 1 << 16


class Journal:
    """Finished units of work beside an output, one JSON line ``[key, value, checksum]`` each.

    The first line holds the job's identity and what it is made of, so work done under other
    settings is never mixed in.
    Each of several processes writes its own journal file, and reads all of them.

    Args:
        output: file that the finished work goes to.
        identity: hash of everything that affects the work.
        part: number of this process.
        made_of: what the identity is made of, to be kept beside it.
        differs: says what of a mapping with a kept ``made_of`` differs from this one.

    Example:
        >>> journal = Journal("answers.jsonl", "3f2a")
        >>> journal.append("0", ["a text"])
        >>> journal.read()
        {'0': ['a text']}
    """

    def __init__(
        self, output: str | Path, identity: str, part: int = 0, *,
        made_of: Mapping[str, Any] | None = None,
        differs: Callable[[Mapping[str, Any]], str] = lambda head: "",
    ):  # fmt: skip
        self.output = Path(output)
        self.identity, self.made_of, self.differs = identity, made_of, differs
        self.path = self.output.parent / f"{self.output.name}.part{part}"
        self._handle: IO[bytes] | None = None

    def parts(self) -> list[Path]:
        """Return the journal files that lie beside the output."""
        pattern = re.compile(re.escape(self.output.name) + r"\.part\d+")
        folder = self.output.parent
        return sorted(p for p in folder.glob("*.part*") if pattern.fullmatch(p.name))

    def read(self) -> dict[str, Any]:
        """Return every finished unit of all parts, by key.

        Raises:
            OutputError: a part was written under another identity, or its first line is damaged.
        """
        return {key: value for key, value, _ in self._units()}

    def places(self) -> dict[str, Place]:
        """Return where every finished unit of all parts lies, by key, for :meth:`fetch`.

        Raises:
            OutputError: a part was written under another identity, or its first line is damaged.
        """
        return {key: place for key, _, place in self._units()}

    def fetch(self, key: str, place: Place) -> Any:
        """Return a finished unit.

        Args:
            key: of the unit.
            place: from :meth:`places` or :meth:`append`.

        Raises:
            OutputError: it was damaged since it was written.
        """
        path, offset = place
        with path.open("rb") as handle:
            handle.seek(offset)
            entry = _unit_of(handle.readline())
        if entry is None or entry[0] != key:
            raise OutputError(
                f"{path}: damaged since it was written; run the same command again to continue"
            )
        return entry[1]

    def _units(self) -> Iterator[tuple[str, Any, Place]]:
        damaged = 0
        for path in self.parts():
            with path.open("rb") as handle:
                offset = 0
                for line in handle:
                    start, offset = offset, offset + len(line)
                    whole = line.endswith(b"\n")  # if not, a kill cut it off
                    entry = _unit_of(line) if whole else None
                    if not start:
                        if whole:
                            self._check_head(path, entry)
                        continue
                    if not whole:
                        break
                    if entry is not None:
                        yield *entry, (path, start)
                    else:
                        damaged += 1
        if damaged:
            logger.warning("%s: damaged journal lines, computed again: %d", self.output, damaged)

    def _check_head(self, path: Path, head: tuple[str, Any] | None) -> None:
        """Refuse a part whose first line is damaged, or of another identity."""
        if head is None:
            raise OutputError(
                f"{path}: line 1, which says what the unfinished work in it is of, is damaged; "
                "delete this file to compute that work again, or give overwrite=true to restart"
            )
        identity, made_of = head
        if identity != self.identity:
            raise OutputError(
                f"{path}: unfinished work made with other settings, inputs, weights or "
                f"versions{self.differs({'made_of': made_of})}; give those to continue, or "
                "overwrite=true to restart"
            )

    def append(self, key: str, value: Any) -> Place:
        """Append one finished unit, and return its place.

        It is handed to the operating system before this returns.

        Raises:
            OutputError: the disk is full or the folder cannot be written.
        """
        try:
            if self._handle is None:
                self._handle = self._open()
            place = self.path, self._handle.tell()
            self._handle.write(_unit_line(key, value))
            self._handle.flush()
        except OSError as error:
            raise OutputError(
                f"cannot write {self.path}: {error.strerror or error}; finished work is kept, "
                "run the same command again to continue"
            ) from error
        return place

    def _open(self) -> IO[bytes]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        make_private(self.path)
        with self.path.open("rb+") as raw:  # drop a line that a kill cut off
            raw.truncate(_end_of_last_line(raw))
        handle = self.path.open("ab")
        if handle.tell() == 0:
            handle.write(_unit_line(self.identity, self.made_of))
        return handle

    def close(self) -> None:
        """Close this process's part."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def delete(self) -> None:
        """Remove all parts, after the output is written or to restart."""
        self.close()
        for path in self.parts():
            os.unlink(path)


def _end_of_last_line(handle: IO[bytes]) -> int:
    """Return the offset after the last newline of a file, 0 where it has none."""
    end = handle.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - BLOCK)
        handle.seek(start)
        found = handle.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _unit_line(key: str, value: Any) -> bytes:
    """Return the line of a unit: ``[key, value, checksum of the line without it]``."""
    unit = dumps([key, value]).encode()
    return b"%s, %d]\n" % (unit[:-1], zlib.crc32(unit))


def _unit_of(line: bytes) -> tuple[str, Any] | None:
    """Return key and value of a line; None where its checksum is not that of its bytes."""
    start, _, checksum = line.removesuffix(b"\n").rpartition(b", ")
    unit = start + b"]"
    if checksum != b"%d]" % zlib.crc32(unit):
        return None
    key, value = json.loads(unit)  # as it was written, so nothing in it is to be refused
    return key, value
