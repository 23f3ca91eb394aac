"""Systems' responses in: in the form ``generate`` writes, and in the forms of other projects."""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from pal.core.errors import DataError, PalError
from pal.core.files import read_json, read_jsonl, read_text
from pal.data.samples import Sample
from pal.data.strategies import STRATEGIES, canonical_strategy

logger = logging.getLogger(__name__)

Entry = tuple[str, Any]  # where a record stands, for messages; the record

_LEADING_STRATEGY = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*")


def read_predictions(path: str | Path) -> list[dict[str, Any]]:
    """Read and check predictions, in the form that ``generate`` writes.

    ``id`` and ``response`` are needed; ``reference``, ``reference_strategy``, ``strategy``,
    ``strategy_probs`` and ``persona`` are optional, and what needs them is left out of the scores.

    Raises:
        DataError: no JSON, missing or wrong fields, an id met twice; file and line are named.
    """
    return _records((f"{path}, line {number}", row) for number, row in read_jsonl(path))


def column(records: Sequence[dict[str, Any]], key: str) -> list[Any] | None:
    """Return one field of all records, or None unless every record has it."""
    values = [record.get(key) for record in records]
    return None if any(value is None for value in values) else values


def is_foreign(path: str | Path) -> bool:
    """Whether a file has none of the ids that :func:`read_predictions` needs, or no lines."""
    path = Path(path)
    if path.suffix == ".jsonl":
        first = next(read_jsonl(path))[1]
        return isinstance(first, dict) and "generation" in first
    first = _entries(path)[0][1]
    return not isinstance(first, dict) or "generation" in first


def read_outside(path: str | Path, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Read the responses of a system from elsewhere, one for every sample.

    Four forms are told apart by their content:

    - Records ``{"id", "response"}`` with ``strategy`` and ``persona`` if known, one a line or in
      one JSON list, in any order; the ids are the samples'.
    - ``gen.json`` or ``gen.txt`` as the authors' ``infer.py`` writes them (chengjl19/PAL and
      thu-coai/Emotional-Support-Conversation): records with ``sample_id`` (a dialogue's position
      in their file, the same for all its records), ``response`` (the reference), ``generation``,
      ``pred_strat_id`` and ``pred_strat_id_dist``. Dialogues may come in any order.
    - ``hyp_strategy.json`` as MISC's script writes it: a list of responses in the order of the
      samples, each perhaps after a ``[Strategy]``. ``ref_strategy.json`` and
      ``strategy_record.json`` are read where they lie beside it.
    - Plain text, one response a line in the order of the samples, perhaps after a ``[Strategy]``.

    References found are compared with the samples', so that another split, which gives the same
    counts and ids, cannot pass. The last form has none, and a warning says so.

    Returns:
        Records as :func:`read_predictions` gives them, in the order of the samples. Reference and
        gold strategy are the samples'; so is the persona, unless a record of the first form has
        its own.

    Raises:
        DataError: a file that fits no form, or not these samples; the record is named.
    """
    path = Path(path)
    entries = _entries(path)
    first = entries[0][1]
    if isinstance(first, str):
        rows = _from_list(path, entries, samples)
    elif isinstance(first, dict) and "generation" in first:
        rows = _from_authors(path, entries, samples)
    else:
        rows = _from_ids(path, entries, samples)
    return [
        {
            "persona": list(sample.persona),
            **row,
            "id": sample.id,
            "reference": sample.response,
            "reference_strategy": sample.strategy,
        }
        for sample, row in zip(samples, rows, strict=True)
    ]


def _records(entries: Iterator[Entry] | Sequence[Entry]) -> list[dict[str, Any]]:
    """Check records that have ids; strategies become canonical, a persona a list."""
    records: list[dict[str, Any]] = []
    seen: dict[str, str] = {}
    for where, row in entries:
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected an object, got {type(row).__name__}")
        for key, kind in (("id", str), ("response", str)):
            if not isinstance(row.get(key), kind):
                raise DataError(f"{where}: {key!r} must be a string, got {row.get(key)!r}")
        if row["id"] in seen:
            place = seen[row["id"]].rpartition(", ")[2]
            raise DataError(f"{where}: id {row['id']!r} was on {place} already")
        seen[row["id"]] = where
        record = dict(row)
        for key in ("strategy", "reference_strategy"):
            if row.get(key) is not None:
                record[key] = _strategy(f"{where}: {key}", row[key])
        if row.get("strategy_probs") is not None:
            probs = row["strategy_probs"]
            if not isinstance(probs, dict) or set(probs) != set(STRATEGIES):
                raise DataError(f"{where}: 'strategy_probs' must give all {len(STRATEGIES)} names")
        persona = row.get("persona")
        if isinstance(persona, str):
            record["persona"] = [persona]
        elif persona is not None and not (
            isinstance(persona, list) and all(isinstance(sentence, str) for sentence in persona)
        ):
            raise DataError(f"{where}: 'persona' must be a list of sentences, got {persona!r}")
        records.append(record)
    return records


def _strategy(where: str, name: Any) -> str:
    try:
        return canonical_strategy(name)
    except PalError as error:
        raise DataError(f"{where}: {error}") from None


def _entries(path: Path) -> list[Entry]:
    """Return the file's records: of one JSON list, of JSON lines, or the lines of plain text."""
    text = read_text(path)
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if isinstance(value, list) and value:
        return [(f"{path}, record {number}", row) for number, row in enumerate(value, start=1)]
    if text.lstrip().startswith("{") or path.suffix == ".jsonl":
        return [(f"{path}, line {number}", row) for number, row in read_jsonl(path)]
    if path.suffix == ".json":
        found = read_json(path)  # tells where it is no JSON
        raise DataError(f"{path}: expected a list of responses, got {found!r:.40}")
    lines = text.removesuffix("\n").split("\n")  # an empty line is an empty response
    return [(f"{path}, line {number}", line.strip()) for number, line in enumerate(lines, start=1)]


def _from_ids(path: Path, entries: list[Entry], samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Bring records with ids into the order of the samples."""
    by_id = {record["id"]: record for record in _records(entries)}
    names = {sample.id for sample in samples}
    for what, ids in (
        ("no response for", [sample.id for sample in samples if sample.id not in by_id]),
        ("no sample has", [name for name in by_id if name not in names]),
    ):
        if ids:
            listed = ", ".join(map(repr, ids[:3])) + (" …" if len(ids) > 3 else "")
            raise DataError(
                f"{path}: {what} {len(ids)} ids ({listed}); it holds {len(by_id)} records and "
                f"there are {len(samples)} samples; give each sample's response under its id"
            )
    for sample in samples:
        reference = by_id[sample.id].get("reference")
        if isinstance(reference, str) and not _agree(reference, sample.response):
            raise _misfit(f"{path}, id {sample.id!r}", reference, sample)
    return [by_id[sample.id] for sample in samples]


def _from_authors(
    path: Path, entries: list[Entry], samples: Sequence[Sample]
) -> list[dict[str, Any]]:
    """Bring the records of the authors' ``infer.py`` into the order of the samples.

    Their references may be decoded from token ids: lower case, spaced, with unknown tokens. Whole
    dialogues are matched, since single turns repeat ("bye" answers eight of ESConv's test turns).
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
                f"{entries[group[0]][0]}: the dialogue that begins here, {len(group)} records, "
                f"first reference {rows[group[0]]['reference']!r:.60}, is none of the samples'; "
                f"{fits} dialogues before it are ({len(rows)} records, {len(samples)} samples); "
                "give the dialogues the file was made from as input (their test.txt can be read), "
                "with decoding.samples=training if every supporter turn was answered"
            )
    if waiting:
        missing = ", ".join(list(waiting)[:3]) + (" …" if len(waiting) > 3 else "")
        raise DataError(
            f"{path}: {len(waiting)} dialogues of the samples are not in it ({missing}); "
            f"it holds {len(rows)} records and there are {len(samples)} samples"
        )
    return [placed[index] for index in range(len(samples))]


def _author_row(where: str, value: Any) -> dict[str, Any]:
    """Turn one record of ``gen.json`` into ours; its ``response`` is the reference."""
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object, got {type(value).__name__}")
    if "sample_id" not in value:
        raise DataError(f"{where}: 'sample_id' is missing; infer.py writes one a dialogue")
    texts = {}
    for key in ("generation", "response"):
        text = value.get(key)
        if isinstance(text, list) and text:  # several were drawn: the first
            text = text[0]
        if not isinstance(text, str):
            raise DataError(f"{where}: {key!r} must be a string, got {value.get(key)!r:.60}")
        texts[key] = text
    row: dict[str, Any] = {"response": texts["generation"], "reference": texts["response"]}
    number = value.get("pred_strat_id")
    if number is not None:  # their order of strategies is ours
        if not isinstance(number, int) or not 0 <= number < len(STRATEGIES):
            raise DataError(f"{where}: 'pred_strat_id' must be 0 to 7, got {number!r}")
        row["strategy"] = STRATEGIES[number]
    distribution = value.get("pred_strat_id_dist")
    if distribution is not None:
        try:
            probs = [float(word) for word in distribution.split()]
            row["strategy_probs"] = dict(zip(STRATEGIES, probs, strict=True))
        except (AttributeError, ValueError):
            raise DataError(
                f"{where}: 'pred_strat_id_dist' must be {len(STRATEGIES)} numbers in a string, "
                f"got {distribution!r:.60}"
            ) from None
    return row


def _from_list(path: Path, entries: list[Entry], samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Read responses that come in the order of the samples, with what lies beside them."""
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
            "%s: %d of %d responses begin with a [Strategy], so none is scored", path, led,
            len(rows),
        )  # fmt: skip
    references = path.with_name(path.name.replace("hyp", "ref", 1))
    if references == path or not references.exists():
        logger.warning(
            "%s: it holds no references, so its order is taken to be that of the samples", path
        )
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
            f"{path}: {count} records for {len(samples)} samples; give the dialogues it was made "
            "from as input, or a file of records with ids"
        )


def _split_strategy(text: str) -> tuple[str | None, str]:
    """Take a strategy in brackets off a text; other brackets are part of the text."""
    found = _LEADING_STRATEGY.match(text)
    try:
        return (canonical_strategy(found[1]), text[found.end() :]) if found else (None, text)
    except PalError:
        return None, text


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.replace("__unk__", " ").casefold())


def _agree(theirs: str, ours: str | None) -> bool:
    """Whether two references are one text, whatever a tokenizer did to one of them.

    Case, spaces and punctuation do not count, and theirs may lack some of the letters: unknown
    tokens. Of ESConv's turns through the published tokenizer the worst keeps 71 % of its letters.
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
