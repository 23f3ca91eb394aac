"""Running the web application: the socket it listens on, and the way it ends."""

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from typing import Any, Protocol

from pal.core.errors import ConfigError, first_line

logger = logging.getLogger(__name__)

# Bytes of a refused request that are read and thrown away, so that its client sees the answer.
MOST_DRAINED = 64 * 2**20


class Served(Protocol):
    """What can be run: an application, and settings with ``drain`` and ``timeout``."""

    settings: Any

    def app(self) -> Any:
        """Return the application."""
        ...


def listen(host: str, port: int, section: str = "serve") -> socket.socket:
    """Return a socket that listens.

    Args:
        host: address.
        port: port; 0 takes a free one.
        section: the settings that name them, for the message.

    Raises:
        ConfigError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen(1024)
    except (OSError, OverflowError) as error:
        made.close()
        raise ConfigError(
            f"cannot listen at address {host}, {section}.port={port} ({first_line(error)}): "
            "another program uses it, or this machine does not have that address; give another"
        ) from None
    return made


def run_server(
    server: Served,
    listening: socket.socket,
    *,
    stop: threading.Event | None = None,
    noun: str = "replies",
) -> None:
    """Answer requests until the process, or this thread, is told to stop; replies get to end.

    They do not after ``settings.drain`` seconds, or at a second Ctrl-C.

    Args:
        server: what answers.
        listening: from :func:`listen`.
        stop: ends a server in a thread, which gets no signals.
        noun: what the message of the end calls what the server gives, in the plural.

    Raises:
        KeyboardInterrupt: Ctrl-C; the message says whether all that had begun was finished.
    """
    import uvicorn

    finished = f"{noun} that had begun were finished"
    cut = f"not all {finished}"
    app, is_cut = _drained(server.app(), server.settings.timeout), False

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        nonlocal is_cut
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            is_cut = is_cut or scope["type"] == "http"
            raise

    config = uvicorn.Config(
        watched, lifespan="on",
        log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=max(1, round(server.settings.drain)),
        http=_impatient(server.settings.timeout),
    )  # fmt: skip
    logging.getLogger("uvicorn.error").addFilter(_is_no_cut)
    running: Any = uvicorn.Server(config)
    if stop is not None:
        threading.Thread(target=_pass_on, args=(stop, running), daemon=True).start()
        running.run(sockets=[listening])
        return
    # The library ends itself by the signal that stopped it; a server that was told to stop and
    # did has not failed.
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        running.run(sockets=[listening])
        if is_cut:
            logger.warning("stopped; %s", cut)
    except KeyboardInterrupt:
        ended = cut if is_cut else finished
        raise KeyboardInterrupt(f"stopped; {ended}") from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_no_cut(record: logging.LogRecord) -> bool:
    """Whether the library's record is more than a request that a stop cut off, which we tell."""
    error = record.exc_info[1] if record.exc_info else None
    told = record.getMessage() + (record.exc_text or "")
    return not isinstance(error, asyncio.CancelledError) and "CancelledError" not in told


def _drained(app: Any, seconds: float) -> Any:
    """Return an application whose answers end after the rest of their request has come.

    Most clients send the whole of a request before they read, and a connection that is closed
    before that is reset, with the answer that was on its way: too large, or no such page. What
    comes is thrown away, up to a size and a time.

    Args:
        app: the application.
        seconds: how long the rest of a request may take.
    """

    async def run(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        # A request without a body, as of a page, leaves its connection open.
        bodies = (b"content-length", b"transfer-encoding")
        has_ended = not any(name in bodies for name, _ in scope["headers"])

        async def receive_part() -> Any:
            nonlocal has_ended
            message = await receive()
            has_ended = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        async def drain() -> None:
            size = 0
            while not has_ended and size <= MOST_DRAINED:
                size += len((await receive_part()).get("body", b""))

        async def send_part(message: Any) -> None:
            if message["type"] == "http.response.start" and not has_ended:
                # What is left after all that is read ends with the connection.
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                message = {**message, "headers": headers}
            is_last = message["type"] == "http.response.body" and not message.get("more_body")
            if not is_last or has_ended:
                await send(message)
                return
            await send({**message, "more_body": True})
            # Cancelled: the server ends, and does not wait any longer.
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(drain(), seconds)
            await send({"type": "http.response.body"})

        await app(scope, receive_part, send_part)

    return run


def _impatient(seconds: float) -> Any:
    """Return the library's way to talk HTTP, which drops whoever holds a place and does nothing.

    The library itself waits for ever for a request that does not come, or comes in half, and for a
    client that does not read.

    Args:
        seconds: how long a client may take for its next step.
    """
    from h11 import LocalProtocolError
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    base: Any = AutoHTTPProtocol

    class Impatient(base):  # type: ignore[misc]
        """A connection."""

        _silent: Any = None  # timers: until a request is there, and until what is sent is read
        _unread: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            try:
                super().data_received(data)
            except LocalProtocolError:  # nonsense in a request that has its answer already
                self.transport.close()
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch_reading()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._watch_reading()

        def resume_writing(self) -> None:
            super().resume_writing()
            _stop(self._unread)
            self._unread = None

        def connection_lost(self, error: Exception | None) -> None:
            _stop(self._silent)
            _stop(self._unread)
            super().connection_lost(error)

        def _watch(self) -> None:
            """Give a request time to come."""
            if self.cycle is not None and not self.cycle.response_complete:
                _stop(self._silent)
                self._silent = None
            elif self._silent is None:
                self._silent = self.loop.call_later(seconds, self._end_silence)

        def _end_silence(self) -> None:
            self._silent = None
            self.transport.abort()

        def _watch_reading(self) -> None:
            """Give the client time to read what is sent."""
            if self._unread is None and self.transport.get_write_buffer_size():
                self._unread = self.loop.call_later(seconds, self._end_reading)

        def _end_reading(self) -> None:
            self._unread = None
            if self.transport.get_write_buffer_size():
                self.transport.abort()

    return Impatient


def _stop(timer: Any) -> None:
    """Stop a timer, if there is one."""
    if timer is not None:
        timer.cancel()


def _pass_on(stop: threading.Event, running: Any) -> None:
    stop.wait()
    running.should_exit = True
