"""Strategies, α and sampling options mean the same wherever they are given."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pal.core.errors import ConfigError, DataError
from pal.data.strategies import StrategySet
from pal.decoding.plan import DecodingPlan, alpha_of, check_decoding, strategies_of
from pal.decoding.settings import DecodingSettings

OWN = (0.0, 0.75, 0.0, 0.0, 0.75, 0.75, 0.75, 0.375)


def config(**entries):
    return SimpleNamespace(
        **{"alpha": list(OWN), "strategy_alpha": 0.075, "persona_mode": "fusion",
           "max_position_embeddings": 128} | entries
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (None, OWN),
        (0.5, (0.5,) * 8),
        (2, (2.0,) * 8),
        ([0, 1, 2, 3, 4, 5, 6, 7], tuple(map(float, range(8)))),
        (np.full(8, 0.25), (0.25,) * 8),
        (torch.tensor(1.5), (1.5,) * 8),
        ({"question": 1, "Other": 0}, (1.0, *OWN[1:7], 0.0)),
        ({}, OWN),
    ],
    ids=str,
)
def test_alpha_of_every_form(given, wanted):
    assert alpha_of(given, own=OWN) == wanted


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1, 2], "expected a number or 8 of them, got 2"),
        ({"Qestion": 1}, "did you mean 'Question'"),
        ({"Question": 1, "Questions": 2}, "named twice"),
        (float("nan"), "finite"),
        ({"Question": float("inf")}, "finite"),
        (True, "finite number, got True"),
        ("0.5", "got '0.5'"),
        (10**400, "too large"),
        ([10**400] * 8, "too large"),
    ],
    ids=str,
)
def test_alpha_that_is_none(given, message):
    with pytest.raises(ValueError, match=message):
        alpha_of(given, own=OWN)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("Question", [0, 0, 0]),
        (7, [7, 7, 7]),
        (["Others", 3, "direct guidance"], [7, 3, 5]),
        (torch.tensor([1, 2, 0]), [1, 2, 0]),
        (np.int64(4), [4, 4, 4]),
    ],
    ids=str,
)
def test_strategies_of_every_form(given, wanted):
    assert strategies_of(given, 3) == wanted


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (8, "from 0 to 7, got 8"),
        ([0, -1, 2], "got -1"),
        ([0, 1], "2 strategies for 3 rows"),
        (["Question"], "1 strategies for 3 rows"),
        (1.5, "name or id, got 1.5"),
        (True, "name or id"),
        ("Advice", "unknown strategy 'Advice'"),
    ],
    ids=str,
)
def test_strategies_that_are_none(given, message):
    with pytest.raises(ValueError, match=message):
        strategies_of(given, 3)


def test_what_settings_leave_open_the_model_decides():
    plan = DecodingPlan.from_settings(DecodingSettings(), config())
    assert (plan.alpha, plan.strategy_alpha) == (OWN, 0.075)
    assert (plan.choice, plan.strategy_from, plan.given) == ("argmax", "model", None)
    plan = DecodingPlan.from_settings(
        DecodingSettings(alpha={"Questions": 1}, strategy_alpha=0, strategy="sample"), config()
    )
    assert (plan.alpha[0], plan.alpha[1:], plan.strategy_alpha) == (1.0, OWN[1:], 0)
    assert (plan.choice, plan.strategy_from) == ("sample", "model")


def test_a_model_without_fusion_has_nothing_to_contrast():
    plain = config(persona_mode="none")
    for alpha in (None, 0.0):
        plan = DecodingPlan.from_settings(DecodingSettings(alpha=alpha), plain)
        assert (plan.alpha, plan.strategy_alpha) == ((0.0,) * 8, 0.0)
    with pytest.raises(ConfigError, match=r"persona_mode is 'none'; give decoding.alpha=null"):
        DecodingPlan.from_settings(DecodingSettings(alpha={"Others": 1}), plain)


def test_given_and_gold_strategies_are_marked():
    samples = [
        SimpleNamespace(id="a/1", strategy="Others"),
        SimpleNamespace(id="a/3", strategy=None),
    ]
    named = DecodingPlan.from_settings(DecodingSettings(strategy="direct guidance"), config())
    assert (named.strategy_from, named.strategies_of(samples)) == ("given", [5, 5])
    gold = DecodingPlan.from_settings(DecodingSettings(strategy="gold"), config())
    assert (gold.strategy_from, gold.strategies_of(samples[:1])) == ("gold", [7])
    with pytest.raises(DataError, match=r"a/3: .*no gold strategy"):
        gold.strategies_of(samples)
    predicted = DecodingPlan.from_settings(DecodingSettings(), config())
    assert predicted.strategies_of(samples) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "Qestion"}, "decoding.strategy: unknown strategy 'Qestion'; did you mean"),
        ({"alpha": [1, 2, 3]}, "decoding.alpha: expected a number or 8 of them, got 3"),
        ({"alpha": {"Advice": 1}}, "decoding.alpha: unknown strategy 'Advice'"),
        ({"num_beams": 2}, "choose one"),
    ],
    ids=str,
)
def test_settings_that_no_model_could_use_are_found_without_one(settings, message):
    with pytest.raises(ConfigError, match=message):
        check_decoding(DecodingSettings(**settings))


def test_responses_must_fit_the_positions():
    with pytest.raises(ConfigError, match="max_new_tokens=127 and two start tokens do not fit"):
        DecodingPlan.from_settings(DecodingSettings(max_new_tokens=127), config())
    DecodingPlan.from_settings(DecodingSettings(max_new_tokens=126), config())


@pytest.mark.parametrize(
    ("given", "task", "used"), [(None, None, 10), (None, "response_lm", 1), (3, "response_lm", 3)]
)
def test_the_least_length_is_the_papers_and_none_for_decoder_only_models(given, task, used):
    model = config(pal_task=task, persona_mode="fusion" if task is None else "prompt")
    plan = DecodingPlan.from_settings(DecodingSettings(min_new_tokens=given), model)
    assert (plan.options.min_new_tokens, plan.options.least) == (used, used)


def test_another_strategy_set_decides_names_numbers_and_messages():
    two = StrategySet(("Ask", "Comfort"), aliases={"Question": "Ask"})
    assert alpha_of({"question": 2}, own=(0, 1), strategies=two) == (2.0, 1.0)
    assert strategies_of(["Comfort", 0], 2, strategies=two) == [1, 0]
    with pytest.raises(ValueError, match="from 0 to 1, got 2"):
        strategies_of(2, strategies=two)
    with pytest.raises(ConfigError, match="unknown strategy 'Others'"):
        check_decoding(DecodingSettings(strategy="Others"), strategies=two)
    plan = DecodingPlan.from_settings(
        DecodingSettings(strategy="question"), config(alpha=[0.5, 0]), strategies=two
    )
    assert (plan.given, plan.alpha, plan.strategies.names) == (0, (0.5, 0.0), ("Ask", "Comfort"))
