"""What the commands that ask no model share: measurements in, one JSON document out."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError

from pal.benchmark.stages import source_fingerprint
from pal.core.errors import DataError
from pal.core.files import (
    file_fingerprint,
    output_lock,
    read_json,
    read_jsonl,
    read_text,
    write_json,
)
from pal.core.job import is_finished, record_path
from pal.core.runs import describe_run, identity_of
from pal.core.schema import Settings
from pal.traits.inventories import Form, Inventory
from pal.traits.scoring import keyed_answers

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
        inputs: the files (or folders, or hub ids) it reads.
        build: computes ``kind``, ``format`` and the results; the record of the run is added.
        markdown: shows a document on the terminal.

    Raises:
        PalError: an input or the output cannot be used.
    """
    hashes = [
        file_fingerprint(path) if path.is_file() else source_fingerprint(str(path))
        for path in map(Path, inputs)
    ]
    sections = ("traits", "statistics", "split", "data")
    identity = identity_of(settings, *sections, command=command, files=hashes)
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


class Measurement(BaseModel):
    """What a measurement must hold; other keys pass through."""

    model_config = ConfigDict(extra="allow")
    id: str
    dataset: str
    inventory: str
    model: str
    version: str | None = None
    form: Form = "full"
    answers: dict[str, StrictInt] = Field(default_factory=dict)
    unanswered: dict[str, str] = Field(default_factory=dict)
    scores: dict[str, Annotated[float, Field(ge=1, le=5, strict=True)] | None]


def read_measurements(
    path: str | Path, inventories: Sequence[Inventory]
) -> tuple[list[Record], list[Record]]:
    """Read measurements of the given inventories: those made, and those that failed earlier.

    Raises:
        DataError: no measurement of these inventories, a record that is none, made with another
            version or form than the others, or met twice; file and line are named.
    """
    by_name = {inventory.name: inventory for inventory in inventories}
    found: dict[tuple[str, ...], Record] = {}
    forms: dict[str, Form] = {}
    failed: list[Record] = []
    for number, row in read_jsonl(path):
        where = f"{path}, line {number}"
        if isinstance(row, dict) and "failed" in row:
            failed.append(row)
            continue
        record = _check(where, row)
        inventory = by_name.get(record.inventory)
        if inventory is None:
            continue
        if record.version not in (None, inventory.version):
            raise DataError(
                f"{where}: made with version {record.version} of {inventory.name!r}, but the "
                f"inventory given is version {inventory.version}; give that of the measurements"
            )
        if forms.setdefault(inventory.name, record.form) != record.form:
            raise DataError(
                f"{where}: the {record.form} form of {inventory.name!r} among "
                f"{forms[inventory.name]} ones; keep one form a file"
            )
        try:
            keyed_answers(inventory, record.answers)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        key = record.dataset, record.model, record.inventory, record.id
        if key in found:
            raise DataError(f"{where}: {record.id!r} has {record.inventory!r} twice; drop one")
        found[key] = record.model_dump()
    if not found:
        names = " or ".join(repr(name) for name in by_name)
        raise DataError(f"{path}: no measurement of {names}; check traits.inventories")
    return list(found.values()), failed


def _check(where: str, row: Any) -> Measurement:
    try:
        return Measurement.model_validate(row)
    except ValidationError as error:
        told = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'record'}: {one['msg']}, got {one['input']!r:.60}"
            for one in error.errors()
        )
        raise DataError(f"{where}: {told}; give what pal traits measure wrote") from None


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
        one["answered"] += len(row["answers"])
        reasons = Counter(row["unanswered"].values())
        one["unanswered"] += reasons.total()
        for reason, count in reasons.items():
            one["reasons"][reason] = one["reasons"].get(reason, 0) + count
    return found
