"""Perplexity of the gold responses under the model (PAL paper, Table 3, PPL)."""

import numpy as np

from pal.metrics.base import Metric, Predictions, Scores, Variant
from pal.stats.pooled import Pooled


def compute_perplexity(predictions: Predictions, variant: Variant = "correct") -> Scores:
    """Return perplexity, 1 or more: exp of total loss (nats) over total tokens.

    ``ppl`` counts the strategy as a target, as the authors' code does: one token, or several of a
    decoder-only model (``strategy_count``). ``ppl_without_strategy`` counts the words only and
    needs ``strategy_nll``. The corpus values are not means of ``per_sample``, which holds the
    perplexity of each target; ``pooled`` has the sums.
    """
    assert predictions.token_nll is not None
    assert predictions.token_count is not None
    parts = np.stack([predictions.token_nll, predictions.token_count], axis=1)
    scores = Scores()
    _add(scores, "ppl", parts)
    if predictions.strategy_nll is None:
        scores.undefined["ppl_without_strategy"] = "needs strategy_nll"
    else:
        counts = predictions.strategy_count
        counts = np.ones(len(parts)) if counts is None else counts
        strategies = np.stack([predictions.strategy_nll, counts], axis=1)
        _add(scores, "ppl_without_strategy", parts - strategies)
    return scores


def perplexity_of_sums(sums: np.ndarray) -> np.ndarray:
    """Return exp(nats / tokens) of sums [..., 2]."""
    with np.errstate(over="ignore"):  # an infinite value is reported as undefined
        return np.exp(sums[..., 0] / sums[..., 1])


def _add(scores: Scores, key: str, parts: np.ndarray) -> None:
    rows = np.flatnonzero(parts[:, 1] > 0)
    if not len(rows):
        scores.undefined[key] = "no target has a token besides the strategy"
        return
    if len(rows) < len(parts):
        scores.rows[key] = rows
    scores.add_pooled(key, Pooled(parts[rows], perplexity_of_sums))
    scores.per_sample[key] = perplexity_of_sums(parts[rows])


METRIC = Metric(
    name="perplexity",
    direction={"ppl": "lower", "ppl_without_strategy": "lower"},
    unit="perplexity",
    needs=("token_nll", "token_count"),
    compute=compute_perplexity,
)
