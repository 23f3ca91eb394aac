"""Notices to readers of results: the corpus is a sample, or the models are toys."""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pal.core.errors import DataError
from pal.core.files import read_json
from pal.core.job import record_beside

TOY_PARAMETERS = 20_000_000  # the paper's model has 90 million

TOYS = "The models are toys or start from random weights"

SAMPLE_NOTICE = (
    "The dialogues are the bundled sample: small, and written to show how the pipeline runs. "
    "These numbers say nothing about PAL on ESConv."
)


def is_bundled(source: str) -> bool:
    """Return whether a source is part of the bundled corpus, here or on another machine."""
    parts = Path(source).parts
    pairs = list(itertools.pairwise(parts))
    return ("data", "sample") in pairs or ("_bundled", "sample") in pairs


def toy_notice(parameters: int | None) -> str:
    """Return the notice for models that are small or start from random weights."""
    size = f" ({parameters / 1e6:.2g} million parameters)" if parameters else ""
    return f"{TOYS}{size}: their scores show that the pipeline runs, not how good PAL is."


def is_toy_notice(notice: str) -> bool:
    """Return whether a notice is one of :func:`toy_notice`, of any size."""
    return notice.startswith(TOYS)


def notices_of(
    sources: Iterable[str],
    trained: Iterable[Path],
    *,
    protocol: Mapping[str, Any] | None = None,
    parameters: int | None = None,
) -> list[str]:
    """Return the notices of corpora and of training runs.

    Args:
        sources: corpora, as given in the settings.
        trained: folders of training runs, or of their checkpoints; the records of the runs hold the
            sizes of the models.
        protocol: what a result says of its protocol; it knows the bundled dialogues under other
            names too (:func:`pal.data.protocols.stamp_of`).
        parameters: size of a model, where no record says it.
    """
    bundled = any(map(is_bundled, sources)) or bool((protocol or {}).get("bundled"))
    notices = [SAMPLE_NOTICE] if bundled else []
    records = [_record(folder) for folder in dict.fromkeys(trained)]
    sizes = [size for record in records if isinstance(size := record.get("parameters"), int)]
    sizes += [] if parameters is None else [parameters]
    scratch = any(_from_scratch(record.get("settings")) for record in records)
    smallest = min(sizes, default=None)
    if scratch or (smallest is not None and smallest < TOY_PARAMETERS):
        notices.append(toy_notice(smallest))
    return notices


def notices_beside(files: Iterable[str | Path]) -> list[str]:
    """Return the notices in the records beside outputs, or those that follow from their settings.

    Args:
        files: outputs, such as responses.
    """
    found = []
    for file in files:
        record = record_beside(file)
        given = record.get("notices")
        said = given if isinstance(given, list) else notices_of_settings(record.get("settings"))
        found.append([str(notice) for notice in said])
    return join_notices(*found)


def join_notices(*lists: Iterable[str]) -> list[str]:
    """Return notices once each, and of those on toys the first alone."""
    said = list(dict.fromkeys(itertools.chain(*lists)))
    toys = [notice for notice in said if is_toy_notice(notice)]
    return [notice for notice in said if notice not in toys[1:]]


def seeds_beside(files: Mapping[str, str | Path]) -> dict[str, int]:
    """Return the seed in the record beside each file, by name; those without one are left out.

    Args:
        files: responses, by the name of their system.
    """
    found = {name: record_beside(file).get("seed") for name, file in files.items()}
    return {name: seed for name, seed in found.items() if isinstance(seed, int)}


def notices_of_settings(settings: Any) -> list[str]:
    """Return the notices that follow from the settings in the record of a run."""
    if not isinstance(settings, Mapping):
        return []
    data = settings.get("data")
    sources = [settings.get("input"), data.get("train") if isinstance(data, Mapping) else None]
    notices = [SAMPLE_NOTICE] if any(isinstance(s, str) and is_bundled(s) for s in sources) else []
    return [*notices, toy_notice(None)] if _from_scratch(settings) else notices


def _from_scratch(settings: Any) -> bool:
    chosen = settings.get("architecture") if isinstance(settings, Mapping) else None
    return isinstance(chosen, Mapping) and bool(chosen.get("from_scratch"))


def _record(folder: Path) -> Mapping[str, Any]:
    if folder.name.startswith("checkpoint-") and not (folder / "run.json").exists():
        folder = folder.parent
    try:
        record = read_json(folder / "run.json")
    except DataError:
        return {}
    return record if isinstance(record, Mapping) else {}
