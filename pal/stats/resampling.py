"""Spread and significance: intervals of every metric, and paired tests between systems.

The unit is the dialogue, since samples of one dialogue share its seeker, topic and persona. All
systems are resampled with the same draws, so differences are paired. What is drawn are test
dialogues; the trained models are taken as they are, and the spread over training seeds is told
apart, by the standard deviation over a system's runs.
"""

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from pal.metrics import Pooled, Report, Types, mean_of

logger = logging.getLogger(__name__)

Statistic = Pooled | Types
BATCH = 1000  # resamples evaluated at once


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


@dataclass(frozen=True)
class Comparison:
    """One metric of two systems.

    Attributes:
        metric: its key.
        a: the first system.
        b: the second.
        difference: a − b, means over runs.
        low: lower end of the paired interval of the difference.
        high: its upper end.
        p: two-sided, of the paired permutation test.
        p_holm: adjusted for all comparisons of its family (Holm 1979).
    """

    metric: str
    a: str
    b: str
    difference: float
    low: float | None
    high: float | None
    p: float
    p_holm: float


def statistics_of(report: Report, groups: np.ndarray) -> dict[str, Statistic]:
    """Return every value of a report as a function of groups of samples.

    Args:
        report: scores of N samples.
        groups: each sample's group, 0 to G − 1, [N].
    """
    count = int(groups.max()) + 1
    found: dict[str, Statistic] = {}
    shared: dict[int, Any] = {}  # values of the same items go on sharing them
    for key in report.values:
        if key in report.types:
            types = report.types[key]
            items = shared.setdefault(id(types.items), types.items.grouped(groups, count))
            found[key] = Types(items, types.finish)
            continue
        if key in report.pooled:
            pooled = report.pooled[key]
        elif key in report.per_sample:
            pooled = mean_of(report.per_sample[key])
        else:
            continue  # a plug-in that gives the corpus value alone
        found[key] = pooled.grouped(groups[report.rows.get(key, slice(None))], count)
    return found


def spreads(
    runs: Mapping[str, Sequence[Mapping[str, Statistic]]],
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> tuple[dict[str, dict[str, Spread]], dict[str, dict[str, np.ndarray]]]:
    """Return each system's spread of each metric, and the draws behind it, [resamples].

    Percentile bootstrap over groups (``scipy.stats.bootstrap``). Counts of different items fall
    when a group is drawn twice: on ESConv's responses the bootstrap makes the standard error of
    Distinct-2 twice and of Distinct-3 four times too large. So :class:`Types` are drawn without
    replacement, half of the groups each time, about the value of all; that has the right standard
    error (for a mean the bootstrap's, but for n / (n − 1)).

    Args:
        runs: for each system, the statistics of each of its runs.
        confidence: of the intervals, for instance 0.95.
        resamples: draws.
        seed: of the draws; the same for all systems, which pairs them.
    """
    from scipy import stats

    table: dict[str, dict[str, Spread]] = {}
    draws: dict[str, dict[str, np.ndarray]] = {}
    for name, several in runs.items():
        size = _size(several[0])
        keys = [key for key in several[0] if all(key in run for run in several)]
        pooled = [key for key in keys if isinstance(several[0][key], Pooled)]
        draws[name] = {}

        def draw(indices: np.ndarray, axis: int = -1, several=several, keys=pooled, size=size):
            weights = _weights(indices, size)
            return np.stack([_mean_over(several, key, weights) for key in keys])

        if size > 1 and pooled:
            drawn = stats.bootstrap(
                (np.arange(size),), draw, vectorized=True, method="percentile",
                n_resamples=resamples, batch=BATCH, rng=np.random.default_rng(seed),
            ).bootstrap_distribution  # fmt: skip
            draws[name] = dict(zip(pooled, drawn, strict=True))
        halves = _halves(size, resamples, seed) if size > 1 else None
        table[name] = {}
        for key in keys:
            values = [float(run[key].value()) for run in several]
            mean, low, high = float(np.mean(values)), None, None
            if halves is not None and key not in draws[name]:
                with np.errstate(invalid="ignore", divide="ignore"):  # a half without any item
                    half = _mean_over(several, key, halves)
                scale = np.sqrt((size // 2) / (size - size // 2))  # 1 for even sizes
                draws[name][key] = mean + scale * (half - np.nanmean(half))
            if key in draws[name]:
                low, high = _ends(draws[name][key], confidence)
            sd = float(np.std(values, ddof=1)) if len(several) > 1 else None
            table[name][key] = Spread(mean, sd, low, high)
    return table, draws


def compare(
    runs: Mapping[str, Sequence[Mapping[str, Statistic]]],
    draws: Mapping[str, Mapping[str, np.ndarray]],
    *,
    confidence: float,
    resamples: int,
    seed: int,
    primary: Collection[str] = (),
) -> list[Comparison]:
    """Compare every two systems in every metric they share.

    The test swaps the two systems' responses to randomly chosen dialogues, in all runs at once
    (``scipy.stats.permutation_test``): if they were equally good, swapping would change nothing.
    A system of one run meets each run of the other. Holm's adjustment is over the comparisons of
    ``primary`` keys, and apart from them over all others.

    Args:
        runs: as for :func:`spreads`.
        draws: the paired draws it returned.
        confidence: of the intervals of the differences.
        resamples: permutations at most; all of them where there are fewer.
        seed: of the permutations.
        primary: keys of the first family; all when empty.
    """
    from scipy import stats
    from tqdm.auto import tqdm

    found: list[tuple[str, str, str, float, float | None, float | None, float]] = []
    pairs = list(combinations(runs, 2))
    for a, b in tqdm(pairs, desc="compare systems", unit="pair", disable=None, leave=False):
        several = math.lcm(len(runs[a]), len(runs[b]))
        size = _size(runs[a][0])
        keys = [key for key in draws[a] if key in draws[b]]
        if not keys:
            continue
        joined = [
            _joined(runs[a][i % len(runs[a])], runs[b][i % len(runs[b])], keys)
            for i in range(several)
        ]

        def difference(x: np.ndarray, y: np.ndarray, axis: int = -1, joined=joined, keys=keys):
            swapped = (np.asarray(x) >= x.shape[-1]).astype(float)
            first = np.concatenate([1 - swapped, swapped], axis=-1)
            second = np.concatenate([swapped, 1 - swapped], axis=-1)
            ones = [_mean_over(joined, key, first) for key in keys]
            twos = [_mean_over(joined, key, second) for key in keys]
            return np.stack(ones, axis=-1) - np.stack(twos, axis=-1)

        test = stats.permutation_test(
            (np.arange(size), np.arange(size) + size), difference, permutation_type="samples",
            vectorized=True, n_resamples=resamples, batch=BATCH, rng=np.random.default_rng(seed),
        )  # fmt: skip
        for row, key in enumerate(keys):
            low, high = _ends(draws[a][key] - draws[b][key], confidence)
            found.append(
                (key, a, b, float(test.statistic[row]), low, high, float(test.pvalue[row]))
            )
    adjusted: dict[int, float] = {}
    for family in (True, False):
        members = [i for i, entry in enumerate(found) if (entry[0] in primary) == family]
        adjusted |= dict(zip(members, holm([found[i][-1] for i in members]), strict=True))
        if 2 * len(members) >= 0.05 * (resamples + 1):
            logger.warning(
                "%d comparisons with %d permutations: no adjusted p can fall below 0.05; give "
                "statistics.resamples=%d",
                len(members), resamples, 80 * len(members),
            )  # fmt: skip
    return [Comparison(*entry, p_holm=adjusted[i]) for i, entry in enumerate(found)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for testing all of them together (Holm 1979, step-down)."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted.tolist()


def group_samples(ids: Sequence[str]) -> np.ndarray:
    """Return each sample's group, 0 to G − 1: the dialogue its id ``{dialogue}/{turn}`` names."""
    names = [sample_id.rpartition("/")[0] or sample_id for sample_id in ids]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names])


def _size(statistics: Mapping[str, Statistic]) -> int:
    """The number of groups."""
    if not statistics:
        return 0
    one = next(iter(statistics.values()))
    return len(one.parts) if isinstance(one, Pooled) else len(one.items.items)


def _halves(size: int, resamples: int, seed: int) -> np.ndarray:
    """Half of the groups, drawn without replacement, as weights [resamples, size]."""
    order = np.random.default_rng(seed).random((resamples, size)).argsort(axis=1)
    return (order < size // 2).astype(float)


def _weights(indices: np.ndarray, size: int) -> np.ndarray:
    """How often each of ``size`` groups is drawn in each row of indices [B, size] → [B, size]."""
    indices = np.atleast_2d(indices).astype(np.int64)
    flat = indices + size * np.arange(len(indices))[:, None]
    return np.bincount(flat.ravel(), minlength=indices.shape[0] * size).reshape(-1, size) * 1.0


def _mean_over(
    runs: Sequence[Mapping[str, Statistic]], key: str, weights: np.ndarray
) -> np.ndarray:
    return np.mean([run[key].value(weights) for run in runs], axis=0)


def _joined(
    a: Mapping[str, Statistic], b: Mapping[str, Statistic], keys: Sequence[str]
) -> dict[str, Statistic]:
    """Both systems' statistics over the groups of the first and then those of the second."""
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


def _ends(drawn: np.ndarray, confidence: float) -> tuple[float | None, float | None]:
    if np.isnan(drawn).all():
        return None, None
    low, high = np.nanquantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
