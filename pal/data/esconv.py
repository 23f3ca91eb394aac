"""ESConv and PESConv: reading every published layout into one table of validated dialogues.

A dialogue may come in the release's layout (``speaker``, ``annotation``, ``content``) or in the
hub's (``speaker``, ``text``, ``strategy``); :mod:`pal.data.corpora` lists the file formats.
PESConv adds the persona known at each turn (PAL paper, section 3.2, Table 1): as
``persona`` of a turn in this project's JSONL, as ``persona_list`` from the seeker's third turn on
in the released ``PESConv.json``.
"""

import logging
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pal.core.errors import DataError
from pal.core.files import write_json_list, write_jsonl
from pal.data.corpora.tables import DESCRIPTION
from pal.data.records import (
    FIRST_LISTED_TURN,
    NOTES,
    SURVEY,
    fail_at,
    parse_dialogue,
)
from pal.data.sources import SPLITS, read_entries
from pal.data.spilled import SeenNames, table_fingerprint, table_of
from pal.data.strategies import canonical_strategy

if TYPE_CHECKING:
    from datasets import Dataset, Features

logger = logging.getLogger(__name__)


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
    source: Any,
    split: str | None = None,
    *,
    requests: bool = False,
    reader: str | None = None,
    columns: Mapping[str, str | None] | None = None,
    strategy_labels: Mapping[str, str | None] | None = None,
) -> "Dataset":
    """Load and validate dialogues, whatever their layout.

    Every turn carries ``speaker`` (``seeker`` or ``supporter``), ``text``, ``strategy`` (the
    canonical name; None for the seeker) and ``persona``, the sentences known after that turn. The
    ``persona`` of the dialogue describes the whole conversation; it is not known at any turn unless
    a turn or ``persona_list`` holds it. Dialogues without ``id`` are named after file and position.

    Args:
        source: a file (JSON lines, a JSON list or document, parquet, arrow, CSV or TSV with one
            row per turn; compressed or not); a pipe, which is read once; a folder with ``train``,
            ``validation`` (or ``valid``) and ``test`` in one of these formats, a folder that
            ``save_to_disk`` wrote, or a clone of a data set of the hub; a hub id such as
            ``thu-coai/esconv``; a list of files; or, in memory, a list of dialogues or a
            ``datasets.Dataset`` or ``DatasetDict``.
        split: one of ``SPLITS``, for a source with splits; None joins all of them in that order.
        requests: whether requests for the next turn are accepted too, see
            :mod:`pal.data.records`. A request needs no supporter turn, and its ``persona`` is
            known at every turn. No supporter turn then needs a strategy.
        reader: name of the file format in :data:`pal.data.corpora.CORPORA`, or
            ``their_package.module:Class``; None recognises the format.
        columns: column of ``dialogue``, ``speaker``, ``text``, ``strategy`` and ``persona`` in a
            table with one row per turn, for columns without their usual names.
        strategy_labels: label of another strategy set → name of a strategy of this one, or None
            where none fits.

    Raises:
        DataError: the source is missing, or a record cannot be used; the message names file,
            record and turn, the value found and the values allowed.
        PalError: ``reader``, ``columns`` or ``strategy_labels`` hold an unknown name.

    Example:
        >>> load_esconv([{"id": 7, "dialog": [
        ...     {"speaker": "seeker", "text": "I lost my job."},
        ...     {"speaker": "supporter", "text": "When?", "strategy": "Question"},
        ... ]}])["id"][:]
        ['7']
    """
    from datasets import Dataset, DatasetInfo
    from pyarrow import ArrowException

    labels = {
        label: name if name is None else canonical_strategy(name)
        for label, name in (strategy_labels or {}).items()
    }
    name = str(source) if isinstance(source, str | Path) else "the dialogues given"
    notes: Counter[str] = Counter()
    count = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal count
        seen = SeenNames()
        for where, default, record in read_entries(source, split, reader=reader, columns=columns):
            row = parse_dialogue(
                record, default, where, requests=requests, labels=labels, notes=notes
            )
            if not seen.add(row["id"]):
                fail_at(
                    where,
                    f"the id {row['id']!r:.80} was used before; give every dialogue its own id",
                )
            count += 1
            yield row

    found = features()
    try:
        table = table_of(rows(), found.arrow_schema)
    except (UnicodeEncodeError, ArrowException) as error:
        text = ascii(str(error))[:120]
        fail_at(name, f"a text is not valid Unicode ({text}); correct it")
    if not count:
        fail_at(name, "no dialogues; give at least one")
    for note in [note for note in NOTES if notes[note]]:
        logger.warning("%s: in %d of %d records, %s", name, notes[note], count, NOTES[note])
    return Dataset(table, info=DatasetInfo(features=found), fingerprint=table_fingerprint(table))


def split_dialogues(
    dataset: "Dataset", *, seed: int, ratios: Sequence[float] = (0.7, 0.2, 0.1)
) -> "dict[str, Dataset]":
    """Split by dialogue, at random and reproducibly by seed (7:2:1, PAL paper, section 4.3).

    Args:
        dataset: dialogues.
        seed: seed of the split.
        ratios: proportions of train, validation and test.

    Raises:
        DataError: there are too few dialogues, so that a split would be empty.
    """
    order = list(range(len(dataset)))
    random.Random(seed).shuffle(order)
    cuts = [round(len(order) * share / sum(ratios)) for share in accumulate(ratios, initial=0)]
    parts = [sorted(order[start:end]) for start, end in pairwise(cuts)]
    if not all(parts):
        raise DataError(
            f"too few for a split of {':'.join(map(str, ratios))}: {len(order)} in all; "
            "give more dialogues, a folder with the three splits, or no split for all of them"
        )
    return {name: dataset.select(part) for name, part in zip(SPLITS, parts, strict=True)}


def write_pesconv(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows of :func:`load_esconv` as JSONL, in the hub's layout with ids and personas.

    Raises:
        OutputError: the file cannot be written.
    """
    write_jsonl(path, map(_pesconv_record, rows))


def write_released(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows of :func:`load_esconv` in the layout of the released ``PESConv.json``.

    Two additions keep all information: ``id``, and ``persona`` in the ``annotation`` of a turn
    whose persona ``persona_list`` cannot express (for example, before the seeker's third turn).

    Raises:
        OutputError: the file cannot be written.
    """
    write_json_list(path, map(_released_record, rows), private=True)


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
        known = {key: row[key] for key in DESCRIPTION if row[key] is not None}
        return {"id": row["id"], "request": True, **known}
    survey: dict[str, dict[str, str | None]] = {"seeker": {}, "supporter": {}}
    for column, (side, key, _) in SURVEY.items():
        score = row["survey"][column]
        survey[side][key] = None if score is None else repr(score).removesuffix(".0")
    return {"id": row["id"], **{key: row[key] for key in DESCRIPTION}, "survey_score": survey}


def _join(sentences: Iterable[str]) -> str:
    return "<input>" + "<persona>".join(sentences)
