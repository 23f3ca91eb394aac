"""Parsing of chat completions: every response of a server becomes a value or a reason."""

from typing import Any

from pal.llm.base import Check, Reply, Request
from pal.llm.structured import parse, shorten

LARGEST_COUNT = 2**53  # tokens; larger counts are ignored


def read_completion(
    answer: Any,
    request: Request,
    check: Check | None,
    output_mode: str | None,
    seconds: float | None,
) -> Reply:
    """Return the reply in a chat completion: a value, a refusal, or why it is malformed.

    Args:
        answer: the parsed body.
        request: the request.
        check: function that returns why a well-formed value is not acceptable, or None.
        output_mode: how the format was requested.
        seconds: time from request to answer, in seconds.

    Raises:
        ValueError: the body is not a chat completion.
    """
    message, finish = message_of(answer)
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    facts: dict[str, Any] = {
        "output_mode": output_mode if request.schema else None,
        "seconds": seconds,
        "tokens_in": _count(usage.get("prompt_tokens")),
        "tokens_out": _count(usage.get("completion_tokens")),
    }
    if message.get("refusal") or finish == "content_filter":
        return Reply(None, "refused", **facts)
    if finish == "length" and request.schema is not None:
        return Reply(None, "malformed: cut off at the token limit", **facts)
    value, reason = parse(str(message.get("content") or ""), request.schema)
    if reason is None and check is not None:
        reason = check(request, value)
    return Reply(None, f"malformed: {reason}", **facts) if reason else Reply(value, **facts)


def message_of(answer: Any) -> tuple[dict[str, Any], Any]:
    """Return the message and the finish reason of a completion.

    Raises:
        ValueError: the body is not a chat completion, but for example a proxy's page.
    """
    try:
        choice = answer["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        if isinstance(message, dict) and isinstance(answer, dict):
            return message, finish
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        pass
    raise ValueError(f"the body is not a chat completion: {shorten(str(answer))}")


def _count(value: Any) -> int | None:
    """Return a count of tokens, or None for a value that is not a count, such as a list."""
    counts = isinstance(value, int) and not isinstance(value, bool)
    return value if counts and 0 <= value < LARGEST_COUNT else None
