"""What the trait report takes from records: case studies, what is unanswered, how it was made."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from pal.core.errors import DataError, in_words
from pal.core.files import read_json, read_jsonl
from pal.core.job import record_path
from pal.traits.readers import DROPPED
from pal.traits.report.parts import ShownCard, ShownDialogue, ShownMeasurement, ShownRecord
from pal.traits.report.words import inventory_name
from pal.traits.steps import failures_path

MOST_CASES = 3  # case studies a page shows at most


@dataclass
class Records:
    """Records of all files, by what they are.

    Attributes:
        cards: of seekers.
        measurements: of cards.
        dialogues: written from cards.
        runs: (file, record of the run that made it) where one lies beside it.
    """

    cards: list[ShownCard] = field(default_factory=list)
    measurements: list[ShownMeasurement] = field(default_factory=list)
    dialogues: list[ShownDialogue] = field(default_factory=list)
    runs: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


def read_records(paths: Iterable[str]) -> Records:
    """Read JSONL files of cards, measurements and dialogues, in any order.

    What a step could not make, and listed in a file beside, is read too. A file's kind is that of
    its first record that did not fail; in a file of failures alone, by whether they have a
    condition, as dialogues do.

    Raises:
        DataError: a file is missing, no JSONL, or of none of the three kinds; the line is named.
    """
    found = Records()
    given = list(dict.fromkeys(str(path) for path in paths))
    beside = [str(file) for path in given if (file := failures_path(path)).exists()]
    for path in dict.fromkeys([*given, *beside]):
        rows = list(read_jsonl(path))
        dicts = [row for _, row in rows if isinstance(row, Mapping)]
        first = next((row for row in dicts if "failed" not in row), None)
        if first is None:
            first = {"dialog" if dicts and "condition" in dicts[0] else "description": None}
        into: Any
        kind: type[ShownRecord]
        if "dialog" in first:
            into, kind = found.dialogues, ShownDialogue
        elif "answers" in first:
            into, kind = found.measurements, ShownMeasurement
        elif "description" in first:
            into, kind = found.cards, ShownCard
        else:
            raise DataError(
                f"{path}: its records have none of dialog, answers, description; give cards, "
                "measurements or dialogues that pal traits wrote"
            )
        for number, row in rows:
            record = _checked(kind, row, f"{path}, line {number}")
            record.origin = Path(path).name
            into.append(record)
        made = record_path(Path(path))
        if made.exists():
            found.runs.append((Path(path).name, read_json(made)))
    return found


def _checked(kind: type[ShownRecord], row: Any, where: str) -> ShownRecord:
    try:
        return kind.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the record"
        raise DataError(
            f"{where}: {place}: {in_words(first)}; give {kind.noun}s that pal traits wrote"
        ) from None


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
    kinds: dict[str, list] = {
        "cards": records.cards, "dialogues": records.dialogues,
        "measurements": records.measurements,
    }  # fmt: skip
    for what, rows in kinds.items():
        failed = Counter(row.failed for row in rows if row.failed)
        lines += [
            Unanswered(f"{what}, not continued" if why == DROPPED else what, n, len(rows), why)
            for why, n in failed.most_common()
        ]
    inventories: dict[str, list[ShownMeasurement]] = {}
    for row in records.measurements:
        if not row.failed:
            inventories.setdefault(f"{inventory_name(row.inventory)}, {row.model}", []).append(row)
    for name, found in inventories.items():
        reasons = Counter(why for row in found for why in row.unanswered.values())
        asked = sum(len(row.answers) for row in found) + reasons.total()
        lines += [Unanswered(f"items of {name}", n, asked, why) for why, n in reasons.most_common()]
    return lines


@dataclass(frozen=True)
class SeekerCase:
    """A card with what was measured on it and the dialogues written from it."""

    card: ShownCard
    measurements: list[ShownMeasurement]
    dialogues: list[ShownDialogue]


def cases(records: Records, most: int) -> list[SeekerCase]:
    """Return cards with dialogues, those with most to show first, in the order of the file."""
    measured: dict[tuple[str | None, str | None], list[ShownMeasurement]] = {}
    talks: dict[tuple[str | None, str | None], list[ShownDialogue]] = {}
    for row in records.measurements:
        if row.scores:
            measured.setdefault((row.dataset, row.id), []).append(row)
    for talk in records.dialogues:
        if talk.dialog:
            talks.setdefault((talk.dataset, talk.card), []).append(talk)
    first: dict[
        tuple[str | None, str | None], ShownCard
    ] = {}  # a dialogue's own card has its id too
    for card in records.cards:
        first.setdefault((card.dataset, card.id), card)
    found = [
        SeekerCase(card, measured.get(key, []), talks[key])
        for key, card in first.items()
        if key in talks
    ]
    found.sort(key=lambda case: -(bool(case.card.traits) + bool(case.measurements)))
    return found[: min(most, MOST_CASES)]


@dataclass(frozen=True)
class Making:
    """How one file was made.

    Attributes:
        file: its name.
        command: what made it.
        model: who was asked, empty where nobody was.
        host: of the endpoint, without its path or any secret.
        form: how answers of a given form were asked for.
        prompts: versions by name.
    """

    file: str
    command: str
    model: str
    host: str
    form: str
    prompts: Mapping[str, Any]


def makings(runs: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Making]:
    """Return how each file was made, as far as its run's record says."""
    found = []
    for name, run in runs:
        llm = run.get("llm") or {}
        url = str(llm.get("endpoint") or "")
        found.append(
            Making(
                file=name,
                command=str(run.get("command", "")),
                model=str(llm.get("model") or ""),
                host=urlsplit(url).hostname or ("this machine" if llm else ""),
                form=str(llm.get("structured_output") or ""),
                prompts=run.get("prompts") or {},
            )
        )
    return found
