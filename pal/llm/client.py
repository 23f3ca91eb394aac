"""Client of OpenAI-compatible endpoints, with many concurrent connections.

A temporary failure (no connection, a timeout, 408, 409, 429, 5xx) is retried with exponential
backoff and jitter, never before the server's ``Retry-After``, which pauses all connections. A
malformed answer is requested again at most twice; a truncated one with twice the tokens. The key is
read from the environment only, and removed from every message.
"""

import asyncio
import logging
import os
import re
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from pal.core.errors import PalError, first_line
from pal.llm.base import REJECTED, Check, EndpointFacts, Reply, Request
from pal.llm.completion import message_of, read_completion
from pal.llm.endpoint import OPENAI_HOST, find_key, is_this_machine, proxy_of
from pal.llm.loop import run_to_end
from pal.llm.settings import OUTPUT_MODES, LlmSettings
from pal.llm.structured import PROBE, body_of, shorten

logger = logging.getLogger(__name__)

ANSWERS = 3  # malformed answers to a request before it finally counts as malformed
LONGEST_WAIT = 60.0  # maximum seconds between two attempts, unless the server asks for more
LONGEST_RETRY_AFTER = 600.0
STAGGER = 0.003  # seconds between two first requests: small servers refuse many at one moment
PASSING = (408, 409, 429)
UNUSABLE = (400, 422, 500)  # status codes for a message whose role the chat template refuses


class OpenAIBackend:
    """Sends requests to a chat-completions endpoint.

    Args:
        settings: the endpoint and its limits.
        known: facts about the endpoint from an earlier run.
        record: function that is called with new facts.

    Attributes:
        facts: current facts about the endpoint; an output mode in the settings is not probed.

    Raises:
        ConfigError: no endpoint is named, or its key is missing or may not be sent.
    """

    def __init__(
        self, settings: LlmSettings, known: EndpointFacts, record: Callable[[EndpointFacts], None]
    ) -> None:
        self.settings = settings
        self._model = str(settings.model)
        mode = known.output_mode if settings.structured == "auto" else settings.structured
        self.facts = EndpointFacts(mode if mode in OUTPUT_MODES else None, known.system_role)
        self._record = record
        self._sure = True  # whether the output mode is what the endpoint supports
        self._proven = True  # whether a request was answered in it
        self._key = find_key(settings)
        self._not_before = 0.0
        self._failures = 0

    def answer(
        self,
        requests: dict[bytes, Request],
        check: Check | None,
        done: Callable[[bytes, Reply], None],
    ) -> None:
        """Answer every request; ``done`` is called as replies come in, one call at a time.

        Raises:
            PalError: the endpoint refuses the key or the model, or does not answer at all.
        """
        run_to_end(lambda: self._answer(requests, check, done))

    async def _answer(
        self,
        requests: dict[bytes, Request],
        check: Check | None,
        done: Callable[[bytes, Reply], None],
    ) -> None:
        from aiolimiter import AsyncLimiter
        from openai import AsyncOpenAI

        self._not_before = 0.0
        self._failures = 0
        self._headers = make_headers(str(self.settings.base_url), self._key)
        minute = self.settings.requests_per_minute
        self._limiter = AsyncLimiter(1, 60 / minute) if minute else None
        async with AsyncOpenAI(
            api_key=self._key or "none", base_url=self.settings.base_url, max_retries=0,
            timeout=self.settings.timeout, http_client=make_web_client(str(self.settings.base_url)),
        ) as self._client:  # fmt: skip
            if self.facts.output_mode is None and any(one.schema for one in requests.values()):
                mode, self._sure = await self._probe()
                if not self._sure:
                    logger.warning(
                        "%s failed (status 500) when it was asked for structured answers; in this "
                        "run answers are in the form %r", self.settings.base_url, mode,
                    )  # fmt: skip
                # That no form is obeyed is also what another server at the address says.
                self._proven = mode != OUTPUT_MODES[-1]
                self._learn(output_mode=mode)
            left = iter(requests.items())
            workers = [
                asyncio.create_task(self._work(left, check, done, after=number * STAGGER))
                for number in range(min(self.settings.connections, len(requests)))
            ]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    def _learn(self, **found: Any) -> None:
        self.facts = replace(self.facts, **found)
        # A mode from the settings, or one of a server that failed, is not stored for later runs.
        lasting = self.settings.structured == "auto" and self._sure and self._proven
        self._record(self.facts if lasting else replace(self.facts, output_mode=None))

    async def _work(
        self,
        left: Iterator[tuple[bytes, Request]],
        check: Check | None,
        done: Callable[[bytes, Reply], None],
        *,
        after: float,
    ) -> None:
        await asyncio.sleep(after)
        for key, request in left:
            reply = await self._reply(request, check)
            done(key, reply)
            self._failures = self._failures + 1 if not reply.final else 0
            if self._failures >= max(32, self.settings.connections):
                raise PalError(
                    f"{self.settings.base_url}: {self._failures} requests in a row got no "
                    f"answer, the last: {reply.reason}; finished answers are kept, run the same "
                    "command again once the server works again"
                )

    async def _reply(self, request: Request, check: Check | None) -> Reply:
        """Return the final answer or failure of a request, after all its attempts."""
        mode, tokens = self.facts.output_mode or "text", request.max_tokens
        for _ in range(ANSWERS):
            started = time.monotonic()
            try:
                answer = await self._send_in_roles(request, mode, tokens)
            except Exception as error:
                failure = self._give_up(error)
                if failure is None:
                    raise
                return failure
            reply = read_completion(answer, request, check, mode, time.monotonic() - started)
            if reply.reason is None and not self._proven:
                self._proven = True
                self._learn()
            if reply.reason is None or reply.reason.startswith("refused"):
                return reply
            tokens *= 2 if "cut off" in reply.reason else 1
        return reply

    async def _send_in_roles(self, request: Request, mode: str, tokens: int) -> dict[str, Any]:
        """Send a request, without a system message if the endpoint does not accept one.

        Many chat templates have no system role. If an endpoint reports this, the request is sent
        again with the system text before the first user turn; if that is answered, all further
        requests are sent in this form.
        """

        def body(system_role: bool) -> dict[str, Any]:
            return body_of(
                self._model, request, mode, tokens, self.settings.body, system_role=system_role
            )

        system_role = self.facts.system_role
        try:
            return await self._send(body(system_role))
        except Exception as error:
            has_system = any(role == "system" for role, _ in request.messages)
            if not (system_role and has_system and refuses_system_role(error)):
                raise
        answer = await self._send(body(False))
        if self.facts.system_role:
            self._learn(system_role=False)
        return answer

    async def _send(self, body: dict[str, Any]) -> dict[str, Any]:
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt
        from tenacity import wait_random_exponential as backoff

        async for attempt in AsyncRetrying(
            retry=retry_if_exception(may_pass),
            stop=stop_after_attempt(self.settings.max_attempts),
            wait=backoff(multiplier=self.settings.backoff, max=LONGEST_WAIT),
            reraise=True,
        ):
            with attempt:
                return await self._attempt(body)
        raise AssertionError("tenacity ends by an answer or an error")

    async def _attempt(self, body: dict[str, Any]) -> dict[str, Any]:
        from openai import APIStatusError

        while (wait := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        if self._limiter:
            await self._limiter.acquire()
        try:
            async with asyncio.timeout(self.settings.timeout):  # for the whole answer
                # Sent directly, since the library's own method checks and copies every message.
                answer: Any = await self._client.post(
                    "/chat/completions", body=body, cast_to=object,
                    options={"headers": self._headers},
                )  # fmt: skip
            message_of(answer)
            return answer
        except APIStatusError as error:
            self._hold_back(error.response.headers.get("retry-after"))
            raise
        except RecursionError:
            raise ValueError("the body is nested too deeply") from None

    def _hold_back(self, retry_after: str | None) -> None:
        seconds = min(seconds_of(retry_after), LONGEST_RETRY_AFTER)
        self._not_before = max(self._not_before, time.monotonic() + seconds)

    def _give_up(self, error: Exception) -> Reply | None:
        """Return the reply for an error of one request, or None for a defect of the program.

        Raises:
            PalError: the error would occur with every request.
        """
        from openai import APIConnectionError, APIError

        url = str(self.settings.base_url)
        if may_pass(error):
            hint = ""
            # By name, since versions of the library differ in the package that it is of.
            if type(error.__cause__).__name__ == "ConnectError":
                hint = f" (is the server running at llm.base_url={url}?)"
            if isinstance(error, APIConnectionError) and (proxy := proxy_of(url)):
                hint = f" (by the proxy in {proxy}; NO_PROXY names hosts to ask directly)"
            count = self.settings.max_attempts
            return Reply(
                None, f"gave up after {count} attempts: {self._clean(error)}{hint}", final=False
            )
        if not isinstance(error, APIError):
            return None
        status = getattr(error, "status_code", None)
        code = str(getattr(error, "code", None))
        if status == 400 and "content" in code:
            return Reply(None, "refused", output_mode=self.facts.output_mode)
        if status in (401, 403, 404) or code == "insufficient_quota":
            key = "the key" if self._key else "llm.api_key_env=NAME (no key was sent)"
            name = self.settings.api_key_env
            key += f" in ${name}" if self._key and name else ""
            raise PalError(
                f"{url} refuses: {self._clean(error)}; check llm.model={self.settings.model}, the "
                f"address, and {key}"
            ) from None
        return Reply(None, f"{REJECTED}: {self._clean(error)}", final=False)

    def _clean(self, error: Exception) -> str:
        text = first_line(error)
        return shorten(text.replace(self._key, "[key]") if self._key else text, 200)

    async def _probe(self) -> tuple[str, bool]:
        """Return the first output mode that the endpoint supports, with one request per mode.

        Also whether that is sure: a server that fails for a while supports nothing.
        """
        sure = True
        for mode in OUTPUT_MODES[:-1]:
            try:
                answer = await self._send(
                    body_of(self._model, PROBE, mode, more=self.settings.body)
                )
            except Exception as error:
                reply = self._give_up(error)
                if reply is None:
                    raise
                if may_pass(error) and getattr(error, "status_code", 0) != 500:
                    raise PalError(f"{self.settings.base_url}: {reply.reason}") from None
                sure = sure and getattr(error, "status_code", 0) != 500
                continue  # servers report an unknown field, some with status 500
            reply = read_completion(answer, PROBE, None, mode, None)
            text = str(message_of(answer)[0].get("content") or "")
            if reply.reason is None and text.lstrip().startswith("{"):
                return mode, sure
        return OUTPUT_MODES[-1], sure


def make_web_client(url: str) -> Any:
    """Return a client that follows no redirects and uses no proxy to this machine.

    Texts reach only the endpoint. Otherwise a proxy from the environment would receive the texts
    and the key, even for an endpoint on this machine, unless NO_PROXY names it.
    """
    from openai import DefaultAsyncHttpxClient

    if not is_this_machine(url):
        return DefaultAsyncHttpxClient(follow_redirects=False)
    secure: Any = ssl.create_default_context() if url.startswith("https:") else True
    return DefaultAsyncHttpxClient(follow_redirects=False, trust_env=False, verify=secure)


def make_headers(url: str, key: str | None) -> dict[str, Any]:
    """Return the headers of every request: the key of the endpoint, or none.

    Values in the environment for OpenAI (organisation, project, custom headers) are sent to OpenAI
    only; the library would send them to any endpoint.
    """
    from openai import Omit

    headers: dict[str, Any] = {}
    if urlsplit(url).hostname != OPENAI_HOST:
        lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
        names = [line.partition(":")[0].strip() for line in lines if ":" in line]
        headers = {name: Omit() for name in ("OpenAI-Organization", "OpenAI-Project", *names)}
    headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
    return {**headers, "Authorization": f"Bearer {key}" if key else Omit()}


def refuses_system_role(error: BaseException) -> bool:
    """Return whether a server's error says that its chat template takes no system message."""
    from openai import APIStatusError

    return (
        isinstance(error, APIStatusError)
        and error.status_code in UNUSABLE
        and re.search(r"\bsystem\b|\broles?\b|developer instruction", str(error), re.I) is not None
    )


def may_pass(error: BaseException) -> bool:
    """Return whether the same request may succeed later."""
    from openai import APIConnectionError, APIStatusError

    if isinstance(error, APIStatusError):
        passing = error.status_code in PASSING or error.status_code >= 500
        return passing and error.code != "insufficient_quota"
    return isinstance(error, APIConnectionError | TimeoutError | ValueError)  # a body cut off


def seconds_of(retry_after: str | None) -> float:
    """Return the seconds of a ``Retry-After`` header, which is a number or a date."""
    try:
        seconds = float(retry_after or 0)
        return max(0.0, seconds) if seconds == seconds else 0.0
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(str(retry_after)).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
