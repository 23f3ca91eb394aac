"""``pal bench scale``: every stage in a process of its own, and nothing left behind."""

import json
import os

import pytest

from pal.commands.bench import BenchScaleSettings, bench_scale
from pal.core.errors import ConfigError
from pal.data.esconv import load_esconv
from pal.data.samples import build_samples
from pal.speed.scale import StageError, measure_scale, memory_of
from pal.speed.synthetic import write_synthetic


def test_the_corpus_is_read_and_grows_with_its_number(tmp_path):
    path = tmp_path / "corpus.jsonl"
    size = write_synthetic(path, 20, turns=6, seed=1)
    rows = load_esconv(path)
    assert size == path.stat().st_size
    assert {len(row["dialog"]) for row in rows} == {6}
    assert len({turn["text"] for row in rows for turn in row["dialog"]}) == 120
    assert any(sample.persona for sample in build_samples(rows, "evaluation"))
    write_synthetic(tmp_path / "more.jsonl", 40, turns=6, seed=1)
    assert (tmp_path / "more.jsonl").read_bytes().startswith(path.read_bytes())


def test_stages_are_measured_and_their_files_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    output = tmp_path / "scale.json"
    table = bench_scale(
        BenchScaleSettings(limit=30, output=str(output), bench={"stages": ["read"], "turns": 4})
    )
    document = json.loads(output.read_text())
    (row,) = document["rows"]
    assert row["memory"] > 2**20
    assert (row["stage"], document["dialogues"], document["turns"]) == ("read", 30, 4)
    assert "30 synthetic dialogues of 4 turns" in table
    assert os.listdir(tmp_path) == ["scale.json"]


def test_a_stage_that_fails_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    given = {"model": str(tmp_path / "no_such_model"), "extractor": None, "canned": True}
    with pytest.raises(StageError, match=r"stage generate ended with 2: .*no_such_model"):
        measure_scale(dialogues=3, turns=2, seed=1, stages=["generate"], **given)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (["generate"], "give model="),
        (["annotate"], "give bench.extractor="),
        (["eval"], "generate"),
    ],
)
def test_what_a_stage_needs_is_asked_for(stages, message):
    with pytest.raises(ConfigError, match=message):
        bench_scale(BenchScaleSettings(bench={"stages": stages}))


def test_memory_is_that_of_a_process():
    held, mapped = memory_of(os.getpid())
    block = bytearray(b"x" * 2**26)
    assert memory_of(os.getpid())[0] - held > 2**25
    assert mapped >= 0
    del block
    assert memory_of(2**22 + 1) == (0, 0)
