"""Any OpenAI-compatible endpoint, asked with many connections at once.

A failure that may pass (no connection, a timeout, 408, 409, 429, 5xx) is tried again after an
exponentially growing wait with jitter, never before the server's ``Retry-After``, which holds
back all connections. A malformed answer is asked for again at most twice; one that was cut off gets
twice the tokens. The key is read from the environment alone, and taken out of every message.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from pal.core.errors import ConfigError, PalError, first_line
from pal.core.schema import LlmSettings
from pal.llm.base import Check, Reply, Request
from pal.llm.structured import PROBE, RUNGS, body_of, parse, shorten

ANSWERS = 3  # malformed ones to a request, before it counts as malformed for good
LONGEST_WAIT = 60.0  # seconds between two tries, unless the server asks for more
LONGEST_RETRY_AFTER = 600.0
PASSING = (408, 409, 429)
HERE = ("localhost", "127.0.0.1", "::1")


class OpenAIBackend:
    """Asks a chat-completions endpoint.

    Args:
        settings: the endpoint and its limits.
        rung: how structured answers are asked for; found out by a probe when None.
        record: told the rung a probe ended on.

    Raises:
        ConfigError: no endpoint is named, or its key is not in the environment.
    """

    def __init__(
        self, settings: LlmSettings, rung: str | None, record: Callable[[str], None]
    ) -> None:
        self.settings = settings
        self._model = str(settings.model)
        self.rung = rung
        self._record = record
        self._key = find_key(settings)
        self._not_before = 0.0
        self._failures = 0

    def answer(
        self,
        requests: dict[bytes, Request],
        check: Check | None,
        done: Callable[[bytes, Reply], None],
    ) -> None:
        """Answer every request; ``done`` is called from this thread as replies come in.

        Raises:
            PalError: the endpoint refuses key or model, or answers nothing at all.
        """
        asyncio.run(self._answer(requests, check, done))

    async def _answer(
        self,
        requests: dict[bytes, Request],
        check: Check | None,
        done: Callable[[bytes, Reply], None],
    ) -> None:
        from aiolimiter import AsyncLimiter
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        self._not_before = 0.0
        self._failures = 0
        minute = self.settings.requests_per_minute
        self._limiter = AsyncLimiter(1, 60 / minute) if minute else None
        web = DefaultAsyncHttpxClient(follow_redirects=False)  # text goes to this endpoint alone
        async with AsyncOpenAI(
            api_key=self._key or "none", base_url=self.settings.base_url, max_retries=0,
            timeout=self.settings.timeout, http_client=web,
        ) as self._client:  # fmt: skip
            if self.rung is None and any(request.schema for request in requests.values()):
                self.rung = await self._probe()
                self._record(self.rung)
            left = iter(requests.items())
            workers = [
                asyncio.create_task(self._work(left, check, done))
                for _ in range(min(self.settings.connections, len(requests)))
            ]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _work(
        self,
        left: Iterator[tuple[bytes, Request]],
        check: Check | None,
        done: Callable[[bytes, Reply], None],
    ) -> None:
        for key, request in left:
            reply = await self._reply(request, check)
            done(key, reply)
            self._failures = self._failures + 1 if not reply.final else 0
            if self._failures >= max(32, self.settings.connections):
                raise PalError(
                    f"{self.settings.base_url}: {self._failures} requests in a row brought no "
                    f"answer, the last: {reply.reason}; finished answers are kept, run the same "
                    "command again once the server is well"
                )

    async def _reply(self, request: Request, check: Check | None) -> Reply:
        """One request's final answer or failure, after as many tries as it takes."""
        rung, tokens = self.rung or "text", request.max_tokens
        for _ in range(ANSWERS):
            body = body_of(self._model, request, rung, tokens, self.settings.body)
            started = time.monotonic()
            try:
                answer = await self._send(body)
            except Exception as error:
                failure = self._give_up(error)
                if failure is None:
                    raise
                return failure
            reply = read_completion(answer, request, check, rung, time.monotonic() - started)
            if reply.reason is None or reply.reason.startswith("refused"):
                return reply
            tokens *= 2 if "cut off" in reply.reason else 1
        return reply

    async def _send(self, body: dict[str, Any]) -> dict[str, Any]:
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt
        from tenacity import wait_random_exponential as backoff

        async for attempt in AsyncRetrying(
            retry=retry_if_exception(may_pass),
            stop=stop_after_attempt(self.settings.tries),
            wait=backoff(multiplier=self.settings.backoff, max=LONGEST_WAIT),
            reraise=True,
        ):
            with attempt:
                return await self._try(body)
        raise AssertionError("tenacity ends by an answer or an error")

    async def _try(self, body: dict[str, Any]) -> dict[str, Any]:
        from openai import APIStatusError

        while (wait := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        if self._limiter:
            await self._limiter.acquire()
        try:
            async with asyncio.timeout(self.settings.timeout):  # of the whole answer
                # As it is: the library's own method would check and copy every message.
                answer: Any = await self._client.post(
                    "/chat/completions", body=body, cast_to=object
                )
            message_of(answer)
            return answer
        except APIStatusError as error:
            self._hold_back(error.response.headers.get("retry-after"))
            raise

    def _hold_back(self, retry_after: str | None) -> None:
        seconds = min(seconds_of(retry_after), LONGEST_RETRY_AFTER)
        self._not_before = max(self._not_before, time.monotonic() + seconds)

    def _give_up(self, error: Exception) -> Reply | None:
        """The reply that stands for an error of one request; None for a defect of the program.

        Raises:
            PalError: the error would meet every request.
        """
        from openai import APIError

        if may_pass(error):
            what = self._clean(error)
            return Reply(None, f"gave up after {self.settings.tries} tries: {what}", final=False)
        if not isinstance(error, APIError):
            return None
        status = getattr(error, "status_code", None)
        code = str(getattr(error, "code", None))
        if status == 400 and "content" in code:
            return Reply(None, "refused", rung=self.rung)
        if status in (401, 403, 404) or code == "insufficient_quota":
            name = self.settings.api_key_env
            raise PalError(
                f"{self.settings.base_url} refuses: {self._clean(error)}; check "
                f"llm.model={self.settings.model}, the address, and the key in ${name}"
            ) from None
        return Reply(None, f"rejected by the server: {self._clean(error)}", final=False)

    def _clean(self, error: Exception) -> str:
        text = shorten(first_line(error), 200)
        return text.replace(self._key, "[key]") if self._key else text

    async def _probe(self) -> str:
        """The first rung whose form the endpoint honours, by one question a rung."""
        for rung in RUNGS[:-1]:
            try:
                answer = await self._send(
                    body_of(self._model, PROBE, rung, more=self.settings.body)
                )
            except Exception as error:
                reply = self._give_up(error)
                if reply is None:
                    raise
                if may_pass(error) and getattr(error, "status_code", 0) != 500:
                    raise PalError(f"{self.settings.base_url}: {reply.reason}") from None
                continue  # a server that does not know the field says so, some with 500
            reply = read_completion(answer, PROBE, None, rung, None)
            text = message_of(answer)[0].get("content") or ""
            if reply.reason is None and text.lstrip().startswith("{"):
                return rung
        return RUNGS[-1]


def find_key(settings: LlmSettings) -> str | None:
    """Return the endpoint's key from the environment variable that ``api_key_env`` names.

    Raises:
        ConfigError: no endpoint, one with a password in its address, or no key for a remote one.
    """
    if settings.base_url is None:
        raise ConfigError(
            "missing settings: give llm.base_url=… (such as http://localhost:8000/v1), the only "
            "place that texts are sent to"
        )
    address = urlsplit(settings.base_url)
    if address.scheme not in ("http", "https") or not address.hostname or "@" in address.netloc:
        raise ConfigError(
            "llm.base_url: expected http://HOST:PORT/v1 or https://HOST/v1 without user or password"
        )
    key = os.environ.get(settings.api_key_env, "").strip() or None
    if key is None and address.hostname not in HERE:
        raise ConfigError(
            f"llm.base_url is not on this machine and the environment has no "
            f"{settings.api_key_env}; export it (any text where the server wants none), or name "
            "another variable by llm.api_key_env"
        )
    return key


def read_completion(
    answer: dict[str, Any],
    request: Request,
    check: Check | None,
    rung: str | None,
    seconds: float | None,
) -> Reply:
    """Return what a chat completion says: a value, a refusal, or why it is malformed.

    Raises:
        ValueError: the body is no chat completion.
    """
    message, finish = message_of(answer)
    usage: Any = answer.get("usage") or {}
    facts: dict[str, Any] = {
        "rung": rung if request.schema else None,
        "seconds": seconds,
        "tokens_in": usage.get("prompt_tokens"),
        "tokens_out": usage.get("completion_tokens"),
    }
    if message.get("refusal") or finish == "content_filter":
        return Reply(None, "refused", **facts)
    if finish == "length" and request.schema is not None:
        return Reply(None, "malformed: cut off at the token limit", **facts)
    value, reason = parse(str(message.get("content") or ""), request.schema)
    if reason is None and check is not None:
        reason = check(request, value)
    return Reply(None, f"malformed: {reason}", **facts) if reason else Reply(value, **facts)


def message_of(answer: Any) -> tuple[dict[str, Any], str | None]:
    """Return a completion's message and why it ended.

    Raises:
        ValueError: the body is no chat completion (a proxy's page, say).
    """
    try:
        choice = answer["choices"][0]
        return dict(choice["message"]), choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise ValueError(f"the body is no chat completion: {shorten(str(answer))}") from None


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    from openai import APIConnectionError, APIStatusError

    if isinstance(error, APIStatusError):
        passing = error.status_code in PASSING or error.status_code >= 500
        return passing and error.code != "insufficient_quota"
    return isinstance(error, APIConnectionError | TimeoutError | ValueError)  # a body cut off


def seconds_of(retry_after: str | None) -> float:
    """Return the seconds a ``Retry-After`` header asks for: a number, or the time of a date."""
    try:
        return max(0.0, float(retry_after or 0))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(str(retry_after)).timestamp() - time.time())
    except ValueError:
        return 0.0
