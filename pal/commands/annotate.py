"""``pal annotate``: PESConv, dialogues with the persona known at every turn (section 3.2, Table 1).

The extractor reads the seeker's turns so far; new persona sentences are added to the known ones.
With ``annotate.knowledge`` the output is a file of knowledge for MISC instead.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pal.commands.common import CorpusSettings, ModelSettings, WriterSettings
from pal.core.errors import ConfigError
from pal.core.job import COMPUTING, Job, record_path
from pal.core.runtime import configure_runtime
from pal.llm.settings import LlmSettings
from pal.persona.settings import AnnotationSettings, ExtractionSettings

logger = logging.getLogger(__name__)

Prefixes = Sequence[tuple[str, ...]]


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

    Prefixes that occur in several dialogues are computed once. The trained extractor computes them
    in batches planned from all prefixes, sorted by length; a language model
    (``annotate.extractor=llm``) is asked for each. After an interruption, the same command
    continues.

    Raises:
        PalError: inputs, checkpoint, endpoint or output cannot be used.
    """
    settings = AnnotateSettings.of(settings)
    configure_runtime()
    source, target = settings.require("input", "output")
    from pal.data.splits import load_split
    from pal.persona.cleaning import annotated_prefixes

    dialogues = load_split(source, settings.split, how=settings.data, requests=True)
    if settings.limit is not None:
        dialogues = dialogues.select(range(min(settings.limit, len(dialogues))))
    rows = list(dialogues)
    if settings.annotate.knowledge is not None:
        _refuse_persona_settings(settings.annotate)
        by_what = _know_by_llm if settings.annotate.knowledge == "llm" else _know_by_comet
        by_what(settings, Path(target), rows)
        return Path(target)
    if "tails" in settings.annotate.model_fields_set:
        raise ConfigError(
            "annotate.tails is of knowledge; give annotate.knowledge too, or leave it out"
        )
    start = settings.annotate.start
    prefixes = list(
        dict.fromkeys(
            prefix for row in rows for prefix in annotated_prefixes(row["dialog"], start).values()
        )
    )
    by = _annotate_by_llm if settings.annotate.extractor == "llm" else _annotate_by_bart
    by(settings, Path(target), rows, prefixes)
    return Path(target)


def _annotate_by_bart(
    settings: AnnotateSettings, output: Path, rows: list[dict[str, Any]], prefixes: Prefixes
) -> None:
    (checkpoint,) = settings.require("model")
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
    encoded = {prefix: tuple(extractor.encode_source(prefix)) for prefix in prefixes}
    sources = list(dict.fromkeys(encoded.values()))
    facts: dict[str, Any] = {"dialogues": rows}
    if not Path(checkpoint).is_dir():  # the contents of a hub id may change
        facts["weights"] = model_fingerprint(model)
    job = Job("annotate", settings, output, facts=facts)
    if job.is_finished():
        return
    with job.claimed() as state:
        extractor.model.to(state.device)
        results = job.run_batches(
            extractor.plan(sources, tokens=settings.batch_tokens, rows=settings.batch_rows),
            lambda batch: extractor([list(sources[index]) for index in batch]),
            state=state, description="annotate",
        )  # fmt: skip
        if results is not None:
            inferred = {source: results[index] for index, source in enumerate(sources)}
            _publish(
                job, settings.annotate, rows,
                {prefix: inferred[source] for prefix, source in encoded.items()},
                prefixes=len(prefixes), distinct_sources=len(sources),
            )  # fmt: skip


def _annotate_by_llm(
    settings: AnnotateSettings, output: Path, rows: list[dict[str, Any]], prefixes: Prefixes
) -> None:
    """Annotate with a language model; the record lists prefixes that got no answer."""
    from pal.core.files import source_fingerprint
    from pal.core.job import refuse_several_processes
    from pal.llm import connect
    from pal.persona.by_llm import infer_personas, load_persona_prompt
    from pal.persona.cleaning import annotated_prefixes

    refuse_several_processes("annotate with a language model")
    prompt = load_persona_prompt()
    facts: dict[str, Any] = {
        "dialogues": rows,
        "prompt": [prompt.version, prompt.system, prompt.user],
    }
    local = settings.llm.backend == "transformers"
    if local and settings.llm.model is not None:
        facts["weights"] = source_fingerprint(settings.llm.model)
    job = Job("annotate", settings, output, versions=COMPUTING if local else (), facts=facts)
    if job.is_finished():
        return
    with job.claimed(processes=False):
        model = connect(settings.llm, settings.dtype)
        answers = infer_personas(prefixes, model)
        unanswered = [
            {"dialogue": row["id"], "turn": turn, "reason": answers[prefix].reason}
            for row in rows
            for turn, prefix in annotated_prefixes(row["dialog"], settings.annotate.start).items()
            if answers[prefix].reason
        ]
        if unanswered:
            logger.warning(
                "%d turns have no answer and add nothing to the persona; %s lists them",
                len(unanswered), record_path(output),
            )  # fmt: skip
        inferred = {
            prefix: [] if outcome.reason else outcome.value["sentences"]
            for prefix, outcome in answers.items()
        }
        _publish(
            job, settings.annotate, rows, inferred, prefixes=len(prefixes),
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
            f"annotate.{min(given)} is of personas, and annotate.knowledge={chosen.knowledge} "
            "infers none; leave one of them out"
        )


def _know_by_comet(settings: AnnotateSettings, output: Path, rows: list[dict[str, Any]]) -> None:
    """Infer knowledge with a COMET model and write it."""
    (checkpoint,) = settings.require("model")
    from pal.knowledge.comet import Comet, all_queries, load_comet
    from pal.knowledge.queries import knowledge_queries
    from pal.modeling.checkpoint import model_fingerprint

    model, tokenizer = load_comet(checkpoint, settings.dtype)
    chosen = settings.annotate
    comet = Comet(
        model, tokenizer, tails=chosen.tails, num_beams=chosen.num_beams,
        max_new=chosen.max_new_tokens,
    )  # fmt: skip
    texts = knowledge_queries(rows)
    queries = all_queries(texts)
    facts: dict[str, Any] = {"texts": texts}
    if not Path(checkpoint).is_dir():  # the contents of a hub id may change
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
            state=state, description="annotate",
        )  # fmt: skip
        if results is not None:
            found: dict[str, dict[str, list[str]]] = {text: {} for text in texts}
            for index, (text, relation) in enumerate(queries):
                found[text][relation] = results[index]
            _publish_knowledge(job, texts, found)


def _know_by_llm(settings: AnnotateSettings, output: Path, rows: list[dict[str, Any]]) -> None:
    """Infer knowledge with a language model and write it; the record lists texts without answer."""
    from pal.core.files import source_fingerprint
    from pal.core.job import refuse_several_processes
    from pal.knowledge.by_llm import infer_knowledge, load_knowledge_prompt
    from pal.knowledge.queries import clean_tails, knowledge_queries
    from pal.llm import connect

    refuse_several_processes("annotate with a language model")
    prompt, texts = load_knowledge_prompt(), knowledge_queries(rows)
    facts: dict[str, Any] = {
        "texts": texts,
        "prompt": [prompt.version, prompt.system, prompt.user],
    }
    local = settings.llm.backend == "transformers"
    if local and settings.llm.model is not None:
        facts["weights"] = source_fingerprint(settings.llm.model)
    job = Job("annotate", settings, output, versions=COMPUTING if local else (), facts=facts)
    if job.is_finished():
        return
    with job.claimed(processes=False):
        model, most = connect(settings.llm, settings.dtype), settings.annotate.tails
        answers = infer_knowledge(texts, model, tails=most)
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
                "%d texts have no answer, so nothing is known about them; %s lists them",
                len(unanswered), record_path(output),
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
    logger.info("knowledge about %d texts written to %s", len(texts), job.output)


def _publish(
    job: Job,
    chosen: ExtractionSettings,
    rows: Sequence[Mapping[str, Any]],
    inferred: Mapping[tuple[str, ...], Sequence[str]],
    **facts: Any,
) -> None:
    """Write the dialogues with the persona known at every turn, and the record of the run."""
    from pal.data.esconv import write_pesconv, write_released
    from pal.persona.cleaning import add_personas

    write = write_pesconv if chosen.layout == "pesconv" else write_released
    known = [add_personas(row, inferred, chosen.start, chosen.min_support) for row in rows]
    job.publish(lambda path: write(path, known), dialogues=len(rows), **facts)
    logger.info("personas of %d dialogues written to %s", len(rows), job.output)
