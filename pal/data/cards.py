"""Persona cards in place of the personas of dialogues.

A card describes the seeker of a whole dialogue. Given as the persona, it lets a model know at the
first turn what the seeker says in the last. Responses and scores with cards therefore use more
information than those with personas inferred turn by turn, and the two cannot be compared.
:func:`give_cards` warns of it, and :func:`cards_note` puts it into the record of such a run.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pal.core.errors import DataError
from pal.core.files import read_jsonl
from pal.data.texts import normalise_text

logger = logging.getLogger(__name__)

CARDS_NOTE = (
    "cards describe whole dialogues: at every turn the model knows what the seeker says later; "
    "these results are not comparable with others"
)
_warned: set[str] = set()


def cards_note(path: str | None) -> dict[str, str]:
    """Return the note for the record of a run with cards, ``{"cards": …}``; empty without cards.

    Args:
        path: the setting ``data.cards``.
    """
    return {} if path is None else {"cards": CARDS_NOTE}


def split_sentences(text: str) -> list[str]:
    """Split a description after each ``.``, ``!`` or ``?`` before a space and a capital."""
    return [part for part in re.split(r"(?<=[.!?])\s+(?=[A-Z\"'“])", normalise_text(text)) if part]


def give_cards(
    dialogues: Iterable[Mapping[str, Any]], path: str | None
) -> Iterable[Mapping[str, Any]]:
    """Yield dialogues with a card's sentences as the persona known at every turn.

    One warning for each file says that cards know what is said later.

    Args:
        dialogues: rows of :func:`pal.data.load_esconv`.
        path: cards as JSONL with ``id`` (the dialogue's) and ``description``; None changes nothing.

    Raises:
        DataError: a line is not a card, or a dialogue has no card or several.
    """
    if path is None:
        yield from dialogues
        return
    warn_of_cards(path)
    yield from lay_cards(dialogues, read_card_personas(path), path)


def warn_of_cards(path: str) -> None:
    """Say once of a file that cards know what is said later."""
    if path not in _warned:
        _warned.add(path)
        logger.warning("data.cards=%s: %s", path, CARDS_NOTE)


def lay_cards(
    dialogues: Iterable[Mapping[str, Any]], personas: Mapping[str, list[str]], path: str
) -> Iterator[Mapping[str, Any]]:
    """Yield dialogues with the sentences of their cards as the persona known at every turn.

    Args:
        dialogues: rows of :func:`pal.data.load_esconv`.
        personas: of :func:`read_card_personas`.
        path: of the cards, for messages.

    Raises:
        DataError: a dialogue has no card.
    """
    for dialogue in dialogues:
        persona = personas.get(dialogue["id"])
        if persona is None:
            raise DataError(
                f"{path}: no card for dialogue {dialogue['id']!r}; make one with `pal traits "
                "cards`, or leave that dialogue out"
            )
        dialog = [{**turn, "persona": persona, "card": True} for turn in dialogue["dialog"]]
        yield {**dialogue, "dialog": dialog, "persona": persona}


def read_card_personas(path: str) -> dict[str, list[str]]:
    """Return the sentences of every kept card, by dialogue id.

    Raises:
        DataError: a line is not a card, or two cards have the same id.
    """
    personas: dict[str, list[str]] = {}
    for line, card in read_jsonl(path):
        where = f"{path}, line {line}"
        if not isinstance(card, dict) or not isinstance(card.get("id"), str):
            raise DataError(f"{where}: not a card; give 'id' and 'description'")
        keep = card.get("keep", True)
        if not isinstance(keep, bool):
            raise DataError(f"{where}: 'keep' must be true or false, got {keep!r:.60}")
        if "failed" in card or not keep:
            continue
        if not isinstance(card.get("description"), str):
            raise DataError(f"{where}: the card has no 'description'; add it")
        if card["id"] in personas:
            raise DataError(
                f"{where}: a second card for dialogue {card['id']!r:.80}; keep one of them"
            )
        personas[card["id"]] = split_sentences(card["description"])
    return personas
