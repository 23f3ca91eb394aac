"""``pal annotate``: PESConv, dialogues with the persona known at every turn (section 3.2, Table 1).

The extractor reads the seeker's turns so far; new persona sentences are added to the known ones.
With ``annotate.knowledge`` the output is a file of knowledge for MISC instead.
"""

import logging
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pal.commands.common import CorpusSettings, ModelSettings, WriterSettings
from pal.core.errors import ConfigError
from pal.core.files import Streamed
from pal.core.job import Job, counted, record_path
from pal.core.runtime import configure_runtime
from pal.core.windows import Window
from pal.llm.settings import LlmSettings
from pal.persona.settings import AnnotationSettings, ExtractionSettings

if TYPE_CHECKING:
    from pal.data.dialogues import Dialogues

logger = logging.getLogger(__name__)

WINDOW = 2048  # dialogues that are planned, and in memory, at once
Row = Mapping[str, Any]


class AnnotateSettings(ModelSettings, CorpusSettings, WriterSettings):
    """Infer the seeker's persona at every turn of dialogues, or knowledge for MISC."""

    examples = (
        "pal annotate model=runs/extractor input=bundled:esconv output=pesconv.jsonl",
        "pal annotate annotate.extractor=llm input=mine.jsonl output=pesconv.jsonl "
        "llm.base_url=http://localhost:8000/v1 llm.model=qwen",
    )

    annotate: AnnotationSettings = AnnotationSettings()
    llm: LlmSettings = LlmSettings()


def annotate(settings: AnnotateSettings) -> Path:
    """Infer personas for every dialogue of ``input`` and write PESConv to ``output``.

    Prefixes that occur in several dialogues of a window are computed once. The trained extractor
    computes them in batches planned from all prefixes of a window, sorted by length; a language
    model (``annotate.extractor=llm``) is asked for each. After an interruption, the same command
    continues.

    Raises:
        PalError: inputs, checkpoint, endpoint or output cannot be used.
    """
    settings = AnnotateSettings.of(settings)
    configure_runtime()
    source, target = settings.require("input", "output")
    from pal.data.dialogues import Dialogues
    from pal.data.splits import load_split

    dialogues = load_split(source, settings.split, how=settings.data, requests=True)
    if settings.limit is not None:
        dialogues = dialogues.select(range(min(settings.limit, len(dialogues))))
    rows = Dialogues(dialogues)
    if settings.annotate.knowledge is not None:
        _refuse_persona_settings(settings.annotate)
        by_what = _know_by_llm if settings.annotate.knowledge == "llm" else _know_by_comet
        by_what(settings, Path(target), rows)
        return Path(target)
    if "tails" in settings.annotate.model_fields_set:
        raise ConfigError(
            "annotate.tails applies to knowledge only; also give annotate.knowledge, or leave it "
            "out"
        )
    by = _annotate_by_llm if settings.annotate.extractor == "llm" else _annotate_by_bart
    by(settings, Path(target), rows)
    return Path(target)


def _distinct_prefixes(rows: Iterable[Row], start: str) -> dict[tuple[str, ...], None]:
    """Return the prefixes of dialogues, each once, in the order in which they come."""
    from pal.persona.cleaning import annotated_prefixes

    return dict.fromkeys(
        prefix for row in rows for prefix in annotated_prefixes(row["dialog"], start).values()
    )


def _job_without_weights(
    settings: AnnotateSettings, output: Path, checkpoint: str, facts: Mapping[str, Any]
) -> Job | None:
    """Return the job, or None for a hub id: its contents may change, so its weights must be read.

    Args:
        settings: settings of the command.
        output: what it writes.
        checkpoint: folder or hub id of the model.
        facts: what else decides the output, without the weights.
    """
    if not Path(checkpoint).is_dir():
        return None
    return Job("annotate", settings, output, facts=facts)


def _annotate_by_bart(settings: AnnotateSettings, output: Path, rows: "Dialogues") -> None:
    (checkpoint,) = settings.require("model")
    facts: dict[str, Any] = {"dialogues": Streamed(rows)}
    job = _job_without_weights(settings, output, checkpoint, facts)
    if job is not None and job.is_finished():
        return
    logger.info("loading %s", checkpoint)
    from pal.modeling.checkpoint import model_fingerprint
    from pal.persona.extractor import load_extractor, make_extractor

    model, tokenizer = load_extractor(checkpoint, settings.dtype)
    beams, longest = settings.annotate.num_beams, settings.annotate.max_new_tokens
    positions = getattr(model.config, "max_position_embeddings", 1024)
    if longest >= positions:
        raise ConfigError(
            f"annotate.max_new_tokens={longest} does not fit the model's {positions} positions"
        )
    extractor = make_extractor(
        model, tokenizer, num_beams=beams, max_new=longest, rows=settings.batch_rows
    )
    if job is None:
        facts["weights"] = model_fingerprint(model)
        job = Job("annotate", settings, output, facts=facts)
        if job.is_finished():
            return
    chosen = settings.annotate
    counts: Counter[str] = Counter()
    source_of: list[array[int]] = []  # of each window, the number of the source of every prefix

    def plan(part: list[Row]) -> Window:
        numbers: dict[tuple[int, ...], int] = {}
        inputs = map(extractor.encode_source, _distinct_prefixes(part, chosen.start))
        found = (numbers.setdefault(tuple(ids), len(numbers)) for ids in inputs)
        source_of.append(array("i", found))
        sources = list(numbers)
        counts.update(prefixes=len(source_of[-1]), distinct_sources=len(sources))
        return Window(
            extractor.plan(sources, tokens=settings.batch_tokens, rows=settings.batch_rows),
            lambda batch: extractor([list(sources[index]) for index in batch]),
        )

    def inferred(
        part: list[Row], numbers: Sequence[int], results: Sequence[list[str]]
    ) -> dict[tuple[str, ...], list[str]]:
        prefixes = _distinct_prefixes(part, chosen.start)
        return {prefix: results[number] for prefix, number in zip(prefixes, numbers, strict=True)}

    with job.claimed() as state:
        extractor.model.to(state.device)
        results = job.run_windows(
            map(plan, rows.parts(WINDOW)),
            items=None,
            state=state,
            description="annotate (distinct texts)",
            unit="text",
        )
        if results is not None:
            known = (
                row
                for part, numbers, found in zip(
                    rows.parts(WINDOW), source_of, results.windows(), strict=True
                )
                for row in _with_personas(part, inferred(part, numbers, found), chosen)
            )
            _publish(job, chosen, known, dialogues=len(rows), **counts)


def _annotate_by_llm(settings: AnnotateSettings, output: Path, rows: "Dialogues") -> None:
    """Annotate with a language model; the record lists prefixes that got no answer."""
    from pal.core.job import refuse_several_processes
    from pal.llm import connect
    from pal.llm.base import how_to_repeat, refuse_silence
    from pal.llm.facts import model_facts, versions_of_model
    from pal.persona.by_llm import infer_personas, load_persona_prompt
    from pal.persona.cleaning import annotated_prefixes

    refuse_several_processes("annotate with a language model")
    prompt = load_persona_prompt()
    facts: dict[str, Any] = {
        "dialogues": Streamed(rows),
        "prompt": [prompt.version, prompt.system, prompt.user],
    }
    facts |= model_facts(settings.llm)
    versions = versions_of_model(settings.llm)
    job = Job("annotate", settings, output, versions=versions, facts=facts)
    if job.is_finished():
        return
    with job.claimed(processes=False):
        model, start = connect(settings.llm, settings.dtype), settings.annotate.start
        prefixes = list(_distinct_prefixes(rows, start))
        answers = infer_personas(prefixes, model)
        refuse_silence([*answers.values()], "annotate")
        unanswered = [
            {"dialogue": row["id"], "turn": turn, "reason": answers[prefix].reason}
            for row in rows
            for turn, prefix in annotated_prefixes(row["dialog"], start).items()
            if answers[prefix].reason
        ]
        if unanswered:
            logger.warning(
                "turns without an answer, which add nothing to the persona: %d; %s lists them%s",
                len(unanswered), record_path(output), how_to_repeat(unanswered),
            )  # fmt: skip
        inferred = {
            prefix: [] if outcome.reason else outcome.value["sentences"]
            for prefix, outcome in answers.items()
        }
        _publish(
            job, settings.annotate, _with_personas(rows, inferred, settings.annotate),
            dialogues=len(rows), prefixes=len(prefixes),
            prompts={prompt.name: prompt.version}, unanswered=unanswered, llm=model.describe(),
        )  # fmt: skip


def _refuse_persona_settings(chosen: AnnotationSettings) -> None:
    """Refuse settings that only personas have.

    Raises:
        ConfigError: there is one.
    """
    given = chosen.model_fields_set & {"extractor", "layout", "start", "min_support"}
    if given:
        raise ConfigError(
            f"annotate.{min(given)} is for personas, and annotate.knowledge={chosen.knowledge} "
            "infers none; leave one of them out"
        )


def _know_by_comet(settings: AnnotateSettings, output: Path, rows: "Dialogues") -> None:
    """Infer knowledge with a COMET model and write it."""
    (checkpoint,) = settings.require("model")
    from pal.knowledge.comet import Comet, all_queries, load_comet
    from pal.knowledge.queries import knowledge_queries
    from pal.modeling.checkpoint import model_fingerprint

    texts = knowledge_queries(rows)
    queries = all_queries(texts)
    facts: dict[str, Any] = {"texts": texts}
    job = _job_without_weights(settings, output, checkpoint, facts)
    if job is not None and job.is_finished():
        return
    model, tokenizer = load_comet(checkpoint, settings.dtype)
    chosen = settings.annotate
    comet = Comet(
        model, tokenizer, tails=chosen.tails, num_beams=chosen.num_beams,
        max_new=chosen.max_new_tokens,
    )  # fmt: skip
    if job is None:
        facts["weights"] = model_fingerprint(model)
        job = Job("annotate", settings, output, facts=facts)
        if job.is_finished():
            return
    encoded = [comet.encode(text, relation) for text, relation in queries]
    with job.claimed() as state:
        comet.model.to(state.device)
        results = job.run_batches(
            comet.plan(encoded, tokens=settings.batch_tokens, rows=settings.batch_rows),
            lambda batch: comet([encoded[index] for index in batch]),
            state=state, description="annotate (questions about texts)", unit="question",
        )  # fmt: skip
        if results is not None:
            found: dict[str, dict[str, list[str]]] = {text: {} for text in texts}
            for index, (text, relation) in enumerate(queries):
                found[text][relation] = results[index]
            _publish_knowledge(job, texts, found)


def _know_by_llm(settings: AnnotateSettings, output: Path, rows: "Dialogues") -> None:
    """Infer knowledge with a language model and write it; the record lists texts without answer."""
    from pal.core.job import refuse_several_processes
    from pal.knowledge.by_llm import infer_knowledge, load_knowledge_prompt
    from pal.knowledge.queries import clean_tails, knowledge_queries
    from pal.llm import connect
    from pal.llm.base import how_to_repeat, refuse_silence
    from pal.llm.facts import model_facts, versions_of_model

    refuse_several_processes("annotate with a language model")
    prompt, texts = load_knowledge_prompt(), knowledge_queries(rows)
    facts: dict[str, Any] = {
        "texts": texts,
        "prompt": [prompt.version, prompt.system, prompt.user],
    }
    facts |= model_facts(settings.llm)
    versions = versions_of_model(settings.llm)
    job = Job("annotate", settings, output, versions=versions, facts=facts)
    if job.is_finished():
        return
    with job.claimed(processes=False):
        model, most = connect(settings.llm, settings.dtype), settings.annotate.tails
        answers = infer_knowledge(texts, model, tails=most)
        refuse_silence(answers, "annotate")
        found = {
            text: {} if outcome.reason else {
                name: clean_tails(tails, most) for name, tails in outcome.value.items()
            }
            for text, outcome in zip(texts, answers, strict=True)
        }  # fmt: skip
        unanswered = [
            {"text": text, "reason": outcome.reason}
            for text, outcome in zip(texts, answers, strict=True) if outcome.reason
        ]  # fmt: skip
        if unanswered:
            logger.warning(
                "texts without an answer, about which nothing is known: %d; %s lists them%s",
                len(unanswered), record_path(output), how_to_repeat(unanswered),
            )  # fmt: skip
        _publish_knowledge(
            job, texts, found, prompts={prompt.name: prompt.version}, unanswered=unanswered,
            llm=model.describe(),
        )  # fmt: skip


def _publish_knowledge(
    job: Job,
    texts: Sequence[str],
    found: Mapping[str, dict[str, list[str]]],
    **facts: Any,
) -> None:
    """Write a file of knowledge, and the record of the run."""
    from pal.core.files import write_jsonl
    from pal.knowledge.queries import knowledge_records

    records = knowledge_records(texts, found)
    job.publish(lambda path: write_jsonl(path, records), texts=len(texts), **facts)
    logger.info("knowledge about %s written to %s", counted(len(texts), "text"), job.output)


def _with_personas(
    rows: Iterable[Row],
    inferred: Mapping[tuple[str, ...], Sequence[str]],
    chosen: ExtractionSettings,
) -> Iterator[Row]:
    """Yield the dialogues with the persona known at every turn."""
    from pal.persona.cleaning import add_personas

    return (add_personas(row, inferred, chosen.start, chosen.min_support) for row in rows)


def _publish(
    job: Job, chosen: ExtractionSettings, rows: Iterable[Row], *, dialogues: int, **facts: Any
) -> None:
    """Write the dialogues with their personas, and the record of the run."""
    from pal.data.esconv import write_pesconv, write_released

    write = write_pesconv if chosen.layout == "pesconv" else write_released
    job.publish(lambda path: write(path, rows), dialogues=dialogues, **facts)
    logger.info("personas of %s written to %s", counted(dialogues, "dialogue"), job.output)
