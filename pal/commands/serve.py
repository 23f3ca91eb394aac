"""``pal serve``: a trained model behind OpenAI's chat API, and a page to talk to it.

Nothing that is said is stored or logged. The server listens on this machine alone unless it is told
otherwise, and then it asks for a token.
"""

import logging
import os

from pal.commands.common import model_name
from pal.conversation.settings import TalkSettings
from pal.core.errors import ConfigError
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
    logger.info("loading %s", source)
    from pal.conversation.session import open_session
    from pal.serve.app import OWN, Server
    from pal.serve.running import listen, run_server

    chosen = settings.serve
    token = os.environ.get(TOKEN) or None
    if chosen.host not in OWN and token is None:
        raise ConfigError(
            f"serve.host={chosen.host} is open to other machines: put a token that clients must "
            f"send into the environment variable {TOKEN}, or leave serve.host out"
        )
    listening = listen(chosen.host, chosen.port)
    server = Server(open_session(settings, rows=chosen.rows), model_name(source), chosen, token)
    port = listening.getsockname()[1]
    shown = f"[{chosen.host}]" if ":" in chosen.host else chosen.host
    logger.info(
        "%s at http://%s:%d: the page, and OpenAI's API under /v1; Ctrl-C stops",
        server.name, shown, port,
    )  # fmt: skip
    run_server(server, listening)
