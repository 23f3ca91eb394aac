import json
import random
import shutil
import signal
import stat
import time

import pytest

from pal.benchmark.stages import (
    choosable_checkpoints,
    choosable_steps,
    choose_checkpoint,
    remove_checkpoints,
)
from pal.core.errors import ConfigError
from pal.data.samples import build_samples
from pal.data.splits import load_split
from tests.jobs import ESCONV, TINY_RESPONSE, command, start

TINY = [
    "--config", "reproduce_sample", *TINY_RESPONSE, "data.max_train_samples=48",
    "data.max_validation_samples=16", "training.num_train_epochs=2", "limit=24",
    "decoding.max_new_tokens=12", "decoding.min_new_tokens=2", "annotate.max_new_tokens=8",
    "annotate.num_beams=1", "training.logging_steps=1", "statistics.resamples=200",
    "reproduce.systems=[joint, pal_alpha_0, pal]",
]  # fmt: skip


def benchmark(folder, *more):
    return ["reproduce", *TINY, f"output_dir={folder}", *more]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark") / "run"
    assert command(*benchmark(folder)) == 0
    return folder


def times(folder, *patterns):
    return {p: p.stat().st_mtime_ns for pattern in patterns for p in folder.rglob(pattern)}


STAGES = ("*.safetensors", "responses/*.jsonl", "losses/*.json", "pesconv-*/*.jsonl")


def test_the_table_and_all_that_belongs_to_it(done, capsys):
    names = {path.name for path in done.iterdir()}
    assert {"results.json", "cases.json", "analysis.json", "table.md", "report.html"} <= names
    results = json.loads((done / "results.json").read_text())
    assert list(results["systems"]) == ["joint", "pal_alpha_0", "pal"]
    assert results["samples"] == 24
    pal = results["systems"]["pal"]
    assert [run["seed"] for run in pal["runs"]] == [13, 42]
    values = [run["values"]["bleu_2"] for run in pal["runs"]]
    summary = pal["summary"]["bleu_2"]
    assert summary["mean"] == pytest.approx(sum(values) / 2)
    assert summary["sd"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert summary["low"] <= summary["mean"] <= summary["high"]
    assert pal["printed"]["bleu_2"] == 8.75
    assert pal["authors"].keys() >= {"distinct_1", "ead_2"}
    assert {"train_loss", "validation_nll"} <= {k for p in pal["runs"][0]["curve"] for k in p}
    pairs = {(test["a"], test["b"]) for test in results["tests"]}
    assert pairs == {("joint", "pal_alpha_0"), ("joint", "pal"), ("pal_alpha_0", "pal")}
    assert {test["metric"] for test in results["tests"]} >= {"ppl", "bleu_2", "distinct_2"}
    assert (results["protocol"]["name"], results["protocol"]["samples"]) == ("hub", 24)
    assert results["audit"]["affected"][1]["of"] == "test"
    for page in ("report.html", "table.md"):
        text = (done / page).read_text()
        assert "Audit for duplicates: 0 of 62 test samples" in text
        assert ", chosen as in the protocol hub (" in text
    assert all(test["p"] <= test["p_holm"] <= 1 for test in results["tests"])
    assert command(*benchmark(done)) == 0
    table = capsys.readouterr().out
    assert "| Blenderbot-Joint |" in table
    assert "as printed in the paper" in table
    assert "Left out: cos_sim" in table


def test_alpha_0_is_the_same_model_decoded_otherwise(done):
    systems = json.loads((done / "results.json").read_text())["systems"]
    for one, other in zip(systems["pal"]["runs"], systems["pal_alpha_0"]["runs"], strict=True):
        assert one["model"] == other["model"]
        assert one["predictions"] != other["predictions"]
        assert one["values"]["ppl"] == other["values"]["ppl"]
    assert len(list((done / "models").glob("fusion-*"))) == 2
    assert len(list((done / "models").glob("none-*"))) == 2


def test_case_studies_set_all_systems_side_by_side(done):
    cases = json.loads((done / "cases.json").read_text())
    assert len(cases["cases"]) == 24
    for case in cases["cases"]:
        assert set(case["responses"]) == {"joint", "pal_alpha_0", "pal"}
        assert len(cases["dialogues"][case["dialogue"]]) >= case["turn"]
        assert cases["dialogues"][case["dialogue"]][case["turn"] - 1]["speaker"] == "seeker"


def test_what_is_done_is_never_done_again(done, capsys):
    before = times(done, *STAGES, "results.json", "report.html")
    assert command(*benchmark(done)) == 0
    assert times(done, *STAGES, "results.json", "report.html") == before
    assert command(*benchmark(done, "reproduce.seeds=[42]", "metrics.names=[bleu]")) == 0
    assert times(done, *STAGES) == {p: t for p, t in before.items() if p.suffix != ".html"
                                    and p.name != "results.json"}  # fmt: skip
    results = json.loads((done / "results.json").read_text())
    assert results["systems"]["pal"]["summary"]["bleu_2"]["sd"] is None
    assert command(*benchmark(done)) == 0


COMPUTED = ("responses/*.jsonl", "losses/*-????????????.json", "pesconv-*/*.jsonl",
            "models/*/model.safetensors", "cases.json", "table.md")  # fmt: skip


def same_results(folder, done, patterns=COMPUTED):
    """Everything that a benchmark computes has the same bytes as that of another folder."""
    for pattern in patterns:
        files = list(done.glob(pattern))
        assert files, pattern
        for path in files:
            other = folder / path.relative_to(done)
            assert other.read_bytes() == path.read_bytes(), path.name
    ours, theirs = (json.loads((f / "results.json").read_text()) for f in (folder, done))
    assert ours["tests"] == theirs["tests"]
    assert ours["notices"] == theirs["notices"]
    ours, theirs = (json.loads((f / "analysis.json").read_text()) for f in (folder, done))
    assert ours["strategies"] == theirs["strategies"]


# What lies there when a benchmark is killed, from its first stage to its last.
MOMENTS = (
    "models/extractor-*/checkpoint-*", "pesconv-*/*.part0", "models/none-*/checkpoint-*",
    "responses/*.part0", "losses/*.json", "models/fusion-*/run.json", "results.json.run.json",
)  # fmt: skip


@pytest.mark.parametrize(
    "moments", [MOMENTS[2::2], pytest.param(MOMENTS, marks=pytest.mark.campaign)],
    ids=["some", "all"],
)  # fmt: skip
def test_killed_at_any_moment_and_run_again_gives_the_same_bytes(done, tmp_path, moments):
    folder, draw = tmp_path / "run", random.Random(2)
    for moment in moments:
        process = start(*benchmark(folder))
        end = time.time() + 200
        while process.poll() is None and time.time() < end and not list(folder.glob(moment)):
            time.sleep(0.01)
        time.sleep(0.2 * draw.random())
        process.kill()
        process.wait()
    assert command(*benchmark(folder)) == 0
    same_results(folder, done)
    left = [p.name for p in folder.rglob("*") if p.name.endswith((".tmp", ".lock", ".part0"))]
    assert left == []


def test_side_by_side_interrupted_and_run_again_gives_the_same_bytes(done, tmp_path):
    folder, one_seed = tmp_path / "run", "reproduce.seeds=[13]"
    two = benchmark(folder, one_seed, "reproduce.workers=2")

    process, end = start(*two), time.time() + 200
    while process.poll() is None and time.time() < end:
        if len(list(folder.glob("models/*/run.json"))) >= 2:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in messages
    assert messages.rstrip().endswith("run the same command again to continue")
    process = start(*two)
    table, messages = process.communicate(timeout=200)
    assert process.returncode == 0, messages
    in_turn = tmp_path / "in turn"
    shutil.copytree(done, in_turn)
    assert command(*benchmark(in_turn, one_seed)) == 0
    same_results(in_turn, folder)
    assert table.rstrip("\n") == (folder / "table.md").read_text().rstrip("\n")
    assert "stages: 100%" in messages
    began = {path.name: path.read_text() for path in (folder / "logs").glob("*-*.log")}
    assert len(began) == 11, "what systems share is one stage"
    # Who is stopped just after publishing has no time for the line; nobody finishes twice.
    finished = [text.count("== finished") for text in began.values()]
    assert max(finished) == 1
    assert finished.count(0) <= 2, "one for each process"
    assert sum(text.count(", process ") for text in began.values()) <= 11 + 2


def test_another_systems_responses_enter_the_table(done, tmp_path, capsys):
    cases = json.loads((done / "cases.json").read_text())["cases"]
    path = tmp_path / "theirs.jsonl"
    rows = [{"id": c["id"], "response": "i am sorry to hear that ."} for c in reversed(cases)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert command(*benchmark(done, f"reproduce.outside={{theirs: {path}}}")) == 0
    assert "| theirs |" in capsys.readouterr().out
    theirs = json.loads((done / "results.json").read_text())["systems"]["theirs"]
    assert theirs["summary"]["length"]["mean"] == 7
    assert theirs["printed"] is None
    assert "needs" in theirs["missing"]["ppl"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:-2]))
    assert command(*benchmark(done, f"reproduce.outside={{theirs: {path}}}")) == 2
    assert str(path) in capsys.readouterr().err
    assert command(*benchmark(done)) == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["reproduce.systems=[joint, pall]"], "unknown system 'pall'; did you mean 'pal'"),
        (["training.save_total_limit=1"], "the benchmark chooses among all epochs"),
        (["reproduce.checkpoint=best"], "reproduce.checkpoint: "),
        (["reproduce.overrides={pal: {architectur: {}}}"], "did you mean 'architecture'"),
        (
            ["reproduce.overrides={pal: {architecture: {fusionn: masked}}}"],
            "reproduce.overrides.pal: settings: unknown key 'architecture.fusionn'",
        ),
        (["reproduce.overrides={pal: {decoding: {top_k: many}}}"], "decoding.top_k: "),
        (
            ["reproduce.overrides={pal: {architecture: {tokenizer: none/such/folder}}}"],
            "reproduce.overrides.pal: architecture.tokenizer=none/such/folder: no such folder",
        ),
        (["metrics.nli=none/such/folder"], "metrics.nli=none/such/folder: no such folder; give a"),
        (["overwrite=true"], "'overwrite' is a setting of"),
        (["reproduce.seeds=[1, 1]"], "should hold each value once"),
        (["reproduce.systems=[../pal]"], "reproduce.systems.0"),
        (["reproduce.checkpoint=9"], "joint trains 2 epochs"),
        (["metrics.names=[bleuu]"], "did you mean 'bleu'"),
        (["decoding.strategy=golden"], "unknown strategy 'golden'"),
        (["report.include=[none.json]"], "none.json: no such file"),
        (["reproduce.outside={misc: none.json}"], "none.json: no such file"),
        (["data.validation=bundled:esconv"], "annotate data.validation and input first"),
        (
            [
                "reproduce.extractor=null",
                "data.validation=bundled:esconv/validation.jsonl",
                "data.train=bundled:esconv/train.jsonl",
            ],
            "leaves no test dialogues",
        ),
        (["persona_extractor.data.train=bundled:esconv"], "give the persona conversations"),
        (
            ["persona_extractor.data.train=none.txt"],
            "error: persona_extractor.data.train=none.txt: no such file",
        ),
        (
            ["persona_extractor.architecture={tokenizer: ./none}"],
            "error: persona_extractor.architecture.tokenizer=./none: no such folder",
        ),
        (
            ["persona_extractor.architecture={base: ./none, from_scratch: null}"],
            "error: persona_extractor.architecture.base=./none: no such folder",
        ),
        (
            ["metrics.nli=some-lab/nli"],
            "error: metrics.nli=some-lab/nli: no such folder, and not downloaded before",
        ),
    ],
)
def test_mistakes_are_reported_before_any_work(more, message, tmp_path, capsys):
    assert command(*benchmark(tmp_path / "run", *more)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_extractor_that_is_none_is_told_before_any_work(response_model, tmp_path, capsys):
    given = f"reproduce.extractor={response_model}"
    assert command(*benchmark(tmp_path / "run", given)) == 2
    told = capsys.readouterr().err
    assert f"error: {given}: a " in told
    assert "not a persona extractor; give the folder that task=persona_extractor wrote" in told
    assert not (tmp_path / "run").exists()


def test_equal_responses_get_equal_values_wherever_they_come_from(done, tmp_path):
    results = json.loads((done / "results.json").read_text())
    path = results["systems"]["joint"]["runs"][0]["predictions"]
    only = ["reproduce.systems=[joint]", "reproduce.seeds=[13]"]
    assert command(*benchmark(done, *only, f"reproduce.outside={{same: {path}}}")) == 0
    results = json.loads((done / "results.json").read_text())
    ours, theirs = (results["systems"][name] for name in ("joint", "same"))
    for key in ("ead_1", "ead_2", "distinct_2", "bleu_2"):
        assert ours["summary"][key] == theirs["summary"][key]
    assert ours["authors"] == theirs["authors"]
    assert {test["difference"] for test in results["tests"]} == {0.0}
    assert command(*benchmark(done)) == 0


def test_other_dialogues_make_other_results(done, tmp_path):
    """Also when all that is scored comes from elsewhere."""
    dialogues = tmp_path / "test.jsonl"
    dialogues.write_text((ESCONV / "test.jsonl").read_text())
    count = len(build_samples(load_split(str(dialogues), None), "evaluation"))
    lines = tmp_path / "responses.txt"
    lines.write_text("i hear you .\n" * count)
    outside = ["--config", "reproduce_sample", "reproduce.systems=[]", "reproduce.extractor=null",
               f"reproduce.outside={{theirs: {lines}}}", f"input={dialogues}", "report.cases=0",
               "statistics.resamples=200", f"output_dir={tmp_path / 'run'}"]  # fmt: skip

    def f1():
        assert command("reproduce", *outside) == 0
        results = json.loads((tmp_path / "run/results.json").read_text())
        return results["systems"]["theirs"]["summary"]["f1"]["mean"]

    before = f1()
    dialogues.write_text(dialogues.read_text().replace("you", "thou"))
    assert f1() < before
    assert not (tmp_path / "run/cases.json").exists()


def test_a_table_cut_short_is_not_taken_for_another(done, monkeypatch):
    """Interrupted between page and results: what lies there is made again."""
    import pal.benchmark.results as results

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    before = (done / "table.md").read_text()
    monkeypatch.setattr(results, "write_page", stop)
    assert command(*benchmark(done, "metrics.names=[bleu]")) == 130
    monkeypatch.undo()
    assert not (done / "results.json").exists()
    assert command(*benchmark(done)) == 0
    assert (done / "table.md").read_text() == before


def test_another_version_of_the_package_makes_every_stage_again(done, monkeypatch):
    """Of this one, or of one that computes: names of stages hold them."""
    from pal.benchmark.stages import stage_name
    from pal.commands import load_settings
    from pal.core import job

    settings = load_settings("train", None, [f"data.train={ESCONV}"])
    name, known = stage_name("train", settings), job.version_of
    assert stage_name("train", settings) == name
    for package in ("pal-esc", "torch"):
        monkeypatch.setattr(
            job, "version_of", lambda one, other=package: "next" if one == other else known(one)
        )
        assert stage_name("train", settings) != name


def test_checkpoints_that_nothing_chooses_are_removed(done):
    for model in (done / "models").iterdir():
        checkpoints = list(model.glob("checkpoint-*"))
        assert (model / "model.safetensors").exists()
        if model.name.startswith("extractor"):
            assert not checkpoints, "the model beside them is the one that annotates"
            continue
        assert 1 <= len(checkpoints) <= 2
        names = {path.name for folder in checkpoints for path in folder.iterdir()}
        assert "model.safetensors" in names
        assert not {"optimizer.pt", "scheduler.pt", "rng_state.pth"} & names


def make_run(folder, losses, chosen=()):
    """A training run's folder with a checkpoint every ten steps."""
    folder.mkdir(exist_ok=True)
    log = [{"eval_nll": loss, "epoch": float(n), "step": 10 * n}
           for n, loss in enumerate(losses, 1)]  # fmt: skip
    (folder / "training_log.json").write_text(json.dumps(log))
    for entry in log:
        checkpoint = folder / f"checkpoint-{entry['step']}"
        checkpoint.mkdir()
        for name in ("model.safetensors", "optimizer.pt", "rng_state_1.pth", "trainer_state.json"):
            (checkpoint / name).write_bytes(bytes(100))
        (checkpoint / "global_step10").mkdir()
    return folder


def test_the_checkpoints_of_every_named_rule_stay(tmp_path):
    run = make_run(tmp_path / "run", [3.0, 2.0, 1.0, 2.5, 4.0])
    kept = choosable_checkpoints(run, 2)
    assert remove_checkpoints(run, kept) == 0, "an unfinished run needs all of them"
    assert len(list(run.glob("checkpoint-*"))) == 5
    (run / "run.json").write_text("{}")
    (run / "checkpoint-best").mkdir()
    assert remove_checkpoints(run, kept) == 2 * 400 + 3 * 200
    assert {path.name for path in run.glob("checkpoint-*")} == {
        "checkpoint-20", "checkpoint-30", "checkpoint-50", "checkpoint-best",
    }  # fmt: skip
    left = {path.name for path in (run / "checkpoint-20").iterdir()}
    assert left == {"model.safetensors", "trainer_state.json"}
    assert [choose_checkpoint(run, rule)[1] for rule in (2, "lowest_loss", "last")] == [2, 3, 5]
    assert choosable_checkpoints(run, 2) == kept
    with pytest.raises(ConfigError, match=r"reproduce\.keep_checkpoints=true"):
        choose_checkpoint(run, 1)


def test_every_checkpoint_stays_where_it_is_asked_for(tmp_path):
    more = ["reproduce.systems=[joint]", "reproduce.seeds=[13]", "reproduce.extractor=null",
            "reproduce.keep_checkpoints=true"]  # fmt: skip
    assert command(*benchmark(tmp_path / "run", *more)) == 0
    (model,) = (tmp_path / "run" / "models").iterdir()
    kept = sorted(path.name for path in model.glob("checkpoint-*/optimizer.pt"))
    assert len(kept) == 2
    assert command(*benchmark(tmp_path / "run", *more[:-1])) == 0
    assert not list(model.glob("checkpoint-*/optimizer.pt"))


def test_the_steps_that_a_rule_can_still_choose():
    found = [{"eval_nll": nll, "epoch": float(n), "step": 10 * n}
             for n, nll in enumerate([3.0, 1.0, 2.0, 2.5], 1)]  # fmt: skip
    assert choosable_steps([], "last") == set()
    assert choosable_steps(found[:1], 3) == {10}
    assert choosable_steps(found[:2], 3) == {20}, "the nearest to epoch 3 so far"
    assert choosable_steps(found, 3) == {20, 30, 40}
    assert choosable_steps(found, "last") == choosable_steps(found, "lowest_loss") == {20, 40}


EPOCHS = 6
ONE_LONG_RUN = ["reproduce.systems=[joint]", "reproduce.seeds=[13]", "reproduce.extractor=null",
                f"training.num_train_epochs={EPOCHS}", "limit=4"]  # fmt: skip


def test_a_checkpoint_goes_as_soon_as_no_rule_can_choose_it(tmp_path, monkeypatch):
    """Whatever the number of epochs: the newest, of the lowest loss, and the one being written."""
    import pal.benchmark.stages as stages

    seen, known = [], stages.choosable_steps

    def look(found, rule):
        (model,) = tmp_path.glob("run/models/none-*")
        states = len(list(model.glob("checkpoint-*/optimizer.pt")))
        seen.append((len(list(model.glob("checkpoint-*"))), states))
        return known(found, rule)

    monkeypatch.setattr(stages, "choosable_steps", look)
    assert command(*benchmark(tmp_path / "run", *ONE_LONG_RUN)) == 0
    assert len(seen) == EPOCHS
    assert max(count for count, _ in seen) <= 3
    assert max(states for _, states in seen) == 2, "two to continue from, until one is complete"


def test_a_run_interrupted_after_checkpoints_went_trains_no_epoch_again(tmp_path, monkeypatch):
    import pal.commands.generate as generating
    import pal.commands.train as training

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert command(*benchmark(whole, *ONE_LONG_RUN)) == 0

    # Killed in the middle of training: the checkpoints before the newest are gone already.
    process = start(*benchmark(cut, *ONE_LONG_RUN))
    end = time.time() + 200
    steps = set()
    while process.poll() is None and time.time() < end and len(steps) < 3:
        steps |= {path.parent.name for path in cut.glob("models/*/*/trainer_state.json")}
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not list(cut.glob("models/*/run.json")), "killed too late to say anything"
    assert len(list(cut.glob("models/*/checkpoint-*"))) < EPOCHS

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(generating, "generate", stop)
        assert command(*benchmark(cut, *ONE_LONG_RUN)) == 130
    assert len(list(cut.glob("models/*/run.json"))) == 1
    before = times(cut, "*.safetensors")
    monkeypatch.setattr(training, "train", stop)
    assert command(*benchmark(cut, *ONE_LONG_RUN)) == 0
    assert times(cut, "*.safetensors") == before
    for pattern in ("models/*/model.safetensors", "responses/*.jsonl", "table.md"):
        (path,) = whole.glob(pattern)
        assert (cut / path.relative_to(whole)).read_bytes() == path.read_bytes()


def test_figures_are_over_all_seeds(done):
    analysis = json.loads((done / "analysis.json").read_text())
    assert analysis["seeds"] == [13, 42]
    for system in analysis["strategies"]["systems"].values():
        assert system["n"] == 48
        assert sum(map(sum, system["confusion"])) == 48
        assert sum(system["distribution"].values()) == 48
    results = json.loads((done / "results.json").read_text())
    for name, system in analysis["strategies"]["systems"].items():
        accuracy = results["systems"][name]["summary"]["accuracy"]["mean"]
        assert system["top"][0] == pytest.approx(accuracy)
    assert json.loads((done / "cases.json").read_text())["seed"] == 13
    page = (done / "report.html").read_text()
    assert "Over 2 seeds (13, 42)" in page
    assert "Responses of seed 13." in page


def test_toys_are_called_toys(done):
    results = json.loads((done / "results.json").read_text())
    notices = results["notices"]
    (told,) = [note for note in results["notes"] if note.startswith("Trained from")]
    assert told.startswith("Trained from random weights (0.")
    assert "million parameters): " in told
    assert told.endswith("PAL.")
    assert told in (done / "table.md").read_text()
    assert ["bundled sample" in notices[0], "models are toys" in notices[1]] == [True, True]
    top = (done / "report.html").read_text().partition("<nav")[0]
    assert all(notice.split(":")[0] in top for notice in notices)


def test_texts_are_for_the_user_alone(done):
    files = [*done.glob("responses/*.jsonl"), *done.glob("pesconv-*/*.jsonl"), done / "cases.json",
             done / "report.html"]  # fmt: skip
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_settings_from_python_reach_every_stage_with_its_block():
    from pal.commands.reproduce import ReproduceSettings, stage_settings
    from pal.config import load_settings

    given = ["persona_extractor.training.learning_rate=0.5", "training.warmup_steps=7"]
    for command_name in (None, "reproduce"):
        whole = load_settings("reproduce_sample", given, command=command_name)
        settings = ReproduceSettings.of(whole)
        extractor = stage_settings(settings, "train", task="persona_extractor")
        assert extractor.data.train.endswith("personachat/train.txt")
        assert extractor.architecture.from_scratch["model_type"] == "bart"
        assert (extractor.training["learning_rate"], extractor.training["warmup_steps"]) == (0.5, 7)
        system = stage_settings(settings, "train", {"seed": 5})
        assert system.data.train.endswith("esconv")
        assert (system.training["learning_rate"], system.seed) == (1e-3, 5)
        answers = stage_settings(settings, "generate", {"decoding": {"alpha": 0.5}})
        assert answers.decoding.alpha == 0.5


def test_choice_of_the_checkpoint(tmp_path):
    log = [
        {"loss": 5.0, "epoch": 0.5, "step": 5},
        {"eval_nll": 4.0, "epoch": 1.0, "step": 10},
        {"eval_nll": 3.0, "epoch": 2.0, "step": 20},
        {"eval_nll": 3.5, "epoch": 3.0, "step": 30},
    ]
    (tmp_path / "training_log.json").write_text(json.dumps(log))
    for step in (10, 20, 30):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "model.safetensors").touch()
    assert choose_checkpoint(tmp_path, "lowest_loss") == (tmp_path / "checkpoint-20", 2.0, 3.0)
    assert choose_checkpoint(tmp_path, "last") == (tmp_path / "checkpoint-30", 3.0, 3.5)
    assert choose_checkpoint(tmp_path, 1) == (tmp_path / "checkpoint-10", 1.0, 4.0)
    with pytest.raises(ConfigError, match="has epochs 1 to 3"):
        choose_checkpoint(tmp_path, 4)
    (tmp_path / "checkpoint-20" / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="is not there"):
        choose_checkpoint(tmp_path, "lowest_loss")


def test_tracking_writes_numbers_and_texts_only_when_asked(done, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    text = json.loads((done / "cases.json").read_text())["cases"][0]["reference"]

    def logged():
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        return b"".join(path.read_bytes() for path in files)

    track = ["tracking.wandb=true", "reproduce.systems=[joint]", "reproduce.seeds=[13]"]
    assert command(*benchmark(done, *track)) == 0
    until = time.monotonic() + 30  # the tracker writes in a process of its own
    while b"bleu_2" not in logged() and time.monotonic() < until:
        time.sleep(0.2)
    assert b"bleu_2" in logged()
    assert text.encode() not in logged()
    assert command(*benchmark(done, *track, "tracking.texts=true")) == 0
    assert text.encode() in logged()
    assert command(*benchmark(done)) == 0
