"""Scores and reliability against values worked out by hand and by another way."""

import logging

import numpy as np
import pytest
from scipy.optimize import minimize

from pal.core.errors import DataError
from pal.traits.inventories import load_inventory
from pal.traits.scoring import (
    analyze_reliability,
    cronbach_alpha,
    item_rest_correlations,
    mcdonald_omega,
    reliability,
    score_dimensions,
)

HEXACO = load_inventory("hexaco")


def answers_of(value, form="full"):
    """Agreement ``value`` with every item once keyed."""
    return {item.id: value if item.keyed == 1 else 6 - value for item in HEXACO.items_of(form)}


def test_reverse_keyed_items_are_turned():
    assert score_dimensions(HEXACO, answers_of(5)) == dict.fromkeys(HEXACO.dimensions, 5.0)
    assert score_dimensions(HEXACO, {i.id: 5 for i in HEXACO.items}) == dict.fromkeys(
        HEXACO.dimensions, 3.0
    )


def test_a_score_is_the_mean_by_hand():
    answers = answers_of(4)
    first = next(item for item in HEXACO.items if item.dimension == "H" and item.keyed == 1)
    answers[first.id] = 1
    assert score_dimensions(HEXACO, answers)["H"] == (1 + 7 * 4) / 8


def test_a_missing_answer_is_never_made_up():
    answers = answers_of(4)
    del answers["H3"]
    found = score_dimensions(HEXACO, answers)
    assert found["H"] is None
    assert found["E"] == 4.0


def test_the_short_form_needs_only_its_items():
    answers = answers_of(2, "short")
    assert score_dimensions(HEXACO, answers, "short") == dict.fromkeys(HEXACO.dimensions, 2.0)
    assert score_dimensions(HEXACO, answers) == dict.fromkeys(HEXACO.dimensions, None)


@pytest.mark.parametrize("bad", [{"H1": 6}, {"H1": 0}, {"H1": True}, {"H1": "4"}, {"Z1": 3}])
def test_bad_answers_are_refused(bad):
    with pytest.raises(DataError, match=next(iter(bad))):
        score_dimensions(HEXACO, bad)


def test_alpha_by_hand():
    # Variances 1, 1; covariance 0.5: α = 2 · (1 − 2/3) = 2/3.
    assert cronbach_alpha(np.array([[[1, 0.5], [0.5, 1]]]))[0] == pytest.approx(2 / 3)


def test_omega_of_a_known_factor():
    loadings, own = np.array([0.8, 0.7, 0.6, 0.3, 0.5]), np.array([0.5, 0.6, 0.7, 0.9, 1.1])
    covariance = np.outer(loadings, loadings) + np.diag(own)
    expected = loadings.sum() ** 2 / (loadings.sum() ** 2 + own.sum())
    assert mcdonald_omega(covariance[None])[0] == pytest.approx(expected, abs=1e-6)
    assert cronbach_alpha(covariance[None])[0] < expected


def test_omega_against_a_general_optimiser():
    data = np.random.default_rng(3).normal(size=(60, 6)) + np.random.default_rng(4).normal(
        size=(60, 1)
    )
    covariance = np.cov(data, rowvar=False)
    upper = np.triu_indices(6, 1)

    def loss(loadings):
        return ((covariance - np.outer(loadings, loadings))[upper] ** 2).sum()

    fitted = minimize(loss, np.ones(6), method="BFGS").x
    own = np.diag(covariance) - fitted**2
    expected = fitted.sum() ** 2 / (fitted.sum() ** 2 + own.sum())
    assert mcdonald_omega(covariance[None])[0] == pytest.approx(expected, abs=1e-4)


def test_no_variance_is_undefined_with_a_reason():
    alpha, omega = reliability(np.full((10, 4), 3.0), confidence=0.95, resamples=200, seed=0)
    assert alpha["value"] is None
    assert "no variance" in omega["reason"]
    assert alpha["n"] == 10
    assert item_rest_correlations(np.full((10, 4), 3.0)) == [None] * 4


def test_wrong_keying_is_warned_of(caplog):
    rng = np.random.default_rng(0)
    people = []
    for trait in rng.integers(1, 6, size=80):
        answers = answers_of(int(np.clip(trait + rng.integers(-1, 2), 1, 5)))
        answers["H1"] = 6 - answers["H1"]
        people.append(answers)
    with caplog.at_level(logging.WARNING):
        found = analyze_reliability(HEXACO, people, resamples=200)
    assert "H1" in caplog.text
    assert "E1" not in caplog.text
    assert found["H"]["items"]["H1"] < 0 < found["H"]["items"]["H2"]
    assert found["E"]["alpha"]["value"] == pytest.approx(1)  # its items agree wholly


def test_intervals_hold_the_truth():
    # 20 seeds at 95 %: 16 or fewer hits would come up once in 300 times.
    loadings, own = np.full(8, 0.7), np.full(8, 0.6)
    truth = loadings.sum() ** 2 / (loadings.sum() ** 2 + own.sum())
    hits = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        data = rng.normal(size=(150, 1)) * loadings + rng.normal(size=(150, 8)) * own**0.5
        alpha, omega = reliability(data, confidence=0.95, resamples=400, seed=seed)
        hits += omega["low"] <= truth <= omega["high"] and alpha["low"] <= truth <= alpha["high"]
    assert hits >= 16


def test_copies_of_a_few_answer_sets_have_no_reliability():
    rows = np.array([[1, 2, 3], [5, 4, 3], [2, 2, 4]], dtype=float)
    for matrix in (rows, np.tile(rows, (6, 1))):
        for found in reliability(matrix, confidence=0.95, resamples=50, seed=0):
            assert found["value"] is None
            assert "fewer than 4 different" in found["reason"]
