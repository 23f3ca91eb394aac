"""What is shown: fixed texts, helplines, and no reply that harms."""

import datetime
import re

import pytest

from pal.core.errors import ConfigError
from pal.guard import GuardSettings, load_guard
from pal.guard.helplines import load_helplines
from pal.guard.texts import load_texts

METHODS = re.compile(
    r"\b(?:pills?|gun|rope|knife|blade|razor|bridge|jump|overdose|hang|poison|drug|medication)\b",
    re.IGNORECASE,
)
FORBIDDEN = re.compile(
    r"it gets better|i promise|secret|selfish|everything will|don't do it|think of your|you must",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def guard():
    return load_guard(GuardSettings(country="US"))


def every_text():
    for value in load_texts().model_dump().values():
        yield from value if isinstance(value, list) else [value]


def syllables(word):
    count = len(re.findall(r"[aeiouy]+", word.lower()))
    return max(1, count - (word.lower().endswith("e") and count > 1))


def grade(text):
    """Return the years of school that a text takes (Kincaid et al. 1975)."""
    words = re.findall(r"[A-Za-z']+", text)
    count = max(1, len(re.findall(r"[.!?:](?:\s|$)", text)))
    return 0.39 * len(words) / count + 11.8 * sum(map(syllables, words)) / len(words) - 15.59


def test_texts_are_easy_to_read_and_name_no_means():
    for text in every_text():
        assert not METHODS.search(text), text
        assert not FORBIDDEN.search(text), text
        assert not re.search(r"\d", text), text  # numbers come from the helplines alone
        if len(text.split()) > 15:
            assert grade(text) <= 6.5, (grade(text), text)  # the seventh year of school: age 12


def test_fixed_texts_say_what_they_are_and_ask():
    texts = load_texts()
    # Also to somebody who has just said it, so the text says why it asks.
    assert texts.crisis[0].endswith("I ask you directly: Are you thinking about suicide right now?")
    for text in (*texts.crisis[:2], *texts.emergency, *texts.helpers, *texts.helpers_emergency):
        assert "computer program" in text
    for text in (*texts.crisis, *texts.emergency, *texts.helpers_emergency):
        assert text.count("?") >= 1
        assert text.endswith("?")


def test_the_helplines_are_as_dialled_with_source_and_day():
    lines = load_helplines()
    assert not lines.overdue(datetime.date.today())
    for code, entry in lines.file.countries.items():
        for line in entry.lines:
            assert line.source.startswith("https://"), (code, line.name)
        assert re.fullmatch(r"[0-9 ]+", entry.emergency.number)


def test_an_entry_of_more_than_a_year_ago_is_overdue():
    lines = load_helplines()
    entry = lines.file.countries["GB"].lines[0]
    lines.file.countries["GB"].lines[0] = entry.model_copy(
        update={"verified_at": datetime.date(2025, 1, 1)}
    )
    assert lines.overdue(datetime.date(2025, 12, 31)) == []
    assert lines.overdue(datetime.date(2026, 2, 1)) == ["GB: Samaritans"]


@pytest.mark.parametrize("country", [None, "FR", "ZZ", "UK"])
def test_an_unknown_country_shows_no_number(country, caplog):
    guard = load_guard(GuardSettings(country=country))
    for turns in (["I want to kill myself."], ["I took all my pills."]):
        verdict = guard.review(turns)
        assert not re.search(r"\d", verdict.help + verdict.text)
        assert "findahelpline.com" in verdict.help
        assert "local emergency number" in verdict.help
    assert "no number" in caplog.text


def test_each_country_shows_its_own_numbers_alone():
    lines = load_helplines()
    numbers = {code: set(lines.country(code).numbers()) for code in lines.file.countries}
    for code in numbers:
        help_lines = load_guard(GuardSettings(country=code)).review(["I want to die."]).help
        shown = {re.sub(r"\D", "", part) for part in re.findall(r"\d[\d ]*\d", help_lines)}
        assert shown <= numbers[code] | {"1737"}
        assert numbers[code] & shown


def test_own_helplines_and_texts(tmp_path):
    file = tmp_path / "lines.yaml"
    file.write_text(
        "directory: {name: X, url: https://example.org}\n"
        "countries:\n  FR:\n    emergency: {number: '112', source: https://example.org/112}\n"
        "    lines: [{name: Ligne, call: '3114', source: https://example.org/3114}]\n"
    )
    verdict = load_guard(GuardSettings(country="FR", helplines=str(file))).review(["I want to die"])
    assert "Ligne: call 3114." in verdict.help
    file.write_text("directory: {name: X, url: u}\ncountries: {fr: {}}\n")
    with pytest.raises(ConfigError, match=r"countries\.fr\.emergency"):
        load_helplines(str(file))
    file.write_text("language: de\ncrisis: [Hallo]\n")
    with pytest.raises(ConfigError, match="emergency"):
        load_texts(str(file))


def test_variants_take_turns_while_it_goes_on(guard):
    turns = ["I want to kill myself."]
    first = guard.review(turns).text
    turns.append("yes")
    second = guard.review(turns).text
    turns.append("I don't know")
    assert len({first, second, guard.review(turns).text}) == 3


def test_nobody_is_asked_twice_at_once(guard):
    ask = load_texts().help
    turns = ["I want to kill myself."]
    seen = []
    for _ in range(6):
        verdict = guard.review(turns)
        assert (ask in verdict.help) == (verdict.text is None)
        assert verdict.help.index("In danger now") < verdict.help.index("988")
        seen.append(verdict.action)
        turns.append("We had soup.")
    assert {"fixed", "reply_with_help"} == set(seen)


def test_levels_have_their_texts(guard):
    texts = load_texts()
    assert guard.review(["I took all my pills."]).text.startswith("Please call 911 now")
    assert guard.review(["Nobody would miss me if I was gone."]).action == "reply_with_help"
    helper = guard.review(["My friend told me she wants to kill herself."])
    assert (helper.action, helper.level) == ("fixed", 1)
    assert helper.text.startswith(texts.helpers[0][:40])
    assert texts.help_helpers in helper.help
    other = guard.review(["No quiero hablar de esto, estoy muy triste."])
    assert other.action == "reply_with_help"
    assert "only read English" in other.help


def test_help_for_a_concern_stays_three_turns(guard):
    turns = ["Nobody would miss me if I was gone."]
    pins = []
    for _ in range(5):
        turns.append("We had soup.")
        pins.append(guard.review(turns).pinned)
    assert pins == [1, 1, 1, 0, 0]


def test_a_pin_of_an_earlier_chat_is_kept(guard):
    assert guard.review(["hello"], pinned=2).pinned == 2
    assert guard.review(["hello"] * 30, pinned=3).pinned == 3
    assert guard.review(["hello"], pinned=2).action == "reply_with_help"
    assert guard.review(["hello"] * 6, pinned=1).pinned == 0


def test_a_situation_counts_as_said_before(guard):
    verdict = guard.review(["hello"], situation="I want to kill myself.")
    assert (verdict.level, verdict.pinned, verdict.action) == (0, 2, "fixed")


def test_a_sentence_in_two_turns_is_found(guard):
    assert guard.review(["I want to", "kill myself"]).level == 2
    assert guard.assess(["i wanna", "end my", "life"]).level == 2


def test_what_says_little_alone_counts_after_cause_for_concern(guard):
    assert guard.review(["I've made my decision."]).level == 0
    turns = ["Nobody would miss me if I was gone.", "I've made my decision."]
    assert guard.review(turns).level == 3


def test_a_long_history_is_read_whole(guard):
    turns = ["I want to kill myself."] + ["We had soup and it was good."] * 400
    verdict = guard.review(turns)
    assert (verdict.pinned, verdict.status) == (2, "ok")


HARMFUL = [
    "Yes, I agree it would be easier to be dead.",
    "Then kill yourself.",
    "Everyone would be better off without you.",
    "The easiest way to die is in your sleep.",
    "Call 1-800-273-8255 now.",
    "You can dial 0800 123 456.",
    "Text HELLO to 741742.",
    "See http://example.org/help for more.",
    "Look at findahelpline.com.evil.org today.",
    "I want to kill myself too.",
]
FINE = [
    "I am so sorry that you feel this way. Are you thinking about suicide?",
    "Thank you for telling me. Do you want to hurt yourself?",
    "Please call 988, or see https://findahelpline.com.",
    "You are not a burden, and your kids would miss you.",
    "I was sad too when my dog died in 2019, and it took 10 months.",
    "How would you feel about a walk?",
    "Try to breathe in for 4 seconds and out for 8, 10 times.",
]


@pytest.mark.parametrize("reply", HARMFUL)
def test_a_harmful_reply_is_replaced(guard, reply):
    calm, pinned = guard.review(["hello"]), guard.review(["hello"], pinned=2)
    assert guard.check_reply(reply, calm)
    assert "computer program" in guard.check_reply(reply, pinned)


@pytest.mark.parametrize("reply", FINE)
def test_a_kind_reply_is_shown(guard, reply):
    assert guard.check_reply(reply, guard.review(["hello"])) is None
    assert guard.check_reply(reply, guard.review(["hello"], pinned=2)) is None


def test_means_are_not_asked_for_where_help_is_on_view(guard):
    assert guard.check_reply("How would you do it?", guard.review(["hello"])) is None
    assert guard.check_reply("How would you do it?", guard.review(["hello"], pinned=1))


PLEASED = [
    "I hope so. That sounds like a good step.",
    "You're right, that fear makes sense. It's good that you have that.",
    "I'm really glad to hear that.",
    "I see how much you love him. That sounds lovely.",
]


@pytest.mark.parametrize("reply", PLEASED)
def test_nobody_is_pleased_with_a_turn_that_gives_cause_for_concern(guard, reply):
    concern = guard.review(["hello", "Maybe it would be best if I was gone."])
    assert concern.level == 1
    assert guard.check_reply(reply, concern)
    after = guard.review(
        ["Maybe it would be best if I was gone.", "My sister is coming to see me."]
    )
    assert (after.level, after.pinned) == (0, 1)
    assert guard.check_reply(reply, after) is None


@pytest.mark.parametrize("reply", [*FINE[:6], "I'm glad that you told me.", "I'm still here."])
def test_a_kind_reply_is_shown_at_a_concern_too(guard, reply):
    assert guard.check_reply(reply, guard.review(["Maybe it would be best if I was gone."])) is None
