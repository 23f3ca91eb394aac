"""Sheets on which people judge inferred personas (PAL paper, section 4.1 and Figure 6).

Each item shows a conversation up to a turn and the sentences that were inferred from it. Raters
choose one of four answers, and give a reason where it is Other. Items have opaque ids; the key
beside the handed-out folder says which sample each is.
"""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pal.core.errors import DataError
from pal.core.files import fingerprint, read_json, write_json, write_text
from pal.core.job import counted
from pal.data.samples import Sample
from pal.human_eval.sheets import (
    FOLDER,
    KEY,
    UNANSWERED,
    Question,
    guard_cell,
    item_id,
    join_turns,
    sheet_rows,
    text_checksum,
    unguard_cell,
)
from pal.stats.agreement import fleiss_pooled
from pal.stats.estimates import cell, resampled, table, undefined
from pal.stats.pooled import Pooled, mean_of
from pal.stats.settings import StatisticsSettings

PERSONA_QUESTION = Question("Persona", "Are these sentences about the seeker correct?")
PERSONA_ANSWERS = {
    "Reasonable": "Yes, all of them are reasonable.",
    "Contradictory": (
        "No, they contradict what was said. For example, the seeker says “I am a man”, and a "
        "sentence says “I am a woman”."
    ),
    "Hallucinatory": (
        "No, they say what does not follow from the conversation. For example, a sentence says “I "
        "am a plumber”, and the seeker has said nothing about work."
    ),
    "Other": "No, something else is wrong. Please say what.",
}
COLUMNS = ("context", "persona")  # the texts of an item
ASKED = ("answer", "reason")

# Other words for the answers, as raters and the paper write them.
_WORDS = {name.casefold(): name for name in PERSONA_ANSWERS} | {
    "contradiction": "Contradictory", "hallucinated": "Hallucinatory",
    "hallucination": "Hallucinatory", "others": "Other",
}  # fmt: skip

PERSONA_GUIDELINES = """\
# Is the persona right?

Each item shows a conversation between a seeker of emotional support and a supporter, and sentences
about the seeker that a program has inferred from it. {question} Choose one answer for each item:

{answers}

Judge by what has been said so far. If you choose Other, write the reason beside it. Do not talk
about items with other raters before all are done. Many of the conversations are about distress:
pause or stop whenever you want to.

Open `form.html` in a browser; it needs no connection and sends nothing. At the end it saves a
file: hand that in. Or fill in `sheet.csv` in a spreadsheet: write one of the four words under
answer and, for Other, the reason; put your name or number into the column `rater`, change nothing
else, and save it as CSV (UTF-8).
"""


@dataclass
class Judgements:
    """Judgements of the raters.

    Attributes:
        answers: {item: {rater: (answer, reason)}}.
        problems: what was left out, and Other without a reason, as in
            :class:`pal.human_eval.sheets.Votes`.
    """

    answers: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)
    problems: list[dict[str, Any]] = field(default_factory=list)


def draw_personas(samples: Sequence[Sample], items: int, seed: int, source: str) -> list[Sample]:
    """Draw samples that have a persona, from as many different dialogues as there are.

    Args:
        samples: all samples.
        items: how many, at most.
        seed: seed of the draw.
        source: their file, for messages.

    Raises:
        DataError: no sample has a persona.
    """
    known = [sample for sample in samples if sample.persona]
    if not known:
        raise DataError(
            f"{source}: no turn has a persona; `pal annotate` infers them; train its "
            "extractor for longer if it has found none"
        )

    def rank(sample: Sample) -> str:
        return hashlib.blake2b(f"{seed}\0{sample.id}".encode()).hexdigest()

    used: Counter[str] = Counter()
    ranked = []
    for sample in sorted(known, key=rank):
        ranked.append((used[sample.dialogue_id], sample))
        used[sample.dialogue_id] += 1
    ranked.sort(key=lambda pair: pair[0])
    return [sample for _, sample in ranked[:items]]


def write_persona_sheets(
    folder: str | Path,
    samples: Sequence[Sample],
    *,
    seed: int,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write sheet, form and guidelines into ``folder/for_raters``, and ``folder/key.json``.

    Args:
        folder: the folder to write; only the user may read what is in it.
        samples: the samples to judge.
        seed: seed of the ids, and so of the order.
        facts: further entries of the key.

    Returns:
        The key.

    Raises:
        OutputError: the folder cannot be written.
    """
    shown: list[dict[str, Any]] = []
    items: dict[str, dict[str, str]] = {}
    for sample in samples:
        name = item_id(seed, "persona", sample.id)
        context = [[turn["speaker"].capitalize(), turn["text"]] for turn in sample.context]
        shown.append({"item": name, "context": context, "persona": list(sample.persona)})
        texts = [join_turns([(who, text) for who, text in context]), "\n".join(sample.persona)]
        items[name] = {
            "sample": sample.id, "dialogue": sample.dialogue_id, "texts": text_checksum(texts),
        }  # fmt: skip
    shown.sort(key=lambda row: str(row["item"]))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(["item", *COLUMNS, *ASKED, "rater"])
    for row in shown:
        said = join_turns([(who, text) for who, text in row["context"]])
        cells = [guard_cell(said), guard_cell("\n".join(row["persona"]))]
        writer.writerow([row["item"], *cells, "", "", ""])
    folder = Path(folder)
    write_text(folder / FOLDER / "sheet.csv", "\ufeff" + buffer.getvalue(), private=True)
    data = {
        "sheet": fingerprint(sorted(items)), "question": PERSONA_QUESTION.text,
        "answers": PERSONA_ANSWERS, "items": shown,
    }  # fmt: skip
    template = Path(__file__).with_name("personas.html").read_text(encoding="utf-8")
    # Inside a script element, only "<" can end the data early.
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    write_text(folder / FOLDER / "form.html", template.replace("__DATA__", text), private=True)
    listed = "\n".join(f"- **{name}**: {text}" for name, text in PERSONA_ANSWERS.items())
    guidelines = PERSONA_GUIDELINES.format(question=PERSONA_QUESTION.text, answers=listed)
    write_text(folder / FOLDER / "guidelines.md", guidelines, private=True)
    key = {
        "kind": "persona-key",
        "format": 1,
        **(facts or {}),
        "items": {name: items[name] for name in sorted(items)},
    }
    write_json(folder / KEY, key, private=True)
    return key


def is_persona_export(folder: str | Path) -> bool:
    """Return whether a folder holds sheets on personas, by its key."""
    path = Path(folder) / KEY
    key = read_json(path) if path.is_file() else None
    return isinstance(key, dict) and key.get("kind") == "persona-key"


def read_persona_key(folder: str | Path) -> dict[str, Any]:
    """Read the key that :func:`write_persona_sheets` wrote.

    Raises:
        DataError: the key is damaged or of another format.
    """
    path = Path(folder) / KEY
    key: dict[str, Any] = read_json(path)
    items = key.get("items")
    fields = ("sample", "dialogue", "texts")
    if key.get("format") != 1 or not isinstance(items, dict) or not all(
        isinstance(item, dict) and all(isinstance(item.get(name), str) for name in fields)
        for item in items.values()
    ):  # fmt: skip
        raise DataError(f"{path}: not a key of human-eval personas, format 1, or damaged")
    return key


def read_judgements(files: Sequence[Path], key: Mapping[str, Any]) -> Judgements:
    """Read filled-in sheets; what cannot be counted is listed and left out.

    The column ``rater`` names the rater, as on the other sheets: one name applies to the whole
    file, and the name of the file is used if there is none.

    Args:
        files: the filled-in sheets.
        key: the key of the sheets.
    """
    found = Judgements()
    disputed: set[tuple[str, str]] = set()
    stems = Counter(path.stem for path in files)

    def note(path: Path, problem: str, row: int | None = None, item: str | None = None) -> None:
        found.problems.append(
            {"file": str(path), "row": row, "item": item, "question": None, "problem": problem}
        )

    for path in files:
        try:
            rows = list(sheet_rows(path, ASKED, COLUMNS))
        except (ValueError, OSError) as error:
            note(path, str(error))
            continue
        names = sorted({row["rater"] for _, row in rows} - {""})
        unnamed = path.stem if stems[path.stem] == 1 else f"{path.parent.name}/{path.stem}"
        for number, row in rows:
            item, word = row["item"], row["answer"].strip()
            known = key["items"].get(item)
            answer = _WORDS.get(word.casefold())
            reason = unguard_cell(row["reason"].strip())
            rater = row["rater"] or (names or [unnamed])[0]
            if known is None:
                note(path, "unknown item id", number, item)
            elif text_checksum([row[name] for name in COLUMNS]) != known["texts"]:
                note(
                    path, "its texts are not those of the sheet; the row is left out", number, item
                )
            elif not row["rater"] and len(names) > 1:
                problem = f"no rater is named, and the file has several: {', '.join(names)}"
                note(path, problem, number, item)
            elif not word:
                note(path, UNANSWERED, number, item)
            elif answer is None:
                listed = ", ".join(PERSONA_ANSWERS)
                note(path, f"{word!r:.40} is none of {listed}", number, item)
            else:
                cast = found.answers.setdefault(item, {})
                before = cast.get(rater)
                if (item, rater) in disputed or (before and before[0] != answer):
                    cast.pop(rater, None)
                    disputed.add((item, rater))
                    problem = f"rater {rater!r} answered this otherwise in another row; none counts"
                    note(path, problem, number, item)
                    continue
                if answer == "Other" and not reason:
                    note(path, "Other without a reason; it is counted", number, item)
                cast[rater] = (answer, reason if answer == "Other" else "")
    return found


def tally_judgements(
    key: Mapping[str, Any], found: Judgements, how: StatisticsSettings
) -> dict[str, Any]:
    """Return how personas were judged: shares of the answers, Fleiss' κ, the reasons of Other.

    A share is the mean over items of the share of their raters, so that an item with more raters
    weighs no more; without gaps it is the share of all answers. Intervals are bootstrap over
    dialogues.

    Args:
        key: the key of the sheets.
        found: the judgements.
        how: confidence, resamples and seed.
    """
    judged = {item: cast for item, cast in sorted(found.answers.items()) if cast}
    counts = np.array(
        [[sum(answer == name for answer, _ in cast.values()) for name in PERSONA_ANSWERS]
         for cast in judged.values()], dtype=float,
    ).reshape(len(judged), len(PERSONA_ANSWERS))  # fmt: skip
    _, groups = np.unique([key["items"][item]["dialogue"] for item in judged], return_inverse=True)

    def interval(pooled: Pooled, n: int, why: str) -> Any:
        if not n:
            return undefined(0, why)
        joined = pooled.grouped(groups, int(groups.max()) + 1)
        return resampled(joined, n, reason=why, **how.model_dump())

    shares = counts / counts.sum(axis=1, keepdims=True) if len(judged) else counts
    rated = int((counts.sum(axis=1) >= 2).sum())
    why = "no item has two raters" if not rated else "all answers are the same"
    return {
        "kind": "human-personas",
        "format": 1,
        "confidence": how.confidence,
        "items": len(key["items"]),
        "judged": len(judged),
        "raters": len({rater for cast in judged.values() for rater in cast}),
        "answers": {name: int(counts[:, n].sum()) for n, name in enumerate(PERSONA_ANSWERS)},
        "shares": {
            name: interval(mean_of(shares[:, n]), len(judged), "no answers")
            for n, name in enumerate(PERSONA_ANSWERS)
        },
        "kappa": interval(fleiss_pooled(counts), rated, why),
        "reasons": [
            {"item": item, "sample": key["items"][item]["sample"], "rater": rater, "reason": reason}
            for item, cast in judged.items()
            for rater, (_, reason) in sorted(cast.items())
            if reason
        ],
        "problems": found.problems,
    }


def judgement_tables(document: Mapping[str, Any], most: int = 20) -> str:
    """Return the results as Markdown.

    Args:
        document: of :func:`tally_judgements`.
        most: how many problems are listed, at most.
    """
    rows = [
        [name, str(document["answers"][name]), cell(figure)]
        for name, figure in document["shares"].items()
    ]
    parts = [
        table(["judgement", "answers", "share"], rows),
        f"{document['judged']:,} of {counted(document['items'], 'item')} judged by "
        f"{counted(document['raters'], 'rater')}; "
        f"{100 * document['confidence']:g} % bootstrap intervals over dialogues. Fleiss' κ: "
        f"{cell(document['kappa'], 3)}.",
    ]
    if document["reasons"]:
        parts.append("Reasons of Other:")
        parts.append(
            "\n".join(
                f"- {one['sample']}, {one['rater']}: {one['reason']}" for one in document["reasons"]
            )
        )
    problems = document["problems"]
    lines = [f"{counted(len(problems), 'problem')} in the answers."]
    for one in problems[:most]:
        place = [one["file"], one["row"] and f"row {one['row']}"]
        lines.append(f"- {', '.join(filter(None, place))}: {one['problem']}")
    if len(problems) > most:
        lines.append(f"- and {len(problems) - most} more, all listed in the JSON output")
    return "\n\n".join([*parts, "\n".join(lines)])
