"""What clients send, and what they get: OpenAI's chat completions with PAL's fields beside them."""

import dataclasses
import hashlib
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    ValidationError,
)

from pal.conversation.session import Ask, ChatReply, Session
from pal.core.errors import ConfigError, in_words

Number = StrictInt | StrictFloat

# Fields of OpenAI's that change nothing here or cannot be served, each with the values that are
# taken (all where it is None): what a client would see no effect of is refused.
WITHOUT_EFFECT: Mapping[str, tuple[Any, ...] | None] = {
    "frequency_penalty": (None, 0), "presence_penalty": (None, 0), "logprobs": (None, False),
    "top_logprobs": (None, 0), "logit_bias": (None, {}), "tools": (None, []),
    "tool_choice": (None, "none", "auto"), "functions": (None, []), "function_call": (None, "none"),
    "response_format": (None, {"type": "text"}), "modalities": (None, ["text"]), "audio": (None,),
    "parallel_tool_calls": (None, True, False), "reasoning_effort": (None,),
    "prediction": (None,), "store": (None, False), "service_tier": (None, "auto", "default"),
    "user": None, "metadata": None, "safety_identifier": None, "prompt_cache_key": None,
}  # fmt: skip
# What is said of fields that take several kinds of values, of which the library names one alone.
EXPECTED: Mapping[Any, str] = {
    "stop": "a text, or a list of at most 4",
    "temperature": "a number from 0 to 2",
    "top_p": "a number above 0 and at most 1",
    "alpha": "a number, one number for each strategy, or an object of strategies and numbers",
}


class StreamOptions(BaseModel):
    """OpenAI's options of a stream."""

    model_config = ConfigDict(extra="ignore")

    include_usage: StrictBool = False


class ChatBody(BaseModel):
    """The body of a chat completion.

    The fields of the last group are PAL's own; OpenAI's client sends them as ``extra_body``.
    """

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    messages: list[dict[str, Any]] = Field(min_length=1, max_length=2000)
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    seed: StrictInt | None = None
    stop: str | list[str] | None = None
    n: StrictInt | None = Field(None, ge=1, le=128)
    max_tokens: StrictInt | None = Field(None, ge=1)
    max_completion_tokens: StrictInt | None = Field(None, ge=1)
    temperature: Number | None = Field(None, ge=0, le=2)
    top_p: Number | None = Field(None, gt=0, le=1)

    persona: list[str] | None = Field(None, max_length=200)
    strategy: str | None = None
    alpha: Number | list[Number] | dict[str, Number] | None = None
    id: str | None = Field(None, max_length=200)
    pinned: StrictInt | None = Field(None, ge=0, le=3)


def read_body(data: Any) -> ChatBody:
    """Check a request.

    Raises:
        ConfigError: it cannot be served; the message names the field and quotes no text.
    """
    if not isinstance(data, dict):
        raise ConfigError("the body must be a JSON object")
    try:
        body = ChatBody.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)[0]
        if found["loc"][0] in EXPECTED:
            field = found["loc"][0]
            raise ConfigError(f"{field}: expected {EXPECTED[field]}") from None
        place = ".".join(str(part) for part in found["loc"][:2])
        raise ConfigError(f"{place}: {in_words(found)}") from None
    for name, value in (body.model_extra or {}).items():
        if name not in WITHOUT_EFFECT:
            shown = name[:60] if name.isprintable() else ascii(name[:60])
            raise ConfigError(f"{shown}: no such field")
        allowed = WITHOUT_EFFECT[name]
        if allowed is not None and value not in allowed:
            raise ConfigError(f"{name}: not supported; leave it out")
    if isinstance(body.stop, list) and len(body.stop) > 4:
        raise ConfigError("stop: at most 4 texts")
    return body


def make_asks(body: ChatBody, session: Session) -> list[Ask]:
    """Return what a request asks of the session, one a choice.

    Args:
        body: the request.
        session: who is asked.
    """
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    options = session.options
    changes: dict[str, Any] = {}
    if body.temperature is not None and body.temperature < 1e-4:
        changes["do_sample"] = False
    elif body.temperature is not None:
        changes |= {"do_sample": True, "temperature": float(body.temperature)}
    if body.top_p is not None:
        changes["top_p"] = float(body.top_p)
    chosen = options.model_copy(update=changes)
    limit = body.max_completion_tokens or body.max_tokens
    return [
        Ask(
            body.messages, body.persona, body.strategy, body.alpha, body.seed,
            body.id or "chat",
            limit, tuple(mark for mark in stop if mark), body.pinned or 0, number,
            None if chosen == options else chosen,
        )
        for number in range(body.n or 1)
    ]  # fmt: skip


class Completion:
    """One request's answer in OpenAI's form, whole or in chunks.

    Args:
        model: name of the model.
        fingerprint: of what decides replies.
    """

    def __init__(self, model: str, fingerprint: str):
        self.head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }

    def whole(self, replies: Sequence[ChatReply]) -> dict[str, Any]:
        """Return the answer with all choices."""
        return {
            **self.head,
            "object": "chat.completion",
            "choices": [
                {
                    "index": number,
                    "message": {"role": "assistant", "content": reply.text, "refusal": None},
                    "logprobs": None,
                    "finish_reason": finish_reason(reply),
                    "pal": pal_fields(reply),
                }
                for number, reply in enumerate(replies)
            ],
            "usage": usage(replies),
        }

    def chunk(
        self, number: int, text: str, *, growing: ChatReply | None = None,
        reply: ChatReply | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Return a part of one choice.

        Args:
            number: of the choice.
            text: what comes next.
            growing: what is known with the first part.
            reply: the whole, with the last part.
        """
        delta: dict[str, Any] = {"content": text}
        if growing is not None:
            delta["role"] = "assistant"
        known = reply or growing
        choice = {
            "index": number, "delta": delta, "logprobs": None,
            "finish_reason": None if reply is None else finish_reason(reply),
        }  # fmt: skip
        if known is not None:
            choice["pal"] = pal_fields(known)
        return {**self.head, "object": "chat.completion.chunk", "choices": [choice]}

    def last(self, replies: Sequence[ChatReply]) -> dict[str, Any]:
        """Return the chunk that says how many tokens it took."""
        return {
            **self.head, "object": "chat.completion.chunk", "choices": [], "usage": usage(replies),
        }  # fmt: skip


def finish_reason(reply: ChatReply) -> str:
    """Return why a reply ended, in OpenAI's words."""
    return "content_filter" if reply.finish == "guard" else reply.finish


def pal_fields(reply: ChatReply) -> dict[str, Any]:
    """Return what is PAL's own of a reply."""
    return {
        "strategy": reply.strategy,
        "strategy_probs": None if reply.strategy_probs is None else dict(reply.strategy_probs),
        "alpha": reply.alpha,
        "persona": list(reply.persona),
        "guard": dataclasses.asdict(reply.guard),
    }


def usage(replies: Sequence[ChatReply]) -> dict[str, int]:
    """Return the tokens of a request: the prompt once, and all replies."""
    read = max((reply.prompt_tokens for reply in replies), default=0)
    said = sum(reply.tokens for reply in replies)
    return {"prompt_tokens": read, "completion_tokens": said, "total_tokens": read + said}


def fingerprint_of(*parts: Any) -> str:
    """Return a short hash of what decides replies."""
    return "fp_" + hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:12]


def error_body(message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    """Return an error in OpenAI's form."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
