"""The guard fails closed, keeps help on view, and never shows a text of its own making."""

import itertools

import pytest

from pal.core.errors import ConfigError
from pal.guard import Guard, GuardSettings, load_guard
from pal.guard.lexicon import read_lexicon_file


@pytest.fixture(scope="module")
def guard():
    return load_guard(GuardSettings(country="GB"))


def test_a_crisis_is_answered_by_a_fixed_text(guard):
    verdict = guard.review(["I want to kill myself."])
    assert (verdict.level, verdict.pinned, verdict.action) == (2, 2, "fixed")
    assert "Are you thinking about suicide right now?" in verdict.text
    assert "116 123" in verdict.help


def test_help_for_a_crisis_stays_and_generation_comes_back(guard):
    turns = ["I want to kill myself."]
    actions = []
    for _ in range(5):
        turns.append("We had soup.")
        verdict = guard.review(turns)
        actions.append(verdict.action)
        assert (verdict.level, verdict.pinned) == (0, 2)
        assert verdict.help
    assert actions == ["fixed"] * 3 + ["reply_with_help"] * 2


CONCERN_TURN = "I wish I could just disappear."
SOUP = "We had soup."


def test_a_yes_to_the_help_is_a_crisis(guard):
    assert guard.review([CONCERN_TURN]).action == "reply_with_help"
    for yes in read_lexicon_file("lexicon.yaml")["assent"]["hits"]:
        verdict = guard.review([CONCERN_TURN, yes])
        assert (verdict.level, verdict.pinned, verdict.action) == (2, 2, "fixed"), yes
        assert "Are you thinking about suicide right now?" in verdict.text
    later = guard.review([CONCERN_TURN, "Yes.", SOUP, SOUP, SOUP])
    assert (later.level, later.pinned, later.action) == (0, 2, "fixed")
    assert guard.review([CONCERN_TURN, SOUP, SOUP, SOUP, "i am"]).level == 2


def test_a_yes_to_the_first_fixed_text_is_a_crisis(guard):
    turns = ["I want to kill myself.", "Yes.", SOUP, SOUP, SOUP, SOUP]
    found = [guard.review(turns[: end + 1]) for end in range(len(turns))]
    assert [verdict.level for verdict in found] == [2, 2, 0, 0, 0, 0]
    assert [verdict.action for verdict in found] == ["fixed"] * 5 + ["reply_with_help"]
    assert guard.review([*turns[:1], SOUP, "Yes."]).level == 0  # the second asks something else
    assert guard.review(["I took all my pills.", "Yes."]).level == 0  # "Can you call now?"


def test_a_yes_to_anything_else_is_none(guard):
    for other in read_lexicon_file("lexicon.yaml")["assent"]["misses"]:
        assert guard.review([CONCERN_TURN, other]).action == "reply_with_help", other
    assert guard.review(["My rent is due.", "Yes."]).action == "reply"
    assert guard.review(["Yes.", SOUP], pinned=1).level == 0  # a face sends its own pin with all
    assert guard.review(["Yes.", SOUP, CONCERN_TURN], pinned=1).action == "reply_with_help"
    assert guard.review(["Yes."], situation=CONCERN_TURN).level == 0  # nobody has asked yet
    assert guard.review([CONCERN_TURN, SOUP, SOUP, SOUP, SOUP, "yes"]).action == "reply"
    third = "My friend says he wants to kill himself."
    assert "Are they safe right now?" in guard.review([third]).text
    assert guard.review([third, "Yes."]).level == 0
    assert guard.review(["Estoy muy cansado hoy y no puedo dormir", "Yes, sorry"]).level < 2


def test_nobody_is_told_the_same_twice_in_a_row(guard):
    turns = [SOUP] * 9
    told = [guard.review(turns[:n], "I want to kill myself.").text for n in range(1, 10)]
    assert all(one != other for one, other in itertools.pairwise(told))


def test_the_first_help_is_part_of_all_help():
    """Whatever is said and wherever: a face that shows these lines alone names whom to turn to."""
    expected = {
        "GB": ("999", "116 123"), "US": ("911", "988"), None: ("local emergency", "findahelpline"),
    }  # fmt: skip
    for country, numbers in expected.items():
        guard = load_guard(GuardSettings(country=country))
        for line, number in zip(guard.first_help, numbers, strict=True):
            assert number in line
            assert all(line in found.split("\n") for found in guard.helps)
            assert line in guard.standing_help.split("\n")


def test_standing_help_asks_nothing(guard):
    assert "116 123" in guard.standing_help
    assert "of suicide" in guard.standing_help
    assert "?" not in guard.standing_help


def test_a_guard_needs_detectors(guard):
    with pytest.raises(ConfigError, match="at least one detector"):
        Guard([], texts=guard._texts, country=guard._country)


def test_a_guard_that_is_off_says_so(caplog):
    off = load_guard(GuardSettings(off=True))
    assert "THE GUARD IS OFF" in caplog.text
    assert off.review(["I want to kill myself."]).status == "off"
    assert off.assess(["I want to kill myself."]).status == "off"
    assert off.describe()["off"]
    assert off.check_reply("How would you do it?", off.review(["x"])) is None
