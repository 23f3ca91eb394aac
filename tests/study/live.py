"""A study with systems that need no model, in a thread or in a process that can be killed."""

import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from pal.guard import GuardSettings, load_guard
from pal.serve.running import listen, run_server
from pal.study.app import StudyServer
from pal.study.questions import CHAT_QUESTIONS, consent_text
from pal.study.settings import StudyServerSettings
from pal.study.store import NewTask, StudyStore
from tests.jobs import ROOT

QUESTIONS = [question.name for question in CHAT_QUESTIONS]
SITUATIONS = [f"Situation {word}: the rent is due." for word in ("one", "two", "three")]
ADDRESS = "http://127.0.0.1:8010"


class FakeReply:
    """What the pages read of a session's reply."""

    def __init__(self, text, guard, finish="stop"):
        self.text, self.guard, self.finish = text, guard, finish
        self.strategy, self.alpha, self.persona, self.tokens = None, None, (), len(text.split())


class Gate:
    """Holds replies back until it is opened, whatever the speed of the machine.

    As the ``before`` of a supporter; ``asked`` is set as soon as a reply has begun.
    """

    def __init__(self):
        self.asked, self._open = threading.Event(), threading.Event()

    def __call__(self):
        self.asked.set()
        assert self._open.wait(30)

    def open(self):
        self._open.set()


class FakeSupporter:
    """Says its name and how many messages it has; what the guard says goes first."""

    def __init__(self, name, guard, seconds=0.0):
        self.name, self.guard, self.seconds = name, guard, seconds
        self.calls = []
        self.before = None

    def respond(self, messages, *, id, pinned):
        self.calls.append((id, len(messages), pinned))
        said = [one["content"] for one in messages if one["role"] == "seeker"]
        verdict = self.guard.review(said, pinned=pinned)
        if verdict.text is not None:
            return FakeReply(f"{verdict.text}\n\n{verdict.help}", verdict, "guard")
        if self.before is not None:
            self.before()
        time.sleep(self.seconds)
        text = f"reply {len(messages)} of {self.name}"
        return FakeReply(f"{verdict.help}\n\n{text}" if verdict.help else text, verdict)


def config_of(**changes):
    guard = GuardSettings(country="GB").model_dump()
    return {
        "title": "A study", "consent": consent_text("chat", "Dr. X"), "contact": "Dr. X",
        "address": ADDRESS,
        "min_messages": 1, "max_messages": 5, "seed": 7,
        "systems": {"zebra": {}, "quartz": {}}, "guard": guard, **changes,
    }  # fmt: skip


def make_study(path, *, raters=2, each=1, days=1.0, kind="chat", items=None, **changes):
    """Make a study; return its tokens. Odd raters have the first system at A."""
    if items is None:
        items = {
            f"item{n}": {"sample": f"situation {n}", "situation": text}
            for n, text in enumerate(SITUATIONS)
        }
    names = list(items)
    pair = ("zebra", "quartz")
    dealt = [
        [
            NewTask(name, (pair if rater % 2 == 0 else pair[::-1]) if kind == "chat" else None)
            for name in names[:each]
        ]
        for rater in range(raters)
    ]
    return StudyStore.create(
        path, kind=kind, config=config_of(**changes), items=items, raters=dealt,
        expires=time.time() + days * 86400,
    )  # fmt: skip


def make_server(store, *, seconds=0.0, timeout=20.0):
    guard = load_guard(GuardSettings.model_validate(store.config["guard"]))
    systems = {name: FakeSupporter(name, guard, seconds) for name in store.config["systems"]}
    return StudyServer(store, systems, guard, StudyServerSettings(timeout=timeout, drain=2))


@contextmanager
def served(path, **options):
    """Yield (address, server) of a study that a thread serves."""
    store = StudyStore(path)
    server = make_server(store, **options)
    listening, stop = listen("127.0.0.1", 0), threading.Event()
    thread = threading.Thread(
        target=run_server, args=(server, listening), kwargs={"stop": stop}, daemon=True
    )
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", server
    finally:
        stop.set()
        thread.join(timeout=20)
        store.close()


def start_process(path, port, *, seconds=0.02):
    """Start a process that serves a study at a port."""
    code = "from tests.study.live import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path), str(port), str(seconds)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def main():
    path, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    store = StudyStore(Path(path))
    uvicorn.run(
        make_server(store, seconds=seconds).app(), host="127.0.0.1", port=port,
        log_level="warning", access_log=False,
    )  # fmt: skip
