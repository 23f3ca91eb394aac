"""All three questions in one go, against a loopback server."""

import shutil
import signal
import time
import zlib
from pathlib import Path

import pytest

from pal.commands import load_settings
from pal.core.errors import DataError, PlannedStop
from pal.core.files import read_json, read_jsonl, write_jsonl
from pal.traits.run import run_traits
from tests.jobs import ESCONV, command, start
from tests.llm.server import FakeServer
from tests.traits.fakes import World, answer, planted
from tests.traits.test_chain import endpoint


def arguments(folder, server):
    return ["traits", "run", f"output_dir={folder / 'out'}", "split=test", "limit=6",
            f"traits.personas={folder / 'p.jsonl'}",
            f"traits.corpora={{esconv: {{input: {ESCONV}}}}}",
            "traits.form=short", "traits.conditions=[none, both]", "statistics.resamples=199",
            *endpoint(server, folder)]  # fmt: skip


def prepare(folder):
    write_jsonl(folder / "p.jsonl", [{"persona": f"Case {n}. A clerk."} for n in range(6)])
    return folder


def contents(folder, suffix=""):
    return {p.name: p.read_bytes() for p in (folder / "out").iterdir() if p.name.endswith(suffix)}


@pytest.fixture(scope="module")
def server():
    with FakeServer(answer(World(planted(40)))) as server:
        yield server


@pytest.fixture(scope="module")
def finished(tmp_path_factory, server):
    folder = prepare(tmp_path_factory.mktemp("run"))
    assert command(*arguments(folder, server)) == 0
    return folder, contents(folder)


def test_nothing_is_asked_or_made_twice(finished, server):
    folder, before = finished
    asked = len(server.requests)
    assert command(*arguments(folder, server)) == 0
    after = contents(folder)
    assert before.keys() == after.keys()
    made = [name for name in before if not name.startswith("report.html")]
    assert all(before[name] == after[name] for name in made)
    assert command(*arguments(folder, server), "overwrite=true") == 0
    assert contents(folder, ".jsonl") == {n: before[n] for n in before if n.endswith(".jsonl")}
    assert len(server.requests) == asked  # all of it came from the cache


def test_killed_at_any_stage_and_resumed_gives_the_same(finished, server, tmp_path):
    _, before = finished
    call = arguments(prepare(tmp_path), server)
    start_count = len(server.requests)
    for asked in (3, 60, 250):
        process = start(*call)
        while len(server.requests) - start_count < asked:
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert command(*call) == 0
    whole = {name: text for name, text in before.items() if name.endswith(".jsonl")}
    assert contents(tmp_path, ".jsonl") == whole
    assert before.keys() <= contents(tmp_path).keys()


def test_other_settings_keep_all_files_but_the_page(finished, server, tmp_path, capsys):
    """As docs/settings.md has it: stages lie beside each other, the page is of the last run."""
    folder, before = finished[0], contents(finished[0])
    shutil.copytree(folder / "out", tmp_path / "out")
    call = [one for one in arguments(folder, server) if not one.startswith("output_dir")]
    assert command(*call, f"output_dir={tmp_path / 'out'}", "limit=5") == 0
    after = contents(tmp_path)
    stages = {name for name in before if not name.startswith("report.html")}
    assert {name: after[name] for name in stages} == {name: before[name] for name in stages}
    assert len(after) > len(before)
    assert after["report.html"] != before["report.html"]
    made = [name for name in after.keys() - before.keys() if name.endswith(".json")]
    assert all(name.encode() in after["report.html"] for name in made if "run.json" not in name)


def test_every_output_has_a_record_and_one_that_was_cut_is_refused(finished, server, capsys):
    folder, before = finished[0], contents(finished[0])
    outputs = [n for n in before if not n.endswith((".run.json", ".failed.jsonl"))]
    assert {f"{name}.run.json" for name in outputs} <= before.keys()
    for joined in ("measurements", "talks"):
        (path,) = (folder / "out").glob(f"{joined}-*.jsonl")
        path.write_bytes(before[path.name][:-9])
        assert command(*arguments(folder, server)) == 2
        assert f"{path} has {len(before[path.name]) - 9} bytes" in capsys.readouterr().err
        path.unlink()
        assert command(*arguments(folder, server)) == 0
        assert path.read_bytes() == before[path.name]


def one(folder, name):
    (path,) = [p for p in folder.glob(f"{name}-*.json") if not p.name.endswith(".run.json")]
    return read_json(path)


def test_every_question_is_answered(finished):
    folder = finished[0] / "out"
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
    assert "or traits.personas=FILE, or both" in capsys.readouterr().err


class Strict(World):
    """A model whose verdict keeps no card."""

    def __call__(self, name, system, user):
        value = super().__call__(name, system, user)
        return {**value, "keep": False, "reasons": ["no event"]} if name == "verdict" else value


def test_a_filter_that_keeps_nothing_is_said_by_name(tmp_path, capsys):
    with FakeServer(answer(Strict(planted(40)))) as server:
        assert command(*arguments(prepare(tmp_path), server)) == 2
    error = capsys.readouterr().err
    assert "of 6 cards of esconv none was made and kept by the filter" in error
    assert "traits.corpora" in error


class Choosy(World):
    """A model that writes a different card for every text, and keeps about half of them."""

    def __call__(self, name, system, user):
        value, number = super().__call__(name, system, user), zlib.crc32(user.encode())
        if name == "card":
            return {**value, "description": f"{value['description']} Number {number}."}
        if name == "verdict":
            return {**value, "keep": number % 2 == 0, "reasons": ["no event"] * (number % 2)}
        return value


def lines_of(folder, pattern):
    (path,) = folder.glob(pattern)
    return [row for _, row in read_jsonl(path)]


def test_what_the_filter_dropped_is_named_so_in_the_run(tmp_path, capsys):
    with FakeServer(answer(Choosy(planted(40)))) as server:
        given = arguments(prepare(tmp_path), server)
        assert command(*[one for one in given if "personas" not in one]) == 0
        prompts = [body["messages"][-1]["content"] for body in server.requests]
        shown, out = capsys.readouterr(), tmp_path / "out"
        again = [*given, "llm.estimate_only=true", f"output_dir={tmp_path / 'fresh'}"]
        assert command(*[one for one in again if "personas" not in one]) == 0
        estimated = capsys.readouterr()
    dropped = [row["id"] for row in lines_of(out, "esconv-filter-*.jsonl") if not row["keep"]]
    assert 0 < len(dropped) < 6
    failed = lines_of(out, "esconv-continue-*.failed.jsonl")
    assert {row["card"] for row in failed} == set(dropped)
    assert {row["failed"] for row in failed} == {"the filter dropped its card"}
    # Each line says what it counts: two inventories to a card, two conditions to a dialogue.
    kept = 6 - len(dropped)
    assert f"| measurements (one for each card and inventory) written | {2 * kept} |" in shown.err
    assert f"| dialogues (one for each of 2 conditions) written | {2 * kept} |" in shown.err
    assert f"| not written: the filter dropped its card | {2 * len(dropped)} |" in shown.err
    said = (
        f"{len(dropped)} of 6 dialogues are not continued under any condition: the filter dropped"
    )
    assert said in shown.err
    assert said in estimated.err
    assert "pal-estimate" not in estimated.err + estimated.out  # whose files are gone by then
    assert "| nothing left to ask: the answers are kept in " in estimated.out
    assert "not continued: the filter dropped their cards" in (out / "report.html").read_text()
    assert "no trait sentences for" not in shown.err + shown.out + (out / "report.html").read_text()
    # The cards that tell who was dropped give the model nothing more than the scores.
    scored = [text for text in prompts if "Score: " in text]
    assert len(scored) == 6 - len(dropped)
    assert not any("is like that in" in text for text in scored)


def test_personas_that_cannot_be_read_are_told_before_anything_is_asked(tmp_path):
    """The corpora's questions cost."""
    write_jsonl(tmp_path / "personas.jsonl", [{"persona": ["I am a nurse."]}])
    settings = load_settings("traits run", None, [
        "traits.corpora={esconv: {input: bundled:esconv}}", f"output_dir={tmp_path / 'out'}",
        f"traits.personas={tmp_path / 'personas.jsonl'}", "llm.model=none",
    ])  # fmt: skip
    with pytest.raises(DataError, match=r"line 1: 'persona' must be one text"):
        run_traits(settings)
    assert not (tmp_path / "out").exists()


def test_personas_are_read_once(tmp_path, monkeypatch):
    write_jsonl(tmp_path / "personas.jsonl", [{"persona": "I am a nurse."}])
    read = []
    monkeypatch.setattr(
        "pal.traits.readers.read_jsonl", lambda path: read.append(Path(path)) or read_jsonl(path)
    )
    settings = load_settings("traits run", None, [
        f"traits.personas={tmp_path / 'personas.jsonl'}", "llm.model=none",
        "llm.base_url=http://localhost:1/v1", "llm.estimate_only=true",
        f"llm.cache={tmp_path / 'cache.sqlite'}",
    ])  # fmt: skip
    with pytest.raises(PlannedStop, match="personas-expand"):
        run_traits(settings)
    assert read.count(tmp_path / "personas.jsonl") == 1
