"""Questions from a thread whose loop is running already, as in a notebook."""

import asyncio
import contextvars
import os
import signal
import threading
import time

import pytest

from pal.llm import Outcome, connect
from pal.llm.loop import run_to_end
from tests.llm.server import FakeServer
from tests.llm.test_client import answer, question, settings_for


def in_a_cell(function):
    async def cell():
        return function()

    return asyncio.run(cell())


def test_questions_are_answered_inside_a_running_loop(tmp_path):
    with FakeServer(answer) as server:
        settings = settings_for(tmp_path, server.url)
        requests = [question(n) for n in range(20)]
        outcomes = in_a_cell(lambda: connect(settings.llm).ask(requests, description="x"))
        assert outcomes == [Outcome(str(n), {"answer": n % 5 + 1}, None) for n in range(20)]
        assert connect(settings.llm).ask(requests, description="x") == outcomes
        assert len(server.requests) == 20  # what was kept there is read here


def test_results_errors_and_context_come_through():
    name = contextvars.ContextVar("name", default="unset")
    name.set("mine")

    async def read():
        await asyncio.sleep(0)
        return name.get()

    async def fail():
        raise LookupError("here")

    assert run_to_end(read) == in_a_cell(lambda: run_to_end(read)) == "mine"
    for run in (lambda: run_to_end(fail), lambda: in_a_cell(lambda: run_to_end(fail))):
        with pytest.raises(LookupError, match="here"):
            run()


def test_an_interrupt_of_a_cell_cancels_what_runs_for_it():
    ended = threading.Event()

    async def wait():
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    def interrupt():
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    started = time.monotonic()
    # The loop of the cell would take the signal for itself, so the default handler stays here.
    loop = asyncio.new_event_loop()

    async def cell():
        return run_to_end(wait)

    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(cell())
    loop.close()
    assert ended.wait(5)
    assert time.monotonic() - started < 10
