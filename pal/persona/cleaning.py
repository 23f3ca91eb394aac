"""Cleaning of inferred persona sentences, and the persona known at every turn."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from pal.data.words import FUNCTION_WORDS

# Sentences that a model trained on PersonaChat infers for anyone; the authors remove them too.
LEAKAGE = ("my favorite color is", "my favorite band")


def clean_sentences(sentences: Iterable[str]) -> list[str]:
    """Remove empty, duplicate, very short (< 2 words), very long (> 25) and leaked sentences."""
    kept: dict[str, str] = {}
    for sentence in sentences:
        sentence = " ".join(sentence.split())
        key = sentence.lower()
        if 2 <= len(sentence.split()) <= 25 and not any(leak in key for leak in LEAKAGE):
            kept.setdefault(key, sentence)
    return list(kept.values())


def support(sentence: str, said: Iterable[str]) -> float:
    """Return the share of a sentence's content words in the utterance with most of them, 0 to 1.

    A sentence that a model inferred of a speaker is often one that it has seen in training, or put
    together from what the speaker said at different times of different things. Words are compared
    by their stems (Porter).

    Args:
        sentence: a persona sentence.
        said: the speaker's utterances.

    Example:
        >>> support("I have two dogs.", ["my dog is ill", "two weeks now"])
        0.5
    """
    wanted = _stems(sentence)
    most = max((len(wanted & _stems(one)) for one in said), default=0)
    return most / len(wanted) if wanted else 0.0


@lru_cache(maxsize=100_000)
def _stems(text: str) -> frozenset[str]:
    from nltk.stem import PorterStemmer

    stemmer = PorterStemmer()
    words = re.findall(r"[a-z0-9]+", text.lower().replace("'", " "))
    return frozenset(stemmer.stem(word) for word in words if word not in FUNCTION_WORDS)


def annotated_prefixes(dialog: Sequence[dict[str, Any]], start: str) -> dict[int, tuple[str, ...]]:
    """Return, for every seeker turn to annotate, the seeker's utterances up to it.

    Args:
        dialog: the turns of a dialogue.
        start: ``third_utterance`` (of the conversation; the paper) or ``third_seeker_turn``
            (the released data).
    """
    prefixes: dict[int, tuple[str, ...]] = {}
    said: tuple[str, ...] = ()
    for index, turn in enumerate(dialog):
        if turn["speaker"] != "seeker":
            continue
        said = (*said, turn["text"])
        if index >= 2 if start == "third_utterance" else len(said) >= 3:
            prefixes[index] = said
    return prefixes


def add_personas(
    dialogue: Mapping[str, Any],
    inferred: Mapping[tuple[str, ...], Sequence[str]],
    start: str,
    min_support: float = 0.0,
) -> dict[str, Any]:
    """Return the dialogue with the persona known at every turn, which accumulates.

    Args:
        dialogue: a row of :func:`pal.data.load_esconv`.
        inferred: the sentences inferred from each prefix of the seeker's utterances.
        start: see :func:`annotated_prefixes`.
        min_support: least :func:`support` of a sentence by these utterances.
    """
    prefixes = annotated_prefixes(dialogue["dialog"], start)
    known: list[str] = []
    dialog = []
    for index, turn in enumerate(dialogue["dialog"]):
        if index in prefixes:
            said = prefixes[index]
            new = inferred[said]
            if min_support > 0:
                new = [one for one in new if support(one, said) >= min_support]
            known = clean_sentences([*known, *new])
        dialog.append({**turn, "persona": known})
    return {**dialogue, "dialog": dialog, "persona": known}
