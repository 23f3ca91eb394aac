"""Statistics of judgements: the sign test, Fleiss' κ and Cohen's κ, also for resampling."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from pal.stats.pooled import Pooled


def sign_test(wins: int, losses: int) -> float | None:
    """Return the exact two-sided p-value that either side wins with probability one half.

    Ties are left out (PAL paper, Table 4). The result is None without any win or loss.
    """
    from scipy.stats import binomtest

    if wins + losses == 0:
        return None
    return float(binomtest(wins, wins + losses, 0.5).pvalue)


def fleiss_kappa(counts: ArrayLike) -> tuple[float | None, str | None]:
    """Return (Fleiss' κ, None), or (None, the reason why κ is undefined).

    κ = (P̄ − P̄e) / (1 − P̄e), where P̄ is the mean over items of the proportion of agreeing pairs
    of raters, and P̄e the sum of the squared proportions of the categories (Fleiss 1971, equations
    1 to 7). The raters and their number may differ between items: the pairs of an item are those of
    its own raters, and the proportion of a category is the mean of its proportions in the items.
    With the same number of raters for all items these are Fleiss' equations. Items with fewer than
    two answers have no pair and are left out; :func:`count_rated` returns how many remain.

    Args:
        counts: number of raters who put an item into a category, [items, categories].

    Example:
        >>> fleiss_kappa([[3, 0], [0, 2]])
        (1.0, None)
    """
    table = np.asarray(counts, dtype=float)
    if table.size == 0 or not table.any():
        return None, "no answers"
    table = table[table.sum(axis=1) >= 2]
    if not len(table):
        return None, "one answer per item; κ needs two raters or more"
    raters = table.sum(axis=1)
    observed = np.mean(np.sum(table * (table - 1), axis=1) / (raters * (raters - 1)))
    expected = np.sum((table / raters[:, None]).mean(axis=0) ** 2)
    if np.isclose(expected, 1):
        return None, "all answers are the same; κ is undefined"
    return float((observed - expected) / (1 - expected)), None


def count_rated(counts: ArrayLike) -> int:
    """Return how many items at least two raters answered: the n of :func:`fleiss_kappa`.

    Args:
        counts: number of raters who put an item into a category, [items, categories].
    """
    table = np.asarray(counts, dtype=float)
    return int((table.sum(axis=1) >= 2).sum()) if table.size else 0


def fleiss_pooled(counts: ArrayLike) -> Pooled:
    """Return :func:`fleiss_kappa` as a function of sums over items, for intervals by resampling.

    Items with fewer than two answers weigh nothing. The value is NaN where κ is undefined.

    Args:
        counts: number of raters who put an item into a category, [items, categories].
    """
    table = np.asarray(counts, dtype=float)
    raters = table.sum(axis=1)
    rated = raters >= 2
    table = np.where(rated[:, None], table, 0.0)
    raters = np.where(rated, raters, 2.0)
    agreeing = np.sum(table * (table - 1), axis=1) / (raters * (raters - 1))
    agreeing = np.where(rated, agreeing, 0.0)
    parts = np.column_stack([rated.astype(float), agreeing, table / raters[:, None]])
    return Pooled(parts, _fleiss)


def _fleiss(sums: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = sums[..., 1:] / sums[..., :1]
        observed, expected = shares[..., 0], (shares[..., 1:] ** 2).sum(axis=-1)
        kappa = (observed - expected) / (1 - expected)
    return np.where(np.isclose(expected, 1), np.nan, kappa)


def cohen_pooled(
    one: ArrayLike,
    other: ArrayLike,
    categories: int,
    weights: Literal["nominal", "quadratic"] = "nominal",
) -> Pooled:
    """Return Cohen's κ of two raters as a function of sums over items.

    κ = 1 − Σ w o / Σ w e, where o are the shares of items that the two put into each pair of
    categories, e those expected of independent raters with the same shares of categories, and w
    the disagreement: 1 for different categories (Cohen 1960), or the squared distance of ordered
    ones (Cohen 1968). The value is NaN where both raters use one category alone.

    Args:
        one: category of each item by the first rater, from 0 on, [items].
        other: category by the second rater.
        categories: number of categories.
        weights: ``nominal`` or ``quadratic``.

    Example:
        >>> float(cohen_pooled([0, 1, 1, 0], [0, 1, 1, 0], 2).value())
        1.0
    """
    first, second = np.asarray(one, dtype=int), np.asarray(other, dtype=int)
    cells = np.zeros((len(first), categories * categories))
    cells[np.arange(len(first)), first * categories + second] = 1
    distance = np.abs(np.subtract.outer(np.arange(categories), np.arange(categories)))
    apart = (distance > 0).astype(float) if weights == "nominal" else distance.astype(float) ** 2

    def finish(sums: np.ndarray) -> np.ndarray:
        table = sums.reshape(*sums.shape[:-1], categories, categories)
        with np.errstate(invalid="ignore", divide="ignore"):
            table = table / table.sum(axis=(-2, -1), keepdims=True)
            expected = table.sum(axis=-1)[..., :, None] * table.sum(axis=-2)[..., None, :]
            found: np.ndarray = 1 - (apart * table).sum(axis=(-2, -1)) / (apart * expected).sum(
                axis=(-2, -1)
            )
        return np.where(np.isfinite(found), found, np.nan)

    return Pooled(cells, finish)
