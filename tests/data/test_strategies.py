import pytest

from pal.core.errors import PalError
from pal.data.strategies import (
    ADDED_TOKENS,
    PAPER_ALPHA,
    STRATEGIES,
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
