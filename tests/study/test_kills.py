"""A server of a study that is killed at any moment loses no turn and no answer.

pytest tests/study/test_kills.py                  # 3 kills
pytest -m campaign tests/study/test_kills.py      # 100; PAL_KILLS changes it
"""

import os
import random
import socket
import threading
import time

import httpx
import pytest

from pal.study.store import StudyStore
from tests.study.live import QUESTIONS, make_study, start_process
from tests.study.test_study import Person

RATERS = 3


def free_port():
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


class Chatting(threading.Thread):
    """A rater who goes through a study whatever happens, and remembers what a page confirmed."""

    def __init__(self, address, token, over):
        super().__init__(daemon=True)
        self.address, self.token, self.over = address, token, over
        self.confirmed, self.sent, self.answered, self.problems = [], 0, {}, []
        self.client = httpx.Client(timeout=20)
        self.done = False

    def request(self, method, path="", **fields):
        """Ask until the server answers; what was sent is sent again, as a person would."""
        while not self.over.is_set():
            try:
                url = f"{self.address}/s/{self.token}{path}"
                return self.client.request(method, url, data=fields or None)
            except httpx.TransportError:
                time.sleep(0.02)
        raise SystemExit

    def run(self):
        try:
            self.go()
        except SystemExit:
            pass
        except Exception as error:
            self.problems.append(repr(error))

    def go(self):
        person = Person.__new__(Person)
        self.request("POST", "/consent", agree="yes", adult="yes")
        while not self.over.is_set():
            person.page = self.request("GET")
            if "Thank you" in person.text:
                self.done = True
                return
            for text in self.confirmed_here(person):
                if text not in person.text:
                    self.problems.append(f"{text} is gone")
            task = person.hidden("task")
            if "Compare A and B" in person.text:
                for name in QUESTIONS:
                    answer = random.choice(["A", "B", "Tie"])
                    if self.request("POST", "/answer", task=task, **{name: answer}).is_redirect:
                        self.answered[task, name] = answer
                self.request("POST", "/answer", task=task, finish="yes")
                continue
            if 'id="say"' not in person.text:  # no answer yet
                continue
            side, number = person.hidden("side"), person.hidden("number")
            if int(number) >= 12:
                self.request("POST", "/end", task=task, side=side)
                continue
            self.sent += 1
            text = f"message-{self.sent}-of-{self.token[:6]}"
            if self.request("POST", "/say", task=task, side=side, number=number,
                            text=text).is_redirect:  # fmt: skip
                self.confirmed.append((task, side, int(number), text))

    def confirmed_here(self, person):
        if 'name="side"' not in person.text:
            return []
        place = person.hidden("task"), person.hidden("side")
        return [text for task, side, _, text in self.confirmed if (task, side) == place]


def killed_often(path, kills, seed):
    """Run a study under kills; return its raters, and the kills that came while one of them talked.

    There are no more of them than ``kills``, and fewer if all raters are done before.
    """
    rng = random.Random(seed)
    tokens = make_study(path, raters=RATERS, each=2, min_messages=6, max_messages=9)
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    over = threading.Event()
    raters = [Chatting(address, token, over) for token in tokens]
    for rater in raters:
        rater.start()
    done = 0
    while done < kills and not all(rater.done for rater in raters):
        process = start_process(path, port)
        ready(address, process)
        time.sleep(rng.uniform(0.0, 0.4))
        talking = not all(rater.done for rater in raters)
        process.kill()
        process.wait()
        done += talking
    process = start_process(path, port)
    try:
        deadline = time.monotonic() + 120
        while not all(rater.done for rater in raters) and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        over.set()
        for rater in raters:
            rater.join(timeout=30)
        process.kill()
        process.wait()
    return raters, done


def ready(address, process):
    for _ in range(600):
        assert process.poll() is None, process.stderr.read()[-2000:]
        try:
            httpx.get(f"{address}/healthz", timeout=5)
            return
        except httpx.TransportError:
            time.sleep(0.02)
    raise AssertionError("the server does not start")


def check(path, raters):
    store = StudyStore(path)
    [[whole]] = store._connection().execute("PRAGMA integrity_check").fetchall()
    assert whole == "ok"
    confirmed = 0
    for rater in raters:
        assert rater.problems == []
        assert rater.done
        for task, side, number, text in rater.confirmed:
            assert store.turns(task, side)[number].text == text
            confirmed += 1
        for (task, name), answer in rater.answered.items():
            assert store.answers(task)[name][0] == answer
        assert len(rater.answered) == 12
    for task in store.all_tasks():
        for side in "AB":
            turns = store.turns(task.task, side)
            assert [turn.number for turn in turns] == list(range(12))
            name = task.systems[side]
            for number, turn in enumerate(turns):
                if number % 2:
                    assert (turn.speaker, turn.text) == ("system", f"reply {number} of {name}")
                else:
                    assert turn.speaker == "rater"
    store.close()
    return confirmed


def test_kills_lose_nothing(tmp_path):
    raters, kills = killed_often(tmp_path / "s.db", 3, seed=1)
    assert kills == 3
    assert check(tmp_path / "s.db", raters) >= 60


@pytest.mark.campaign
def test_a_hundred_kills_lose_nothing(tmp_path):
    wanted = int(os.environ.get("PAL_KILLS", "100"))
    done = confirmed = studies = 0
    while done < wanted:
        path = tmp_path / f"s{studies}.db"
        raters, kills = killed_often(path, min(20, wanted - done), seed=studies)
        assert kills
        confirmed += check(path, raters)
        done, studies = done + kills, studies + 1
    print(f"{done} kills in {studies} studies, {confirmed} confirmed messages, none lost")
