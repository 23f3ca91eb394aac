"""Strategy metrics and perplexity, by hand."""

import math

import numpy as np
import pytest

from pal.metrics import Predictions, compute_metrics


def test_accuracy_macro_f1_and_confusion():
    """Strategy 0: P = 1, R = 1/2; strategy 1: P = 1/2, R = 1; both F1 = 2/3."""
    report = compute_metrics(Predictions(strategies=[0, 0, 1], predicted_strategies=[0, 1, 1]))
    assert report.values["accuracy"] == pytest.approx(200 / 3)
    assert report.values["macro_f1"] == pytest.approx(200 / 3)
    assert report.details["confusion"][:2, :2].tolist() == [[1, 1], [0, 1]]
    assert report.missing["top_3"] == "needs strategy_probs"


def test_macro_f1_is_scikit_learns():
    from sklearn.metrics import f1_score

    gold, predicted = np.random.default_rng(0).integers(0, 7, size=(2, 60))
    report = compute_metrics(
        Predictions(strategies=gold.tolist(), predicted_strategies=predicted.tolist())
    )
    expected = 100 * f1_score(gold, predicted, average="macro")
    assert report.values["macro_f1"] == pytest.approx(expected)


def test_top_k():
    probs = np.zeros((3, 8))
    probs[0, 3] = 1  # right at once
    probs[1, [3, 5]] = [0.6, 0.4]  # right second
    report = compute_metrics(Predictions(strategies=[3, 5, 7], strategy_probs=probs))  # third: tie
    found = [report.values[f"top_{k}"] for k in range(1, 9)]
    assert found == pytest.approx([100 / 3] + [200 / 3] * 6 + [100])
    assert report.values["accuracy"] == report.values["top_1"]


def test_perplexity_is_over_tokens_not_samples():
    report = compute_metrics(
        Predictions(token_nll=[2.0, 10.0], token_count=[2, 4], strategy_nll=[1.0, 1.0])
    )
    assert report.values["ppl"] == pytest.approx(math.exp(12 / 6))
    assert report.values["ppl_without_strategy"] == pytest.approx(math.exp(10 / 4))
    assert report.per_sample["ppl"] == pytest.approx([math.exp(1), math.exp(2.5)])
    assert report.tokenizer is None


def test_targets_of_a_strategy_alone_are_left_out():
    fields = {"token_nll": [2.0, 6.0], "token_count": [1, 3], "strategy_nll": [2.0, 2.0]}
    report = compute_metrics(Predictions(**fields))
    assert report.values["ppl_without_strategy"] == pytest.approx(math.exp(4 / 2))
    assert report.meta["ppl_without_strategy"].n == 1
    assert report.rows["ppl_without_strategy"].tolist() == [1]


def test_strategies_of_several_tokens_are_left_out_whole():
    fields = {"token_nll": [9.0, 6.0], "token_count": [7, 3], "strategy_nll": [2.0, 2.0]}
    report = compute_metrics(Predictions(**fields, strategy_count=[3, 2]))
    assert report.values["ppl"] == pytest.approx(math.exp(15 / 10))
    assert report.values["ppl_without_strategy"] == pytest.approx(math.exp(11 / 5))
    alone = compute_metrics(Predictions(**fields, strategy_count=[3, 3]))
    assert alone.rows["ppl_without_strategy"].tolist() == [0]


def test_values_without_a_number_are_listed():
    one = compute_metrics(Predictions(token_nll=[5.0], token_count=[1], strategy_nll=[5.0]))
    assert one.missing["ppl_without_strategy"] == "no target has a token besides the strategy"
    huge = compute_metrics(Predictions(token_nll=[1e6], token_count=[1]))
    assert huge.missing["ppl"] == "not a finite number (inf)"
    assert huge.missing["ppl_without_strategy"] == "needs strategy_nll"
