"""Speed of the server: many clients at once against one after another, with the same replies.

The server runs in this process, on loopback, and openai's client asks.
"""

import asyncio
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from pal.conversation.session import Session
from pal.core.errors import PalError
from pal.data.samples import Sample
from pal.llm.loop import run_to_end
from pal.serve.app import Server
from pal.serve.running import listen, run_server
from pal.serve.settings import ServerSettings
from pal.speed.machine import machine

CLIENTS = 64


@contextmanager
def served(session: Session, settings: ServerSettings) -> Iterator[str]:
    """Serve a session on loopback for a moment and yield the address."""
    listening = listen("127.0.0.1", 0)
    server = Server(session, "bench", settings)
    stop = threading.Event()
    thread = threading.Thread(
        target=run_server, args=(server, listening), kwargs={"stop": stop}, daemon=True
    )
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    finally:
        stop.set()
        thread.join()


def measure_serving(
    session: Session, samples: Sequence[Sample], settings: ServerSettings, *, rounds: int
) -> tuple[str, Any]:
    """Measure the server.

    Args:
        session: model and guard.
        samples: contexts to answer.
        settings: limits of the server; the queue holds all clients.
        rounds: of both sides in turn.

    Returns:
        The Markdown table and the document.

    Raises:
        PalError: a reply was another one among many.
    """
    bodies = [
        {
            "model": "bench",
            "messages": [
                {"role": turn["speaker"], "content": turn["text"], "strategy": turn["strategy"]}
                for turn in sample.context
            ],
            "extra_body": {"id": sample.dialogue_id, "persona": list(sample.persona)},
        }
        for sample in samples
    ]
    settings = settings.model_copy(update={"queue": max(settings.queue, CLIENTS)})
    seconds: dict[int, list[float]] = {1: [], CLIENTS: []}
    tokens = 0
    with served(session, settings) as url:
        run_to_end(lambda: _ask(url, bodies[:2], 1))  # what is made once
        for _ in range(rounds):
            found = {}
            for clients in seconds:
                began = time.perf_counter()
                found[clients] = run_to_end(partial(_ask, url, bodies, clients))
                seconds[clients].append(time.perf_counter() - began)
            if found[1] != found[CLIENTS]:
                raise PalError("bench serve: a reply depends on others generated at the same time")
            tokens = sum(one[1] for one in found[1])
    medians = {clients: statistics.median(taken) for clients, taken in seconds.items()}
    ratio = medians[1] / medians[CLIENTS]
    lines = [
        "| clients | requests/s | tokens/s | times one client |", "| ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    for clients, taken in medians.items():
        lines.append(
            f"| {clients} | {len(bodies) / taken:.2f} | {tokens / taken:.0f} "
            f"| {medians[1] / taken:.2f} |"
        )
    lines += [
        "",
        f"{len(bodies)} contexts, {settings.rows} rows, the same replies from both sides; medians "
        f"of {rounds} rounds; {machine()['cpu']}, {machine()['cores']} cores, clients and server "
        "on them.",
    ]
    document = {
        "kind": "bench", "format": 1, "title": "serve", "requests": len(bodies),
        "tokens": tokens, "seconds": {str(key): value for key, value in seconds.items()},
        "ratio": ratio,
    }  # fmt: skip
    return "\n".join(lines), document


async def _ask(url: str, bodies: Sequence[dict[str, Any]], clients: int) -> list[tuple[str, int]]:
    """Return (text, tokens) of every reply, so many clients at once."""
    from openai import AsyncOpenAI

    found: dict[int, tuple[str, int]] = {}
    left = iter(enumerate(bodies))
    async with AsyncOpenAI(api_key="none", base_url=url, max_retries=0, timeout=3600) as client:

        async def work() -> None:
            for number, body in left:
                answer = await client.chat.completions.create(**body)
                text = answer.choices[0].message.content or ""
                found[number] = (text, answer.usage.completion_tokens if answer.usage else 0)

        await asyncio.gather(*(work() for _ in range(clients)))
    return [found[number] for number in range(len(bodies))]
