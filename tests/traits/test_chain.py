"""The commands against a loopback server whose model has planted traits."""

import asyncio
import signal
import time
from collections import Counter

import numpy as np
import pytest

from pal.config import load_settings
from pal.core.files import read_json, read_jsonl, write_jsonl
from pal.traits.measure import measure
from tests.jobs import command, start
from tests.llm.server import FakeServer
from tests.traits.fakes import World, answer, planted
from tests.traits.test_cards import card


def endpoint(server, folder, *more):
    return [f"llm.base_url={server.url}", "llm.model=fake", "llm.backoff=0.01",
            f"llm.cache={folder / 'cache.sqlite'}", *more]  # fmt: skip


def rows(path):
    return [row for _, row in read_jsonl(path)]


def question(body):
    return body["messages"][-1]["content"]


@pytest.fixture(scope="module")
def world():
    return World(planted(40))


def test_planted_correlations_are_recovered(world, tmp_path):
    write_jsonl(tmp_path / "cards.jsonl", [card(n) for n in range(40)])
    with FakeServer(answer(world)) as server:
        assert command("traits", "measure", f"input={tmp_path / 'cards.jsonl'}",
                       f"output={tmp_path / 'm.jsonl'}", "traits.form=short",
                       *endpoint(server, tmp_path)) == 0  # fmt: skip
        assert len(server.requests) == 40 * 48
    assert command("traits", "correlate", f"input={tmp_path / 'm.jsonl'}",
                   f"output={tmp_path / 'r.json'}", "statistics.resamples=199") == 0  # fmt: skip
    (group,) = read_json(tmp_path / "r.json")["groups"]
    assert group["n"] == 40
    planted_r = np.corrcoef(world.traits.T)
    for row, column, i, j in (("X", "X", 2, 6), ("C", "P", 4, 7), ("A", "VA", 3, 8)):
        found = group["cells"][row][column]
        assert found["r"]["low"] - 0.1 < planted_r[i, j] < found["r"]["high"] + 0.1
        assert found["p_holm"] < 0.01
    unrelated = group["cells"]["H"]["X"]
    assert unrelated["p_holm"] > 0.05


def test_a_step_runs_inside_a_running_event_loop(world, tmp_path):
    """As in a notebook's cell."""
    write_jsonl(tmp_path / "cards.jsonl", [card(n) for n in range(2)])

    async def cell(settings):
        return measure(settings)

    found = []
    with FakeServer(answer(world)) as server:
        for name in ("inside", "outside"):
            output = tmp_path / f"{name}.jsonl"
            settings = load_settings(None, [
                f"input={tmp_path / 'cards.jsonl'}", f"output={output}", "traits.form=short",
                *endpoint(server, tmp_path / name),
            ])  # fmt: skip
            if name == "inside":
                asyncio.run(cell(settings))
            else:
                measure(settings)
            found.append(rows(output))
        assert len(server.requests) == 2 * 2 * 48
    assert found[0] == found[1]


def test_a_chain_killed_anywhere_asks_nothing_twice(world, tmp_path):
    write_jsonl(tmp_path / "cards.jsonl", [card(n) for n in range(5)])
    run = ["traits", "measure", f"input={tmp_path / 'cards.jsonl'}", "llm.connections=4",
           "traits.form=short"]  # fmt: skip
    with FakeServer(answer(world), latency=0.02) as server:
        whole = [*run, f"output={tmp_path / 'whole.jsonl'}"]
        assert command(*whole, *endpoint(server, tmp_path, f"llm.cache={tmp_path / 'w.db'}")) == 0
        server.requests.clear()
        call = [*run, f"output={tmp_path / 'killed.jsonl'}", *endpoint(server, tmp_path)]
        for _ in range(3):
            process, before = start(*call), len(server.requests)
            while len(server.requests) < before + 40:
                assert process.poll() is None, process.communicate()
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert not (tmp_path / "killed.jsonl").exists()
        assert command(*call) == 0
        asked = Counter(map(question, server.requests))
        assert len(asked) == 240
        assert asked.total() <= 240 + 3 * 4  # what was under way at a kill is asked again
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_every_failure_is_listed(world, tmp_path):
    write_jsonl(tmp_path / "cards.jsonl", [card(n) for n in range(3)])
    failing = {7: "refusal", 11: "filter", 20: "malformed"}
    asked = {}

    def faults(number, body):
        return asked.setdefault(question(body), failing.get(len(asked)))

    with FakeServer(answer(world), faults) as server:
        assert command("traits", "measure", f"input={tmp_path / 'cards.jsonl'}",
                       f"output={tmp_path / 'm.jsonl'}",
                       *endpoint(server, tmp_path)) == 0  # fmt: skip
    unanswered = [reason for row in rows(tmp_path / "m.jsonl") for reason in
                  row["unanswered"].values()]  # fmt: skip
    assert len(unanswered) == 3
    assert sorted(reason.split(":")[0] for reason in unanswered)[0] == "malformed"
    assert sum(len(row["answers"]) for row in rows(tmp_path / "m.jsonl")) == 3 * 96 - 3
    for row in rows(tmp_path / "m.jsonl"):
        assert all((row["scores"][key] is None) == any(item.startswith(key) and
                   not item[len(key)].isalpha() for item in row["unanswered"])
                   for key in row["scores"])  # fmt: skip


def test_what_was_given_up_is_asked_again_on_request(world, tmp_path, capsys):
    write_jsonl(tmp_path / "cards.jsonl", [card(n) for n in range(2)])
    call = ["traits", "filter", f"input={tmp_path / 'cards.jsonl'}",
            f"output={tmp_path / 'kept.jsonl'}", "llm.max_attempts=2"]  # fmt: skip

    def faults(number, body):
        return "500" if down and "Case 1." in question(body) else None

    with FakeServer(answer(world), faults) as server:
        down = True
        assert command(*call, *endpoint(server, tmp_path)) == 0
        assert "overwrite=true repeats" in capsys.readouterr().out
        assert rows(tmp_path / "kept.jsonl")[1]["failed"].startswith("gave up after 2 attempts")
        down = False
        assert command(*call, *endpoint(server, tmp_path), "overwrite=true") == 0
        assert sum("Case 0." in question(body) for body in server.requests) == 1
    assert [row["keep"] for row in rows(tmp_path / "kept.jsonl")] == [True, True]


def test_an_estimate_asks_nothing_and_writes_nothing(world, tmp_path, capsys):
    write_jsonl(tmp_path / "cards.jsonl", [card(n) for n in range(2)])
    with FakeServer(answer(world)) as server:
        assert command("traits", "measure", f"input={tmp_path / 'cards.jsonl'}",
                       f"output={tmp_path / 'm.jsonl'}", "llm.estimate_only=true",
                       *endpoint(server, tmp_path)) == 0  # fmt: skip
        assert server.requests == []
    assert "192" in capsys.readouterr().out
    assert not (tmp_path / "m.jsonl").exists()
