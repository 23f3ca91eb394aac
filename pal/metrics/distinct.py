"""Diversity: Distinct-n (Li et al. 2016) and EAD (Liu et al. 2022); PAL paper, Table 3, D and E."""

import math
from collections.abc import Iterable, Sequence

from pal.metrics.base import Metric, Predictions, Scores, Variant

DISTINCT_ORDERS = (1, 2, 3)
EAD_ORDERS = (1, 2)
KEYS = (*(f"distinct_{n}" for n in DISTINCT_ORDERS), *(f"ead_{n}" for n in EAD_ORDERS))


def compute_distinct(predictions: Predictions, variant: Variant = "correct") -> Scores:
    """Return Distinct-1 to 3 and EAD-1 and 2, percent, above 0, of all responses together.

    Distinct-n is at most 100; EAD-n can pass 100 slightly. Neither is defined for one sample nor a
    sum over samples, so there is no ``per_sample``.

    The "authors" variant repeats two slips of the released code: Distinct-n skips each response's
    last n-gram; EAD keeps letter case and counts within sentences only.
    """
    tokens: Sequence[Sequence[str]] = predictions.response_tokens
    pieces = tokens
    if variant == "authors":
        from pal.metrics.text import sentences, tokenize

        pieces = [
            tokenize(sentence, lower=False)
            for response in predictions.responses or ()
            for sentence in sentences(response)
        ]
        tokens = [words[:-1] for words in tokens]
    scores = Scores()
    for n in DISTINCT_ORDERS:
        distinct, total = count_ngrams(tokens, n)
        _add(scores, f"distinct_{n}", n, distinct / total if total else None)
    for n in EAD_ORDERS:
        distinct, total = count_ngrams(pieces, n)
        value = ead(distinct, total, predictions.vocab_size) if total else None
        _add(scores, f"ead_{n}", n, value)
    return scores


def count_ngrams(texts: Iterable[Sequence[str]], n: int) -> tuple[int, int]:
    """Return how many distinct n-grams the texts have, and how many in all."""
    distinct: set[tuple[str, ...]] = set()
    total = 0
    for tokens in texts:
        distinct.update(zip(*(tokens[i:] for i in range(n)), strict=False))
        total += max(0, len(tokens) - n + 1)
    return len(distinct), total


def ead(distinct: int, total: int, vocab_size: int) -> float:
    """Return expectation-adjusted Distinct, N / (V(1 − ((V−1)/V)^C)), as a fraction.

    Args:
        distinct: N, distinct n-grams.
        total: C, all n-grams, at least 1.
        vocab_size: V, the model's vocabulary size; the same for every n, as in the authors' code.
    """
    return distinct / (vocab_size * -math.expm1(total * math.log1p(-1 / vocab_size)))


def _add(scores: Scores, key: str, n: int, fraction: float | None) -> None:
    if fraction is None:
        scores.undefined[key] = f"no response has {n} tokens to count"
    else:
        scores.corpus[key] = 100 * fraction


METRIC = Metric(
    name="distinct",
    direction=dict.fromkeys(KEYS, "higher"),
    unit="percent",
    needs=("responses",),
    compute=compute_distinct,
    authors_differ=KEYS,
)
