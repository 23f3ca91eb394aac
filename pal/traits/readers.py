"""What the trait wing reads: dialogues, posts, one-line personas, and its own cards.

Posts come as CSV or JSONL with a column of text (CAMS, Dreaddit); personas one a line, as plain
text or as JSON with a key ``persona`` (PersonaHub).
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pal.core.errors import DataError, suggest
from pal.core.files import read_jsonl, read_text
from pal.core.schema import Settings
from pal.data.splits import load_split


@dataclass(frozen=True)
class Item:
    """One text about a person.

    Attributes:
        id: unique within the input.
        dataset: label of the input.
        kind: ``dialogue``, ``post`` or ``persona``.
        text: what the model reads.
    """

    id: str
    dataset: str
    kind: str
    text: str


def dataset_label(settings: Settings) -> str:
    """Return ``traits.dataset``, or the input's name."""
    (source,) = settings.require("input")
    return settings.traits.dataset or Path(source).stem


def load_dialogues(settings: Settings) -> list[dict[str, Any]]:
    """Return the dialogues of ``input``, as rows of :func:`pal.load_esconv`.

    Raises:
        DataError: they cannot be read; the message names file and record.
    """
    (source,) = settings.require("input")
    rows = load_split(
        source, settings.split, mode=settings.data.split, seed=settings.data.split_seed,
        requests=True,
    )  # fmt: skip
    return list(rows)[: settings.limit]


def load_items(settings: Settings) -> list[Item]:
    """Return the texts of ``input``: posts if ``traits.text_column`` is given, else dialogues.

    Raises:
        DataError: the input cannot be read; the message names file, record and remedy.
    """
    (source,), label = settings.require("input"), dataset_label(settings)
    column = settings.traits.text_column
    if column is None:
        return [
            Item(row["id"], label, "dialogue", transcript(row["dialog"]))
            for row in load_dialogues(settings)
        ]
    path = Path(source)
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else read_jsonl(path)
    texts = (_text(path, line, row, column) for line, row in rows)
    return _items(path, label, "post", texts)[: settings.limit]


def load_personas(settings: Settings) -> list[Item]:
    """Return the one-line personas of ``input``.

    Raises:
        DataError: the input cannot be read; the message names file, record and remedy.
    """
    (source,), label = settings.require("input"), dataset_label(settings)
    path = Path(source)
    if path.suffix.lower() == ".jsonl":
        texts = (_text(path, line, row, "persona") for line, row in read_jsonl(path))
    else:
        texts = (line.strip() for line in read_text(path).splitlines() if line.strip())
    return _items(path, label, "persona", texts)[: settings.limit]


def transcript(dialog: Sequence[Mapping[str, Any]]) -> str:
    """Return a dialogue as text, ``Seeker: …`` and ``Supporter: …`` line by line."""
    return "\n".join(f"{turn['speaker'].capitalize()}: {turn['text']}" for turn in dialog)


def talk_json(dialog: Sequence[Mapping[str, Any]]) -> str:
    """Return a dialogue as JSON with speaker, text and, where there is one, strategy."""
    keys = ("speaker", "text", "strategy")
    turns = [{key: turn[key] for key in keys if turn.get(key)} for turn in dialog]
    return json.dumps(turns, ensure_ascii=False)


def read_cards(path: str | Path) -> list[dict[str, Any]]:
    """Return the cards of a file, failed ones too.

    Raises:
        DataError: a line is no card, or two have the same data set and id.
    """
    cards: dict[tuple[str, str], dict[str, Any]] = {}
    for line, card in read_jsonl(path):
        where = f"{path}, line {line}"
        if not isinstance(card, dict) or not isinstance(card.get("id"), str):
            raise DataError(f"{where}: a card without 'id'; give what `pal traits cards` wrote")
        if "failed" not in card and not isinstance(card.get("description"), str):
            raise DataError(f"{where}: the card has no 'description'; add it or delete the line")
        key = (str(card.get("dataset")), card["id"])
        if key in cards:
            raise DataError(f"{where}: a second card {card['id']!r}; delete one of the two")
        cards[key] = {"dataset": "cards", **card}
    return list(cards.values())


def is_usable(card: Mapping[str, Any]) -> bool:
    """Whether later steps work on a card: it did not fail, nor did the filter drop it."""
    return "failed" not in card and card.get("keep", True) is True


def persona_text(card: Mapping[str, Any], *, use_traits: bool = True) -> str:
    """Return a card as the text a model reads: description and trait sentences.

    The problem stays out, so that cards with one and those grown from a line are measured alike.
    """
    parts = [card["description"]]
    for sentences in (card.get("traits") or {}).values() if use_traits else ():
        parts.extend(sentences.values())
    return "\n".join(parts)


def _items(path: Path, label: str, kind: str, texts: Iterator[str]) -> list[Item]:
    return [Item(f"{path.stem}-{n:05d}", label, kind, text) for n, text in enumerate(texts)]


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(read_text(path).splitlines(keepends=True))
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: not valid CSV ({error}); mend that line"
        ) from None


def _text(path: Path, line: int, row: Any, column: str) -> str:
    where = f"{path}, line {line}"
    if not isinstance(row, dict) or column not in row:
        keys = [str(key) for key in row] if isinstance(row, dict) else []
        raise DataError(
            f"{where}: no {column!r}{suggest(column, keys)} (it has {', '.join(keys) or 'no keys'})"
        )
    text = row[column]
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: {column!r} holds no text; add it or delete the line")
    return text.strip()
