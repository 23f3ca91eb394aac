import pytest

from pal.core.errors import PalError
from pal.data.strategies import (
    ADDED_TOKENS,
    ESCONV,
    PAPER_ALPHA,
    STRATEGIES,
    StrategySet,
    canonical_strategy,
    strategy_id,
    strategy_token,
)


def test_order_and_alpha_are_those_of_table_2():
    assert dict(zip(STRATEGIES, PAPER_ALPHA, strict=True)) == {
        "Question": 0.0,
        "Restatement or Paraphrasing": 0.75,
        "Reflection of feelings": 0.0,
        "Self-disclosure": 0.0,
        "Affirmation and Reassurance": 0.75,
        "Providing Suggestions": 0.75,
        "Information": 0.75,
        "Others": 0.375,
    }
    assert [strategy_id(name) for name in STRATEGIES] == list(range(8))


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("Questions", "Question"),
        ("Greeting", "Others"),
        ("Other", "Others"),
        ("Reflection of Feelings", "Reflection of feelings"),
        ("Direct Guidance", "Providing Suggestions"),
        (" approval and reassurance ", "Affirmation and Reassurance"),
    ],
)
def test_aliases(alias, name):
    assert canonical_strategy(alias) == name


def test_unknown_strategy_lists_the_allowed_ones():
    with pytest.raises(PalError, match="did you mean 'Question'") as caught:
        canonical_strategy("Qestion")
    assert "Providing Suggestions" in str(caught.value)


def test_added_tokens_are_four_marks_and_eight_strategies():
    assert ADDED_TOKENS[:4] == ("</s>", "<s>", "<persona>", "<input>")
    assert ADDED_TOKENS[4] == strategy_token("Questions") == "[Question]"
    assert len(ADDED_TOKENS) == 12


# A set of one's own.

THREE = StrategySet(
    ("Ask", "Comfort", "Advise"), {"Ask": "ask."}, (0.0, 0.5, 1.0), {"Question": "Ask"}
)


def test_a_set_of_ones_own_has_names_ids_and_tokens():
    assert [THREE.id(name) for name in THREE.names] == [0, 1, 2]
    assert THREE.canonical(" question") == "Ask"
    assert THREE.tokens == ("[Ask]", "[Comfort]", "[Advise]")
    assert THREE.token("advise") == "[Advise]"
    assert (len(THREE), THREE.alpha) == (3, (0.0, 0.5, 1.0))
    assert StrategySet(["Ask"]).alpha == (0.0,)
    with pytest.raises(PalError, match="'suggestions'; did you mean 'Providing Suggestions'"):
        canonical_strategy("suggestions")
    with pytest.raises(PalError, match="'Sugestion'; did you mean 'Providing Suggestions'"):
        canonical_strategy("Sugestion")
    with pytest.raises(PalError, match=r"unknown strategy 'fro' \(allowed"):
        canonical_strategy("fro")
    with pytest.raises(PalError, match=r"unknown strategy 'Asc'; did you mean 'Ask'"):
        THREE.id("Asc")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"names": ()}, "needs distinct names"),
        ({"names": ("Ask", "ask")}, "needs distinct names"),
        ({"names": ("Ask", " ")}, "needs distinct names"),
        ({"names": ("Ask",), "alpha": (1, 2)}, "1 needs as many α, got 2"),
        ({"names": ("Ask",), "aliases": {"x": "Sing"}}, "'Sing' is not one of the strategies Ask"),
        ({"names": ("Ask",), "definitions": {"Sing": "x"}}, "'Sing' is not one"),
    ],
)
def test_a_set_whose_parts_do_not_fit_is_refused(given, message):
    with pytest.raises(PalError, match=message):
        StrategySet(**given)


def test_the_modules_names_are_views_of_the_corpuss_set():
    assert ESCONV.names == STRATEGIES
    assert ESCONV.alpha == PAPER_ALPHA
    assert ESCONV.tokens == ADDED_TOKENS[4:]
    assert set(ESCONV.definitions) == set(STRATEGIES)
    for name in (*STRATEGIES, *ESCONV.aliases):
        assert canonical_strategy(name) == ESCONV.canonical(name)
        assert strategy_id(name) == ESCONV.id(name)
        assert strategy_token(name) == ESCONV.token(name)


@pytest.mark.parametrize("name", [None, 5, True, ["Question"], "", "x" * 10_000, "\0"])
def test_what_is_no_strategy_is_one_short_line(name):
    with pytest.raises(PalError, match="unknown strategy") as caught:
        canonical_strategy(name)
    assert len(str(caught.value)) < 400
