"""``pal bench``: the speed of this package on this machine, compared with the alternatives.

Each benchmark measures all sides in one run, on the same inputs, and prints a table. With
``output`` set it also writes the figures as JSON; it replaces an older file only with
``overwrite``.
"""

import logging
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pal.commands.common import (
    DialogueSettings,
    ModelSettings,
    ResponseModelSettings,
    WriterSettings,
)
from pal.conversation.settings import TalkSettings
from pal.core.errors import ConfigError, DataError, OutputError
from pal.core.runtime import configure_runtime
from pal.core.settings import Count, InputPath, ModelSource, Seed, Source, bundled
from pal.data.settings import ReadingSettings, SourceSettings
from pal.decoding.settings import DecodingSettings
from pal.llm.settings import LlmSettings
from pal.modeling.settings import ArchitectureSettings
from pal.persona.settings import ExtractionSettings
from pal.serve.settings import ServerSettings
from pal.speed.settings import GenerationSpeedSettings, RoundSettings, ScaleSettings
from pal.training.settings import OptionSettings

logger = logging.getLogger(__name__)

DIALOGUES = 16  # number of dialogues annotated by default
SYNTHETIC = 10_000  # number of dialogues of a synthetic corpus by default


class BenchSettings(WriterSettings):
    """The settings of every measurement.

    Attributes:
        seed: random seed of weights, of the choice of inputs and of token sampling.
        limit: number of inputs to measure; each measurement has its own default when null.
    """

    seed: Seed = 42
    limit: Count | None = None


class BenchModelSettings(BenchSettings, ModelSettings):
    """A measurement of a model on dialogues.

    Attributes:
        model: folder or hub id of the model; null measures a model of architecture with random
            weights.
        input: dialogues: a file, a folder, a hub id, or ``bundled:esconv``; random tokens of
            ESConv's lengths (``bench annotate``: the bundled corpus) when null.
        split: split to read, where input is a folder or hub id with splits.
    """

    input: Source | None = None
    split: Literal["train", "validation", "test"] | None = None
    data: ReadingSettings = ReadingSettings()
    architecture: ArchitectureSettings = ArchitectureSettings()


class BenchGenerateSettings(BenchModelSettings, ResponseModelSettings):
    """Measure decoding."""

    examples = (
        "pal bench generate model=runs/pal input=runs/pesconv split=test limit=64",
        "pal bench generate architecture.base=HuggingFaceTB/SmolLM2-135M-Instruct bench.rounds=1",
    )

    decoding: DecodingSettings = DecodingSettings()
    bench: GenerationSpeedSettings = GenerationSpeedSettings()


class BenchTrainSettings(BenchModelSettings, ResponseModelSettings, OptionSettings):
    """Measure training steps of the response model."""

    examples = (
        "pal bench train --config pal input=runs/pesconv model=runs/pal limit=64",
        "pal bench train --config quickstart limit=32",
    )


class BenchAnnotateSettings(BenchModelSettings):
    """Measure annotation."""

    examples = (
        "pal bench annotate model=runs/extractor input=runs/pesconv limit=16",
        "pal bench annotate --config small architecture.from_scratch.model_type=bart limit=4",
    )

    annotate: ExtractionSettings = ExtractionSettings()


class BenchMetricsSettings(BenchSettings):
    """Measure scores.

    Attributes:
        predictions: file of records with response and reference; null takes pairs from the bundled
            corpus, cut to the lengths of ESConv.
    """

    examples = (
        "pal bench metrics",
        "pal bench metrics predictions=runs/pal_test.jsonl output=runs/bench_metrics.json",
    )

    predictions: InputPath | None = None


class BenchLlmSettings(BenchSettings):
    """Measure the client of language models against a loopback server."""

    examples = (
        "pal bench llm",
        "pal bench llm bench.rounds=5 llm.connections=64 output=runs/bench_llm.json",
    )

    bench: RoundSettings = RoundSettings()
    llm: LlmSettings = LlmSettings()


class BenchServeSettings(BenchSettings, TalkSettings, DialogueSettings):
    """Measure the server with many clients at once."""

    examples = (
        "pal bench serve model=runs/pal input=runs/pesconv split=test",
        "pal bench serve model=runs/smollm2 input=bundled:esconv serve.rows=32 bench.rounds=1",
    )

    serve: ServerSettings = ServerSettings()
    bench: RoundSettings = RoundSettings()


class BenchScaleSettings(BenchSettings):
    """Measure memory and time of every stage on a synthetic corpus.

    Attributes:
        model: response model, for the stages ``tokens`` (its tokenizer) and ``generate``.
    """

    examples = (
        "pal bench scale bench.stages=[read,audit] limit=100000",
        "pal bench scale model=runs/quickstart/model bench.extractor=runs/quickstart/extractor",
    )

    model: ModelSource | None = None
    bench: ScaleSettings = ScaleSettings()


def bench_generate(settings: BenchGenerateSettings) -> str:
    """Measure generation and return the Markdown tables.

    The inputs are ``limit`` contexts (64 by default) of ``input``, drawn with ``seed``, or
    synthetic ones. The engine of this package holds ``batch_rows`` rows and ``batch_tokens``
    encoder positions at once, as in ``pal generate``.

    A decoder-only model answers the first contexts of ``input`` in their order, since those of a
    dialogue share their beginnings; the bundled corpus without ``input``. It is ``model``, or
    ``architecture.base`` as it is, or random weights.

    Raises:
        PalError: model, input or output cannot be used.
    """
    settings = BenchGenerateSettings.of(settings)
    output = _prepare(settings)
    from pal.core.registry import trust
    from pal.data.samples import load_samples
    from pal.speed.generate import NAMES, measure_generation
    from pal.speed.language import measures_language
    from pal.speed.workload import CONTEXTS, load_workload

    trust(*settings.trusted_code)
    if measures_language(settings.model, settings.architecture):
        table, document = _measure_language(settings)
        return _finished(table, document, output, "bench generate", settings)
    sides = _sides_of(settings, tuple(NAMES), "this one has an encoder")
    count, samples = settings.limit or CONTEXTS, None
    if settings.input:
        rule = settings.decoding.samples
        how = SourceSettings(**settings.data.model_dump())
        samples = load_samples(settings.input, settings.split, how, rule=rule)
        random.Random(settings.seed).shuffle(samples)
        samples = samples[:count]
    workload = load_workload(
        samples, model=settings.model, architecture=settings.architecture,
        decoding=settings.decoding, natural=settings.bench.endings == "natural", count=count,
        seed=settings.seed, dtype=settings.dtype,
    )  # fmt: skip
    table, document = measure_generation(
        workload, sides=sides, rounds=settings.bench.rounds,
        rows=settings.batch_rows, tokens=settings.batch_tokens,
    )  # fmt: skip
    return _finished(table, document, output, "bench generate", settings)


def _measure_language(settings: BenchGenerateSettings) -> tuple[str, dict[str, Any]]:
    """Measure a decoder-only model and return the table and the document."""
    from pal.data.samples import build_samples, load_samples
    from pal.data.splits import load_split
    from pal.speed.language import (
        LANGUAGE_SIDES,
        load_language_workload,
        measure_language,
        stand_in_notes,
    )
    from pal.speed.workload import CONTEXTS

    sides = _sides_of(settings, LANGUAGE_SIDES, "this one is decoder-only")
    count, rule = settings.limit or CONTEXTS, settings.decoding.samples
    if settings.input:
        how = SourceSettings(**settings.data.model_dump())
        samples = load_samples(settings.input, settings.split, how, rule=rule, limit=count)
        source = f"from {Path(settings.input).name}"
        if not any(sample.persona for sample in samples):
            logger.warning("%s holds no personas, so there is no contrast", settings.input)
    else:
        rows = load_split(str(bundled("sample", "esconv", "train.jsonl")), None, how=settings.data)
        samples = build_samples(stand_in_notes(list(rows)), rule)[:count]
        source = "the bundled corpus, sentences of the seeker as notes"
    workload = load_language_workload(
        samples, source, model=settings.model, architecture=settings.architecture,
        decoding=settings.decoding, natural=settings.bench.endings == "natural",
        seed=settings.seed, dtype=settings.dtype,
    )  # fmt: skip
    return measure_language(
        workload, sides=sides, rows=settings.batch_rows, tokens=settings.batch_tokens,
        rounds=settings.bench.rounds,
    )  # fmt: skip


def _sides_of(
    settings: BenchGenerateSettings, known: tuple[str, ...], kind: str
) -> tuple[str, ...]:
    """Return the sides to measure.

    Raises:
        ConfigError: one is for the other kind of model.
    """
    chosen = settings.bench.sides or known
    for side in chosen:
        if side not in known:
            raise ConfigError(
                f"bench.sides: {side} is for the other kind of model, and {kind}; give some of "
                f"{', '.join(known)}"
            )
    return tuple(chosen)


def _refuse_language(settings: BenchModelSettings, command: str) -> None:
    """Refuse a decoder-only model where the sides are those of encoder-decoders.

    Raises:
        PalError: it is one, or it cannot be read.
    """
    from pal.speed.language import measures_language

    if measures_language(settings.model, settings.architecture):
        raise ConfigError(
            f"{command} measures encoder-decoders, and this model is decoder-only; pal bench "
            "generate measures both"
        )


def bench_train(settings: BenchTrainSettings) -> str:
    """Measure training steps of the response model and return the Markdown table.

    Without ``model``, the weights are random weights of ``architecture`` (90 million parameters by
    default); without ``input``, the samples are random tokens of ESConv's lengths. Every side
    trains on ``limit`` samples.

    Raises:
        PalError: model, input or output cannot be used.
    """
    settings = BenchTrainSettings.of(settings)
    output = _prepare(settings)
    from pal.core.registry import trust
    from pal.speed.train import load_training_samples, measure_training

    trust(*settings.trusted_code)
    _refuse_language(settings, "bench train")
    model, encoded, source = load_training_samples(
        settings.input, settings.split, how=settings.data, model=settings.model,
        architecture=settings.architecture, seed=settings.seed,
    )  # fmt: skip
    table, document = measure_training(
        model, encoded, source, options=settings.training, limit=settings.limit,
        seed=settings.seed,
    )  # fmt: skip
    return _finished(table, document, output, "bench train", settings)


def bench_annotate(settings: BenchAnnotateSettings) -> str:
    """Measure annotation and return the Markdown table.

    ``limit`` dialogues of ``input`` (16 of the bundled corpus by default), drawn with ``seed``, are
    annotated by ``model`` or by random weights of ``architecture.from_scratch``.

    Raises:
        PalError: model, input or output cannot be used.
    """
    settings = BenchAnnotateSettings.of(settings)
    output = _prepare(settings)
    from pal.data.splits import load_split
    from pal.persona.cleaning import annotated_prefixes
    from pal.speed.annotate import build_or_load_extractor, measure_annotation

    source = settings.input or str(bundled("sample", "esconv", "train.jsonl"))
    rows = list(load_split(source, settings.split, how=settings.data))
    random.Random(settings.seed).shuffle(rows)
    prefixes = [
        prefix
        for row in rows[: settings.limit or DIALOGUES]
        for prefix in annotated_prefixes(row["dialog"], settings.annotate.start).values()
    ]
    if not prefixes:
        raise DataError(f"input={source}: no dialogue to annotate; give another input")
    if not settings.model and settings.architecture.from_scratch is None:
        raise ConfigError(
            "bench annotate: give model=, or sizes as architecture.from_scratch (the "
            "persona_extractor block of --config small has them)"
        )
    _refuse_language(settings, "bench annotate")
    model, encoder = build_or_load_extractor(
        settings.model, settings.architecture, prefixes, seed=settings.seed, dtype=settings.dtype
    )
    table, document = measure_annotation(
        model, encoder, prefixes, f"from {Path(source).name}", how=settings.annotate,
        batch_tokens=settings.batch_tokens, batch_rows=settings.batch_rows,
    )  # fmt: skip
    return _finished(table, document, output, "bench annotate", settings)


def bench_metrics(settings: BenchMetricsSettings) -> str:
    """Measure ROUGE-L and Distinct against plain Python and return the Markdown table.

    ``limit`` sets the number of pairs. Texts are not written.

    Raises:
        PalError: inputs or output cannot be used, or the values of the two sides differ.
    """
    settings = BenchMetricsSettings.of(settings)
    output = _prepare(settings)
    from pal.speed.metrics import load_pairs, measure_metrics

    pairs = load_pairs(settings.predictions, count=settings.limit, seed=settings.seed)
    table, document = measure_metrics(*pairs)
    return _finished(table, document, output, "bench metrics", settings)


def bench_llm(settings: BenchLlmSettings) -> str:
    """Measure the language model client and return the Markdown table.

    A round has ``limit`` requests (2,000 by default), ``llm.connections`` of them at once. Both
    sides take turns for ``bench.rounds`` rounds.

    Raises:
        PalError: the output exists already, or a side got wrong answers.
    """
    settings = BenchLlmSettings.of(settings)
    output = _prepare(settings)
    from pal.speed.llm import REQUESTS, measure_client

    table, document = measure_client(
        settings.llm, count=settings.limit or REQUESTS, rounds=settings.bench.rounds
    )
    return _finished(table, document, output, "bench llm", settings)


def bench_serve(settings: BenchServeSettings) -> str:
    """Measure the server and return the Markdown table.

    ``limit`` contexts of ``input`` (64 by default) are answered for one client after another, and
    for 64 at once.

    Raises:
        PalError: model, input or output cannot be used, or a reply depends on others.
    """
    settings = BenchServeSettings.of(settings)
    output = _prepare(settings)
    settings.require("model", "input")
    from pal.conversation.session import open_session
    from pal.data.samples import load_samples
    from pal.speed.serve import CLIENTS, measure_serving

    samples = load_samples(
        str(settings.input), settings.split, settings.data, limit=settings.limit or CLIENTS
    )
    session = open_session(settings, rows=settings.serve.rows, shows_help=False)
    table, document = measure_serving(
        session, samples, settings.serve, rounds=settings.bench.rounds
    )
    return _finished(table, document, output, "bench serve", settings)


def bench_scale(settings: BenchScaleSettings) -> str:
    """Measure every stage on ``limit`` synthetic dialogues (10,000 by default), return the table.

    The corpus and what the stages write lie where the system has its temporary files (``TMPDIR``),
    and are deleted at the end.

    Raises:
        PalError: the models or the output cannot be used, or a stage failed.
    """
    settings = BenchScaleSettings.of(settings)
    output = _prepare(settings)
    from pal.speed.scale import measure_scale

    chosen = settings.bench
    for stage, key, name in (
        ("tokens", "model", settings.model), ("generate", "model", settings.model),
        ("annotate", "bench.extractor", chosen.extractor),
    ):  # fmt: skip
        if stage in chosen.stages and name is None:
            raise ConfigError(
                f"bench.stages: {stage} needs a model; give {key}=… (`pal quickstart` makes one), "
                "or other stages"
            )
    if "eval" in chosen.stages and "generate" not in chosen.stages:
        raise ConfigError(
            "bench.stages: eval reads what generate writes; add it, or leave out eval"
        )
    table, document = measure_scale(
        dialogues=settings.limit or SYNTHETIC, seed=settings.seed, model=settings.model,
        **chosen.model_dump(),
    )  # fmt: skip
    return _finished(table, document, output, "bench scale", settings)


def _prepare(settings: BenchSettings) -> Path | None:
    """Configure the runtime and return the path of the JSON file, if any.

    Raises:
        OutputError: there is an older measurement, or the place cannot be written.
    """
    configure_runtime()
    output = Path(settings.output) if settings.output else None
    if output and output.exists() and not settings.overwrite:
        raise OutputError(f"{output} exists; give overwrite=true to replace it, or another output")
    if output:
        from pal.core.job import output_lock

        with output_lock(output):  # what cannot be written shows before the work
            pass
    return output


def _finished(
    table: str,
    document: Mapping[str, Any],
    output: Path | None,
    command: str,
    settings: BenchSettings,
) -> str:
    """Write the JSON of a measurement if an output is set, and return the table."""
    if output:
        from pal.core.files import write_json
        from pal.core.job import Job
        from pal.speed.machine import machine

        run = Job(command, settings, output).describe(**machine())
        write_json(output, {**document, "run": run})
    return table
