"""Persona cards in place of the personas of dialogues."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pal.core.errors import DataError
from pal.core.files import read_jsonl


def split_sentences(text: str) -> list[str]:
    """Split a description into sentences: at ``.``, ``!`` or ``?`` before a space and a capital."""
    return [
        part for part in re.split(r"(?<=[.!?])\s+(?=[A-Z\"'“])", " ".join(text.split())) if part
    ]


def give_cards(
    dialogues: Iterable[Mapping[str, Any]], path: str | None
) -> Iterable[Mapping[str, Any]]:
    """Yield dialogues with a card's sentences as the persona known at every turn.

    Args:
        dialogues: rows of :func:`pal.data.load_esconv`.
        path: cards as JSONL with ``id`` (the dialogue's) and ``description``; None changes nothing.

    Raises:
        DataError: a line is no card, or a dialogue has none.
    """
    if path is None:
        yield from dialogues
        return
    personas: dict[str, list[str]] = {}
    for line, card in read_jsonl(path):
        if not isinstance(card, dict) or not isinstance(card.get("id"), str):
            raise DataError(f"{path}, line {line}: no card; give 'id' and 'description'")
        if "failed" not in card and card.get("keep", True):
            if not isinstance(card.get("description"), str):
                raise DataError(f"{path}, line {line}: the card has no 'description'; add it")
            personas[card["id"]] = split_sentences(card["description"])
    for dialogue in dialogues:
        persona = personas.get(dialogue["id"])
        if persona is None:
            raise DataError(
                f"{path}: no card of dialogue {dialogue['id']!r}; make one by `pal traits cards`, "
                "or leave that dialogue out"
            )
        dialog = [{**turn, "persona": persona} for turn in dialogue["dialog"]]
        yield {**dialogue, "dialog": dialog, "persona": persona}
