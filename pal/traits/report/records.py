"""What the trait report takes from records: case studies, what is unanswered, how it was made."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pal.errors import DataError
from pal.jobs import record_path
from pal.records import read_json, read_jsonl

CASES = 3  # case studies a page shows at most

Record = Mapping[str, Any]


@dataclass
class Records:
    """Records of all files, by what they are.

    Attributes:
        cards: of seekers, also those that failed.
        measurements: answers of one card to one inventory.
        dialogues: synthesised or continued ones, also those that failed.
        runs: (file, record of the run that made it) where one lies beside it.
    """

    cards: list[Record] = field(default_factory=list)
    measurements: list[Record] = field(default_factory=list)
    dialogues: list[Record] = field(default_factory=list)
    runs: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


def read_records(paths: Iterable[str]) -> Records:
    """Read JSONL files of cards, measurements and dialogues, in any order.

    A file's kind is told by its first record that did not fail; its failed ones count there.

    Raises:
        DataError: a file is missing, no JSONL, or of none of the three kinds; the line is named.
    """
    found = Records()
    for path in paths:
        rows = list(read_jsonl(path))
        for number, row in rows:
            if not isinstance(row, Mapping) or not {"id", "dialog"} & row.keys():
                raise DataError(
                    f"{path}, line {number}: expected a record with an id; give cards, "
                    "measurements or dialogues that pal traits wrote"
                )
        sample = next((row for _, row in rows if "failed" not in row), None)
        if sample is None:  # a list of failures: dialogues have a condition
            sample = {"dialog" if "condition" in rows[0][1] else "description": None}
        kinds = {"dialog": found.dialogues, "answers": found.measurements,
                 "description": found.cards}  # fmt: skip
        kind = next((key for key in kinds if key in sample), None)
        if kind is None:
            raise DataError(
                f"{path}: its records have none of dialog, answers, description; give cards, "
                "measurements or dialogues that pal traits wrote"
            )
        kinds[kind] += [row for _, row in rows]
        beside = record_path(Path(path))
        if beside.exists():
            found.runs.append((Path(path).name, read_json(beside)))
    return found


@dataclass(frozen=True)
class Unanswered:
    """One line of what has no answer: of what, how many of how many, and why."""

    what: str
    count: int
    of: int
    reason: str


def unanswered(records: Records) -> list[Unanswered]:
    """Return what has no answer, counted by reason: cards, dialogues, items of inventories."""
    lines = []
    for what, rows in (("cards", records.cards), ("dialogues", records.dialogues),
                       ("measurements", records.measurements)):  # fmt: skip
        counts = Counter(str(row["failed"]) for row in rows if "failed" in row)
        lines += [Unanswered(what, n, len(rows), why) for why, n in counts.most_common()]
    inventories: dict[tuple[str, str], list[Record]] = {}
    for row in records.measurements:
        if "failed" not in row:
            key = str(row.get("inventory")), str(row.get("model"))
            inventories.setdefault(key, []).append(row)
    for (inventory, model), rows in inventories.items():
        reasons = Counter(str(why) for row in rows for why in row.get("unanswered", {}).values())
        asked = sum(len(row["answers"]) for row in rows) + sum(reasons.values())
        what = f"items of {inventory}, {model}"
        lines += [Unanswered(what, n, asked, why) for why, n in reasons.most_common()]
    return lines


@dataclass(frozen=True)
class Case:
    """A card with what was measured on it and the dialogues written from it."""

    card: Record
    traits: list[tuple[str, Mapping[str, str]]]
    scores: list[tuple[str, Mapping[str, float | None]]]
    dialogues: list[Record]


def cases(records: Records, most: int) -> list[Case]:
    """Return cards with dialogues, those with most to show first, in the order of the file."""
    scores = _by_card(records.measurements, "id")
    dialogues = _by_card(records.dialogues, "card")
    found = []
    for card in records.cards:
        key = card.get("dataset"), card["id"]
        if "failed" in card or key not in dialogues:
            continue
        traits = card.get("traits") or {}
        measured = [(f"{r['inventory']}, {r['model']}", r["scores"]) for r in scores.get(key, [])]
        found.append(Case(card, list(traits.items()), measured, dialogues[key]))
    found.sort(key=lambda case: -(bool(case.traits) + bool(case.scores)))
    return found[: min(most, CASES)]


def _by_card(rows: Iterable[Record], name: str) -> dict[tuple[Any, Any], list[Record]]:
    """Group records that did not fail by data set and card, whose id is in the field ``name``."""
    found: dict[tuple[Any, Any], list[Record]] = {}
    for row in rows:
        if "failed" not in row:
            found.setdefault((row.get("dataset"), row.get(name)), []).append(row)
    return found


@dataclass(frozen=True)
class Making:
    """How one file was made; ``host`` is of the endpoint, without its path or any secret."""

    file: str
    command: str
    model: str
    host: str
    facts: Mapping[str, Any]


def makings(runs: Iterable[tuple[str, Record]]) -> list[Making]:
    """Return how each file was made, as far as its run's record tells."""
    found = []
    for name, run in runs:
        llm = (run.get("settings") or {}).get("llm") or {}
        url = llm.get("base_url")
        host = urlsplit(str(url)).hostname or "" if url else ""
        facts = {
            key: run[key]
            for key in run.keys()
            - {"settings", "versions", "identity", "command", "python", "platform", "seed",
               "git_commit", "finished"}
        }  # fmt: skip
        found.append(
            Making(name, str(run.get("command", "")), str(llm.get("model") or ""), host,
                   dict(sorted(facts.items())))
        )  # fmt: skip
    return found
