import re

import pytest

from pal.commands.bench import bench_llm
from pal.config import load_settings
from pal.core.errors import OutputError, PalError
from pal.core.files import read_json
from pal.speed import llm
from pal.speed.llm import loopback


def test_both_sides_are_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(llm, "STUDY", 2000)
    output = tmp_path / "bench.json"
    settings = load_settings(None, ["limit=60", "bench.rounds=1", f"output={output}"])
    table = bench_llm(settings)
    assert re.search(r"\| ours \| \d+ \| \d+% \| \d+% \| \d+\.\d\d \|", table)
    assert "2,000 answers read back from the cache" in table
    document = read_json(output)
    # 60 requests of 50 ms on 32 connections take two rounds of the server at least
    assert min(document["seconds"]["ours"] + document["seconds"]["bare"]) > 0.1
    with pytest.raises(OutputError, match="exists"):
        bench_llm(settings)


def test_a_missing_answer_stops_the_measurement(monkeypatch, tmp_path):
    settings = load_settings(None, [f"llm.cache={tmp_path / 'c'}", "llm.model=m"])
    schema = {**llm.SCHEMA, "properties": {"answer": {"type": "integer", "maximum": 2}}}
    monkeypatch.setattr(llm, "SCHEMA", schema)
    with loopback() as url:
        side = settings.llm.model_copy(update={"base_url": url, "structured": "json_schema"})
        with pytest.raises(PalError, match="an answer went missing"):
            llm.ask_ours(side, llm.make_requests(2))
