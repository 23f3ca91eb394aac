"""Running the web application: the socket it listens on, and the way it ends."""

import signal
import socket
import threading
from typing import Any, Protocol

from pal.core.errors import ConfigError, first_line


class Served(Protocol):
    """What can be run: an application, and settings with ``drain``."""

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
            "another program has it, or it is none of this machine's; give another"
        ) from None
    return made


def run_server(
    server: Served, listening: socket.socket, *, stop: threading.Event | None = None
) -> None:
    """Answer requests until the process, or this thread, is told to stop; replies get to end.

    Args:
        server: what answers.
        listening: from :func:`listen`.
        stop: ends a server in a thread, which gets no signals.
    """
    import uvicorn

    config = uvicorn.Config(
        server.app(), log_level="warning", access_log=False, server_header=False, lifespan="on",
        timeout_graceful_shutdown=max(1, round(server.settings.drain)),
    )  # fmt: skip
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
    finally:
        signal.signal(signal.SIGTERM, before)


def _pass_on(stop: threading.Event, running: Any) -> None:
    stop.wait()
    running.should_exit = True
