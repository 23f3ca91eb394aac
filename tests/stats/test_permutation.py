"""Permutation tests against textbook ones and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from pal.metrics import Predictions, compute_metrics
from pal.stats.permutation import compare_systems, holm, permutation_p, swaps
from pal.stats.pooled import mean_of
from pal.stats.resampling import spreads

OPTIONS = {"confidence": 0.95, "resamples": 999, "seed": 0}


def means(*runs):
    return [{"m": mean_of(values)} for values in runs]


def test_paired_test_agrees_with_the_textbook_one():
    rng = np.random.default_rng(3)
    a = rng.normal(0, 1, 60)
    b = a - 0.25 + rng.normal(0, 0.8, 60)
    runs = {"a": means(a), "b": means(b)}
    options = {**OPTIONS, "resamples": 9999}
    (found,) = compare_systems(runs, spreads(runs, **options)[1], **options)
    assert found.difference == pytest.approx((a - b).mean())
    assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.01)
    half = 1.96 * (a - b).std(ddof=1) / math.sqrt(60)
    assert found.low == pytest.approx(found.difference - half, abs=0.05)
    assert found.p_holm == found.p


def test_equal_systems_are_not_told_apart():
    values = np.arange(20.0)
    runs = {"a": means(values), "b": means(values)}
    (found,) = compare_systems(runs, spreads(runs, **OPTIONS)[1], **OPTIONS)
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_a_system_of_one_run_meets_every_run_of_the_other():
    values = np.random.default_rng(0).normal(0, 1, 40)
    runs = {"a": means(values + 1, values + 3), "b": means(values)}
    (found,) = compare_systems(runs, spreads(runs, **OPTIONS)[1], **OPTIONS)
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
            both.append([report.by_group(np.arange(30))])
        systems = dict(zip("ab", both, strict=True))
        options = {"confidence": 0.95, "resamples": 199, "seed": 1}
        (found,) = compare_systems(systems, spreads(systems, **options)[1], **options)
        rejected += found.p < 0.05
    assert 1 <= rejected <= 20  # 5 % of 200 is 10; 1 to 20 holds all but 1 in 500 such tests


def test_holm():
    """Worked by hand: 3·0.01, then max(2·0.03, before), then max(1·0.04, before)."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_runs_of_different_number_meet_each_other_as_often():
    runs = {"a": means(*(np.full(4, v) for v in (0.0, 0.0, 3.0))),
            "b": means(*(np.full(4, v) for v in (0.0, 5.0)))}  # fmt: skip
    (found,) = compare_systems(runs, spreads(runs, **OPTIONS)[1], **OPTIONS)
    assert found.difference == pytest.approx(1 - 2.5)


def test_families_of_comparisons_are_adjusted_apart():
    rng = np.random.default_rng(0)
    runs = {name: [{key: mean_of(rng.normal(0, 1, 30)) for key in "xyz"}] for name in "ab"}
    found = compare_systems(runs, spreads(runs, **OPTIONS)[1], primary=["x"], **OPTIONS)
    by = {comparison.metric: comparison for comparison in found}
    assert by["x"].p_holm == by["x"].p
    assert [by[k].p_holm for k in "yz"] == holm([by[k].p for k in "yz"])


def test_holm_reaches_over_all_metrics_and_pairs():
    rng = np.random.default_rng(0)
    runs = {name: means(rng.normal(0, 1, 30)) for name in "abc"}
    found = compare_systems(runs, spreads(runs, **OPTIONS)[1], **OPTIONS)
    assert [(c.a, c.b) for c in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [c.p_holm for c in found] == holm([c.p for c in found])


def test_p_by_hand():
    drawn = np.array([0.0, 1.0, 2.0, 3.0])
    assert permutation_p(drawn, 2.0) == 3 / 5  # 2 and 3, and the observed one
    assert permutation_p(drawn, 2.0, exact=True) == 2 / 4
    assert permutation_p(np.array([0.0, 1.0, 1.0, np.nan]), 2.0) == 2 / 5  # NaN is large: cautious
    assert permutation_p(np.array([0.3, 0.0]), 0.1 + 0.2) == 2 / 3  # equal but for rounding


def test_few_units_are_swapped_in_all_ways():
    ways, exact = swaps(3, 100, 0)
    assert exact
    assert sorted(map(tuple, ways.tolist())) == sorted(
        (a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)
    )
    ways, exact = swaps(10, 100, 0)
    assert not exact
    assert ways.shape == (100, 10)
    assert (ways == swaps(10, 100, 0)[0]).all()


def test_the_exact_p_of_few_dialogues_is_scipys():
    """Ten dialogues: all 1024 ways, for a mean and for a value that is none."""
    rng = np.random.default_rng(5)
    a, b = rng.normal(0.5, 1, 10), rng.normal(0, 1, 10)
    runs = {"a": means(a), "b": means(b)}
    options = {**OPTIONS, "resamples": 2000}
    (found,) = compare_systems(runs, spreads(runs, **options)[1], **options)
    theirs = stats.permutation_test(
        (a, b), lambda x, y, axis: x.mean(axis) - y.mean(axis), permutation_type="samples",
        n_resamples=np.inf, vectorized=True,
    )  # fmt: skip
    assert found.p == pytest.approx(theirs.pvalue)
