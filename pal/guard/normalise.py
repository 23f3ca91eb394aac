"""Text as the lexicon reads it: one spelling for what people write in many ways.

Case, quotes, invisible characters, full-width letters, accents, letters replaced by digits and
signs, spaced or starred words, stretched words, short forms and single slips of the finger are
undone, so that "I want to K1LL  mysefl" reads as "i wanna kill myself". Apostrophes are left out.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping

from pal.data.texts import without_invisible

# Letters of other alphabets that look like Latin ones.
_ALIKE = str.maketrans("асеоруіхкмтвнѕјԁһіαεοικντρυχı", "aceopyixkmtbhsjdhiaeoikntpuxi")
_DIGITS = str.maketrans("0345789@$+", "oeastbgast")

LONGEST_WORD = 16  # letters of a word in which a slip is looked for

_APOSTROPHES = re.compile("(?<=\\w)['’‘`´\u02bc\uff07](?=\\w)")
# Each run of signs is read once: what reads it again from every place takes time with its square.
_DOTS = re.compile(r"(?:(?<!\.)\.{2,}+|…)\s*+(?=[a-z])")
_MIXED = re.compile(r"(?<![\w@$])[\w@$][\w@$!|*]*[\w$@](?=([!|*]?))")
_LETTER = re.compile(r"[a-z]")
_SIGN = re.compile(r"[0-9@$!|*]")
_NUMBER = re.compile(r"\d+[a-z]{1,3}")
_SPACED = re.compile(r"(?<![\w])(?:[a-z][ .\-_*]){2,}[a-z](?![\w])")
_STRETCHED = re.compile(r"([a-z])\1{2,}")
_BREAK = re.compile(r"[.!;\n]+|\?+")
_OTHER = re.compile(r"[^a-z0-9 ]+")
_NO_WORD = re.compile(r"[\W_]+")

# Letters that have no accent to leave out.
_BARRED = str.maketrans({"ł": "l", "đ": "d", "ø": "o", "\u0131": "i", "æ": "ae", "œ": "oe"})


def has_surrogate(text: str) -> bool:
    """Return whether a text holds a lone surrogate, as undecodable bytes give."""
    return not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)


class Normaliser:
    """Brings texts into the spelling that patterns are written in.

    Args:
        words: the words of the patterns; a slip of the finger in one of them is undone.
        spellings: other spellings and short forms, each with what it stands for; several words
            stand for several words.
        real: words that are one letter from one of ``words`` and are words of their own.
    """

    def __init__(
        self, *, words: frozenset[str], spellings: Mapping[str, str], real: frozenset[str]
    ):
        words |= {word for spelling in spellings for word in spelling.split() if len(word) > 3}
        single = {old: new for old, new in spellings.items() if " " not in old}
        several = {old: new for old, new in spellings.items() if " " in old}
        self._single = single
        self._several = several
        ordered = sorted(several, key=len, reverse=True)
        self._phrases = re.compile(rf"\b(?:{'|'.join(map(re.escape, ordered))})\b")
        self._words = words
        self._known = words | real | frozenset(single)
        self._near: dict[str, list[str]] = {}
        for word in sorted(words):
            if len(word) >= 4:
                for form in (word, *_shorter(word)):
                    self._near.setdefault(form, []).append(word)

    def sentences(self, text: str) -> list[str]:
        """Return the sentences of a text: words and numbers, single spaces, and `` ?``."""
        found = []
        start = 0
        text = self._letters(text)
        for end in _BREAK.finditer(text):
            sentence = self._sentence(text[start : end.start()])
            if sentence:
                found.append(sentence + " ?" if "?" in end.group() else sentence)
            start = end.end()
        sentence = self._sentence(text[start:])
        return [*found, sentence] if sentence else found

    def _letters(self, text: str) -> str:
        """Return a text in small Latin letters, digits and signs.

        What the models do not see between letters is left out here too.
        """
        text = without_invisible(text)
        text = _APOSTROPHES.sub("", _DOTS.sub(" ", text))
        if not text.isascii():
            text = unicodedata.normalize("NFKD", text).casefold().translate(_ALIKE)
            text = "".join(map(_plain_letter, text))
            text = _APOSTROPHES.sub("", text)
        text = _MIXED.sub(self._without_signs, text.lower())
        return _SPACED.sub(_joined, text)

    def _sentence(self, text: str) -> str:
        words = _OTHER.sub(" ", text).split()
        if not words:
            return ""
        text = " ".join([self._word(word) for word in words])
        return self._phrases.sub(lambda found: self._several[found.group()], text)

    def _word(self, word: str) -> str:
        """Return a word as the patterns write it, where it is one of theirs."""
        if word in self._single:
            return self._single[word]
        if word in self._known or len(word) < 3:
            return word
        short = _STRETCHED.sub(r"\1\1", word)
        if short != word:
            for form in (_STRETCHED.sub(r"\1", word), short):
                if form in self._known:
                    return self._single.get(form, form)
        once = re.sub(r"(.)\1", r"\1", short)
        if once in self._words:
            return once
        return self._nearest(short)

    def _nearest(self, word: str) -> str:
        """Return the one of the patterns' words that is one slip away, or the word itself."""
        if not 2 < len(word) < LONGEST_WORD:
            return word
        near = [
            other
            for form in (word, *_shorter(word))
            for other in self._near.get(form, ())
            if _one_slip(word, other)
        ]
        # Swapped letters are the surest slip, and the first letter is seldom wrong.
        best = max(
            near,
            key=lambda other: (sorted(other) == sorted(word), other[0] == word[0], len(other)),
            default=word,
        )
        return self._single.get(best, best)

    def _without_signs(self, found: re.Match[str]) -> str:
        """Return a word whose digits and signs stand for letters."""
        word = found.group()
        if word.isalpha() or not (_LETTER.search(word) and _SIGN.search(word + found[1])):
            return word
        forms = [word.translate(_DIGITS)]
        for sign in "1!|":
            forms = [form.replace(sign, letter) for form in forms for letter in "il"]
        forms = [form.replace("*", "") for form in forms]
        known = [form for form in forms if form in self._known]
        if not known and _NUMBER.fullmatch(word):
            return word
        return (known or [self._nearest(forms[0])])[0]


class PlainSpelling:
    """Brings texts in any language into small letters without accents, and changes nothing else."""

    def sentences(self, text: str) -> list[str]:
        """Return the sentences of a text: words and numbers, and single spaces."""
        text = plain_letters(_APOSTROPHES.sub("", without_invisible(text)))
        parts = []
        for part in _BREAK.split(text):
            # "No, quiero morir" is an answer and what follows, and no negation.
            first, comma, rest = part.partition(",")
            parts += [first, rest] if comma and len(first.split()) == 1 else [part]
        plain = (" ".join(_NO_WORD.sub(" ", part).split()) for part in parts)
        return [part for part in plain if part]


def plain_letters(text: str) -> str:
    """Return a text in small letters without accents.

    Example:
        >>> plain_letters("Chcę żyć, Łucja")
        'chce zyc, lucja'
    """
    if text.isascii():
        return text.lower()
    # The dot of a Turkish capital I is an accent before it is made small.
    text = unicodedata.normalize("NFKD", text).casefold().translate(_BARRED)
    return "".join(letter for letter in text if not unicodedata.combining(letter))


def _plain_letter(letter: str) -> str:
    if letter.isascii():
        return letter
    if letter in "’‘\u02bc":
        return "'"
    kind = unicodedata.category(letter)
    return "" if kind in ("Mn", "Me", "Cf", "Cc", "Cs") else letter if kind[0] == "L" else " "


def _joined(found: re.Match[str]) -> str:
    return re.sub(r"[^a-z]", "", found.group())


def _shorter(word: str) -> Iterator[str]:
    """Yield the word with each one letter left out."""
    for place in range(len(word)):
        yield word[:place] + word[place + 1 :]


def _one_slip(one: str, other: str) -> bool:
    """Return whether two words differ by one letter more, less, other or by two swapped."""
    if len(one) == len(other):
        wrong = [place for place in range(len(one)) if one[place] != other[place]]
        if len(wrong) == 2 and wrong[1] == wrong[0] + 1:
            first, second = wrong
            return one[first] == other[second] and one[second] == other[first]
        return len(wrong) <= 1
    return abs(len(one) - len(other)) == 1  # they share a form that lacks a letter
