"""Whatever fails, help is shown, nothing is generated, and no text leaves by a log or a file."""

import logging
import threading
import time

import pytest

from pal.core.errors import PalError
from pal.guard import Guard, GuardSettings, load_guard
from pal.guard.guard import MOST_STUCK
from pal.guard.helplines import load_helplines
from pal.guard.levels import Detection
from pal.guard.lexicon import Lexicon
from pal.guard.texts import load_texts

CANARY = "zebra-quartz-9137 nobody may read this"


class Faulty:
    """A detector that does what it is told."""

    name, version, quick = "faulty", "1", False

    def __init__(self, act):
        self.act = act

    def detect(self, texts):
        return self.act(texts)


def guard_with(act, timeout=5.0):
    country = load_helplines().country("US")
    return Guard([Lexicon(), Faulty(act)], texts=load_texts(), country=country, timeout=timeout)


def raise_with_text(texts):
    raise RuntimeError(f"cannot read {texts!r}")


class Fatal(BaseException):
    pass


def raise_fatally(texts):
    raise Fatal(texts)


FAULTS = {
    "raises": raise_with_text,
    "raises what nobody catches": raise_fatally,
    "recursion": lambda texts: FAULTS["recursion"](texts),
    "nothing": lambda texts: None,
    "too few": lambda texts: [],
    "too many": lambda texts: [Detection()] * (len(texts) + 1),
    "not a number": lambda texts: [Detection(float("nan"))] * len(texts),
    "no level": lambda texts: [Detection(7)] * len(texts),
    "truth for a level": lambda texts: [Detection(True)] * len(texts),
    "another type": lambda texts: ["crisis"] * len(texts),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_detector_that_fails_means_help_and_no_reply(fault, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    guard = guard_with(FAULTS[fault])
    assert guard.assess([CANARY]).status == "unavailable"
    verdict = guard.review(["hello", CANARY])
    assert (verdict.status, verdict.action) == ("unavailable", "help_only")
    assert "988" in verdict.help
    assert "can't answer" in verdict.text
    out = caplog.text + "".join(capfd.readouterr())
    assert "zebra" not in out
    assert "Traceback" not in out


def test_what_others_find_still_counts():
    guard = guard_with(raise_with_text)
    found = guard.assess(["I want to kill myself."])
    assert (found.level, found.status) == (2, "unavailable")
    verdict = guard.review(["I want to kill myself."])
    assert (verdict.action, verdict.status, verdict.pinned) == ("fixed", "unavailable", 2)


def test_a_detector_that_hangs_is_left_behind():
    release = threading.Event()
    guard = guard_with(lambda texts: release.wait(30) or [Detection()] * len(texts), timeout=0.3)
    start = time.monotonic()
    assert guard.review(["hello"]).action == "help_only"
    assert time.monotonic() - start < 2
    before = threading.active_count()
    start = time.monotonic()
    for _ in range(20):  # neither waits again nor piles up threads
        assert guard.review(["hello"]).action == "help_only"
    assert time.monotonic() - start < 1
    assert threading.active_count() <= before
    start = time.monotonic()
    for number in range(20):  # other texts wait a few times
        assert guard.review([f"hello {number}"]).action == "help_only"
    assert time.monotonic() - start < 0.3 * MOST_STUCK + 1
    assert threading.active_count() < before + MOST_STUCK
    release.set()
    for thread, _ in guard._stuck["faulty"]:
        thread.join(30)
    guard._detectors[1].act = lambda texts: [Detection()] * len(texts)
    assert guard.review(["hello"]).action == "reply"
    assert threading.active_count() < before


def test_a_call_that_hangs_is_nobody_elses():
    """While one huge message is read, others are read as ever, by the same detector."""
    release = threading.Event()

    def slow_at_once(texts):
        if any("huge" in text for text in texts):
            release.wait(30)
        return [Detection()] * len(texts)

    guard = guard_with(slow_at_once, timeout=0.3)
    found = []
    slow = threading.Thread(target=lambda: found.append(guard.review(["huge " * 3000])))
    slow.start()
    for number in range(5):
        assert guard.review([f"hello {number}"]).action == "reply"
    slow.join()
    assert found[0].action == "help_only"
    assert guard.review(["hello"]).action == "reply"
    assert guard.assess(["I want to kill myself."]).status == "ok"
    assert guard.review(["huge " * 3000]).action == "help_only"  # and is not tried again
    release.set()


def test_a_call_that_is_given_up_ends():
    """What is long and slow is not read on when nobody waits for it."""
    read = []

    def slow(texts):
        time.sleep(0.05)
        read.extend(texts)
        return [Detection()] * len(texts)

    guard = guard_with(slow, timeout=1.5)  # of about four that reading all would take
    turns = [f"turn {number} {'x' * 15_000}" for number in range(40)]
    assert guard.assess_many([(turns, None)])[0].status == "ok"  # the last four alone
    assert guard.review(turns).action == "help_only"
    for thread, _ in guard._stuck["faulty"]:
        thread.join(30)
    assert len(read) < 40


def test_findings_stay_with_their_texts_when_there_are_many():
    def mark(texts):
        return [Detection(1, frozenset({text})) if "7" in text else Detection() for text in texts]

    guard = guard_with(mark)
    turns = [f"{number} {'x ' * (number % 9) * 500}" for number in range(100)]
    assert [bool(level) for level in guard.levels(turns)] == ["7" in turn for turn in turns]


@pytest.mark.parametrize(
    "turn",
    ["x" * 1_000_000, "a b " * 250_000, "ab\udc80cd", "\ud800", b"\xff\xfe", None, 7, ["x"]],
    ids=["long", "long words", "undecodable", "half", "bytes", "none", "number", "list"],
)
def test_what_cannot_be_read_is_answered_with_help(turn):
    guard = load_guard(GuardSettings(country="GB"))
    start = time.monotonic()
    assert guard.assess([turn]).status == "unavailable"
    assert guard.review(["hello", turn]).action == "help_only"
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("turns", [[], [""], ["   "], ["\u200b"], ["🙂"], ["?"]])
def test_empty_turns_are_no_concern(turns):
    guard = load_guard(GuardSettings(country="GB"))
    assert guard.assess(turns).level == 0
    assert guard.review(turns).action == "reply"


def test_a_plug_in_raises_a_level_and_never_lowers_it():
    calm = guard_with(lambda texts: [Detection()] * len(texts))
    assert calm.assess(["I want to kill myself."]).level == 2
    alarmed = guard_with(lambda texts: [Detection(3, frozenset({"x"}))] * len(texts))
    found = alarmed.assess(["I want to kill myself."])
    assert found.level == 3
    assert found.detectors == ("faulty", "lexicon")


def test_no_text_is_logged_or_kept(caplog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG)
    guard = load_guard(GuardSettings(country="GB"))
    text = f"I want to kill myself, {CANARY}"
    results = [
        guard.assess([text]), guard.review([text, "yes"]), guard.describe(),
        guard.check_reply(text, guard.review([text])),
    ]  # fmt: skip
    assert "zebra" not in caplog.text + repr(results) + repr(vars(guard._memory))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "given",
    [
        {"model": "/no/such/folder"},
        {"helplines": "/no/such/file.yaml"},
        {"texts": "/no/such/file.yaml"},
        {"labels": {"x": 1}},
        {"threshold": 0.5},
    ],
)
def test_a_guard_with_something_missing_does_not_start(given):
    with pytest.raises(PalError):
        load_guard(GuardSettings(**given))


def test_a_reply_is_dropped_where_the_check_fails(monkeypatch):
    guard = load_guard(GuardSettings(country="US"))
    calm = guard.review(["hello"])
    monkeypatch.setattr(guard._check, "is_harmful", raise_with_text)
    assert guard.check_reply("Hello, how are you?", calm)
    assert guard.check_reply("x" * 1_000_000, calm)
