"""ESConv and PESConv: every published layout in, one table of validated dialogues out.

A dialogue may come in the release's layout (``speaker``, ``annotation``, ``content``) or in the
hub's (``speaker``, ``text``, ``strategy``); a file is one JSON list or one dialogue a line. PESConv
adds what is known of the seeker at each turn (PAL paper, section 3.2, Table 1): as ``persona`` of a
turn in this project's JSONL, as ``persona_list`` from the seeker's third turn on in the released
``PESConv.json``.

Texts are whitespace-normalised, ``" ".join(text.split())``, as the authors' preprocessing does.
"""

import json
import math
import random
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pal.core.errors import DataError, PalError, suggest
from pal.core.files import read_json, read_jsonl, read_text, write_json, write_jsonl
from pal.data.strategies import canonical_strategy

if TYPE_CHECKING:
    from datasets import Dataset, Features

SPLITS = ("train", "validation", "test")
SPEAKERS = {
    "seeker": "seeker", "usr": "seeker", "speaker": "seeker",
    "supporter": "supporter", "sys": "supporter", "listener": "supporter",
}  # fmt: skip

# Columns that describe a dialogue, and where the survey's columns lie in the published layouts.
DESCRIPTION = ("experience_type", "emotion_type", "problem_type", "situation")
SURVEY = {
    "empathy": ("seeker", "empathy"),
    "relevance": ("seeker", "relevance"),
    "initial_emotion_intensity": ("seeker", "initial_emotion_intensity"),
    "final_emotion_intensity": ("seeker", "final_emotion_intensity"),
    "supporter_relevance": ("supporter", "relevance"),
}

# A record with no other keys can be a request for a response.
REQUEST_KEYS = {"id", "dialog", "persona"}
# ``persona_list`` starts at this turn of the seeker, counted from 1.
FIRST_LISTED_TURN = 3

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(?<!\.json)(?<!\.jsonl)(?<!\.txt)")


def features() -> "Features":
    """Return the columns of :func:`load_esconv`."""
    from datasets import Features, List, Value

    text = Value("string")
    turn = {"speaker": text, "text": text, "strategy": text, "persona": List(text)}
    return Features(
        {
            "id": text,
            **dict.fromkeys(DESCRIPTION, text),
            "survey": dict.fromkeys(SURVEY, Value("float64")),
            "dialog": List(turn),
            "persona": List(text),
            "request": Value("bool"),
        }
    )


def load_esconv(
    source: str | Path, split: str | None = None, *, requests: bool = False
) -> "Dataset":
    """Load and validate dialogues, whatever their layout.

    Every turn carries ``speaker`` (``seeker`` or ``supporter``), ``text``, ``strategy`` (the
    canonical name; None for the seeker) and ``persona``, the sentences known once it is said. The
    dialogue's own ``persona`` tells the whole conversation; it is not known at any turn unless a
    turn or ``persona_list`` says so. Dialogues without ``id`` are named after file and position.

    Args:
        source: a file; a folder with ``train``, ``validation`` (or ``valid``) and ``test`` as
            ``.jsonl`` or ``.json``; or a hub id such as ``thu-coai/esconv``.
        split: one of ``SPLITS``, for a folder or hub id; None joins them in that order.
        requests: read records that have no keys but ``id``, ``dialog`` and ``persona`` as requests
            for the next turn: they need no supporter turn and no strategies, and their ``persona``
            is known at every turn.

    Raises:
        DataError: nothing there, or a record that cannot be used; the message names file, record,
            turn, what was found and what is allowed.
    """
    from datasets import Dataset, DatasetInfo
    from pyarrow import Table

    rows: dict[str, dict[str, Any]] = {}
    for where, name, record in _read(source, split):
        row = _parse_dialogue(record, name, where, requests)
        if row["id"] in rows:
            _fail(where, f"the id {row['id']!r} was used before; give every dialogue its own")
        rows[row["id"]] = row
    if not rows:
        _fail(str(source), "no dialogues in it; give a file with at least one")
    columns = features()
    try:
        table = Table.from_pylist(list(rows.values()), schema=columns.arrow_schema)
    except UnicodeEncodeError as error:
        text = ascii(error.object[max(error.start - 20, 0) : error.end])
        _fail(str(source), f"half a character (a lone surrogate) at the end of {text}; mend it")
    return Dataset(table, info=DatasetInfo(features=columns))


def split_dialogues(
    dataset: "Dataset", *, seed: int, ratios: Sequence[float] = (0.7, 0.2, 0.1)
) -> "dict[str, Dataset]":
    """Split by dialogue, at random but always the same for a seed (7:2:1: PAL paper, section 4.3).

    Args:
        dataset: dialogues.
        seed: decides which dialogue goes where.
        ratios: shares of train, validation and test.

    Raises:
        DataError: too few dialogues, one of the splits would be empty.
    """
    order = list(range(len(dataset)))
    random.Random(seed).shuffle(order)
    cuts = [round(len(order) * share / sum(ratios)) for share in accumulate(ratios, initial=0)]
    parts = [sorted(order[start:end]) for start, end in pairwise(cuts)]
    if not all(parts):
        raise DataError(
            f"{len(order)} dialogues are too few for a split of {':'.join(map(str, ratios))}; "
            "give more dialogues, or a folder with the three splits"
        )
    return {name: dataset.select(part) for name, part in zip(SPLITS, parts, strict=True)}


def write_pesconv(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows of :func:`load_esconv` as JSONL: the hub's layout plus ids and known personas.

    Raises:
        OutputError: the file cannot be written.
    """
    write_jsonl(path, map(_pesconv_record, rows))


def write_released(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows of :func:`load_esconv` in the layout of the released ``PESConv.json``.

    Two additions keep everything: ``id``, and ``persona`` in the ``annotation`` of a turn whose
    persona ``persona_list`` cannot tell (one known before the seeker's third turn, for example).

    Raises:
        OutputError: the file cannot be written.
    """
    write_json(path, [_released_record(row) for row in rows])


def _fail(where: str, problem: str) -> NoReturn:
    raise DataError(f"{where}: {problem}")


# Sources: (where it stands, default id, record) of every dialogue.
Records = Iterator[tuple[str, str, Any]]


def _read(source: str | Path, split: str | None) -> Records:
    path = Path(source)
    if split is not None and split not in SPLITS:
        raise DataError(
            f"unknown split {split!r}{suggest(split, SPLITS)} (allowed: {', '.join(SPLITS)})"
        )
    if path.is_dir():
        for file in _split_files(path, split):
            yield from _read_file(file)
    elif path.exists():
        if split is not None:
            _fail(str(source), f"a file has no split {split!r}; give a folder, or no split")
        yield from _read_file(path)
    elif _HUB_ID.fullmatch(str(source)):
        yield from _read_hub(str(source), split)
    else:
        _fail(str(source), "no such file; check the path")


def _split_files(folder: Path, split: str | None) -> list[Path]:
    found: dict[str, Path] = {}
    for stem in ("train", "validation", "valid", "test"):
        for file in (folder / f"{stem}.jsonl", folder / f"{stem}.json"):
            if file.is_file():
                found.setdefault("validation" if stem == "valid" else stem, file)
    if not found or (split is not None and split not in found):
        have = ", ".join(file.name for file in found.values()) or "no split"
        _fail(
            str(folder),
            f"expected {split or 'train, validation or test'}.jsonl or .json in the folder, "
            f"got {have}; add the file, or name one",
        )
    return list(found.values()) if split is None else [found[split]]


def _read_file(path: Path) -> Records:
    if read_text(path).lstrip().startswith("["):
        places = ((f"{path}, dialogue {i}", r) for i, r in enumerate(read_json(path)))
    else:
        lines = enumerate(read_jsonl(path))
        places = ((f"{path}, line {line} (dialogue {i})", r) for i, (line, r) in lines)
    for index, (where, record) in enumerate(places):
        yield where, f"{path.stem}-{index:05d}", record


def _read_hub(hub_id: str, split: str | None) -> Records:
    import datasets

    try:
        found = datasets.load_dataset(hub_id)
    except Exception as error:  # offline, unknown, private, malformed: the remedy is one
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        _fail(
            hub_id,
            f"neither a local path nor a data set the hub gave ({reason}); "
            "give a local file or folder",
        )
    names = [name for name in SPLITS if name in found] if split is None else [split]
    if not names or names[0] not in found:
        _fail(hub_id, f"no {split or 'train, validation or test'} split; it has {', '.join(found)}")
    for name in names:
        stem = f"{hub_id.split('/')[-1]}-{name}"
        for index, record in enumerate(found[name]):
            yield f"{hub_id} ({name}), dialogue {index}", f"{stem}-{index:05d}", record


# Records to rows. ``where`` names file and record for the messages.


def _parse_dialogue(record: Any, name: str, where: str, requests: bool) -> dict[str, Any]:
    if isinstance(record, dict) and "dialog" not in record and isinstance(record.get("text"), str):
        try:  # the hub's form: one column that holds the JSON
            record = json.loads(record["text"])
        except json.JSONDecodeError as error:
            _fail(where, f"the column 'text' is not valid JSON ({error.msg}); mend or delete it")
    turns = _get(record, "dialog", list, where)
    if not turns:
        _fail(where, "the dialog is empty, expected at least one turn; add turns or delete it")
    request = requests and record.keys() <= REQUEST_KEYS
    dialog = [
        _parse_turn(turn, f"{where}, turn {index}", request) for index, turn in enumerate(turns)
    ]
    seeker_turns = [turn for turn in dialog if turn["speaker"] == "seeker"]
    if not request and len(seeker_turns) == len(dialog):
        _fail(where, "no supporter turn; add one or delete the dialogue")

    persona = _parse_sentences(record.get("persona"), f"{where}, persona")
    if record.get("persona_list") is not None:
        listed = _get(record, "persona_list", list, where)
        expected = max(len(seeker_turns) - FIRST_LISTED_TURN + 1, 0)
        if len(listed) != expected:
            _fail(
                where,
                f"persona_list: expected {expected} entries, one for every seeker turn from the "
                f"third on, got {len(listed)}; add or delete entries",
            )
        for turn, entry in zip(seeker_turns[FIRST_LISTED_TURN - 1 :], listed, strict=True):
            if turn["persona"] is None:
                turn["persona"] = _parse_sentences(entry, f"{where}, persona_list")
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


def _parse_turn(turn: Any, where: str, request: bool) -> dict[str, Any]:
    name = _get(turn, "speaker", str, where)
    speaker = SPEAKERS.get(name.strip().lower())
    if speaker is None:
        _fail(where, f"unknown speaker {name!r} (allowed: {', '.join(SPEAKERS)})")
    key = "text" if turn.get("text") is not None or "content" not in turn else "content"
    text = " ".join(_get(turn, key, str, where).split())
    if not text:
        _fail(
            where, f"{key!r} is empty, expected what the {speaker} says; add it or delete the turn"
        )
    annotation = turn.get("annotation") or {}
    if not isinstance(annotation, dict):
        _fail(where, f"'annotation' must be an object, got {reprlib.repr(annotation)}")
    strategy = None
    if speaker == "supporter":
        strategy = turn.get("strategy") or annotation.get("strategy") or None
        if strategy is None and not request:
            _fail(where, "a supporter turn without strategy; add its 'strategy'")
    if strategy is not None:
        try:
            strategy = canonical_strategy(strategy)
        except PalError as error:
            _fail(where, str(error))
    persona = turn.get("persona")
    if persona is None:
        persona = annotation.get("persona")
    persona = _parse_sentences(persona, f"{where}, persona")
    return {"speaker": speaker, "text": text, "strategy": strategy, "persona": persona}


def _get(record: Any, key: str, kind: type, where: str) -> Any:
    if not isinstance(record, dict):
        _fail(where, f"expected a JSON object, got {type(record).__name__}")
    if key not in record:
        _fail(where, f"missing key {key!r}; it has {', '.join(map(repr, record)) or 'none'}")
    if not isinstance(record[key], kind):
        _fail(where, f"{key!r} must be a {kind.__name__}, got {reprlib.repr(record[key])}")
    return record[key]


def _parse_id(value: Any, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        _fail(where, f"'id' must be a str or an int, got {reprlib.repr(value)}")
    return str(value)


def _parse_text(record: dict[str, Any], key: str, where: str) -> str | None:
    if record.get(key) is None:
        return None
    return " ".join(_get(record, key, str, where).split()) or None


def _parse_survey(record: dict[str, Any], where: str) -> dict[str, float | None]:
    scores = record.get("survey_score") or {}
    return {column: _parse_score(scores, *place, where) for column, place in SURVEY.items()}


def _parse_score(scores: Any, side: str, key: str, where: str) -> float | None:
    try:
        value = (scores.get(side) or {}).get(key)
    except AttributeError:
        _fail(
            where,
            f"'survey_score' must hold an object for each speaker, got {reprlib.repr(scores)}",
        )
    if value is None or value == "":
        return None
    try:
        score = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        _fail(
            where, f"survey_score.{side}.{key} must be a number or null, got {reprlib.repr(value)}"
        )
    return score


def _parse_sentences(value: Any, where: str) -> list[str] | None:
    """Read a persona: a list of sentences, or one string with ``<persona>`` between them."""
    if value is None:
        return None
    pieces = [value] if isinstance(value, str) else value
    if not isinstance(pieces, list) or not all(isinstance(piece, str) for piece in pieces):
        _fail(where, f"must be a string or a list of strings, got {reprlib.repr(value)}")
    split = (part for piece in pieces for part in re.split("<input>|<persona>", piece))
    return [sentence for part in split if (sentence := " ".join(part.split()))]


# Rows to records.


def _pesconv_record(row: Mapping[str, Any]) -> dict[str, Any]:
    dialog = []
    for turn in row["dialog"]:
        record = {"text": turn["text"], "speaker": "usr" if turn["speaker"] == "seeker" else "sys"}
        if turn["strategy"] is not None:
            record["strategy"] = turn["strategy"]
        dialog.append({**record, "persona": turn["persona"]})
    return {**_head(row), "dialog": dialog, "persona": row["persona"]}


def _released_record(row: Mapping[str, Any]) -> dict[str, Any]:
    known = row["persona"] if row["request"] else []
    dialog: list[dict[str, Any]] = []
    listed: list[str] = []
    heard = 0
    for turn in row["dialog"]:
        annotation = {} if turn["strategy"] is None else {"strategy": turn["strategy"]}
        heard += turn["speaker"] == "seeker"
        if turn["speaker"] == "seeker" and heard >= FIRST_LISTED_TURN and not row["request"]:
            listed.append(_join(turn["persona"]))
        elif turn["persona"] != known:
            annotation["persona"] = turn["persona"]
        known = turn["persona"]
        dialog.append(
            {"speaker": turn["speaker"], "annotation": annotation, "content": turn["text"]}
        )
    record = {**_head(row), "dialog": dialog, "persona": _join(row["persona"])}
    return record if row["request"] else {**record, "persona_list": listed}


def _head(row: Mapping[str, Any]) -> dict[str, Any]:
    if row["request"]:
        return {"id": row["id"]}
    survey: dict[str, dict[str, str | None]] = {"seeker": {}, "supporter": {}}
    for column, (side, key) in SURVEY.items():
        score = row["survey"][column]
        survey[side][key] = None if score is None else repr(score).removesuffix(".0")
    return {"id": row["id"], **{key: row[key] for key in DESCRIPTION}, "survey_score": survey}


def _join(sentences: Iterable[str]) -> str:
    return "<input>" + "<persona>".join(sentences)
