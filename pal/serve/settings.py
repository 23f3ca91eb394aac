"""Settings of the server."""

from typing import Annotated

from pydantic import Field

from pal.core.settings import Count, Section


class ServerSettings(Section):
    """The server that answers over HTTP.

    Attributes:
        host: address to listen on. Any address other than this machine's own requires a token in
            the environment variable PAL_API_TOKEN, which clients send as Authorization: Bearer ….
        port: port to listen on; 0 takes a free one.
        rows: maximum number of replies generated at the same time.
        queue: maximum number of waiting requests; further ones get status 429.
        timeout: seconds after which an unanswered request gets status 504.
        drain: seconds that replies in progress have to finish when the server is stopped.
        max_bytes: maximum size of a request; larger ones get status 413. The guard reads the whole
            request, while others wait.
        max_choices: maximum number of replies to one request (n).
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    rows: Count = 16
    queue: Count = 256
    timeout: Annotated[float, Field(gt=0)] = 120.0
    drain: Annotated[float, Field(ge=0)] = 30.0
    max_bytes: Count = 65_536
    max_choices: Count = 8
