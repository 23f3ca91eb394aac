"""BLEU, Distinct, EAD, ROUGE-L, F1 and length against hand-worked cases and NLTK."""

import math
import random

import pytest

from pal.metrics import Predictions, compute_metrics
from pal.metrics.distinct import count_orders, ead


def values(responses, references=None, variant="correct", **fields):
    predictions = Predictions(responses, references, **fields)
    names = ["bleu", "distinct", "rouge", "f1", "length"]
    return compute_metrics(predictions, names, variant).values


def test_bleu_clips_repeated_words():
    """Papineni et al. 2002, section 2.1: 2 of 7 unigrams count."""
    found = values(["the the the the the the the"], ["the cat is on the mat"])
    assert found["bleu_1"] == pytest.approx(100 * 2 / 7)


def test_bleu_smooths_orders_without_a_match_and_punishes_short_responses():
    found = values(["the cat"], ["the cat sat down"])
    brevity = math.exp(1 - 4 / 2)
    assert found["bleu_2"] == pytest.approx(100 * brevity)
    assert found["bleu_3"] == pytest.approx(100 * brevity * 0.5 ** (1 / 3))
    assert found["bleu_4"] == pytest.approx(100 * brevity * (0.5 * 0.25) ** (1 / 4))


@pytest.mark.parametrize("seed", range(5))
def test_bleu_is_nltks(seed):
    from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

    chance = random.Random(seed)
    vocabulary = "abcdefgh"[: 2 + seed]
    texts = [" ".join(chance.choices(vocabulary, k=chance.randrange(9))) for _ in range(40)]
    responses, references = texts[:20], texts[20:]
    weights = [(1 / n,) * n for n in (1, 2, 3, 4)]
    smooth = SmoothingFunction().method3
    whole = corpus_bleu(
        [[text.split()] for text in references], [t.split() for t in responses], weights, smooth
    )
    report = compute_metrics(Predictions(responses, references), ["bleu"])
    for n, theirs in enumerate(whole, start=1):
        assert report.values[f"bleu_{n}"] == pytest.approx(100 * theirs, abs=1e-9)
    for row, (response, reference) in enumerate(zip(responses, references, strict=True)):
        single = corpus_bleu([[reference.split()]], [response.split()], weights, smooth)
        ours = [report.per_sample[f"bleu_{n}"][row] for n in (1, 2, 3, 4)]
        assert ours == pytest.approx([100 * value for value in single], abs=1e-9)


@pytest.mark.parametrize(
    ("response", "expected"), [("police kill the gunman", 75), ("the gunman kill police", 50)]
)
def test_rouge_l_of_its_paper(response, expected):
    """Lin 2004, section 3.1: the sentences S2 and S3 against S1."""
    found = values([response], ["police killed the gunman"])
    assert found["rouge_l"] == pytest.approx(expected)


def test_rouge_l_weighs_recall_more():
    precision, recall = 1.0, 0.5
    expected = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert values(["a b"], ["a b c d"])["rouge_l"] == pytest.approx(100 * expected)


def test_distinct_counts_every_ngram_and_the_authors_variant_does_not():
    correct, authors = (values(["a b a b"], variant=variant) for variant in ("correct", "authors"))
    assert [correct[f"distinct_{n}"] for n in (1, 2, 3)] == pytest.approx([50, 200 / 3, 100])
    assert [authors[f"distinct_{n}"] for n in (1, 2, 3)] == pytest.approx([200 / 3, 100, 100])


def test_authors_ead_keeps_case_and_stops_at_sentences():
    fields = {"responses": ["The end. the end."], "vocab_size": 100}
    assert values(**fields)["ead_1"] == pytest.approx(100 * ead(3, 6, 100))
    assert values(**fields, variant="authors")["ead_1"] == pytest.approx(100 * ead(4, 6, 100))
    assert values(**fields, variant="authors")["ead_2"] == pytest.approx(100 * ead(3, 4, 100))


def test_ead_by_hand():
    """V = 2, C = 2: two draws from two words give 2(1 − 1/4) = 1.5 distinct words on average."""
    assert ead(2, 2, 2) == pytest.approx(2 / 1.5)
    assert ead(1, 1, 54_956) == pytest.approx(1.0)  # one draw is always distinct
    assert count_orders([("a", "b", "a"), ("a",), ()], 2) == [(2, 4), (2, 2)]


def test_f1_counts_words_as_often_as_they_occur():
    assert values(["a a b"], ["a c"])["f1"] == pytest.approx(100 * 2 * 1 / 5)


def test_empty_response():
    report = compute_metrics(Predictions(["", ""], ["a b", "c"]))
    assert report.values["length"] == 0
    assert {report.values[key] for key in ("bleu_1", "bleu_4", "rouge_l", "f1")} == {0.0}
    assert report.missing["distinct_2"] == "no response has 2 tokens to count"
    assert report.missing["ead_1"] == "no response has 1 tokens to count"


def test_identical_texts():
    found = values(["one two three four five"] * 3, ["one two three four five"] * 3)
    exact = [found[key] for key in ("bleu_1", "bleu_4", "rouge_l", "f1")]
    assert exact == pytest.approx([100] * 4)
    assert found["distinct_1"] == pytest.approx(100 / 3)
