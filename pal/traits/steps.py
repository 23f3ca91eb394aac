"""Parts that all steps with a model share: job, record, atomic output, summary.

Answers lie in the model's cache as they come, so a step that is killed asks nothing twice when it
is run again; its output appears whole, at the end.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from pal.core.files import read_jsonl, write_jsonl
from pal.core.job import Job
from pal.llm import connect
from pal.llm.base import (
    GIVEN_UP,
    REPEAT,
    Check,
    LanguageModel,
    Outcome,
    Request,
    refuse_silence,
)
from pal.llm.facts import model_facts, versions_of_model, wording_of
from pal.llm.prompts import Prompt, load_prompt
from pal.traits.readers import is_usable
from pal.traits.settings import AskingSettings

Records = list[dict[str, Any]]

_stand_in: ContextVar[LanguageModel | None] = ContextVar("stand_in", default=None)


@contextlib.contextmanager
def asked_instead(model: LanguageModel) -> Iterator[None]:
    """Let the steps of this block ask another model than their settings name, to rehearse."""
    token = _stand_in.set(model)
    try:
        yield
    finally:
        _stand_in.reset(token)


def is_rehearsed() -> bool:
    """Return whether steps are only estimated, so that no file of theirs is there afterwards."""
    return _stand_in.get() is not None


class _Heard:
    """A model that remembers all outcomes of a step.

    Args:
        model: the model that is asked.
    """

    def __init__(self, model: LanguageModel):
        self.name, self.describe, self._model = model.name, model.describe, model
        self.outcomes: list[Outcome] = []

    def ask(
        self, requests: Sequence[Request], *, description: str, check: Check | None = None
    ) -> list[Outcome]:
        outcomes = self._model.ask(requests, description=description, check=check)
        self.outcomes += outcomes
        return outcomes


def load_trait_prompt(name: str) -> Prompt:
    """Load one of the wing's prompts."""
    return load_prompt(Path(__file__).parent / "prompts", name)


def failures_path(output: str | Path) -> Path:
    """Return where a step that writes dialogues lists what it could not make."""
    output = Path(output)
    return output.with_name(f"{output.stem}.failed.jsonl")


def run_step(
    command: str,
    settings: AskingSettings,
    make: Callable[[LanguageModel], Records],
    *,
    prompts: Sequence[Prompt],
    facts: Mapping[str, Any] | None = None,
    noun: str = "cards",
    apart: bool = False,
) -> str:
    """Make a step's records once and write them to ``output``.

    Args:
        command: the step's name.
        settings: the step's own.
        make: asks the model and returns the records, failed ones with ``failed``.
        prompts: those used; their wording is part of the identity, their versions of the record.
        facts: what else decides the records, beyond settings and contents of files, as JSON values.
        noun: what the records are, for the summary.
        apart: write failed records to :func:`failures_path` rather than among the others.

    Returns:
        A Markdown summary.

    Raises:
        PalError: the model cannot be reached, it answers nothing, or the output cannot be written.
    """
    (target,) = settings.require("output")
    job = Job(
        f"traits {command}", settings, target,
        versions=versions_of_model(settings.llm),
        facts={
            "prompts": wording_of(prompts),
            **model_facts(settings.llm),
            **(facts or {}),
        },
    )  # fmt: skip
    if not job.is_finished():
        with job.claimed(processes=False):
            model = _Heard(_stand_in.get() or connect(settings.llm, settings.dtype))
            records = make(model)
            refuse_silence(model.outcomes, f"traits {command}")
            failed = [record for record in records if "failed" in record]

            def write(output: Path) -> None:
                kept = records
                if apart:
                    failures_path(output).unlink(missing_ok=True)
                    if failed:
                        write_jsonl(failures_path(output), failed)
                    kept = [record for record in records if "failed" not in record]
                write_jsonl(output, kept)

            job.publish(
                write, prompts={p.name: p.version for p in prompts}, records=len(records),
                failed=len(failed), llm=model.describe(),
            )  # fmt: skip
    return _summary(command, noun, job.output, apart)


def _summary(command: str, noun: str, output: Path, apart: bool) -> str:
    """Count what a step wrote: a Markdown table of records and of reasons for failures."""
    files = [output, *([failures_path(output)] if apart else [])]
    records = [
        record
        for file in files
        if file.exists() and file.stat().st_size
        for _, record in read_jsonl(file)
    ]
    reasons = Counter(str(r["failed"]) for r in records if "failed" in r)
    written = len(records) - reasons.total()
    counts: dict[str, int] = {f"{noun} written": written}
    dropped = 0
    if any("keep" in record for record in records):
        counts["kept by the filter"] = sum(map(is_usable, records))
        dropped = written - counts["kept by the filter"]
        counts["dropped by the filter"] = dropped
    unanswered = Counter(
        reason.partition(":")[0] for r in records for reason in r.get("unanswered", {}).values()
    )
    counts |= {f"unanswered: {reason}": count for reason, count in unanswered.most_common()}
    lost = "not written" if apart else "failed"
    counts |= {f"{lost}: {reason}": count for reason, count in reasons.most_common()}
    lines = [f"| {command} | count |", "| --- | --- |"]
    lines += [f"| {name.replace('|', '/')} | {count:,} |" for name, count in counts.items()]
    lines += ["", f"written to {output}"]
    if reasons and apart:
        lines.append(f"listed in {failures_path(output)}: what is not written, with the reasons")
    if dropped:
        lines.append("cards that the filter dropped stay in the file with its reasons; later steps "
                     "leave them out")  # fmt: skip
    if any(GIVEN_UP in reason for reason in (*reasons, *unanswered)):
        lines.append(REPEAT)
    return "\n".join(lines)
