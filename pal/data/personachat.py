"""PersonaChat, the extractor's training corpus, as rows of one speaker's utterances and persona.

File formats are recognised by content. Each is one reader here and one line in
:data:`PERSONA_CORPORA`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pal.core.errors import DataError
from pal.core.files import parse_json, read_text, why_not_json
from pal.core.registry import Registry
from pal.data.corpora.tables import header_names, table_rows
from pal.data.sources import default_name
from pal.data.texts import normalise_text

if TYPE_CHECKING:
    from datasets import Dataset

CSV_COLUMNS = ("user 1 personas", "user 2 personas", "Best Generated Conversation")

# ParlAI's mark for a speaker who says nothing.
SILENCE = "__SILENCE__"

_PARLAI_START = re.compile(r"\s*(\d+ |your persona:|partner's persona:)")
_PARLAI_PERSONA = re.compile(r"(your|partner's) persona:(.*)")
_FIELDS_START = re.compile(r"\s*text:")
_CSV_UTTERANCE = re.compile(r"[\s*]*User ([12])\s*:[\s*]*(.*?)[\s*]*$", re.MULTILINE)


@dataclass
class PersonaSide:
    """One speaker of a conversation: the utterances and the given persona."""

    utterances: list[str] = field(default_factory=list)
    persona: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Add an utterance unless it is empty."""
        text = normalise_text(text)
        if text and text != SILENCE:
            self.utterances.append(text)

    def tell(self, sentence: str) -> None:
        """Add a persona sentence."""
        sentence = normalise_text(sentence)
        if sentence:
            self.persona.append(sentence)


# Place for messages, and the two sides: the "your persona" side or user 1 first.
Conversation = tuple[str, tuple[PersonaSide, PersonaSide]]


@dataclass(frozen=True)
class PersonaReader:
    """One file format of persona conversations.

    Attributes:
        recognises: function that returns whether a text has this format.
        read: function from (file name, text) to the conversations.
    """

    recognises: Callable[[str], bool]
    read: Callable[[str, str], Iterator[Conversation]]


def load_personachat(path: str | Path, reader: str | None = None) -> "Dataset":
    """Load a PersonaChat file: columns ``id``, ``utterances`` and ``persona``.

    A conversation gives one row for each speaker with a persona: ``{stem}-{index:05d}-1`` for the
    "your persona" side or user 1, ``-2`` for the other. Lines of a synthetic conversation that name
    no speaker (stage directions, recipes) are left out, and so is ``__SILENCE__``.

    Args:
        path: ParlAI text such as ``train_both_original.txt`` (convai2's too); ParlAI's lines of
            ``text:…<TAB>labels:…``; ``personachat_self_original.json``; or a
            Synthetic-Persona-Chat CSV. The file may be compressed, or a pipe.
        reader: name of the file format in :data:`PERSONA_CORPORA`, or
            ``their_package.module:reader``; None recognises the format.

    Raises:
        DataError: the file is missing, or a line cannot be read; the message names the line.

    Example:
        >>> load_personachat("personachat/train_both_original.txt")[0]["persona"]
        ['i drive a taxi in a big city.', 'i have four grown daughters.']
    """
    from datasets import Dataset, Features, List, Value

    path = Path(path)
    name, stem, text = str(path), default_name(path), read_text(path)
    columns: dict[str, list] = {"id": [], "utterances": [], "persona": []}
    for index, (where, sides) in enumerate(_find_reader(name, text, reader).read(name, text)):
        if not any(side.persona for side in sides):
            raise DataError(
                f"{where}: a conversation without persona; "
                "give a file with personas, or delete the conversation"
            )
        if not any(side.utterances for side in sides):
            raise DataError(f"{where}: a conversation without utterances; delete or complete it")
        for number, side in enumerate(sides, start=1):
            if side.utterances and side.persona:
                columns["id"].append(f"{stem}-{index:05d}-{number}")
                columns["utterances"].append(side.utterances)
                columns["persona"].append(side.persona)
    if not columns["id"]:
        raise DataError(f"{path}: no conversations; give a file with at least one")
    string = Value("string")
    features = Features({"id": string, "utterances": List(string), "persona": List(string)})
    return Dataset.from_dict(columns, features=features)


def _find_reader(name: str, text: str, reader: str | None) -> PersonaReader:
    if reader is not None:
        return PERSONA_CORPORA.find(reader)
    for key in PERSONA_CORPORA:
        found: PersonaReader = PERSONA_CORPORA[key]
        if found.recognises(text):
            return found
    raise _unknown_form(name, CSV_COLUMNS)


def _unknown_form(name: str, missing: Sequence[str]) -> DataError:
    return DataError(
        f"{name}, line 1: neither ParlAI text, nor personachat_self_original.json, nor a CSV with "
        f"the columns {', '.join(CSV_COLUMNS)} (missing: {', '.join(missing)}); check the file"
    )


# ParlAI's numbered lines.


def _read_parlai(name: str, text: str) -> Iterator[Conversation]:
    numbered = []
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            number, _, rest = content.strip().partition(" ")
            if not (number.isascii() and number.isdecimal() and len(number) < 10):
                raise DataError(
                    f"{name}, line {line}: expected a turn number first, got {content[:40]!r}; "
                    "correct or delete that line"
                )
            numbered.append((line, int(number), rest))
    starts = [i for i, (_, number, _) in enumerate(numbered) if i == 0 or number == 1]
    for start, end in pairwise([*starts, len(numbered)]):
        mine, partner = PersonaSide(), PersonaSide()
        for line, _, rest in numbered[start:end]:
            if found := _PARLAI_PERSONA.match(rest):
                (mine if found[1] == "your" else partner).tell(found[2])
                continue
            heard, tab, said = rest.partition("\t")
            if not tab:
                raise DataError(
                    f"{name}, line {line}: an utterance line without TAB, got {rest[:40]!r}; "
                    "expected the partner's utterance, a TAB and the answer"
                )
            partner.say(heard)
            mine.say(said.partition("\t")[0])  # candidates follow
        yield f"{name}, line {numbered[start][0]}", (mine, partner)


# ParlAI's lines of named fields.


def _read_fields(name: str, text: str) -> Iterator[Conversation]:
    sides, start = (PersonaSide(), PersonaSide()), 0
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        start = start or line
        values = dict(part.partition(":")[::2] for part in content.strip().split("\t"))
        labels = values.get("labels", values.get("eval_labels"))
        if "text" not in values or labels is None:
            raise DataError(
                f"{name}, line {line}: expected text:…, a TAB and labels:…, got {content[:40]!r}; "
                "correct or delete that line"
            )
        mine, partner = sides
        for part in _unescape(values["text"]).split("\n"):
            if found := _PARLAI_PERSONA.match(part.strip()):
                (mine if found[1] == "your" else partner).tell(found[2])
            else:
                partner.say(part)
        mine.say(_unescape(labels.split("|")[0]))
        if values.get("episode_done", "").strip() == "True":
            yield f"{name}, line {start}", sides
            sides, start = (PersonaSide(), PersonaSide()), 0
    if start:
        yield f"{name}, line {start}", sides


def _unescape(text: str) -> str:
    for escaped, plain in (("\\n", "\n"), ("\\t", "\t"), ("\\r", ""), ("__PIPE__", "|")):
        text = text.replace(escaped, plain)
    return text


# personachat_self_original.json


def _read_json(name: str, text: str) -> Iterator[Conversation]:
    """Yield the conversations of all parts of the file: personality, candidates and history.

    The history of an utterance holds all earlier utterances, the partner's first; its last
    candidate is the actual answer.
    """
    try:
        whole = parse_json(text)
    except ValueError as error:
        raise DataError(
            f"{name}: not valid JSON ({why_not_json(error)}); download the file again"
        ) from None
    for part, talks in whole.items():
        for index, talk in enumerate(_listed(talks, f"{name}, {part}")):
            where = f"{name}, {part}, conversation {index}"
            mine, partner = PersonaSide(), PersonaSide()
            utterances = _listed(_of(talk, "utterances", where), f"{where}, utterances")
            for sentence in _texts(_of(talk, "personality", where), f"{where}, personality"):
                mine.tell(sentence)
            history: list[str] = []
            for number, utterance in enumerate(utterances):
                place = f"{where}, utterance {number}"
                before = history
                history = _texts(_of(utterance, "history", place), f"{place}, history")
                answers = _texts(_of(utterance, "candidates", place), f"{place}, candidates")
                if not history or not answers or history[: len(before)] != before:
                    raise DataError(
                        f"{place}: 'history' must hold what was said before and 'candidates' the "
                        "answer at their end; download the file again"
                    )
                partner.say(history[-1])
                mine.say(answers[-1])
                history = [*history, answers[-1]]
            yield where, (mine, partner)


def _of(record: Any, key: str, where: str) -> Any:
    if not isinstance(record, dict) or key not in record:
        raise DataError(f"{where}: expected an object with {key!r}, got {repr(record)[:60]}")
    return record[key]


def _listed(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise DataError(f"{where}: expected a list, got {repr(value)[:60]}")
    return value


def _texts(value: Any, where: str) -> list[str]:
    if not all(isinstance(item, str) for item in _listed(value, where)):
        raise DataError(f"{where}: expected a list of texts, got {repr(value)[:60]}")
    return value


# Synthetic-Persona-Chat


def _read_csv(name: str, text: str) -> Iterator[Conversation]:
    for line, row in table_rows(text, name):
        missing = [column for column in CSV_COLUMNS if column not in row]
        if missing:
            raise _unknown_form(name, missing)
        sides = PersonaSide(), PersonaSide()
        for user, utterance in _CSV_UTTERANCE.findall(row[CSV_COLUMNS[2]]):
            sides[int(user) - 1].say(utterance)
        for side, column in zip(sides, CSV_COLUMNS, strict=False):
            for sentence in row[column].split("\n"):
                side.tell(sentence)
        yield f"{name}, line {line}", sides


# Name → reader, in the order in which they are asked.
PERSONA_CORPORA = Registry(
    "reader",
    {
        "parlai": PersonaReader(lambda text: bool(_PARLAI_START.match(text)), _read_parlai),
        "parlai_fields": PersonaReader(lambda text: bool(_FIELDS_START.match(text)), _read_fields),
        "self_original_json": PersonaReader(lambda text: text.lstrip()[:1] == "{", _read_json),
        "synthetic_csv": PersonaReader(
            lambda text: bool(header_names(text) & {*CSV_COLUMNS}), _read_csv
        ),
    },
)
