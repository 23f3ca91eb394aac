"""Whether a turn is English at all: the lexicon reads no other language, and the guard says so.

It is a rule of thumb over letters and the commonest words. A turn in another language is a concern,
so that help is kept on view, with the line that only English is read.
"""

import re
import unicodedata
from collections.abc import Sequence

from pal.guard.levels import CONCERN, Detection

OTHER_LANGUAGE = "other_language"

ENGLISH_WORDS = (
    "the and to i of a my is it in you that for me was but so this have with not im do on be"
)

# Common words of German, Spanish, French, Italian, Portuguese and Dutch that are no English words.
OTHER_WORDS = """
ich nicht und ist das mich mir mein meine auch aber mehr habe bin kann eine wie wir sehr leben
quiero estoy para pero muy vida tengo porque una los las que por esta todo yo nada
je ne pas suis mon veux est des les mais avec pour vie tres moi jai cest
non sono voglio piu che perche della ho niente
nao eu quero estou minha muito uma isso voce
ik niet mijn het een meer ben maar dat wil geen
"""
_ENGLISH = frozenset(ENGLISH_WORDS.split())
_OTHERS = frozenset(OTHER_WORDS.split())
_WORD = re.compile(r"[^\W\d_]+")
FEWEST_LETTERS = 4
FEWEST_WORDS = 3


class LanguageDetector:
    """Notices turns that are not English."""

    name = "language"
    version = "1"
    quick = True

    def detect(self, texts: Sequence[str]) -> list[Detection]:
        """Return a concern for each text that is in another language."""
        other = Detection(CONCERN, frozenset({OTHER_LANGUAGE}))
        return [Detection() if is_english(text) else other for text in texts]


def is_english(text: str) -> bool:
    """Return whether a text may be English; short ones, numbers and names are.

    Example:
        >>> is_english("No quiero hablar de esto, estoy muy triste.")
        False
    """
    letters = [letter for letter in text if letter.isalpha()]
    if not text.isascii() and len(letters) >= FEWEST_LETTERS:
        latin = sum(map(_is_latin, letters))
        if latin < len(letters) / 2:
            return False
    plain = unicodedata.normalize("NFKD", text.lower().replace("'", "").replace("’", ""))
    words = _WORD.findall("".join(letter for letter in plain if not unicodedata.combining(letter)))
    other = sum(word in _OTHERS for word in words)
    if other < FEWEST_WORDS or other < len(words) / 5:
        return True
    return sum(word in _ENGLISH for word in words) >= other


def _is_latin(letter: str) -> bool:
    """Whether a letter is Latin, or is drawn like one: those disguise English words."""
    name = unicodedata.name(letter, "")
    return "LATIN" in name or "MATHEMATICAL" in name or "MODIFIER LETTER" in name
