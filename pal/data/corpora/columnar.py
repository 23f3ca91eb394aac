"""Readers of parquet and arrow, as ``datasets`` and the hub write them."""

from collections.abc import Iterator
from typing import Any

from pal.core.errors import DataError, first_line
from pal.data.corpora import CorpusFile, CorpusReader


class ParquetReader(CorpusReader):
    """Reads parquet with one dialogue per row, or one turn per row."""

    def recognises(self, file: CorpusFile) -> bool:
        """Return whether the first bytes or the name are those of parquet."""
        return file.contents.startswith(b"PAR1") or file.ending == ".parquet"

    def read(self, file: CorpusFile) -> Iterator[tuple[str, Any]]:
        """Yield every row."""
        from pyarrow import BufferReader, parquet

        yield from _rows(file, lambda: parquet.read_table(BufferReader(file.contents)))


class ArrowReader(CorpusReader):
    """Reads the same rows from arrow's stream format (``datasets``) or file format."""

    def recognises(self, file: CorpusFile) -> bool:
        """Return whether the first bytes or the name are those of arrow."""
        return file.contents.startswith((b"ARROW1", b"\xff\xff\xff\xff")) or file.ending == ".arrow"

    def read(self, file: CorpusFile) -> Iterator[tuple[str, Any]]:
        """Yield every row."""
        from pyarrow import BufferReader, ipc

        is_file = file.contents.startswith(b"ARROW1")
        opened = ipc.open_file if is_file else ipc.open_stream
        yield from _rows(file, lambda: opened(BufferReader(file.contents)).read_all())


def _rows(file: CorpusFile, load: Any) -> Iterator[tuple[str, Any]]:
    from pyarrow import ArrowException

    if not file.contents:
        raise file.fail("the file is empty; give one with at least one record")
    try:
        rows = load().to_pylist()
    except (ArrowException, OSError, ValueError, ArithmeticError, MemoryError) as error:
        raise DataError(
            f"{file.name}: cannot be read as {file.ending.lstrip('.') or 'arrow'} "
            f"({first_line(error)[:200]}); fetch or write the file again"
        ) from None
    yield from ((f"dialogue {index}", row) for index, row in enumerate(rows))
