"""Diversity: Distinct-n (Li et al. 2016) and EAD (Liu et al. 2022); PAL paper, Table 3, D and E."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from pal.metrics.base import Metric, Predictions, Scores, Variant
from pal.stats.pooled import Items, Types

DISTINCT_ORDERS = (1, 2, 3)
EAD_ORDERS = (1, 2)
DISTINCT_KEYS = (*(f"distinct_{n}" for n in DISTINCT_ORDERS), *(f"ead_{n}" for n in EAD_ORDERS))


def compute_distinct(predictions: Predictions, variant: Variant = "correct") -> Scores:
    """Return Distinct-1 to 3 and EAD-1 and 2 of all responses together, percent, above 0.

    Distinct-n is at most 100; EAD-n can exceed 100 slightly. Neither is defined for one sample or
    is a sum over samples, so there is no ``per_sample``; ``types`` counts any selection of samples.

    The "authors" variant reproduces two errors of the released code: Distinct-n skips the last
    n-gram of each response; EAD keeps letter case and counts within sentences only.
    """
    whole: list[list[Sequence[str]]] = [[tokens] for tokens in predictions.response_tokens]
    pieces = whole
    if variant == "authors":
        from pal.metrics.text import find_tokenizer, sentences

        tokenize = find_tokenizer(predictions.tokenizer)
        pieces = [
            [tokenize(sentence, lower=False) for sentence in sentences(response)]
            for response in predictions.responses or ()
        ]
        whole = [[tokens[:-1]] for (tokens,) in whole]
    vocab_size = predictions.vocab_size
    scores = Scores()
    counts = _count(whole)
    _add(scores, "distinct", DISTINCT_ORDERS, whole, counts, lambda types, items: types / items)
    counts = counts if pieces is whole else _count(pieces)
    _add(scores, "ead", EAD_ORDERS, pieces, counts, lambda n, c: ead(n, c, vocab_size))
    if pieces is whole:  # the same n-grams, counted once for every selection of samples
        for n in EAD_ORDERS:
            if f"ead_{n}" in scores.types:
                shared = scores.types[f"distinct_{n}"].items
                scores.types[f"ead_{n}"] = Types(shared, scores.types[f"ead_{n}"].finish)
    return scores


def count_orders(texts: Sequence[Sequence[str]], highest: int) -> list[tuple[int, int]]:
    """Return the numbers of distinct and of all n-grams in texts, for every n to ``highest``.

    Words are numbered once for all n, and n-grams are compared as numbers instead of tuples, which
    is three times as fast as a set of tuples for each n.
    """
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__  # a new word gets the next number
    words = chain.from_iterable(texts)  # T of them
    ids = np.fromiter(map(numbers.__getitem__, words), np.int64, lengths.sum())
    # For each word the words from there to the end of its text: an n-gram starts where n are left.
    left = np.repeat(lengths.cumsum(), lengths) - np.arange(len(ids))  # [T]
    grams, counts = ids, [(len(numbers), len(ids))]
    for n in range(2, highest + 1):
        # Below T · T: each pair (n-gram before, next word) has its own number; then small ones
        pairs = grams[: len(ids) - n + 1] * len(numbers) + ids[n - 1 :]
        grams = np.unique(pairs, return_inverse=True)[1]
        found = grams[left[: len(grams)] >= n]
        counts.append((int(np.count_nonzero(np.bincount(found))), len(found)))
    return counts


def ead(distinct: Any, total: Any, vocab_size: int) -> Any:
    """Return expectation-adjusted Distinct, N / (V(1 − ((V−1)/V)^C)), as a fraction.

    Args:
        distinct: N, distinct n-grams; a number or an array, like ``total``.
        total: C, all n-grams, at least 1.
        vocab_size: V, the model's vocabulary size; the same for every n, as in the authors' code.
    """
    return distinct / (vocab_size * -np.expm1(total * math.log1p(-1 / vocab_size)))


def _count(texts: Sequence[Sequence[Sequence[str]]]) -> list[tuple[int, int]]:
    return count_orders([piece for pieces in texts for piece in pieces], max(DISTINCT_ORDERS))


def _add(
    scores: Scores,
    name: str,
    orders: Sequence[int],
    texts: Sequence[Sequence[Sequence[str]]],
    counts: Sequence[tuple[int, int]],
    fraction: Callable[[Any, Any], Any],
) -> None:
    """Add one value per order; n-grams lie within the pieces of each response in ``texts``."""
    for n in orders:
        distinct, total = counts[n - 1]
        if not total:
            scores.undefined[f"{name}_{n}"] = f"no response has {n} tokens to count"
            continue
        scores.corpus[f"{name}_{n}"] = float(100 * fraction(distinct, total))
        items = Items(partial(_ngrams, texts, n))
        scores.types[f"{name}_{n}"] = Types(items, lambda *counts: 100 * fraction(*counts))


def _ngrams(texts: Sequence[Sequence[Sequence[str]]], n: int) -> list[list[tuple[str, ...]]]:
    """Return the n-grams of every response."""
    return [
        [gram for piece in pieces for gram in zip(*(piece[i:] for i in range(n)), strict=False)]
        for pieces in texts
    ]


METRIC = Metric(
    name="distinct",
    direction=dict.fromkeys(DISTINCT_KEYS, "higher"),
    unit="percent",
    needs=("responses",),
    compute=compute_distinct,
    authors_differ=DISTINCT_KEYS,
)
