"""The families as modules of Hugging Face ``evaluate``: they load offline, with the same values."""

import pytest

from pal.core.errors import PalError
from pal.metrics import METRICS, compute_metrics, evaluate_module
from pal.metrics.hub import INPUT_NAMES
from tests.metrics.conftest import bag_of_letters, encode_letters, judge_lengths

MODELS = {"embedder": bag_of_letters, "token_encoder": encode_letters, "nli": judge_lengths}


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    import evaluate

    patch = pytest.MonkeyPatch()
    patch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
    patch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path_factory.mktemp("metrics")))
    patch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)
    yield lambda name: evaluate.load(evaluate_module(name))
    patch.undo()


def columns(metric, predictions):
    needs = [need for need in metric.needs if need not in MODELS]
    return {INPUT_NAMES.get(need, need): list(predictions.get(need)) for need in needs}


@pytest.mark.parametrize("family", METRICS)
def test_every_family_loads_and_agrees(load, family, predictions):
    metric, module = METRICS[family], load(family)
    options = {need: model for need, model in MODELS.items() if need in metric.needs}
    inputs = columns(metric, predictions)
    expected = compute_metrics(predictions, [family]).values

    whole = module.compute(**inputs, **options)
    assert whole
    assert whole == pytest.approx({key: expected[key] for key in whole})

    for rows in (slice(0, 3), slice(3, None)):
        module.add_batch(**{name: values[rows] for name, values in inputs.items()})
    assert module.compute(**options) == pytest.approx(whole)


def test_options_reach_the_metric(load, predictions):
    inputs = {"predictions": predictions.responses}
    authors = compute_metrics(predictions, ["distinct"], "authors").values
    assert load("distinct").compute(**inputs, variant="authors") == pytest.approx(authors)
    small = load("distinct").compute(**inputs, vocab_size=3)
    assert small["ead_1"] != pytest.approx(authors["ead_1"])
    split = load("length").compute(predictions=["谢谢你"], tokenizer="characters")
    assert split == {"length": 3}
    with pytest.raises(PalError, match="did you mean 'variant'"):
        load("distinct").compute(**inputs, varient="authors")


def test_optional_inputs(load, predictions):
    found = load("strategy").compute(
        predictions=predictions.predicted_strategies,
        references=predictions.strategies,
        strategy_probs=predictions.strategy_probs,
    )
    assert found == pytest.approx(compute_metrics(predictions, ["strategy"]).values)
    found = load("perplexity").compute(
        token_nll=predictions.token_nll,
        token_count=predictions.token_count,
        strategy_nll=predictions.strategy_nll,
        word_count=list(map(len, predictions.reference_tokens)),
    )
    assert found == pytest.approx(compute_metrics(predictions, ["perplexity"]).values)


def test_combine(load, predictions):
    import evaluate

    text = ("bleu", "rouge", "f1", "length", "distinct")
    together = evaluate.combine([load(name) for name in text])
    expected = compute_metrics(predictions, text).values
    inputs = {"predictions": predictions.responses, "references": predictions.references}
    assert together.compute(**inputs) == pytest.approx(expected)
    for response, reference in zip(*inputs.values(), strict=True):
        together.add(prediction=response, reference=reference)
    assert together.compute() == pytest.approx(expected)


def test_combine_with_other_inputs(load, predictions):
    import evaluate

    together = evaluate.combine([load("bleu"), load("ppl"), load("cos_sim")])
    inputs = {name: columns(METRICS[name], predictions) for name in ("bleu", "perplexity")}
    found = together.compute(
        **inputs["bleu"],
        **inputs["perplexity"],
        personas=predictions.personas,
        embedder=bag_of_letters,
    )
    expected = compute_metrics(predictions, ["bleu", "ppl", "cos_sim"]).values
    assert found == pytest.approx(expected)


def test_nothing_to_compute_is_an_error(load):
    with pytest.raises(PalError, match="distinct_1: no response has 1 tokens"):
        load("distinct").compute(predictions=[""])


def test_a_family_without_a_module_says_what_to_write(monkeypatch, tmp_path):
    monkeypatch.setattr("pal.metrics.table.__file__", str(tmp_path / "table.py"))
    with pytest.raises(PalError, match=r"write it as the others there, with build_module\('f1'\)"):
        evaluate_module("f1")


def test_an_unknown_family():
    with pytest.raises(PalError, match="did you mean 'bleu'"):
        evaluate_module("blue")
