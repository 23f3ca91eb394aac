"""Reader of JSON: one dialogue per line, one list, or a sequence of documents."""

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

from pal.core.errors import DataError
from pal.core.files import parse_json, why_not_json
from pal.data.corpora import CorpusFile, CorpusReader


class JsonReader(CorpusReader):
    """Reads ``ESConv.json``, ``PESConv.json``, JSON lines of any ending, and indented documents."""

    def recognises(self, file: CorpusFile) -> bool:
        """Return whether the first character opens a list or object, or the name is of JSON."""
        return file.first_line.startswith(("[", "{")) or file.ending in (
            ".jsonl", ".json", ".ndjson",
        )  # fmt: skip

    def read(self, file: CorpusFile) -> Iterator[tuple[str, Any]]:
        """Yield every object of the list, line or document."""
        lines = (
            (number, line) for number, line in enumerate(file.lines(), start=1) if line.strip()
        )
        first = next(lines, None)
        if first is None:
            raise file.fail("the file is empty; give one with at least one record")
        if first[1].lstrip().startswith("["):
            lines.close()
            whole = _document(file.text, file.name)
            records = whole if isinstance(whole, list) else [whole]
            yield from ((f"dialogue {index}", record) for index, record in enumerate(records))
        elif _opens_document(first[1]):
            lines.close()
            for index, (number, record) in enumerate(_documents(file.text, file.name)):
                yield f"line {number} (dialogue {index})", record
        else:
            for index, (number, line) in enumerate(chain([first], lines)):
                yield f"line {number} (dialogue {index})", _line(line, file.name, number)


def _line(line: str, name: str, number: int) -> Any:
    try:
        return parse_json(line)
    except ValueError as error:
        raise DataError(
            f"{name}, line {number}: not valid JSON ({why_not_json(error)}); correct that line"
        ) from None


def _opens_document(line: str) -> bool:
    """Return whether a line starts a document of several lines: it is valid but incomplete."""
    try:
        parse_json(line)
    except json.JSONDecodeError as error:
        return error.pos >= len(line.rstrip())
    except ValueError:
        pass
    return False


def _document(text: str, name: str) -> Any:
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{name}, line {error.lineno}: not valid JSON ({why_not_json(error)}); correct that "
            "line, or download the file again if it was cut off"
        ) from None
    except ValueError as error:
        raise DataError(f"{name}: not valid JSON ({error}); correct it") from None


def _documents(text: str, name: str) -> Iterator[tuple[int, Any]]:
    """Yield (first line, value) for each of a sequence of JSON documents."""
    decoder, position = json.JSONDecoder(), 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        line = text.count("\n", 0, position) + 1
        try:
            _, end = decoder.raw_decode(text, position)
            yield line, parse_json(text[position:end])  # with the strict rules
        except json.JSONDecodeError as error:
            raise DataError(
                f"{name}, line {error.lineno}: not valid JSON ({why_not_json(error)}); correct "
                "that line, or download the file again if it was cut off"
            ) from None
        except (ValueError, RecursionError) as error:
            reason = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
            raise DataError(f"{name}, line {line}: not valid JSON ({reason}); correct it") from None
        position = end
