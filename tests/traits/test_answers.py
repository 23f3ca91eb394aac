"""What the traits page opens with: three questions, answered by the numbers of the study."""

import pytest

from pal.traits.report.answers import QUESTIONS, answer_questions
from pal.traits.report.parts import ConsistencyPart, CorrelationPart, StrategiesPart
from pal.traits.report.words import condition_name, dimension_name, inventory_name, spoken


def figure(value, n=40):
    ends = {} if value is None else {"low": value - 0.1, "high": value + 0.1}
    return {"n": n, "value": value, "reason": None if value is not None else "too few", **ends}


def correlations(*groups):
    """Groups of (data set, [(r, adjusted p, whether the sign is as expected)])."""
    found = []
    for dataset, pairs in groups:
        cells = {
            row: {"X": {"r": figure(r), "p": p, "p_holm": p}}
            for row, (r, p, _) in zip("HEXACO", pairs, strict=False)
        }
        found.append({
            "dataset": dataset, "model": "small", "n": 40, "rows": list(cells), "columns": ["X"],
            "cells": cells,
            "pairs": [{"row": row, "column": "X", "sign": 1, "sign_as_expected": sign}
                      for row, (_, _, sign) in zip("HEXACO", pairs, strict=False)],
        })  # fmt: skip
    named = {"hexaco": {"dimensions": {}}, "csi": {"dimensions": {}}}
    return CorrelationPart(kind="traits_correlation", inventories=named, groups=found)


def shifts(*dimensions, **named):
    """Dimensions of (name, Δ, shift)."""
    rows = [
        {"inventory": "hexaco", "dimension": name[:1], "name": name, "before": [], "after": [],
         "mean_before": figure(3.0), "mean_after": figure(3.0), "delta": figure(delta),
         "dz": figure(delta), "shift": shift}
        for name, delta, shift in dimensions
    ]  # fmt: skip
    group = {"dataset": "ESConv", "model": "small", "dimensions": rows, **named}
    return ConsistencyPart(kind="traits_consistency", groups=[group], concentration=[], paper={})


def mixes(*comparisons):
    """Comparisons of (a, b, adjusted p, {strategy: (difference, adjusted p)})."""
    names = {name for a, b, _, _ in comparisons for name in (a, b)}
    rows = [
        {"a": a, "b": b, "paired": True, "chi2": 9.0, "dof": 2, "cramers_v": figure(0.3), "p": p,
         "p_holm": p, "strategies": {name: {"difference": figure(d), "p_holm": own}
                                     for name, (d, own) in found.items()}}
        for a, b, p, found in comparisons
    ]  # fmt: skip
    conditions = {name: {"dialogues": 20, "turns": 60, "shares": {}} for name in names}
    group = {"dataset": "ESConv", "model": "small", "conditions": conditions, "comparisons": rows}
    return StrategiesPart(kind="traits_strategies", groups=[group], paper={})


def answered(*parts):
    return [one.text for one in answer_questions(parts, ["correlations", "strategies"])]


def test_what_was_not_measured_is_said_to_be_missing():
    found = answer_questions([], [])
    assert [one.question for one in found] == list(QUESTIONS)
    assert [one.text for one in found] == [
        f"Not answered: no result of pal traits {step} is on this page."
        for step in ("correlate", "compare", "strategies")
    ]
    assert [one.section for one in found] == [None] * 3


@pytest.mark.parametrize(
    ("pairs", "lead", "count"),
    [
        ([(0.5, 0.01, True), (0.4, 0.049, True)], "Yes: ", "2 of 2 (ESConv, small: 40 personas)"),
        ([(0.5, 0.01, True), (0.4, 0.05, True)], "In part: ", "1 of 2 "),
        ([(0.5, 0.01, False), (0.1, 0.9, True)], "No evidence: ", "0 of 2 "),  # the other sign
        ([(0.5, 0.01, True), (None, None, None)], "In part: ", "1 of 2 "),
    ],
)
def test_pairs_count_that_are_beyond_chance_with_the_sign_of_the_theory(pairs, lead, count):
    text = answered(correlations(("ESConv", pairs)))[0]
    assert text.startswith(lead)
    assert count in text
    assert ("1 could not be computed" in text) == any(r is None for r, _, _ in pairs)


def test_every_group_is_named_and_nothing_computed_is_undefined():
    yes, no = [(0.5, 0.01, True)], [(0.1, 0.5, True)]
    text = answered(correlations(("ESConv", yes), ("CAMS", no)))[0]
    assert "1 of 1 (ESConv, small: 40 personas) and 0 of 1 (CAMS, small: 40 personas)" in text
    assert text.startswith("In part: ")
    text = answered(correlations(("ESConv", [(None, None, None)])))[0]
    assert text.startswith("Undefined: none of the 1 correlations")
    assert text.endswith("could be computed (too few).")


def test_a_shift_is_named_and_none_is_no_proof():
    some = shifts(("emotionality", 0.5, "rises"), ("openness", 0.1, "not shown"))
    assert answered(some)[1] == (
        "Not wholly: 1 of 2 dimensions (ESConv, small: Emotionality (HEXACO) rises by 0.50) "
        "shift beyond chance."
    )
    none = answered(shifts(("openness", 0.1, "not shown")))[1]
    assert none.startswith("No shift is shown: 0 of 1 dimensions (ESConv, small)")
    assert none.endswith("which does not prove that none do.")
    assert answered(shifts(("emotionality", -0.5, "falls")))[1].startswith("No: 1 of 1 ")
    assert answered(shifts(("openness", None, "not shown")))[1].startswith("Undefined: ")


def test_the_comparison_with_most_traits_answers_whatever_side_it_stands_on():
    both = {"Question": (-0.2, 0.01), "Information": (0.1, 0.3)}
    other = ("none", "hexaco", 0.9, {})
    text = answered(mixes(other, ("none", "both", 0.01, both), ("both", "hexaco", 0.01, {})))[2]
    assert text == (
        "Yes: dialogues with HEXACO and CSI traits differ in their strategies from those without "
        "traits (ESConv, small: 20 dialogues and 20): Question more often (20.0 points)."
    )
    text = answered(mixes(other))[2]
    assert text.startswith("No evidence: dialogues with HEXACO traits do not differ beyond chance ")
    text = answered(mixes(("hexaco", "none", None, {})))[2]
    assert text.startswith("Undefined: ")
    assert "no result of pal traits strategies" in answered(mixes(("both", "csi", 0.01, {})))[2]


def test_names_are_those_of_people():
    assert inventory_name("hexaco") == "HEXACO Personality Inventory"
    assert inventory_name("mine") == "mine"
    assert dimension_name("csi", "VA") == "Verbal aggressiveness"
    assert dimension_name("mine", "K", {"K": "kind_ness"}) == "Kind ness"
    assert dimension_name("mine", "K") == "K"
    assert spoken("emotionality_csi", "csi") == "Emotionality"
    assert condition_name("both") == "HEXACO and CSI traits"
    assert condition_name("my_own") == "my own"
