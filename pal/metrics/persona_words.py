"""How many of the persona's words a response uses."""

import re
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from pal.data.words import FUNCTION_WORDS
from pal.metrics.base import Metric, Predictions, Scores, Variant
from pal.metrics.text import find_tokenizer

# What NLTK's tokenizer makes of "haven't", "I've", "you're", "he'll" and "I'd"
_ENDINGS = frozenset(("n", "ve", "re", "ll", "d"))


def compute_persona_words(predictions: Predictions, variant: Variant = "correct") -> Scores:
    """Return the share of the persona's content words in the response, percent, 0 to 100.

    It is the mean over samples that have a persona with a content word; ``rows`` has them. Content
    words are all but function words (:data:`pal.data.words.FUNCTION_WORDS`). They are
    compared by their stems (Porter), and each counts once.
    """
    tokenize = find_tokenizer(predictions.tokenizer)
    wanted = [
        content_stems(token for sentence in persona for token in tokenize(sentence))
        for persona in predictions.personas or ()
    ]
    rows = np.array([i for i, words in enumerate(wanted) if words], dtype=int)
    scores = Scores()
    if not len(rows):
        scores.undefined["persona_words"] = "no sample has a persona with a content word"
        return scores
    if len(rows) < len(wanted):
        scores.rows["persona_words"] = rows
    said = predictions.response_tokens
    scores.add_mean(
        "persona_words",
        [100 * len(wanted[i] & content_stems(said[i])) / len(wanted[i]) for i in rows],
    )
    return scores


def content_stems(tokens: Iterable[str]) -> set[str]:
    """Return the stems of the content words among lower-cased tokens.

    Example:
        >>> sorted(content_stems(["i", "have", "n't", "walked", "the", "dogs", "."]))
        ['dog', 'walk']
    """
    return {stem for token in tokens for stem in _stems_of(token)}


@lru_cache(maxsize=1 << 16)
def _stems_of(token: str) -> tuple[str, ...]:
    from nltk.stem import PorterStemmer

    words = re.findall(r"\w+", token.lower())
    stem = PorterStemmer().stem
    return tuple(stem(w) for w in words if w not in FUNCTION_WORDS and w not in _ENDINGS)


METRIC = Metric(
    name="persona_words",
    direction={"persona_words": "higher"},
    unit="percent",
    needs=("responses", "personas"),
    compute=compute_persona_words,
)
