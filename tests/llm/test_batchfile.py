import json

import pytest

from pal.core.errors import DataError, OutputError, PlannedStop
from pal.llm import batchfile, connect
from tests.llm.server import FakeServer, completion
from tests.llm.test_client import answer, question, settings_for


def export(tmp_path, count, *more):
    with pytest.raises(PlannedStop, match="requests written to") as stop:
        connect(
            settings_for(tmp_path, "", f"llm.batch_export={tmp_path / 'b.jsonl'}", *more).llm
        ).ask([question(n) for n in range(count)], description="items")
    return str(stop.value)


def run_batch(source, target, *, statuses=None):
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    with target.open("w") as handle:
        for number, line in enumerate(reversed(lines)):
            body = completion(json.dumps(answer(line["body"])))
            if statuses:
                body = statuses(number, body)
            status = 200 if body else 500
            response = {"status_code": status, "body": body}
            handle.write(
                json.dumps({"custom_id": line["custom_id"], "response": response, "error": None})
                + "\n"
            )


def test_out_and_back_in_any_order(tmp_path):
    told = export(tmp_path, 20)
    assert "20 requests written to" in told
    lines = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert set(lines[0]) == {"custom_id", "method", "url", "body"}
    assert (lines[0]["method"], lines[0]["url"]) == ("POST", "/v1/chat/completions")
    assert lines[0]["body"]["response_format"]["type"] == "json_schema"
    run_batch(tmp_path / "b.jsonl", tmp_path / "r.jsonl")
    with FakeServer(answer) as server:
        settings = settings_for(tmp_path, server.url, f"llm.batch_import={tmp_path / 'r.jsonl'}")
        outcomes = connect(settings.llm).ask([question(n) for n in range(20)], description="x")
        assert [o.value for o in outcomes] == [{"answer": n % 5 + 1} for n in range(20)]
        (tmp_path / "r.jsonl").unlink()  # the answers are in the cache now
        assert connect(settings.llm).ask([question(3)], description="x")[0].value == {"answer": 4}
        assert not server.requests


def test_failed_and_malformed_lines_are_asked_again(tmp_path):
    export(tmp_path, 4)
    kinds = [None, completion("4 out of 5"), completion(None, refusal="no")]
    run_batch(
        tmp_path / "b.jsonl", tmp_path / "r.jsonl",
        statuses=lambda number, body: kinds[number] if number < 3 else body,
    )  # fmt: skip
    with FakeServer(answer) as server:
        settings = settings_for(tmp_path, server.url, f"llm.batch_import={tmp_path / 'r.jsonl'}")
        outcomes = connect(settings.llm).ask([question(n) for n in range(4)], description="x")
        assert [o.reason for o in outcomes] == [None, "refused", None, None]
        assert len(server.requests) == 2


def test_large_exports_are_cut_into_files(tmp_path, monkeypatch):
    monkeypatch.setattr(batchfile, "LARGEST", 8)
    told = export(tmp_path, 20)
    assert "b-3.jsonl" in told
    sizes = [len((tmp_path / f"b{n}.jsonl").read_text().splitlines()) for n in ("", "-2", "-3")]
    assert sizes == [8, 8, 4]


def test_mistakes(tmp_path):
    export(tmp_path, 2)
    settings = settings_for(tmp_path, "", f"llm.batch_export={tmp_path / 'b.jsonl'}")
    with pytest.raises(OutputError, match=r"b\.jsonl exists"):
        connect(settings.llm).ask([question(1)], description="x")
    (tmp_path / "r.jsonl").write_text('{"id": "x"}\n')
    settings = settings_for(tmp_path, "http://localhost:1", f"llm.batch_import={tmp_path}/r.jsonl")
    with pytest.raises(DataError, match=r"r\.jsonl, line 1: not a result"):
        connect(settings.llm).ask([question(1)], description="x")
