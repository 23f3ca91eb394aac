"""Memory and time of every stage on a synthetic corpus: ``pal bench scale``.

Each stage runs in a process of its own. Its memory is what it holds for itself (anonymous memory:
objects, tensors, buffers) at its highest; pages of mapped files, which a system takes back when it
needs them, are counted apart. A process that does nothing but import the package holds some too, so
the figure to compare is how it grows with the corpus.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pal.core.errors import PalError
from pal.speed.synthetic import write_synthetic

logger = logging.getLogger(__name__)

StageName = Literal["read", "annotate", "tokens", "generate", "eval", "audit"]
PERIOD = 0.02  # seconds between two looks at the memory of a stage


class StageError(PalError):
    """A stage of the measurement failed."""


def measure_scale(
    *, dialogues: int, turns: int, seed: int, stages: Sequence[StageName], model: str | None,
    extractor: str | None, canned: bool,
) -> tuple[str, dict[str, Any]]:  # fmt: skip
    """Return the Markdown table and the document of a measurement.

    Args:
        dialogues: size of the corpus.
        turns: of each dialogue.
        seed: of its words.
        stages: what is measured, in the order given.
        model: response model: for the stages ``tokens`` (its tokenizer) and ``generate``.
        extractor: persona extractor.
        canned: whether a stand-in answers in place of the models.

    Raises:
        PalError: a stage failed.
    """
    rows = []
    with tempfile.TemporaryDirectory() as place:
        corpus = Path(place) / "corpus.jsonl"
        started = time.perf_counter()
        size = write_synthetic(corpus, dialogues, turns=turns, seed=seed)
        logger.info("%d dialogues, %d bytes, %.0f s", dialogues, size,
                    time.perf_counter() - started)  # fmt: skip
        for stage in stages:
            command = stage_command(stage, corpus, model=model, extractor=extractor, canned=canned)
            rows.append(run_measured(stage, command, Path(place), corpus))
            logger.info("%s", rows[-1])
    document = {
        "kind": "bench scale", "dialogues": dialogues, "turns": turns, "bytes": size,
        "canned": canned, "rows": rows,
    }  # fmt: skip
    return scale_table(document), document


def stage_command(
    stage: StageName, corpus: Path, *, model: str | None, extractor: str | None, canned: bool
) -> list[str]:
    """Return the arguments of a stage after ``python -m pal.speed.stages``."""
    output = corpus.with_name(f"{stage}.jsonl")
    how = "canned" if canned else "command"
    if stage == "read":
        return ["read", json.dumps([str(corpus)])]
    if stage == "tokens":
        return ["tokens", json.dumps([str(corpus), model])]
    if stage == "annotate":
        return [how, "annotate", f"model={extractor}", f"input={corpus}", f"output={output}",
                "annotate.num_beams=1", "annotate.max_new_tokens=16"]  # fmt: skip
    if stage == "generate":
        return [how, "generate", f"model={model}", f"input={corpus}", f"output={output}",
                "decoding.max_new_tokens=16"]  # fmt: skip
    if stage == "eval":
        return ["command", "eval", f"predictions={corpus.with_name('generate.jsonl')}",
                "metrics.names=[length,distinct,rouge,strategy]"]  # fmt: skip
    return ["command", "audit", f"data.train={corpus}", "data.split=seeded",
            f"output={corpus.with_name('audit.json')}"]  # fmt: skip


def run_measured(
    stage: StageName, command: Sequence[str], folder: Path, corpus: Path
) -> dict[str, Any]:
    """Run a stage to its end and return its time and memory.

    Raises:
        StageError: it failed; the message has its last line.
    """
    log = folder / f"{stage}.log"
    held = mapped = 0
    started, worked = time.perf_counter(), cpu_of_children()
    with log.open("wb") as handle:
        process = subprocess.Popen(
            [sys.executable, "-m", "pal.speed.stages", *command], stdout=handle, stderr=handle
        )
        try:
            while process.poll() is None:
                anonymous, files = memory_of(process.pid)
                held, mapped = max(held, anonymous), max(mapped, files)
                time.sleep(PERIOD)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    seconds = time.perf_counter() - started
    if process.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise StageError(f"stage {stage} ended with {process.returncode}: {''.join(last)[:300]}")
    written = sum(
        path.stat().st_size for path in folder.iterdir()
        if path.is_file() and path.name.startswith(f"{stage}.json")
    )  # fmt: skip
    if stage != "generate":  # which is what eval reads
        for path in folder.glob(f"{stage}.*"):
            path.unlink()
    return {
        "stage": stage, "seconds": seconds, "cpu": cpu_of_children() - worked, "memory": held,
        "mapped": mapped, "written": written,
    }  # fmt: skip


def cpu_of_children() -> float:
    """Return the seconds that processors spent on processes started here that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def memory_of(process: int) -> tuple[int, int]:
    """Return the memory that a process holds for itself and that of mapped files, bytes.

    Where the system does not tell them apart, all is the process's own.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
        found = {line.partition(":")[0]: line.split()[1] for line in lines if line[:3] == "Rss"}
        return 1024 * int(found["RssAnon"]), 1024 * int(found["RssFile"])
    except (OSError, KeyError, IndexError):
        pass
    import psutil

    try:
        return psutil.Process(process).memory_info().rss, 0
    except psutil.Error:
        return 0, 0


def scale_table(document: dict[str, Any]) -> str:
    """Return a measurement as Markdown."""
    lines = [
        "| stage | seconds | CPU ms per dialogue | memory, MiB | mapped files, MiB | written, MiB "
        "|",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in document["rows"]:
        each = 1000 * row["cpu"] / document["dialogues"]
        sizes = " | ".join(f"{row[key] / 2**20:,.0f}" for key in ("memory", "mapped", "written"))
        lines.append(f"| {row['stage']} | {row['seconds']:,.1f} | {each:.2f} | {sizes} |")
    stand_in = "; a stand-in answers in place of the models" if document["canned"] else ""
    lines += [
        "",
        f"{document['dialogues']:,} synthetic dialogues of {document['turns']} turns, "
        f"{document['bytes'] / 2**20:,.0f} MiB{stand_in}.",
    ]
    return "\n".join(lines)
