"""The web application: routes, limits, errors. Nothing that is said is stored or logged."""

import asyncio
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pal.conversation.batching import Batcher, BusyError, Handle
from pal.conversation.session import Ask, ChatReply, Piece, Session
from pal.core.errors import ConfigError, DataError, PalError
from pal.serve.bodies import (
    ChatBody,
    Completion,
    error_body,
    fingerprint_of,
    make_asks,
    read_body,
)
from pal.serve.settings import ServerSettings
from pal.serve.telemetry import Telemetry

logger = logging.getLogger(__name__)

OWN = ("127.0.0.1", "localhost", "::1")  # addresses that nobody else reaches
PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/static/page.css": ("page.css", "text/css; charset=utf-8"),
    "/static/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
# What a browser may load and do on the page: what this server sends, and nothing else.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; img-src 'self' data:",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

Endpoint = Callable[[Request], Awaitable[Response]]


class RefusedError(PalError):
    """A request that is answered with an error.

    Args:
        status: HTTP status.
        message: one line for the client.
        kind: OpenAI's type of error.
        headers: of the response.
    """

    def __init__(
        self, status: int, message: str, kind: str = "invalid_request_error",
        headers: dict[str, str] | None = None,
    ):  # fmt: skip
        super().__init__(message)
        self.status, self.kind, self.headers = status, kind, headers


class Server:
    """What the routes share: session, batcher, limits and numbers.

    Args:
        session: model and guard.
        name: of the model, as clients see it.
        settings: limits.
        token: what clients must send; None if nothing.
    """

    def __init__(
        self, session: Session, name: str, settings: ServerSettings, token: str | None = None
    ):
        self.session, self.name, self.settings, self.token = session, name, settings, token
        self.batcher = Batcher(session, queue=settings.queue)
        self.numbers = Telemetry(lambda: self.batcher.waiting, lambda: self.batcher.active)
        self.fingerprint = fingerprint_of(
            name, session.options.model_dump_json(), session.guard.describe()["version"]
        )

    def app(self) -> Starlette:
        """Return the application, whose end closes the batcher."""

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            yield
            await asyncio.to_thread(self.batcher.close)

        routes = [
            Route("/healthz", self.health, methods=["GET"]),
            Route("/metrics", self._checked(self.metrics), methods=["GET"]),
            Route("/v1/models", self._checked(self.models), methods=["GET"]),
            Route("/v1/models/{name:path}", self._checked(self.models), methods=["GET"]),
            Route("/v1/chat/completions", self._checked(self.complete), methods=["POST"]),
            Route("/page.json", self._checked(self.page_facts), methods=["GET"]),
            *(Route(path, self.page, methods=["GET"]) for path in PAGE),
        ]
        # A page of another site must not reach a server without token by a name of its own.
        guarded = self.token is None and self.settings.host in OWN
        hosts = [*OWN, "[::1]", "testserver"] if guarded else ["*"]
        return Starlette(
            routes=routes, lifespan=lifespan,
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)],
        )  # fmt: skip

    def _checked(self, endpoint: Endpoint) -> Endpoint:
        """Return an endpoint that asks for the token, and whose mistakes have OpenAI's form."""

        async def run(request: Request) -> Response:
            try:
                self._authorise(request)
                return await endpoint(request)
            except RefusedError as error:
                refused = error
            except asyncio.CancelledError:  # the server ends, and does not wait any longer
                refused = RefusedError(503, "the server is shutting down", "server_error")
            except Exception as error:  # its message can hold what somebody said
                logger.error("a request failed: %s", type(error).__name__)
                refused = RefusedError(500, f"failed ({type(error).__name__})", "server_error")
            body = error_body(str(refused), refused.kind)
            return JSONResponse(body, status_code=refused.status, headers=refused.headers)

        return run

    def _authorise(self, request: Request) -> None:
        if self.token is None:
            return
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        if not hmac.compare_digest(given, self.token.encode()):
            raise RefusedError(
                401, "give the token of this server as Authorization: Bearer …",
                "authentication_error",
            )  # fmt: skip

    # ------------------------------------------------------------------------- small routes

    async def health(self, request: Request) -> Response:
        """Say whether requests are answered."""
        alive = self.batcher.alive
        body = {
            "status": "ok" if alive else "down", "model": self.name,
            "guard": self.session.guard.describe(),
        }  # fmt: skip
        return JSONResponse(body, status_code=200 if alive else 503)

    async def metrics(self, request: Request) -> Response:
        """Return the numbers for Prometheus."""
        return Response(self.numbers.page(), media_type="text/plain; version=0.0.4")

    async def models(self, request: Request) -> Response:
        """Return the one model there is, in OpenAI's form."""
        model = {"id": self.name, "object": "model", "created": 0, "owned_by": "pal"}
        wanted = request.path_params.get("name")
        if wanted is None:
            return JSONResponse({"object": "list", "data": [model]})
        if not self._has(wanted):
            raise RefusedError(404, f"this server only has the model {self.name!r}")
        return JSONResponse(model)

    def _has(self, name: str) -> bool:
        """Whether a client means the model; the last part of its name does."""
        return name in (self.name, self.name.rpartition("/")[2])

    async def page(self, request: Request) -> Response:
        """Return a file of the web page."""
        name, kind = PAGE[request.url.path]
        contents = files("pal.serve").joinpath("page", name).read_bytes()
        return Response(contents, headers={**HEADERS, "Content-Type": kind})

    async def page_facts(self, request: Request) -> Response:
        """Return what the page shows of the model."""
        session = self.session
        return JSONResponse({
            "model": self.name, "strategies": list(session.strategies),
            "alpha": list(session.responder.plan.alpha),
            "extractor": session.inference is not None,
            "max_tokens": session.options.max_new_tokens,
            "guard": session.guard.describe(), "help": session.standing_help,
        }, headers={"Cache-Control": "no-store"})  # fmt: skip

    # ------------------------------------------------------------------------- completions

    async def complete(self, request: Request) -> Response:
        """Answer a chat."""
        began = time.monotonic()
        try:
            body = read_body(await self._json(request))
            if body.model is not None and not self._has(body.model):
                raise RefusedError(404, f"model: this server has {self.name!r} alone")
            most = min(self.settings.max_choices, self.settings.queue)  # all wait, or none
            if (body.n or 1) > most:
                raise RefusedError(400, f"n: this server gives at most {most} replies to a request")
            waiter = Waiter(self.batcher, make_asks(body, self.session), stream=bool(body.stream))
        except BusyError as error:
            self.numbers.requests.labels("429").inc()
            raise RefusedError(429, str(error), "rate_limit_error", self._later()) from None
        except (ConfigError, DataError) as error:
            self.numbers.requests.labels("400").inc()
            raise RefusedError(400, str(error)) from None
        except RefusedError as error:
            self.numbers.requests.labels(str(error.status)).inc()
            raise
        completion = Completion(self.name, self.fingerprint)
        if body.stream:
            return StreamingResponse(
                self._stream(waiter, completion, body, began), media_type="text/event-stream",
                headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            )  # fmt: skip
        try:
            replies = await self._whole(waiter, request)
        except RefusedError as error:
            self.numbers.requests.labels(str(error.status)).inc()
            raise
        self._count(replies, began)
        return JSONResponse(completion.whole(replies))

    async def _json(self, request: Request) -> Any:
        """Return the body of a request.

        A page of another site can send anything but JSON without asking the browser, so nothing
        else is taken.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RefusedError(415, "send the body as Content-Type: application/json")
        contents = bytearray()
        try:
            async with asyncio.timeout(self.settings.timeout):
                async for part in request.stream():
                    contents += part
                    if len(contents) > self.settings.max_bytes:
                        raise RefusedError(
                            413, f"the request has more than {self.settings.max_bytes} bytes"
                        )
        except ClientDisconnect:
            raise RefusedError(499, "the client disconnected") from None
        except TimeoutError:
            raise RefusedError(408, "the request did not arrive in time", "timeout_error") from None
        try:
            body = json.loads(contents)
            # Half of a pair of escapes is no character; the guard still has to read the rest.
            whole = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
            return json.loads(whole)
        except (ValueError, RecursionError):
            raise RefusedError(400, "the body is not valid JSON") from None

    async def _whole(self, waiter: "Waiter", request: Request) -> list[ChatReply]:
        """Return all replies; a client that leaves or waits too long frees its rows."""
        left = asyncio.create_task(_disconnected(request))
        answered = asyncio.create_task(waiter.replies(self.settings.timeout))
        try:
            await asyncio.wait({left, answered}, return_when=asyncio.FIRST_COMPLETED)
            if answered.done():
                return answered.result()
            raise RefusedError(499, "the client disconnected")
        except RefusedError:
            raise
        except TimeoutError:
            raise RefusedError(504, self._slow(), "timeout_error") from None
        except PalError as error:
            raise RefusedError(500, str(error), "server_error") from None
        finally:
            left.cancel()
            answered.cancel()
            waiter.cancel()

    async def _stream(
        self, waiter: "Waiter", completion: Completion, body: ChatBody, began: float
    ) -> AsyncIterator[str]:
        """Yield server-sent events; their last is ``[DONE]``, or an error."""
        replies: dict[int, ChatReply] = {}
        status = "499"  # unless all is said
        # The rows are free in time, whether or not the client reads what it gets.
        limit = asyncio.get_running_loop().call_later(self.settings.timeout, waiter.cancel)
        try:
            async for number, piece in waiter.pieces(self.settings.timeout):
                if not replies and piece.growing is not None:
                    self.numbers.first.observe(time.monotonic() - began)
                yield _event(completion.chunk(
                    number, piece.text, growing=piece.growing, reply=piece.reply
                ))  # fmt: skip
                if piece.reply is not None:
                    replies[number] = piece.reply
            if body.stream_options is not None and body.stream_options.include_usage:
                yield _event(completion.last(list(replies.values())))
            yield "data: [DONE]\n\n"
            status = "200"
        except TimeoutError:
            status = "504"
            yield _event(error_body(self._slow(), "timeout_error"))
        except PalError as error:
            status = "500"
            yield _event(error_body(str(error), "server_error"))
        except Exception as error:  # its message can hold what somebody said
            status = "500"
            logger.error("a stream failed: %s", type(error).__name__)
            yield _event(error_body(f"failed ({type(error).__name__})", "server_error"))
        finally:
            limit.cancel()
            waiter.cancel()
            if status == "200":
                self._count(list(replies.values()), began)
            else:
                self.numbers.requests.labels(status).inc()

    def _later(self) -> dict[str, str]:
        """Return when it makes sense to ask again: when a row's worth of the queue is answered."""
        return {"Retry-After": str(max(1, self.batcher.waiting // self.settings.rows // 4))}

    def _slow(self) -> str:
        return f"no answer within {self.settings.timeout:g} seconds"

    def _count(self, replies: Sequence[ChatReply], began: float) -> None:
        self.numbers.requests.labels("200").inc()
        self.numbers.seconds.observe(time.monotonic() - began)
        for reply in replies:
            self.numbers.tokens.labels("generated").inc(reply.tokens)
            spoke = reply.finish == "guard" and reply.guard.action.startswith("reply")
            self.numbers.guard.labels("replaced" if spoke else reply.guard.action).inc()
        if replies:
            self.numbers.tokens.labels("read").inc(replies[0].prompt_tokens)


class Waiter:
    """One request's replies, brought from the batcher's thread into the event loop.

    Raises:
        BusyError: the queue is full.
        PalError: the request cannot be served.
    """

    def __init__(self, batcher: Batcher, asks: Sequence[Ask], *, stream: bool):
        self.batcher, self.count = batcher, len(asks)
        self.arrived: asyncio.Queue[tuple[int, Piece | Exception]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def deliver(number: int, piece: Piece | Exception) -> None:
            try:
                loop.call_soon_threadsafe(self.arrived.put_nowait, (number, piece))
            except RuntimeError:  # the loop is closed, and nobody waits any more
                logger.debug("a reply came after the server had stopped")

        self.handles: list[Handle] = batcher.submit_all(asks, deliver, stream=stream)

    async def pieces(self, seconds: float) -> AsyncIterator[tuple[int, Piece]]:
        """Yield (choice, piece) until every choice has its reply.

        The time is kept here, where it can pass while a client does not read: a block with a time
        limit around a ``yield`` ends what reads the pieces, and not the wait for them.

        Args:
            seconds: from the first piece that is asked for to the last that is waited for.

        Raises:
            TimeoutError: they have passed.
            PalError: a reply failed.
        """
        loop = asyncio.get_running_loop()
        end, missing = loop.time() + seconds, self.count
        while missing:
            if self.arrived.empty():
                left = max(0.0, end - loop.time())
                number, piece = await asyncio.wait_for(self.arrived.get(), left)
            else:
                number, piece = self.arrived.get_nowait()
            if isinstance(piece, Exception):
                raise piece
            missing -= piece.reply is not None
            yield number, piece

    async def replies(self, seconds: float) -> list[ChatReply]:
        """Return the whole replies in order; see :meth:`pieces`."""
        found = {
            n: piece.reply async for n, piece in self.pieces(seconds) if piece.reply is not None
        }
        return [found[number] for number in range(self.count)]

    def cancel(self) -> None:
        """Free the rows of what has not ended."""
        for handle in self.handles:
            self.batcher.cancel(handle)


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


async def _disconnected(request: Request) -> None:
    """Return when the client has left."""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return
