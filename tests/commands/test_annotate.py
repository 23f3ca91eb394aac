import json
import signal
import time
from itertools import pairwise

import pytest

from tests.jobs import ESCONV, command, start, torchrun


def arguments(model, output, *more, source=ESCONV / "test.jsonl"):
    return [
        "annotate", f"model={model}", f"input={source}", f"output={output}",
        "annotate.num_beams=2", "annotate.max_new_tokens=12", "batch_rows=8", *more,
    ]  # fmt: skip


@pytest.fixture(scope="session")
def pesconv(extractor_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("annotated") / "pesconv.jsonl"
    assert command(*arguments(extractor_model, path)) == 0
    return path


def test_persona_is_known_at_every_turn_and_only_grows(pesconv):
    from pal import load_esconv

    rows, original = load_esconv(pesconv), load_esconv(ESCONV / "test.jsonl")
    assert len(rows) == 8
    assert [[t["text"] for t in row["dialog"]] for row in rows] == [
        [t["text"] for t in row["dialog"]] for row in original
    ]
    assert any(row["persona"] for row in rows)
    for row in rows:
        known = [turn["persona"] for turn in row["dialog"]]
        assert known[:2] == [[], []]
        assert all(later[: len(earlier)] == earlier for earlier, later in pairwise(known))
        assert row["persona"] == known[-1]


def test_one_dialogue_at_a_time_gives_the_same(extractor_model, pesconv, tmp_path):
    output = tmp_path / "out.jsonl"
    assert command(*arguments(extractor_model, output, "batch_rows=1")) == 0
    assert output.read_bytes() == pesconv.read_bytes()


def test_killed_and_resumed_gives_the_same_bytes(extractor_model, pesconv, tmp_path):
    output = tmp_path / "out.jsonl"
    call = arguments(extractor_model, output)
    process = start(*call)
    part = tmp_path / "out.jsonl.part0"
    while not part.exists() or part.read_text().count("\n") < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not output.exists()
    assert command(*call) == 0
    assert output.read_bytes() == pesconv.read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"out.jsonl", "out.jsonl.run.json"}


@pytest.mark.distributed
def test_two_processes_write_the_bytes_of_one(extractor_model, pesconv, tmp_path):
    """In every run, responses are generated so."""
    output = tmp_path / "out.jsonl"
    code, text = torchrun(2, *arguments(extractor_model, output))
    assert code == 0, text
    assert output.read_bytes() == pesconv.read_bytes()


def test_released_layout_holds_the_same(extractor_model, tmp_path):
    from pal import load_esconv

    start_released = "annotate.start=third_seeker_turn"
    ours, theirs = tmp_path / "ours.jsonl", tmp_path / "theirs.json"
    assert command(*arguments(extractor_model, ours, start_released)) == 0
    layout = "annotate.layout=released"
    assert command(*arguments(extractor_model, theirs, start_released, layout)) == 0
    assert list(load_esconv(ours)) == list(load_esconv(theirs))
    first = json.loads(theirs.read_text())[0]
    seekers = sum(turn["speaker"] == "seeker" for turn in first["dialog"])
    assert len(first["persona_list"]) == seekers - 2
    assert all(text.startswith("<input>") for text in first["persona_list"])


def test_repeated_prefixes_are_computed_once(extractor_model, tmp_path, capsys):
    source = tmp_path / "twice.jsonl"
    line = (ESCONV / "test.jsonl").read_text().splitlines()[0]
    again = json.dumps(json.loads(line) | {"id": "again"})
    source.write_text(f"{line}\n{again}\n")
    output = tmp_path / "out.jsonl"
    assert command(*arguments(extractor_model, output, source=source)) == 0
    run = json.loads((tmp_path / "out.jsonl.run.json").read_text())
    shown = capsys.readouterr().err
    assert "annotate (distinct texts): 100%" in shown  # not turns, nor dialogues
    assert f"{run['distinct_sources']}/{run['distinct_sources']} [" in shown
    seekers = sum(turn["speaker"] == "usr" for turn in json.loads(line)["dialog"])
    assert run["prefixes"] in (seekers, seekers - 1)


def test_a_finished_output_is_found_before_the_model_is_loaded(
    extractor_model, pesconv, monkeypatch, capsys
):
    monkeypatch.delattr("pal.persona.extractor.load_extractor")
    capsys.readouterr()
    assert command(*arguments(extractor_model, pesconv)) == 0
    told = capsys.readouterr().err
    assert "is already finished" in told
    assert "loading" not in told


def test_a_response_model_is_refused(response_model, tmp_path, capsys):
    assert command(*arguments(response_model, tmp_path / "out.jsonl")) == 2
    assert "a pal model, but not a persona extractor" in capsys.readouterr().err
