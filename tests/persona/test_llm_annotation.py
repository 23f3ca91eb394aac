import stat
import time

import pytest

from pal import load_esconv
from pal.core.files import read_json, write_jsonl
from tests.jobs import ESCONV, command, start
from tests.llm.server import FakeServer

PERSONA = ["I work as a clerk.", "i work as a clerk.", "", "My favorite color is blue.", "I sew."]


def arguments(server, folder, *more):
    return ["annotate", "annotate.extractor=llm", f"input={ESCONV / 'test.jsonl'}", "limit=2",
            f"output={folder / 'out.jsonl'}", f"llm.base_url={server.url}", "llm.model=fake",
            "llm.backoff=0.01", f"llm.cache={folder / 'cache.sqlite'}", *more]  # fmt: skip


def test_personas_by_a_language_model(tmp_path):
    with FakeServer(lambda body: {"sentences": PERSONA}) as server:
        assert command(*arguments(server, tmp_path)) == 0
        asked = [body["messages"][-1]["content"] for body in server.requests]
        assert command(*arguments(server, tmp_path, "overwrite=true")) == 0
        assert len(server.requests) == len(asked)
    rows = list(load_esconv(tmp_path / "out.jsonl"))
    assert len(rows) == 2
    for row in rows:
        known = [turn["persona"] for turn in row["dialog"]]
        assert known[:2] == [[], []]
        assert known[3:] == [["I work as a clerk.", "I sew."]] * (len(known) - 3)
    first = next(text for text in asked if text.count("\n") == 3)
    assert first == (
        "<text>\nHello from seat nowhere, my airline went bust on Friday.\n"
        "Thirty thousand feet of floor, yes. I'm a flight attendant, was one, for nine years.\n"
        "</text>"
    )
    record = read_json(tmp_path / "out.jsonl.run.json")
    assert record["prompts"] == {"persona": 1}
    assert record["unanswered"] == []


def test_what_is_not_answered_adds_nothing_and_is_listed(tmp_path):
    def faults(number, body):
        return "refusal" if "for nine years.\n</text>" in body["messages"][-1]["content"] else None

    with FakeServer(lambda body: {"sentences": ["I sew."]}, faults) as server:
        assert command(*arguments(server, tmp_path)) == 0
    row = load_esconv(tmp_path / "out.jsonl")[0]
    assert [turn["persona"] for turn in row["dialog"]][2:5] == [[], [], ["I sew."]]
    (listed,) = read_json(tmp_path / "out.jsonl.run.json")["unanswered"]
    assert (listed["dialogue"], listed["turn"]) == ("sample-40", 2)
    assert listed["reason"].startswith("refused")


def test_the_trained_extractor_still_needs_a_model(tmp_path, capsys):
    code = command("annotate", f"input={ESCONV / 'test.jsonl'}", f"output={tmp_path / 'o.jsonl'}")
    assert code == 2
    assert "model=" in capsys.readouterr().err


@pytest.mark.parametrize("missing", [False, True])
def test_cards_stand_in_for_personas_in_responses(response_model, tmp_path, capsys, missing):
    from pal.core.files import read_jsonl

    ids = [row["id"] for row in load_esconv(ESCONV / "test.jsonl")]
    card = {"description": "The person flies planes. The person is 34."}
    write_jsonl(tmp_path / "cards.jsonl", [{"id": n, **card} for n in ids[missing:]])
    code = command("generate", f"model={response_model}", f"input={ESCONV / 'test.jsonl'}",
                   f"output={tmp_path / 'out.jsonl'}", f"data.cards={tmp_path / 'cards.jsonl'}",
                   "limit=3", "decoding.max_new_tokens=10", "decoding.do_sample=false")  # fmt: skip
    if missing:
        assert code == 2
        assert f"no card for dialogue {ids[0]!r}" in capsys.readouterr().err
        return
    assert code == 0
    personas = [row["persona"] for _, row in read_jsonl(tmp_path / "out.jsonl")]
    assert personas == [["The person flies planes.", "The person is 34."]] * 3


def test_killed_anywhere_it_asks_nothing_twice_and_writes_the_same_bytes(tmp_path):
    def reply(body):
        said = body["messages"][-1]["content"]
        return {"sentences": [f"I said {len(said)} letters.", "I sew."]}

    with FakeServer(reply, latency=0.03) as server:
        (tmp_path / "whole").mkdir()
        assert command(*arguments(server, tmp_path / "whole", "annotate.layout=released")) == 0
        once = len(server.requests)
        call = arguments(server, tmp_path, "annotate.layout=released", "llm.connections=2")
        for _ in range(2):
            process, before = start(*call), len(server.requests)
            while len(server.requests) < before + 5:
                assert process.poll() is None, process.communicate()
                time.sleep(0.002)
            process.kill()
            process.communicate()
            assert not (tmp_path / "out.jsonl").exists()
        assert command(*call) == 0
        assert len(server.requests) <= 2 * once + 2 * 2  # what was under way is asked again
    whole = tmp_path / "whole" / "out.jsonl"
    assert (tmp_path / "out.jsonl").read_bytes() == whole.read_bytes()
    for file in (whole, tmp_path / "out.jsonl", tmp_path / "cache.sqlite"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
