"""Settings that several commands share."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pal.core.errors import CheckpointError, OutputError, suggest
from pal.core.job import Job, record_path
from pal.core.settings import (
    CommandSettings,
    Count,
    ModelPlace,
    ModelSource,
    OutputPath,
    Section,
    Source,
    marks_of,
)
from pal.data.settings import ReadingSettings, SourceSettings
from pal.guard.settings import GuardSettings
from pal.metrics.settings import MetricSettings

COMMON = re.compile(r"model|checkpoint(-\d+)?")  # folders of every run are called so


class WriterSettings(CommandSettings):
    """A command that writes one output.

    Attributes:
        output: file that the command writes.
        overwrite: replace an existing output.
    """

    output: OutputPath | None = None
    overwrite: bool = False


class CorpusSettings(CommandSettings):
    """A command that reads whole dialogues, with or without personas.

    Attributes:
        input: dialogues: a file, a folder, a hub id, or ``bundled:esconv``.
        split: split to read, where input is a folder or hub id with splits.
        limit: read at most this many dialogues.
    """

    input: Source | None = None
    split: Literal["train", "validation", "test"] | None = None
    limit: Count | None = None
    data: ReadingSettings = ReadingSettings()


class DialogueSettings(CommandSettings):
    """A command that reads dialogues.

    Attributes:
        input: dialogues: a file, a folder, a hub id, or ``bundled:esconv``.
        split: split to read, where input is a folder or hub id with splits.
        limit: use at most this many samples.
    """

    input: Source | None = None
    split: Literal["train", "validation", "test"] | None = None
    limit: Count | None = None
    data: SourceSettings = SourceSettings()


class InferenceSettings(CommandSettings):
    """A command that runs trained models.

    Attributes:
        dtype: number format of the weights.
        batch_tokens: maximum number of encoder positions in a batch.
        batch_rows: maximum number of rows in a batch.
    """

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_tokens: Count = 12288
    batch_rows: Count = 64


class ModelSettings(InferenceSettings):
    """A command that runs one trained model.

    Attributes:
        model: folder or hub id of the trained model.
    """

    model: ModelSource | None = None


class ResponseModelSettings(ModelSettings):
    """A command that runs a trained response model.

    Attributes:
        trusted_code: classes from outside the package that the model's configuration may name,
            their_package.module:Class.
    """

    trusted_code: list[str] = []


def check_models(settings: CommandSettings) -> None:
    """Refuse models that are not there, before libraries are loaded and long work begins.

    What a hub can have is left to it, unless HF_HUB_OFFLINE forbids it and the command loads the
    model in any case: a trained model, an extractor, the model of a guard that is not off. Models
    of scores are loaded where a sample can have the score; of commands that train first,
    :func:`check_score_models` refuses them. The base of a training is checked where it is known
    whether one is used, and a language model on this machine where a request is not answered by
    the cache.

    Args:
        settings: of any command.

    Raises:
        CheckpointError: nothing is there, or a folder of ours holds no model; the message names the
            setting.

    Example:
        >>> check_models(load_settings("eval", overrides=["metrics.nli=models/nil"]))
        CheckpointError: metrics.nli=models/nil: no such folder; did you mean 'models/nli'?
    """
    from pal.core.files import kind_of
    from pal.data.sources import check_downloaded, check_model_folder, check_model_place

    for key, source, place in _models_of(settings):
        where = f"{key}={source}"
        if kind_of(source) == "nothing" and (hint := suggest(source, place.words)):
            raise CheckpointError(f"{where}: no such folder{hint}")
        check_model_place(source, where, place.remedy, own=place.own)
        if place.own:
            check_model_folder(source, where, place.remedy)
        if place.loaded:
            check_downloaded(source, where, place.remedy)


def check_score_models(metrics: MetricSettings) -> None:
    """Refuse models of scores that cannot be had, of a command that trains before it scores.

    Every sample there has what the scores need, so a model that is named, and whose score is not
    left out by ``metrics.names``, is loaded in the end. Without one that is a default, the other
    scores are computed.

    Args:
        metrics: which scores, and by which models.

    Raises:
        CheckpointError: a named model is not there; the message names the setting.
        ConfigError: there is no such metric.

    Example:
        >>> check_score_models(MetricSettings(nli="owner/name"))  # with HF_HUB_OFFLINE set
        CheckpointError: metrics.nli=owner/name: no such folder, and not downloaded before, …
    """
    from pal.data.sources import check_downloaded, check_model_folder, check_model_place
    from pal.metrics.table import choose_metrics

    needed = {need for metric, _ in choose_metrics(metrics.names) for need in metric.needs}
    fields = {"embedder": "embedder", "bertscore": "token_encoder", "nli": "nli"}
    for key, source, place in _models_of(metrics):
        if fields[key] in needed:
            where = f"metrics.{key}={source}"
            check_model_place(source, where, place.remedy)
            check_model_folder(source, where, place.remedy, files=("config.json", "modules.json"))
            check_downloaded(source, where, place.remedy)


def _models_of(section: Section, prefix: str = "") -> Iterator[tuple[str, str, ModelPlace]]:
    """Yield (dotted key, folder or hub id, mark) of every model that was named, no default.

    The model of a guard that is off is none.
    """
    if isinstance(section, GuardSettings) and section.off:
        return
    for name, field in type(section).model_fields.items():
        value, place = getattr(section, name), None
        if name in section.model_fields_set:
            place = next((mark for mark in marks_of(field) if isinstance(mark, ModelPlace)), None)
        parts = value.items() if isinstance(value, Mapping) else [("", value)]
        for part, one in parts:
            key = f"{prefix}{name}.{part}".removesuffix(".")
            if isinstance(one, Section):
                yield from _models_of(one, f"{key}.")
            elif isinstance(one, str) and place is not None and one not in place.words:
                yield key, one, place


def model_name(source: str) -> str:
    """Return a model's name for people and clients: a hub id, or the last part of a folder's path.

    A folder that is called as in every other run comes with those around it, up to one whose name
    says more.

    Args:
        source: folder or hub id of a model.

    Example:
        >>> model_name("owner/model")
        'owner/model'
    """
    path = Path(source)
    if not path.exists():
        return source
    parts = path.resolve().parts[1:]  # without the root
    start = max(0, len(parts) - 1)
    while start and COMMON.fullmatch(parts[start]):
        start -= 1
    return "/".join(parts[start:])


def beside(job: Job, suffix: str) -> Path:
    """Return the path of a job's second file: its output's name with another suffix.

    Raises:
        OutputError: a file of that name exists that this job did not write, or that it reads.
    """
    path = job.output.with_suffix(suffix)
    job.spare_inputs(path)
    if path.exists() and not record_path(job.output).exists() and not job.overwrite:
        raise OutputError(
            f"{path} exists and was not made by pal {job.command}; choose another output"
        )
    job.beside.append(path)
    return path


def origin_of_responses(
    systems: Mapping[str, str], source: str = "", stamp: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what a comparison of systems says of their responses: protocol, notices and seeds.

    Args:
        systems: files of responses, by the name of their system.
        source: the dialogues that they answer; empty where the files hold whole dialogues.
        stamp: the protocol with which these dialogues were read.

    Returns:
        ``protocol`` (None where nothing says it), ``notices``, and ``seed_of`` by system.

    Raises:
        DataError: the responses are of different protocols.
    """
    from pal.benchmark.notices import join_notices, notices_beside, notices_of, seeds_beside
    from pal.data.protocols import check_responses

    protocol = check_responses(list(systems.values()), source, stamp)
    own = notices_of([source] if source else [], [], protocol=protocol)
    return {
        "protocol": protocol,
        "notices": join_notices(own, notices_beside(systems.values())),
        "seed_of": seeds_beside(systems),
    }
