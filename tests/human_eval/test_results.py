import pytest

from pal.human_eval.results import results_tables, tally_votes
from pal.human_eval.sheets import Votes

KEY = {
    "questions": ["Overall"],
    "pairs": [
        {"a": "one", "b": "two", "items": 3, "samples": 9, "same": 1},
        {"a": "one", "b": "three", "items": 6, "samples": 9, "same": 0},
    ],
    "items": {f"x{n}": {"A": "two", "B": "one"} for n in range(3)}
    | {f"y{n}": {"A": "one", "B": "three"} for n in range(6)},
}


def cast(*answers):
    return {"Overall": {f"rater {number}": answer for number, answer in enumerate(answers)}}


def votes(problems=0):
    problem = {"file": "a.csv", "row": 2, "item": "x", "question": "Overall", "problem": "empty"}
    return Votes(
        {
            "x0": cast("one", "one", "Tie", "two"),  # most frequent: won, though no majority
            "x1": cast("one", "Tie"),  # none alone at the top: tied
            "x2": cast("two"),
            **{f"y{n}": cast("three", "three") for n in range(6)},
        },
        [problem] * problems,
    )


def test_an_item_counts_once_by_its_most_frequent_answer():
    first, second = tally_votes(KEY, votes())
    (row,) = first["questions"]
    assert (row["a_wins"], row["ties"], row["b_wins"], row["n_sheets"]) == (3, 2, 2, 7)
    assert row["items"] == {"a_wins": 1, "ties": 1, "b_wins": 1}
    assert row["p"] == pytest.approx(1)
    assert first["kappa_missing"] == {}
    assert first["kappa_items"] == {"Overall": 2}, "x2 has one answer, of which no two agree"
    assert first["kappa"]["Overall"] < 0
    (row,) = second["questions"]
    assert row["items"] == {"a_wins": 0, "ties": 0, "b_wins": 6}
    assert row["p"] == pytest.approx(2 / 64)
    assert row["p_holm"] == pytest.approx(4 / 64)  # two tests
    assert second["kappa_missing"] == {"Overall": "all answers are the same; κ is undefined"}
    assert (first["raters"], second["raters"], first["items"]) == (4, 2, 3)


def test_tables():
    table = results_tables(tally_votes(KEY, votes()), votes(23).problems)
    assert "| Overall | 42.9 | 28.6 | 28.6 | 0.0 | 100.0‡ | 0.0 |" in table
    assert "| one vs. three | Overall | 0, 12, 0 | 0, 6, 0 | 0.0312 | 0.0625 | – |" in table
    assert "one vs. two: 4 raters, 3 of 3 items answered; in 1 of 9 samples" in table
    assert "κ for Overall is over 2 of 3 items, those with two answers or more." in table
    assert table.count("a.csv, row 2, Overall: empty") == 20
    assert "and 3 more" in table


def test_bold_needs_a_significant_difference():
    """One rater who always prefers the same system of a few items shows nothing."""
    for items, shown in ((1, "100.0 |"), (5, "100.0‡ |"), (6, "**100.0**† |")):
        key = {
            "questions": ["Overall"],
            "pairs": [{"a": "one", "b": "two", "items": items, "samples": items, "same": 0}],
            "items": {f"x{n}": {"A": "two", "B": "one"} for n in range(items)},
        }
        given = Votes({f"x{n}": cast("one") for n in range(items)}, [])
        assert f"| Overall | {shown} 0.0 | 0.0 |" in results_tables(tally_votes(key, given), [])


def test_no_answers_at_all():
    results = tally_votes(KEY, Votes())
    assert results[0]["questions"][0]["p_holm"] is None
    assert "| Overall | – | – | – | – | – | – |" in results_tables(results, [])
