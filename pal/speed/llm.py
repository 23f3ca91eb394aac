"""Speed of the language model client, compared with the library it is built on.

A server in a separate process answers every request after 50 ms, so that only the client is
measured:

- ours: :meth:`CachedModel.ask`, each answer checked against its schema and on disk;
- bare: the same requests by openai's client alone, as many at once, answers dropped.

Then the answers of a whole study are read back from the cache.
"""

import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pal.core.errors import PalError
from pal.llm import Request, connect
from pal.llm.base import Reply
from pal.llm.cache import Cache, answer_key
from pal.llm.loop import run_to_end
from pal.llm.origin import origin_of
from pal.llm.settings import LlmSettings
from pal.llm.structured import body_of
from pal.speed.machine import Taken, clock, machine, measure_call

SECONDS = 0.05  # latency of the server
REQUESTS = 2000  # requests per round
OUTPUT_MODE = "json_schema"
STUDY = 470_000  # the calls that the first question of the personas-to-talks paper takes a model
ITEMS = 156  # calls per persona, which share its description
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "integer", "minimum": 1, "maximum": 5}},
    "required": ["answer"],
    "additionalProperties": False,
}


def measure_client(llm: LlmSettings, *, count: int = REQUESTS, rounds: int = 3) -> tuple[str, Any]:
    """Measure the client.

    Args:
        llm: settings of the client, such as connections; the measurement sets endpoint, model and
            cache.
        count: number of requests per round.
        rounds: number of rounds of both sides in turn.

    Returns:
        The Markdown table and the document.

    Raises:
        PalError: a side got wrong answers.
    """
    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    work: dict[str, list[float]] = {"ours": [], "bare": []}  # processor seconds
    with tempfile.TemporaryDirectory() as folder, loopback() as url:
        for number in range(rounds):
            own = llm.model_copy(
                update={
                    "base_url": url, "model": f"loopback-{number}", "structured": OUTPUT_MODE,
                    "backend": "openai", "cache": str(Path(folder) / "round.sqlite"),
                }
            )  # fmt: skip
            requests = make_requests(count)
            sides: dict[str, Callable[[], object]] = {
                "ours": partial(ask_ours, own, requests),
                "bare": partial(run_bare, own, requests),
            }
            for name in list(sides)[:: -1 if number % 2 else 1]:
                before = time.process_time()
                seconds[name].append(clock(sides[name]))
                work[name].append(time.process_time() - before)
        read = measure_reading(Path(folder) / "study.sqlite", llm)
    ours, bare = (count / statistics.median(seconds[name]) for name in ("ours", "bare"))
    ceiling = llm.connections / SECONDS
    document = {
        "kind": "bench", "format": 1, "title": "llm", "requests": count,
        "connections": llm.connections, "latency": SECONDS,
        "seconds": seconds, "processor_seconds": work, "ratio": ours / bare, "ceiling": ceiling,
        "study": {"answers": STUDY, "seconds": read.seconds, "memory": read.memory},
    }  # fmt: skip
    lines = [
        "| | requests/s | of openai's client | of the ceiling | processor, ms per request |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for title, name, rate in (("ours", "ours", ours), ("openai's client alone", "bare", bare)):
        effort = 1000 * statistics.median(work[name]) / count
        cells = f"{rate:.0f} | {rate / bare:.0%} | {rate / ceiling:.0%} | {effort:.2f}"
        lines.append(f"| {title} | {cells} |")
    both = (f"{name} {', '.join(f'{s:.2f}' for s in taken)} s" for name, taken in seconds.items())
    lines += [
        "",
        f"{count:,} requests a round, {llm.connections} connections: at most "
        f"{ceiling:.0f} requests/s; medians of {rounds} rounds ({'; '.join(both)}); "
        f"{machine()['cpu']}, {machine()['cores']} cores, the server on one of them.",
        f"{STUDY:,} answers read back from the cache, keys and all: {read.seconds:.1f} s, "
        f"{read.memory / 2**20:.0f} MiB beyond the requests themselves.",
    ]
    return "\n".join(lines), document


def make_requests(count: int) -> list[Request]:
    """Return requests like those of an inventory: a shared description, then a statement."""
    persona = "You are a nurse in your thirties who has moved to another town this spring. " * 6
    return [
        Request(
            str(number),
            (("system", f"{persona}({number // ITEMS})"), ("user", f"Statement {number % ITEMS}.")),
            SCHEMA,
            max_tokens=16,
        )
        for number in range(count)
    ]


def ask_ours(llm: LlmSettings, requests: list[Request]) -> None:
    """Send requests with this package's client.

    Raises:
        PalError: an answer is missing.
    """
    model = connect(llm)
    outcomes = model.ask(requests, description="bench llm")
    if any(outcome.value != {"answer": 3} for outcome in outcomes):
        raise PalError("bench llm: an answer went missing; run the tests of pal.llm")


def run_bare(llm: LlmSettings, requests: list[Request]) -> None:
    """Send requests with openai's client and wait for all answers."""
    run_to_end(lambda: ask_bare(llm, requests))


async def ask_bare(llm: LlmSettings, requests: list[Request]) -> None:
    """Send requests with openai's client, equally many at once, and discard the answers."""
    from openai import AsyncOpenAI

    left = iter(requests)
    async with AsyncOpenAI(api_key="none", base_url=llm.base_url, max_retries=0) as client:

        async def work() -> None:
            for request in left:
                body: Any = body_of(str(llm.model), request, OUTPUT_MODE)
                await client.chat.completions.create(**body)

        await asyncio.gather(*(work() for _ in range(llm.connections)))


def measure_reading(path: Path, llm: LlmSettings) -> Taken:
    """Fill a cache with a study's answers, then measure asking for all of them again."""
    requests = make_requests(STUDY)
    own = llm.model_copy(
        update={"base_url": "http://localhost:1", "model": "study", "cache": str(path)}
    )
    origin, cache = origin_of(own), Cache(path)
    cache.write(origin, ((answer_key(origin, one), Reply({"answer": 3})) for one in requests))
    cache.close()
    return measure_call(lambda: ask_ours(own, requests), "cpu")[1]


@contextlib.contextmanager
def loopback() -> Iterator[str]:
    """Run :mod:`pal.speed.loopback` in a separate process and yield its address."""
    command = [sys.executable, "-m", "pal.speed.loopback", str(SECONDS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        finally:
            process.terminate()
