import math

import numpy as np
import pytest

from pal.metrics import Predictions, compute_metrics
from pal.stats.permutation import compare_systems
from pal.stats.pooled import Items, Types, mean_of
from pal.stats.resampling import ends, halves, resampled_weights, spreads

OPTIONS = {"confidence": 0.95, "resamples": 999, "seed": 0}


def means(*runs):
    return [{"m": mean_of(values)} for values in runs]


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
    run = report.by_group(np.arange(100))
    table, draws = spreads({"x": [run]}, **OPTIONS)
    for key in ("distinct_1", "distinct_2", "ead_1"):
        spread = table["x"][key]
        assert spread.low < report.values[key] < spread.high
        assert draws["x"][key].mean() == pytest.approx(report.values[key])


def test_one_dialogue_gives_no_interval():
    spread = spreads({"x": means([1.0])}, **OPTIONS)[0]["x"]["m"]
    assert (spread.mean, spread.low, spread.high) == (1.0, None, None)


def test_a_half_without_any_item_spoils_no_interval():
    """One dialogue of three holds all n-grams, so some halves hold none."""
    texts = ["ok ok ok", "", ""]
    report = compute_metrics(Predictions(responses=texts), ["distinct"])
    runs = {name: [report.by_group(np.arange(3))] for name in "ab"}
    table, draws = spreads(runs, **OPTIONS)
    assert math.isfinite(table["a"]["distinct_2"].low)
    for found in compare_systems(runs, draws, **OPTIONS):
        assert (found.difference, found.p) == (0, 1)


def test_every_unit_is_drawn_as_often_as_another():
    weights = resampled_weights(7, 4000, 3)
    assert weights.shape == (4000, 7)
    assert (weights.sum(1) == 7).all()
    assert weights.mean(0) == pytest.approx(np.ones(7), abs=0.06)
    assert weights.var(0) == pytest.approx(np.full(7, 6 / 7), abs=0.08)  # binomial
    half = halves(7, 4000, 3)
    assert set(half.sum(1)) == {3}
    assert half.mean(0) == pytest.approx(np.full(7, 3 / 7), abs=0.03)


def test_ends_of_draws_that_are_no_numbers():
    assert ends(np.array([np.nan, 1.0, 2.0, 3.0, np.inf]), 0.9) == (
        pytest.approx(1.1), pytest.approx(2.9),
    )  # fmt: skip
    assert ends(np.array([np.nan, 1.0]), 0.9) == (None, None)
