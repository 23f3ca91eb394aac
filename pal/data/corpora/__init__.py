"""File formats of dialogues: each reader is one class in a file here and one line in a table.

The readers of :data:`CORPORA` are asked in order, and the first that recognises a file reads it.
Settings may name a reader from outside the package: ``data.reader=their_package.module:Class``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any

from pal.core.errors import DataError
from pal.core.files import decode_text, read_bytes
from pal.core.registry import Registry
from pal.core.streams import open_unpacked, read_head, read_lines

# Name → reader, in the order in which they are asked. The last accepts any other text.
CORPORA = Registry(
    "reader",
    {
        "parquet": "pal.data.corpora.columnar:ParquetReader",
        "arrow": "pal.data.corpora.columnar:ArrowReader",
        "release_contexts": "pal.data.corpora.refused:ReleaseContextsReader",
        "emodynamix": "pal.data.corpora.refused:EmoDynamixReader",
        "table": "pal.data.corpora.tables:TableReader",
        "json": "pal.data.corpora.json_files:JsonReader",
    },
)

# Endings of files that hold dialogues, the preferred first.
ENDINGS = (".jsonl", ".json", ".ndjson", ".txt", ".parquet", ".arrow", ".csv", ".tsv")

# The first line of a table that was written for Excel; it names the separator.
SEPARATOR_LINE = re.compile(r'\s*"?sep=([^\w\s"]|\t)"?[^\S\n]*\n', re.IGNORECASE)


@dataclass(frozen=True)
class CorpusFile:
    """A file of dialogues; what of it is asked for is read, and decompressed.

    Attributes:
        name: path of the file, also for messages.
        ending: ending of the file's name in lower case, without the ending of a compression.
    """

    name: str
    ending: str

    @cached_property
    def head(self) -> bytes:
        """The first bytes, by which a format is recognised.

        Raises:
            DataError: the file cannot be read.
        """
        return read_head(self.name)

    @cached_property
    def contents(self) -> bytes:
        """All bytes; of a file that may be large, :meth:`open` and :meth:`lines` hold few.

        Raises:
            DataError: the file cannot be read.
        """
        return read_bytes(self.name)

    @cached_property
    def text(self) -> str:
        """The contents as text.

        Raises:
            DataError: the file is empty or not UTF-8.
        """
        return decode_text(self.contents, self.name)

    @cached_property
    def beginning(self) -> str:
        """The first bytes as text, with the line breaks of :attr:`text`."""
        head = self.head.decode("utf-8-sig", "replace")
        return head.replace("\r\n", "\n").replace("\r", "\n")

    @cached_property
    def first_line(self) -> str:
        """The first line that is not blank, nor Excel's of the separator; empty if not text."""
        told = SEPARATOR_LINE.match(self.beginning)
        head = self.beginning[told.end() if told else 0 :].lstrip()
        return head.splitlines()[0] if head else ""

    def open(self) -> IO[bytes]:
        """Open the file as a stream of its bytes.

        Raises:
            DataError: the file cannot be read.
        """
        return open_unpacked(self.name)

    def lines(self) -> Iterator[str]:
        """Yield the lines of the text without their ends.

        Raises:
            DataError: the file is empty or not UTF-8; it shows where the reading comes to it.
        """
        return read_lines(self.name)

    def fail(self, problem: str) -> DataError:
        """Return the error that names the file."""
        return DataError(f"{self.name}: {problem}")


class CorpusReader:
    """Base class of readers: a subclass recognises and reads one file format."""

    def recognises(self, file: CorpusFile) -> bool:
        """Return whether the file has this format."""
        raise NotImplementedError

    def read(self, file: CorpusFile) -> Iterator[tuple[str, Any]]:
        """Yield (place in the file, record) of every record.

        A record is a dialogue in any layout that :mod:`pal.data.records` accepts, or one turn with
        the id of its dialogue; turns are then grouped into dialogues.

        Args:
            file: file to read.

        Raises:
            DataError: the file is damaged; the message names the place.
        """
        raise NotImplementedError


def find_reader(file: CorpusFile, name: str | None = None) -> CorpusReader:
    """Return the reader of a file.

    Args:
        file: the file.
        name: a key of :data:`CORPORA`, or ``their_package.module:Class``; None asks all in order.

    Raises:
        ConfigError: no reader has that name.
        DataError: the file has an unknown format.
    """
    if name is not None:
        return CORPORA.find(name)()
    for key in CORPORA:
        reader = CORPORA[key]()
        if reader.recognises(file):
            return reader
    file.text  # noqa: B018 - raises the reason if the file is not text
    raise file.fail(
        "an unknown format of dialogues: expected JSON lines, a JSON list, parquet, arrow, or "
        "CSV and TSV with a column for dialogue, speaker and text (data.columns names them), got "
        f"{file.first_line[:60]!r}"
    )
