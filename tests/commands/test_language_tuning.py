"""Decoder-only models in the search for α, in the analysis and on the page."""

import json

import pytest

from pal.data.strategies import PAPER_ALPHA, STRATEGIES
from pal.modeling.language_responder import LanguageResponder
from tests.benchmark.test_language_systems import LLAMA, with_notes
from tests.jobs import ESCONV, command


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "esconv"
    folder.mkdir()
    for split, count in (("train", 6), ("validation", 3), ("test", 3)):
        rows = with_notes(ESCONV / f"{split}.jsonl")[:count]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def train(corpus, folder, *more):
    sizes = ", ".join(f"{key}: {value}" for key, value in LLAMA.items())
    return command(
        "train", f"data.train={corpus}", f"architecture.from_scratch={{{sizes}}}",
        "architecture.vocab_size=600", "architecture.max_context_tokens=320",
        "architecture.max_target_tokens=48", "training.num_train_epochs=1",
        "training.report_to=none", "training.learning_rate=0.01", f"output_dir={folder}", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "model"
    assert train(corpus, folder) == 0
    return folder


def tune(model, corpus, output, *more):
    """With gold strategies, lest a model so small choose one for all."""
    return [
        "tune-alpha", f"model={model}", f"input={corpus}", "split=validation", "limit=14",
        f"output={output}", "tune_alpha.objectives=[bleu_2, distinct_2]", "tune_alpha.trials=10",
        "decoding.max_new_tokens=8", "decoding.min_new_tokens=2", "decoding.strategy=gold",
        "tune_alpha.step=0.5", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def tuned(model, corpus, tmp_path_factory):
    output = tmp_path_factory.mktemp("alpha") / "alpha.json"
    assert command(*tune(model, corpus, output)) == 0
    return output


def test_several_strategies_are_tried(tuned):
    document = json.loads(tuned.read_text())
    assert len(document["tried"]) > 3
    assert len(document["trials"]) == 10
    for trial in document["trials"]:
        for name, alpha, own in zip(STRATEGIES, trial["alpha"], PAPER_ALPHA, strict=True):
            assert name in document["tried"] or alpha == own
    alphas = {tuple(trial["alpha"]): trial["values"]["distinct_2"] for trial in document["trials"]}
    assert len(set(alphas.values())) > 3  # α changes what is said


def test_generate_takes_the_yaml_and_gives_the_values_found(corpus, tuned, tmp_path):
    responses, scores = tmp_path / "responses.jsonl", tmp_path / "scores.json"
    assert command(
        "generate", "--config", tuned.with_suffix(".yaml"), f"input={corpus}", "split=validation",
        "limit=14", f"output={responses}",
    ) == 0  # fmt: skip
    assert command("eval", f"predictions={responses}", f"output={scores}") == 0
    found = json.loads(scores.read_text())["metrics"]
    chosen = json.loads(tuned.read_text())["chosen"]
    for key, value in chosen["values"].items():
        assert found[key]["value"] == pytest.approx(value, abs=1e-9)
    for row in map(json.loads, responses.open()):
        assert row["alpha"] == chosen["alpha"][STRATEGIES.index(row["strategy"])]


def test_an_interrupted_search_goes_on_and_makes_nothing_twice(
    model, corpus, tuned, tmp_path, monkeypatch
):
    output, asked = tmp_path / "alpha.json", []
    original = LanguageResponder.__call__

    def spy(self, samples, states, **options):
        if stop and len(asked) >= 30:
            raise KeyboardInterrupt
        found = original(self, samples, states, **options)
        asked.extend((sample.id, options.get("alpha")) for sample in samples)
        return found

    monkeypatch.setattr(LanguageResponder, "__call__", spy)
    stop = True
    assert command(*tune(model, corpus, output)) == 130
    assert not output.exists()
    before, stop = len(asked), False
    assert before > 0
    assert command(*tune(model, corpus, output)) == 0
    assert len(asked) > before
    assert len(set(asked)) == len(asked)
    ours, theirs = (json.loads(path.read_text()) for path in (output, tuned))
    assert ours["trials"] == theirs["trials"]


def test_without_notes_there_is_nothing_to_search(corpus, tmp_path, capsys):
    folder = tmp_path / "none"
    assert train(corpus, folder, "architecture.persona_mode=none") == 0
    assert command(*tune(folder, corpus, tmp_path / "alpha.json")) == 2
    error = capsys.readouterr().err.strip().split("\n")[-1]
    assert "persona_mode 'none' has nothing to contrast" in error
    assert "decoder-only: prompt" in error


def test_analysis_and_page(model, corpus, tuned, tmp_path, capsys):
    responses, analysis = tmp_path / "lm.jsonl", tmp_path / "analysis.json"
    page = tmp_path / "page.html"
    inputs = [f"input={corpus}", "split=test"]
    assert command("generate", f"model={model}", *inputs, "limit=12", f"output={responses}",
                   "decoding.max_new_tokens=8", "decoding.min_new_tokens=2") == 0  # fmt: skip
    assert command("analyze", *inputs, f"analyze.systems={{LM: {responses}}}",
                   "metrics.embedder=null", f"output={analysis}") == 0  # fmt: skip
    strategies = json.loads(analysis.read_text())["strategies"]["systems"]["LM"]
    assert strategies["n"] == 12
    assert len(strategies["top"]) == len(STRATEGIES)
    assert "| LM |" in capsys.readouterr().out
    assert command("report", f"report.include=[{analysis}, {tuned}]", f"output={page}") == 0
    text = page.read_text()
    assert "LM" in text
    assert "α = 0" in text
