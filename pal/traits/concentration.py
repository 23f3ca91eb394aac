"""Spread of the seekers' traits in dialogues without persona and with persona (Figure 8)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pal.stats.estimates import estimate, undefined
from pal.stats.permutation import holm, permutation_p
from pal.stats.resampling import ends, resampled_weights
from pal.stats.settings import StatisticsSettings
from pal.traits.documents import Record, grouped
from pal.traits.inventories import Inventory

FEWEST = 4  # minimum number of seekers per side
BATCH = 1000  # permutations at once


def compare_concentration(
    with_persona: Sequence[Record],
    without: Sequence[Record],
    inventories: Sequence[Inventory],
    statistics: StatisticsSettings,
) -> list[dict[str, Any]]:
    """Compare the spread of two sets of measurements, by model and inventory.

    Dialogues without persona belong to no data set, so all data sets of a model are set against
    them together where the two files name different ones. Holm's adjustment is over the three
    figures of spread.

    Args:
        with_persona: measurements of seekers of dialogues written from personas.
        without: of seekers of dialogues written from none.
        inventories: which to look at.
        statistics: resamples, confidence and seed.

    Returns:
        One entry a group and inventory; see :func:`compare_spread`.
    """
    shared = set(grouped(with_persona)) & set(grouped(without))
    if not shared:
        with_persona, without = (
            [{**row, "dataset": "all"} for row in rows] for rows in (with_persona, without)
        )
    first, second = grouped(with_persona), grouped(without)
    found = []
    for dataset, model in first:
        if (dataset, model) not in second:
            continue
        for inventory in inventories:
            sides = [_scores(part[dataset, model], inventory) for part in (first, second)]
            found.append(
                {
                    "dataset": dataset,
                    "model": model,
                    "inventory": inventory.name,
                    "n_with": len(sides[0]),
                    "n_without": len(sides[1]),
                    **compare_spread(sides[0], sides[1], statistics),
                }
            )
    return found


def compare_spread(
    one: np.ndarray, two: np.ndarray, statistics: StatisticsSettings
) -> dict[str, Any]:
    """Compare the spread of two clouds of scores, [N, D] with persona and [M, D] without.

    Both are standardised by the pooled mean and standard deviation (dimensions that never vary are
    left out), and projected to two components of the pooled data. Three figures of spread, over
    all dimensions: total variance, mean distance to the own centroid, and generalised variance
    (the determinant of the covariance, as its D-th root). The test moves deviations from the own
    centroids, scaled by √(n/(n − 1)), between the clouds: it asks for spread whatever the places.

    Args:
        one: scores with persona.
        two: scores without.
        statistics: resamples, confidence and seed.

    Returns:
        ``points`` (``with``, ``without``: [N, 2] coordinates), ``explained`` (shares of variance
        of the two components), ``statistics`` (for each figure of spread both values, their ratio
        with interval, ``p``, ``p_holm``; a ratio above 1: without persona they crowd), ``reason``.
    """
    empty: dict[str, Any] = {"points": None, "explained": None, "statistics": []}
    if min(len(one), len(two)) < FEWEST:
        return {**empty, "reason": f"fewer than {FEWEST} seekers with all scores on a side"}
    pooled = np.concatenate([one, two])
    varies = np.ptp(pooled, axis=0) > 1e-9
    if varies.sum() < 2:
        return {**empty, "reason": "fewer than 2 dimensions vary"}
    pooled = pooled[:, varies]
    pooled = (pooled - pooled.mean(0)) / pooled.std(0)
    _, sizes, axes = np.linalg.svd(pooled, full_matrices=False)
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]  # a fixed sign
    points = pooled @ axes[:2].T
    clouds = pooled[: len(one)], pooled[len(one) :]
    return {
        "points": {
            "with": points[: len(one)].tolist(), "without": points[len(one) :].tolist(),
        },
        "explained": (sizes[:2] ** 2 / (sizes**2).sum()).tolist(),
        "statistics": _spreads(clouds[0], clouds[1], statistics),
        "reason": None,
    }  # fmt: skip


NAMES = ("total variance", "mean distance to centroid", "generalised variance")


def _spreads(
    one: np.ndarray, two: np.ndarray, statistics: StatisticsSettings
) -> list[dict[str, Any]]:
    clouds = one - one.mean(0), two - two.mean(0)
    values, drawn = [], []
    for number, cloud in enumerate(clouds):
        values.append(_figures(cloud, np.ones((1, len(cloud))))[0])
        seed = statistics.seed + number
        drawn.append(_figures(cloud, resampled_weights(len(cloud), statistics.resamples, seed)))
    # A cloud's deviations from its own mean are too small by (n − 1)/n in variance.
    deviations = np.concatenate([c * np.sqrt(len(c) / (len(c) - 1)) for c in clouds])
    permuted = _permuted(deviations, len(one), statistics)
    found = []
    for column, name in enumerate(NAMES):
        a, b = float(values[0][column]), float(values[1][column])
        entry: dict[str, Any] = {"name": name, "p": None, "p_holm": None}
        for side, cloud, value, draws in zip(
            ("with", "without"), clouds, (a, b), drawn, strict=True
        ):
            low, high = ends(draws[:, column], statistics.confidence)
            entry[side] = estimate(value, low, high, len(cloud))
        if min(a, b) <= 1e-12:
            entry["ratio"] = undefined(len(one) + len(two), f"{name} of a side is 0")
        else:
            with np.errstate(divide="ignore", invalid="ignore"):
                ratios = np.log(drawn[0][:, column]) - np.log(drawn[1][:, column])
                logs = np.abs(np.log(permuted[0][:, column]) - np.log(permuted[1][:, column]))
            low, high = ends(ratios, statistics.confidence)
            entry["ratio"] = estimate(
                a / b,
                None if low is None else float(np.exp(low)),
                None if high is None else float(np.exp(high)),
                len(one) + len(two),
            )
            entry["p"] = permutation_p(np.nan_to_num(logs, nan=0.0), abs(float(np.log(a / b))))
        found.append(entry)
    tested = [entry for entry in found if entry["p"] is not None]
    for entry, adjusted in zip(tested, holm([entry["p"] for entry in tested]), strict=True):
        entry["p_holm"] = adjusted
    return found


def _figures(deviations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The three figures of weighted points [N, D] under weights [B, N], as [B, 3].

    Deviations are from the whole cloud's centroid; covariances are taken about each draw's own.
    """
    count, width = deviations.shape
    total = weights.sum(1, keepdims=True)
    products = (deviations[:, :, None] * deviations[:, None, :]).reshape(count, -1)
    means = weights @ deviations / total
    second = (weights @ products / total).reshape(-1, width, width)
    covariance = second - means[:, :, None] * means[:, None, :]
    covariance *= (total / np.maximum(total - 1, 1))[:, :, None]
    distance = (weights @ np.linalg.norm(deviations, axis=1)) / total[:, 0]
    determinant = np.maximum(np.linalg.det(covariance), 0) ** (1 / width)
    return np.stack([np.trace(covariance, axis1=1, axis2=2), distance, determinant], axis=1)


def _permuted(
    deviations: np.ndarray, size: int, statistics: StatisticsSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Figures of two clouds dealt out at random, ``size`` points to the first, [B, 3] each."""
    rng = np.random.default_rng(statistics.seed)
    sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for start in range(0, statistics.resamples, BATCH):
        rows = min(BATCH, statistics.resamples - start)
        order = rng.random((rows, len(deviations))).argsort(1)
        chosen = (order < size).astype(float)
        sides[0].append(_figures(deviations, chosen))
        sides[1].append(_figures(deviations, 1 - chosen))
    return np.concatenate(sides[0]), np.concatenate(sides[1])


def _scores(rows: Sequence[Record], inventory: Inventory) -> np.ndarray:
    """Scores of the seekers who have all of them, [N, D]."""
    lines = [
        [row["scores"].get(dimension) for dimension in inventory.dimensions]
        for row in rows
        if row["inventory"] == inventory.name
    ]
    matrix = np.array(lines, dtype=float).reshape(-1, len(inventory.dimensions))
    return matrix[np.isfinite(matrix).all(1)]
