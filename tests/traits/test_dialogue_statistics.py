"""Words and turns by hand, intervals that hold the truth, cards as in Table 1."""

import json

import numpy as np
import pytest

from pal.config import load_settings
from pal.core.files import write_jsonl
from pal.stats.estimates import share_of
from pal.stats.settings import StatisticsSettings
from pal.traits.dialogue_statistics import stats
from pal.traits.documents import paper
from pal.traits.sizes import describe_cards, describe_talks
from pal.traits.talks import SaidTurn, Talk

FEW = StatisticsSettings(resamples=300)


def talk(*turns):
    return Talk("x", tuple(SaidTurn(who, text, None) for who, text in turns))


def test_words_and_turns_by_hand():
    talks = [
        talk(("seeker", "I am  sad."), ("supporter", "Why?")),
        talk(("seeker", "Hello"), ("supporter", "Hello there, friend"), ("seeker", "Bye")),
    ]
    found = describe_talks(talks, FEW)
    assert found["n"] == 2
    assert (found["all"]["words"], found["all"]["turns"]) == (9, 5)
    assert found["seeker"]["words_a_turn"]["value"] == pytest.approx(5 / 3)
    assert found["supporter"]["words_a_turn"]["value"] == 2
    assert found["all"]["turns_a_dialogue"]["value"] == 2.5
    only = describe_talks([talk(("seeker", "Hello"))], FEW)
    assert only["supporter"]["words_a_turn"]["value"] is None
    assert only["supporter"]["words_a_turn"]["reason"]


def test_intervals_hold_the_truth():
    # Mean words a turn 10.5 in all; 20 seeds of one figure at 95 %: 16 or fewer once in 300 times.
    held = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        talks = []
        for _ in range(50):
            long = rng.integers(-4, 5)  # dialogues differ
            sizes = rng.integers(5, 17, size=rng.integers(6, 12)) + long
            talks.append(talk(*(("seeker", "word " * size) for size in sizes)))
        figure = describe_talks(talks, FEW)["seeker"]["words_a_turn"]
        held += figure["low"] <= 10.5 <= figure["high"]
    assert held >= 17


def card(number, **more):
    return {
        "id": str(number), "dataset": "ESConv", "age": "young", "gender": "unknown",
        "occupation": "unknown", "description": "A student in a big town.", "problem": "No sleep.",
        **more,
    }  # fmt: skip


def test_cards_by_hand():
    cards = [
        card(1, keep=True, reasons=[]),
        card(2, gender="female", occupation="nurse", description="A nurse."),
        card(3, keep=False, reasons=["no event"]),
        {"id": "4", "dataset": "ESConv", "failed": "refused"},
    ]
    (found,) = describe_cards(cards, FEW)
    assert (found["n"], found["dropped"], found["failed"]) == (2, 1, 1)
    assert found["reasons"] == {"no event": 1}
    assert found["description_words"]["value"] == 4
    assert found["age_known"]["value"] == 1
    assert found["gender_known"]["value"] == found["occupation_known"]["value"] == 0.5
    assert found["gender"] == {"unknown": 1, "female": 1}


def test_a_share_against_wilsons_formula():
    hits, count, z = 7, 20, 1.959964
    middle = (hits / count + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (0.35 * 0.65 / count + z * z / (4 * count * count)) ** 0.5
    found = share_of(hits, count, 0.95)
    assert (found["low"], found["high"]) == pytest.approx((middle - half, middle + half))
    assert share_of(0, 0, 0.95)["reason"]


def run(tmp_path, rows):
    write_jsonl(tmp_path / "in.jsonl", rows)
    output = tmp_path / "out.json"
    given = {"input": str(tmp_path / "in.jsonl"), "output": str(output),
             "statistics": FEW.model_dump()}  # fmt: skip
    shown = stats(load_settings(given, command="traits stats"))
    text = output.read_text(encoding="utf-8")
    assert "NaN" not in text
    return shown, json.loads(text)


def test_the_command_on_dialogues(tmp_path):
    turns = [{"speaker": "seeker", "text": "I am sad"}, {"speaker": "supporter", "text": "Why?"}]
    rows = [
        {"id": str(n), "dataset": "d", "model": "m", "condition": name, "dialog": turns}
        for n, name in enumerate(["none", "csi", "none"])
    ]
    shown, document = run(tmp_path, [*rows, {"id": "9", "failed": "refused"}])
    (group,) = document["dialogues"]
    assert list(group["conditions"]) == ["csi", "none"]
    assert group["conditions"]["none"]["all"]["words"] == 8
    assert document["failed"] == 1
    assert "Not included: 1 record without a result" in shown
    assert "17.62" in shown  # Table 16


def test_the_command_on_cards(tmp_path):
    failed = {"id": "3", "dataset": "ESConv", "failed": "refused"}
    shown, document = run(tmp_path, [card(1), card(2), failed])
    assert [(one["n"], one["failed"]) for one in document["cards"]] == [(2, 1)]
    assert document["failed"] == 1
    assert "57.38" in shown  # Table 1


def test_the_papers_figures_agree_with_each_other():
    for one in paper()["dialogues"].values():
        for prefix in ("", "seeker_", "supporter_"):
            quotient = one[f"{prefix}words"] / one[f"{prefix}turns"]
            assert one[f"{prefix}words_a_turn"] == pytest.approx(quotient, abs=0.011)
