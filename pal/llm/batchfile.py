"""Batch files of requests and their results, in OpenAI's format, which vLLM's batch runner reads.

A line is ``{"custom_id", "method", "url", "body"}``. The id is the key of the request, so results
are matched to requests by content, and a file can be read any number of times.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path

from pal.core.errors import DataError, OutputError
from pal.core.files import read_jsonl, write_jsonl
from pal.llm.base import Check, Reply, Request
from pal.llm.completion import read_completion
from pal.llm.settings import OUTPUT_MODES, LlmSettings
from pal.llm.structured import body_of

LARGEST = 50_000  # requests per file, OpenAI's limit


def write_requests(
    path: Path,
    requests: Mapping[bytes, Request],
    settings: LlmSettings,
    *,
    system_role: bool = True,
) -> list[Path]:
    """Write requests to ``path`` and, beyond 50,000, to further files (``-2`` and so on).

    Args:
        path: path of the first file.
        requests: requests by request key.
        settings: settings of model and output mode (``auto`` means ``json_schema`` here).
        system_role: whether the model accepts a system message.

    Returns:
        The files written.

    Raises:
        OutputError: a file exists already, or cannot be written.
    """
    mode = OUTPUT_MODES[0] if settings.structured == "auto" else settings.structured
    lines = (
        {
            "custom_id": key.hex(),
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": body_of(
                str(settings.model), request, mode, more=settings.body, system_role=system_role
            ),
        }
        for key, request in requests.items()
    )
    count = -(-len(requests) // LARGEST)
    files = [path, *(path.with_stem(f"{path.stem}-{n}") for n in range(2, count + 1))]
    for file in files:
        if file.exists():
            raise OutputError(f"{file} exists; give another llm.batch_export=FILE, or remove it")
    for file in files:
        write_jsonl(file, itertools.islice(lines, LARGEST))
    return files


def read_results(
    path: Path, requests: Mapping[bytes, Request], check: Check | None
) -> dict[bytes, Reply]:
    """Return the answers and refusals in a results file for these requests.

    Lines of other requests, failed requests and malformed answers are left out and requested again.

    Args:
        path: path of the results file.
        requests: requests by request key.
        check: function that returns why an answer is not acceptable, or None.

    Raises:
        DataError: a line does not have the batch format; the message names it.
    """
    found = {}
    for number, line in read_jsonl(path):
        try:
            key = bytes.fromhex(line["custom_id"])
            response = dict(line.get("response") or {})
        except (KeyError, TypeError, ValueError, AttributeError):
            raise DataError(
                f"{path}, line {number}: not a result of a batch written here (no such custom_id); "
                "give the results file, not another"
            ) from None
        if key in requests and response.get("status_code", 200) == 200 and not line.get("error"):
            try:
                reply = read_completion(
                    response.get("body") or {}, requests[key], check, None, None
                )
            except ValueError:
                continue
            if reply.reason in (None, "refused"):
                found[key] = reply
    return found
