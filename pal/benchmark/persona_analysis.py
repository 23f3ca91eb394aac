"""Statistics of the personas in dialogues, and of the turns that know them (PAL paper, Table 1)."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pal.data.samples import build_samples

logger = logging.getLogger(__name__)


def analyze_personas(dialogues: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return statistics of the personas in dialogues (PAL paper, Table 1).

    Args:
        dialogues: rows of :func:`pal.data.load_esconv`.

    Returns:
        The part ``personas`` of analysis.json. ``sentences`` counts the sentences known at the end
        of each dialogue, 0 without a persona; ``first_turn`` covers dialogues with a persona, turns
        counted from 1; ``coverage`` covers the supporter turns of evaluation, those after a seeker
        turn. The result is None, with the reason logged, if no turn has a persona; a persona of the
        whole conversation is not known at any turn.
    """
    sentences: list[int] = []
    first: list[int] = []
    covered: defaultdict[int, list[bool]] = defaultdict(list)
    for dialogue in dialogues:
        known = [bool(turn["persona"]) for turn in dialogue["dialog"]]
        sentences.append(len(dialogue["dialog"][-1]["persona"]))
        if any(known):
            first.append(known.index(True) + 1)
        for sample in build_samples([dialogue], "evaluation"):
            covered[sample.turn + 1].append(bool(sample.persona))
    if not first:
        logger.warning(
            "no analysis of personas and similarity: no turn of the %d dialogues has a persona; "
            "pal annotate infers them", len(sentences),
        )  # fmt: skip
        return None
    return {
        "dialogues": len(sentences),
        "with_persona": len(first),
        "sentences": {
            "mean": float(np.mean(sentences)),
            "sd": float(np.std(sentences, ddof=1)) if len(sentences) > 1 else None,
            "median": float(np.median(sentences)),
            "max": max(sentences),
            "histogram": _histogram(sentences),
        },
        "first_turn": {
            "mean": float(np.mean(first)),
            "median": float(np.median(first)),
            "histogram": _histogram(first),
        },
        "coverage": {
            "turns": sum(map(len, covered.values())),
            "with_persona": sum(map(sum, covered.values())),
            "by_turn": [[turn, sum(on) / len(on)] for turn, on in sorted(covered.items())],
        },
    }


def _histogram(values: Sequence[int]) -> list[list[int]]:
    return [[value, count] for value, count in sorted(Counter(values).items())]
