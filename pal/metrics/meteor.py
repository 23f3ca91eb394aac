"""METEOR of response and reference (Banerjee and Lavie 2005; Lavie and Agarwal 2007)."""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import cache, lru_cache
from itertools import pairwise

from pal.metrics.base import Metric, Predictions, Scores, Variant

# The parameters of Lavie and Agarwal 2007, which NLTK and papers on ESConv use.
ALPHA, PENALTY_POWER, PENALTY_WEIGHT = 0.9, 3.0, 0.5

Synonyms = Callable[[str], Collection[str]]


def compute_meteor(predictions: Predictions, variant: Variant = "correct") -> Scores:
    """Return METEOR, percent, 0 to 100: the mean over samples; an empty side scores 0.

    Words are matched in stages: equal words, then equal stems (Porter). ``meteor`` stops there, so
    it needs no data and is the same on every machine. ``meteor_wordnet`` has a third stage,
    synonyms; it is what NLTK's ``meteor_score`` returns and what papers usually print (NLTK looks
    up the stems of words, so it misses those that are no words themselves). It has no value unless
    ``synonyms`` is given or NLTK's WordNet is installed (``python -m nltk.downloader wordnet``).
    """
    pairs = list(zip(predictions.response_tokens, predictions.reference_tokens, strict=True))
    scores = Scores()
    scores.add_mean("meteor", [100 * score_meteor(*pair) for pair in pairs])
    synonyms = predictions.synonyms or wordnet_synonyms()
    if synonyms is None:
        scores.undefined["meteor_wordnet"] = "NLTK's WordNet is not installed"
    else:
        values = [100 * score_meteor(*pair, synonyms=synonyms) for pair in pairs]
        scores.add_mean("meteor_wordnet", values)
    return scores


def score_meteor(
    response: Sequence[str], reference: Sequence[str], synonyms: Synonyms | None = None
) -> float:
    """Return METEOR of one pair of token lists, 0 to 1.

    With m matches in c chunks (runs of words that are adjacent on both sides), precision P and
    recall R, it is PR / (αP + (1 − α)R) · (1 − ½ (c / m)³) with α = 0.9.

    Args:
        response: lower-cased tokens.
        reference: lower-cased tokens.
        synonyms: function from a stem to its synonyms, for the third stage; no such stage if None.

    Example:
        >>> score_meteor(["you", "feel", "sad"], ["you", "feel", "sad"])
        0.9814814814814815
    """
    matches, left, right = _match(dict(enumerate(response)), dict(enumerate(reference)), str)
    found, left, right = _match(left, right, _stem)
    matches += found
    if synonyms is not None:
        # As in NLTK, this stage looks up the stems of the words that are left, not the words.
        ours, theirs = ({i: _stem(word) for i, word in side.items()} for side in (left, right))
        matches += _match_synonyms(ours, theirs, synonyms)
    if not matches:
        return 0.0
    matches.sort()
    breaks = sum(b != (a[0] + 1, a[1] + 1) for a, b in pairwise(matches))
    precision, recall = len(matches) / len(response), len(matches) / len(reference)
    mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    return mean * (1 - PENALTY_WEIGHT * ((1 + breaks) / len(matches)) ** PENALTY_POWER)


def wordnet_synonyms() -> Synonyms | None:
    """Return the synonyms of NLTK's WordNet as a function, or None if its data is absent."""
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return None
    return _wordnet_lemmas


@lru_cache(maxsize=1 << 16)
def _wordnet_lemmas(word: str) -> frozenset[str]:
    from nltk.corpus import wordnet

    names = (lemma.name() for synset in wordnet.synsets(word) for lemma in synset.lemmas())
    return frozenset(name for name in names if "_" not in name)


def _match(
    left: dict[int, str], right: dict[int, str], form: Callable[[str], str]
) -> tuple[list[tuple[int, int]], dict[int, str], dict[int, str]]:
    """Match words of equal form, from the end; return the matches and what is left on each side."""
    places = _places(right, form)
    matches = []
    for i in reversed(left):
        if found := places.get(form(left[i])):
            matches.append((i, found.pop()))
    return matches, *_without(matches, left, right)


def _match_synonyms(
    left: dict[int, str], right: dict[int, str], synonyms: Synonyms
) -> list[tuple[int, int]]:
    """Match each word, from the end, with the last word left that is a synonym of it."""
    places = _places(right, str)
    matches = []
    for i in reversed(left):
        known = {left[i], *synonyms(left[i])}
        ends = [(places[word][-1], word) for word in known if places.get(word)]
        if ends:
            j, word = max(ends)
            places[word].pop()
            matches.append((i, j))
    return matches


def _places(words: dict[int, str], form: Callable[[str], str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = defaultdict(list)
    for j, word in words.items():
        places[form(word)].append(j)
    return places


def _without(
    matches: Sequence[tuple[int, int]], left: dict[int, str], right: dict[int, str]
) -> tuple[dict[int, str], dict[int, str]]:
    ours, theirs = {i for i, _ in matches}, {j for _, j in matches}
    return (
        {i: word for i, word in left.items() if i not in ours},
        {j: word for j, word in right.items() if j not in theirs},
    )


@lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    return _stemmer()(word)


@cache
def _stemmer() -> Callable[[str], str]:
    from nltk.stem import PorterStemmer

    return PorterStemmer().stem


METRIC = Metric(
    name="meteor",
    direction={"meteor": "higher", "meteor_wordnet": "higher"},
    unit="percent",
    needs=("responses", "references"),
    compute=compute_meteor,
)
