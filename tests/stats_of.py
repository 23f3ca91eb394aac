"""How often intervals should hold and tests reject, where something was planted or nothing."""

from scipy.stats import binom


def least(count, level=0.95):
    """How many of ``count`` intervals must hold, at least: fewer come once in a thousand times.

    A percentile interval over some 40 units holds somewhat less often than it says, here 93 %.
    """
    return int(binom.ppf(0.001, count, level - 0.02))


def most(count, level=0.05):
    """How many of ``count`` tests may reject without structure, at most."""
    return int(binom.ppf(0.999, count, level))


def holds(figure, wanted):
    """Whether an estimate's interval holds a value."""
    return figure["low"] - 1e-9 <= wanted <= figure["high"] + 1e-9
