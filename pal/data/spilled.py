"""Tables of any length: what does not fit into a few blocks lies in a file, which is mapped.

The file has no name: it is gone when the last reader of the table is, also where a kill ends it.
It lies where the system has its temporary files (``TMPDIR``).
"""

import hashlib
import mmap
import os
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, TypeVar, overload

import numpy as np

from pal.core.errors import OutputError, first_line

ROWS = 1000  # of a block
TEXTS = 1 << 16  # texts whose token ids are kept
Item = TypeVar("Item")
WAITING = 1 << 16  # bytes of texts that are written at once
KEPT = 4  # blocks that stay in memory
RECENT = 4096  # names, at least, that are kept as they are
RECENT_SHARE = 16  # and at least one for so many older ones, so that sorting them stays linear


def table_of(rows: Iterable[Any], schema: Any) -> Any:
    """Return rows as a ``pyarrow.Table``; all but a short one lies in a file without a name.

    Args:
        rows: mappings.
        schema: their columns.

    Raises:
        ArrowException: a value does not fit its column.
        OutputError: the file cannot be written.
    """
    from pyarrow import RecordBatch, Table

    batches = (RecordBatch.from_pylist(block, schema=schema) for block in in_parts(rows, ROWS))
    first = list(islice(batches, KEPT + 1))
    if len(first) <= KEPT:
        return Table.from_batches(first, schema=schema)
    return _spilled(chain(first, batches), schema)


def _spilled(batches: Iterable[Any], schema: Any) -> Any:
    from pyarrow import ipc, py_buffer

    try:
        with tempfile.TemporaryFile() as handle:
            with ipc.new_stream(handle, schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
            handle.flush()
            mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise _no_room(error) from error
    return ipc.open_stream(py_buffer(mapped)).read_all()


def iterate_rows(dataset: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of a ``datasets.Dataset`` of plain columns, one block at a time.

    Args:
        dataset: of :func:`pal.data.load_esconv`, say; a column that the library decodes, such as
            JSON in a text, would come as it is stored.
    """
    for block in dataset.with_format("arrow").iter(batch_size=ROWS):
        yield from block.to_pylist()


def _no_room(error: OSError) -> OutputError:
    return OutputError(
        f"cannot keep the dialogues in {tempfile.gettempdir()}: {first_line(error)}; free "
        "space there, or set TMPDIR to a folder with more"
    )


def table_fingerprint(table: Any) -> str | None:
    """Return what ``datasets`` knows a long table by; None for a short one, which it hashes whole.

    Its own hash pickles the table, all of it in memory.
    """
    if len(table) <= KEPT * ROWS:
        return None
    digest = hashlib.blake2b(digest_size=8)
    for batch in table.to_batches():
        digest.update(batch.serialize())
    return digest.hexdigest()


class Repeated(Iterable[Item]):
    """Values that are made again each time they are asked for, instead of held.

    Args:
        make: returns an iterator over them.
    """

    def __init__(self, make: Callable[[], Iterator[Item]]):
        self.make = make

    def __iter__(self) -> Iterator[Item]:
        return self.make()

    def __bool__(self) -> bool:
        return any(True for _ in self)


def column_of(dataset: Any, name: str) -> Repeated[Any]:
    """Return a column of a ``datasets.Dataset``, read again each time it is asked for."""
    rows = dataset.select_columns(name)
    return Repeated(lambda: (row[name] for row in iterate_rows(rows)))


class RecentTexts(dict[Item, list[int]]):
    """The token ids of texts, forgotten when there are many: a corpus has any number of texts."""

    def __setitem__(self, text: Item, ids: list[int]) -> None:
        if len(self) >= TEXTS:
            self.clear()
        super().__setitem__(text, ids)


def in_parts(values: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield values in lists of ``size``, the last one shorter; no list is held once it is given."""
    rest = iter(values)
    return iter(lambda: list(islice(rest, size)), [])


class SpilledBlocks:
    """Arrays that lie in a file without a name, and are mapped when they are read."""

    def __init__(self) -> None:
        self._handle = tempfile.TemporaryFile()  # noqa: SIM115 - it is gone with this object
        self._shapes: list[tuple[int, tuple[int, ...], np.dtype[Any]]] = []

    def append(self, block: np.ndarray) -> None:
        """Add an array.

        Raises:
            OutputError: the file cannot be written.
        """
        block = np.ascontiguousarray(block)
        try:
            start = self._handle.seek(0, os.SEEK_END)
            self._handle.write(block.tobytes())
            self._handle.flush()
        except OSError as error:
            raise _no_room(error) from error
        self._shapes.append((start, block.shape, block.dtype))

    def blocks(self) -> list[np.ndarray]:
        """Return the arrays, in their order."""
        return [
            np.memmap(self._handle, dtype=dtype, mode="r", offset=start, shape=shape)
            for start, shape, dtype in self._shapes
        ]


class SpilledTexts(Sequence[str]):
    """Texts that lie in a file without a name, eight bytes each in memory: of where they end.

    Example:
        >>> texts = SpilledTexts()
        >>> texts.append("so tired")
        >>> texts[0]
        'so tired'
    """

    def __init__(self) -> None:
        self._handle = tempfile.TemporaryFile()  # noqa: SIM115 - it is gone with this object
        self._ends = array("q", [0])
        self._waiting = bytearray()  # behind what lies in the file
        self._written = 0

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(f"text {index} of {len(self)}")
        start, end = self._ends[index] - self._written, self._ends[index + 1] - self._written
        if start < 0:
            found = os.pread(self._handle.fileno(), end - start, start + self._written)
        else:
            found = bytes(self._waiting[start:end])
        return found.decode("utf-8", "surrogatepass")

    def append(self, text: str) -> None:
        """Add a text.

        Raises:
            OutputError: the file cannot be written.
        """
        self._waiting += text.encode("utf-8", "surrogatepass")
        self._ends.append(self._written + len(self._waiting))
        if len(self._waiting) >= WAITING:
            try:
                self._handle.write(self._waiting)
                self._handle.flush()
            except OSError as error:
                raise _no_room(error) from error
            self._written += len(self._waiting)
            self._waiting = bytearray()


class SeenKeys:
    """Numbers that have come before, eight bytes each, in sorted arrays of falling lengths.

    Every array is at least twice as long as the next, so a number is sorted a few times only.
    """

    def __init__(self) -> None:
        self._sorted: list[np.ndarray] = []

    def among(self, keys: np.ndarray) -> np.ndarray:
        """Return which of these numbers have been added, [n]."""
        found = np.zeros(len(keys), dtype=bool)
        for part in self._sorted:
            places = np.minimum(np.searchsorted(part, keys), len(part) - 1)
            found |= part[places] == keys
        return found

    def add(self, keys: np.ndarray) -> None:
        """Add numbers that have not been added, [n]."""
        if not len(keys):
            return
        keys = np.sort(keys)
        while self._sorted and len(self._sorted[-1]) < 2 * len(keys):
            keys = np.sort(np.concatenate([self._sorted.pop(), keys]), kind="stable")
        self._sorted.append(keys)


class SeenNames:
    """Names that have come before, eight bytes each: of their hashes.

    Of a million names, two are taken for one with a probability of 3 in 100 million.

    Example:
        >>> seen = SeenNames()
        >>> seen.add("a"), seen.add("a")
        (True, False)
    """

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._older = np.empty(0, dtype=np.uint64)

    def add(self, name: str) -> bool:
        """Add a name; return whether it is new."""
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        key = int.from_bytes(digest, "little")
        place = np.searchsorted(self._older, np.uint64(key))
        if key in self._recent or (place < len(self._older) and self._older[place] == key):
            return False
        self._recent.add(key)
        if len(self._recent) >= max(RECENT, len(self._older) // RECENT_SHARE):
            recent = np.fromiter(self._recent, dtype=np.uint64)
            self._older = np.sort(np.concatenate([self._older, recent]))
            self._recent = set()
        return True
