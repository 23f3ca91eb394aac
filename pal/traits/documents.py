"""What the commands that ask no model share: measurements in, one JSON document out."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pal.errors import DataError
from pal.jobs import is_finished, record_path
from pal.records import file_fingerprint, output_lock, read_json, read_jsonl, read_text, write_json
from pal.runs import describe_run, identity_of
from pal.settings import Settings
from pal.traits.inventories import Inventory

logger = logging.getLogger(__name__)

Record = dict[str, Any]
Group = tuple[str, str]  # dataset, model


@cache
def paper() -> dict[str, Any]:
    """Return the figures that the paper prints (paper.yaml)."""
    return yaml.safe_load(read_text(Path(__file__).parent / "paper.yaml"))


def write_document(
    settings: Settings,
    command: str,
    inputs: Iterable[str | Path],
    build: Callable[[], Mapping[str, Any]],
    markdown: Callable[[Mapping[str, Any]], str],
) -> str:
    """Build a document unless ``output`` holds it already, write it, and return its Markdown.

    Args:
        settings: of the command; ``output`` None writes nothing.
        command: its name, for the record of the run.
        inputs: the files it reads.
        build: computes ``kind``, ``format`` and the results; the record of the run is added.
        markdown: shows a document on the terminal.

    Raises:
        PalError: an input or the output cannot be used.
    """
    hashes = {}
    for path in map(Path, inputs):
        if not path.is_file():
            raise DataError(f"{path}: no such file; check the path")
        hashes[str(path)] = file_fingerprint(path)
    sections = ("traits", "statistics")
    identity = identity_of(settings, *sections, command=command, files=list(hashes.values()))
    output = Path(settings.output) if settings.output else None
    if output and is_finished(output, identity, overwrite=settings.overwrite):
        logger.info("%s is finished already; overwrite=true would make it anew", output)
        return markdown(read_json(output))
    document = {**build(), "run": describe_run(settings, f"traits {command}", identity)}
    if output:
        with output_lock(output):
            output.unlink(missing_ok=True)  # the record first: a kill between the two is harmless
            write_json(record_path(output), document["run"])
            write_json(output, document)
        logger.info("written to %s", output)
    return markdown(document)


def read_measurements(
    path: str | Path, inventories: Sequence[Inventory]
) -> tuple[list[Record], list[Record]]:
    """Read measurements of the given inventories: those made, and those that failed earlier.

    Raises:
        DataError: no measurement of these inventories, a record without its keys or with a score
            that is none, one made with another version, or one met twice; file and line are named.
    """
    by_name = {inventory.name: inventory for inventory in inventories}
    found: dict[tuple[str, ...], Record] = {}
    failed: list[Record] = []
    for number, row in read_jsonl(path):
        where = f"{path}, line {number}"
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise DataError(f"{where}: no measurement; expected a record with an id")
        if "failed" in row:
            failed.append(row)
            continue
        missing = [key for key in ("dataset", "inventory", "model", "scores") if key not in row]
        if missing:
            raise DataError(
                f"{where}: id {row['id']!r} lacks {', '.join(missing)}; give what "
                "pal traits measure wrote"
            )
        inventory = by_name.get(row["inventory"])
        if inventory is None:
            continue
        if row.get("version", inventory.version) != inventory.version:
            raise DataError(
                f"{where}: made with version {row['version']} of {inventory.name!r}, but the "
                f"inventory given is version {inventory.version}; give that of the measurements"
            )
        for dimension in inventory.dimensions:
            value = row["scores"].get(dimension)
            number_like = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number_like and 1 <= value <= 5):
                raise DataError(
                    f"{where}: score {dimension!r} is {value!r}; expected a number 1..5 or null"
                )
        key = str(row["dataset"]), str(row["model"]), row["inventory"], row["id"]
        if key in found:
            raise DataError(f"{where}: {row['id']!r} has {row['inventory']!r} twice; drop one")
        found[key] = row
    if not found:
        names = " or ".join(repr(name) for name in by_name)
        raise DataError(f"{path}: no measurement of {names}; check traits.inventories")
    return list(found.values()), failed


def grouped(rows: Iterable[Record]) -> dict[Group, list[Record]]:
    """Return records by data set and model, sorted."""
    found: dict[Group, list[Record]] = {}
    for row in rows:
        found.setdefault((str(row["dataset"]), str(row["model"])), []).append(row)
    return dict(sorted(found.items()))


def describe_unanswered(rows: Iterable[Record]) -> dict[str, Any]:
    """Return how many answers are missing, by inventory, and why."""
    found: dict[str, Any] = {}
    for row in rows:
        one = found.setdefault(row["inventory"], {"unanswered": 0, "answered": 0, "reasons": {}})
        one["answered"] += len(row.get("answers", {}))
        reasons = Counter(row.get("unanswered", {}).values())
        one["unanswered"] += reasons.total()
        for reason, count in reasons.items():
            one["reasons"][reason] = one["reasons"].get(reason, 0) + count
    return found
