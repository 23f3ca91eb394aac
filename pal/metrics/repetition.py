"""Repetition within a response (Welleck et al. 2020, seq-rep-n) and across a system's responses."""

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from pal.metrics.base import Metric, Predictions, Scores, Variant
from pal.stats.pooled import Items, Types

REPETITION_ORDERS = (2, 3, 4)
OPENING = 3  # tokens of a response that its opening has


def compute_repetition(predictions: Predictions, variant: Variant = "correct") -> Scores:
    """Return shares of what is said again, percent, 0 to 100; the lower, the better.

    ``repetition_n`` is the share of a response's n-grams that it has said before, 1 − distinct /
    all: the mean over samples; a response with no n-gram repeats nothing and counts as 0.

    ``repeated_responses`` is the share of responses that are the same, token by token, as an
    earlier one of the system, 1 − distinct / all, and ``repeated_openings`` the same of their first
    three tokens ("i'm sorry …"). Empty responses are left out of both. Neither is defined for
    one sample or is a sum over samples, so there is no ``per_sample``; ``types`` counts any
    selection of samples. Both grow with the number of responses: compare systems on the same test
    set only.
    """
    texts = predictions.response_tokens
    scores = Scores()
    for n in REPETITION_ORDERS:
        scores.add_mean(f"repetition_{n}", [100 * share_repeated(text, n) for text in texts])
    for key, part in (("repeated_responses", None), ("repeated_openings", OPENING)):
        items = Items(_list_heads(texts, part))
        if not any(texts):
            scores.undefined[key] = "every response is empty"
            continue
        scores.types[key] = Types(items, _percent_repeated)
        scores.corpus[key] = float(scores.types[key].value())
    return scores


def share_repeated(tokens: Sequence[str], n: int) -> float:
    """Return the share of the n-grams of a text that stand in it before, 0 to 1.

    Example:
        >>> share_repeated(["so", "so", "so"], 1)
        0.6666666666666666
    """
    total = len(tokens) - n + 1
    if total < 1:
        return 0.0
    return 1 - len(set(zip(*(tokens[i:] for i in range(n)), strict=False))) / total


def _list_heads(
    texts: Sequence[Sequence[str]], length: int | None
) -> Callable[[], list[list[Hashable]]]:
    return lambda: [[tuple(text[:length])] if text else [] for text in texts]


def _percent_repeated(types: np.ndarray, items: np.ndarray) -> np.ndarray:
    return 100 * (1 - types / items)


METRIC = Metric(
    name="repetition",
    direction=dict.fromkeys(
        (
            *(f"repetition_{n}" for n in REPETITION_ORDERS),
            *("repeated_responses", "repeated_openings"),
        ),
        "lower",
    ),
    unit="percent",
    needs=("responses",),
    compute=compute_repetition,
)
