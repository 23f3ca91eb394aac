"""Blinded A/B sheets for human raters: writing a form and a CSV, reading the filled-in copies.

Two texts are shown side by side as A and B; raters answer every question with A, B or Tie. Only the
key says which side is which system: the sheets hold opaque item ids, the context, the two texts and
the questions, in the order of the ids. Ids, order and sides follow from the seed, so keep the seed
secret from raters too. The caller gives the texts and the questions.
"""

import csv
import hashlib
import io
import json
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pal.core.errors import DataError
from pal.core.files import fingerprint, no_such, read_json, write_json, write_text
from pal.data.corpora.tables import find_separator

FOLDER = "for_raters"  # the files to hand out; the key lies beside it
KEY = "key.json"
TEXTS = ("context", "response A", "response B")
ANSWERS = {"a": "A", "b": "B", "tie": "Tie"}

# Ids of consonants, which form no words and which no spreadsheet reads as number, date or formula.
_LETTERS = str.maketrans("0123456789abcdef", "bcdfghjkmnpqrstv")

# A spreadsheet runs a cell that starts with these characters as a formula. A cell starts at the
# start of the text, and after every separator of any locale, quoted or not; the last four
# characters are the full-width forms.
_CELL_START = r"(?<![^;\t\r\n])([ \"']*)"
_FORMULA = r"(?=[=+\-@\t\r\uff1d\uff0b\uff0d\uff20])"
_GUARD = re.compile(_CELL_START + _FORMULA)
_GUARDED = re.compile(_CELL_START + "'" + _FORMULA)

# Problems of a row, and of a cell, that nobody filled in.
UNANSWERED, EMPTY = "not answered", "empty"


@dataclass(frozen=True, slots=True)
class Question:
    """One question to raters: a name, which is the title of its column, and its wording."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class TextComparison:
    """The texts of two systems in one context.

    Attributes:
        systems: names of the two systems, in the order of the results; none is "Tie".
        sample: id of the sample.
        context: earlier turns as (speaker, text); may be empty.
        texts: texts of the two systems.
    """

    systems: tuple[str, str]
    sample: str
    context: Sequence[tuple[str, str]]
    texts: tuple[str, str]


@dataclass
class Votes:
    """Answers of the raters.

    Attributes:
        answers: {item: {question: {rater: name of the preferred system, or "Tie"}}}.
        problems: rows and answers that were left out: file, row (the header is row 1), item,
            question and problem, with None for entries that do not apply.
    """

    answers: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    problems: list[dict[str, Any]] = field(default_factory=list)


def write_sheets(
    folder: str | Path,
    comparisons: Sequence[TextComparison],
    questions: Sequence[Question],
    *,
    seed: int,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Write sheet, form and guidelines into ``folder/for_raters``, and ``folder/key.json``.

    The files hold texts about people's distress, so only the user may read them.

    Each system of a pair is on either side equally often (up to one for an odd number of items).

    Args:
        folder: the folder to write.
        comparisons: the comparisons, in any order.
        questions: the questions.
        seed: seed of ids, order and sides.
        facts: further entries of the key.

    Returns:
        The key: ``items`` with each item's sample, systems at A and B, and checksum of its texts.

    Raises:
        OutputError: the folder cannot be written.
    """
    rows: dict[str, dict[str, Any]] = {}
    items: dict[str, dict[str, str]] = {}
    for systems in dict.fromkeys(comparison.systems for comparison in comparisons):
        found = [comparison for comparison in comparisons if comparison.systems == systems]
        sides = [index % 2 == 0 for index in range(len(found))]
        random.Random("\0".join([str(seed), *systems])).shuffle(sides)
        for comparison, straight in zip(found, sides, strict=True):
            order = (0, 1) if straight else (1, 0)
            a, b = (comparison.texts[index] for index in order)
            item = item_id(seed, *systems, comparison.sample)
            rows[item] = {"item": item, "context": list(comparison.context), "a": a, "b": b}
            items[item] = {
                "sample": comparison.sample,
                "A": systems[order[0]],
                "B": systems[order[1]],
                "texts": text_checksum([join_turns(comparison.context), a, b]),
            }
    shown = [rows[item] for item in sorted(rows)]
    names = [question.name for question in questions]
    asked = [{"name": question.name, "text": question.text} for question in questions]
    key = {
        "kind": "human-key",
        "format": 1,
        **facts,
        "questions": names,
        "items": {item: items[item] for item in sorted(items)},
    }
    folder = Path(folder)
    write_text(folder / FOLDER / "sheet.csv", _sheet(shown, names), private=True)
    data = {"sheet": fingerprint(sorted(items)), "questions": asked, "items": shown}
    template = Path(__file__).with_name("human_eval.html").read_text(encoding="utf-8")
    # Inside a script element, only "<" can end the data early.
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    write_text(folder / FOLDER / "form.html", template.replace("__DATA__", text), private=True)
    listed = "\n".join(f"- **{question.name}**: {question.text}" for question in questions)
    write_text(folder / FOLDER / "guidelines.md", GUIDELINES.format(questions=listed))
    write_json(folder / KEY, key, private=True)
    return key


GUIDELINES = """\
# Which one is better?

Each item shows a conversation between a seeker of emotional support and a supporter, and two texts,
A and B. Imagine that you are the seeker. For each question choose **A**, **B** or **Tie**:

{questions}

If A and B are about equally good or bad, choose Tie; but choose the better one wherever you can.
Judge each question for itself. Do not talk about items with other raters before all are done.
Many of the conversations are about distress: pause or stop whenever you want to.

Open `form.html` in a browser; it needs no connection and sends nothing. At the end it saves a
file: hand that in. Or fill in `sheet.csv` in a spreadsheet: write A, B or Tie under each question,
put your name or number into the column `rater`, change nothing else, and save it as CSV (UTF-8).
"""


def guard_cell(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet would run as a formula.

    Example:
        >>> guard_cell("hello;=1+1")
        "hello;'=1+1"
    """
    return _GUARD.sub(r"\1'", text)


def unguard_cell(text: str) -> str:
    """Return the argument of :func:`guard_cell` from its result."""
    return _GUARDED.sub(r"\1", text)


def item_id(seed: int, *parts: str) -> str:
    """Return an opaque id that follows from seed and parts."""
    text = "\0".join(parts).encode()
    digest = hashlib.blake2b(text, key=str(seed).encode()[:64], digest_size=6)
    return digest.hexdigest().translate(_LETTERS)


def join_turns(context: Sequence[tuple[str, str]]) -> str:
    """Return (speaker, text) turns as lines, as the column ``context`` of a sheet has them."""
    return "\n".join(f"{speaker}: {text}" for speaker, text in context)


def text_checksum(texts: Sequence[str]) -> str:
    """Return a hash of the letters and digits of texts, which no spreadsheet changes."""
    return fingerprint(
        [re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold()) for text in texts]
    )


def _sheet(rows: Sequence[Mapping[str, Any]], questions: Sequence[str]) -> str:
    """Return the CSV to fill in, with a byte order mark, by which Excel recognises UTF-8."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(["item", *TEXTS, *questions, "rater"])
    for row in rows:
        texts = [join_turns(row["context"]), row["a"], row["b"]]
        blank = [""] * (len(questions) + 1)
        writer.writerow([row["item"], *map(guard_cell, texts), *blank])
    return "\ufeff" + buffer.getvalue()


def read_key(folder: str | Path) -> dict[str, Any]:
    """Read the key that :func:`write_sheets` wrote into a folder.

    Raises:
        DataError: the key is missing, damaged or another file.
    """
    path = Path(folder) / KEY
    if not path.is_file():
        raise DataError(f"{path}: no such file; give the folder that human-eval export wrote")
    key = read_json(path)
    if not isinstance(key, dict) or key.get("kind") != "human-key" or key.get("format") != 1:
        raise DataError(f"{path}: not a key of human-eval export, format 1")
    wrong = _wrong_in_key(key)
    if wrong:
        raise DataError(
            f"{path}: the key is damaged ({wrong}); take the copy that human-eval export wrote, or "
            "export again with the same settings"
        )
    return key


def _wrong_in_key(key: Mapping[str, Any]) -> str:
    """Return what is wrong in a key of :func:`write_sheets`, or an empty string."""
    questions, items, pairs = (key.get(name) for name in ("questions", "items", "pairs"))
    if not isinstance(questions, list) or not all(isinstance(name, str) for name in questions):
        return "questions: expected a list of names"
    if not isinstance(items, dict):
        return "items: expected an object"
    for name, item in items.items():
        fields = ("sample", "A", "B", "texts")
        if not isinstance(item, dict) or not all(isinstance(item.get(f), str) for f in fields):
            return f"items.{name:.40}: expected an object with texts {', '.join(fields)}"
    if not isinstance(pairs, list):
        return "pairs: expected a list"
    for number, pair in enumerate(pairs):
        if (
            not isinstance(pair, dict)
            or not all(isinstance(pair.get(f), str) for f in ("a", "b"))
            or not all(type(pair.get(f)) is int for f in ("items", "samples", "same"))
        ):
            return f"pairs.{number}: expected an object with a, b, items, samples and same"
    return ""


def read_answers(sources: Sequence[str | Path], key: Mapping[str, Any]) -> Votes:
    """Read filled-in sheets; answers that cannot be counted are listed and left out.

    The column ``rater`` names the rater. One name applies to the whole file, and the name of the
    file is used if there is none. Two rows of one rater for one item count once, and if they
    differ, neither answer counts.

    Args:
        sources: files and folders of files.
        key: key of the sheets.

    Raises:
        DataError: a source does not exist, or a folder holds no file.
    """
    paths = answer_files(sources)
    stems = Counter(path.stem for path in paths)
    votes = Votes()
    disputed: set[tuple[str, str, str]] = set()
    for path in paths:
        unnamed = path.stem if stems[path.stem] == 1 else f"{path.parent.name}/{path.stem}"
        try:
            rows = list(sheet_rows(path, key["questions"]))
        except (ValueError, OSError) as error:
            _note(votes, path, str(error))
            continue
        if not any(row["item"] in key["items"] for _, row in rows):
            _note(votes, path, "none of its items is in the key; it belongs to another export")
            continue
        named = sorted({row["rater"] for _, row in rows} - {""})
        for number, row in rows:
            _count(votes, disputed, key, path, number, row, named or [unnamed])
    return votes


def refuse_empty(problems: Sequence[Mapping[str, Any]], answered: int) -> None:
    """Make sure that something was filled in.

    Args:
        problems: what was left out.
        answered: number of items with an answer.

    Raises:
        DataError: every answer of every sheet is empty.
    """
    if not answered and problems and all(one["problem"] in (UNANSWERED, EMPTY) for one in problems):
        raise DataError(f"{problems[0]['file']}: no answer is filled in; fill in the sheets first")


def answer_files(sources: Sequence[str | Path]) -> list[Path]:
    """Return the files among ``sources`` and in its folders, without hidden files.

    Raises:
        DataError: a source does not exist, or a folder holds no file.
    """
    paths: list[Path] = []
    for source in map(Path, sources):
        if not source.exists():
            raise DataError(
                f"{source}: {no_such(source, 'file or folder', 'check human_eval.answers')}"
            )
        found = [source]
        if source.is_dir():
            found = sorted(p for p in source.rglob("[!.]*") if p.is_file())
            if not found:
                raise DataError(
                    f"{source}: the folder holds no answers: of a study over the web, no "
                    "task counts yet (results.md of its export says why); of sheets, none is there"
                )
        paths += [path for path in found if path not in paths]
    return paths


def _note(votes: Votes, path: Path, problem: str, row: int | None = None,
          item: str | None = None, question: str | None = None) -> None:  # fmt: skip
    votes.problems.append(
        {"file": str(path), "row": row, "item": item, "question": question, "problem": problem}
    )


def sheet_rows(
    path: Path, questions: Sequence[str], texts: Sequence[str] = TEXTS
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (row number, cells by column) of a CSV from any spreadsheet.

    Args:
        path: the file.
        questions: columns that raters fill in.
        texts: columns that show texts.

    Raises:
        ValueError: the file is not a CSV, or columns are missing or occur twice.
    """
    raw = path.read_bytes()
    marked = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
    if b"\0" in raw and not marked:
        raise ValueError("no CSV; save it from the spreadsheet as CSV (UTF-8)")
    try:
        text = raw.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", errors="replace")
    delimiter, text, wrong = find_separator(text)
    if wrong:
        raise ValueError(wrong)
    try:
        table = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise ValueError(f"no CSV ({error})") from None
    first, header = next(((n, row) for n, row in enumerate(table, start=1) if any(row)), (1, []))
    if any("\n" in name or "\r" in name for name in header):
        raise ValueError(
            "its header holds a line break: a quotation mark there is not closed; save it from the "
            "spreadsheet as CSV again"
        )
    names = [name.strip().casefold() for name in header]
    needed = ["item", *texts, *questions]
    faulty = [name for name in needed if names.count(name.casefold()) != 1]
    if faulty:
        raise ValueError(f"columns missing or duplicated: {', '.join(faulty)}")
    for number, cells in enumerate(table[first:], start=first + 1):
        if any(cell.strip() for cell in cells):
            found = dict(zip(names, cells + [""] * len(names), strict=False))
            row = {name: found[name.casefold()] for name in needed}
            row |= {name: unguard_cell(row[name]) for name in texts}
            row["item"] = row["item"].strip().lower()
            row["rater"] = unguard_cell(found.get("rater", "").strip())
            yield number, row


def _count(
    votes: Votes,
    disputed: set[tuple[str, str, str]],
    key: Mapping[str, Any],
    path: Path,
    number: int,
    row: Mapping[str, str],
    names: Sequence[str],
) -> None:
    """Add the answers of one row to the votes, and those that cannot be counted to the problems."""
    item = row["item"]

    def note(problem: str, question: str | None = None) -> None:
        _note(votes, path, problem, number, item, question)

    sides = key["items"].get(item)
    if sides is None:
        return note("unknown item id")
    if text_checksum([row[name] for name in TEXTS]) != sides["texts"]:
        return note("its texts are not those of the sheet; the row is left out")
    if not row["rater"] and len(names) > 1:
        return note(f"no rater is named, and the file has several: {', '.join(names)}")
    rater = row["rater"] or names[0]
    given = {name: row[name].strip() for name in key["questions"]}
    if not any(given.values()):
        return note(UNANSWERED)
    repeated = False
    for question, word in given.items():
        answer = ANSWERS.get(word.casefold())
        if answer is None:
            note(f"{word!r:.40} is none of A, B, Tie" if word else EMPTY, question)
            continue
        answer = sides.get(answer, answer)
        cast = votes.answers.setdefault(item, {}).setdefault(question, {})
        known = cast.get(rater)
        if known == answer:
            repeated = True
        elif known is not None or (item, question, rater) in disputed:
            cast.pop(rater, None)
            disputed.add((item, question, rater))
            note(f"rater {rater!r} answered this otherwise in another row; none counts", question)
        else:
            cast[rater] = answer
    if repeated:
        note(f"rater {rater!r} gave the same answers in another row; they count once")
    return None
