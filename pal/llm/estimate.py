"""What a run would take, before it is begun: calls, tokens, time and money."""

from collections.abc import Iterable

from pal.core.schema import LlmSettings
from pal.llm.base import Request

CHARACTERS = 4  # a token, in English text


def estimate(
    requests: Iterable[Request],
    settings: LlmSettings,
    measured: tuple[int, float | None, float | None],
    description: str,
) -> str:
    """Return the estimate in Markdown.

    Args:
        requests: those the cache does not hold.
        settings: connections, rate limit and prices.
        measured: answers of this model timed so far, their mean seconds and mean tokens.
        description: what the requests are for.
    """
    asked = list(requests)
    characters = sum(len(text) for request in asked for _, text in request.messages)
    timed, seconds, answer_tokens = measured
    tokens_in = characters / CHARACTERS
    longest = sum(request.max_tokens for request in asked)
    tokens_out = len(asked) * answer_tokens if answer_tokens else longest
    source = f"mean of {timed:,} answers" if answer_tokens else "at most, by max_tokens"
    lines = [
        f"| {description} | |",
        "| --- | ---: |",
        f"| calls | {len(asked):,} |",
        f"| tokens in (about: characters / {CHARACTERS}) | {tokens_in:,.0f} |",
        f"| tokens out ({source}) | {tokens_out:,.0f} |",
    ]
    if seconds:
        rate = settings.connections / seconds
        if settings.requests_per_minute:
            rate = min(rate, settings.requests_per_minute / 60)
        took = f"{seconds:.2f} s a call over {timed:,} calls, {settings.connections} connections"
        lines.append(f"| hours ({took}) | {len(asked) / rate / 3600:,.2f} |")
    elif settings.requests_per_minute:
        hours = len(asked) / settings.requests_per_minute / 60
        lines.append(f"| hours (at least, by the rate limit) | {hours:,.2f} |")
    else:
        lines.append("| hours (no answer of this model timed yet; ask a few first) | – |")
    if settings.price_in is not None and settings.price_out is not None:
        cost = (tokens_in * settings.price_in + tokens_out * settings.price_out) / 1e6
        lines.append(f"| cost (llm.price_in, llm.price_out) | {cost:,.2f} |")
    return "\n".join(lines)
