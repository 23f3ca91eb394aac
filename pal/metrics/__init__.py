"""Metrics (PAL paper, Table 3), one family a file, behind one table and one function.

    from pal.metrics import Predictions, compute_metrics
    report = compute_metrics(Predictions(responses=[...], references=[...]))
    report.values["bleu_2"], report.meta["bleu_2"].unit, report.missing

A new family is one file with a ``METRIC`` and one line in ``METRICS``; one from elsewhere is named
``their_package.module:OBJECT``. Nothing heavy is imported before a metric runs.
"""

import importlib
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np

from pal.core.errors import PalError, first_line, suggest
from pal.metrics import bleu, distinct, f1, length, perplexity, rouge, similarity, strategy
from pal.metrics.base import (
    Direction,
    Embedder,
    Items,
    Metric,
    Pooled,
    Predictions,
    Scores,
    Types,
    Variant,
    mean_of,
)
from pal.metrics.similarity import load_embedder
from pal.metrics.text import word_tokenizer

__all__ = [
    "METRICS",
    "Embedder",
    "Items",
    "Meta",
    "Metric",
    "Pooled",
    "Predictions",
    "Report",
    "Scores",
    "Types",
    "compute_metrics",
    "evaluate_module",
    "find_metric",
    "load_embedder",
    "mean_of",
    "word_tokenizer",
]

METRICS: dict[str, Metric] = {
    module.METRIC.name: module.METRIC
    for module in (strategy, perplexity, bleu, distinct, rouge, f1, length, similarity)
}


@dataclass(frozen=True)
class Meta:
    """What a metric value means: its family, direction, unit, version, and samples it is over."""

    family: str
    direction: Direction
    unit: str
    version: str
    n: int


@dataclass
class Report:
    """All values of one run; see :class:`pal.metrics.base.Scores` for the fields they share.

    Args:
        values: the value of each key; always finite.
        meta: what each of those values means.
        missing: why the other keys have no value.
        per_sample: values of single samples.
        pooled: how a corpus value that is no mean follows from sums over samples.
        types: how one that is neither follows from counts of different items.
        rows: the samples measured, for keys that leave some out.
        details: extras of the families, such as ``confusion``.
        variant: "correct" or "authors".
        tokenizer: the sentence model behind the word tokens; None if no text was tokenised.
    """

    variant: Variant
    values: dict[str, float] = field(default_factory=dict)
    meta: dict[str, Meta] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    per_sample: dict[str, np.ndarray] = field(default_factory=dict)
    pooled: dict[str, Pooled] = field(default_factory=dict)
    types: dict[str, Types] = field(default_factory=dict)
    rows: dict[str, np.ndarray] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what a JSON file holds: all but the values of single samples."""
        return {
            "variant": self.variant,
            "tokenizer": self.tokenizer,
            "metrics": {
                key: {"value": value, **asdict(self.meta[key])}
                for key, value in self.values.items()
            },
            "missing": self.missing,
            "details": {
                name: value.tolist() if isinstance(value, np.ndarray) else value
                for name, value in self.details.items()
            },
        }


def find_metric(name: str) -> Metric:
    """Return a family by its name, by one of its keys, or as ``their_package.module:OBJECT``.

    Raises:
        PalError: there is none of that name; the message lists the families.
    """
    if ":" in name:
        return _load_plugin(name)
    for metric in METRICS.values():
        if name == metric.name or name in metric.keys:
            return metric
    keys = [key for metric in METRICS.values() for key in metric.keys]
    raise PalError(
        f"unknown metric {name!r}{suggest(name, [*METRICS, *keys])} (families: "
        f"{', '.join(METRICS)}; or their_package.module:OBJECT)"
    )


def compute_metrics(
    predictions: Predictions, names: Iterable[str] | None = None, variant: Variant = "correct"
) -> Report:
    """Compute every metric that the predictions allow.

    Args:
        predictions: the samples.
        names: families, or single keys such as ``bleu_2``, or plug-ins; all families when left out.
        variant: "correct", or "authors" for the slips of the released code where it differs.

    Raises:
        PalError: an unknown name or variant, or a plug-in that breaks the contract.
    """
    if variant not in get_args(Variant):
        hint = suggest(str(variant), get_args(Variant))
        raise PalError(f"unknown variant {variant!r}{hint} (allowed: correct, authors)")
    report = Report(variant)
    for metric, keys in _wanted(METRICS if names is None else names):
        absent = [need for need in metric.needs if predictions.get(need) is None]
        if absent:
            report.missing |= dict.fromkeys(keys, f"needs {', '.join(absent)}")
        else:
            _enter(report, metric, keys, metric.compute(predictions, variant), len(predictions))
    report.tokenizer = predictions.word_tokenizer
    return report


def evaluate_module(name: str) -> str:
    """Return the path that ``evaluate.load`` takes for a family (or one of its keys).

    Raises:
        PalError: an unknown name.
    """
    metric = find_metric(name)
    if METRICS.get(metric.name) is not metric:
        raise PalError(f"metric {name!r} is a plug-in; its own package has to offer a module")
    return str(Path(__file__).parent / "hub" / f"{metric.name}.py")


def _wanted(names: Iterable[str]) -> list[tuple[Metric, tuple[str, ...]]]:
    """Return each family asked for, once, with the keys asked for."""
    found: dict[str, tuple[Metric, set[str]]] = {}
    for name in names:
        metric = find_metric(name)
        if metric is not found.setdefault(metric.name, (metric, set()))[0]:
            raise PalError(f"two metrics are named {metric.name!r}; rename the plug-in {name!r}")
        found[metric.name][1].update([name] if name in metric.keys else metric.keys)
    return [(m, tuple(key for key in m.keys if key in keys)) for m, keys in found.values()]


def _enter(
    report: Report, metric: Metric, keys: tuple[str, ...], scores: Scores, samples: int
) -> None:
    """Enter one family's scores, none of them without a value or a reason."""
    for key in keys:
        if key in report.meta or key in report.missing:
            raise PalError(f"metric {metric.name!r}: another family gives {key!r} too; rename it")
        if key not in scores.corpus:
            if key not in scores.undefined:
                raise PalError(f"metric {metric.name!r}: neither a value nor a reason for {key!r}")
            report.missing[key] = scores.undefined[key]
        elif not math.isfinite(scores.corpus[key]):
            report.missing[key] = f"not a finite number ({scores.corpus[key]})"
        else:
            n = len(scores.rows.get(key, range(samples)))
            report.values[key] = scores.corpus[key]
            report.meta[key] = Meta(
                metric.name, metric.direction[key], metric.unit, metric.version, n
            )
            for field_name in ("per_sample", "pooled", "types", "rows"):
                if key in (given := getattr(scores, field_name)):
                    getattr(report, field_name)[key] = given[key]
    report.details |= scores.details


def _load_plugin(name: str) -> Metric:
    module_name, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise PalError(
            f"metric {name!r}: cannot be imported ({first_line(error)}); "
            "give their_package.module:OBJECT"
        ) from error
    if not isinstance(found, Metric):
        raise PalError(
            f"metric {name!r}: expected a pal.metrics.Metric, got {type(found).__name__}"
        )
    return found
