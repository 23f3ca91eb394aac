"""Whether a turn is English at all: the lexicon reads no other language, and the guard says so.

It is a rule of thumb over letters and common words. A turn in another language is a concern, so
that help is kept on view, with the line that only English is read. In ten languages, plain
statements of wanting to die are a crisis. Words and statements stand in ``other_languages.yaml``.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from pal.guard.levels import CONCERN, NONE, Detection
from pal.guard.lexicon import load_lexicon, read_lexicon_file
from pal.guard.normalise import plain_letters

OTHER_LANGUAGE = "other_language"
LANGUAGES_FILE = "other_languages.yaml"

_WORD = re.compile(r"[^\W\d_]+")
_APOSTROPHES = re.compile("['’‘`´\u02bc]")

# Letters in a row that are not Latin: one alone is part of a face such as "¯\\_(ツ)_/¯".
FEWEST_LETTERS = 2


class _Words(NamedTuple):
    """Words without accents, by what they say of a turn."""

    sure: frozenset[str]
    shared: frozenset[str]
    english: frozenset[str]
    both: frozenset[str]
    loans: frozenset[str]
    sayings: re.Pattern[str]


class LanguageDetector:
    """Notices turns that are not English, and plain statements of wanting to die in some of them.

    Example:
        >>> found = LanguageDetector().detect(["Hola", "Hoy no puedo.", "Quiero morir."])
        >>> [one.level for one in found]
        [0, 1, 2]
    """

    name = "language"
    quick = True

    def __init__(self) -> None:
        self._statements = load_lexicon(LANGUAGES_FILE)
        self.version = f"2-{self._statements.version}"

    def detect(self, texts: Sequence[str]) -> list[Detection]:
        """Return a concern for each text in another language, and what a plain statement says."""
        found = []
        for text, said in zip(texts, self._statements.detect(texts), strict=True):
            if said.level > NONE:
                found.append(Detection(said.level, said.categories | {OTHER_LANGUAGE}))
            elif is_english(text):
                found.append(Detection())
            else:
                found.append(Detection(CONCERN, frozenset({OTHER_LANGUAGE})))
        return found


def is_english(text: str) -> bool:
    """Return whether a text may be English; numbers, names, greetings and loan words are.

    Example:
        >>> is_english("No quiero hablar de esto, estoy muy triste.")
        False
        >>> is_english("Adios, see you at the café!")
        True
    """
    if not text.isascii() and _is_other_script(text):
        return False
    known = _words()
    written = _WORD.findall(unicodedata.normalize("NFKC", _APOSTROPHES.sub("", text)))
    words = [(word, plain_letters(word)) for word in written]
    kept = known.sayings.sub("", " ".join(plain for _, plain in words)).split()
    if len(kept) < len(words):
        words = [(word, word) for word in kept]
    sure = shared = 0
    english = both = 0
    for word, plain in words:
        if plain in known.english:
            english += 1
        elif plain in known.sure or _has_foreign_letter(word, plain, known.loans):
            sure += 1
        elif plain in known.both:
            both += 1
        elif plain in known.shared:
            shared += 1
    other = sure + shared
    # A few words: none is English, and enough are known to be of another language.
    if sure and not english and other >= both and 4 * other >= len(words):
        return False
    if shared >= 2 and not english and not both and 3 * shared >= 2 * len(words) > 4:
        return False
    # More words: those of another language outweigh the English ones.
    if (sure >= 2 and 4 * other >= len(words)) or (other >= 3 and 5 * other >= len(words)):
        return other <= english + both / 2
    return True


def _has_foreign_letter(word: str, plain: str, loans: frozenset[str]) -> bool:
    """Return whether a word that is no name and no loan has a letter that English does not use."""
    if word.isascii() or len(word) < 2 or word[:1].isupper() > word[1:].isupper():
        return False
    return plain not in loans and plain.removesuffix("s") not in loans


def _is_other_script(text: str) -> bool:
    """Return whether most letters, and two in a row, are not Latin ones."""
    letters = latin = row = longest = 0
    for letter in text:
        if not letter.isalpha():
            row = 0
            continue
        letters += 1
        if _is_latin(letter):
            latin += 1
            row = 0
        else:
            row += 1
            longest = max(longest, row)
    return longest >= FEWEST_LETTERS and latin < letters / 2


def _is_latin(letter: str) -> bool:
    """Whether a letter is Latin, or is drawn like one: those disguise English words."""
    name = unicodedata.name(letter, "")
    return "LATIN" in name or "MATHEMATICAL" in name or "MODIFIER LETTER" in name


@cache
def _words() -> _Words:
    tree = read_lexicon_file(LANGUAGES_FILE)
    return _Words(
        sure=frozenset(word for words in tree["sure"].values() for word in words.split()),
        shared=frozenset(tree["shared"].split()),
        english=frozenset(tree["english"].split()),
        both=frozenset(tree["both"].split()),
        loans=frozenset(tree["loans"].split()),
        sayings=re.compile(rf"\b(?:{'|'.join(tree['sayings'])})\b"),
    )
