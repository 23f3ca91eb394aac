"""Cleaning of inferred persona sentences, and the persona known at every turn."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

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
) -> dict[str, Any]:
    """Return the dialogue with the persona known at every turn, which accumulates."""
    prefixes = annotated_prefixes(dialogue["dialog"], start)
    known: list[str] = []
    dialog = []
    for index, turn in enumerate(dialogue["dialog"]):
        if index in prefixes:
            known = clean_sentences([*known, *inferred[prefixes[index]]])
        dialog.append({**turn, "persona": known})
    return {**dialogue, "dialog": dialog, "persona": known}
