"""Reading of large text files line by line, compressed or not, without holding the file.

A fault is found where the reading comes to it, and explained by :mod:`pal.core.files`, which reads
the whole file and says the same of it wherever it is read.
"""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from pal.core.files import LFS_POINTER, kind_of, read_bytes, read_text

HEAD = 1 << 16  # bytes by which a format is recognised

_FAULTS = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)  # UnicodeError is of values


def _open_zst(path: str) -> Any:
    import pyarrow  # it comes with datasets; Python's own reader comes with 3.14

    return pyarrow.CompressedInputStream(pyarrow.OSFile(path), "zstd")


_OPEN: dict[bytes, Callable[[str], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    b"\x28\xb5\x2f\xfd": _open_zst,
}


def open_unpacked(path: str | Path) -> IO[bytes]:
    """Open a file, a pipe or a compressed file as a stream of its bytes.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    if kind_of(path) != "file":
        return io.BytesIO(read_bytes(path))
    try:
        handle = open(path, "rb")  # noqa: SIM115 - whoever asked closes it
        start = handle.read(len(LFS_POINTER))
        handle.seek(0)
    except OSError:
        return io.BytesIO(read_bytes(path))
    if start.startswith(LFS_POINTER):
        read_bytes(path)
    opener = next((opener for magic, opener in _OPEN.items() if start.startswith(magic)), None)
    if opener is None:
        return handle
    handle.close()
    opened: IO[bytes] = opener(str(path))
    return opened


def read_head(path: str | Path, size: int = HEAD) -> bytes:
    """Return the first bytes of a file, decompressed.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with open_unpacked(path) as handle:
            return handle.read(size)
    except _FAULTS:
        return read_bytes(path)[:size]


def read_lines(path: str | Path) -> Iterator[str]:
    r"""Yield the lines of a UTF-8 text file, a compressed one or a pipe, without their ends.

    They are those of ``read_text(path).split("\n")``, but for an empty one at the end.

    Raises:
        DataError: the file is missing, empty, unreadable or not UTF-8.
    """
    blank = True
    try:
        with open_unpacked(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig") as text:
            for line in text:
                blank = blank and line.isspace()
                yield line.removesuffix("\n")
    except _FAULTS:
        read_text(path)  # which says what is wrong, and where
        raise
    if blank:
        read_text(path)
