"""Synthetic dialogues in any number, to measure what a corpus of that size takes.

The words are invented and as frequent as words are (Zipf), so that vocabularies, caches and
sketches meet what they would meet in real texts, but for its meaning.
"""

import bisect
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pal.core.files import atomic_writer
from pal.data.strategies import STRATEGIES

VOCABULARY = 20_000
WORDS = 12  # of a turn, on average; the longest has four times as many
SENTENCE = 6  # words of a sentence of the persona
SENTENCES = 3  # of a persona, at most
FIRST_KNOWN = 2  # index of the first turn at which a persona is known

_SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "ai", "en", "or")]


class Words:
    """Draws invented words, each as often as its rank says.

    Args:
        generator: source of chance.
    """

    def __init__(self, generator: random.Random):
        self.generator = generator
        self.words = [_word(rank) for rank in range(VOCABULARY)]
        self.shares = list(itertools.accumulate(1 / (rank + 2.7) for rank in range(VOCABULARY)))

    def text(self, count: int) -> str:
        """Return a sentence of ``count`` words."""
        draws = (self.generator.random() * self.shares[-1] for _ in range(count))
        return " ".join(self.words[bisect.bisect(self.shares, one)] for one in draws) + "."


def _word(rank: int) -> str:
    word = ""
    while True:
        rank, place = divmod(rank, len(_SYLLABLES))
        word += _SYLLABLES[place]
        if not rank:
            return word
        rank -= 1


def synthetic_dialogues(count: int, *, turns: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield dialogues in the layout of the hub, with a persona that grows.

    Args:
        count: number of dialogues.
        turns: of each; the seeker begins.
        seed: of their words.
    """
    generator = random.Random(seed)
    words = Words(generator)
    for number in range(count):
        persona: list[str] = []
        dialog = []
        for place in range(turns):
            seeker = place % 2 == 0
            length = 1 + min(int(generator.expovariate(1 / (WORDS - 1))), 4 * WORDS)
            turn: dict[str, Any] = {
                "text": words.text(length), "speaker": "usr" if seeker else "sys",
            }  # fmt: skip
            if not seeker:
                turn["strategy"] = generator.choice(STRATEGIES)
            elif place >= FIRST_KNOWN and len(persona) < SENTENCES:
                persona = [*persona, "i " + words.text(SENTENCE - 1)]
            dialog.append({**turn, "persona": persona})
        yield {
            "id": f"d{number:07d}", "situation": words.text(2 * WORDS), "dialog": dialog,
            "persona": persona,
        }  # fmt: skip


def write_synthetic(path: Path, count: int, *, turns: int, seed: int) -> int:
    """Write synthetic dialogues as JSON lines and return the size of the file, bytes.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_writer(path) as handle:
        for dialogue in synthetic_dialogues(count, turns=turns, seed=seed):
            handle.write(json.dumps(dialogue) + "\n")
    return path.stat().st_size
