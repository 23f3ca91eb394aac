"""Similarity against survey scores, worked by hand."""

import json

import numpy as np
import pytest
from scipy import stats

from pal.benchmark.similarity_analysis import analyze_similarity, relate
from pal.data.esconv import load_esconv

# cos(text, "p") for each text: unit vectors at that angle to the persona's [1, 0].
COSINES = {"p": 1.0, "none": 0.0, "half": 0.5, "most": 0.8, "all": 1.0, "p q": -1.0}


def embedder(texts):
    return np.array([[COSINES[text], (1 - COSINES[text] ** 2) ** 0.5] for text in texts])


def dialogue(name, responses, survey, persona=("p",), heard=1):
    """A seeker turn and a response in turn; the persona is known after the ``heard``-th of them."""
    turns = []
    for number, response in enumerate(responses, start=1):
        known = list(persona) if number >= heard else []
        turns += [
            {"speaker": "usr", "text": f"said {number}", "persona": known},
            {"speaker": "sys", "text": response, "strategy": "Others", "persona": known},
        ]
    return {"id": name, "dialog": turns, "survey_score": {"seeker": survey}}


def survey(empathy, relevance=None, initial=None, final=None):
    return {
        "empathy": empathy, "relevance": relevance,
        "initial_emotion_intensity": initial, "final_emotion_intensity": final,
    }  # fmt: skip


@pytest.fixture
def load(tmp_path):
    def load(*records):
        path = tmp_path / "pesconv.jsonl"
        path.write_text("\n".join(map(json.dumps, records)))
        return load_esconv(path)

    return load


def test_worked_example(load):
    rows = load(
        # Scores as strings, numbers, and null; cosines 0, 0.5, and (0 + 0.8) / 2.
        dialogue("a", ["none"], survey("1", "4", "5", "1")),
        dialogue("b", ["half"], survey(2, None, 3, "3")),
        dialogue("c", ["none", "most"], survey("3", None, "2", None)),
        dialogue("unasked", ["half"], survey(None, "", "5")),
        dialogue("blank", ["half"], survey(5, 5, 5, 5), persona=()),
    )
    found = analyze_similarity(rows, embedder, "angles")
    assert {key: found[key] for key in ("dialogues", "without_survey", "without_persona")} == {
        "dialogues": 3, "without_survey": 1, "without_persona": 1,
    }  # fmt: skip
    assert (found["embedder"], found["turns"]) == ("angles", 4)

    # x = 1, 2, 3 and y = 0, 0.5, 0.4: slope Sxy/Sxx = 0.4/2, R² = Sxy²/(Sxx·Syy) = 0.16/0.28.
    empathy = found["scores"]["empathy"]
    assert empathy["points"] == [[1, pytest.approx(0)], [2, pytest.approx(0.5)], [3, 0.4]]
    assert empathy["slope"] == pytest.approx(0.2)
    assert empathy["intercept"] == pytest.approx(-0.1)
    assert empathy["r2"] == empathy["r2_levels"] == pytest.approx(4 / 7)
    assert empathy["rho"] == pytest.approx(0.5)  # ranks 1 2 3 and 1 3 2
    assert empathy["n"] == 3

    decrease = found["scores"]["intensity_decrease"]  # 5 − 1 and 3 − 3; c has no final one
    assert [point[0] for point in decrease["points"]] == [4, 0]
    assert decrease["n"] == 2
    assert decrease["slope"] is decrease["rho"] is decrease["p"] is None  # of two points
    assert found["scores"]["relevance"]["points"] == [[4, pytest.approx(0)]]


def test_a_turn_meets_the_persona_known_when_it_was_said(load):
    """The first response comes before any persona; a response to a response counts too."""
    row = dialogue("a", ["all", "none", "all"], survey(4), heard=2)
    row["dialog"].insert(4, {"speaker": "sys", "text": "half", "strategy": "Others"})
    row["dialog"][-2]["persona"] = ["p", "q"]  # known to the last response alone
    found = analyze_similarity(load(row), embedder, "angles")
    assert found["turns"] == 3
    assert found["scores"]["empathy"]["points"] == [[4, pytest.approx((0 + 0.5 - 1) / 3)]]


def test_each_text_is_embedded_once_in_one_pass(load):
    asked = []

    def asking(texts):
        asked.append(texts)
        return embedder(texts)

    rows = load(*(dialogue(str(i), ["half", "none"], survey(i)) for i in range(1, 4)))
    analyze_similarity(rows, asking, "angles")
    assert [sorted(texts) for texts in asked] == [["half", "none", "p"]]


def test_levels_and_their_intervals():
    # Score 1: mean 0.2, sd 0.1·√2, n 2, t(0.975, 1) = 12.706; score 2: one dialogue, no interval.
    found = relate([(1, 0.1), (2, 0.5), (1, 0.3), (4, 0.2)])
    low, alone, last = found["levels"]
    assert (low["score"], low["n"], low["mean"]) == (1, 2, pytest.approx(0.2))
    assert low["high"] - low["mean"] == pytest.approx(12.7062 * 0.1, rel=1e-4)
    assert low["mean"] - low["low"] == pytest.approx(12.7062 * 0.1, rel=1e-4)
    assert alone == {"score": 2, "n": 1, "mean": 0.5, "low": None, "high": None}
    assert last["score"] == 4
    narrow = relate([(1, 0.1), (1, 0.3)], confidence=0.5)["levels"][0]
    assert narrow["high"] == pytest.approx(0.2 + 0.1)  # t(0.75, 1) = 1


def test_against_other_programs():
    rng = np.random.default_rng(0)
    x = rng.integers(1, 6, 200).astype(float)
    y = 0.05 * x + rng.normal(size=200)
    found = relate(list(zip(x, y, strict=True)))
    slope, intercept = np.polyfit(x, y, 1)
    assert [found["slope"], found["intercept"]] == pytest.approx([slope, intercept])
    assert found["r2"] == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
    means = [y[x == level].mean() for level in range(1, 6)]
    assert found["r2_levels"] == pytest.approx(np.corrcoef(range(1, 6), means)[0, 1] ** 2)
    ranks = stats.rankdata(x), stats.rankdata(y)
    assert found["rho"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    permuted = [np.corrcoef(ranks[0], rng.permutation(ranks[1]))[0, 1] for _ in range(4000)]
    assert found["p"] == pytest.approx(np.mean(np.abs(permuted) >= abs(found["rho"])), abs=0.03)


@pytest.mark.parametrize(
    "points", [[], [(5, 0.1), (5, 0.2), (5, 0.3)], [(1, 0.5), (2, 0.5), (3, 0.5)]]
)
def test_no_relation_without_variation(points):
    found = relate(points)
    assert found["n"] == len(points)
    numbers = ("slope", "intercept", "r2", "r2_levels", "rho", "p")
    assert all(found[key] is None for key in numbers)


def test_nothing_to_relate_is_told(load, caplog):
    rows = load(
        dialogue("a", ["half"], survey(None)), dialogue("b", ["half"], survey(3), persona=())
    )
    with caplog.at_level("WARNING"):
        assert analyze_similarity(rows, embedder, "angles") is None
        assert analyze_similarity(rows, None, "") is None
    assert "of 2 dialogues 1 have no seeker's survey score and 1 more" in caplog.text
    assert "give metrics.embedder" in caplog.text
