"""Conversion of one record of any published layout to one validated row.

A record is a request for the next turn if it has ``"request": true``; or if it has no keys but
``id``, ``dialog`` and ``persona`` and none of its supporter turns has a strategy, so that it holds
no target to learn from or to compare with. Every other record is a dialogue. The rule is the same
wherever a record is read, so training and generation treat a record alike.
"""

import datetime
import math
import re
import reprlib
from collections import Counter
from collections.abc import Mapping
from typing import Any, NoReturn

from pal.core.errors import DataError, PalError
from pal.core.files import parse_json, why_not_json
from pal.data.corpora.tables import DESCRIPTION, TableTurn
from pal.data.strategies import canonical_strategy
from pal.data.texts import normalise_text

SPEAKERS = {
    "seeker": "seeker", "usr": "seeker", "speaker": "seeker", "user": "seeker",
    "client": "seeker", "patient": "seeker",
    "supporter": "supporter", "sys": "supporter", "listener": "supporter",
    "assistant": "supporter", "helper": "supporter", "counselor": "supporter",
    "counsellor": "supporter", "therapist": "supporter",
}  # fmt: skip

# The places of the survey's columns in the published layouts, and the lowest score of each; the
# highest is 5. The release holds four zeros, all of them the relevance of supporters.
SURVEY = {
    "empathy": ("seeker", "empathy", 1),
    "relevance": ("seeker", "relevance", 1),
    "initial_emotion_intensity": ("seeker", "initial_emotion_intensity", 1),
    "final_emotion_intensity": ("seeker", "final_emotion_intensity", 1),
    "supporter_relevance": ("supporter", "relevance", 0),
}
HIGHEST_SCORE = 5

_SENTENCE_MARKS = re.compile("<input>|<persona>")

# A record with these keys only can be a request for a response.
REQUEST_KEYS = {"id", "dialog", "persona"}
# ``persona_list`` of the release starts at this turn of the seeker, counted from 1.
FIRST_LISTED_TURN = 3
# Personas are inferred from this utterance of the conversation on, counted from 1 (PAL, Table 1).
FIRST_INFERRED_UTTERANCE = 3


# What makes a record a request, for messages.
MARK_AS_REQUEST = '"request": true (in a table, true in a column request)'

# Notes to the user on records that were read, by the names under which they are counted.
NOTES = {
    "answered": "the last turn is the supporter's; the response to come is a second turn after it "
    "(leave that turn out to get one in its place)",
    "echoed": "persona_list repeats the seeker's utterances, as the authors' processing writes "
    "it, and is read as the persona; PESConv.json holds the inferred one",
}


def fail_at(where: str, problem: str) -> NoReturn:
    """Raise a :class:`DataError` that names a place.

    Raises:
        DataError: always.
    """
    raise DataError(f"{where}: {problem}")


def parse_dialogue(
    record: Any,
    name: str,
    where: str,
    *,
    requests: bool = False,
    labels: Mapping[str, str | None] | None = None,
    notes: Counter[str] | None = None,
) -> dict[str, Any]:
    """Return the row of a record, see :func:`pal.load_esconv`.

    Args:
        record: the record as it was read.
        name: id for a record without one.
        where: file and record, for messages.
        requests: whether requests and supporter turns without strategy are accepted.
        labels: label of another strategy set → name in this one, or None where none fits.
        notes: counter of the records that a note of :data:`NOTES` applies to.

    Raises:
        DataError: the record cannot be used; the message names the turn.
    """
    record = _unpack(record, where)
    turns = _turns_of(record, where)
    known_labels = {normalise_text(key).lower(): value for key, value in (labels or {}).items()}
    dialog = [
        _parse_turn(turn, _place_of(turn, index, where), known_labels)
        for index, turn in enumerate(turns)
    ]
    request = _is_request(record, dialog, where)
    if not requests:
        _refuse_request(record, dialog, where)
    elif not request and all(turn["speaker"] == "seeker" for turn in dialog):
        fail_at(
            where,
            "no supporter turn; add one, delete the dialogue, or mark it as a request for the next "
            f"turn with {MARK_AS_REQUEST}",
        )

    persona = _parse_sentences(record.get("persona"), f"{where}, persona")
    notes = Counter() if notes is None else notes
    if record.get("persona_list") is not None:
        notes["echoed"] += _lay_listed_personas(
            dialog, _get(record, "persona_list", list, where), where
        )
    notes["answered"] += request and dialog[-1]["speaker"] == "supporter"
    known = (persona or []) if request else []
    for turn in dialog:
        known = turn["persona"] = known if turn["persona"] is None else turn["persona"]
    return {
        "id": _parse_id(record.get("id"), where) or name,
        **{key: _parse_text(record, key, where) for key in DESCRIPTION},
        "survey": _parse_survey(record, where),
        "dialog": dialog,
        "persona": known if persona is None else persona,
        "request": request,
    }


def read_spoken(record: Any, where: str) -> tuple[str, str | None, list[tuple[str, str]]]:
    """Return id (empty if none), situation and turns of a record, whatever its labels.

    Args:
        record: the record as it was read.
        where: file and record, for messages.

    Returns:
        The turns as (speaker, text).

    Raises:
        DataError: the record is no dialogue; the message names the turn.
    """
    record = _unpack(record, where)
    turns = [
        _parse_spoken(turn, _place_of(turn, index, where))
        for index, turn in enumerate(_turns_of(record, where))
    ]
    return _parse_id(record.get("id"), where), _parse_text(record, "situation", where), turns


def _unpack(record: Any, where: str) -> Any:
    """Return the record in the hub's layout of one column that holds the JSON, or as it is."""
    if isinstance(record, dict) and "dialog" not in record and isinstance(record.get("text"), str):
        try:
            return parse_json(record["text"])
        except ValueError as error:
            fail_at(
                where, f"the column 'text' is not valid JSON ({why_not_json(error)}); correct it"
            )
    return record


WANTED = '"dialog": [{"speaker": "seeker", "text": "…"}, …]'


def _turns_of(record: Any, where: str) -> list[Any]:
    if isinstance(record, dict) and "dialog" not in record:
        fail_at(where, f"missing key 'dialog'; it has {_keys_of(record)}; expected {WANTED}")
    turns: list[Any] = _get(record, "dialog", list, where)
    if not turns:
        fail_at(where, "the dialog is empty, expected at least one turn; add turns or delete it")
    return turns


def _is_request(record: dict[str, Any], dialog: list[dict[str, Any]], where: str) -> bool:
    told = record.get("request")
    if told is not None:
        if not isinstance(told, bool):
            fail_at(where, f"'request' must be true or false, got {reprlib.repr(told)}")
        return told
    return _filled_keys(record) <= REQUEST_KEYS and not any(turn["strategy"] for turn in dialog)


def _filled_keys(record: Mapping[str, Any]) -> set[str]:
    return {key for key, value in record.items() if value is not None}


def _refuse_request(record: dict[str, Any], dialog: list[dict[str, Any]], where: str) -> None:
    if record.get("request"):
        fail_at(
            where, "a request for the next turn, without a response to learn from; leave it out"
        )
    if all(turn["speaker"] == "seeker" for turn in dialog):
        fail_at(where, "no supporter turn; add one or delete the dialogue")
    for index, turn in enumerate(dialog):
        if turn["speaker"] == "supporter" and turn["strategy"] is None:
            fail_at(
                _place_of(record["dialog"][index], index, where),
                "a supporter turn without strategy; add its 'strategy'",
            )


def _lay_listed_personas(dialog: list[dict[str, Any]], listed: list[Any], where: str) -> bool:
    """Assign the entries of ``persona_list`` to the seeker's turns; return whether they are echoes.

    The release has one entry for every seeker turn from the third on. The output of the authors'
    processing has one for every seeker turn; entries before the third utterance of the conversation
    are left out, since the paper infers personas only from there on.
    """
    places = [index for index, turn in enumerate(dialog) if turn["speaker"] == "seeker"]
    released = places[FIRST_LISTED_TURN - 1 :]
    if len(listed) not in (len(released), len(places)):
        fail_at(
            where,
            f"persona_list: expected {len(released)} entries, one for every seeker turn from the "
            f"third on, or {len(places)}, one for every seeker turn, got {len(listed)}; add or "
            "delete entries",
        )
    whole = len(listed) == len(places)
    echoes = whole and bool(listed)
    for index, entry in zip(places if whole else released, listed, strict=True):
        sentences = _parse_sentences(entry, f"{where}, persona_list")
        echoes = echoes and sentences == [dialog[index]["text"]]
        early = whole and index < FIRST_INFERRED_UTTERANCE - 1
        if dialog[index]["persona"] is None and not early:
            dialog[index]["persona"] = sentences
    return echoes


def _place_of(turn: Any, index: int, where: str) -> str:
    """Return the place of a turn, for messages: its row in a table, or its number from 0."""
    return turn.where if isinstance(turn, TableTurn) else f"{where}, turn {index}"


def _column_of(turn: Any, key: str, where: str) -> str:
    """Return the place of a turn's value: in a table, with the column that holds it."""
    column = turn.columns.get(key) if isinstance(turn, TableTurn) else None
    return where if column is None else f"{where}, column {column!r}"


def _parse_spoken(turn: Any, where: str) -> tuple[str, str]:
    """Return who speaks and what is said."""
    name = _get(turn, "speaker", str, _column_of(turn, "speaker", where))
    speaker = SPEAKERS.get(normalise_text(name).lower())
    if speaker is None:
        known = "; ".join(
            f"the {side} is {', '.join(key for key, its in SPEAKERS.items() if its == side)}"
            for side in ("seeker", "supporter")
        )
        fail_at(
            _column_of(turn, "speaker", where),
            f"unknown speaker {name!r:.80}; correct it ({known})",
        )
    key = "text" if turn.get("text") is not None or "content" not in turn else "content"
    where = _column_of(turn, key, where)
    text = normalise_text(_get(turn, key, str, where))
    if not text:
        fail_at(
            where, f"{key!r} is empty, expected what the {speaker} says; add it or delete the turn"
        )
    return speaker, text


def _parse_turn(turn: Any, where: str, labels: Mapping[str, str | None]) -> dict[str, Any]:
    speaker, text = _parse_spoken(turn, where)
    annotation = turn.get("annotation")
    if annotation is not None and not isinstance(annotation, dict):
        fail_at(where, f"'annotation' must be an object, got {reprlib.repr(annotation)}")
    annotation = annotation or {}
    strategy = None
    if speaker == "supporter":
        strategy = turn.get("strategy")
        strategy = annotation.get("strategy") if strategy in (None, "") else strategy
        place = _column_of(turn, "strategy", where)
        strategy = None if strategy in (None, "") else _parse_strategy(strategy, place, labels)
    persona = turn.get("persona")
    if persona is None:
        persona = annotation.get("persona")
    persona = _parse_sentences(persona, f"{_column_of(turn, 'persona', where)}, persona")
    return {"speaker": speaker, "text": text, "strategy": strategy, "persona": persona}


def _parse_strategy(name: Any, where: str, labels: Mapping[str, str | None]) -> str | None:
    if isinstance(name, str):
        name = normalise_text(name)
        if name.lower() in labels:
            return labels[name.lower()]
    try:
        return canonical_strategy(name)
    except PalError as error:
        fail_at(
            where,
            f"{error}; if it is a label of another set, map it: "
            f"data.strategy_labels='{{{str(name)[:60]}: …}}', to one of these or to null",
        )


def _keys_of(record: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, record))[:300] or "none"


def _get(record: Any, key: str, kind: type, where: str) -> Any:
    if not isinstance(record, dict):
        fail_at(where, f"expected a JSON object, got {type(record).__name__}")
    if key not in record:
        fail_at(where, f"missing key {key!r}; it has {_keys_of(record)}")
    if isinstance(record, TableTurn) and record[key] is None:
        fail_at(where, "the cell is empty; fill it in, or delete the row")
    if not isinstance(record[key], kind):
        fail_at(where, f"{key!r} must be a {kind.__name__}, got {reprlib.repr(record[key])}")
    return record[key]


def _parse_id(value: Any, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bool) or not isinstance(value, str | int):
        fail_at(where, f"'id' must be a str or an int, got {reprlib.repr(value)}")
    return normalise_text(str(value))


def _parse_text(record: dict[str, Any], key: str, where: str) -> str | None:
    if record.get(key) is None:
        return None
    return normalise_text(_get(record, key, str, where)) or None


def _parse_survey(record: dict[str, Any], where: str) -> dict[str, float | None]:
    """Read the scores of a published layout or of a row of :func:`pal.load_esconv`."""
    row = record.get("survey")
    if row is not None:
        if not isinstance(row, dict):
            fail_at(where, f"'survey' must be an object, got {reprlib.repr(row)}")
        return {
            column: _parse_score(row.get(column), lowest, f"{where}: survey.{column}")
            for column, (_, _, lowest) in SURVEY.items()
        }
    scores = record.get("survey_score")
    if scores is None:
        scores = {}
    found = {}
    for column, (side, key, lowest) in SURVEY.items():
        given = scores.get(side) if isinstance(scores, dict) else 0
        given = {} if given is None else given
        if not isinstance(given, dict):
            fail_at(
                where,
                f"'survey_score' must hold an object for each speaker, got {reprlib.repr(scores)}",
            )
        found[column] = _parse_score(given.get(key), lowest, f"{where}: survey_score.{side}.{key}")
    return found


def _parse_score(value: Any, lowest: int, where: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        score = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if not lowest <= score <= HIGHEST_SCORE:
        raise DataError(
            f"{where} must be a number from {lowest} to {HIGHEST_SCORE} or null, got "
            f"{reprlib.repr(value)}; correct it, or put null where it was not answered"
        )
    return score


def _parse_sentences(value: Any, where: str) -> list[str] | None:
    """Read a persona: a list of sentences, or one string with ``<persona>`` between them."""
    if value is None:
        return None
    pieces = [value] if isinstance(value, str) else value
    if not isinstance(pieces, list) or not all(isinstance(piece, str) for piece in pieces):
        fail_at(where, f"must be a string or a list of strings, got {reprlib.repr(value)}")
    split = (
        part for piece in pieces
        for part in (_SENTENCE_MARKS.split(piece) if "<" in piece else (piece,))
    )  # fmt: skip
    return [sentence for part in split if (sentence := normalise_text(part))]
