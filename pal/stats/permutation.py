"""Permutation tests, and Holm's adjustment for many of them."""

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from pal.stats.pooled import Pooled, Types
from pal.stats.resampling import Statistic, count_units, ends, mean_over

logger = logging.getLogger(__name__)

_BATCH = 1000  # permutations evaluated at once


@dataclass(frozen=True)
class Comparison:
    """One metric of two systems.

    Attributes:
        metric: key of the metric.
        a: name of the first system.
        b: name of the second system.
        difference: a − b, difference of the means over runs.
        low: lower end of the paired interval of the difference.
        high: upper end of the interval.
        p: two-sided p-value of the paired permutation test.
        p_holm: p-value adjusted for all comparisons of its family (Holm 1979).
    """

    metric: str
    a: str
    b: str
    difference: float
    low: float | None
    high: float | None
    p: float
    p_holm: float


def permutation_p(drawn: np.ndarray, observed: float, *, exact: bool = False) -> float:
    """Return the p-value of a statistic that is large under the alternative hypothesis.

    Args:
        drawn: the statistic under permutations, [B]; NaN counts as large, which is conservative.
        observed: the observed value.
        exact: whether ``drawn`` holds all permutations, including the observed one; p is then
            the proportion of large values. Otherwise the permutations are random, and p is
            (1 + exceeding) / (1 + B).
    """
    tolerance = 1e-12 * max(1.0, abs(observed))
    exceeding = int((~(drawn < observed - tolerance)).sum())
    return exceeding / len(drawn) if exact else (1 + exceeding) / (1 + len(drawn))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for testing all of them together (Holm 1979, step-down)."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted.tolist()


def swaps(size: int, resamples: int, seed: int) -> tuple[np.ndarray, bool]:
    """Return which of ``size`` pairs are swapped, 0 or 1, [B, size], and whether B covers all ways.

    Args:
        size: number of pairs.
        resamples: maximum number of rows; all 2^size ways if there are no more.
        seed: seed of random swaps.
    """
    if size < 32 and 2**size <= resamples:
        ways = np.arange(2**size)[:, None] >> np.arange(size) & 1
        return ways.astype(float), True
    random = np.random.default_rng(seed).integers(0, 2, size=(resamples, size), dtype=np.int8)
    return random.astype(float), False


def compare_systems(
    runs: Mapping[str, Sequence[Mapping[str, Statistic]]],
    draws: Mapping[str, Mapping[str, np.ndarray]],
    *,
    confidence: float,
    resamples: int,
    seed: int,
    primary: Collection[str] = (),
) -> list[Comparison]:
    """Compare every pair of systems in every metric they share.

    The test swaps the results of the two systems for randomly chosen units, in all runs at once;
    under the null hypothesis of equal systems, swapping changes nothing. A system with one run is
    compared with each run of the other. Holm's adjustment is over the comparisons of ``primary``
    keys, and separately over all others.

    Args:
        runs: as for :func:`pal.stats.resampling.spreads`.
        draws: the paired draws it returned.
        confidence: confidence level of the intervals of the differences.
        resamples: maximum number of permutations; all of them if there are fewer.
        seed: seed of the permutations.
        primary: keys of the first family; all keys if empty.
    """
    from tqdm.auto import tqdm

    found: list[tuple[str, str, str, float, float | None, float | None, float]] = []
    pairs = list(combinations(runs, 2))
    for a, b in tqdm(pairs, desc="compare systems", unit="pair", disable=None, leave=False):
        keys = [key for key in draws[a] if key in draws[b]]
        if not keys:
            continue
        joined = [
            _joined(runs[a][i % len(runs[a])], runs[b][i % len(runs[b])], keys)
            for i in range(math.lcm(len(runs[a]), len(runs[b])))
        ]
        ways, exact = swaps(count_units(runs[a][0]), resamples, seed)
        observed = _differences(joined, keys, np.zeros((1, ways.shape[1])))[:, 0]
        drawn = np.concatenate(
            [
                _differences(joined, keys, ways[start : start + _BATCH])
                for start in range(0, len(ways), _BATCH)
            ],
            axis=1,
        )
        for row, key in enumerate(keys):
            low, high = ends(draws[a][key] - draws[b][key], confidence)
            p = permutation_p(np.abs(drawn[row]), abs(observed[row]), exact=exact)
            found.append((key, a, b, float(observed[row]), low, high, p))
    adjusted: dict[int, float] = {}
    for family in (True, False):
        members = [i for i, entry in enumerate(found) if (entry[0] in primary) == family]
        adjusted |= dict(zip(members, holm([found[i][-1] for i in members]), strict=True))
        if len(members) >= 0.05 * (resamples + 1):
            logger.warning(
                "%d comparisons with %d permutations: no adjusted p can fall below 0.05; give "
                "statistics.resamples=%d",
                len(members), resamples, 40 * len(members),
            )  # fmt: skip
    return [Comparison(*entry, p_holm=adjusted[i]) for i, entry in enumerate(found)]


def _differences(
    joined: Sequence[Mapping[str, Statistic]], keys: Sequence[str], swapped: np.ndarray
) -> np.ndarray:
    """Return the difference of the systems in each metric, [K, B], with units swapped, [B, n]."""
    first = np.concatenate([1 - swapped, swapped], axis=-1)
    second = np.concatenate([swapped, 1 - swapped], axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ones = [mean_over(joined, key, first) for key in keys]
        twos = [mean_over(joined, key, second) for key in keys]
    return np.stack(ones) - np.stack(twos)


def _joined(
    a: Mapping[str, Statistic], b: Mapping[str, Statistic], keys: Sequence[str]
) -> dict[str, Statistic]:
    """Return the statistics of both systems over the units of the first, then of the second."""
    found: dict[str, Statistic] = {}
    shared: dict[tuple[int, int], Any] = {}
    for key in keys:
        one, two = a[key], b[key]
        if isinstance(one, Types) and isinstance(two, Types):
            pair = (id(one.items), id(two.items))
            if pair not in shared:
                shared[pair] = one.items.join(two.items)
            found[key] = Types(shared[pair], one.finish)
        elif isinstance(one, Pooled) and isinstance(two, Pooled):
            found[key] = one.join(two)
    return found
