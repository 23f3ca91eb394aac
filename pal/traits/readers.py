"""Readers of the trait studies: dialogues, posts, one-line personas, and cards.

Posts come as CSV, TSV or JSONL with a column of text (CAMS, Dreaddit); personas one a line as plain
text, or as JSON or a table with a key ``persona`` (PersonaHub).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pal.core.errors import DataError, suggest
from pal.core.files import COMPRESSED, read_jsonl, read_text
from pal.data.corpora.tables import table_rows
from pal.data.settings import ReadingSettings

TABLES = (".csv", ".tsv")  # endings of tables

# Why a dialogue is not continued though nothing failed: its record says so as the reason.
DROPPED = "the filter dropped its card"


@dataclass(frozen=True)
class PersonText:
    """One text about a person.

    Attributes:
        id: unique within the input.
        dataset: label of the input.
        kind: ``dialogue``, ``post`` or ``persona``.
        text: what the model reads.
        turns: how many turns of a dialogue the text holds, where not all; None otherwise.
    """

    id: str
    dataset: str
    kind: str
    text: str
    turns: int | None = None


def load_dialogues(
    source: str, split: str | None, data: ReadingSettings, limit: int | None
) -> list[dict[str, Any]]:
    """Return dialogues, as rows of :func:`pal.load_esconv`.

    Args:
        source: file, folder or hub id.
        split: which split of it; None for all.
        data: how they are read.
        limit: stop after so many.

    Raises:
        DataError: they cannot be read; the message names file and record.
    """
    from pal.data.splits import load_split

    rows = load_split(source, split, how=data, requests=True)
    return list(rows if limit is None else rows.select(range(min(limit, len(rows)))))


def dialogue_texts(
    rows: Sequence[Mapping[str, Any]], label: str, turns: int | None = None
) -> list[PersonText]:
    """Return dialogues as texts about their seekers.

    Args:
        rows: of :func:`load_dialogues`.
        label: data set of the records.
        turns: how many turns of each to show; None for all.
    """
    found = []
    for row in rows:
        dialog = row["dialog"]
        cut = None if turns is None or len(dialog) <= turns else turns
        found.append(PersonText(row["id"], label, "dialogue", transcript(dialog[:turns]), cut))
    return found


def load_posts(source: str, column: str, label: str, limit: int | None) -> list[PersonText]:
    """Return the posts of a CSV, TSV or JSONL file.

    Args:
        source: the file.
        column: column or key of a post's text.
        label: data set of the records.
        limit: stop after so many.

    Raises:
        DataError: the file cannot be read; the message names file, record and remedy.
    """
    path = Path(source)
    texts = (_text(path, line, row, column) for line, row in _rows(path))
    return _numbered(path, label, "post", texts)[:limit]


def load_personas(source: str, label: str, limit: int | None) -> list[PersonText]:
    """Return the one-line personas of a file, one a line as text, or a table or JSONL of them.

    Tables and JSON lines have them in ``persona``.

    Raises:
        DataError: the file cannot be read; the message names file, record and remedy.
    """
    path = Path(source)
    if _ending(path) in (*TABLES, ".jsonl", ".ndjson", ".json"):
        texts = (_text(path, line, row, "persona") for line, row in _rows(path))
    else:
        texts = (line.strip() for line in read_text(path).split("\n") if line.strip())
    return _numbered(path, label, "persona", texts)[:limit]


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

    A data set that is a number is its text.

    Raises:
        DataError: a line is not a card, or two cards have the same data set and id.
    """
    cards: dict[tuple[str, str], dict[str, Any]] = {}
    for line, card in read_jsonl(path):
        where = f"{path}, line {line}"
        if not isinstance(card, dict) or not isinstance(card.get("id"), str):
            raise DataError(f"{where}: a card without 'id'; give what `pal traits cards` wrote")
        if "failed" not in card and not isinstance(card.get("description"), str):
            raise DataError(f"{where}: the card has no 'description'; add it or delete the line")
        card = {"dataset": "cards", **card}
        if isinstance(card["dataset"], int | float):
            card["dataset"] = str(card["dataset"])
        _check_card(where, card)
        key = (card["dataset"], card["id"])
        if key in cards:
            raise DataError(f"{where}: a second card {card['id']!r}; delete one of the two")
        cards[key] = card
    return list(cards.values())


def _check_card(where: str, card: Mapping[str, Any]) -> None:
    """Refuse fields of a card that later steps could not read."""
    for key in ("dataset", "problem", "failed"):
        if card.get(key) is not None and not isinstance(card[key], str):
            raise DataError(f"{where}: {key!r} must be text, got {card[key]!r:.60}")
    traits = card.get("traits") or {}
    sentences = traits.values() if isinstance(traits, dict) else [None]
    if not all(
        isinstance(one, dict) and all(isinstance(text, str) for text in one.values())
        for one in sentences
    ):
        raise DataError(
            f"{where}: 'traits' must map inventories to dimensions to sentences, got {traits!r:.60}"
        )


def is_usable(card: Mapping[str, Any]) -> bool:
    """Return whether later steps work on a card: it did not fail, nor did the filter drop it."""
    return "failed" not in card and card.get("keep", True) is True


def persona_text(card: Mapping[str, Any], *, use_traits: bool = True) -> str:
    """Return a card as the text a model reads: description and trait sentences.

    The problem stays out, so that cards with one and those grown from a line are measured alike.
    """
    parts = [card["description"]]
    for sentences in (card.get("traits") or {}).values() if use_traits else ():
        parts.extend(sentences.values())
    return "\n".join(parts)


def _numbered(path: Path, label: str, kind: str, texts: Iterator[str]) -> list[PersonText]:
    return [PersonText(f"{path.stem}-{n:05d}", label, kind, text) for n, text in enumerate(texts)]


def _ending(path: Path) -> str:
    """Return the ending of a file's name that says its format, compressed or not."""
    name = path.name.lower()
    for packed in COMPRESSED:
        name = name.removesuffix(packed)
    return Path(name).suffix


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Return (line, record) of every row of a table, or of every line of JSON."""
    is_table = _ending(path) in TABLES
    return table_rows(read_text(path), str(path)) if is_table else read_jsonl(path)


def _text(path: Path, line: int, row: Any, column: str) -> str:
    where = f"{path}, line {line}"
    if not isinstance(row, dict) or column not in row:
        keys = [str(key) for key in row] if isinstance(row, dict) else []
        raise DataError(
            f"{where}: no {column!r}{suggest(column, keys)} (it has {', '.join(keys) or 'no keys'})"
        )
    text = row[column]
    if text is not None and not isinstance(text, str):
        raise DataError(f"{where}: {column!r} must be one text, and is not; write it as one")
    if text is None or not text.strip():
        raise DataError(f"{where}: {column!r} holds no text; add it or delete the line")
    return text.strip()
