"""Self-BLEU: how alike the responses of a system are (Zhu et al. 2018, Texygen)."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from pal.metrics.base import Metric, Predictions, Scores, Variant

SELF_BLEU_ORDERS = (2, 3, 4)
_HIGHEST = max(SELF_BLEU_ORDERS)
_SMOOTHING = 0.1  # method 1 of NLTK: an order without a match counts as this many matches


def compute_self_bleu(predictions: Predictions, variant: Variant = "correct") -> Scores:
    """Return Self-BLEU-2 to 4, percent, 0 to 100; the higher, the more alike the responses are.

    It is the mean over responses of the sentence BLEU with all other responses as references, as
    NLTK's ``sentence_bleu`` with smoothing method 1 computes it. It is exact, not a sample of
    pairs: an n-gram's limit is the highest count in any other response, so the highest two counts
    over all responses are enough, and the work grows with the number of tokens, not of pairs.

    The value of a response depends on all others, so the corpus value is neither a mean of
    independent values nor a function of sums: it has no ``per_sample``, intervals or tests.
    """
    texts = predictions.response_tokens
    scores = Scores()
    if len(texts) < 2:
        reason = "one response has no other to be compared with"
        scores.undefined |= {f"self_bleu_{n}": reason for n in SELF_BLEU_ORDERS}
        return scores
    lengths = np.array([len(tokens) for tokens in texts], dtype=float)
    closest = _closest_lengths(lengths)
    counts = [_count_matches(texts, n) for n in range(1, _HIGHEST + 1)]
    matches, totals = (np.array(part) for part in zip(*counts, strict=True))  # [orders, N]
    precision = np.where(matches == 0, _SMOOTHING, matches) / np.maximum(totals, 1)
    brevity = np.exp(np.minimum(0, 1 - closest / np.maximum(lengths, 1)))
    for n in SELF_BLEU_ORDERS:
        values = 100 * brevity * np.exp(np.log(precision[:n]).mean(axis=0))
        scores.corpus[f"self_bleu_{n}"] = float(np.where(matches[0] == 0, 0.0, values).mean())
    return scores


def _count_matches(texts: Sequence[Sequence[str]], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each text its n-grams that others have, by their highest count, and all, [N]."""
    grams = [Counter(zip(*(text[i:] for i in range(n)), strict=False)) for text in texts]
    highest: dict[tuple[str, ...], tuple[int, int, int]] = {}  # count, its text, next count
    for index, counts in enumerate(grams):
        for gram, count in counts.items():
            most, holder, second = highest.get(gram, (0, -1, 0))
            if count > most:
                highest[gram] = (count, index, most)
            elif count > second:
                highest[gram] = (most, holder, count)
    matches = np.zeros(len(texts))
    for index, counts in enumerate(grams):
        for gram, count in counts.items():
            most, holder, second = highest[gram]
            matches[index] += min(count, second if holder == index else most)
    return matches, np.array([counts.total() for counts in grams], dtype=float)


def _closest_lengths(lengths: np.ndarray) -> np.ndarray:
    """Return the length of another text that is closest to that of each, the shorter of two."""
    found, places, counts = np.unique(lengths, return_inverse=True, return_counts=True)
    below = np.concatenate([[-np.inf], found[:-1]])
    above = np.concatenate([found[1:], [np.inf]])
    nearest = np.where(found - below <= above - found, below, above)
    return np.where(counts > 1, found, nearest)[places]


METRIC = Metric(
    name="self_bleu",
    direction={f"self_bleu_{n}": "lower" for n in SELF_BLEU_ORDERS},
    unit="percent",
    needs=("responses",),
    compute=compute_self_bleu,
)
