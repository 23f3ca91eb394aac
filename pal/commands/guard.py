"""``pal guard``: train a second detector for the guard on one's own data, and measure a guard.

``train`` writes a folder that ``guard.model`` names. ``eval`` reads labelled messages, or
dialogues, with the guard of the settings, and says what it finds.
"""

import logging
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pal.commands.common import WriterSettings
from pal.core.errors import ConfigError, OutputError
from pal.core.settings import (
    AnyModelSource,
    CommandSettings,
    Count,
    InputPath,
    OutputPath,
    Section,
    Source,
)
from pal.data.settings import ReadingSettings
from pal.guard.settings import GuardSettings
from pal.stats.settings import ConfidenceSettings

logger = logging.getLogger(__name__)


class HeadSettings(Section):
    """Training of a head on sentence vectors.

    Attributes:
        messages: labelled messages: JSON lines with text, label (crisis or none) and preferably
            source.
        background: ordinary dialogues; their seeker turns count as messages labelled none.
        encoder: sentence encoder, a hub id or folder; the trained detector refers to it and needs
            it.
        false_alarms: share of the messages labelled none that the threshold may flag.
        folds: number of cross-validation folds for choosing thresholds; messages from one source
            stay in one fold.
    """

    messages: list[InputPath] = []
    background: Source | None = None
    encoder: AnyModelSource = "sentence-transformers/all-MiniLM-L6-v2"
    false_alarms: Annotated[float, Field(gt=0, lt=0.5)] = 0.02
    folds: Annotated[int, Field(ge=2, le=20)] = 5


class TrainGuardSettings(CommandSettings):
    """Train a second detector for the guard on labelled messages.

    Attributes:
        output: folder to write; give it as guard.model.
        overwrite: replace what this command wrote before.
        limit: use at most this many background turns.
    """

    examples = (
        "pal guard train head.messages=labelled.jsonl output=runs/guard",
        "pal guard train head.messages=[a.jsonl,b.jsonl] head.background=bundled:esconv "
        "output=runs/guard",
    )

    output: OutputPath | None = None
    overwrite: bool = False
    limit: Count | None = None
    data: ReadingSettings = ReadingSettings()
    head: HeadSettings = HeadSettings()
    statistics: ConfidenceSettings = ConfidenceSettings()


class EvaluateGuardSettings(WriterSettings):
    """Measure what the guard finds, in labelled messages or in dialogues.

    Attributes:
        input: labelled messages (JSON lines with text and label), or dialogues: a file, a folder, a
            hub id, or ``bundled:esconv``.
        split: split to read, where input is a folder or hub id with splits.
        limit: read at most this many messages or dialogues.
        output: JSON file to write; the tables are also printed.
    """

    examples = (
        "pal guard eval input=labelled.jsonl output=runs/guard.json",
        "pal guard eval input=bundled:esconv guard.model=runs/guard",
    )
    positional = "input"

    input: Source | None = None
    split: Literal["train", "validation", "test"] | None = None
    limit: Count | None = None
    data: ReadingSettings = ReadingSettings()
    guard: GuardSettings = GuardSettings()
    statistics: ConfidenceSettings = ConfidenceSettings()


def train_guard(settings: TrainGuardSettings) -> str:
    """Train a head on ``head.messages`` and write it to the folder ``output``.

    Returns:
        Its recall at several rates of false alarms, cross-validated by source, alone and together
        with the lexicon.

    Raises:
        PalError: settings, messages or encoder cannot be used, or the folder cannot be written.
    """
    settings = TrainGuardSettings.of(settings)
    (target,) = settings.require("output")
    if not settings.head.messages:
        raise ConfigError("missing settings: give head.messages=…, labelled messages")
    folder = Path(target)
    _refuse_other_work(folder, settings.overwrite)
    from pal.core.files import new_folder
    from pal.core.job import output_lock
    from pal.core.runtime import configure_runtime
    from pal.data.splits import load_split
    from pal.guard.rows import LabelledMessage, read_labelled, seeker_turns
    from pal.guard.training import describe_head, save_head, show_head, train_head
    from pal.metrics.similarity import load_embedder

    configure_runtime()
    rows = [row for path in settings.head.messages for row in read_labelled(path)]
    if settings.head.background is not None:
        dialogues = load_split(settings.head.background, None, how=settings.data, requests=True)
        turns = [turn for one in dialogues for turn in seeker_turns(one)][: settings.limit]
        rows += [
            LabelledMessage(turn, False, "background", "other", f"dialogue {place // 20}", ())
            for place, turn in enumerate(turns)
        ]
    embedder = load_embedder(settings.head.encoder, device="cpu")
    with output_lock(folder):
        head = train_head(
            [row.text for row in rows], [row.crisis for row in rows], [row.source for row in rows],
            embedder, folds=settings.head.folds, false_alarms=settings.head.false_alarms,
        )  # fmt: skip
        facts = describe_head(head, rows, settings.statistics.confidence)
        with new_folder(folder) as unfinished:
            save_head(
                unfinished, head, settings.head.encoder, embedder,
                false_alarms=settings.head.false_alarms, folds=settings.head.folds, trained=facts,
            )  # fmt: skip
    logger.info("written to %s", folder)
    return show_head(facts)


def evaluate_guard(settings: EvaluateGuardSettings) -> str:
    """Measure the guard on ``input`` and return the tables; with ``output``, write them as JSON.

    Raises:
        PalError: input or guard cannot be used, or a detector fails.
    """
    settings = EvaluateGuardSettings.of(settings)
    (source,) = settings.require("input")
    if settings.guard.off:
        raise ConfigError("guard.off=true: there is no guard to measure")
    from itertools import islice

    from pal.core.files import read_json, write_json
    from pal.core.job import COMPUTING, Job
    from pal.core.runtime import configure_runtime
    from pal.guard.evaluation import measure_dialogues, measure_messages, show_measured
    from pal.guard.guard import load_guard
    from pal.guard.rows import is_labelled, read_labelled

    job = None
    if settings.output is not None:
        versions = () if settings.guard.model is None else COMPUTING
        job = Job("guard eval", settings, settings.output, versions=versions)
        if job.is_finished():
            return show_measured(read_json(job.output))
    if settings.guard.model is not None:
        configure_runtime()
    confidence = settings.statistics.confidence
    labelled = is_labelled(source)
    if labelled:
        messages = read_labelled(source)[: settings.limit]
    else:
        from pal.data.splits import load_split

        dialogues = load_split(source, settings.split, how=settings.data, requests=True)
    guard = load_guard(settings.guard, shows_help=False)
    if labelled:
        found = measure_messages(guard, messages, confidence)
    else:
        found = measure_dialogues(guard, islice(dialogues, settings.limit), confidence)
    if job is not None:
        with job.claimed(processes=False):
            job.publish(lambda path: write_json(path, found))
        logger.info("written to %s", job.output)
    return show_measured(found)


def _refuse_other_work(folder: Path, overwrite: bool) -> None:
    """Refuse an output that exists, unless it is a folder of this command to be replaced.

    Raises:
        OutputError: it is something else, or ``overwrite`` is not set.
    """
    from pal.guard.models import HEAD_FILE

    if folder.is_file():
        raise OutputError(f"{folder} is a file; give the name of a folder as output")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / HEAD_FILE).is_file():
            raise OutputError(
                f"{folder} holds something that pal guard train did not write; choose another"
                " output"
            )
        if not overwrite:
            raise OutputError(f"{folder} exists; overwrite=true replaces it")
