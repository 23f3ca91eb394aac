"""Computation of a report from predictions: all possible metrics, and reasons for the others."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

import numpy as np

from pal.core.errors import ConfigError, PalError, suggest
from pal.metrics.base import MODEL_FIELDS, Direction, Metric, Predictions, Scores, Variant
from pal.metrics.table import choose_metrics
from pal.stats.pooled import Pooled, Types, mean_of


@dataclass(frozen=True)
class Meta:
    """The meaning of a metric value: family, direction, unit, version and number of samples."""

    family: str
    direction: Direction
    unit: str
    version: str
    n: int


@dataclass
class Report:
    """All values of one run; see :class:`pal.metrics.base.Scores` for the shared fields.

    Args:
        variant: "correct" or "authors".
        values: the value of each key; always finite.
        meta: the meaning of each of those values.
        missing: the reason why each other key has no value.
        per_sample: values of single samples.
        pooled: corpus values that are functions of sums over samples.
        types: corpus values that are functions of counts of distinct items.
        rows: indices of the samples that are covered, for keys that leave some out.
        details: further results of the families, such as ``confusion``.
        tokenizer: name of the word tokenizer; None if no text was tokenised.
        notes: notes for the reader of the values, one sentence each.
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
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the contents of a JSON file: everything but the values of single samples."""
        return {
            "variant": self.variant,
            "tokenizer": self.tokenizer,
            "metrics": {
                key: {"value": value, **asdict(self.meta[key])}
                for key, value in self.values.items()
            },
            "missing": self.missing,
            "notes": self.notes,
            "details": {
                name: value.tolist() if isinstance(value, np.ndarray) else value
                for name, value in self.details.items()
            },
        }

    def by_group(self, groups: np.ndarray) -> dict[str, Pooled | Types]:
        """Return every value as a function of groups of samples, for intervals and tests.

        Keys for which a plug-in gives only a corpus value are left out.

        Args:
            groups: group of each sample, 0 to G − 1, [N]; see :func:`group_by_dialogue`.
        """
        count = int(groups.max()) + 1
        found: dict[str, Pooled | Types] = {}
        shared: dict[int, Any] = {}  # values of the same items still share them
        for key in self.values:
            if key in self.types:
                types = self.types[key]
                items = shared.setdefault(id(types.items), types.items.grouped(groups, count))
                found[key] = Types(items, types.finish)
                continue
            if key in self.pooled:
                pooled = self.pooled[key]
            elif key in self.per_sample:
                pooled = mean_of(self.per_sample[key])
            else:
                continue
            found[key] = pooled.grouped(groups[self.rows.get(key, slice(None))], count)
        return found


def compute_metrics(
    predictions: Predictions, names: Iterable[str] | None = None, variant: Variant = "correct"
) -> Report:
    """Compute every metric that the predictions allow.

    Args:
        predictions: the samples.
        names: families, single keys such as ``bleu_2``, or plug-ins; all families if None.
        variant: "correct", or "authors" for values as the released code computes them.

    Raises:
        PalError: a name or the variant is unknown, or a plug-in returns an invalid result.

    Example:
        >>> report = compute_metrics(Predictions(["I am here."], ["I am here."]), ["bleu_2"])
        >>> round(report.values["bleu_2"], 6)
        100.0
    """
    if variant not in get_args(Variant):
        hint = suggest(str(variant), get_args(Variant))
        raise ConfigError(f"unknown variant {variant!r}{hint} (allowed: correct, authors)")
    report = Report(variant)
    for metric, keys in choose_metrics(names):
        absent = [need for need in metric.needs if predictions.get(need) is None]
        if absent:
            report.missing |= dict.fromkeys(keys, _why_absent(predictions, absent))
        else:
            _enter(report, metric, keys, metric.compute(predictions, variant), len(predictions))
    report.tokenizer = predictions.word_tokenizer
    report.notes = predictions.notes()
    return report


def group_by_dialogue(ids: Iterable[str]) -> np.ndarray:
    """Return the group of each sample, 0 to G − 1: the dialogue in its id ``{dialogue}/{turn}``."""
    names = [sample_id.rpartition("/")[0] or sample_id for sample_id in ids]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names])


def _why_absent(predictions: Predictions, absent: list[str]) -> str:
    """Return the reasons why fields are None; a model is not loaded where its texts are missing."""
    why = [predictions.reasons[need] for need in absent if need in predictions.reasons]
    texts = [need for need in absent if need not in MODEL_FIELDS]
    return "; ".join(dict.fromkeys(why)) or f"needs {', '.join(texts or absent)}"


def _enter(
    report: Report, metric: Metric, keys: tuple[str, ...], scores: Scores, samples: int
) -> None:
    """Add the scores of one family; each needs a value or a reason."""
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
                metric.name, metric.direction[key], metric.unit_of(key), metric.version, n
            )
            for field_name in ("per_sample", "pooled", "types", "rows"):
                if key in (given := getattr(scores, field_name)):
                    getattr(report, field_name)[key] = given[key]
    report.details |= scores.details
