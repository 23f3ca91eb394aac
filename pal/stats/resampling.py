"""Draws of units: the bootstrap, halves without replacement, and the intervals they give.

A statistic is a value over units (:class:`pal.stats.pooled.Pooled` or ``Types``) that can be asked
for again with weights. Systems are resampled with the same draws, so their differences are paired.
What is drawn are units of the test set; the trained models are taken as they are, and the spread
over training seeds is reported apart, by the standard deviation over the runs of a system.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pal.stats.pooled import Pooled, Types

Statistic = Pooled | Types


@dataclass(frozen=True)
class Spread:
    """One metric of one system over its runs.

    Attributes:
        mean: over runs.
        sd: standard deviation over runs (n − 1); None for one run.
        low: lower end of the interval of the mean over runs; None where there is none.
        high: its upper end.
    """

    mean: float
    sd: float | None
    low: float | None
    high: float | None


@lru_cache(maxsize=1)  # several figures of one sample share them
def resampled_weights(size: int, resamples: int, seed: int) -> np.ndarray:
    """Return how often each of ``size`` units is drawn in each bootstrap sample, [B, size]."""
    drawn = np.random.default_rng(seed).integers(0, size, size=(resamples, size))
    drawn += size * np.arange(resamples)[:, None]
    weights = np.bincount(drawn.ravel(), minlength=resamples * size).astype(float)
    weights.flags.writeable = False
    return weights.reshape(resamples, size)


def halves(size: int, resamples: int, seed: int) -> np.ndarray:
    """Return half of the units, drawn without replacement, as weights [B, size]."""
    order = np.random.default_rng(seed).random((resamples, size)).argsort(axis=1)
    return (order < size // 2).astype(float)


def ends(drawn: np.ndarray, confidence: float) -> tuple[float | None, float | None]:
    """Return the percentile interval of draws [B]; None where fewer than two are finite."""
    finite = drawn[np.isfinite(drawn)]
    if len(finite) < 2:
        return None, None
    low, high = np.quantile(finite, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def spreads(
    runs: Mapping[str, Sequence[Mapping[str, Statistic]]],
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> tuple[dict[str, dict[str, Spread]], dict[str, dict[str, np.ndarray]]]:
    """Return each system's spread of each metric, and the draws behind it, [resamples].

    Percentile bootstrap over units. Counts of different items fall when a unit is drawn twice: on
    ESConv's responses the bootstrap makes the standard error of Distinct-2 twice and of Distinct-3
    four times too large. So :class:`Types` are drawn without replacement, half of the units each
    time, about the value of all; that has the right standard error (for a mean the bootstrap's, but
    for n / (n − 1)).

    Args:
        runs: for each system, the statistics of each of its runs.
        confidence: of the intervals, for instance 0.95.
        resamples: draws.
        seed: of the draws; the same for all systems, which pairs them.
    """
    table: dict[str, dict[str, Spread]] = {}
    draws: dict[str, dict[str, np.ndarray]] = {}
    for name, several in runs.items():
        size = count_units(several[0])
        draws[name], table[name] = {}, {}
        for key in [key for key in several[0] if all(key in run for run in several)]:
            values = [float(run[key].value()) for run in several]
            mean, low, high = float(np.mean(values)), None, None
            if size > 1:
                if isinstance(several[0][key], Pooled):
                    drawn = mean_over(several, key, resampled_weights(size, resamples, seed))
                else:
                    with np.errstate(invalid="ignore", divide="ignore"):  # a half without any item
                        half = mean_over(several, key, _shared_halves(size, resamples, seed))
                    scale = np.sqrt((size // 2) / (size - size // 2))  # 1 for even sizes
                    drawn = mean + scale * (half - np.nanmean(half))
                draws[name][key] = drawn
                low, high = ends(drawn, confidence)
            sd = float(np.std(values, ddof=1)) if len(several) > 1 else None
            table[name][key] = Spread(mean, sd, low, high)
    return table, draws


# One array for all systems and metrics: values of the same items are counted once for it.
_shared_halves = lru_cache(maxsize=1)(halves)


def mean_over(runs: Sequence[Mapping[str, Statistic]], key: str, weights: np.ndarray) -> np.ndarray:
    """Return the mean over runs of a statistic, for each row of weights [..., units]."""
    return np.mean([run[key].value(weights) for run in runs], axis=0)


def count_units(statistics: Mapping[str, Statistic]) -> int:
    """Return the number of units that statistics are over."""
    if not statistics:
        return 0
    one = next(iter(statistics.values()))
    return len(one.parts) if isinstance(one, Pooled) else len(one.items.items)
