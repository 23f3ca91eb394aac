"""Strategies of responses, counted by hand."""

import numpy as np
import pytest

from pal.benchmark.strategy_analysis import analyze_strategies
from pal.core.errors import DataError
from pal.data.strategies import STRATEGIES
from pal.metrics import Predictions, compute_metrics
from tests.metrics.conftest import bag_of_letters

Q, R, O = STRATEGIES[0], STRATEGIES[2], STRATEGIES[7]  # noqa: E741


def record(name, gold, chosen, **more):
    return {
        "id": name, "response": f"i hear you, {name}", "reference": "i hear you",
        "reference_strategy": gold, "strategy": chosen, "persona": ["i am sad"], **more,
    }  # fmt: skip


def probs(*order):
    """The strategies' probabilities, highest first; the rest share what is left by id."""
    names = [*order, *(name for name in STRATEGIES if name not in order)]
    return {name: 1 / 2**rank for rank, name in enumerate(names, start=1)}


RECORDS = [
    record("a", Q, Q, strategy_probs=probs(Q)),
    record("b", Q, R, strategy_probs=probs(R, O, Q)),
    record("c", Q, Q, strategy_probs=probs(Q)),
    record("d", R, Q, strategy_probs=probs(Q, R)),
    record("e", O, O, strategy_probs=probs(O)),
    record("f", O, Q, strategy_probs=probs(Q, O)),
]


def test_worked_example():
    found = analyze_strategies({"s": RECORDS}, labels={"s": "System"}, embedder=bag_of_letters)
    assert found["gold"] == dict.fromkeys(STRATEGIES, 0) | {Q: 3, R: 1, O: 2}
    system = found["systems"]["s"]
    assert (system["label"], system["n"]) == ("System", 6)
    assert system["top"] == pytest.approx([50, 500 / 6, *[100] * 6])
    assert system["distribution"] == dict.fromkeys(STRATEGIES, 0) | {Q: 4, R: 1, O: 1}
    confusion = np.array(system["confusion"])
    assert confusion.sum() == 6
    assert (confusion[0, 0], confusion[0, 2], confusion[2, 0]) == (2, 1, 1)  # [gold, predicted]
    assert (confusion[7, 7], confusion[7, 0]) == (1, 1)

    rows = {row["strategy"]: row for row in system["per_strategy"]}
    assert list(rows) == list(STRATEGIES)
    question = rows[Q]
    assert (question["n_gold"], question["n_predicted"]) == (3, 4)
    assert question["precision"] == 50
    assert question["recall"] == pytest.approx(200 / 3)
    assert question["f1"] == pytest.approx(400 / 7)
    assert (rows[R]["precision"], rows[R]["recall"], rows[R]["f1"]) == (0, 0, 0)
    assert rows["Information"]["n_gold"] == rows["Information"]["n_predicted"] == 0
    for key in ("precision", "recall", "f1", "bleu_2", "cos_sim"):
        assert rows["Information"][key] is None
    # The text metrics of a row are those of its gold strategy's samples: here a, b and c.
    expected = compute_metrics(
        Predictions(
            [row["response"] for row in RECORDS[:3]], ["i hear you"] * 3, [["i am sad"]] * 3,
            embedder=bag_of_letters,
        ),
        ["bleu_2", "rouge_l", "distinct_2", "length", "cos_sim"],
    ).values  # fmt: skip
    assert {key: question[key] for key in expected} == expected
    assert question["length"] == 5


def test_what_records_do_not_tell_is_empty(caplog):
    """Some probabilities missing; no embedder; no strategies at all; no gold ones."""
    some = [RECORDS[0], record("b", Q, R)]
    bare = [{"id": row["id"], "response": "hello there"} for row in some]
    untold = [{**row, "reference_strategy": Q} for row in bare]
    with caplog.at_level("WARNING"):
        found = analyze_strategies({"some": some, "bare": bare, "untold": untold})
    assert found["gold"][Q] == 2
    systems = found["systems"]
    assert systems["some"]["label"] == "some"
    assert systems["some"]["top"] is None
    assert systems["some"]["per_strategy"][0]["recall"] == 50
    assert systems["some"]["per_strategy"][0]["cos_sim"] is None
    assert systems["bare"]["top"] is systems["bare"]["confusion"] is None
    assert systems["bare"]["distribution"] == {}
    assert systems["bare"]["per_strategy"] == []
    row = systems["untold"]["per_strategy"][0]
    assert (row["n_gold"], row["n_predicted"], row["length"], row["bleu_2"]) == (2, None, 2, None)
    assert "some: no top_1 (needs strategy_probs)" in caplog.text
    assert "bare: no accuracy (needs strategies" in caplog.text


def test_texts_without_spaces_between_words_are_warned_of(caplog):
    records = [{**RECORDS[0], "response": "我很难过", "reference": "我不难过"}]
    with caplog.at_level("WARNING"):
        words = analyze_strategies({"s": records})
    assert "s: 2 of 2 responses and references are in a script without spaces" in caplog.text
    caplog.clear()
    characters = analyze_strategies({"s": records}, tokenizer="characters")
    assert "script" not in caplog.text
    lengths = [found["systems"]["s"]["per_strategy"][0]["length"] for found in (words, characters)]
    assert lengths == [1, 4]


def test_systems_that_do_not_compare(caplog):
    with caplog.at_level("WARNING"):
        found = analyze_strategies({"a": RECORDS, "b": RECORDS[:2]})
    assert "a and b answer different samples" in caplog.text
    assert sum(found["gold"].values()) == 6  # each sample once
    other = [{**RECORDS[0], "reference_strategy": O}]
    with pytest.raises(DataError, match=r"b, id 'a': reference_strategy 'Others'.*'Question'"):
        analyze_strategies({"a": RECORDS, "b": other})


def test_no_systems(caplog):
    with caplog.at_level("WARNING"):
        assert analyze_strategies({}) is None
    assert "give analyze.systems" in caplog.text
