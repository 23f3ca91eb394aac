"""Estimates of a run before it starts: calls, tokens, time and cost."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

from pal.llm.base import Request
from pal.llm.settings import LlmSettings

CHARACTERS = 4  # characters per token in English text


@dataclass(frozen=True)
class Volume:
    """The volume of requests of one step.

    Attributes:
        description: purpose of the requests.
        calls: number of requests that are not in the cache.
        characters: number of characters of all their messages.
        longest: maximum number of tokens of all answers.
    """

    description: str
    calls: int
    characters: int
    longest: int


def volume_of(requests: Iterable[Request], description: str) -> Volume:
    """Return the volume of requests."""
    asked = list(requests)
    return Volume(
        description,
        calls=len(asked),
        characters=sum(len(text) for request in asked for _, text in request.messages),
        longest=sum(request.max_tokens for request in asked),
    )


def describe_volumes(
    volumes: Sequence[Volume],
    settings: LlmSettings,
    measured: tuple[int, float | None, float | None],
) -> str:
    """Return an estimate as a Markdown table; several steps get a row each and their sum.

    Args:
        volumes: volume of each step.
        settings: settings of connections, rate limit and prices.
        measured: number of timed answers of this model, their mean seconds and mean tokens.
    """
    timed, seconds, answer_tokens = measured
    source = f"mean of {timed:,} answers" if answer_tokens else "at most, by max_tokens"
    steps = list(volumes)
    if len(steps) > 1:
        sums = [sum(one) for one in zip(*(v[1:] for v in map(astuple, steps)), strict=True)]
        steps.append(Volume("all", *sums))
    tokens = [
        (one.characters / CHARACTERS, one.calls * answer_tokens if answer_tokens else one.longest)
        for one in steps
    ]
    figures = [
        ["step", *(one.description for one in steps)],
        ["calls", *(f"{one.calls:,}" for one in steps)],
        [f"tokens in (about: characters / {CHARACTERS})", *(f"{n:,.0f}" for n, _ in tokens)],
        [f"tokens out ({source})", *(f"{n:,.0f}" for _, n in tokens)],
        _hours([one.calls for one in steps], settings, timed, seconds),
    ]
    if settings.price_in is not None and settings.price_out is not None:
        costs = ((i * settings.price_in + o * settings.price_out) / 1e6 for i, o in tokens)
        figures.append(["cost (llm.price_in, llm.price_out)", *(f"{cost:,.2f}" for cost in costs)])
    if len(volumes) == 1:
        figures[0] = [steps[0].description, ""]
    else:
        figures = [list(row) for row in zip(*figures, strict=True)]
    figures.insert(1, ["---", *("---:" for _ in figures[0][1:])])
    return "\n".join(f"| {' | '.join(row)} |" for row in figures)


def _hours(
    calls: Sequence[int], settings: LlmSettings, timed: int, seconds: float | None
) -> list[str]:
    """Return the row with the duration of this many calls, in hours."""
    minute = settings.requests_per_minute
    if seconds:
        rate = settings.connections / seconds
        rate = min(rate, minute / 60) if minute else rate
        took = f"{seconds:.2f} s per call over {timed:,} calls, {settings.connections} connections"
        return [f"hours ({took})", *(f"{count / rate / 3600:,.2f}" for count in calls)]
    if minute:
        hours = (count / minute / 60 for count in calls)
        return ["hours (at least, by the rate limit)", *(f"{one:,.2f}" for one in hours)]
    return [
        "hours (unknown until an answer of this model was timed)",
        *("–" for _ in calls),
    ]
