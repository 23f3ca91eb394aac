"""``pal serve``: a trained model behind OpenAI's chat API, and a page to talk to it.

Nothing that is said is stored or logged. The server listens on this machine alone unless it is told
otherwise, and then it asks for a token.
"""

import logging
import os
import signal
import socket
from typing import Any

from pal.conversation.settings import TalkSettings
from pal.core.errors import ConfigError, first_line
from pal.core.runtime import configure_runtime
from pal.serve.settings import ServerSettings

logger = logging.getLogger(__name__)

TOKEN = "PAL_API_TOKEN"


class ServeSettings(TalkSettings):
    """Serve a model over OpenAI's chat API, with a page to talk to it."""

    examples = (
        "pal serve model=runs/pal guard.country=US",
        "pal serve model=runs/smollm2 extractor=runs/extractor serve.port=9000 serve.rows=32",
    )

    serve: ServerSettings = ServerSettings()


def serve(settings: ServeSettings) -> None:
    """Answer requests until the process is told to stop; replies under way get to end.

    Raises:
        PalError: model, guard or address cannot be used.
    """
    settings = ServeSettings.of(settings)
    configure_runtime()
    (source,) = settings.require("model")
    uvicorn = _stack()
    from pal.conversation.session import open_session
    from pal.serve.app import OWN, Server

    chosen = settings.serve
    token = os.environ.get(TOKEN) or None
    if chosen.host not in OWN and token is None:
        raise ConfigError(
            f"serve.host={chosen.host} is open to other machines: put a token that clients must "
            f"send into the environment variable {TOKEN}, or leave serve.host out"
        )
    listening = _listen(chosen.host, chosen.port)
    server = Server(open_session(settings, rows=chosen.rows), _name(source), chosen, token)
    port = listening.getsockname()[1]
    shown = f"[{chosen.host}]" if ":" in chosen.host else chosen.host
    logger.info(
        "%s at http://%s:%d: the page, and OpenAI's API under /v1; Ctrl-C stops",
        server.name, shown, port,
    )  # fmt: skip
    config = uvicorn.Config(
        server.app(), log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=max(1, round(chosen.drain)), lifespan="on",
    )  # fmt: skip
    # The library ends itself by the signal that stopped it; a server that was told to stop and
    # did has not failed.
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        signal.signal(signal.SIGTERM, before)


def _stack() -> Any:
    """Return the library that serves.

    Raises:
        ConfigError: a library of the extra is missing.
    """
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise ConfigError(
            f"pal serve needs {error.name}; install it with pip install 'pal-esc[serve]'"
        ) from None
    return uvicorn


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

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
            f"cannot listen at serve.host={host} serve.port={port} ({first_line(error)}); another "
            "program has it, or it is none of this machine's; give another"
        ) from None
    return made


def _name(source: str) -> str:
    """Return a model's name for clients: a hub id, or a folder's last part."""
    from pathlib import Path

    path = Path(source)
    return path.resolve().name if path.exists() else source
