"""Resampling of units: the bootstrap, halves without replacement, and their intervals.

A statistic is a value over units (:class:`pal.stats.pooled.Pooled` or ``Types``) that can be
recomputed with weights. Systems are resampled with the same draws, so their differences are paired.
Only units of the test set are resampled, with the trained models fixed. The variation over training
seeds is reported separately, as the standard deviation over the runs of a system.
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
        mean: mean over runs.
        sd: standard deviation over runs (n − 1); None for one run.
        low: lower end of the interval of the mean over runs; None if undefined.
        high: upper end of the interval.
    """

    mean: float
    sd: float | None
    low: float | None
    high: float | None


@lru_cache(maxsize=1)  # several estimates of one sample share them
def resampled_weights(size: int, resamples: int, seed: int) -> np.ndarray:
    """Return how often each of ``size`` units is drawn in each bootstrap sample, [B, size]."""
    drawn = np.random.default_rng(seed).integers(0, size, size=(resamples, size))
    drawn += size * np.arange(resamples)[:, None]
    weights = np.bincount(drawn.ravel(), minlength=resamples * size).astype(float)
    weights.flags.writeable = False
    return weights.reshape(resamples, size)


def halves(size: int, resamples: int, seed: int) -> np.ndarray:
    """Return random halves of the units, without replacement, as weights, [B, size]."""
    order = np.random.default_rng(seed).random((resamples, size)).argsort(axis=1)
    return (order < size // 2).astype(float)


def ends(drawn: np.ndarray, confidence: float) -> tuple[float | None, float | None]:
    """Return the percentile interval of draws, [B]; None if fewer than two are finite."""
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
    """Return the spread of each system in each metric, and its draws, [resamples].

    The interval is the percentile bootstrap over units. Counts of distinct items decrease when a
    unit is drawn twice: on ESConv's responses the bootstrap standard error is twice too large for
    Distinct-2 and four times for Distinct-3. :class:`Types` therefore use random halves of the
    units without replacement, centred on the value of all units; this has the right standard error
    (for a mean, that of the bootstrap up to n / (n − 1)).

    Args:
        runs: the statistics of each run of each system.
        confidence: confidence level of the intervals, such as 0.95.
        resamples: number of draws.
        seed: seed of the draws, the same for all systems, which makes them paired.
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


# One array for all systems and metrics, so that values of the same items are counted once.
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
