import math

import numpy as np
import pytest
from scipy import stats

from pal.metrics import Items, Predictions, Types, compute_metrics, mean_of
from pal.stats.resampling import compare, group_samples, holm, spreads, statistics_of

OPTIONS = {"confidence": 0.95, "resamples": 999, "seed": 0}


def means(*runs):
    return [{"m": mean_of(values)} for values in runs]


def test_samples_of_a_dialogue_are_one_group():
    assert group_samples(["a/1", "b/3", "a/7", "c"]).tolist() == [0, 1, 0, 2]
    assert group_samples(["x/1/2", "x/1/4", "x/2/2"]).tolist() == [0, 0, 1]


def test_grouped_values_are_the_corpus_values():
    words = [
        "i",
        "am",
        "so",
        "sorry",
        "to",
        "hear",
        "that",
        "it",
        "must",
        "be",
        "hard",
        "for",
        "you",
    ]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, rng.integers(2, 9))) for _ in range(30)]
    references = [" ".join(rng.choice(words, rng.integers(2, 9))) for _ in range(30)]
    report = compute_metrics(Predictions(responses=texts, references=references))
    found = statistics_of(report, np.arange(30) // 4)
    assert set(found) == set(report.values)
    for key, statistic in found.items():
        assert float(statistic.value()) == pytest.approx(report.values[key], rel=1e-9), key


def test_distinct_of_any_choice_of_samples_is_counted_anew():
    texts = ["a b a", "b c", "a b a", "d"]
    items = Items(lambda: [text.split() for text in texts])
    types = Types(items, lambda distinct, total: distinct / total)
    weights = np.array([[1, 0, 1, 0], [0, 2, 0, 1.0]])
    assert types.value(weights).tolist() == [2 / 6, 3 / 5]
    assert float(types.value()) == 4 / 9
    joined = Types(items.join(items), types.finish)
    assert float(joined.value()) == 4 / 18


def test_bootstrap_interval_of_a_mean_is_the_textbook_one():
    values = np.random.default_rng(1).normal(5, 2, 200)
    table, draws = spreads({"x": means(values)}, **{**OPTIONS, "resamples": 4999})
    spread = table["x"]["m"]
    half = 1.96 * values.std(ddof=1) / math.sqrt(200)
    assert spread.mean == pytest.approx(values.mean())
    assert spread.sd is None
    assert spread.low == pytest.approx(values.mean() - half, abs=0.05)
    assert spread.high == pytest.approx(values.mean() + half, abs=0.05)
    assert draws["x"]["m"].shape == (4999,)


def test_spread_over_seeds_and_interval_over_dialogues_are_told_apart():
    values = np.random.default_rng(1).normal(5, 2, 50)
    spread = spreads({"x": means(values, values + 1, values + 2)}, **OPTIONS)[0]["x"]["m"]
    assert spread.mean == pytest.approx(values.mean() + 1)
    assert spread.sd == pytest.approx(1.0)
    assert spread.high - spread.low < 4 * 2 / math.sqrt(50)


def test_intervals_of_distinct_hold_its_value():
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, rng.zipf(1.5, 12) % 500)) for _ in range(100)]
    report = compute_metrics(Predictions(responses=texts), ["distinct"])
    run = statistics_of(report, np.arange(100))
    table, draws = spreads({"x": [run]}, **OPTIONS)
    for key in ("distinct_1", "distinct_2", "ead_1"):
        spread = table["x"][key]
        assert spread.low < report.values[key] < spread.high
        assert draws["x"][key].mean() == pytest.approx(report.values[key])


def test_one_dialogue_gives_no_interval():
    spread = spreads({"x": means([1.0])}, **OPTIONS)[0]["x"]["m"]
    assert (spread.mean, spread.low, spread.high) == (1.0, None, None)


def test_paired_test_agrees_with_the_textbook_one():
    rng = np.random.default_rng(3)
    a = rng.normal(0, 1, 60)
    b = a - 0.25 + rng.normal(0, 0.8, 60)
    runs = {"a": means(a), "b": means(b)}
    options = {**OPTIONS, "resamples": 9999}
    (found,) = compare(runs, spreads(runs, **options)[1], **options)
    assert found.difference == pytest.approx((a - b).mean())
    assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.01)
    half = 1.96 * (a - b).std(ddof=1) / math.sqrt(60)
    assert found.low == pytest.approx(found.difference - half, abs=0.05)
    assert found.p_holm == found.p


def test_equal_systems_are_not_told_apart():
    values = np.arange(20.0)
    runs = {"a": means(values), "b": means(values)}
    (found,) = compare(runs, spreads(runs, **OPTIONS)[1], **OPTIONS)
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_a_system_of_one_run_meets_every_run_of_the_other():
    values = np.random.default_rng(0).normal(0, 1, 40)
    runs = {"a": means(values + 1, values + 3), "b": means(values)}
    (found,) = compare(runs, spreads(runs, **OPTIONS)[1], **OPTIONS)
    assert found.difference == pytest.approx(2)
    assert found.p < 0.01


def test_the_test_rejects_at_its_nominal_rate_where_nothing_differs():
    """Also for Distinct, whose value hangs on all dialogues at once."""
    rng = np.random.default_rng(0)
    runs, rejected = 200, 0
    for _ in range(runs):
        both = []
        for _ in range(2):
            texts = [" ".join(map(str, rng.zipf(1.5, 8) % 200)) for _ in range(30)]
            report = compute_metrics(Predictions(responses=texts), ["distinct_1"])
            both.append([statistics_of(report, np.arange(30))])
        systems = dict(zip("ab", both, strict=True))
        options = {"confidence": 0.95, "resamples": 199, "seed": 1}
        (found,) = compare(systems, spreads(systems, **options)[1], **options)
        rejected += found.p < 0.05
    assert 1 <= rejected <= 20  # 5 % of 200 is 10; 1 to 20 holds all but 1 in 500 such tests


def test_holm():
    """Worked by hand: 3·0.01, then max(2·0.03, before), then max(1·0.04, before)."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_half_without_any_item_spoils_no_interval():
    """One dialogue of three holds all n-grams, so some halves hold none."""
    texts = ["ok ok ok", "", ""]
    report = compute_metrics(Predictions(responses=texts), ["distinct"])
    runs = {name: [statistics_of(report, np.arange(3))] for name in "ab"}
    table, draws = spreads(runs, **OPTIONS)
    assert math.isfinite(table["a"]["distinct_2"].low)
    for found in compare(runs, draws, **OPTIONS):
        assert (found.difference, found.p) == (0, 1)


def test_runs_of_different_number_meet_each_other_as_often():
    runs = {"a": means(*(np.full(4, v) for v in (0.0, 0.0, 3.0))),
            "b": means(*(np.full(4, v) for v in (0.0, 5.0)))}  # fmt: skip
    (found,) = compare(runs, spreads(runs, **OPTIONS)[1], **OPTIONS)
    assert found.difference == pytest.approx(1 - 2.5)


def test_families_of_comparisons_are_adjusted_apart():
    rng = np.random.default_rng(0)
    runs = {name: [{key: mean_of(rng.normal(0, 1, 30)) for key in "xyz"}] for name in "ab"}
    found = compare(runs, spreads(runs, **OPTIONS)[1], primary=["x"], **OPTIONS)
    by = {comparison.metric: comparison for comparison in found}
    assert by["x"].p_holm == by["x"].p
    assert [by[k].p_holm for k in "yz"] == holm([by[k].p for k in "yz"])


def test_holm_reaches_over_all_metrics_and_pairs():
    rng = np.random.default_rng(0)
    runs = {name: means(rng.normal(0, 1, 30)) for name in "abc"}
    found = compare(runs, spreads(runs, **OPTIONS)[1], **OPTIONS)
    assert [(c.a, c.b) for c in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [c.p_holm for c in found] == holm([c.p for c in found])
