"""A system's responses: one JSON object a line, with ``id`` and ``response`` at least."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pal.errors import DataError, PalError
from pal.records import read_jsonl
from pal.strategies import STRATEGIES, canonical_strategy


def read_predictions(path: str | Path) -> list[dict[str, Any]]:
    """Read and check predictions, in the form that ``generate`` writes.

    ``id`` and ``response`` are needed; ``reference``, ``reference_strategy``, ``strategy``,
    ``strategy_probs`` and ``persona`` are optional, and what needs them is left out of the scores.

    Raises:
        DataError: no JSON, missing or wrong fields, an id met twice; file and line are named.
    """
    records: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for number, row in read_jsonl(path):
        where = f"{path}, line {number}"
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected an object, got {type(row).__name__}")
        for key, kind in (("id", str), ("response", str)):
            if not isinstance(row.get(key), kind):
                raise DataError(f"{where}: {key!r} must be a string, got {row.get(key)!r}")
        if row["id"] in seen:
            raise DataError(f"{where}: id {row['id']!r} was on line {seen[row['id']]} already")
        seen[row["id"]] = number
        record = dict(row)
        for key in ("strategy", "reference_strategy"):
            if row.get(key) is not None:
                try:
                    record[key] = canonical_strategy(row[key])
                except PalError as error:
                    raise DataError(f"{where}: {key}: {error}") from None
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


def column(records: Sequence[dict[str, Any]], key: str) -> list[Any] | None:
    """Return one field of all records, or None unless every record has it."""
    values = [record.get(key) for record in records]
    return None if any(value is None for value in values) else values
