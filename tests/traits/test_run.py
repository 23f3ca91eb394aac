"""All three questions in one go, against a loopback server."""

import pytest

from pal.records import read_json, write_jsonl
from tests.jobs import ESCONV, command
from tests.llm.server import FakeServer
from tests.traits.fakes import World, answer, planted
from tests.traits.test_chain import endpoint


def arguments(folder, server):
    return ["traits", "run", f"output_dir={folder / 'out'}", "split=test", "limit=6",
            f"traits.personas={folder / 'p.jsonl'}",
            f"traits.corpora={{esconv: {{input: {ESCONV}}}}}",
            "traits.form=short", "traits.conditions=[none, both]", "statistics.resamples=199",
            *endpoint(server, folder)]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_jsonl(folder / "p.jsonl", [{"persona": f"Case {n}. A clerk."} for n in range(6)])
    with FakeServer(answer(World(planted(40)))) as server:
        assert command(*arguments(folder, server)) == 0
        first = len(server.requests)
        before = {path: path.read_bytes() for path in (folder / "out").iterdir()}
        assert command(*arguments(folder, server)) == 0
        assert len(server.requests) == first
        after = {path: path.read_bytes() for path in (folder / "out").iterdir()}
        assert command(*arguments(folder, server), "overwrite=true") == 0
        assert len(server.requests) == first  # all of it from the cache
    return folder / "out", before, after


def test_a_second_run_changes_nothing(finished):
    _, before, after = finished
    assert {p.name for p in before} == {p.name for p in after}
    assert all(before[path] == after[path] for path in before if path.suffix == ".jsonl")


def one(folder, name):
    (path,) = [p for p in folder.glob(f"{name}-*.json") if not p.name.endswith(".run.json")]
    return read_json(path)


def test_every_question_is_answered(finished):
    folder, _, _ = finished
    assert one(folder, "correlations")["groups"][0]["dataset"] == "esconv"
    consistency = one(folder, "consistency")
    assert consistency["groups"][0]["dimensions"]
    assert consistency["concentration"]
    (group,) = one(folder, "strategies")["groups"]
    assert set(group["conditions"]) == {"none", "both"}
    assert one(folder, "statistics")["dialogues"]
    assert "<html" in (folder / "report.html").read_text()


def test_nothing_to_run_is_told(tmp_path, capsys):
    assert command("traits", "run", f"output_dir={tmp_path}") == 2
    assert "give traits.corpora and/or traits.personas" in capsys.readouterr().err
