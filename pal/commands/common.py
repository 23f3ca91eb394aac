"""Settings that several commands share."""

from pathlib import Path
from typing import Literal

from pal.core.errors import OutputError
from pal.core.job import Job, record_path
from pal.core.settings import CommandSettings, Count, OutputPath, Source
from pal.data.settings import ReadingSettings, SourceSettings


class WriterSettings(CommandSettings):
    """A command that writes one output.

    Attributes:
        output: file that the command writes.
        overwrite: whether an existing output is replaced.
    """

    output: OutputPath | None = None
    overwrite: bool = False


class CorpusSettings(CommandSettings):
    """A command that reads whole dialogues, with or without personas.

    Attributes:
        input: dialogues: a file, a folder, a hub id, or ``bundled:esconv``.
        split: which split of a folder or hub id ``input`` means.
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
        split: which split of a folder or hub id ``input`` means.
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
