"""Whatever a client sends to ``pal serve`` or to the pages of a study is answered or refused.

    pytest tests/campaign/test_fuzz_requests.py                # about 200 requests
    pytest -m campaign tests/campaign/test_fuzz_requests.py    # 6,000; PAL_FUZZ changes it

No request is a fault of the server's (status 500), and after all of them it answers as before.
"""

import json
import os
import random
import socket

import httpx
import pytest

import pal
from pal.guard import GuardSettings
from tests.campaign.conftest import SEED
from tests.campaign.mutations import damage_one, damage_text, dump
from tests.serve.live import served
from tests.study.live import make_study
from tests.study.live import served as study_served
from tests.study.test_study import Person

QUICK = 100
MANY = int(os.environ.get("PAL_FUZZ", "6000")) // 2
HELLO = {
    "model": "tiny", "messages": [
        {"role": "user", "content": "I lost my job."},
        {"role": "assistant", "content": "Oh."}, {"role": "user", "content": "Why me?"},
    ], "stream": False, "seed": 3, "n": 1, "max_tokens": 3, "temperature": 0.5, "top_p": 0.9,
    "stop": ["x"], "persona": ["I fly."], "strategy": "Question", "alpha": 0.5, "id": "a",
    "pinned": 0, "stream_options": {"include_usage": True}, "user": "u", "presence_penalty": 0,
}  # fmt: skip
PLAIN = {"model": "tiny", "messages": HELLO["messages"][:1], "seed": 1, "max_tokens": 4}
HEADERS = ("Content-Type: application/json", "Content-Type: text/plain", "Content-Length: 7",
           "Content-Length: -1", "Content-Length: 99999999999", "Transfer-Encoding: chunked",
           "Host: evil.example", "Authorization: Bearer \xff", "Expect: 100-continue",
           "X: " + "y" * 9000, "Content-Encoding: gzip", ": none", "no colon",
           "Connection: upgrade")  # fmt: skip


def spoken(address, raw, patience=2.0):
    """Send bytes and return the status of the answer, or None where the connection just ends."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=patience) as made:
        try:
            made.sendall(raw)
            made.shutdown(socket.SHUT_WR)
            head = made.recv(4000)
        except (TimeoutError, ConnectionError):
            return None
    return int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/") else None


def raw_request(rng, method, path, body, kind):
    """Return a request whose head or body is damaged."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {kind}",
             f"Content-Length: {len(body)}", "Connection: close"]  # fmt: skip
    for _ in range(rng.choice((0, 0, 1, 2))):
        lines.insert(rng.randrange(1, len(lines) + 1), rng.choice(HEADERS))
    raw = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
    return damage_text(raw, rng) if rng.random() < 0.3 else raw


def count(tally, status, number):
    assert status is None or status < 500 or status in (501, 505), (number, status)
    tally["inputs"] += 1
    tally["read" if status is not None and status < 400 else "refused"] += 1


def ask_badly(address, numbers, tally):
    with httpx.Client(timeout=30) as client:
        for number in numbers:
            rng = random.Random(f"{SEED} request {number}")
            body = damage_one(HELLO, rng) if number % 4 else HELLO
            contents = dump(body, rng).encode("utf-8", "surrogatepass")
            if number % 4 == 0 or rng.random() < 0.2:
                contents = damage_text(contents, rng)
            if number % 5 == 0:
                raw = raw_request(rng, "POST", "/v1/chat/completions", contents, "application/json")
                count(tally, spoken(address, raw), number)
                continue
            answer = client.post(
                f"{address}/v1/chat/completions", content=contents,
                headers={"Content-Type": "application/json"},
            )  # fmt: skip
            count(tally, answer.status_code, number)
            if answer.status_code >= 400:
                said = answer.json()["error"]["message"]
                assert "\n" not in said, number
                assert 5 < len(said) < 600, (number, said)
            elif answer.headers["content-type"].startswith("application/json"):
                for choice in json.loads(answer.text, parse_constant=pytest.fail)["choices"]:
                    assert choice["message"]["content"] is not None, number
            else:
                assert "server_error" not in answer.text, (number, answer.text[-500:])


@pytest.fixture
def server(response_model):
    session = pal.load(str(response_model), guard=GuardSettings(country="GB"))
    with served(session) as (address, _):
        yield address


def answered(address):
    answer = httpx.post(f"{address}/v1/chat/completions", json=PLAIN, timeout=60)
    assert answer.status_code == 200
    return answer.json()["choices"]


def check_server(address, numbers, tally):
    before = answered(address)
    ask_badly(address, numbers, tally)
    assert answered(address) == before
    assert httpx.get(f"{address}/healthz").json()["status"] == "ok"


def test_a_damaged_request_is_answered_or_refused(server, tally):
    check_server(server, range(QUICK), tally)
    assert tally["read"] > QUICK // 20
    assert tally["refused"] > QUICK // 4


@pytest.mark.campaign
def test_many_damaged_requests_are_answered_or_refused(server, tally):
    check_server(server, range(MANY), tally)


# ------------------------------------------------------------------------------- a study


def visit_badly(address, tokens, numbers, tally):
    """Send damaged forms to all pages of a study."""
    with httpx.Client(timeout=30, follow_redirects=False) as client:
        page = client.get(f"{address}/s/{tokens[0]}").text
        fields = {"agree": "yes", "adult": "yes", "task": hidden(page, "task"), "side": "A",
                  "number": "0", "text": "Hello there", "finish": "yes", "Overall": "A",
                  "reason": "none", "withdraw": "yes"}  # fmt: skip
        for number in numbers:
            rng = random.Random(f"{SEED} form {number}")
            sent = damage_one(fields, rng)
            sent = sent if isinstance(sent, dict) else {"text": sent}
            text = "&".join(f"{key}={value}" for key, value in sent.items())
            contents = text.encode("utf-8", "surrogatepass")
            if rng.random() < 0.3:
                contents = damage_text(contents, rng)
            token = rng.choice((*tokens, tokens[0][:-1], "x", "", "%00", "../..", "\u00e9"))
            path = f"/s/{token}{rng.choice(PATHS)}"
            method = rng.choice(("POST", "POST", "POST", "GET", "PUT", "DELETE"))
            kind = rng.choice((FORM, FORM, FORM, "multipart/form-data; boundary=x", "text/plain"))
            if number % 4 == 0:
                raw = raw_request(rng, method, path.encode().decode("latin-1"), contents, kind)
                count(tally, spoken(address, raw), number)
                continue
            answer = client.request(
                method, address + path, content=contents, headers={"Content-Type": kind}
            )
            count(tally, answer.status_code, number)


FORM = "application/x-www-form-urlencoded"
PATHS = ("", "/consent", "/say", "/answer", "/end", "/stop", "/resume", "/reply", "/state", "/x",
         "/say/", "?task=%FF", "/answer?x=1", "//")  # fmt: skip


def hidden(page, name):
    person = Person.__new__(Person)
    person.page = httpx.Response(200, text=page)
    try:
        return person.hidden(name)
    except Exception:  # before the consent there is none
        return "0"


def check_study(folder, numbers, tally):
    path = folder / "s.db"
    tokens = make_study(path, raters=3, each=2)
    with study_served(path) as (address, server):
        for token in tokens[:2]:
            httpx.post(f"{address}/s/{token}/consent", data={"agree": "yes", "adult": "yes"})
        visit_badly(address, tokens[:2], numbers, tally)
        assert httpx.get(f"{address}/healthz").status_code == 200
        untouched = server.store.rater_of(tokens[2])
        assert untouched.consented is None
        for task in server.store.all_tasks():
            for side in "AB":
                turns = server.store.turns(task.task, side)
                assert [turn.number for turn in turns] == list(range(len(turns)))


def test_a_damaged_form_is_taken_or_refused(tmp_path, tally):
    check_study(tmp_path, range(QUICK), tally)


@pytest.mark.campaign
def test_many_damaged_forms_are_taken_or_refused(tmp_path, tally):
    check_study(tmp_path, range(MANY), tally)
