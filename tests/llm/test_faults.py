"""Servers that fail, and clients that are killed: nothing lost, nothing asked twice."""

import multiprocessing
import os
import random
import signal
import threading
import time
from collections import Counter

import pytest

from pal.core.errors import PalError
from pal.core.files import read_json, write_json
from pal.llm import connect
from pal.llm.client import OpenAIBackend
from tests.llm.server import FakeServer
from tests.llm.test_client import SCHEMA, answer, number_in, question, settings_for


def asked(bodies):
    return Counter(number_in(body) for body in bodies)


@pytest.mark.parametrize("fault", ["429", "500", "cut", "stall", "drop", "malformed", "empty"])
def test_what_passes_is_tried_again(tmp_path, fault):
    chance = random.Random(1)

    def faults(number, body):
        if number_in(body) in seen:
            return None
        seen.add(number_in(body))
        return fault if chance.random() < 0.25 else None

    seen, timeout = set(), 2 if fault == "stall" else 30  # a busy machine is no fault
    with FakeServer(answer, faults, stall=4, retry_after="0.1") as server:
        settings = settings_for(tmp_path, server.url, f"llm.timeout={timeout}")
        outcomes = connect(settings.llm).ask([question(n) for n in range(60)], description="x")
    assert [o.value for o in outcomes] == [{"answer": n % 5 + 1} for n in range(60)]
    assert len(server.requests) > 60  # the fault did occur
    assert set(asked(server.delivered).values()) == {1}


def test_every_unanswered_item_has_its_reason(tmp_path):
    kinds = ["refusal", "filter", "malformed", "length", "500", "400", None]
    reasons = {
        "refusal": "refused", "filter": "refused",
        "malformed": "malformed: not the JSON asked for: 'I would say 4 out of 5'",
        "length": "malformed: cut off at the token limit",
        "500": "gave up after 2 attempts: ", "400": "rejected by the server: ",
    }  # fmt: skip

    def faults(number, body):
        return kinds[number_in(body) % 7]

    with FakeServer(answer, faults) as server:
        settings = settings_for(tmp_path, server.url, "llm.max_attempts=2")
        requests = [question(n) for n in range(21)]
        outcomes = connect(settings.llm).ask(requests, description="x")
        for n, outcome in enumerate(outcomes):
            kind = kinds[n % 7]
            if kind is None:
                assert outcome.value == {"answer": n % 5 + 1}
                assert outcome.reason is None
            else:
                assert outcome.value is None
                assert outcome.reason.startswith(reasons[kind])
        counts = asked(server.requests)
        assert [counts[n] for n in range(7)] == [1, 1, 3, 3, 2, 1, 1]
        assert [b["max_tokens"] for b in server.requests if number_in(b) == 3] == [512, 1024, 2048]

        server.faults = lambda number, body: None  # what may pass is asked again, the rest is not
        outcomes = connect(settings.llm).ask(requests, description="x")
        again = asked(server.requests) - counts
        assert set(again) == {n for n in range(21) if n % 7 in (4, 5)}
        assert sum(o.value is None for o in outcomes) == 12


def test_a_body_that_is_no_completion_is_not_kept_as_an_answer(tmp_path):
    with FakeServer(answer, lambda number, body: "empty") as server:
        settings = settings_for(tmp_path, server.url, "llm.max_attempts=2")
        (outcome,) = connect(settings.llm).ask([question(1)], description="x")
        assert outcome.reason.startswith(
            "gave up after 2 attempts: the body is not a chat completion"
        )
        server.faults = lambda number, body: None
        assert connect(settings.llm).ask([question(1)], description="x")[0].value == {"answer": 2}


def test_retry_after_holds_back_all_connections(tmp_path):
    def faults(number, body):
        return "429" if number == 0 else None

    with FakeServer(answer, faults, retry_after="1", latency=0.05) as server:
        settings = settings_for(tmp_path, server.url, "llm.connections=4")
        connect(settings.llm).ask([question(n) for n in range(40)], description="x")
    gaps = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert max(gaps) > 0.8
    assert len(server.requests) == 41


def test_a_dead_server_stops_the_run_and_loses_nothing(tmp_path):
    requests = [question(n) for n in range(200)]
    with FakeServer(answer) as server:
        settings = settings_for(tmp_path, server.url, "llm.max_attempts=2", "llm.connections=4")
        connect(settings.llm).ask(requests[:50], description="x")
    with pytest.raises(PalError, match="32 requests in a row got no answer"):
        connect(settings.llm).ask(requests, description="x")
    with FakeServer(answer, port=server.port) as second:
        outcomes = connect(settings.llm).ask(requests, description="x")
    assert all(o.reason is None for o in outcomes)
    assert set(asked(second.requests)) == set(range(50, 200))


@pytest.mark.parametrize("schema", [SCHEMA, None])
def test_a_wrong_port_asks_whether_the_server_is_running(tmp_path, schema):
    with FakeServer(answer) as server:
        url = server.url
    settings = settings_for(tmp_path, url, "llm.max_attempts=1")
    with pytest.raises(PalError) as caught:
        connect(settings.llm).ask([question(n, schema) for n in range(40)], description="x")
    assert f"is the server running at llm.base_url={url}?" in str(caught.value)


@pytest.mark.parametrize("fault", ["drop", "stall", "500"])
def test_a_server_that_answers_badly_is_not_said_to_be_missing(tmp_path, fault):
    with FakeServer(answer, lambda number, body: fault, stall=1.5) as server:
        settings = settings_for(tmp_path, server.url, "llm.max_attempts=1", "llm.timeout=0.3")
        [outcome] = connect(settings.llm).ask([question(1, None)], description="x")
    assert outcome.reason.startswith("gave up after 1 attempts")
    assert "running" not in outcome.reason


def test_a_server_that_restarts_is_met_again(tmp_path):
    first = FakeServer(answer, lambda number, body: "drop" if number >= 30 else None)
    requests = [question(n) for n in range(80)]
    with first:
        settings = settings_for(
            tmp_path, first.url, "llm.connections=4", "llm.max_attempts=8", "llm.backoff=0.3"
        )
        outcomes = []
        worker = threading.Thread(
            target=lambda: outcomes.extend(connect(settings.llm).ask(requests, description="x"))
        )
        worker.start()
        while len(first.requests) < 35:
            time.sleep(0.01)
    with FakeServer(answer, port=first.port) as second:
        worker.join(30)
    assert [o.value for o in outcomes] == [{"answer": n % 5 + 1} for n in range(80)]
    delivered = asked(first.delivered) + asked(second.delivered)
    assert delivered == dict.fromkeys(range(80), 1)


def test_an_interrupt_keeps_what_is_finished(tmp_path, monkeypatch):
    requests = [question(n) for n in range(60)]
    with FakeServer(answer, latency=0.03) as server:
        settings = settings_for(tmp_path, server.url, "llm.connections=4")
        reply, count = OpenAIBackend._reply, [0]

        async def interrupted(self, request, check):
            count[0] += 1
            if count[0] == 30:
                os.kill(os.getpid(), signal.SIGINT)
            return await reply(self, request, check)

        monkeypatch.setattr(OpenAIBackend, "_reply", interrupted)
        with pytest.raises(KeyboardInterrupt):
            connect(settings.llm).ask(requests, description="x")
        monkeypatch.undo()
        before = len(server.requests)
        assert 20 <= before < 60
        outcomes = connect(settings.llm).ask(requests, description="x")
        assert [o.value for o in outcomes] == [{"answer": n % 5 + 1} for n in range(60)]
        assert len(server.requests) <= 60 + 4


def ask_all(folder, url):
    settings = settings_for(folder, url, "llm.connections=8")
    outcomes = connect(settings.llm).ask([question(n) for n in range(300)], description="x")
    write_json(folder / "outcomes.json", [[o.id, o.value, o.reason] for o in outcomes])


@pytest.mark.parametrize("kills", [6, pytest.param(20, marks=pytest.mark.campaign)])
def test_kills_at_random_moments_change_nothing(tmp_path, kills):
    chance = random.Random(7)
    context = multiprocessing.get_context("forkserver")  # processes that have imported all
    context.set_forkserver_preload(["tests.llm.test_faults", "openai", "pal.llm.client"])

    def faults(number, body):
        return "refusal" if number_in(body) % 50 == 7 else None

    with FakeServer(answer, faults, latency=0.04) as server:
        for _ in range(kills):
            before = len(server.requests)
            process = context.Process(target=ask_all, args=(tmp_path, server.url))
            process.start()
            while len(server.requests) == before:
                assert process.is_alive()
                time.sleep(0.002)
            time.sleep(chance.random() * 0.06)
            assert process.is_alive()
            process.kill()
            process.join()
        assert not (tmp_path / "outcomes.json").exists()
        killed = asked(server.requests)
        process = context.Process(target=ask_all, args=(tmp_path, server.url))
        process.start()
        process.join(60)
        counts = asked(server.requests)
    assert read_json(tmp_path / "outcomes.json") == [
        [str(n), None, "refused"] if n % 50 == 7 else [str(n), {"answer": n % 5 + 1}, None]
        for n in range(300)
    ]
    assert set(counts) == set(range(300))
    assert kills < sum(killed.values()) < sum(counts.values()) <= 300 + 8 * kills
