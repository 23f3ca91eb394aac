"""Settings that several commands share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pal.core.errors import OutputError
from pal.core.job import Job, record_path, sources_of
from pal.core.settings import CommandSettings, Count, OutputPath, Source
from pal.data.settings import ReadingSettings, SourceSettings


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

    model: Source | None = None


class ResponseModelSettings(ModelSettings):
    """A command that runs a trained response model.

    Attributes:
        trusted_code: classes from outside the package that the model's configuration may name,
            their_package.module:Class.
    """

    trusted_code: list[str] = []


# What to give where the folder of a model is not there, by the end of its key.
MODEL_KEYS = {
    "guard.model": "give the folder that pal guard train wrote, or a hub id",
    "extractor": "give the folder that task=persona_extractor wrote",
    "model": "give the folder that training wrote, or one of its checkpoints",
}


def check_models(settings: CommandSettings) -> None:
    """Refuse models whose folders are not there, before libraries are loaded, which takes seconds.

    Args:
        settings: of any command.

    Raises:
        CheckpointError: nothing is at the path of one; a hub id is left to the hub.
    """
    from pal.data.sources import check_model_place

    for key, source in sources_of(settings):
        for end, remedy in MODEL_KEYS.items():
            if f".{key}".endswith(f".{end}"):
                check_model_place(source, f"{key}={source}", remedy)


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
