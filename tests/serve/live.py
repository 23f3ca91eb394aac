"""A server on loopback in a thread of this process, and one in a process of its own."""

import http.client
import re
import threading
from contextlib import contextmanager
from urllib.parse import urlsplit

from pal.serve.app import Server
from pal.serve.running import listen, run_server
from pal.serve.settings import ServerSettings
from tests.jobs import start


@contextmanager
def served(session, *, token=None, name="tiny", **limits):
    """Yield (address, server) of a session that is served."""
    settings = ServerSettings(port=0, drain=5, **limits)
    session.rows = settings.rows
    server = Server(session, name, settings, token)
    socket, stop = listen("127.0.0.1", 0), threading.Event()
    thread = threading.Thread(
        target=run_server, args=(server, socket), kwargs={"stop": stop}, daemon=True
    )
    thread.start()
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}", server
    finally:
        stop.set()
        thread.join(timeout=20)


def send_whole(url, pieces, *, chunked=False, **headers):
    """Send a request in full before its answer is read, as many clients do.

    Args:
        url: where to.
        pieces: of the body.
        chunked: send them as they come, without a length.
        **headers: of the request.

    Returns:
        Status and body of the answer.
    """
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.netloc, timeout=60)
    body = iter(pieces) if chunked else b"".join(pieces)
    more = {"Transfer-Encoding": "chunked"} if chunked else {}
    try:
        connection.request(
            "POST", place.path, body, {"Connection": "close", **more, **headers},
            encode_chunked=chunked,
        )  # fmt: skip
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


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
