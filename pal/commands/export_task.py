"""``pal export-task``: the benchmark as a task of lm-evaluation-harness and of inspect_ai.

Both programs ask a model what ``pal answer`` asks it, and score with this package's own metrics, so
that their scores are those of ``pal eval``.
"""

import logging
from pathlib import Path
from typing import Annotated

from pal.commands.common import DialogueSettings
from pal.core.errors import OutputError
from pal.core.settings import OutputPath, worded
from pal.decoding.settings import SampleSettings
from pal.metrics.settings import MetricSettings
from pal.supporter.settings import SupporterSettings

logger = logging.getLogger(__name__)

TaskName = Annotated[
    str,
    worded(
        "[a-z][a-z0-9_]*", "should be of lower-case letters, digits and underscores, a letter first"
    ),
]


class ExportTaskSettings(DialogueSettings):
    """Write the samples of a split as a task for other evaluation programs.

    Attributes:
        output: folder to write.
        overwrite: replace an existing task.
        task_name: name of the task in both programs.
        decoding: which turns are samples.
    """

    examples = (
        "pal export-task input=bundled:esconv split=test output=runs/task",
        "pal export-task input=runs/pesconv split=test output=runs/task supporter.persona=true "
        "supporter.strategy_first=true limit=50",
    )

    output: OutputPath | None = None
    overwrite: bool = False
    task_name: TaskName = "pal_esc"
    decoding: SampleSettings = SampleSettings()
    supporter: SupporterSettings = SupporterSettings()
    metrics: MetricSettings = MetricSettings()


def export_task(settings: ExportTaskSettings) -> Path:
    """Write the samples of ``input`` and the files that run them to the folder ``output``.

    Raises:
        PalError: the input cannot be used, or the folder holds something or cannot be written.
    """
    settings = ExportTaskSettings.of(settings)
    given, target = settings.require("input", "output")
    output = Path(target)
    from pal.core.files import new_folder
    from pal.core.job import counted, output_lock, version_of
    from pal.data.cards import cards_note
    from pal.data.samples import load_stamped_samples
    from pal.harness.scoring import ABOUT
    from pal.harness.tasks import write_task

    _check_output(output, given, settings.overwrite, ABOUT)
    samples, stamp = load_stamped_samples(
        given, settings.split, settings.data, rule=settings.decoding.samples, limit=settings.limit
    )
    if settings.supporter.persona and not any(sample.persona for sample in samples):
        logger.warning("no sample of %s has a persona, so the prompts contain none", given)
    with output_lock(output), new_folder(output) as unfinished:
        write_task(
            unfinished, samples, name=settings.task_name, supporter=settings.supporter,
            metrics=settings.metrics,
            about={
                "protocol": stamp, "made with": f"pal-esc {version_of('pal-esc')}",
                **cards_note(settings.data.cards),
            },
        )  # fmt: skip
    logger.info("%s written to %s", counted(len(samples), "sample"), output)
    return output


def _check_output(output: Path, given: str, overwrite: bool, mark: str) -> None:
    """Refuse a folder that is not to be replaced; one without the file ``mark`` never is.

    Raises:
        OutputError: it is one.
    """
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output} is a file; give the name of a folder as output")
    if not output.is_dir() or not any(output.iterdir()):
        return
    if not overwrite:
        raise OutputError(f"{output} is not empty; choose another output, or overwrite=true")
    if not (output / mark).is_file():
        raise OutputError(
            f"{output} holds something that is not an exported task, which overwrite=true does not "
            "replace; choose another output"
        )
    if output.resolve() in (Path(given).resolve(), *Path(given).resolve().parents):
        raise OutputError(f"output={output} holds the input itself; choose another output")
