"""PersonaChat, the extractor's training corpus: one speaker's utterances and persona a row.

Two formats, told apart by content: ParlAI text (numbered lines, utterance pairs parted by a TAB)
and the CSV of Synthetic-Persona-Chat.
"""

import csv
import io
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from pal.core.errors import DataError
from pal.core.files import read_text

if TYPE_CHECKING:
    from datasets import Dataset

CSV_COLUMNS = ("user 1 personas", "user 2 personas", "Best Generated Conversation")

_PARLAI_START = re.compile(r"\s*(\d+ |your persona:|partner's persona:)")
_PARLAI_PERSONA = re.compile(r"(your|partner's) persona:(.*)")
_CSV_UTTERANCE = re.compile(r"[\s*]*User ([12])\s*:[\s*]*(.*?)[\s*]*$", re.MULTILINE)

# The two sides of a conversation: utterances and persona of each.
Side = tuple[list[str], list[str]]


def load_personachat(path: str | Path) -> "Dataset":
    """Load a PersonaChat file: columns ``id``, ``utterances`` and ``persona``.

    A conversation gives one row for each speaker whose persona is told: ``{stem}-{index:05d}-1``
    for the "your persona" side or user 1, ``-2`` for the other. Lines of a synthetic conversation
    that name no speaker (stage directions, recipes) are left out.

    Args:
        path: ParlAI text such as ``train_both_original.txt``, or a Synthetic-Persona-Chat CSV.

    Raises:
        DataError: no such file, or a line that cannot be read; the message names it.
    """
    from datasets import Dataset, Features, List, Value

    path = Path(path)
    text = read_text(path)
    read = _read_parlai if _PARLAI_START.match(text) else _read_csv
    columns: dict[str, list] = {"id": [], "utterances": [], "persona": []}
    for index, (line, sides) in enumerate(read(path, text)):
        if not any(persona for _, persona in sides):
            raise DataError(
                f"{path}, line {line}: a conversation without persona; "
                "give a file with personas, or delete the conversation"
            )
        if not any(utterances for utterances, _ in sides):
            raise DataError(
                f"{path}, line {line}: a conversation without utterances; delete or complete it"
            )
        for number, (utterances, persona) in enumerate(sides, start=1):
            if utterances and persona:
                columns["id"].append(f"{path.stem}-{index:05d}-{number}")
                columns["utterances"].append(utterances)
                columns["persona"].append(persona)
    if not columns["id"]:
        raise DataError(f"{path}: no conversations in it; give a file with at least one")
    string = Value("string")
    features = Features({"id": string, "utterances": List(string), "persona": List(string)})
    return Dataset.from_dict(columns, features=features)


def _read_parlai(path: Path, text: str) -> Iterator[tuple[int, list[Side]]]:
    """Yield first line and sides of every conversation; its lines are numbered from 1."""
    lines = text.split("\n")
    numbered = []
    for line, content in enumerate(lines, start=1):
        if content.strip():
            number, _, rest = content.strip().partition(" ")
            if not number.isdecimal():
                raise DataError(
                    f"{path}, line {line}: expected a turn number first, got {content[:40]!r}; "
                    "mend or delete that line"
                )
            numbered.append((line, int(number), rest))
    starts = [i for i, (_, number, _) in enumerate(numbered) if i == 0 or number == 1]
    for start, end in pairwise([*starts, len(numbered)]):
        mine: Side = ([], [])
        partner: Side = ([], [])
        for line, _, rest in numbered[start:end]:
            if found := _PARLAI_PERSONA.match(rest):
                (mine if found[1] == "your" else partner)[1].append(_normalise(found[2]))
                continue
            heard, tab, said = rest.partition("\t")
            if not tab:
                raise DataError(
                    f"{path}, line {line}: an utterance line without TAB, got {rest[:40]!r}; "
                    "expected the partner's utterance, a TAB and the answer"
                )
            partner[0].append(_normalise(heard))
            mine[0].append(_normalise(said.partition("\t")[0]))  # candidates follow
        yield numbered[start][0], [_drop_empty(mine), _drop_empty(partner)]


def _read_csv(path: Path, text: str) -> Iterator[tuple[int, list[Side]]]:
    """Yield first line and sides of every conversation."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    missing = [name for name in CSV_COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise DataError(
            f"{path}, line 1: neither ParlAI text nor a CSV with the columns "
            f"{', '.join(CSV_COLUMNS)} (missing: {', '.join(missing)}); check the file"
        )
    line = reader.line_num + 1
    try:
        for row in reader:
            said: dict[str, list[str]] = {"1": [], "2": []}
            for user, utterance in _CSV_UTTERANCE.findall(row[CSV_COLUMNS[2]] or ""):
                said[user].append(_normalise(utterance))
            yield (
                line,
                [
                    _drop_empty(
                        (said[user], list(map(_normalise, (row[column] or "").split("\n"))))
                    )
                    for user, column in zip(said, CSV_COLUMNS, strict=False)
                ],
            )
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {line}: not valid CSV ({error}); mend that record") from None


def _drop_empty(side: Side) -> Side:
    utterances, persona = side
    return list(filter(None, utterances)), list(filter(None, persona))


def _normalise(text: str) -> str:
    return " ".join(text.split())
