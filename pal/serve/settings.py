"""Settings of the server."""

from typing import Annotated

from pydantic import Field

from pal.core.settings import Count, Section


class ServerSettings(Section):
    """The server that answers over HTTP.

    Attributes:
        host: address to listen on. Any but this machine's own needs a token, which clients send as
            ``Authorization: Bearer …``, in the environment variable ``PAL_API_TOKEN``.
        port: port to listen on; 0 takes a free one.
        rows: replies that grow at once, at most.
        queue: requests that wait for a free row, at most; others get status 429.
        timeout: seconds until a request that is not answered gets status 504.
        drain: seconds that replies under way get to end when the server is stopped.
        max_bytes: size of a request, at most; larger ones get status 413. The guard reads all of
            it, and others wait meanwhile.
        max_choices: replies to one request (``n``), at most.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    rows: Count = 16
    queue: Count = 256
    timeout: Annotated[float, Field(gt=0)] = 120.0
    drain: Annotated[float, Field(ge=0)] = 30.0
    max_bytes: Count = 65_536
    max_choices: Count = 8
