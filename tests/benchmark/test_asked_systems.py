"""Language models from outside in the benchmark's table: asked once, scored beside the others."""

import json
from collections import Counter

import pytest

from tests.jobs import ESCONV, command
from tests.llm.server import FakeServer
from tests.supporter.test_answer import answers, said


def call(folder, url, *more):
    return command(
        "reproduce", f"data.train={ESCONV / 'test.jsonl'}", f"input={ESCONV / 'test.jsonl'}",
        f"output_dir={folder}", "limit=20", "metrics.embedder=null", "statistics.resamples=200",
        "report.cases=4", "reproduce.seeds=[13,42]", f"llm.base_url={url}", "llm.model=fake",
        f"llm.cache={folder.parent / 'cache.sqlite'}", *more,
    )  # fmt: skip


SYSTEMS = (
    "reproduce.systems=[llm, llm_persona, gpt]",
    "reproduce.overrides={gpt: {base: llm_strategy, label: GPT, llm: {model: other}, "
    "supporter: {temperature: 0.5}}}",
)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("asked") / "run"
    with FakeServer(answers, lambda n, body: "refusal" if n == 3 else None) as server:
        assert call(folder, server.url, *SYSTEMS) == 0
        sent = list(server.requests)
        assert call(folder, server.url, *SYSTEMS) == 0
        (folder / "results.json").unlink()
        assert call(folder, server.url, *SYSTEMS) == 0
        assert len(server.requests) == len(sent)  # nothing is asked twice
    return folder, sent


def test_they_stand_in_the_table(done):
    folder, _ = done
    results = json.loads((folder / "results.json").read_text())
    assert list(results["systems"]) == ["llm", "llm_persona", "gpt"]
    assert "| GPT |" in (folder / "table.md").read_text()
    assert "GPT" in (folder / "report.html").read_text()
    plain, gpt = results["systems"]["llm"], results["systems"]["gpt"]
    assert [run["seed"] for run in plain["runs"]] == [None]  # the same for all seeds
    assert [run["seed"] for run in gpt["runs"]] == [13, 42]
    assert gpt["summary"]["bleu_2"]["sd"] is not None
    assert "accuracy" in gpt["summary"]
    assert "response alone" in plain["missing"]["accuracy"]
    for system in (plain, gpt):
        assert "no probabilities" in system["missing"]["ppl"]
    compared = {(test["a"], test["b"]) for test in results["tests"] if test["metric"] == "bleu_2"}
    assert compared == {("llm", "llm_persona"), ("llm", "gpt"), ("llm_persona", "gpt")}
    notes = [note for note in results["notes"] if "refused" in note]
    assert [note.split(" requests")[0] for note in notes] == [
        "Language model: 1 of 20", "Language model, persona: 1 of 20",
    ]  # fmt: skip


def test_each_model_and_seed_is_asked_what_it_needs(done):
    _, sent = done
    counts = Counter((body["model"], "response_format" in body) for body in sent)
    assert counts["other", True] == 40
    # The corpus holds no personas, so both ask the same, and the same is asked once.
    assert counts["fake", False] == 20
    assert len({body.get("seed") for body in sent if body["model"] == "other"}) == 40
    assert all("<dialogue>" in said(body) for body in sent)


def test_a_local_model_that_is_not_downloaded_is_missed_before_anything_is_done(tmp_path, capsys):
    given = ["llm.backend=transformers", "llm.model=some-lab/model", "reproduce.systems=[llm]"]
    assert call(tmp_path / "run", "http://localhost:1/v1", *given) == 2
    told = capsys.readouterr().err
    assert "reproduce.systems: llm: llm.model=some-lab/model: no such folder, and not down" in told
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_not_named_is_missed_before_anything_is_done(tmp_path, capsys):
    assert command(
        "reproduce", f"data.train={ESCONV}", f"output_dir={tmp_path / 'run'}",
        "reproduce.systems=[llm]",
    ) == 2  # fmt: skip
    error = capsys.readouterr().err
    assert "reproduce.systems: llm: missing settings: give llm.model=" in error
    assert "and llm.base_url=" in error
    assert not (tmp_path / "run").exists()
