"""``pal answer``: a reply to every sample of a file by a language model that nobody trained for it.

It writes what ``pal generate`` writes, so the same commands score it. Answers lie in the model's
cache as they come: a run that is killed asks nothing twice. A request that was refused, or
malformed at every attempt, is an empty response, marked ``failed``.
"""

import logging
from pathlib import Path
from typing import Literal

from pal.commands.common import DialogueSettings, WriterSettings
from pal.core.settings import Seed
from pal.decoding.settings import SampleSettings
from pal.llm.settings import LlmSettings
from pal.supporter.settings import SupporterSettings

logger = logging.getLogger(__name__)


class AnswerSettings(DialogueSettings, WriterSettings):
    """Answer every sample of a file by a language model.

    Attributes:
        seed: random seed of the server's sampling, from which each sample gets its own.
        dtype: number format of a local model's weights.
        decoding: which turns are samples.
    """

    examples = (
        "pal answer input=bundled:esconv split=test output=runs/gpt.jsonl "
        "llm.base_url=http://localhost:8000/v1 llm.model=qwen",
        "pal answer input=pesconv.jsonl output=runs/gpt.jsonl supporter.persona=true "
        "supporter.strategy_first=true llm.model=…",
    )

    seed: Seed = 42
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    decoding: SampleSettings = SampleSettings()
    llm: LlmSettings = LlmSettings()
    supporter: SupporterSettings = SupporterSettings()


def answer(settings: AnswerSettings) -> Path:
    """Answer every sample of ``input`` and write one JSONL record each to ``output``.

    Raises:
        PalError: input, model or output cannot be used, or a request brought no answer.
    """
    settings = AnswerSettings.of(settings)
    given, target = settings.require("input", "output")
    from pal.benchmark.notices import notices_of
    from pal.core.files import write_jsonl
    from pal.core.job import counted
    from pal.data.cards import cards_note
    from pal.data.samples import open_samples, warn_of_unanswered
    from pal.guard.batches import count_levels, warn_of_crises
    from pal.llm import connect
    from pal.llm.facts import asking_job
    from pal.supporter.replies import (
        Situation,
        ask_supporter,
        load_supporter_prompt,
        prediction_record,
    )

    opened, stamp = open_samples(
        given, settings.split, settings.data, rule=settings.decoding.samples, limit=settings.limit
    )
    warn_of_unanswered(opened, given, settings.split)
    samples = list(opened)
    how, prompt = settings.supporter, load_supporter_prompt()
    if how.persona and not any(sample.persona for sample in samples):
        logger.warning(
            "no sample of %s has a persona, so the model responds without any; pal annotate "
            "infers them",
            given,
        )
    job = asking_job("answer", settings, target, models=[settings.llm], prompts=[prompt])
    if job.is_finished():
        return job.output
    with job.claimed(processes=False):
        model = connect(settings.llm, settings.dtype)
        replies = ask_supporter(
            model, [Situation(one.id, one.context, one.persona) for one in samples], how,
            seed=settings.seed, description="answer",
        )  # fmt: skip
        records = [
            prediction_record(
                reply, id=sample.id, persona=sample.persona, reference=sample.response,
                reference_strategy=sample.strategy,
            )
            for sample, reply in zip(samples, replies, strict=True)
        ]  # fmt: skip
        failed = sum("failed" in record for record in records)
        job.publish(
            lambda path: write_jsonl(path, records), samples=len(samples), failed=failed,
            prompts={prompt.name: prompt.version}, llm=model.describe(),
            protocol=stamp, notices=notices_of([given], [], protocol=stamp),
            **cards_note(settings.data.cards),
        )  # fmt: skip
    if failed:
        why = next(record["failed"] for record in records if "failed" in record)
        logger.warning(
            "%d of %d responses are empty, since the model refused or sent something else; "
            "the first: %s", failed, len(records), why,
        )  # fmt: skip
    logger.info("%s written to %s", counted(len(records), "response"), job.output)
    warn_of_crises(count_levels(sample.context for sample in samples), job.output)
    return job.output
