"""Supporter turns that do harm are no training targets, and stay in the dialogue."""

import logging

import pytest

from pal.data import harm
from pal.data.esconv import load_esconv
from pal.data.samples import build_samples
from pal.data.settings import DataSettings
from pal.training.preparation import response_samples

ANSWER = "Yes, give up, it is easier."


def dialogue(answer=ANSWER):
    turns = [
        ("seeker", "I am so tired."), ("supporter", "I hear you."), ("seeker", "I can't go on."),
        ("supporter", answer), ("seeker", "Really?"), ("supporter", "I am sorry. No."),
    ]  # fmt: skip
    dialog = [
        {"speaker": who, "text": text, "strategy": "Others" if who == "supporter" else None,
         "persona": []}
        for who, text in turns
    ]  # fmt: skip
    return {"id": "a", "dialog": dialog, "request": False}


@pytest.fixture
def marked(monkeypatch):
    digest = harm._digest("i can't go on", ANSWER.upper() + "  ")
    monkeypatch.setattr(harm, "HARMFUL", frozenset({digest}))


def test_a_marked_turn_is_no_target_and_stays_in_the_context(marked, caplog):
    caplog.set_level(logging.INFO)
    rows = harm.leave_out_harmful([dialogue(), dialogue("Tell me more.")])
    samples = build_samples(rows, "training")
    assert [sample.turn for sample in samples] == [1, 5, 1, 3, 5]
    assert samples[1].context[3]["text"] == ANSWER
    assert "1 harmful supporter turns" in caplog.text


def test_answers_are_still_scored_at_such_a_turn(marked):
    rows = harm.leave_out_harmful([dialogue()])
    assert [sample.turn for sample in build_samples(rows, "evaluation")] == [1, 3, 5]


def test_esconv_has_four_of_them_in_both_layouts(shared_data):
    for name, split in (("esconv", "train"), ("esconv/ESConv.json", None)):
        rows = load_esconv(str(shared_data / name), split)
        assert sum(len(harm.harmful_turns(row["dialog"])) for row in rows) == 4


def test_the_setting_decides(shared_data):
    given = {"train": str(shared_data / "esconv")}
    with_them = response_samples(DataSettings(**given, leave_out_harmful=False))[0]
    without = response_samples(DataSettings(**given))[0]
    gone = {sample.id for sample in with_them} - {sample.id for sample in without}
    assert len(gone) == 4
    assert len(with_them) - len(without) == 4
