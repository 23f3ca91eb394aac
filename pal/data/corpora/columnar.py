"""Readers of parquet and arrow, as ``datasets`` and the hub write them, block by block."""

from collections.abc import Callable, Iterator
from typing import Any

from pal.core.errors import DataError, first_line
from pal.data.corpora import CorpusFile, CorpusReader

BLOCK = 1000  # rows of parquet that are read at once


class ParquetReader(CorpusReader):
    """Reads parquet with one dialogue per row, or one turn per row."""

    def recognises(self, file: CorpusFile) -> bool:
        """Return whether the first bytes or the name are those of parquet."""
        return file.head.startswith(b"PAR1") or file.ending == ".parquet"

    def read(self, file: CorpusFile) -> Iterator[tuple[str, Any]]:
        """Yield every row."""
        from pyarrow import parquet

        yield from _rows(file, lambda handle: parquet.ParquetFile(handle).iter_batches(BLOCK))


class ArrowReader(CorpusReader):
    """Reads the same rows from arrow's stream format (``datasets``) or file format."""

    def recognises(self, file: CorpusFile) -> bool:
        """Return whether the first bytes or the name are those of arrow."""
        return file.head.startswith((b"ARROW1", b"\xff\xff\xff\xff")) or file.ending == ".arrow"

    def read(self, file: CorpusFile) -> Iterator[tuple[str, Any]]:
        """Yield every row."""
        from pyarrow import ipc

        def batches(handle: Any) -> Iterator[Any]:
            if not file.head.startswith(b"ARROW1"):
                yield from ipc.open_stream(handle)
                return
            whole = ipc.open_file(handle)
            yield from (whole.get_batch(number) for number in range(whole.num_record_batches))

        yield from _rows(file, batches)


def _rows(file: CorpusFile, load: Callable[[Any], Iterator[Any]]) -> Iterator[tuple[str, Any]]:
    from pyarrow import ArrowException

    if not file.head:
        raise file.fail("the file is empty; give one with at least one record")
    count = 0
    with file.open() as handle:
        batches = None
        while True:
            try:
                batches = load(handle) if batches is None else batches
                batch = next(batches, None)
                rows = [] if batch is None else batch.to_pylist()
            except (ArrowException, OSError, ValueError, ArithmeticError, MemoryError) as error:
                raise DataError(
                    f"{file.name}: cannot be read as {file.ending.lstrip('.') or 'arrow'} "
                    f"({first_line(error)[:200]}); download or write the file again"
                ) from None
            if batch is None:
                return
            yield from ((f"dialogue {count + place}", row) for place, row in enumerate(rows))
            count += len(rows)
