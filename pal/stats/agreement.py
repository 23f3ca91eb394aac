"""Statistics of people's judgements: the sign test and Fleiss' κ."""

import numpy as np
from numpy.typing import ArrayLike


def sign_test(wins: int, losses: int) -> float | None:
    """Return the exact two-sided p-value that either side wins with probability one half.

    Ties take no part (PAL paper, Table 4). None where nothing was won or lost.
    """
    from scipy.stats import binomtest

    if wins + losses == 0:
        return None
    return float(binomtest(wins, wins + losses, 0.5).pvalue)


def fleiss_kappa(counts: ArrayLike) -> tuple[float | None, str | None]:
    """Return Fleiss' κ, or None and the reason why there is none.

    κ = (P̄ − P̄e) / (1 − P̄e), where P̄ is the mean over items of the share of pairs of raters that
    agree, and P̄e the sum of the squared shares of the categories (Fleiss 1971, equations 1 to 7).
    The formula holds for one number of raters an item, of at least two; they need not be the same
    people.

    Args:
        counts: how many raters put an item into a category [items, categories].
    """
    table = np.asarray(counts, dtype=float)
    if table.size == 0 or not table.any():
        return None, "no answers"
    raters = table.sum(axis=1)
    low, high = int(raters.min()), int(raters.max())
    if low != high:
        return None, f"items have {low} to {high} answers; κ needs one number for all"
    if high < 2:
        return None, "one answer an item; κ needs two raters or more"
    observed = np.mean(np.sum(table * (table - 1), axis=1) / (high * (high - 1)))
    expected = np.sum((table.sum(axis=0) / table.sum()) ** 2)
    if np.isclose(expected, 1):
        return None, "all answers are the same; κ is undefined"
    return float((observed - expected) / (1 - expected)), None
