"""What a guard finds in labelled messages, and in ordinary dialogues."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pal.core.errors import DataError, PalError
from pal.guard.guard import Guard
from pal.guard.levels import CONCERN
from pal.guard.rows import LabelledMessage, seeker_turns
from pal.stats.estimates import Estimate, cell, share_of, table

SHOWN_LINES = 20

# Order of the wordings in a table.
_ORDER = ("explicit", "passive", "indirect or coded", "third party", "other")


def measure_messages(
    guard: Guard, rows: Sequence[LabelledMessage], confidence: float = 0.95
) -> dict[str, Any]:
    """Return recall and false alarms on labelled messages, with Wilson's intervals.

    A message counts as found from level 1 on. Its context is given as the turns before it.

    Raises:
        PalError: a detector failed, so that nothing was measured.
    """
    found = guard.assess_many([([*row.context, row.text], None) for row in rows])
    if any(one.status != "ok" for one in found):
        raise PalError("guard eval: a detector failed or a message is not readable; see above")
    hits = [one.level >= CONCERN for one in found]
    groups: dict[str, dict[str, list[bool]]] = {
        "recall": {}, "recall by wording": {}, "recall by category": {},
        "false alarms": {}, "false alarms by category": {},
    }  # fmt: skip
    for row, hit in zip(rows, hits, strict=True):
        kind = "recall" if row.crisis else "false alarms"
        groups[kind].setdefault("all", []).append(hit)
        groups[f"{kind} by category"].setdefault(row.category, []).append(hit)
        if row.crisis:
            groups["recall by wording"].setdefault(row.wording, []).append(hit)
    wordings = groups["recall by wording"]
    groups["recall by wording"] = {name: wordings[name] for name in sorted(wordings, key=_place)}
    return {
        "kind": "guard messages",
        "format": 1,
        "guard": guard.describe(),
        "messages": len(rows),
        **{
            name: {key: share_of(sum(part), len(part), confidence) for key, part in group.items()}
            for name, group in groups.items()
        },
        "missed lines": _lines(rows, hits, missed=True),
        "false alarm lines": _lines(rows, hits, missed=False),
    }


def measure_dialogues(
    guard: Guard, dialogues: Iterable[Mapping[str, Any]], confidence: float = 0.95
) -> dict[str, Any]:
    """Return how many of the seekers' turns and of the dialogues a guard speaks up in.

    Turns are read by themselves, and as in a conversation: what the turn adds, after those before.

    Raises:
        DataError: no dialogue has a turn of the seeker.
        PalError: a detector failed, so that nothing was measured.
    """
    talks = [(str(one["id"]), seeker_turns(one)) for one in dialogues]
    turns = [turn for _, part in talks for turn in part]
    if not turns:
        raise DataError("guard eval: no dialogue has a turn of the seeker")
    found = guard.assess_many([([turn], None) for turn in turns])
    if any(one.status != "ok" for one in found):
        raise PalError("guard eval: a detector failed or a turn is not readable; see above")
    alone = [one.level >= CONCERN for one in found]
    added = [level >= CONCERN for _, part in talks for level in guard.levels(part)]
    flagged, start = [], 0
    for name, part in talks:
        if any(added[start : start + len(part)]):
            flagged.append(name)
        start += len(part)
    return {
        "kind": "guard dialogues",
        "format": 1,
        "guard": guard.describe(),
        "turns by themselves": share_of(sum(alone), len(turns), confidence),
        "turns in their dialogue": share_of(sum(added), len(turns), confidence),
        "dialogues": share_of(len(flagged), len(talks), confidence),
        "flagged dialogues": flagged,
    }


def show_measured(document: Mapping[str, Any]) -> str:
    """Show what was measured as Markdown."""
    guard = document["guard"]
    names = ", ".join(f"{one['name']} {one['version']}" for one in guard["detectors"])
    lines = [f"guard {guard['version']} ({names})", ""]
    if document["kind"] == "guard dialogues":
        keys = ("turns by themselves", "turns in their dialogue", "dialogues")
        rows = [_row(key, document[key]) for key in keys]
        return "\n".join([*lines, table(["flagged", "n", "share"], rows)])
    for name in ("recall", "recall by wording", "recall by category"):
        rows = [_row(key, one) for key, one in document[name].items()]
        lines += [table([name, "n", "found"], rows), ""]
    for name in ("false alarms", "false alarms by category"):
        rows = [_row(key, one) for key, one in document[name].items()]
        lines += [table([name, "n", "flagged"], rows), ""]
    for name in ("missed lines", "false alarm lines"):
        some = document[name][:SHOWN_LINES]
        rest = len(document[name]) - len(some)
        listed = ", ".join(map(str, some)) or "none"
        lines.append(f"{name}: {listed}{f' and {rest} more, in the JSON output' if rest else ''}")
    return "\n".join(lines)


def _lines(rows: Sequence[LabelledMessage], hits: Sequence[bool], *, missed: bool) -> list[int]:
    """Return the lines of the messages that the guard missed, or of its false alarms."""
    return [
        row.line
        for row, hit in zip(rows, hits, strict=True)
        if row.crisis is missed and hit is not missed
    ]


def _row(name: str, figure: Estimate) -> list[str]:
    return [name, str(figure["n"]), cell(figure, 3)]


def _place(wording: str) -> tuple[int, str]:
    return (_ORDER.index(wording) if wording in _ORDER else len(_ORDER), wording)
