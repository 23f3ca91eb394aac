"""Files of samples of other projects: windows of turns whose last turn is the target.

They name no dialogue, so no command trains on them or answers them; :mod:`pal.data.audit` compares
what they say. Known are MISC's and the release's contexts (``… 0 0 hi EOS 3 1 1 [Question] why?``),
EmoDynamiX's table, lines of utterances between ``__eou__`` or tabs, and lines of single texts.
"""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from pal.core.errors import DataError
from pal.core.files import read_text
from pal.data.corpora import CorpusFile, find_reader
from pal.data.corpora.tables import header_names, table_rows
from pal.data.texts import normalise_text

logger = logging.getLogger(__name__)

Turns = list[tuple[str, str]]  # (speaker, text)

_NUMBERED = re.compile(r"\d+(?:\.\d+)? (\d+) \d+ (.*)")
_STRATEGY = re.compile(r"^\[[^\]]{3,40}\]\s*")
_DECISIONS = {"Dialogue_History", "Speaker_Turn", "Gold_Standard"}


def find_window_form(file: CorpusFile) -> str | None:
    """Return the form of a file of samples, or None for a file of dialogues.

    Args:
        file: the file.
    """
    if file.head[:4] in (b"PAR1", b"ARRO") or not file.first_line:
        return None
    if _NUMBERED.match(file.first_line):
        return "contexts"
    if header_names(file.beginning) >= _DECISIONS:
        return "decisions"
    try:
        find_reader(file)
    except DataError:
        return "lines"
    return None


def read_windows(file: CorpusFile, form: str) -> Iterator[tuple[str | None, Turns]]:
    """Yield (situation, turns) of every sample; the last turn is the target.

    Args:
        file: the file.
        form: the result of :func:`find_window_form`.

    Raises:
        DataError: a line is not of this form.
    """
    if form == "decisions":
        for turns in _decisions(file):
            yield None, turns
        return
    lines = [line for line in file.text.split("\n") if line.strip()]
    situations = _situations(file, len(lines))
    for number, line in enumerate(lines, start=1):
        turns = _contexts(line) if form == "contexts" else _utterances(line)
        if not turns:
            raise file.fail(f"line {number}: no utterance, got {line[:60]!r}; correct that line")
        yield situations[number - 1] if situations else None, turns


def _contexts(line: str) -> Turns:
    """Split ``weight role turn text EOS …``; role 0 is the seeker, and a [Strategy] is no text."""
    turns = []
    for part in line.split("EOS"):
        match = _NUMBERED.match(part.strip())
        text = normalise_text(_STRATEGY.sub("", match[2])) if match else ""
        if match and text:
            turns.append(("seeker" if match[1] == "0" else "supporter", text))
    return turns


def _utterances(line: str) -> Turns:
    """Split a line of utterances; the last is the supporter's, and speakers take turns."""
    mark = "__eou__" if "__eou__" in line else "\t"
    texts = [text for part in line.split(mark) if (text := normalise_text(part))]
    speakers = ("supporter", "seeker")
    return [(speakers[(len(texts) - 1 - n) % 2], text) for n, text in enumerate(texts)]


def _decisions(file: CorpusFile) -> Iterator[Turns]:
    """Read EmoDynamiX's table: history between ``</s>``, then the gold response."""
    for _, row in table_rows(file.text, file.name):
        said = [normalise_text(part) for part in row["Dialogue_History"].split("</s>")]
        who = row["Speaker_Turn"].split()
        who += ["seeker"] * (len(said) - len(who))
        turns = [
            ("supporter" if name == "supporter" else "seeker", text)
            for name, text in zip(who, said, strict=False)
            if text and text != "<START>"
        ]
        target = normalise_text(row["Gold_Standard"])
        if target:
            yield [*turns, ("supporter", target)]


def _situations(file: CorpusFile, lines: int) -> list[str] | None:
    """Return the lines of ``trainSituation.txt`` beside ``trainWithStrategy_short.tsv``."""
    path = Path(file.name)
    split = re.match(r"(train|dev|valid|test)", path.name)
    beside = path.with_name(f"{split[1]}Situation.txt") if split else path
    if beside == path or not beside.is_file():
        return None
    found = [normalise_text(line) for line in read_text(beside).split("\n") if line.strip()]
    if len(found) != lines:
        logger.warning(
            "%s: %d situations for the %d lines of %s, so they are left out", beside, len(found),
            lines, path.name,
        )  # fmt: skip
        return None
    return found
