import threading
import time

import pytest

from pal.config import load_settings
from pal.core.errors import ConfigError, DataError, PalError, PlannedStop
from pal.core.job import Job
from pal.llm import Outcome, Request, connect
from pal.llm.client import seconds_of
from tests.llm.server import FakeServer

SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "integer", "minimum": 1, "maximum": 5}},
    "required": ["answer"],
    "additionalProperties": False,
}


def settings_for(tmp_path, url, *more):
    return load_settings(
        None,
        [f"llm.base_url={url}", "llm.model=fake", f"llm.cache={tmp_path / 'c.sqlite'}",
         "llm.backoff=0.01", *more],
    )  # fmt: skip


def question(number, schema=SCHEMA, **more):
    return Request(str(number), (("user", f"statement {number}"),), schema, **more)


def number_in(body):
    return int(body["messages"][-1]["content"].split()[1])


def answer(body):
    return {"answer": number_in(body) % 5 + 1}


def test_answers_come_in_order_and_are_not_asked_again(tmp_path):
    requests = [question(n) for n in range(40)]
    expected = [Outcome(str(n), {"answer": n % 5 + 1}, None) for n in range(40)]
    with FakeServer(answer) as server:
        settings = settings_for(tmp_path, server.url)
        assert connect(settings.llm).ask(requests, description="x") == expected
        assert len(server.requests) == 40
        assert server.requests[0]["response_format"]["json_schema"]["strict"] is True
        assert connect(settings.llm).ask(requests[::-1], description="x") == expected[::-1]
        assert len(server.requests) == 40
        assert len(server.probes) == 1  # the endpoint is probed once, not once a run


def test_a_server_that_fails_is_probed_again(tmp_path, caplog):
    """What it supports is not known for later runs, whatever else is learnt of it."""
    with FakeServer(answer) as server:
        server.modes, server.unknown = (), 500
        settings = settings_for(tmp_path, server.url)
        [outcome] = connect(settings.llm).ask([question(1)], description="x")
        assert outcome.value == {"answer": 2}
        assert "response_format" not in server.requests[-1]
        assert "failed (status 500) when it was asked for structured answers" in caplog.text
        server.modes = ("json_schema",)
        connect(settings.llm).ask([question(2)], description="x")
        assert server.requests[-1]["response_format"]["type"] == "json_schema"


def test_what_another_server_said_is_not_kept(tmp_path):
    """One that obeys no form and answers nothing may be another program at the address."""
    with FakeServer(answer, faults=lambda number, body: "400") as server:
        server.modes = ()
        settings = settings_for(tmp_path, server.url)
        [outcome] = connect(settings.llm).ask([question(1)], description="x")
        assert outcome.value is None
        server.modes, server.faults = ("json_schema",), lambda number, body: None
        connect(settings.llm).ask([question(1)], description="x")
        assert server.requests[-1]["response_format"]["type"] == "json_schema"
        server.modes = ()
        connect(settings.llm).ask([question(2)], description="x")
        assert server.requests[-1]["response_format"]["type"] == "json_schema"  # this is


def test_requests_alike_but_for_the_id_are_asked_once(tmp_path):
    requests = [Request(str(n), (("user", "statement 3"),), SCHEMA) for n in range(10)]
    with FakeServer(answer) as server:
        outcomes = connect(settings_for(tmp_path, server.url).llm).ask(requests, description="x")
        assert [o.value for o in outcomes] == [{"answer": 4}] * 10
        assert len(server.requests) == 1
        with pytest.raises(DataError, match="'0' occurs twice"):
            connect(settings_for(tmp_path, server.url).llm).ask(
                [requests[0], requests[0]], description="x"
            )


def test_free_text_needs_no_probe(tmp_path):
    with FakeServer(lambda body: "  hello ") as server:
        model = connect(settings_for(tmp_path, server.url).llm)
        assert model.ask([question(1, None)], description="x") == [Outcome("1", "hello", None)]
        assert not server.probes
        assert "response_format" not in server.requests[0]


def test_wrong_counts_end_after_three_answers_with_the_reason(tmp_path):
    def check(request, value):
        return None if value["answer"] != 2 else "expected anything but 2, got 2"

    requests = [question(0), question(1)]
    with FakeServer(answer) as server:
        settings = settings_for(tmp_path, server.url)
        outcomes = connect(settings.llm).ask(requests, description="x", check=check)
        assert outcomes == [
            Outcome("0", {"answer": 1}, None),
            Outcome("1", None, "malformed: expected anything but 2, got 2"),
        ]
        assert len(server.requests) == 4
        assert connect(settings.llm).ask(requests, description="x", check=check) == outcomes
        assert len(server.requests) == 4  # a final failure is not asked for again either


def test_all_connections_are_used_and_no_more(tmp_path):
    now, most, lock = [0], [0], threading.Lock()

    def slow(body):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= 1
        return answer(body)

    with FakeServer(slow) as server:
        settings = settings_for(tmp_path, server.url, "llm.connections=8")
        connect(settings.llm).ask([question(n) for n in range(40)], description="x")
    assert most[0] == 8


def test_the_rate_limit_holds(tmp_path):
    with FakeServer(answer) as server:
        settings = settings_for(tmp_path, server.url, "llm.requests_per_minute=1200")
        connect(settings.llm).ask([question(n) for n in range(12)], description="x")
    gaps = server.times[-1] - server.times[0]
    assert 0.4 < gaps < 2  # 11 gaps of 50 ms


def test_the_key_is_sent_and_kept_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-very-secret")

    def faults(number, body):
        return "400" if number_in(body) == 1 else None

    with FakeServer(answer, faults) as server:
        settings = settings_for(tmp_path, server.url, "llm.api_key_env=MY_KEY")
        model = connect(settings.llm)
        outcomes = model.ask([question(0), question(1)], description="x")
        assert server.headers[0]["authorization"] == "Bearer sk-very-secret"
        assert outcomes[1].reason.startswith("rejected by the server")
        assert "[key]" in outcomes[1].reason
        server.faults = lambda number, body: "401"
        with pytest.raises(PalError, match=r"refuses: .*\[key\].*MY_KEY") as caught:
            model.ask([question(2)], description="x")
    stored = [path.read_bytes() for path in tmp_path.iterdir()]
    record = Job("x", settings, tmp_path / "o").describe(**model.describe())
    assert all(b"very-secret" not in data for data in stored)
    assert "very-secret" not in f"{record} {caught.value} {outcomes}"
    assert record["settings"]["llm"]["api_key_env"] == "MY_KEY"
    assert record["structured_output"] == "json_schema"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["llm.model=m"], "give llm.base_url"),
        (["llm.base_url=http://localhost:1/v1"], "give llm.model"),
        (["llm.model=m", "llm.base_url=https://api.openai.com/v1"], "has no OPENAI_API_KEY"),
        (
            ["llm.model=m", "llm.base_url=https://example.org/v1", "llm.api_key_env=ABSENT_KEY"],
            "has no ABSENT_KEY",
        ),
        (["llm.model=m", "llm.base_url=https://me:pw@localhost/v1"], "without user, password"),
        (["llm.model=m", "llm.base_url=localhost:8000"], "expected http://HOST:PORT/v1"),
    ],
)
def test_mistakes_in_one_line(tmp_path, monkeypatch, more, message):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match=message) as caught:
        connect(load_settings(None, [f"llm.cache={tmp_path / 'c'}", *more]).llm)
    assert "\n" not in str(caught.value)
    assert "pw" not in str(caught.value).replace("password", "")


def test_an_estimate_sends_nothing(tmp_path):
    with FakeServer(answer, latency=0.02) as server:
        connect(settings_for(tmp_path, server.url).llm).ask([question(0)], description="x")
        settings = settings_for(
            tmp_path, server.url, "llm.estimate_only=true", "llm.price_in=100",
            "llm.price_out=200", "llm.connections=1",
        )  # fmt: skip
        with pytest.raises(PlannedStop) as stop:
            connect(settings.llm).ask([question(n) for n in range(11)], description="cards")
        assert len(server.requests) == 1
    text = str(stop.value)
    assert "| calls | 10 |" in text
    assert "tokens out (mean of 1 answers) | 50 |" in text
    assert "| 0.01 |" in text  # (10 * 11 / 4 * 100 + 50 * 200) / 1e6 = 0.013


def test_retry_after_in_both_forms():
    assert seconds_of("1.5") == 1.5
    assert seconds_of(None) == 0
    assert seconds_of("soon") == 0
    from email.utils import formatdate

    assert 8 < seconds_of(formatdate(time.time() + 10, usegmt=True)) <= 10


def test_a_cache_of_another_kind_is_refused(tmp_path):
    (tmp_path / "c.sqlite").write_text("not a database, and long enough to be read as one" * 30)
    with pytest.raises(DataError, match="not a cache of answers"):
        connect(settings_for(tmp_path, "http://localhost:1/v1").llm)


def test_further_fields_go_with_every_request_and_are_kept_apart(tmp_path):
    requests = [question(1)]
    body = "llm.body={chat_template_kwargs: {enable_thinking: false}, max_tokens: null}"
    with FakeServer(answer) as server:
        connect(settings_for(tmp_path, server.url).llm).ask(requests, description="x")
        settings = settings_for(tmp_path, server.url, body)
        for _ in range(2):
            (outcome,) = connect(settings.llm).ask(requests, description="x")
        assert outcome.value == {"answer": 2}
        plain, more = server.requests  # asked anew for other fields, then read back
        assert "chat_template_kwargs" not in plain
        assert more["chat_template_kwargs"] == {"enable_thinking": False}
        assert "max_tokens" in plain
        assert "max_tokens" not in more
    with pytest.raises(ConfigError, match=r"llm\.body is for endpoints"):
        connect(settings_for(tmp_path, "", body, "llm.backend=transformers").llm)
