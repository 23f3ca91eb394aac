"""What all steps that ask a model share: identity, lock, record, atomic output, summary.

Answers lie in the model's cache as they come, so a step that is killed asks nothing twice when it
is run again; its output appears whole, at the end.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pal.core.files import output_lock, read_jsonl, write_jsonl
from pal.core.job import is_finished, record_path
from pal.core.runs import identity_of, write_run
from pal.core.schema import Settings
from pal.llm import connect
from pal.llm.base import LanguageModel
from pal.llm.prompts import Prompt, load_prompt

logger = logging.getLogger(__name__)

Records = list[dict[str, Any]]


def prompt(name: str) -> Prompt:
    """Load one of the wing's prompts."""
    return load_prompt(Path(__file__).parent / "prompts", name)


def failures_path(output: str | Path) -> Path:
    """Return where a step that writes dialogues lists what it could not make."""
    output = Path(output)
    return output.with_name(f"{output.stem}.failed.jsonl")


def run_step(
    settings: Settings,
    command: str,
    make: Callable[[LanguageModel], Records],
    *,
    inputs: Any,
    prompts: Sequence[Prompt],
    choices: Sequence[str] = (),
    apart: bool = False,
) -> str:
    """Make a step's records once and write them to ``output``.

    Args:
        settings: of the run.
        command: the step's name.
        make: asks the model and returns the records, failed ones with ``failed``.
        inputs: all that is read, as JSON values; part of the identity.
        prompts: those used; their wording is part of the identity, their versions of the record.
        choices: names in ``traits`` that decide the records.
        apart: write failed records to :func:`failures_path` rather than among the others.

    Returns:
        A Markdown summary.

    Raises:
        PalError: the model cannot be reached or the output not be written.
    """
    (target,) = settings.require("output")
    output, llm = Path(target), settings.llm
    traits = settings.traits.model_dump()
    identity = identity_of(
        settings,
        command=command,
        inputs=inputs,
        prompts=[[p.name, p.version, p.system, p.user] for p in prompts],
        model=[llm.backend, llm.base_url, llm.model, llm.body],
        choices={name: traits[name] for name in choices},
    )
    if is_finished(output, identity, overwrite=settings.overwrite):
        logger.info("%s is finished already; overwrite=true would make it anew", output)
        return _summary(command, output, apart)
    with output_lock(output):
        model = connect(settings)
        records = make(model)
        output.unlink(missing_ok=True)  # the record first: a kill between the two is harmless
        failed = [record for record in records if "failed" in record]
        write_run(
            record_path(output), settings, f"traits {command}", identity,
            prompts={p.name: p.version for p in prompts}, records=len(records),
            failed=len(failed), llm=model.describe(),
        )  # fmt: skip
        if apart:
            failures_path(output).unlink(missing_ok=True)
            if failed:
                write_jsonl(failures_path(output), failed)
            records = [record for record in records if "failed" not in record]
        write_jsonl(output, records)
    return _summary(command, output, apart)


def _summary(command: str, output: Path, apart: bool) -> str:
    """Count what a step wrote: a Markdown table of records and of reasons for failures."""
    files = [output, *([failures_path(output)] if apart else [])]
    records = [
        record
        for file in files
        if file.exists() and file.stat().st_size
        for _, record in read_jsonl(file)
    ]
    reasons = Counter(str(r["failed"]) for r in records if "failed" in r)
    counts: dict[str, int] = {"records": len(records) - reasons.total()}
    if any("keep" in record for record in records):
        counts["kept"] = sum(bool(r.get("keep")) for r in records if "failed" not in r)
    unanswered = Counter(
        reason.partition(":")[0] for r in records for reason in r.get("unanswered", {}).values()
    )
    counts |= {f"unanswered: {reason}": count for reason, count in unanswered.most_common()}
    counts |= {f"failed: {reason}": count for reason, count in reasons.most_common()}
    lines = [f"| {command} | count |", "| --- | --- |"]
    lines += [f"| {name.replace('|', '/')} | {count:,} |" for name, count in counts.items()]
    lines += ["", f"written to {output}"]
    if any("gave up" in reason for reason in (*reasons, *unanswered)):
        lines.append("overwrite=true asks again what was given up; answers that came are kept")
    return "\n".join(lines)
