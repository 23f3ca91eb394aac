"""Windows of a text: a few sentences at a time, so that one sentence is not lost in a long post."""

import re

_END = re.compile(r"(?<=[.!?…])\s+|\n+")

# Sentences of a window, and the most windows of a text; a text of a turn has one or two.
SENTENCES = 3
MOST_WINDOWS = 64

# Words of a sentence that is cut: people write whole posts without a full stop.
LONGEST_SENTENCE = 60


def windows_of(text: str) -> list[str]:
    """Return the windows of a text, overlapping; of a short one, the text itself.

    Example:
        >>> windows_of("One. Two. Three. Four.")
        ['One. Two. Three.', 'Two. Three. Four.']
    """
    sentences = []
    for part in _END.split(text):
        words = part.split()
        for start in range(0, len(words), LONGEST_SENTENCE):
            sentences.append(" ".join(words[start : start + LONGEST_SENTENCE]))
    if len(sentences) <= SENTENCES:
        return [" ".join(sentences)]
    starts = range(len(sentences) - SENTENCES + 1)
    found = [" ".join(sentences[start : start + SENTENCES]) for start in starts]
    return found if len(found) <= MOST_WINDOWS else _spread(found)


def _spread(found: list[str]) -> list[str]:
    """Return as many windows as are read, from all over a very long text."""
    step = len(found) / MOST_WINDOWS
    return [found[int(place * step)] for place in range(MOST_WINDOWS)]
