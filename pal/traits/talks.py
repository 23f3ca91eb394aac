"""Reading dialogues by condition, for counts of strategies, words and turns."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pal.core.errors import ConfigError, DataError, PalError
from pal.core.files import read_jsonl
from pal.data.records import SPEAKERS
from pal.data.settings import ReadingSettings
from pal.data.splits import load_split
from pal.data.strategies import canonical_strategy

# Conditions without traits, as synthesize and continue name them.
BASELINES = ("none", "without_persona")


@dataclass(frozen=True)
class SaidTurn:
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
    turns: tuple[SaidTurn, ...]


Conditions = dict[str, list[Talk]]


def talk_files(source: str | None, named: Mapping[str, str]) -> dict[str | None, str]:
    """Return the files to read, by condition; None for one that names its conditions itself.

    Raises:
        ConfigError: none is given.
    """
    files: dict[str | None, str] = {}
    files.update(named.items())
    if not files and source is not None:
        files[None] = source
    if not files:
        raise ConfigError("missing settings: give input=… or traits.dialogues={condition: file}")
    return files


def read_talks(
    files: Mapping[str | None, str], split: str | None, data: ReadingSettings
) -> tuple[dict[tuple[str, str], Conditions], int]:
    """Read dialogues, by data set and model and within these by condition.

    Files with a condition's name are one condition each, and one group whatever their records say.
    A JSONL file holds dialogues in ESConv's layouts, with ``dataset``, ``model``, ``condition`` and
    ``card`` if known, or predictions of ``pal generate``, of which those of one dialogue are a talk
    of supporter turns. Anything else is a corpus, see :func:`pal.data.splits.load_split`.

    Args:
        files: of :func:`talk_files`.
        split: which split of a corpus; None for all.
        data: how they are read.

    Returns:
        The groups, conditions without traits last, and how many records had failed earlier.

    Raises:
        DataError: a record that is neither, or an unknown speaker or strategy; file and line are
            named.
    """
    groups: dict[tuple[str, str], Conditions] = {}
    failed = 0
    for name, path in files.items():
        turns: dict[tuple[tuple[str, str], str, str, str], list[SaidTurn]] = {}
        for where, row in _records(path, split, data):
            if "failed" in row:
                failed += 1
                continue
            group = ("all", "all") if name else _group(row)
            condition = name or str(row.get("condition", "all"))
            if "dialog" in row:
                key = (group, condition, str(row.get("card", row["id"])), row["id"])
                if key in turns:
                    raise DataError(f"{where}: the id {row['id']!r} occurs twice; remove one")
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
        raise DataError(f"{', '.join(files.values())}: no dialogues; give a file with at least one")
    return {
        group: dict(sorted(found.items(), key=lambda pair: pair[0] in BASELINES))
        for group, found in sorted(groups.items())
    }, failed


def _records(
    path: str, split: str | None, data: ReadingSettings
) -> Iterator[tuple[str, dict[str, Any]]]:
    if Path(path).suffix != ".jsonl":
        rows = load_split(path, split, how=data)
        yield from ((f"{path}, dialogue {row['id']!r}", row) for row in rows)
        return
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


def _turns(where: str, dialog: Any) -> list[SaidTurn]:
    if not isinstance(dialog, list) or not dialog:
        raise DataError(f"{where}: 'dialog' must be a list of at least one turn")
    return [_turn(f"{where}, turn {number}", turn) for number, turn in enumerate(dialog, start=1)]


def _turn(where: str, turn: Any) -> SaidTurn:
    turn = turn if isinstance(turn, dict) else {}
    speaker = SPEAKERS.get(str(turn.get("speaker")).strip().lower())
    if speaker is None:
        raise DataError(f"{where}: expected a turn whose speaker is one of {', '.join(SPEAKERS)}")
    text = turn.get("text", turn.get("content"))
    if not isinstance(text, str):
        raise DataError(f"{where}: 'text' must be a string, got {text!r:.60}")
    annotation = turn.get("annotation")
    given = turn.get("strategy")
    if given is None and isinstance(annotation, dict):
        given = annotation.get("strategy")
    try:
        strategy = (
            canonical_strategy(given) if given is not None and speaker == "supporter" else None
        )
    except PalError as error:
        raise DataError(f"{where}: {error}") from None
    return SaidTurn(speaker, text, strategy)
