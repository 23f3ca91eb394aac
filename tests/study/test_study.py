"""The pages of a study as a browser without script meets them, and its file."""

import json
import logging
import re
import resource
import signal
import sqlite3
import stat
import threading
import time
from contextlib import closing

import httpx
import pytest

from pal.core.errors import DataError, OutputError
from pal.study.questions import consent_text, contact_line
from pal.study.store import StudyStore
from tests.serve.live import send_whole
from tests.study.live import QUESTIONS, SITUATIONS, Gate, make_study, served

CRISIS = "I can't do this anymore. I want to kill myself tonight."


@pytest.fixture
def file(tmp_path):
    return tmp_path / "study.db"


class Person:
    """A rater without script: reads pages, fills in what the forms of the page hold."""

    def __init__(self, address, token):
        self.url = f"{address}/s/{token}"
        self.client = httpx.Client(follow_redirects=True, timeout=30)
        self.page = self.client.get(self.url)

    @property
    def text(self):
        return self.page.text

    def look(self):
        self.page = self.client.get(self.url)
        return self.text

    def post(self, action, **fields):
        self.page = self.client.post(f"{self.url}/{action}", data=fields)
        return self.text

    def hidden(self, name):
        return re.search(f'name="{name}" value="([^"]*)"', self.text)[1]

    def begin(self):
        return self.post("consent", agree="yes", adult="yes")

    def say(self, text, **changes):
        fields = {name: self.hidden(name) for name in ("task", "side", "number")}
        return self.post("say", **{**fields, "text": text, **changes})

    def end(self):
        return self.post("end", task=self.hidden("task"), side=self.hidden("side"))

    def talk_to_both(self, *texts):
        for _ in "AB":
            for text in texts or ("hello",):
                self.say(text)
            self.end()

    def answer(self, **answers):
        return self.post("answer", task=self.hidden("task"), **answers)

    def all_answered(self, answer="A"):
        return self.answer(**dict.fromkeys(QUESTIONS, answer), finish="yes")


def turns_of(path):
    store = StudyStore(path)
    found = {
        (task.rater, task.place, side): [
            (turn.speaker, turn.text) for turn in store.turns(task.task, side)
        ]
        for task in store.all_tasks() for side in "AB"
    }  # fmt: skip
    store.close()
    return found


def test_a_rater_goes_through_the_whole_study(file):
    tokens = make_study(file, raters=1, each=2)
    with served(file) as (address, server):
        person = Person(address, tokens[0])
        assert "Dr. X" in person.text
        assert "tick both boxes" in person.post("consent", agree="yes")
        assert "Talk with system A" in person.begin()
        for situation in SITUATIONS[:2]:
            assert situation in person.text
            assert "at least 1 more message," in person.text
            assert "a little longer" in person.end()
            assert "Please write a message first." in person.say("\u200b")
            assert "reply 1 of zebra" in person.say("hello")
            assert "reply 3 of zebra" in person.say("my rent is due")
            assert "Talk with system B" in person.end()
            assert "reply 1 of quartz" in person.say("hello")
            assert "Compare A and B" in person.end()
            assert "Please answer Information, Overall." in person.answer(
                **dict.fromkeys(QUESTIONS[:4], "B"), finish="yes"
            )
            person.look()
            assert person.text.count(" checked") == 4
            person.answer(Information="Tie", Overall="A", finish="yes")
        assert "You have done all of it" in person.text
        assert "zebra" not in Person(address, tokens[0]).text
    store = StudyStore(file)
    for task in store.tasks(1):
        assert task.finished
        given = {name: answer for name, (answer, _) in store.answers(task.task).items()}
        assert given == {**dict.fromkeys(QUESTIONS[:4], "B"), "Information": "Tie", "Overall": "A"}
    assert turns_of(file)[1, 0, "A"] == [
        ("rater", "hello"), ("system", "reply 1 of zebra"),
        ("rater", "my rent is due"), ("system", "reply 3 of zebra"),
    ]  # fmt: skip
    ids = {name for one in server.supporters.values() for name, _, _ in one.calls}
    assert len(ids) == 4  # a conversation has a noise of its own


def test_a_full_disk_loses_no_words(file, caplog):
    """What cannot be stored is told, and given back to be sent again; the log says why."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    [token] = make_study(file, raters=1)
    try:
        with served(file) as (address, _):
            person = Person(address, token)
            person.begin()
            person.say("hello")
            full = file.with_name("study.db-wal").stat().st_size + 4096
            resource.setrlimit(resource.RLIMIT_FSIZE, (full, before[1]))
            page = person.text
            assert "zebra-quartz" in person.say("zebra-quartz " * 100)  # as a draft
            assert person.page.status_code == 503
            assert "could not be stored" in person.text
            assert person.post("withdraw", sure="yes")
            assert person.page.status_code == 503
            assert "reply 1 of" in person.look()
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            person.page = type(person.page)(200, text=page)
            assert "zebra-quartz" in person.say("zebra-quartz " * 100)
            assert "reply 3 of" in person.text
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    ours = "".join(one.getMessage() for one in caplog.records if one.name.startswith("pal"))
    assert "could not be stored: OperationalError: " in ours
    assert "zebra-quartz" not in ours
    assert [text[:12] for _, text in turns_of(file)[1, 0, "A"][::2]] == ["hello", "zebra-quartz"]


def test_names_of_systems_are_on_no_page(file):
    [token] = make_study(file, raters=1)

    with served(file) as (address, server):
        for one in server.supporters.values():
            one.name = "somebody"
        person = Person(address, token)
        pages = [person.text, person.begin(), person.say("hi"), person.end(), person.say("hi")]
        pages += [person.end(), person.all_answered()]
        assert not any(name in page for page in pages for name in ("zebra", "quartz"))


def test_what_is_sent_twice_counts_once(file):
    [token] = make_study(file, raters=1, each=2)
    with served(file) as (address, server):
        person = Person(address, token)
        person.begin()
        fields = {name: person.hidden(name) for name in ("task", "side", "number")}
        for _ in range(3):
            page = person.post("say", **fields, text="hello")
            assert page.count("reply 1 of zebra") == 1
        other = person.post("say", **fields, text="something else")
        assert person.page.status_code == 409
        assert "not sent" in other
        assert ">something else</textarea>" in other
        ended = {name: person.hidden(name) for name in ("task", "side")}
        person.post("end", **ended)
        assert "Talk with system B" in person.post("end", **ended)  # B is not ended by it
        assert "not sent" in person.post("say", **fields, text="hello A")
        person.say("hello B")
        person.end()
        task = person.hidden("task")
        person.all_answered("A")
        assert "Task 2 of 2" in person.text
        person.post("answer", task=task, **dict.fromkeys(QUESTIONS, "B"), finish="yes")
        assert "Task 2 of 2" in person.text
        store = StudyStore(file)
        assert {answer for answer, _ in store.answers(task).values()} == {"A"}
        store.close()
    assert turns_of(file)[1, 0, "A"] == [("rater", "hello"), ("system", "reply 1 of zebra")]
    assert [number for _, number, _ in server.supporters["zebra"].calls] == [1]


def test_a_double_click_gets_one_reply(file):
    [token] = make_study(file, raters=1)
    with served(file, seconds=0.3) as (address, server):
        person = Person(address, token)
        person.begin()
        fields = {name: person.hidden(name) for name in ("task", "side", "number")}

        def click():
            httpx.post(
                f"{person.url}/say", data={**fields, "text": "hello"}, follow_redirects=True,
                timeout=20,
            )  # fmt: skip

        clicks = [threading.Thread(target=click) for _ in range(6)]
        for one in clicks:
            one.start()
        for one in clicks:
            one.join()
    assert turns_of(file)[1, 0, "A"] == [("rater", "hello"), ("system", "reply 1 of zebra")]
    assert len(server.supporters["zebra"].calls) == 1


def test_an_unanswered_message_is_answered_on_reload(file):
    [token] = make_study(file, raters=1)
    with served(file) as (address, server):
        person = Person(address, token)
        person.begin()
        zebra = server.supporters["zebra"]
        respond, zebra.respond = zebra.respond, lambda *a, **k: 1 / 0
        page = person.say("hello")
        assert "no answer yet" in page
        assert "hello" in page
        assert 'id="say"' not in page
        zebra.respond = respond
        assert "reply 1 of zebra" in person.look()
    store = StudyStore(file)  # as a process leaves it that was killed between message and reply
    [task] = store.tasks(1)
    assert store.say(1, task.task, "A", 2, "are you there?")
    store.close()
    with served(file) as (address, _):
        assert "reply 3 of zebra" in Person(address, token).text


def test_a_slow_system_blocks_nobody(file):
    one, two = make_study(file, raters=2)
    with served(file) as (address, server):
        gate = server.supporters["zebra"].before = Gate()
        slow, quick = Person(address, one), Person(address, two)
        slow.begin()
        thread = threading.Thread(target=slow.say, args=("hello",))
        thread.start()
        assert gate.asked.wait(30)
        assert "Talk with system A" in quick.begin()
        assert httpx.get(f"{address}/healthz").text == "ok"
        gate.open()
        thread.join()
        assert "reply 1 of zebra" in slow.text


def test_a_timeout_keeps_the_message(file):
    [token] = make_study(file, raters=1)
    with served(file, timeout=0.5) as (address, server):
        gate = server.supporters["zebra"].before = Gate()
        person = Person(address, token)
        person.begin()
        assert "no answer yet" in person.say("hello")
        gate.open()
        assert "reply 1 of zebra" in person.look()


def test_raters_see_and_change_their_own_alone(file):
    one, two = make_study(file, raters=2)
    with served(file) as (address, _):
        first, second = Person(address, one), Person(address, two)
        first.begin()
        second.begin()
        task = first.hidden("task")
        first.say("a secret of the first")
        assert "secret" not in second.look()
        second.post("say", task=task, side="A", number="2", text="as the first")
        assert second.page.status_code == 409
        assert "secret" not in second.text
        second.post("end", task=task, side="A")
        assert "Talk with system A" in first.look()
        second.talk_to_both()
        second.post("answer", task=task, **dict.fromkeys(QUESTIONS, "A"), finish="yes")
        assert "Compare A and B" in second.text
        second.post("withdraw", sure="yes")
        assert "secret" in first.look()
        for wrong in ("x", one[:-1], one + "x", "%00", "a" * 5000):
            page = httpx.get(f"{address}/s/{wrong}")
            assert page.status_code == 404
            assert httpx.post(f"{address}/s/{wrong}/say", data={"text": "x"}).status_code == 404
    assert ("rater", "as the first") not in turns_of(file)[1, 0, "A"]
    store = StudyStore(file)
    assert store.answers(task) == {}


def test_html_is_text(file):
    nasty = (
        "<img src=x onerror=alert(1)><script>alert(2)</script>&lt;b&gt; </textarea> {{ 234*321 }}"
    )
    items = {"i": {"sample": "s", "situation": f"sit {nasty}"}}
    [token] = make_study(file, raters=1, items=items, consent=f"con {nasty}", title=nasty)
    with served(file) as (address, server):
        server.supporters["zebra"].name = nasty
        person = Person(address, token)
        pages = [person.text, person.begin(), person.say(nasty), person.say(nasty, number="0")]
        pages += [person.end(), person.say("x"), person.end()]
    for page in pages:
        assert "<img src=x" not in page
        assert page.count("<script") == 1
        assert "75114" not in page
    assert "&lt;img src=x onerror" in pages[2]
    policy = person.page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert person.page.headers["cache-control"] == "no-store"
    assert person.page.headers["referrer-policy"] == "no-referrer"


def test_pages_name_no_other_place(file):
    [token] = make_study(file, raters=1)
    with served(file) as (address, _):
        page = Person(address, token).text
        named = re.findall(r'(?:src|href|action)="([^"]*)"', page)
        assert named
        # Nothing is fetched from elsewhere; what a person may click are the lines of help.
        fetched = re.findall(r'<(?!a )[^>]*(?:src|href|action)="([^"]*)"', page)
        assert all(re.match(r"/s/|/static/|#|data:,$", one) for one in fetched)
        away = {one for one in named if not re.match(r"/s/|/static/|#|data:,$", one)}
        assert {re.match(r"tel:|sms:|https://", one)[0] for one in away} == {
            "tel:",
            "sms:",
            "https://",
        }
        assert page.count('target="_blank" rel="noreferrer noopener"') >= len(away)
        for name in ("study.css", "study.js"):
            text = httpx.get(f"{address}/static/{name}").text
            assert not re.search(r"https?:|//\w+\.|@import|url\(", text)
        assert httpx.get(f"{address}/static/base.html").status_code == 404
        assert httpx.get(f"{address}/", headers={"host": "evil.example"}).status_code == 400


def prepared(page):
    """The first number to call in each prepared text of a page."""
    said = re.findall(
        r"<b>System [AB] · a prepared text, not the system’s</b>(.*?)</li>", page, re.S
    )
    return [re.search('href="(tel:[^"]*)"', text)[1] for text in said]


def test_a_crisis_is_met_with_the_fixed_text_of_both_and_help_that_stays(file):
    [token] = make_study(file, raters=1)
    with served(file) as (address, server):
        person = Person(address, token)
        person.begin()
        assert "If you are not well</h2>" not in person.say("hello there")
        assert "a prepared text" not in person.text
        page = person.say(CRISIS)
        assert "999" in page
        assert "If you are not well</h2>" in page
        assert "reply 3" not in page
        assert prepared(page) == ["tel:999"]
        first = turns_of(file)[1, 0, "A"][-1]
        assert first[0] == "guard"
        page = person.look()
        assert "If you are not well</h2>" in page
        person.end()
        assert "If you are not well</h2>" in person.text  # with B too, before a word
        person.say("hello")
        assert turns_of(file)[1, 0, "B"][-1] == ("system", "reply 1 of quartz")  # help is above
        person.say(CRISIS)
        assert turns_of(file)[1, 0, "B"][-1][0] == "guard"
        assert server.supporters["quartz"].calls[-1][2] >= 2  # what was pinned with A
        person.end()
        assert prepared(person.text) == ["tel:999"] * 2  # beside the questions too
        assert "If you are not well</h2>" in person.text
        person.post("stop")
        assert "If you are not well</h2>" in person.text
        assert "If you are not well</h2>" not in person.post("withdraw", sure="yes")


def test_a_guard_that_fails_shows_help_and_no_reply_of_a_system(file):
    [token] = make_study(file, raters=1)
    with served(file) as (address, server):
        person = Person(address, token)
        person.begin()
        person.say("x\u202e" + "\u0000 ")
        server.guard._review = lambda *a: 1 / 0
        page = person.say("hello")
        assert "If you are not well</h2>" in page
        assert turns_of(file)[1, 0, "A"][-1][0] == "guard"


def test_stop_and_go_on(file):
    [token] = make_study(file, raters=1)
    with served(file) as (address, _):
        person = Person(address, token)
        person.begin()
        person.say("hello")
        fields = {name: person.hidden(name) for name in ("task", "side", "number")}
        assert "You have stopped" in person.post("stop")
        assert "You have stopped" in person.post("say", **fields, text="more")
        assert "reply 1 of zebra" in person.post("resume")
    assert len(turns_of(file)[1, 0, "A"]) == 2


def test_an_expired_link_takes_a_withdrawal_alone(file):
    [token] = make_study(file, raters=1)
    with served(file) as (address, _):
        person = Person(address, token)
        person.begin()
        page = person.say("canary-word")
        assert "reply 1" in page
        fields = {name: person.hidden(name) for name in ("task", "side", "number")}
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("UPDATE raters SET expires = ?", [time.time() - 1])
        assert "has expired" in person.post("say", **fields, text="too late")
        assert "has expired" in person.post("end", task=fields["task"], side="A")
        assert "canary-word" not in person.look()
        assert "has expired" in person.post("stop")
        assert "has expired" in person.post("consent", agree="yes", adult="yes")
        assert len(turns_of(file)[1, 0, "A"]) == 2
        assert "tick the box" in person.post("withdraw")
        assert "has been deleted" in person.post("withdraw", sure="yes")


def bytes_of(file):
    return b"".join(path.read_bytes() for path in file.parent.glob(f"{file.name}*"))


def test_what_is_withdrawn_is_in_no_byte_of_the_files(file):
    one, two = make_study(file, raters=2)
    with served(file) as (address, server):
        server.supporters["zebra"].name = "canary-reply"
        person, other = Person(address, one), Person(address, two)
        person.begin()
        other.begin()
        other.say("what stays")
        for number in range(4):
            person.say(f"canary-word {number} " + "x" * 1900)  # over several pages of the file
        person.end()
        person.say("canary-word")
        assert b"canary-word" in bytes_of(file)
        assert b"canary-reply" in bytes_of(file)
        assert "has been deleted" in person.post("withdraw", sure="yes")
        found = bytes_of(file)
        assert b"canary-word" not in found
        assert b"canary-reply" not in found
        assert b"what stays" in found
        assert "You have withdrawn" in person.look()
        assert "You have withdrawn" in person.begin()
        assert "You have withdrawn" in person.post("withdraw", sure="yes")
        assert "what stays" in other.look()


def test_a_reply_that_comes_after_a_withdrawal_is_not_stored(file):
    [token] = make_study(file, raters=1)
    with served(file) as (address, server):
        server.supporters["zebra"].name = "canary-reply"
        gate = server.supporters["zebra"].before = Gate()
        person = Person(address, token)
        person.begin()
        thread = threading.Thread(target=person.say, args=("canary-word",))
        thread.start()
        assert gate.asked.wait(30)
        httpx.post(f"{person.url}/withdraw", data={"sure": "yes"})
        gate.open()
        thread.join()  # its page comes when the reply is there
        assert "You have withdrawn" in person.text
        assert b"canary" not in bytes_of(file)


def test_files_are_private_and_hold_no_token(file):
    tokens = make_study(file, raters=2)
    with served(file) as (address, _):
        for token in tokens:
            Person(address, token).begin()
        found = sorted(file.parent.iterdir())
        assert [path.name for path in found] == ["study.db", "study.db-shm", "study.db-wal"]
        assert {stat.S_IMODE(path.stat().st_mode) for path in found} == {0o600}
        assert not any(token.encode() in bytes_of(file) for token in tokens)
        assert all(len(token) == 22 for token in tokens)  # 128 bits


def test_a_form_that_is_far_too_long_is_answered(file):
    [token] = make_study(file, raters=1)
    with served(file) as (address, _):
        begun = Person(address, token)
        begun.begin()
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        for chunked in (False, True):
            status, told = send_whole(
                f"{begun.url}/say", [b"text=", *[b"x" * 2**20] * 30], chunked=chunked, **kind
            )
            assert status == 413
            assert b"too long" in told
        assert begun.say("Hello.")


def test_no_text_is_logged(file, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    [token] = make_study(file, raters=1)
    with served(file) as (address, server):
        person = Person(address, token)
        person.begin()
        caplog.clear()
        person.say("canary-word")

        def fail(messages, **more):
            raise RuntimeError(f"cannot say {messages[-1]['content']}")

        server.supporters["zebra"].respond = fail
        person.say("canary-word again")
        server.store.answers = lambda task: 1 / 0
        server.store.turns = lambda *given: fail([{"content": f"canary {given}"}])
        assert person.client.get(person.url).status_code == 500
        assert person.post("say", task="canary-word", text="x" * 70_000)
        assert person.page.status_code == 413
    ours = [record for record in caplog.records if not record.name.startswith("http")]
    assert any("RuntimeError" in record.getMessage() for record in ours)
    shown = capfd.readouterr()
    logged = "\n".join(map(logging.Formatter().format, ours))
    for text in (logged, shown.out, shown.err):
        assert "canary" not in text
        assert token not in text


@pytest.mark.parametrize("body", [
    b"", b"text=hi", b"task=%00&side=C&number=-1&text=hi", b"number=99999999999999999999&text=a",
    b"\xff\xfe=1", b"&" * 500, b"task=" + b"a" * 9000, "number=٣&text=x&side=A".encode(),
    b"number=1e3&text=x", b"text=%ED%A0%80&number=0&side=A",
])  # fmt: skip
def test_odd_forms_break_nothing(file, body):
    [token] = make_study(file, raters=1)
    kind = {"content-type": "application/x-www-form-urlencoded"}
    with served(file) as (address, _):
        person = Person(address, token)
        person.begin()
        for action in ("consent", "say", "end", "answer", "stop", "resume", "withdraw"):
            page = httpx.post(f"{person.url}/{action}", content=body, headers=kind)
            assert page.status_code in (303, 400, 409), (action, page.status_code)
        assert "Talk with system A" in person.look()
        assert httpx.get(f"{person.url}/say").status_code == 405
        assert httpx.post(f"{person.url}/nonsense").status_code == 404
    assert turns_of(file)[1, 0, "A"] == []


def test_a_conversation_has_an_end(file):
    [token] = make_study(file, raters=1, max_messages=2)
    with served(file) as (address, _):
        person = Person(address, token)
        person.begin()
        person.say("one")
        fields = {name: person.hidden(name) for name in ("task", "side")}
        assert "as many messages as can be sent" in person.say("two")
        assert "not sent" in person.post("say", **fields, number="4", text="three")
        assert "A message can have" in person.post("say", **fields, number="4", text="x" * 2001)
        assert "write a message" in person.post("say", **fields, number="4", text=" \n ")


def test_an_end_in_a_crisis_asks_nobody_to_go_on(file):
    [token] = make_study(file, raters=1, max_messages=1)
    with served(file) as (address, _):
        person = Person(address, token)
        person.begin()
        page = person.say(CRISIS)
        assert "as many messages as can be sent" in page
        assert "Please go on" not in page
        assert "please talk to a person" in page


def test_a_rater_is_told_how_many_messages_can_be_sent(file):
    """With the situation, and again when few are left."""
    [token] = make_study(file, raters=1, max_messages=5)
    with served(file) as (address, _):
        person = Person(address, token)
        assert "You can send system A up to 5 messages." in person.begin()
        told = [re.findall('id="left">(.*?)<', person.say(f"message {n}")) for n in range(5)]
        assert told == [
            [], ["You can send 3 more messages here."], ["You can send 2 more messages here."],
            ["You can send 1 more message here."], [],
        ]  # fmt: skip
        assert "as many messages as can be sent here (5)" in person.text
        page = person.end()
        assert "You can send system B up to 5 messages." in page
        assert 'id="left"' not in page


@pytest.mark.parametrize(("each", "least", "most", "told"), [
    (1, 4, 20, "You compare the two programs once. For this you have a conversation with A and one "
     "with B, and write at least 4 and at most 20 messages in each. In all you write at least 8 "
     "messages."),
    (3, 1, 2, "You compare the two programs 3 times. For each comparison you have a conversation "
     "with A and one with B, and write at least 1 and at most 2 messages in each. In all you write "
     "at least 6 messages."),
    (1, 1, 1, "You compare the two programs once. For this you have a conversation with A and one "
     "with B, and write 1 message in each. In all you write 2 messages."),
])  # fmt: skip
def test_raters_are_told_before_they_consent_how_much_it_is(file, each, least, most, told):
    [token] = make_study(
        file, raters=1, each=each, min_messages=least, max_messages=most, consent="What we do."
    )
    with served(file) as (address, _):
        person = Person(address, token)
        assert re.findall('id="effort">(.*?)<', person.text) == [told]
        person.begin()
        sent = 0
        while "Thank you" not in person.text:
            if "Compare A and B" in person.text:
                person.all_answered()
            elif 'id="missing"' in person.text:
                person.say("hello")
                sent += 1
            else:
                person.end()
    assert sent == 2 * each * least


@pytest.mark.parametrize(("each", "told"), [
    (1, "one part of a conversation"), (3, "each of 3 parts of conversations"),
])  # fmt: skip
def test_judges_of_personas_are_told_before_they_consent_how_much_it_is(file, each, told):
    items = {
        f"p{n}": {"sample": f"d{n}/4", "persona": ["i swim."], "context": []} for n in range(3)
    }
    [token] = make_study(file, kind="persona", raters=1, each=each, items=items)
    with served(file) as (address, _):
        found = re.findall('id="effort">(.*?)<', Person(address, token).text)
    assert found == [f"You answer one question about {told}."]


def test_where_a_rater_can_stop_and_withdraw(file):
    [token] = make_study(file, raters=1)
    with served(file) as (address, _):
        person = Person(address, token)
        pages = {
            "consent": person.text, "chat": person.begin(), "reply": person.say("hello"),
            "side B": person.end(), "reply of B": person.say("hello"), "questions": person.end(),
            "stopped": person.post("stop"),
        }  # fmt: skip
        person.post("resume")
        pages["done"] = person.all_answered()
        pages["withdrawn"] = person.post("withdraw", sure="yes")
    assert {name for name, page in pages.items() if '/stop">' in page} == {
        "chat", "reply", "side B", "reply of B", "questions",
    }  # fmt: skip
    assert {name for name, page in pages.items() if '/withdraw">' not in page} == {
        "consent", "withdrawn",
    }  # fmt: skip


def test_whom_raters_can_ask_is_on_every_page(file):
    [token] = make_study(file, raters=1)
    with served(file) as (address, _):
        person = Person(address, token)
        pages = {
            "front": httpx.get(f"{address}/").text, "consent": person.text, "chat": person.begin(),
            "help": person.say(CRISIS), "side B": person.end(), "reply": person.say("hello"),
            "questions": person.end(), "stopped": person.post("stop"),
        }  # fmt: skip
        person.post("resume")
        pages["done"] = person.all_answered()
        pages["withdrawn"] = person.post("withdraw", sure="yes")
        pages["unknown"] = httpx.get(f"{address}/s/unknown").text
    found = {name: page.count("If you have questions, ask Dr. X.") for name, page in pages.items()}
    assert found == dict.fromkeys(pages, 1)


@pytest.mark.parametrize(("consent", "count"), [
    (consent_text("chat", "Dr. X"), 1), (consent_text("chat", None), 0), ("What we do.", 0),
])  # fmt: skip
def test_a_study_of_an_earlier_version_shows_its_contact_on_every_page(file, consent, count):
    """Its file names the contact in the consent text alone."""
    [token] = make_study(file, raters=1, consent=consent)
    connection = sqlite3.connect(file)
    connection.execute("UPDATE study SET config = json_remove(config, '$.contact')")
    connection.commit()
    connection.close()
    with served(file) as (address, _):
        person = Person(address, token)
        pages = [person.text, person.begin(), person.end()]
    assert [page.count("If you have questions, ask Dr. X.") for page in pages] == [count] * 3
    assert [page.count("If you have questions") for page in pages] == [count] * 3


@pytest.mark.parametrize(("contact", "count"), [("Dr. <b>X</b>", 1), ("", 0)])
def test_a_consent_text_of_ones_own_goes_with_a_contact(file, contact, count):
    [token] = make_study(file, raters=1, consent="What we do.", contact=contact)
    with served(file) as (address, _):
        person = Person(address, token)
        pages = [person.text, person.begin()]
    assert [page.count("If you have questions, ask") for page in pages] == [count] * 2
    assert [page.count("ask Dr. &lt;b&gt;X&lt;/b&gt;.") for page in pages] == [count] * 2


def test_a_contact_that_ends_with_a_full_stop_has_no_second_one():
    for contact in ("Lee & co", "Lee & co."):
        asked = "If you have questions, ask Lee & co."
        assert contact_line({"contact": contact}) == asked
        text = consent_text("persona", contact)
        assert text.endswith(f"\n\n{asked}\n")
        assert contact_line({"consent": text}) == asked  # of an earlier version


def test_a_persona_study(file):
    items = {
        f"p{n}": {
            "sample": f"d{n}/4", "persona": ["i am a <b>nurse</b>.", f"i have {n} cats."],
            "context": [["Seeker", "I am <i>tired</i>."], ["Supporter", "Why?"]],
        }
        for n in range(3)
    }  # fmt: skip
    [token] = make_study(file, kind="persona", raters=1, each=3, items=items)
    with served(file) as (address, _):
        person = Person(address, token)
        page = person.begin()
        assert "&lt;b&gt;nurse" in page
        assert "Task 1 of 3" in page
        assert "A reason is welcome for any “no” and needed for “something else”." in page
        assert "Please answer Persona" in person.answer(finish="yes")
        assert "say what is wrong" in person.answer(Persona="Other", finish="yes")
        assert 'value="Other" required checked' in person.text
        person.answer(Persona="Other", reason="it is odd", finish="yes")
        assert "Task 2 of 3" in person.text
        person.answer(Persona="Hallucinatory", reason="no cat", finish="yes")
        person.answer(Persona="Reasonable")
        assert "Task 3 of 3" in person.text
        assert "You have done all" in person.answer(Persona="Contradictory", finish="yes")
    store = StudyStore(file)
    found = [store.answers(task.task)["Persona"] for task in store.tasks(1)]
    assert found == [("Other", "it is odd"), ("Hallucinatory", "no cat"), ("Contradictory", "")]


def test_a_file_that_is_no_study(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        StudyStore(tmp_path / "none.db")
    path = tmp_path / "x.db"
    path.write_text(json.dumps({"not": "a study"}) * 100)
    with pytest.raises(DataError, match="not a study"):
        StudyStore(path)
    empty = tmp_path / "empty.db"
    empty.touch()
    with pytest.raises(DataError, match="the file is empty"):
        StudyStore(empty)
    assert not empty.stat().st_size
    with pytest.raises(OutputError, match="never overwritten"):
        make_study(path)
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(("damage", "what"), [
    ("UPDATE study SET config = '{\"title\": \"t\"}'", "study.config: consent is None"),
    ("UPDATE study SET config = '[1'", "a damaged study"),
    ("UPDATE items SET content = '{\"sample\": \"s\"}'", "items.content: situation is None"),
    ("UPDATE raters SET expires = 'tomorrow'", "raters.expires holds 'tomorrow'"),
    ("UPDATE tasks SET item = 'nowhere'", "a row belongs to none"),
    ("UPDATE raters SET token = CAST(x'ff' AS TEXT) WHERE rater = 1", "Could not decode"),
    ("DROP TABLE answers", "answers"),
])  # fmt: skip
def test_a_damaged_file_is_one_line(file, damage, what):
    make_study(file)
    database = sqlite3.connect(file)
    database.execute(damage)
    database.commit()
    database.close()
    with pytest.raises(DataError) as caught:
        StudyStore(file)
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)
    assert " with text " not in str(caught.value)
