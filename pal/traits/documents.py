"""Parts that commands without a model share: reading measurements, writing one JSON document."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError

from pal.core.errors import DataError, in_words
from pal.core.files import read_json, read_jsonl, read_text, write_json
from pal.core.job import Job, counted
from pal.traits.inventories import Form, Inventory
from pal.traits.scoring import keyed_answers
from pal.traits.settings import StepSettings

logger = logging.getLogger(__name__)

Record = dict[str, Any]
Group = tuple[str, str]  # dataset, model


@cache
def paper() -> dict[str, Any]:
    """Return the figures that the paper prints (paper.yaml)."""
    return yaml.safe_load(read_text(Path(__file__).parent / "paper.yaml"))


def write_document(
    command: str,
    settings: StepSettings,
    build: Callable[[], Mapping[str, Any]],
    show: Callable[[Mapping[str, Any]], str],
) -> str:
    """Build a document unless ``output`` holds it already, write it, and return its Markdown.

    Args:
        command: its name, for the record of the run.
        settings: the command's own; ``output`` None writes nothing.
        build: computes ``kind``, ``format`` and the results; the record of the run is added.
        show: returns a document as Markdown, for the terminal.

    Raises:
        PalError: an input or the output cannot be used.
    """
    if settings.output is None:
        return show(build())
    job = Job(f"traits {command}", settings, settings.output, versions=("numpy", "scipy"))
    if job.is_finished():
        return show(read_json(job.output))
    with job.claimed(processes=False):
        document = {**build(), "run": job.describe()}
        job.publish(lambda path: write_json(path, document))
    logger.info("written to %s", job.output)
    return show(document)


def describe_failed(count: int) -> str:
    """Return the sentence on records that earlier steps could not make, or left out.

    Example:
        >>> describe_failed(4)
        'Not included: 4 records without a result; their reasons are under "failed" in the input.'
    """
    return (
        f"Not included: {counted(count, 'record')} without a result; their reasons are under "
        '"failed" in the input.'
    )


class MeasurementRecord(BaseModel):
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
                f"{forms[inventory.name]} ones; keep one form per file"
            )
        try:
            keyed_answers(inventory, record.answers)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        key = record.dataset, record.model, record.inventory, record.id
        if key in found:
            raise DataError(f"{where}: {record.id!r} has {record.inventory!r} twice; remove one")
        found[key] = record.model_dump()
    if not found and failed:
        raise DataError(
            f"{path}: no measurement, since all {len(failed):,} failed (the first: "
            f"{failed[0]['failed']!s:.120}); measure again with a model that answers"
        )
    if not found:
        names = " or ".join(repr(name) for name in by_name)
        raise DataError(f"{path}: no measurement of {names}; check traits.inventories")
    return list(found.values()), failed


def _check(where: str, row: Any) -> MeasurementRecord:
    try:
        return MeasurementRecord.model_validate(row)
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'record'}: {in_words(one)}, "
            f"got {one['input']!r:.60}"
            for one in error.errors()
        )
        raise DataError(f"{where}: {found}; give what pal traits measure wrote") from None


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
