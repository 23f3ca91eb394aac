"""Perplexity of the gold responses (PAL paper, Table 3, PPL), and nats a token and a word.

Perplexity is per token. Models whose tokenizers cut the same text into different tokens, such as
Blenderbot-small and a decoder-only model, have perplexities that do not compare. Nats a word do:
the loss of a whole response is divided by its words, which are the same for all models.
"""

from collections.abc import Callable

import numpy as np

from pal.metrics.base import Metric, Predictions, Scores, Variant
from pal.stats.pooled import Pooled

WORD_KEYS = ("nats_per_token", "nats_per_word")


def compute_perplexity(predictions: Predictions, variant: Variant = "correct") -> Scores:
    """Return perplexity, 1 or more: exp of total loss (nats) over total tokens; and nats.

    ``ppl`` counts the strategy as a target, as the authors' code does: one token, or several of a
    decoder-only model (``strategy_count``). All others count the response only and need
    ``strategy_nll``. ``nats_per_token`` is the logarithm of ``ppl_without_strategy``.
    ``nats_per_word`` is the loss of the response, its end included, over its words, tokens of
    :mod:`pal.metrics.text`: it compares models of different tokenizers. (Not in full: a tokenizer
    that lower-cases, as Blenderbot-small's does, has less to predict.)

    The corpus values are not means of ``per_sample``, which holds the value of each target;
    ``pooled`` has the sums.
    """
    assert predictions.token_nll is not None
    assert predictions.token_count is not None
    parts = np.stack([predictions.token_nll, predictions.token_count], axis=1)
    scores = Scores()
    _add(scores, "ppl", parts)
    if predictions.strategy_nll is None:
        needing = ("ppl_without_strategy", *WORD_KEYS)
        scores.undefined |= dict.fromkeys(needing, "needs strategy_nll")
        return scores
    counts = predictions.strategy_count
    counts = np.ones(len(parts)) if counts is None else counts
    parts = parts - np.stack([predictions.strategy_nll, counts], axis=1)
    _add(scores, "ppl_without_strategy", parts)
    _add(scores, "nats_per_token", parts, nats_of_sums)
    words = predictions.word_count
    if words is None and predictions.references is not None:
        words = np.array([len(tokens) for tokens in predictions.reference_tokens], dtype=float)
    if words is None:
        scores.undefined["nats_per_word"] = "needs references or word_count"
    else:
        _add(scores, "nats_per_word", np.stack([parts[:, 0], words], axis=1), nats_of_sums)
    return scores


def perplexity_of_sums(sums: np.ndarray) -> np.ndarray:
    """Return exp(nats / tokens) of sums [..., 2]."""
    with np.errstate(over="ignore"):  # an infinite value is reported as undefined
        return np.exp(nats_of_sums(sums))


def nats_of_sums(sums: np.ndarray) -> np.ndarray:
    """Return nats / tokens, or nats / words, of sums [..., 2]."""
    return sums[..., 0] / sums[..., 1]


def _add(
    scores: Scores,
    key: str,
    parts: np.ndarray,
    finish: Callable[[np.ndarray], np.ndarray] = perplexity_of_sums,
) -> None:
    rows = np.flatnonzero(parts[:, 1] > 0)
    if not len(rows):
        what = "word" if key == "nats_per_word" else "token besides the strategy"
        scores.undefined[key] = f"no target has a {what}"
        return
    if len(rows) < len(parts):
        scores.rows[key] = rows
    scores.add_pooled(key, Pooled(parts[rows], finish))
    scores.per_sample[key] = finish(parts[rows])


METRIC = Metric(
    name="perplexity",
    direction=dict.fromkeys(("ppl", "ppl_without_strategy", *WORD_KEYS), "lower"),
    unit="perplexity",
    needs=("token_nll", "token_count"),
    compute=compute_perplexity,
    version="1.1",
    units=dict.fromkeys(WORD_KEYS, "nats"),
)
