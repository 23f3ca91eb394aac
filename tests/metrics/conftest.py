"""Predictions that every metric can be computed from."""

import numpy as np
import pytest

from pal.metrics import Predictions


def bag_of_letters(texts):
    """Embed texts by their letters; what a real encoder's signature looks like."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return np.array([[text.lower().count(letter) for letter in letters] for text in texts])


def make_predictions(**changes):
    fields = {
        "responses": ["I am sorry to hear that.", "", "You can do it! I believe in you.", "ok"],
        "references": [
            "I am so sorry.",
            "Hello?",
            "You can do it! I believe in you.",
            "it's ok, really",
        ],
        "personas": [["I lost my job.", "I have a dog."], ["I am sad."], [], ["I study math."]],
        "strategies": [2, 0, 4, 4],
        "predicted_strategies": [2, 7, 4, 5],
        "strategy_probs": np.eye(8)[[2, 7, 4, 5]] + 0.1 * np.eye(8)[[1, 0, 1, 4]],
        "token_nll": [12.0, 3.0, 20.5, 9.0],
        "token_count": [6, 1, 9, 5],
        "strategy_nll": [1.0, 3.0, 0.5, 2.0],
        "embedder": bag_of_letters,
        "token_encoder": encode_letters,
        "nli": judge_lengths,
        "synonyms": lambda word: {"realli": ("so",)}.get(word, ()),
    }
    return Predictions(**fields | changes)


def encode_letters(texts):
    """Encode texts by a vector for each letter, between two special tokens."""
    vectors = np.concatenate([np.ones((1, 27)), np.eye(27) + 0.1])
    rows = [[0, *(1 + ord(c) - 97 for c in t.lower() if "a" <= c <= "z"), 0] for t in texts]
    return [(vectors[row], np.array([0.0, *[1.0] * (len(row) - 2), 0.0])) for row in rows]


def judge_lengths(pairs):
    """Judge pairs by the lengths of their texts; what a model of inference returns."""
    return np.array([np.roll([0.7, 0.2, 0.1], len(a) + len(b)) for a, b in pairs])


@pytest.fixture(autouse=True)
def without_wordnet(monkeypatch):
    """The same values where NLTK's WordNet is installed."""
    monkeypatch.setattr("pal.metrics.meteor.wordnet_synonyms", lambda: None)


@pytest.fixture
def predictions():
    return make_predictions()


@pytest.fixture
def fallback(monkeypatch):
    """Hide NLTK's own sentence model, if it is installed."""
    from nltk.tokenize import punkt

    from pal.metrics import text

    def absent(language):
        raise LookupError(language)

    def forget():
        text._sentence_splitter.cache_clear()
        text.tokenize.cache_clear()

    monkeypatch.setattr(punkt, "PunktTokenizer", absent)
    forget()
    yield
    forget()
