"""The API as OpenAI's client and others meet it."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import threading
from types import SimpleNamespace

import httpx
import openai
import psutil
import pytest

import pal
from pal.commands.common import model_name
from pal.core.errors import ConfigError
from pal.decoding.settings import DecodingSettings
from pal.guard import GuardSettings
from pal.serve.app import Server, Waiter
from pal.serve.bodies import Completion, make_asks, read_body
from pal.serve.running import listen, run_server
from pal.serve.settings import ServerSettings
from tests.conversation.test_session import (
    CRISIS,
    any_reply_may_be_shown,  # noqa: F401
    asked,  # noqa: F401
    beginnings,
    generated,
    messages_of,
)
from tests.jobs import command
from tests.serve.live import process_serving, send_whole, served

HELLO = [{"role": "user", "content": "I lost my job last week."}]


@pytest.fixture(scope="module", params=["response_model", "language_model"])
def model(request):
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def session(response_model):
    return pal.load(str(response_model), guard=GuardSettings(country="GB"))


def client_of(address, token="none"):
    return openai.OpenAI(base_url=f"{address}/v1", api_key=token, max_retries=0)


def post(address, body, **more):
    return httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60, **more)


def words_of(stream):
    """(text, fields) of a stream with one choice."""
    text, fields = "", []
    for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            fields += [choice.pal] if getattr(choice, "pal", None) else []
    return text, fields


def check_client(model, asked, tmp_path, tokens=50):  # noqa: F811
    """The client gets for every dialogue what ``pal generate`` writes, whole and in a stream."""
    wanted = generated(model, asked, tmp_path, f"decoding.max_new_tokens={tokens}")
    assert len(wanted) == 20
    with served(pal.load(model, decoding=DecodingSettings(max_new_tokens=tokens))) as (address, _):
        client = client_of(address)
        [listed] = client.models.list().data
        for name, turns in asked.items():
            ask = {
                "model": listed.id, "messages": messages_of(turns), "extra_body": {"id": name},
            }  # fmt: skip
            record = wanted[name]
            choice = client.chat.completions.create(**ask).choices[0]
            assert choice.message.content == record["response"]
            assert choice.pal["strategy"] == record["strategy"]
            # A decoder-only model reads a dialogue alone or beside others; float32 rounds.
            close = pytest.approx(record["strategy_probs"], abs=1e-5)
            assert choice.pal["strategy_probs"] == close
            assert choice.pal["alpha"] == record["alpha"]
            text, fields = words_of(client.chat.completions.create(**ask, stream=True))
            assert text == record["response"]
            assert fields[0]["strategy"] == fields[-1]["strategy"] == record["strategy"]


@pytest.mark.usefixtures("any_reply_may_be_shown")
def test_the_client_gets_what_generate_writes(model, asked, tmp_path):  # noqa: F811
    check_client(model, asked, tmp_path)


@pytest.mark.usefixtures("any_reply_may_be_shown")
def test_the_client_gets_what_generate_writes_for_real_dialogues(model, shared_data, tmp_path):
    rows = pal.load_esconv(str(shared_data / "esconv"), split="test")
    check_client(model, beginnings(rows), tmp_path, tokens=16)


@pytest.mark.usefixtures("any_reply_may_be_shown")
def test_what_openai_clients_ask_for(session):
    with served(session) as (address, _):
        client = client_of(address)
        create = client.chat.completions.create
        three = create(model="tiny", messages=HELLO, n=3, seed=5)
        assert len({choice.message.content for choice in three.choices}) == 3
        first = create(model="tiny", messages=HELLO, seed=5)
        assert first.choices[0].message.content == three.choices[0].message.content
        assert first.system_fingerprint == three.system_fingerprint
        assert three.usage.total_tokens == (
            three.usage.prompt_tokens + three.usage.completion_tokens
        )
        other = create(model="tiny", messages=HELLO, seed=6)
        assert other.choices[0].message.content != first.choices[0].message.content
        short = create(model="tiny", messages=HELLO, max_tokens=3)
        assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 3)
        mark = first.choices[0].message.content[5:8]
        cut = create(model="tiny", messages=HELLO, seed=5, stop=mark).choices[0]
        assert cut.message.content == first.choices[0].message.content.partition(mark)[0].rstrip()
        greedy = [create(model="tiny", messages=HELLO, temperature=0, seed=s) for s in (1, 2)]
        assert greedy[0].choices[0].message.content == greedy[1].choices[0].message.content
        streamed = list(create(
            model="tiny", messages=HELLO, n=2, seed=5, stream=True,
            stream_options={"include_usage": True},
        ))  # fmt: skip
        assert streamed[-1].usage.total_tokens > 0
        texts = ["", ""]
        for chunk in streamed:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
        assert texts == [choice.message.content for choice in three.choices[:2]]
        named = create(model="tiny", messages=HELLO, extra_body={
            "strategy": "Information", "alpha": {"Information": 0.5}, "persona": ["i own a shop"],
        }).choices[0]  # fmt: skip
        assert (named.pal["strategy"], named.pal["alpha"]) == ("Information", 0.5)
        assert named.pal["persona"] == ["i own a shop"]


BAD = [
    ({}, 400, "messages"), ({"messages": []}, 400, "messages"),
    ({"messages": "secret words"}, 400, "messages"),
    ({"messages": [{"role": "system", "content": "secret words"}, *HELLO]}, 400, "persona"),
    ({"messages": [{"role": "user", "content": 5}]}, 400, "messages[0]"),
    ({"messages": HELLO, "model": "gpt"}, 404, "tiny"),
    ({"messages": HELLO, "n": 0}, 400, "n"), ({"messages": HELLO, "n": 99}, 400, "n"),
    ({"messages": HELLO, "n": 10**30}, 400, "n"),
    ({"messages": HELLO, "n": True}, 400, "n"), ({"messages": HELLO, "temperature": -1}, 400, "te"),
    ({"messages": HELLO, "temperature": "hot"}, 400, "temperature"),
    ({"messages": HELLO, "top_p": 0}, 400, "top_p"),
    ({"messages": HELLO, "max_tokens": 0}, 400, "max_tokens"),
    ({"messages": HELLO, "stop": 5}, 400, "stop"),
    ({"messages": HELLO, "stop": ["a"] * 9}, 400, "stop"),
    ({"messages": HELLO, "strategy": "Nonsense"}, 400, "strategy"),
    ({"messages": HELLO, "alpha": [1, 2]}, 400, "alpha"),
    ({"messages": HELLO, "alpha": "x"}, 400, "alpha"),
    ({"messages": HELLO, "persona": "x"}, 400, "persona"),
    ({"messages": HELLO, "tools": [{"type": "function"}]}, 400, "tools"),
    ({"messages": HELLO, "logprobs": True}, 400, "logprobs"),
    ({"messages": HELLO, "nonsense": 1}, 400, "nonsense"),
    ({"messages": HELLO, "pinned": 9}, 400, "pinned"),
    ({"messages": HELLO, "seed": 1.5}, 400, "seed"),
    ([], 400, "object"), (5, 400, "object"),
]  # fmt: skip


def test_mistakes_are_told_in_openais_form(session, caplog):
    with served(session, max_bytes=4000) as (address, _):
        for body, status, what in BAD:
            answer = post(address, body)
            assert answer.status_code == status, body
            error = answer.json()["error"]
            assert what in error["message"], body
            assert "\n" not in error["message"]
            assert "secret words" not in error["message"]
        url = f"{address}/v1/chat/completions"
        kind = {"content-type": "application/json"}
        assert httpx.post(url, content=b"{", headers=kind).status_code == 400
        assert httpx.post(url, content=b"[" * 3000, headers=kind).status_code == 400
        assert httpx.post(url, content=b'{"a": "\xff"}', headers=kind).status_code == 400
        assert httpx.post(url, content=b" " * 5000, headers=kind).status_code == 413
        simple = {"content-type": "text/plain"}  # what any page may send
        assert httpx.post(url, content=b"{}", headers=simple).status_code == 415
        assert httpx.get(url).status_code == 405
        assert httpx.get(f"{address}/v1/models/gpt").status_code == 404
        other = httpx.get(f"{address}/v1/models", headers={"host": "evil.example"})
        assert other.status_code == 400
        assert post(address, {"messages": HELLO}).status_code == 200  # nothing broke it
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_sends_far_too_much_sees_the_answer(session, chunked):
    """Closing a connection with a part of the request unread resets it, and loses the answer."""
    much = [b" " * 2**20] * 30
    with served(session, token="right") as (address, _):
        for path, token, status in (
            ("/v1/chat/completions", "right", 413), ("/v1/chat/completions", "wrong", 401),
            ("/none", "right", 404),
        ):  # fmt: skip
            given = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            found, told = send_whole(f"{address}{path}", much, chunked=chunked, **given)
            assert found == status
            if status == 413:
                error = json.loads(told)["error"]["message"]
                assert error == "the request has more than 65536 bytes"


def test_a_connection_serves_more_than_one_request(session):
    with served(session) as (address, _), httpx.Client() as client:
        body = {"messages": HELLO}
        answers = [client.get(f"{address}/v1/models"), client.get(f"{address}/none"),
                   client.post(f"{address}/v1/chat/completions", json=body)]  # fmt: skip
        assert [one.status_code for one in answers] == [200, 404, 200]
        assert all(one.headers.get("connection") != "close" for one in answers)


def _send_chunks(connection, count):
    for _ in range(count):
        connection.sendall(b"10000\r\n" + b" " * 2**16 + b"\r\n")


def test_a_request_without_end_is_drained_for_a_while_only(session, monkeypatch):
    monkeypatch.setattr("pal.serve.running.MOST_DRAINED", 2**20)
    with served(session) as (address, _):
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(
                b"POST /none HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            with pytest.raises(ConnectionError):  # a reset, or a broken pipe
                _send_chunks(connection, 10_000)
        assert post(address, {"messages": HELLO}).status_code == 200


def test_nonsense_in_the_rest_of_a_refused_request_ends_it_without_a_traceback(session, caplog):
    with served(session) as (address, _):
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(
                b"POST /none HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            assert connection.recv(2**16).startswith(b"HTTP/1.1 404")
            connection.sendall(b"no length\r\n")
            while connection.recv(2**16):  # until the server closes
                pass
        assert post(address, {"messages": HELLO}).status_code == 200
    assert "protocol.data_received" not in caplog.text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"stream": "yes"}, "stream: "),
        ({"pinned": True}, "pinned: "),
        ({"pinned": 4}, "pinned: "),
        ({"alpha": True}, "alpha: expected a number, one number for each strategy, or an object"),
        ({"alpha": {"Question": None}}, "alpha: expected a number, one"),
        ({"alpha": [0.5, "x"]}, "alpha: expected a number, one"),
        ({"stop": 5}, "stop: expected a text, or a list"),
        ({"stop": ["a", 5]}, "stop: expected a text, or a list"),
        ({"temperature": "hot"}, "temperature: expected a number from 0 to 2"),
        ({"temperature": 3}, "temperature: expected a number from 0 to 2"),
        ({"top_p": 0}, "top_p: expected a number above 0 and at most 1"),
        ({"stream\noptions": 1}, "'stream\\noptions': no such field"),
    ],
)
def test_fields_of_several_kinds_say_what_they_take(body, message):
    with pytest.raises(ConfigError) as told:
        read_body({"messages": HELLO, **body})
    assert str(told.value).startswith(message)


def test_null_is_as_if_left_out(session):
    nothing = dict.fromkeys(("stream", "id", "pinned", "seed", "n", "stop", "strategy", "alpha"))
    plain, given = (
        make_asks(read_body({"messages": HELLO, **more}), session) for more in ({}, nothing)
    )
    assert plain == given


@pytest.mark.parametrize("stream", [False, True])
def test_half_a_character_costs_neither_answer_nor_help(session, stream, caplog):
    half = "\ud800"
    cases = [
        ({"messages": [{"role": "user", "content": f"hello {half}"}]}, 200),
        ({"messages": HELLO, "persona": [f"i like {half}"]}, 200),
        ({"messages": [*HELLO, {"role": "assistant", "content": "x", "strategy": f"zebra {half}"},
                       *HELLO]}, 400),
        ({"messages": [{"role": "user", "content": CRISIS}], "persona": [half]}, 200),
    ]  # fmt: skip
    with served(session) as (address, _):
        for body, status in cases:
            answer = httpx.post(
                f"{address}/v1/chat/completions", content=json.dumps({**body, "stream": stream}),
                headers={"content-type": "application/json"}, timeout=60,
            )  # fmt: skip
            assert answer.status_code == status
        assert "999" in answer.text
    assert "Traceback" not in caplog.text
    assert "zebra" not in caplog.text


def test_a_fault_of_ours_is_told_by_its_kind(session, monkeypatch, caplog):
    def fail(*arguments, **more):
        raise RuntimeError("zebra-quartz-lantern")

    with served(session) as (address, _):
        monkeypatch.setattr("pal.serve.app.make_asks", fail)
        answer = post(address, {"messages": HELLO})
        assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    ours = [r.getMessage() for r in caplog.records if not r.name.startswith("http")]
    assert "zebra" not in "".join(ours) + answer.text


def test_half_a_request_is_not_waited_for(session):
    with served(session, timeout=0.5) as (address, _):
        host, _, port = address.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as half:
            half.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{"
            )
            assert b" 408 " in half.recv(4096).splitlines()[0]


def connected(address, **options):
    host, _, port = address.removeprefix("http://").partition(":")
    made = socket.socket()
    for option, value in options.items():
        made.setsockopt(socket.SOL_SOCKET, getattr(socket, option), value)
    made.settimeout(20)
    made.connect((host, int(port)))
    return made


def rest_of(connection):
    """The last bytes that come before the other side ends the connection."""
    last = b""
    with contextlib.suppress(ConnectionResetError):
        while found := connection.recv(2**20):
            last = (last + found)[-100:]
    return last


@pytest.mark.parametrize(
    "before",
    [b"", b"POST /v1/chat/completions HT", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n",
     b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea"],
    ids=["nothing", "half a line", "half a head", "a half behind a whole"],
)  # fmt: skip
def test_a_connection_without_request_is_dropped(session, before):
    with served(session, timeout=0.5) as (address, _), connected(address) as idle:
        idle.sendall(before)
        rest_of(idle)
        assert httpx.get(f"{address}/healthz").status_code == 200


@pytest.mark.usefixtures("any_reply_may_be_shown")
def test_who_does_not_read_is_dropped(session, monkeypatch):
    """What waits to be read holds neither row nor connection when the time is over."""
    monkeypatch.setattr(
        "pal.serve.app._event", lambda body: f"data: {json.dumps(body)} {'x' * 4_000_000}\n\n"
    )
    body = json.dumps({"messages": HELLO, "stream": True}).encode()
    with (
        served(session, timeout=1.0) as (address, server),
        connected(address, SO_RCVBUF=4096) as idle,
    ):
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        idle.sendall(head.encode() + body)
        assert b" 200 " in idle.recv(64)
        for _ in range(300):
            ended = [
                server.numbers.requests.labels(status)._value.get()
                for status in ("200", "499", "504")
            ]
            if sum(ended):
                break
            threading.Event().wait(0.02)
        assert sum(ended) == 1
        assert server.batcher.active == server.batcher.waiting == 0
        assert not rest_of(idle).endswith(b"0\r\n\r\n")  # it did not wait to say all


def test_a_stream_that_is_not_read_in_time_is_told_so(session, monkeypatch):
    """A client that reads again after the end of the time gets the error, and no silence."""
    slowed(session, monkeypatch)

    async def read_late():
        server = Server(session, "tiny", ServerSettings(timeout=0.3))
        body = read_body({"messages": HELLO, "stream": True})
        waiter = Waiter(server.batcher, make_asks(body, session), stream=True)
        completion = Completion(server.name, server.fingerprint)
        events = server._stream(waiter, completion, body, 0.0)
        found = [await anext(events)]
        await asyncio.sleep(0.6)
        free = server.batcher.active == 0
        found += [event async for event in events]
        await asyncio.to_thread(server.batcher.close)
        return found, free

    found, free = asyncio.run(read_late())
    assert free
    assert "timeout_error" in found[-1]
    assert not any("[DONE]" in event for event in found)


def test_more_replies_than_can_wait_are_refused_at_once(session):
    for limits, most in (({"queue": 2}, 2), ({"max_choices": 3}, 3), ({"queue": 1}, 1)):
        with served(session, **limits) as (address, _):
            answer = post(address, {"messages": HELLO, "n": most + 1})
            assert answer.status_code == 400
            assert f"at most {most} repl" in answer.json()["error"]["message"]
            assert "\n" not in answer.json()["error"]["message"]
            assert post(address, {"messages": HELLO, "n": most}).status_code == 200


def test_a_token_is_asked_for(session, response_model, capsys):
    with served(session, token="a-secret") as (address, _):
        assert client_of(address, "a-secret").models.list().data
        with pytest.raises(openai.AuthenticationError):
            client_of(address, "another").models.list()
        for path in ("/v1/models", "/metrics", "/page.json"):
            assert httpx.get(address + path).status_code == 401
        assert httpx.get(f"{address}/healthz").status_code == 200
    assert command("serve", f"model={response_model}", "serve.host=0.0.0.0") == 2
    assert "PAL_API_TOKEN" in capsys.readouterr().err


def test_an_address_that_cannot_be_had(session, response_model, capsys):
    with served(session) as (address, _):
        port = address.rpartition(":")[2]
        assert command("serve", f"model={response_model}", f"serve.port={port}") == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert f"serve.port={port}" in line


def test_numbers_hold_no_text(session):
    with served(session) as (address, _):
        for text in ("zebra-quartz-lantern", f"{CRISIS} zebra-quartz-lantern"):
            assert post(address, {"messages": [{"role": "user", "content": text}]}).is_success
        post(address, {"messages": []})
        numbers = httpx.get(f"{address}/metrics").text
    assert 'pal_requests_total{status="200"} 2.0' in numbers
    assert 'pal_requests_total{status="400"} 1.0' in numbers
    assert 'pal_guard_actions_total{action="fixed"} 1.0' in numbers
    assert "zebra" not in numbers


def test_the_guard_speaks_here_too(session):
    with served(session) as (address, _):
        body = {"messages": [{"role": "user", "content": CRISIS}]}
        choice = post(address, body).json()["choices"][0]
        assert choice["finish_reason"] == "content_filter"
        assert "999" in choice["message"]["content"]
        assert choice["pal"]["guard"]["pinned"] >= 2
        text, [*_, fields] = words_of(client_of(address).chat.completions.create(
            model="tiny", messages=body["messages"], stream=True
        ))  # fmt: skip
        assert text == choice["message"]["content"]
        assert fields["strategy"] is None
        later = post(address, {"messages": HELLO, "pinned": 2}).json()["choices"][0]
        assert "999" in later["message"]["content"]


@pytest.mark.parametrize("fault", ["raises", "nonsense"])
def test_a_guard_that_fails_stops_the_reply_and_not_the_help(session, fault, monkeypatch):
    def detect(texts):
        if fault == "raises":
            raise RuntimeError(texts[0])
        return [float("nan") for _ in texts]

    monkeypatch.setattr(session.guard._detectors[0], "detect", detect)
    with served(session) as (address, _):
        answer = post(address, {"messages": HELLO})
        assert answer.status_code == 200
        choice = answer.json()["choices"][0]
    assert choice["pal"]["guard"]["status"] == "unavailable"
    assert choice["pal"]["strategy"] is None
    assert "999" in choice["message"]["content"]


# ----------------------------------------------------------------------------- many at once


async def ask_all(address, bodies, limit=1000):
    limits = httpx.Limits(max_connections=limit)
    async with httpx.AsyncClient(limits=limits, timeout=120) as client:
        url = f"{address}/v1/chat/completions"
        return await asyncio.gather(*(client.post(url, json=body) for body in bodies))


def texts_of(answers):
    return [answer.json()["choices"][0]["message"]["content"] for answer in answers]


@pytest.mark.usefixtures("any_reply_may_be_shown")
def test_64_clients_at_once_get_what_each_gets_alone(model, asked):  # noqa: F811
    dialogues = [messages_of(turns) for turns in asked.values()]
    bodies = [
        {"messages": dialogues[number % 20], "seed": number,
         **({"alpha": 0.5} if number % 3 else {})}
        for number in range(64)
    ]  # fmt: skip
    short = DecodingSettings(max_new_tokens=16)
    with served(pal.load(model, decoding=short), rows=8) as (address, server):
        together = asyncio.run(ask_all(address, bodies))
        assert {answer.status_code for answer in together} == {200}
        alone = [post(address, body) for body in bodies]
        assert server.batcher.waiting == server.batcher.active == 0
    assert texts_of(together) == texts_of(alone)
    assert len(set(texts_of(alone))) > 40


def test_1000_connections_are_answered_or_told_when_to_come_back(session):
    here = psutil.Process()
    with served(session, rows=4, queue=8) as (address, server):
        asyncio.run(ask_all(address, [{"messages": HELLO}] * 8))
        before = here.memory_info().rss
        answers = asyncio.run(ask_all(address, [{"messages": HELLO}] * 1000))
        grown = here.memory_info().rss - before  # of the thousand clients too
        found = [answer.status_code for answer in answers]
        assert set(found) == {200, 429}
        refused = [answer for answer in answers if answer.status_code == 429]
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert grown < 300 * 2**20
        assert post(address, {"messages": HELLO}).status_code == 200
        assert server.batcher.waiting == server.batcher.active == 0


def slowed(session, monkeypatch, seconds=0.05):
    """Let every step take its time."""
    advance = session.advance

    def slow(live):
        threading.Event().wait(seconds)
        return advance(live)

    monkeypatch.setattr(session, "advance", slow)


def test_who_leaves_frees_the_row(session, monkeypatch):
    slowed(session, monkeypatch)
    with served(session, rows=1) as (address, server):
        url = f"{address}/v1/chat/completions"
        with httpx.stream("POST", url, json={"messages": HELLO, "stream": True}) as answer:
            next(answer.iter_lines())
            for _ in range(200):
                if server.batcher.active == 1:
                    break
                threading.Event().wait(0.02)
            assert server.batcher.active == 1
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, json={"messages": HELLO}, timeout=0.2)
        for _ in range(200):
            if server.batcher.active == server.batcher.waiting == 0:
                break
            threading.Event().wait(0.02)
        assert server.batcher.active == server.batcher.waiting == 0


def test_what_takes_too_long_is_told_so(session, monkeypatch):
    slowed(session, monkeypatch, 0.2)
    with served(session, timeout=0.5) as (address, _):
        answer = post(address, {"messages": HELLO})
        assert (answer.status_code, answer.json()["error"]["type"]) == (504, "timeout_error")
        with httpx.stream(
            "POST", f"{address}/v1/chat/completions", json={"messages": HELLO, "stream": True}
        ) as stream:
            lines = [line for line in stream.iter_lines() if line]
        assert "timeout_error" in lines[-1]


@pytest.mark.parametrize(("folder", "name"), [
    ("runs/pal", "pal"), ("runs/quickstart/model", "quickstart/model"),
    ("runs/small/checkpoint-500", "small/checkpoint-500"),
    ("runs/small/model/checkpoint-500", "small/model/checkpoint-500"),
    ("runs/my-model", "my-model"), ("runs/checkpoint-of-may", "checkpoint-of-may"),
])  # fmt: skip
def test_a_model_is_called_by_what_tells_it_from_others(folder, name, tmp_path, monkeypatch):
    (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert model_name(folder) == model_name(str(tmp_path / folder)) == name
    monkeypatch.chdir(tmp_path / folder)
    assert model_name(".") == name
    assert model_name("owner/model") == "owner/model"  # of the hub


def test_the_last_part_of_a_name_is_enough_for_a_client(session):
    with served(session, name="quickstart/model") as (address, _):
        client = client_of(address)
        assert [one.id for one in client.models.list()] == ["quickstart/model"]
        for name in ("quickstart/model", "model"):
            assert client.models.retrieve(name).id == "quickstart/model"
            reply = client.chat.completions.create(model=name, messages=HELLO)
            assert reply.model == "quickstart/model"
        for name in ("quickstart", "other/model", ""):
            assert post(address, {"messages": HELLO, "model": name}).status_code == 404


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_stopped_ends_its_streams(response_model, sign):
    with process_serving(f"model={response_model}", "decoding.min_new_tokens=200",
                         "decoding.max_new_tokens=200") as (address, process):  # fmt: skip
        client = client_of(address)
        whole = client.chat.completions.create(model="model", messages=HELLO)
        stream = client.chat.completions.create(model="model", messages=HELLO, stream=True)
        text = next(stream).choices[0].delta.content or ""
        os.kill(process.pid, sign)
        rest, fields = words_of(stream)
        assert text + rest == whole.choices[0].message.content
        assert fields
        assert process.wait(timeout=20) == (0 if sign == signal.SIGTERM else 130)
        _, errors = process.communicate()
        assert "Traceback" not in errors
        assert "run the same command again" not in errors
        assert ("stopped; replies" in errors) == (sign == signal.SIGINT)


@pytest.mark.parametrize(
    ("signals", "is_finished", "message"),
    [
        (1, True, "stopped; replies that had begun were finished"),
        (1, False, "stopped; not all replies that had begun were finished"),  # its time is up
        (2, False, "stopped; not all replies that had begun were finished"),
    ],
)
def test_a_stop_says_whether_replies_were_finished(signals, is_finished, message, caplog, capfd):
    number = signal.SIGINT

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            for part in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{part}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(signals):
            os.kill(os.getpid(), number)
        if not is_finished:
            await asyncio.Event().wait()
        await send({"type": "http.response.body", "body": b"ok"})

    def ask():
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(address, timeout=60)

    drain = 1 if signals == 1 else 3600
    server = SimpleNamespace(settings=SimpleNamespace(drain=drain, timeout=60), app=lambda: app)
    listening = listen("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    client = threading.Thread(target=ask)
    client.start()
    with pytest.raises(KeyboardInterrupt) as stopped:
        run_server(server, listening)
    client.join(timeout=60)
    assert str(stopped.value) == message
    number, signals, is_finished = signal.SIGTERM, 1, False
    server.settings.drain = 1
    listening = listen("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    client = threading.Thread(target=ask)
    client.start()
    run_server(server, listening)
    client.join(timeout=60)
    assert caplog.messages[-1] == "stopped; not all replies that had begun were finished"
    assert "CancelledError" not in capfd.readouterr().err  # of each request that was cut off


def test_no_text_reaches_a_log(session, caplog, capfd):
    canary = "zebra-quartz-lantern"
    bodies = [
        {"messages": [{"role": "user", "content": canary}], "persona": [canary], "stop": canary},
        {"messages": [{"role": canary, "content": canary}]},
        {"messages": [{"role": "user", "content": f"{CRISIS} {canary}"}], "strategy": canary},
    ]
    with caplog.at_level(logging.DEBUG), served(session) as (address, _):
        for body in bodies:
            for stream in (False, True):
                json.dumps(post(address, {**body, "stream": stream}).text)
    ours = [r for r in caplog.records if not r.name.startswith(("httpx", "httpcore"))]
    assert canary not in "".join(record.getMessage() for record in ours)
    assert canary not in "".join(capfd.readouterr())
