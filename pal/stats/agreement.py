"""Statistics of human judgements: the sign test and Fleiss' κ."""

import numpy as np
from numpy.typing import ArrayLike


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
