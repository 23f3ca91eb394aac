"""Corpus BLEU-1 to BLEU-4 (PAL paper, Table 3, B-2 and B-4; Papineni et al. 2002)."""

from functools import partial

import numpy as np

from pal.metrics.base import Metric, Predictions, Scores, Variant
from pal.stats.pooled import Pooled

ORDERS = (1, 2, 3, 4)


def compute_bleu(predictions: Predictions, variant: Variant = "correct") -> Scores:
    """Return corpus BLEU, percent, 0 to 100: NLTK's ``corpus_bleu`` with smoothing method 3.

    n-gram counts are summed over the corpus before the division, so the corpus value is not the
    mean of ``per_sample``, which holds the sentence BLEU of each response; ``pooled`` has the
    counts.
    """
    from nltk.translate.bleu_score import modified_precision

    parts = []
    for response, reference in zip(
        predictions.response_tokens, predictions.reference_tokens, strict=True
    ):
        fractions = [modified_precision([reference], response, n) for n in ORDERS]
        matches, totals = zip(*((f.numerator, f.denominator) for f in fractions), strict=True)
        parts.append([*matches, *totals, len(response), len(reference)])
    counts = np.array(parts, dtype=float)
    scores = Scores()
    for n in ORDERS:
        pooled = Pooled(counts, partial(bleu_of_counts, order=n))
        scores.add_pooled(f"bleu_{n}", pooled)
        scores.per_sample[f"bleu_{n}"] = pooled.finish(counts)
    return scores


def bleu_of_counts(counts: np.ndarray, order: int) -> np.ndarray:
    """Return BLEU, percent, of summed counts.

    Args:
        counts: n-gram matches of orders 1 to 4, n-gram totals of the same orders, tokens of the
            responses, tokens of the references, [..., 10].
        order: maximum n-gram order, 1 to 4; all orders have equal weight.
    """
    highest = len(ORDERS)
    matches, totals = counts[..., :highest], counts[..., highest : 2 * highest]
    length, reference_length = counts[..., -2], counts[..., -1]
    # Smoothing method 3 (NIST): the k-th order without a match counts as 1 / 2^k matches.
    none = matches == 0
    precision = np.where(none, 0.5 ** none.cumsum(axis=-1), matches) / totals
    brevity = np.exp(np.minimum(0, 1 - reference_length / np.maximum(length, 1)))
    value = 100 * brevity * np.exp(np.log(precision[..., :order]).mean(axis=-1))
    return np.where(none[..., 0], 0.0, value)


METRIC = Metric(
    name="bleu",
    direction={f"bleu_{n}": "higher" for n in ORDERS},
    unit="percent",
    needs=("responses", "references"),
    compute=compute_bleu,
)
