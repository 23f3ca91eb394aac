"""Scores of dimensions from answers, and the reliability of the scores.

A reverse-keyed answer becomes 6 − x; a dimension's score is the mean over its items, 1 to 5. A
dimension with an unanswered item has no score, since the mean over the other items would silently
impute the missing answer.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pal.core.errors import DataError
from pal.stats.estimates import Estimate, estimate, undefined
from pal.stats.resampling import ends, resampled_weights
from pal.traits.inventories import SCALE, Form, Inventory

logger = logging.getLogger(__name__)

SWEEPS = 100  # maximum number of sweeps of the one-factor fit

FEWEST = 4  # minimum number of different answer sets: copies of few are no sample


def keyed_answers(inventory: Inventory, answers: Mapping[str, int]) -> dict[str, int]:
    """Return answers with the reverse-keyed ones turned, 6 − x.

    Raises:
        DataError: an answer to no item of the inventory, or outside 1 to 5.
    """
    keys = {item.id: item.keyed for item in inventory.items}
    for name, answer in answers.items():
        if name not in keys:
            raise DataError(f"answers: {name!r} is not an item of the inventory {inventory.name!r}")
        if isinstance(answer, bool) or answer not in SCALE:
            raise DataError(f"answers: item {name!r}: got {answer!r}, expected a whole number 1..5")
    return {name: answer if keys[name] == 1 else 6 - answer for name, answer in answers.items()}


def score_dimensions(
    inventory: Inventory, answers: Mapping[str, int], form: Form = "full"
) -> dict[str, float | None]:
    """Return each dimension's score, 1 to 5; None where one of its items has no answer.

    Args:
        inventory: the inventory that was answered.
        answers: by item id, 1 to 5, as given (not keyed).
        form: the form that was asked.

    Raises:
        DataError: an answer to no item of the inventory, or outside 1 to 5.
    """
    keyed = keyed_answers(inventory, answers)
    scores: dict[str, float | None] = {}
    for dimension in inventory.dimensions:
        items = [item.id for item in inventory.items_of(form) if item.dimension == dimension]
        complete = all(item in keyed for item in items)
        scores[dimension] = float(np.mean([keyed[item] for item in items])) if complete else None
    return scores


def analyze_reliability(
    inventory: Inventory,
    answers: Sequence[Mapping[str, int]],
    *,
    form: Form = "full",
    confidence: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Return Cronbach's α, McDonald's ω and the item-rest correlations of every dimension.

    Only respondents who answered all items of a dimension count for it; ``n`` says how many. Items
    whose item-rest correlation is negative after keying are logged: their keying may be wrong.

    Args:
        inventory: the inventory that was answered.
        answers: one mapping a respondent.
        form: the form that was asked.
        confidence: of the intervals (percentile bootstrap over respondents).
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        By dimension: ``alpha``, ``omega`` (estimates) and ``items``, id → item-rest r or None.
    """
    keyed = [keyed_answers(inventory, one) for one in answers]
    found: dict[str, dict[str, Any]] = {}
    against: list[str] = []
    for dimension in inventory.dimensions:
        items = [item.id for item in inventory.items_of(form) if item.dimension == dimension]
        rows = [[one[i] for i in items] for one in keyed if all(i in one for i in items)]
        matrix = np.array(rows, dtype=float).reshape(-1, len(items))
        rest = dict(zip(items, item_rest_correlations(matrix), strict=True))
        negative = [name for name, r in rest.items() if r is not None and r < 0]
        if negative:
            against.append(f"{dimension}: {', '.join(negative)}")
        alpha, omega = reliability(matrix, confidence=confidence, resamples=resamples, seed=seed)
        found[dimension] = {"alpha": alpha, "omega": omega, "items": rest}
    if against:
        logger.warning(
            "inventory %s, %d respondents: the answers to some items, keyed as the inventory says, "
            "go against the other items of their dimension (%s); with few respondents that is "
            "chance, with many check in the inventory whether the items are keyed rightly",
            inventory.name, len(keyed), "; ".join(against),
        )  # fmt: skip
    return found


def reliability(
    matrix: np.ndarray, *, confidence: float, resamples: int, seed: int
) -> tuple[Estimate, Estimate]:
    """Return Cronbach's α and McDonald's ω (total, one factor) with bootstrap intervals.

    Args:
        matrix: keyed answers, [N respondents, K items].
        confidence: of the intervals.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    count, width = matrix.shape
    few = f"fewer than {FEWEST} different complete answer sets"
    if width < 2 or count < FEWEST:
        reason = "fewer than 2 items" if width < 2 else few
        return undefined(count, reason), undefined(count, reason)
    covariance = np.cov(matrix, rowvar=False)
    if covariance.sum() <= 1e-12:
        reason = "the summed answers have no variance"
        return undefined(count, reason), undefined(count, reason)
    if len(np.unique(matrix, axis=0)) < FEWEST:
        return undefined(count, few), undefined(count, few)
    drawn = _drawn_covariances(matrix, resamples, seed)
    drawn = drawn[drawn.sum((1, 2)) > 1e-12]
    values = []
    for compute in (cronbach_alpha, mcdonald_omega):
        low, high = ends(compute(drawn), confidence)
        values.append(estimate(float(compute(covariance[None])[0]), low, high, count))
    return values[0], values[1]


def cronbach_alpha(covariance: np.ndarray) -> np.ndarray:
    """Return α = K/(K − 1) · (1 − Σ variances / variance of the sum), [B, K, K] → [B]."""
    width = covariance.shape[-1]
    trace = np.trace(covariance, axis1=-2, axis2=-1)
    return width / (width - 1) * (1 - trace / covariance.sum((-2, -1)))


def mcdonald_omega(covariance: np.ndarray) -> np.ndarray:
    """Return ω = (Σλ)² / ((Σλ)² + Σψ) of a one-factor model, [B, K, K] → [B].

    Loadings are unweighted least squares on the off-diagonal covariances (minres), by coordinate
    descent over all matrices at once. An item's own variance ψ is at least 0 (Heywood cases). With
    two items the model is not identified and ω is α's equal-loading case.
    """
    width = covariance.shape[-1]
    variances = np.maximum(np.diagonal(covariance, axis1=-2, axis2=-1), 0)  # rounding
    off = covariance - variances[..., None] * np.eye(width)
    loadings = off.sum(-1) / np.sqrt(np.maximum(np.abs(off.sum((-2, -1))), 1e-12))[:, None]
    for _ in range(SWEEPS):
        before = loadings.copy()
        for item in range(width):
            rest = (loadings**2).sum(-1) - loadings[:, item] ** 2
            fitted = np.einsum("bk,bk->b", off[:, item], loadings) / np.maximum(rest, 1e-12)
            bound = np.sqrt(variances[:, item])
            loadings[:, item] = np.clip(fitted, -bound, bound)
        if np.abs(loadings - before).max() < 1e-6:
            break
    common = loadings.sum(-1) ** 2
    return common / (common + (variances - loadings**2).sum(-1))


def item_rest_correlations(matrix: np.ndarray) -> list[float | None]:
    """Return each item's correlation with the sum of the others, None where one never varies.

    Args:
        matrix: keyed answers, [N respondents, K items].
    """
    found: list[float | None] = []
    for item in range(matrix.shape[1]):
        own, rest = matrix[:, item], np.delete(matrix, item, axis=1).sum(1)
        varies = len(matrix) > 2 and np.ptp(own) > 0 and np.ptp(rest) > 0
        found.append(float(np.corrcoef(own, rest)[0, 1]) if varies else None)
    return found


def _drawn_covariances(matrix: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Covariances of bootstrap samples of the rows of [N, K], as [resamples, K, K]."""
    count, width = matrix.shape
    centred = matrix - matrix.mean(0)
    weights = resampled_weights(count, resamples, seed)
    products = (centred[:, :, None] * centred[:, None, :]).reshape(count, -1)
    means = weights @ centred / count
    second = (weights @ products / count).reshape(-1, width, width)
    return (second - means[:, :, None] * means[:, None, :]) * count / (count - 1)
