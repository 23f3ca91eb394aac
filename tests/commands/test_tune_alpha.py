import json
import signal
import time

import pytest

from pal.benchmark.alpha import most_balanced, objective_directions, pareto_front
from pal.core.errors import ConfigError
from pal.data.strategies import PAPER_ALPHA, STRATEGIES
from pal.modeling.responder import Responder
from tests.jobs import ESCONV, command, start

UP = {"a": "higher", "b": "higher"}


def tune(model, output, *more):
    return [
        "tune-alpha", f"model={model}", f"input={ESCONV / 'validation.jsonl'}", "limit=24",
        f"output={output}", "tune_alpha.objectives=[bleu_2, distinct_2]", "tune_alpha.trials=12",
        "decoding.max_new_tokens=12", "decoding.min_new_tokens=2", "tune_alpha.step=0.5", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def tuned(response_model, tmp_path_factory):
    output = tmp_path_factory.mktemp("alpha") / "alpha.json"
    assert command(*tune(response_model, output)) == 0
    return output


def test_trials_front_and_choice(tuned):
    document = json.loads(tuned.read_text())
    assert len(document["trials"]) == 12
    assert document["trials"][0]["values"] == document["baselines"][0]["values"]  # begins with 0
    for trial in document["trials"]:  # of strategies that no sample has the model's own α stays
        for name, alpha, own in zip(STRATEGIES, trial["alpha"], PAPER_ALPHA, strict=True):
            assert name in document["tried"] or alpha == own
    front = [trial for trial in document["trials"] if trial["front"]]
    assert document["chosen"]["alpha"] in [trial["alpha"] for trial in front]
    found = {a for t in document["trials"] for a in zip(STRATEGIES, t["alpha"], strict=True)}
    assert {a for name, a in found if name in document["tried"]} <= {0.0, 0.5, 1.0, 1.5}
    names = {path.name for path in tuned.parent.iterdir()}
    assert names == {"alpha.json", "alpha.yaml", "alpha.json.run.json"}


def test_generate_takes_the_yaml_and_gives_the_values_found(
    response_model, tuned, tmp_path, capsys
):
    responses = tmp_path / "responses.jsonl"
    assert command(
        "generate", "--config", tuned.with_suffix(".yaml"), "limit=24",
        f"input={ESCONV / 'validation.jsonl'}", f"output={responses}",
    ) == 0  # fmt: skip
    scores = tmp_path / "scores.json"
    assert command("eval", f"predictions={responses}", f"output={scores}") == 0
    found = json.loads(scores.read_text())["metrics"]
    chosen = json.loads(tuned.read_text())["chosen"]
    for key, value in chosen["values"].items():
        assert found[key]["value"] == pytest.approx(value, abs=1e-9)
    by_strategy = {row["strategy"]: row["alpha"] for row in map(json.loads, responses.open())}
    for strategy, alpha in by_strategy.items():
        assert chosen["alpha"][STRATEGIES.index(strategy)] == alpha


def test_every_strategy_and_alpha_is_generated_once(response_model, tmp_path, monkeypatch):
    asked = []
    original = Responder.__call__

    def spy(self, samples, states, **options):
        if options.get("words", True):
            asked.extend((sample.id, options["alpha"]) for sample in samples)
        return original(self, samples, states, **options)

    monkeypatch.setattr(Responder, "__call__", spy)
    assert command(*tune(response_model, tmp_path / "a.json", "tune_alpha.trials=20")) == 0
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("sampler", ["cmaes"])
def test_other_samplers(response_model, tmp_path, sampler):
    output = tmp_path / "a.json"
    assert command(*tune(response_model, output, f"tune_alpha.sampler={sampler}")) == 0
    assert json.loads(output.read_text())["sampler"] == sampler


def test_killed_and_run_again_gives_the_same(response_model, tuned, tmp_path):
    output = tmp_path / "alpha.json"
    process = start(*tune(response_model, output))
    end = time.time() + 60
    while time.time() < end and not list(tmp_path.glob("alpha.json.part*")):
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not output.exists()
    assert command(*tune(response_model, output)) == 0
    ours, theirs = (json.loads(path.read_text()) for path in (output, tuned))
    assert ours["trials"] == theirs["trials"]


def test_another_search_goes_on_with_the_responses_of_an_interrupted_one(
    response_model, tmp_path, monkeypatch, capsys
):
    output, asked = tmp_path / "a.json", []
    original = Responder.__call__

    def stop(self, samples, states, **options):
        asked.extend((sample.id, options.get("alpha")) for sample in samples)
        if len(asked) > 60:
            raise KeyboardInterrupt
        return original(self, samples, states, **options)

    monkeypatch.setattr(Responder, "__call__", stop)
    assert command(*tune(response_model, output)) == 130
    monkeypatch.setattr(Responder, "__call__", original)
    other = ["tune_alpha.trials=5", "tune_alpha.sampler=cmaes"]
    assert command(*tune(response_model, output, *other, "decoding.top_k=7")) == 2
    told = capsys.readouterr().err  # of the search, which the responses do not depend on, nothing
    assert "unfinished work made with other settings" in told
    assert "(differs: decoding.top_k: " in told
    assert "tune_alpha" not in told
    assert command(*tune(response_model, output, *other)) == 0


def test_a_users_yaml_is_not_overwritten(response_model, tmp_path, capsys):
    mine = tmp_path / "a.yaml"
    mine.write_text("seed: 3\n")
    assert command(*tune(response_model, tmp_path / "a.json")) == 2
    assert "was not made by pal tune-alpha" in capsys.readouterr().err
    assert mine.read_text() == "seed: 3\n"


def test_mistakes(response_model, tmp_path, capsys):
    output = tmp_path / "a.json"
    for more, message in (
        (["tune_alpha.objectives=[ppl]"], "'ppl' is not a metric of responses"),
        (["tune_alpha.objectives=[length]"], "neither better nor worse"),
        (["tune_alpha.objectives=[bleu_2, cos_sim]"], "cos_sim has no value"),
        (["tune_alpha.sampler=tpa"], "tune_alpha.sampler"),
    ):
        assert command(*tune(response_model, output, "metrics.embedder=null", *more)) == 2
        assert message in capsys.readouterr().err
    assert command(*tune(response_model, tmp_path / "a.yaml")) == 2
    assert "give a .json name" in capsys.readouterr().err


def test_without_a_network_the_default_encoder_costs_one_objective(response_model, tmp_path, capfd):
    """The default objectives hold cos_sim; asked for by name, it cannot be left out."""
    dialogues = tmp_path / "dialogues.jsonl"
    rows = [json.loads(line) for line in (ESCONV / "validation.jsonl").open()]
    for row in rows[:2]:
        row["dialog"] = [{**turn, "persona": ["I am sad."]} for turn in row["dialog"]]
    dialogues.write_text("\n".join(map(json.dumps, rows[:2])))
    output, named = tmp_path / "a.json", "tune_alpha.objectives=[bleu_2, cos_sim]"
    call = [part for part in tune(response_model, output) if "objectives" not in part]
    call += ["tune_alpha.trials=2", f"input={dialogues}"]
    assert command(*call) == 0
    assert "cos_sim is left out" in capfd.readouterr().err
    document = json.loads(output.read_text())
    assert [one["key"] for one in document["objectives"]] == ["bleu_2", "distinct_2"]
    for chosen in ("metrics.embedder=some/encoder", named):
        assert command(*call, f"output={tmp_path / 'b.json'}", chosen) == 2
        assert "cannot load a sentence encoder" in capfd.readouterr().err
    assert command(*call, f"output={tmp_path / 'c.json'}", "metrics.embedder=null") == 0
    assert "metrics.embedder is null; it is left out" in capfd.readouterr().err
    call += [f"input={ESCONV / 'validation.jsonl'}", f"output={tmp_path / 'd.json'}", named]
    assert command(*call) == 2  # no personas there, and that shows before any response
    assert "cos_sim has no value: no sample has a persona" in capfd.readouterr().err


def test_pareto_front_by_hand():
    points = [
        {"a": 1, "b": 3},
        {"a": 2, "b": 2},
        {"a": 1, "b": 2},
        {"a": 3, "b": 0},
        {"a": 2, "b": 2},
    ]
    assert pareto_front(points, UP) == [True, True, False, True, True]
    assert pareto_front(points, {"a": "higher", "b": "lower"}) == [False] * 3 + [True, False]


def test_most_balanced_by_hand():
    points = [{"values": {"a": a, "b": b}} for a, b in ((0, 10), (5, 6), (9, 1), (10, 0))]
    assert most_balanced(points, UP)["values"] == {"a": 5, "b": 6}
    assert most_balanced(points[:1], UP) is points[0]


def test_objectives_have_a_direction():
    assert objective_directions(["bleu_2", "ead_1"]) == {"bleu_2": "higher", "ead_1": "higher"}
    with pytest.raises(ConfigError, match="'bleu' is not a metric of responses"):
        objective_directions(["bleu"])
