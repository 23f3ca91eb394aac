"""Supporter turns of ESConv that do harm, which no model should be trained to say.

One agrees that to be dead would be easier, two ask for the means, one gives a number that is no
longer the one. They are known by a hash of the turn and the one before it, letters alone, so every
layout of the corpus is recognised and the corpus is not repeated here.
"""

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

logger = logging.getLogger(__name__)

HARMFUL = frozenset(
    {"378a45c41d1d135c", "28bf902f3c8ab206", "779d6d988cbf1bee", "801018557c980ae4"}
)

# The key that a turn has which is no target.
LEFT_OUT = "left_out"


def leave_out_harmful(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return dialogues whose harmful supporter turns are marked, so that they are no targets.

    They stay in the dialogue as context. A log line gives their number, if there are any.

    Args:
        rows: rows of :func:`pal.data.esconv.load_esconv`.
    """
    marked = [mark_harmful(row) for row in rows]
    report_harmful(sum(count for _, count in marked))
    return [row for row, _ in marked]


def mark_harmful(row: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
    """Return a dialogue whose harmful supporter turns are marked, and their number."""
    places = harmful_turns(row["dialog"])
    if places:
        dialog = [
            {**turn, LEFT_OUT: True} if place in places else turn
            for place, turn in enumerate(row["dialog"])
        ]
        row = {**row, "dialog": dialog}
    return row, len(places)


def report_harmful(count: int) -> None:
    """Log how many turns were marked, if any were."""
    if count:
        logger.info(
            "%d harmful supporter turns are not used as training targets "
            "(data.leave_out_harmful=false trains on them)", count,
        )  # fmt: skip


def harmful_turns(dialog: list[Mapping[str, Any]]) -> set[int]:
    """Return the places of the harmful supporter turns of a dialogue."""
    return {
        place
        for place in range(1, len(dialog))
        if dialog[place]["speaker"] == "supporter"
        and _digest(dialog[place - 1]["text"], dialog[place]["text"]) in HARMFUL
    }


def _digest(before: str, text: str) -> str:
    letters = [re.sub(r"[^a-z0-9]", "", part.casefold()) for part in (before, text)]
    return hashlib.sha256("|".join(letters).encode()).hexdigest()[:16]
