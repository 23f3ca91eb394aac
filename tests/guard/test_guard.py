"""The guard fails closed, keeps help on view, and never shows a text of its own making."""

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
    assert "Are you thinking about suicide?" in verdict.text
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


def test_a_yes_to_the_help_is_a_crisis(guard):
    assert guard.review([CONCERN_TURN]).action == "reply_with_help"
    for yes in read_lexicon_file("lexicon.yaml")["assent"]["hits"]:
        verdict = guard.review([CONCERN_TURN, yes])
        assert (verdict.level, verdict.pinned, verdict.action) == (2, 2, "fixed"), yes
        assert "Are you thinking about suicide?" in verdict.text
    later = guard.review([CONCERN_TURN, "Yes.", *["We had soup."] * 3])
    assert (later.level, later.pinned, later.action) == (0, 2, "fixed")
    assert guard.review(["yes"], pinned=1).level == 2
    assert guard.review([CONCERN_TURN, "yeah", "yes"]).action == "fixed"
    assert guard.review([CONCERN_TURN, *["We had soup."] * 3, "i am"]).level == 2


def test_a_yes_to_anything_else_is_none(guard):
    for other in read_lexicon_file("lexicon.yaml")["assent"]["misses"]:
        assert guard.review([CONCERN_TURN, other]).action == "reply_with_help", other
    assert guard.review(["My rent is due.", "Yes."]).action == "reply"
    assert guard.review(["Yes."], situation=CONCERN_TURN).level == 0  # nobody has asked yet
    assert guard.review([CONCERN_TURN, *["We had soup."] * 4, "yes"]).action == "reply"
    third = "My friend says he wants to kill himself."
    assert "Are they safe right now?" in guard.review([third]).text
    assert guard.review([third, "Yes."]).level == 0


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
