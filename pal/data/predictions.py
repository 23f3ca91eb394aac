"""Reading responses of systems, in the format of ``pal generate`` and in those of other projects.

A file is read once and its form recognised by its contents: JSON lines, one JSON list (compact or
indented), a table with a header (CSV, TSV), plain lines. It is long because every form brings
its own ways to be wrong, and each is answered by a line that says where, and what to do.
"""

import ast
import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from pal.core.errors import DataError, PalError
from pal.core.files import kind_of, parse_json, read_text, why_not_json
from pal.core.job import counted
from pal.core.streams import read_lines
from pal.data.corpora.tables import header_names, table_rows
from pal.data.samples import Sample
from pal.data.spilled import Repeated
from pal.data.strategies import STRATEGIES, canonical_strategy

logger = logging.getLogger(__name__)

Entry = tuple[str, Any]  # (place of a record, for messages; the record)

# Columns of a table; other columns are ignored.
COLUMNS = (
    "id", "response", "reference", "strategy", "reference_strategy", "strategy_from",
    "strategy_probs", "persona",
)  # fmt: skip
ORIGINS = ("model", "gold", "given")  # origin of a record's strategy

_LEADING_STRATEGY = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*")
_LIST_OF_JSON = re.compile(r'\s*\[\s*[\[{"\]]')


class PredictionFile:
    """One file of predictions.

    Args:
        path: the file; a pipe is read once.

    Raises:
        DataError: the file cannot be read or has an unknown format.

    Example:
        >>> file = PredictionFile("out.jsonl")
        >>> records = file.records() if file.has_ids else file.answers(samples)
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.entries: Iterable[Entry] = (
            Repeated(lambda: _streamed_entries(self.path)) if _is_json_lines(self.path)
            else _entries(self.path)
        )  # fmt: skip

    @property
    def has_ids(self) -> bool:
        """Return whether the records name their samples; otherwise reading needs the samples."""
        first = next(iter(self.entries))[1]
        return not isinstance(first, str) and not (
            isinstance(first, dict) and "generation" in first
        )

    def records(self) -> list[dict[str, Any]]:
        """Return the checked records; see :func:`read_predictions`."""
        return _records(self.entries)

    def answers(self, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """Return one record for every sample; see :func:`read_outside`."""
        entries = list(self.entries)
        if self.has_ids:
            rows = _from_ids(self.path, entries, samples)
        elif isinstance(entries[0][1], str):
            rows = _from_list(self.path, entries, samples)
        else:
            rows = _from_authors(self.path, entries, samples)
        return [
            {
                "persona": list(sample.persona),
                **{key: value for key, value in row.items() if value is not None},
                "id": sample.id,
                "reference": sample.response,
                "reference_strategy": sample.strategy,
            }
            for sample, row in zip(samples, rows, strict=True)
        ]


def read_predictions(path: str | Path) -> list[dict[str, Any]]:
    """Read and check predictions in the format of ``pal generate``.

    The file holds JSON lines, one JSON list, or a table (CSV, TSV) whose header names the fields.
    ``id`` and ``response`` are required; ``reference``, ``reference_strategy``, ``strategy``,
    ``strategy_from``, ``strategy_probs`` and ``persona`` are optional, and scores that need a
    missing field are left out.

    Raises:
        DataError: the file cannot be read, a field is missing or wrong, or an id occurs twice; the
            message names file and line.
    """
    return PredictionFile(path).records()


def match_samples(
    records: Sequence[Mapping[str, Any]], samples: Iterable[Sample], *, path: Any, source: Any
) -> list[Sample]:
    """Return the sample of each record.

    Args:
        records: records of :func:`read_predictions`.
        samples: samples of the answered dialogues.
        path: file of the records, for messages.
        source: source of the samples, for messages.

    Raises:
        DataError: no sample has a record's id, or the references differ.
    """
    by_id = {sample.id: sample for sample in samples}
    found = []
    for record in records:
        sample = by_id.get(record["id"])
        if sample is None:
            raise DataError(
                f"{path}: id {record['id']!r} is not a sample of {source}; give the input the "
                "predictions were made from"
            )
        reference = record.get("reference")
        if reference is not None and not _agree(reference, sample.response):
            raise _misfit(f"{path}, id {sample.id!r}", reference, sample)
        found.append(sample)
    return found


def complete_records(
    records: Sequence[Mapping[str, Any]], samples: Sequence[Sample]
) -> list[dict[str, Any]]:
    """Return records with missing references, gold strategies and personas taken from samples.

    Args:
        records: records of :func:`read_predictions`.
        samples: the sample of each record, from :func:`match_samples`.
    """
    return [
        {
            "persona": list(sample.persona),
            "reference": sample.response,
            "reference_strategy": sample.strategy,
            **{key: value for key, value in record.items() if value is not None},
        }
        for record, sample in zip(records, samples, strict=True)
    ]


def lacks_gold(records: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a record lacks its reference, gold strategy or persona."""
    keys = ("reference", "reference_strategy", "persona")
    return any(record.get(key) is None for record in records for key in keys)


def column(records: Sequence[Mapping[str, Any]], key: str) -> list[Any] | None:
    """Return one field of all records, or None if a record lacks it."""
    values = [record.get(key) for record in records]
    return None if any(value is None for value in values) else values


def read_outside(path: str | Path, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Read the responses of an outside system, one for every sample.

    Four formats are recognised by their contents:

    - Records ``{"id", "response"}`` with ``strategy`` and ``persona`` if known, as JSON lines, one
      JSON list, or rows of a table, in any order; the ids are those of the samples.
    - ``gen.json`` or ``gen.txt`` as the authors' ``infer.py`` writes them (chengjl19/PAL and
      thu-coai/Emotional-Support-Conversation): records with ``sample_id`` (a dialogue's position
      in their file, the same for all its records), ``response`` (the reference), ``generation``,
      ``pred_strat_id`` and ``pred_strat_id_dist``. Dialogues may come in any order.
    - ``hyp_strategy.json`` as MISC's script writes it: a list of responses in the order of the
      samples, each optionally after a ``[Strategy]``. ``ref_strategy.json`` and
      ``strategy_record.json`` are read if they lie beside it.
    - Plain text, one response per line in the order of the samples, optionally after a
      ``[Strategy]``.

    References in the file are compared with those of the samples, so that another split with the
    same counts and ids is refused. Plain text has no references, and a warning says so.

    Returns:
        Records as those of :func:`read_predictions`, in the order of the samples. Reference and
        gold strategy come from the samples; so does the persona, unless a record of the first
        format has its own.

    Raises:
        DataError: the file has an unknown format or does not fit the samples; the message names the
            record.
    """
    return PredictionFile(path).answers(samples)


def _records(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Check records with ids; convert strategies to canonical names and personas to lists.

    Records share the texts of their keys, which are most of what a parsed record takes.
    """
    records: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for where, row in entries:
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected an object, got {type(row).__name__}")
        for key in ("id", "response"):
            if key not in row:
                held = ", ".join(map(repr, row))[:300] or "none"
                what = "; these are dialogues, not responses" if "dialog" in row else ""
                raise DataError(f"{where}: missing key {key!r}; it has {held}{what}")
            if not isinstance(row[key], str):
                raise DataError(f"{where}: {key!r} must be a string, got {row[key]!r:.60}")
        if not isinstance(row.get("reference"), str | None):
            raise DataError(
                f"{where}: 'reference' must be a string or null, got {row['reference']!r:.60}"
            )
        place, _, number = where.rpartition(" ")
        if row["id"] in seen:
            place = f"{place.rpartition(', ')[2]} {seen[row['id']]}"
            raise DataError(f"{where}: id {row['id']!r} already occurred on {place}")
        seen[row["id"]] = int(number)
        record = _with_shared_keys(row)
        for key in ("strategy", "reference_strategy"):
            if row.get(key) is not None:
                record[key] = _strategy(f"{where}: {key}", row[key])
        if row.get("strategy_from") not in (None, *ORIGINS):
            raise DataError(
                f"{where}: 'strategy_from' must be one of {', '.join(ORIGINS)}, got "
                f"{row['strategy_from']!r:.60}"
            )
        if row.get("strategy_probs") is not None:
            _check_probs(f"{where}: 'strategy_probs'", row["strategy_probs"])
            record["strategy_probs"] = _with_shared_keys(row["strategy_probs"])
        record["persona"] = _persona(where, row.get("persona"))
        if record["persona"] is None:
            del record["persona"]
        records.append(record)
    return records


def _with_shared_keys(row: Mapping[str, Any]) -> dict[str, Any]:
    return {sys.intern(key): value for key, value in row.items()}


def _check_probs(where: str, probs: Any) -> None:
    """Check that a record's probabilities are eight numbers from 0 to 1."""
    if not isinstance(probs, dict) or set(probs) != set(STRATEGIES):
        raise DataError(f"{where} must give all {len(STRATEGIES)} names")
    for name, value in probs.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value <= 1 + 1e-6:  # NaN fails too
            raise DataError(
                f"{where} of {name!r} must be a number from 0 to 1, got {value!r:.40}; give "
                "probabilities, not scores or logits, or leave 'strategy_probs' out"
            )


def _persona(where: str, persona: Any) -> list[str] | None:
    if persona is None:
        return None
    if isinstance(persona, str):
        return [persona] if persona.strip() else []
    if isinstance(persona, list) and all(isinstance(sentence, str) for sentence in persona):
        return persona
    raise DataError(f"{where}: 'persona' must be a list of sentences, got {persona!r:.60}")


def _strategy(where: str, name: Any) -> str:
    try:
        return canonical_strategy(name)
    except PalError as error:
        raise DataError(f"{where}: {error}") from None


def _is_json_lines(path: Path) -> bool:
    """Return whether a file holds one JSON object a line, two at least, so none need be held."""
    if kind_of(path) != "file" or {".csv", ".tsv"} & set(path.suffixes[-2:]):
        return False
    filled = (line for line in read_lines(path) if line.strip())
    first = next(filled, "")
    try:
        return first.lstrip()[:1] == "{" and bool(parse_json(first)) and any(filled)
    except ValueError:
        return False


def _streamed_entries(path: Path) -> Iterator[Entry]:
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, _parse(where, line, "; correct or delete that line")


def _entries(path: Path) -> list[Entry]:
    """Return the records of a file: a table, one JSON list, JSON lines, or lines of text."""
    text = read_text(path)
    endings = path.suffixes[-2:]
    head = text.lstrip()
    names = set() if head[:1] in "[{" else {name.lower() for name in header_names(text)}
    if {".csv", ".tsv"} & set(endings) or {"id", "response"} <= names:
        return _table_entries(path, text)
    if _LIST_OF_JSON.match(text) or (head.startswith("[") and {".json", ".jsonl"} & set(endings)):
        return _list_entries(path, text)
    if head.startswith("{") or ".jsonl" in endings:
        return _line_entries(path, text)
    if ".json" in endings:
        found = _parse(str(path), text)
        raise DataError(f"{path}: expected a list of responses, got {found!r:.40}")
    lines = text.removesuffix("\n").split("\n")  # an empty line is an empty response
    return [(f"{path}, line {number}", line.strip()) for number, line in enumerate(lines, start=1)]


def _parse(where: str, text: str, remedy: str = "") -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError) and error.lineno > 1:
            where = f"{where}, line {error.lineno}"
        raise DataError(f"{where}: not valid JSON ({why_not_json(error)}){remedy}") from None


def _list_entries(path: Path, text: str) -> list[Entry]:
    found = _parse(str(path), text)
    if not found:
        raise DataError(f"{path}: an empty list; give at least one record")
    return [(f"{path}, record {number}", row) for number, row in enumerate(found, start=1)]


def _line_entries(path: Path, text: str) -> list[Entry]:
    try:
        whole = parse_json(text)
    except ValueError:
        remedy = "; correct or delete that line"
        return [
            (where := f"{path}, line {number}", _parse(where, line, remedy))
            for number, line in enumerate(text.split("\n"), start=1)
            if line.strip()
        ]
    if isinstance(whole, dict) and "id" not in whole and "generation" not in whole:
        keys = ", ".join(map(repr, list(whole)[:5]))
        raise DataError(
            f"{path}: one object with the keys {keys:.80}, not records; give a list of records "
            'such as [{"id": …, "response": …}], or one record per line'
        )
    return [(f"{path}, line 1", whole)]


def _table_entries(path: Path, text: str) -> list[Entry]:
    """Return the rows of a table as records; an empty cell is a missing field."""
    found: list[Entry] = []
    for line, row in table_rows(text, str(path)):
        cells = {name.lower(): cell for name, cell in row.items()}
        if not {"id", "response"} <= cells.keys():
            raise DataError(
                f"{path}: a table without the columns 'id' and 'response' (found: "
                f"{', '.join(map(repr, list(row)[:8])):.120}); rename the columns, or give JSON "
                "lines"
            )
        where = f"{path}, line {line}"
        found.append((where, _table_record(where, cells)))
    if not found:
        raise DataError(f"{path}: a header but no rows; give at least one record")
    return found


def _table_record(where: str, cells: Mapping[str, str]) -> dict[str, Any]:
    record: dict[str, Any] = {"id": cells["id"], "response": cells["response"]}
    for key in ("reference", "strategy", "reference_strategy", "strategy_from"):
        if cells.get(key, "").strip():
            record[key] = cells[key]
    if cells.get("strategy_probs", "").strip():
        record["strategy_probs"] = _nested(f"{where}: 'strategy_probs'", cells["strategy_probs"])
    if "persona" in cells:
        persona: Any = cells["persona"].strip()
        listed = persona.startswith("[")
        record["persona"] = _nested(f"{where}: 'persona'", persona) if listed else persona
    return record


def _nested(where: str, cell: str) -> Any:
    """Return the list or object in a cell, in JSON or Python notation."""
    try:
        return parse_json(cell)
    except ValueError:
        pass
    try:
        return ast.literal_eval(cell)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise DataError(f"{where}: not valid JSON, got {cell!r:.60}; correct the cell") from None


def _from_ids(path: Path, entries: list[Entry], samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Sort records with ids into the order of the samples."""
    by_id = {record["id"]: record for record in _records(entries)}
    names = {sample.id for sample in samples}
    for what, ids in (
        ("no response for", [sample.id for sample in samples if sample.id not in by_id]),
        ("no sample has", [name for name in by_id if name not in names]),
    ):
        if ids:
            listed = ", ".join(map(repr, ids[:3])) + (" …" if len(ids) > 3 else "")
            raise DataError(
                f"{path}: {what} {counted(len(ids), 'id')} ({listed}); it holds "
                f"{counted(len(by_id), 'record')} for {counted(len(samples), 'sample')}; "
                "give each sample's response under its id"
            )
    for sample in samples:
        reference = by_id[sample.id].get("reference")
        if isinstance(reference, str) and not _agree(reference, sample.response):
            raise _misfit(f"{path}, id {sample.id!r}", reference, sample)
    return [by_id[sample.id] for sample in samples]


def _from_authors(
    path: Path, entries: list[Entry], samples: Sequence[Sample]
) -> list[dict[str, Any]]:
    """Sort the records of the authors' ``infer.py`` into the order of the samples.

    Their references may be decoded from token ids: in lower case, spaced, with unknown tokens.
    Whole dialogues are matched, since single turns repeat ("bye" is the reference of eight ESConv
    test turns).
    """
    rows = [_author_row(where, value) for where, value in entries]
    waiting: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        waiting.setdefault(sample.dialogue_id, []).append(index)
    placed: dict[int, dict[str, Any]] = {}
    numbers = range(len(rows))
    fits = 0
    for _, found in groupby(numbers, key=lambda number: entries[number][1].get("sample_id")):
        group = list(found)
        for dialogue, places in waiting.items():
            if len(places) == len(group) and all(
                _agree(rows[number]["reference"], samples[place].response)
                for number, place in zip(group, places, strict=True)
            ):
                placed |= {place: rows[n] for n, place in zip(group, places, strict=True)}
                del waiting[dialogue]
                fits += 1
                break
        else:
            raise DataError(
                f"{entries[group[0]][0]}: the dialogue that starts here, "
                f"{counted(len(group), 'record')}, "
                f"first reference {rows[group[0]]['reference']!r:.60}, is not among the samples; "
                f"found before it: {counted(fits, 'dialogue')} ({counted(len(rows), 'record')}, "
                f"{counted(len(samples), 'sample')}); "
                "give the dialogues the file was made from as input (their test.txt can be read), "
                "with decoding.samples=training if every supporter turn was answered"
            )
    if waiting:
        missing = ", ".join(list(waiting)[:3]) + (" …" if len(waiting) > 3 else "")
        raise DataError(
            f"{path}: not in it: {counted(len(waiting), 'dialogue')} of the samples ({missing}); "
            f"it holds {counted(len(rows), 'record')} for {counted(len(samples), 'sample')}"
        )
    return [placed[index] for index in range(len(samples))]


def _author_row(where: str, value: Any) -> dict[str, Any]:
    """Convert one record of ``gen.json``; its ``response`` is the reference."""
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object, got {type(value).__name__}")
    if "sample_id" not in value:
        raise DataError(f"{where}: 'sample_id' is missing; infer.py writes one per dialogue")
    texts = {}
    for key in ("generation", "response"):
        text = value.get(key)
        if isinstance(text, list) and text:  # several were sampled; take the first
            text = text[0]
        if not isinstance(text, str):
            raise DataError(f"{where}: {key!r} must be a string, got {value.get(key)!r:.60}")
        texts[key] = text
    row: dict[str, Any] = {"response": texts["generation"], "reference": texts["response"]}
    number = value.get("pred_strat_id")
    if number is not None:  # the order of strategies is the same as here
        if type(number) is not int or not 0 <= number < len(STRATEGIES):
            raise DataError(f"{where}: 'pred_strat_id' must be 0 to 7, got {number!r}")
        row["strategy"] = STRATEGIES[number]
    distribution = value.get("pred_strat_id_dist")
    if distribution is not None:
        try:
            probs = [float(word) for word in distribution.split()]
            row["strategy_probs"] = dict(zip(STRATEGIES, probs, strict=True))
            _check_probs(f"{where}: 'pred_strat_id_dist'", row["strategy_probs"])
        except (AttributeError, ValueError):
            raise DataError(
                f"{where}: 'pred_strat_id_dist' must be {len(STRATEGIES)} numbers in a string, "
                f"got {distribution!r:.60}"
            ) from None
    return row


def _from_list(path: Path, entries: list[Entry], samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Read responses in the order of the samples, with the strategies in files beside them."""
    for where, value in entries:
        if not isinstance(value, str):
            raise DataError(f"{where}: expected a string as before, got {value!r:.60}")
    _same_count(path, len(entries), samples)
    rows = []
    for _, text in entries:
        strategy, response = _split_strategy(text)
        rows.append({"response": response} | ({"strategy": strategy} if strategy else {}))
    led = sum("strategy" in row for row in rows)
    if 0 < led < len(rows):
        logger.warning(
            "%s: %d of %d responses start with a [Strategy], so none is scored", path, led,
            len(rows),
        )  # fmt: skip
    references = path.with_name(path.name.replace("hyp", "ref", 1))
    if references == path or not references.exists():
        logger.warning("%s: no references, so the order is assumed to be that of the samples", path)
    else:
        theirs = _entries(references)
        _same_count(references, len(theirs), samples)
        for (where, text), sample in zip(theirs, samples, strict=True):
            reference = _split_strategy(str(text))[1]
            if not _agree(reference, sample.response):
                raise _misfit(where, reference, sample)
    record = path.with_name("strategy_record.json")
    if not led and path.name.startswith("hyp") and record.exists():
        chosen = _entries(record)
        _same_count(record, len(chosen), samples)
        for row, (where, value) in zip(rows, chosen, strict=True):
            name = value.get("hyp strategy") if isinstance(value, dict) else None
            row["strategy"] = _strategy(where, str(name).strip(" []"))
    return rows


def _same_count(path: Path, count: int, samples: Sequence[Sample]) -> None:
    if count != len(samples):
        raise DataError(
            f"{path}: {counted(count, 'record')} for {counted(len(samples), 'sample')}; "
            "give the dialogues it was made from as input, or a file of records with ids"
        )


def _split_strategy(text: str) -> tuple[str | None, str]:
    """Split a strategy in brackets from a text; other brackets are part of the text."""
    found = _LEADING_STRATEGY.match(text)
    try:
        return (canonical_strategy(found[1]), text[found.end() :]) if found else (None, text)
    except PalError:
        return None, text


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.replace("__unk__", " ").casefold())


def _agree(theirs: str, ours: str | None) -> bool:
    """Return whether two references are the same text, apart from changes by a tokenizer.

    Case, spaces and punctuation do not count, and theirs may lack the letters of unknown tokens.
    With the published tokenizer, every turn of ESConv keeps at least 71 % of its letters.
    """
    left, right = _letters(theirs), _letters(ours or "")
    if len(left) > len(right) or 2 * len(left) < len(right):
        return False
    rest = iter(right)
    return all(letter in rest for letter in left)


def _misfit(where: str, reference: str, sample: Sample) -> DataError:
    return DataError(
        f"{where}: its reference {reference!r:.60} is not that of sample {sample.id}, "
        f"{sample.response!r:.60}; give the dialogues the responses were made from as input"
    )
