"""Dialogues by condition, for what counts in them: strategies, words, turns."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pal.errors import DataError, PalError
from pal.records import read_jsonl
from pal.settings import Settings
from pal.strategies import canonical_strategy

logger = logging.getLogger(__name__)

# Conditions without traits, as synthesize and continue name them.
BASELINES = ("none", "without_persona")


@dataclass(frozen=True)
class Turn:
    """One turn: who speaks, what, and a supporter's strategy (canonical) if it is known."""

    speaker: str
    text: str
    strategy: str | None


@dataclass(frozen=True)
class Talk:
    """One dialogue.

    Attributes:
        key: what it was written from (``card``, else its id): pairs dialogues across conditions.
        turns: in order.
    """

    key: str
    turns: tuple[Turn, ...]


Conditions = dict[str, list[Talk]]


def inputs_of(settings: Settings) -> list[str]:
    """Return the files of dialogues that the settings name.

    Raises:
        ConfigError: none is named.
    """
    files = list(settings.traits.dialogues.values())
    return files or settings.require("input")


def read_talks(settings: Settings) -> tuple[dict[tuple[str, str], Conditions], int]:
    """Read dialogues, by data set and model and within these by condition.

    Files of ``traits.dialogues`` are one condition each, and one group whatever their records say.
    A file holds dialogues (``dialog``: turns of ``speaker``, ``text`` and ``strategy``) or
    predictions of ``pal generate``, of which those of one dialogue are a talk of supporter turns.

    Returns:
        The groups, conditions without traits last, and how many records had failed earlier.

    Raises:
        DataError: a record that is neither, or an unknown speaker or strategy; file and line are
            named.
    """
    groups: dict[tuple[str, str], Conditions] = {}
    failed = 0
    named = settings.traits.dialogues
    for name, path in named.items() if named else [(None, inputs_of(settings)[0])]:
        turns: dict[tuple[tuple[str, str], str, str, str], list[Turn]] = {}
        for where, row in _records(path):
            if "failed" in row:
                failed += 1
                continue
            group = ("all", "all") if name else _group(row)
            condition = name or str(row.get("condition", "all"))
            if "dialog" in row:
                key = (group, condition, str(row.get("card", row["id"])), row["id"])
                if key in turns:
                    raise DataError(f"{where}: the id {row['id']!r} is met twice; drop one")
                turns[key] = _turns(where, row["dialog"])
            elif "response" in row:
                dialogue = row["id"].rpartition("/")[0] or row["id"]
                key = (group, condition, dialogue, dialogue)
                turns.setdefault(key, []).append(
                    _turn(where, {"speaker": "supporter", "text": row["response"], **row})
                )
            else:
                raise DataError(f"{where}: neither a dialogue ('dialog') nor a prediction")
        for (group, condition, card, _), said in turns.items():
            conditions = groups.setdefault(group, {})
            conditions.setdefault(condition, []).append(Talk(card, tuple(said)))
    if not groups:
        raise DataError(f"{', '.join(inputs_of(settings))}: no dialogues in it")
    return {
        group: dict(sorted(found.items(), key=lambda pair: pair[0] in BASELINES))
        for group, found in sorted(groups.items())
    }, failed


def _records(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, row in read_jsonl(path):
        where = f"{path}, line {number}"
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected an object, got {type(row).__name__}")
        row = {"id": f"{number}", **row}
        if not isinstance(row["id"], str):
            raise DataError(f"{where}: the id must be a string, got {row['id']!r:.60}")
        yield where, row


def _group(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row.get("dataset", "all")), str(row.get("model", "all"))


def _turns(where: str, dialog: Any) -> list[Turn]:
    if not isinstance(dialog, list) or not dialog:
        raise DataError(f"{where}: 'dialog' must be a list of at least one turn")
    return [_turn(f"{where}, turn {number}", turn) for number, turn in enumerate(dialog, start=1)]


def _turn(where: str, turn: Any) -> Turn:
    if not isinstance(turn, dict) or turn.get("speaker") not in ("seeker", "supporter"):
        raise DataError(f"{where}: expected a turn whose speaker is seeker or supporter")
    if not isinstance(turn.get("text"), str):
        raise DataError(f"{where}: 'text' must be a string, got {turn.get('text')!r:.60}")
    given = turn.get("strategy") if turn["speaker"] == "supporter" else None
    try:
        strategy = None if given is None else canonical_strategy(given)
    except PalError as error:
        raise DataError(f"{where}: {error}") from None
    return Turn(turn["speaker"], turn["text"], strategy)
