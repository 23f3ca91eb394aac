"""What the settings of several commands share."""

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
        overwrite: replace an existing output.
    """

    output: OutputPath | None = None
    overwrite: bool = False


class CorpusSettings(CommandSettings):
    """A command that reads dialogues as they are, whatever personas they hold.

    Attributes:
        input: dialogues: a file, a folder, a hub id, or ``bundled:esconv``.
        split: which split of a folder or hub id ``input`` means.
        limit: stop after so many dialogues.
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
        limit: stop after so many samples.
    """

    input: Source | None = None
    split: Literal["train", "validation", "test"] | None = None
    limit: Count | None = None
    data: SourceSettings = SourceSettings()


class InferenceSettings(CommandSettings):
    """A command that runs trained models.

    Attributes:
        dtype: number format of the weights.
        batch_tokens: encoder positions that a batch holds at most.
        batch_rows: rows that a batch holds at most.
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
        trusted_code: classes from outside of the package that the model's configuration may name,
            their_package.module:Class.
    """

    trusted_code: list[str] = []


def beside(job: Job, suffix: str) -> Path:
    """Return where a job writes a second file, named as its output but for the suffix.

    Raises:
        OutputError: a file of that name lies there that this output's job did not write, or reads.
    """
    path = job.output.with_suffix(suffix)
    job.spare_inputs(path)
    if path.exists() and not record_path(job.output).exists() and not job.overwrite:
        raise OutputError(
            f"{path} exists and was not made by pal {job.command}; choose another output"
        )
    job.beside.append(path)
    return path
