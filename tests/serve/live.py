"""A server on loopback in a thread of this process, and one in a process of its own."""

import re
import threading
import time
from contextlib import contextmanager

import uvicorn

from pal.commands.serve import _listen
from pal.serve.app import Server
from pal.serve.settings import ServerSettings
from tests.jobs import start


@contextmanager
def served(session, *, token=None, name="tiny", **limits):
    """Yield (address, server) of a session that is served."""
    settings = ServerSettings(port=0, **limits)
    session.rows = settings.rows
    server = Server(session, name, settings, token)
    socket = _listen("127.0.0.1", 0)
    config = uvicorn.Config(
        server.app(), log_level="warning", timeout_graceful_shutdown=5, lifespan="on"
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    while not running.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}", server
    finally:
        running.should_exit = True
        thread.join(timeout=20)


@contextmanager
def process_serving(*arguments, **environment):
    """Yield (address, process) of ``pal serve``, which is killed in the end."""
    process = start("serve", "serve.port=0", *arguments, **environment)
    lines = []
    try:
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"http://\S+?:\d+", line):
                break
        else:
            raise AssertionError("".join(lines))
        yield found[0], process
    finally:
        process.kill()
        process.communicate()
