"""Figures with their intervals, or the reason why there is none; draws; Markdown tables.

An estimate is ``{"n", "value", "low", "high", "reason"}``: ``value`` is None exactly where
``reason`` is not, so that no table holds NaN.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TypedDict

import numpy as np


class Estimate(TypedDict):
    """One figure: its value and interval over ``n`` units, or why it is undefined."""

    n: int
    value: float | None
    low: float | None
    high: float | None
    reason: str | None


def estimate(value: float, low: float | None, high: float | None, n: int) -> Estimate:
    """Return a figure with its interval; an end is None where the interval has none."""
    return {"n": n, "value": value, "low": low, "high": high, "reason": None}


def undefined(n: int, reason: str) -> Estimate:
    """Return what stands in the place of a figure that does not exist."""
    return {"n": n, "value": None, "low": None, "high": None, "reason": reason}


def ends(drawn: np.ndarray, confidence: float) -> tuple[float | None, float | None]:
    """Return the percentile interval of draws [B]; None where fewer than two are finite."""
    finite = drawn[np.isfinite(drawn)]
    if len(finite) < 2:
        return None, None
    low, high = np.quantile(finite, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@lru_cache(maxsize=1)  # several figures of one sample share them
def resampled_weights(size: int, resamples: int, seed: int) -> np.ndarray:
    """Return how often each of ``size`` units is drawn in each bootstrap sample, [B, size]."""
    drawn = np.random.default_rng(seed).integers(0, size, size=(resamples, size))
    drawn += size * np.arange(resamples)[:, None]
    weights = np.bincount(drawn.ravel(), minlength=resamples * size).astype(float)
    weights.flags.writeable = False
    return weights.reshape(resamples, size)


def permutation_p(drawn: np.ndarray, observed: float) -> float:
    """Return the p of a statistic that is large under the alternative, (1 + exceeding)/(1 + B)."""
    return float((1 + (drawn >= observed - 1e-12).sum()) / (1 + len(drawn)))


def cell(figure: Estimate, digits: int = 2) -> str:
    """Return an estimate as a table shows it: ``0.54 [0.49, 0.58]`` or ``undefined (n=3: …)``."""
    if figure["value"] is None:
        return f"undefined (n={figure['n']}: {figure['reason']})"
    if figure["low"] is None or figure["high"] is None:
        return f"{figure['value']:.{digits}f}"
    return f"{figure['value']:.{digits}f} [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"


def p_text(p: float | None) -> str:
    """Return a p as a table shows it."""
    if p is None:
        return "undefined"
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
