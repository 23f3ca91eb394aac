"""Estimates with their intervals, or the reason why one is undefined, and Markdown tables of them.

An estimate is ``{"n", "value", "low", "high", "reason"}``: ``value`` is None exactly where
``reason`` is given, so that no table holds NaN.
"""

import math
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np


class Estimate(TypedDict):
    """One figure: its value and interval over ``n`` units, or why it is undefined."""

    n: int
    value: float | None
    low: float | None
    high: float | None
    reason: str | None


def estimate(value: float, low: float | None, high: float | None, n: int) -> Estimate:
    """Return an estimate with its interval; an end may be None."""
    return {"n": n, "value": value, "low": low, "high": high, "reason": None}


def share_of(hits: int, count: int, confidence: float, reason: str = "no cases") -> Estimate:
    """Return a share, 0 to 1, with Wilson's interval."""
    from scipy import stats as scipy_stats

    if count == 0:
        return undefined(0, reason)
    interval = scipy_stats.binomtest(hits, count).proportion_ci(confidence, method="wilson")
    return estimate(hits / count, float(interval.low), float(interval.high), count)


def resampled(
    value: Any, n: int, *, confidence: float, resamples: int, seed: int, reason: str = "no cases"
) -> Estimate:
    """Return a value over units with its percentile bootstrap interval.

    Args:
        value: a :class:`pal.stats.pooled.Pooled` over independent units, such as dialogues.
        n: what the estimate is over, as tables show it.
        confidence: confidence level.
        resamples: number of resamples.
        seed: seed of the draws.
        reason: why the value is undefined, where it is not finite.
    """
    from pal.stats.resampling import ends, resampled_weights

    units = len(value.parts)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = float(value.value()) if units else math.nan
        if not math.isfinite(found):
            return undefined(n, reason)
        if units < 2:
            return estimate(found, None, None, n)
        drawn = value.value(resampled_weights(units, resamples, seed))
    return estimate(found, *ends(drawn, confidence), n)


def undefined(n: int, reason: str) -> Estimate:
    """Return an undefined estimate with its reason."""
    return {"n": n, "value": None, "low": None, "high": None, "reason": reason}


def cell(figure: Estimate, digits: int = 2) -> str:
    """Return an estimate as a table shows it: ``0.54 [0.49, 0.58]`` or ``undefined (n=3: …)``."""
    if figure["value"] is None:
        return f"undefined (n={figure['n']}: {figure['reason']})"
    if figure["low"] is None or figure["high"] is None:
        return f"{figure['value']:.{digits}f}"
    return f"{figure['value']:.{digits}f} [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"


def p_text(p: float | None) -> str:
    """Return a p-value as a table shows it."""
    if p is None:
        return "undefined"
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
