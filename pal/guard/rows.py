"""Labelled messages, to train and to measure a guard with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pal.core.errors import DataError
from pal.core.files import read_jsonl

# How the wording of a category is, for the categories that have a name here.
WORDINGS = {
    **dict.fromkeys(
        ("ideation_active", "plan_intent", "imminent", "method_seeking", "self_harm", "misspelt"),
        "explicit",
    ),
    "ideation_passive": "passive",
    **dict.fromkeys(
        ("indirect", "coded_slang", "needs_context", "denial_with_risk"), "indirect or coded"
    ),
    "third_party": "third party",
}


@dataclass(frozen=True)
class LabelledMessage:
    """One message and what a guard should do with it.

    Attributes:
        text: the message.
        crisis: whether the guard should speak up.
        category: kind, for the table.
        wording: ``explicit``, ``passive``, ``indirect or coded``, ``third party`` or ``other``.
        source: where it comes from; cross-validation keeps a source together.
        context: the seeker's turns before it.
        line: number of its line in the file, from 1; 0 if it comes from elsewhere.
    """

    text: str
    crisis: bool
    category: str
    wording: str
    source: str
    context: tuple[str, ...]
    line: int = 0


def read_labelled(path: str) -> list[LabelledMessage]:
    """Read labelled messages: JSON lines with ``text`` and ``label``.

    ``label`` is ``crisis`` or ``none``; ``category``, ``wording``, ``source`` and ``context``, the
    list of the seeker's turns before, may be there.

    Raises:
        DataError: the file cannot be read, or a line is not of this form.
    """
    rows = []
    for number, row in read_jsonl(path):
        where = f"{path}, line {number}"
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected an object with text and label")
        text, label = row.get("text"), row.get("label")
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{where}: text should be a non-empty string")
        if label not in ("crisis", "none"):
            raise DataError(f"{where}: label should be crisis or none")
        context = row.get("context") or []
        if not isinstance(context, list) or not all(isinstance(turn, str) for turn in context):
            raise DataError(f"{where}: context should be a list of texts")
        category = str(row.get("category") or "other")
        rows.append(
            LabelledMessage(
                text=text,
                crisis=label == "crisis",
                category=category,
                wording=str(row.get("wording") or WORDINGS.get(category, "other")),
                source=str(row.get("source") or Path(path).name),
                context=tuple(context),
                line=number,
            )
        )
    return rows


def is_labelled(path: str) -> bool:
    """Return whether a file holds labelled messages rather than dialogues."""
    if not Path(path).is_file():
        return False
    try:
        _, first = next(iter(read_jsonl(path)))
    except (DataError, StopIteration):
        return False
    return isinstance(first, Mapping) and "label" in first and "text" in first


def seeker_turns(dialogue: Mapping[str, Any]) -> list[str]:
    """Return what the seeker says in a dialogue, in order."""
    turns: Sequence[Mapping[str, Any]] = dialogue["dialog"]
    return [turn["text"] for turn in turns if turn["speaker"] == "seeker"]
