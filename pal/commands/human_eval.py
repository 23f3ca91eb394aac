"""``pal human-eval``: blinded A/B sheets of responses, and the results of filled-in sheets.

``export`` writes a folder: ``for_raters/`` is handed out, ``key.json`` beside it is not. ``score``
reads that folder and the filled-in sheets.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pal.commands.common import DialogueSettings, WriterSettings, origin_of_responses
from pal.core.errors import ConfigError, DataError, OutputError
from pal.core.files import new_folder, read_json, sweep_temporary, write_json, write_text
from pal.core.job import Job, counted, record_path
from pal.core.settings import InputPath
from pal.decoding.settings import SampleSettings
from pal.human_eval.settings import (
    HumanAnswerSettings,
    HumanEvalSettings,
    PersonaSheetSettings,
)
from pal.stats.settings import StatisticsSettings

logger = logging.getLogger(__name__)


class ExportSheetsSettings(DialogueSettings, WriterSettings):
    """Write blinded sheets of two or more systems, and the key that says which is which.

    Attributes:
        input: dialogues that the responses belong to. Without it the systems' files contain whole
            dialogues, which are compared card by card.
        output: folder to write.
        human_eval: the systems that are compared.
    """

    examples = (
        "pal human-eval export input=pesconv.jsonl output=runs/sheets "
        "human_eval.systems='{pal: a.jsonl, joint: b.jsonl}'",
        "pal human-eval export output=runs/sheets human_eval.items=30 "
        "human_eval.systems='{both: dialogues.jsonl, none: dialogues.jsonl}'",
    )

    human_eval: HumanEvalSettings = HumanEvalSettings()
    decoding: SampleSettings = SampleSettings()


class ExportPersonasSettings(DialogueSettings, WriterSettings):
    """Write sheets on which people judge inferred personas, and their key.

    Attributes:
        input: dialogues with personas, as `pal annotate` writes them.
        output: folder to write.
        human_eval: how many samples.
    """

    examples = (
        "pal human-eval personas input=pesconv.jsonl output=runs/persona_sheets",
        "pal human-eval personas input=runs/pesconv split=test output=runs/persona_sheets "
        "human_eval.items=50",
    )

    human_eval: PersonaSheetSettings = PersonaSheetSettings()
    decoding: SampleSettings = SampleSettings()


class ScoreSheetsSettings(WriterSettings):
    """Read filled-in sheets: wins, ties and losses with tests and agreement.

    Attributes:
        input: folder that pal human-eval export or personas wrote.
        output: JSON file to write; the tables are written beside it as .md. Without it they are
            only printed.
        human_eval: the filled-in sheets of the raters.
        statistics: intervals, where personas were judged.
    """

    examples = (
        "pal human-eval score input=runs/sheets human_eval.answers=anna.csv,bo.csv",
        "pal human-eval score input=runs/sheets human_eval.answers=answers output=human.json",
    )

    input: InputPath | None = None
    human_eval: HumanAnswerSettings = HumanAnswerSettings()
    statistics: StatisticsSettings = StatisticsSettings()


def export_sheets(settings: ExportSheetsSettings) -> str:
    """Write blinded sheets of ``human_eval.systems`` into the folder ``output``.

    The folder is written completely or not at all; run an interrupted export again.

    Returns:
        What was written, and what to hand out.

    Raises:
        PalError: settings, responses, dialogues or output cannot be used.
    """
    settings = ExportSheetsSettings.of(settings)
    (target,) = settings.require("output")
    from pal.human_eval import choice
    from pal.human_eval.sheets import Question, read_key, write_sheets

    chosen, folder = settings.human_eval, Path(target)
    pairs = choice.choose_pairs(list(chosen.systems), chosen.pairs)
    if settings.input is None:
        questions: Sequence[Question] = choice.DIALOGUE_QUESTIONS
        responses = choice.read_transcripts(chosen.systems)
        samples = choice.samples_of_transcripts(responses)
        facts = origin_of_responses(chosen.systems)
    else:
        from pal.data.samples import load_stamped_samples

        questions = choice.PAL_QUESTIONS
        samples, stamp = load_stamped_samples(
            settings.input, settings.split, settings.data, rule=settings.decoding.samples,
            limit=settings.limit,
        )  # fmt: skip
        facts = origin_of_responses(chosen.systems, settings.input, stamp)
        responses = choice.read_responses(
            chosen.systems, samples, settings.input, limited=settings.limit is not None
        )
    job = Job(
        "human-eval export", settings, folder, versions=(),
        facts={"questions": [(question.name, question.text) for question in questions]},
    )  # fmt: skip
    if _is_written(job):
        return _export_summary(folder, read_key(folder), chosen.items)
    comparisons, compared = choice.draw_comparisons(
        pairs, samples, responses, items=chosen.items, seed=chosen.seed
    )
    key = _write_whole(
        job,
        lambda unfinished: write_sheets(
            unfinished,
            comparisons,
            questions,
            seed=chosen.seed,
            facts={"pairs": compared, **facts},
        ),
    )
    return _export_summary(folder, key, chosen.items)


def export_personas(settings: ExportPersonasSettings) -> str:
    """Write sheets on the personas of ``input`` into the folder ``output`` (Figure 6).

    The folder is written completely or not at all; run an interrupted export again.

    Returns:
        What was written, and what to hand out.

    Raises:
        PalError: settings, dialogues or output cannot be used.
    """
    settings = ExportPersonasSettings.of(settings)
    source, target = settings.require("input", "output")
    from pal.benchmark.notices import notices_of
    from pal.data.samples import load_stamped_samples
    from pal.human_eval.personas import (
        PERSONA_ANSWERS,
        PERSONA_QUESTION,
        draw_personas,
        read_persona_key,
        write_persona_sheets,
    )
    from pal.human_eval.sheets import FOLDER, KEY

    chosen, folder = settings.human_eval, Path(target)
    job = Job(
        "human-eval personas", settings, folder, versions=(),
        facts={"question": [PERSONA_QUESTION.text, *PERSONA_ANSWERS.values()]},
    )  # fmt: skip
    if _is_written(job):
        key = read_persona_key(folder)
    else:
        samples, stamp = load_stamped_samples(
            source, settings.split, settings.data, rule=settings.decoding.samples,
            limit=settings.limit,
        )  # fmt: skip
        drawn = draw_personas(samples, chosen.items, chosen.seed, source)
        facts = {"protocol": stamp, "notices": notices_of([source], [], protocol=stamp)}
        key = _write_whole(
            job,
            lambda unfinished: write_persona_sheets(
                unfinished, drawn, seed=chosen.seed, facts=facts
            ),
        )
    asked = "" if len(key["items"]) == chosen.items else f" ({chosen.items} were asked for)"
    return "\n".join([
        f"{counted(len(key['items']), 'item')} written to {folder / FOLDER}{asked}",
        f"Hand out {folder / FOLDER} (form.html or sheet.csv, with guidelines.md) to each rater.",
        f"Keep {folder / KEY} and {folder / 'run.json'} from them.",
        f"Then: pal human-eval score input={folder} human_eval.answers=[…] output=personas.json",
    ])  # fmt: skip


def _is_written(job: Job) -> bool:
    """Return whether a folder of sheets is there.

    Raises:
        OutputError: something else is.
    """
    from pal.human_eval.sheets import KEY

    folder = job.output
    strange = folder.is_dir() and any(folder.iterdir()) and not _is_export(folder, job.command)
    if folder.is_file() or strange:
        raise OutputError(f"{folder} exists and is not an export; give the name of a new folder")
    return record_path(folder).exists() and job.is_finished() and (folder / KEY).exists()


def _write_whole(job: Job, write: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Write a folder of sheets with its record, completely or not at all; return its key."""
    folder = job.output
    with job.claimed(processes=False), new_folder(folder) as unfinished:
        key = write(unfinished)
        write_json(unfinished / "run.json", job.describe(), private=True)
    return key


def _is_export(folder: Path, command: str) -> bool:
    """Return whether a folder is an export by its record, so that overwrite=true may remove it."""
    try:
        record = read_json(record_path(folder))
    except DataError:
        return False
    return isinstance(record, dict) and record.get("command") == command


def _export_summary(folder: Path, key: Mapping[str, Any], asked: int) -> str:
    from pal.human_eval.results import same_text
    from pal.human_eval.sheets import FOLDER, KEY

    lines = [f"{counted(len(key['items']), 'item')} written to {folder / FOLDER}"]
    for pair in key["pairs"]:
        line = f"- {pair['a']} vs. {pair['b']}: {counted(pair['items'], 'item')}"
        if pair["items"] < asked:
            line += f" ({asked} were asked for)"
        lines.append(f"{line}; {same_text(pair['same'], pair['samples'])}")
    lines += [
        f"Hand out {folder / FOLDER} (form.html or sheet.csv, with guidelines.md) to each rater.",
        f"Keep {folder / KEY} and {folder / 'run.json'} from them: they say which side is which.",
        f"Then: pal human-eval score input={folder} human_eval.answers=[…] output=human.json",
    ]
    return "\n".join(lines)


def score_sheets(settings: ScoreSheetsSettings) -> str:
    """Score the filled-in sheets ``human_eval.answers`` of the export in the folder ``input``.

    With ``output`` set, the result is written there as JSON and the tables beside it as Markdown.

    Returns:
        The tables, and the first of the problems.

    Raises:
        PalError: settings, key, answers or output cannot be used.
    """
    settings = ScoreSheetsSettings.of(settings)
    (source,) = settings.require("input")
    if not settings.human_eval.answers:
        raise ConfigError("missing settings: give human_eval.answers=[…], the filled-in sheets")
    from pal.human_eval.personas import is_persona_export
    from pal.human_eval.sheets import answer_files

    score = _score_personas if is_persona_export(source) else _score_pairs
    key, read = score(source, settings)
    files = answer_files(settings.human_eval.answers)
    output = Path(settings.output) if settings.output else None
    if output is None:
        return read(files)[1]
    if output.suffix == ".md":
        raise ConfigError(f"output={output}: give a .json name; the tables go beside it as .md")
    # The file's name stands for the rater where the file names none.
    facts = {"key": key, "names of answers": [str(file) for file in files]}
    job = Job("human-eval score", settings, output, versions=("scipy",), facts=facts)
    summary = output.with_suffix(".md")
    if job.is_finished() and summary.exists():
        return summary.read_text(encoding="utf-8").rstrip()
    found, tables = read(files)
    said: dict[str, Any] = {n: key[n] for n in ("protocol", "notices", "seed_of") if n in key}
    document: dict[str, Any] = {**found, "protocol": None, **said, "run": job.describe()}

    def write(path: Path) -> None:
        sweep_temporary(summary)
        write_text(summary, tables + "\n", private=True)
        write_json(path, document, private=True)

    with job.claimed(processes=False):
        job.publish(write)
    logger.info("written to %s", output)
    return tables


# What reads the answers: files in, document and tables out.
_Reading = Callable[[Sequence[Path]], tuple[dict[str, Any], str]]


def _score_pairs(source: str, settings: ScoreSheetsSettings) -> tuple[dict[str, Any], _Reading]:
    """Return the key of sheets that compare systems, and what reads their answers."""
    from pal.human_eval.results import results_tables, tally_votes
    from pal.human_eval.sheets import read_answers, read_key, refuse_empty

    key = read_key(source)

    def read(files: Sequence[Path]) -> tuple[dict[str, Any], str]:
        votes = read_answers(files, key)
        refuse_empty(votes.problems, len(votes.answers))
        results = tally_votes(key, votes)
        document = {"kind": "human", "format": 1, "pairs": results, "problems": votes.problems}
        return document, results_tables(results, votes.problems)

    return key, read


def _score_personas(source: str, settings: ScoreSheetsSettings) -> tuple[dict[str, Any], _Reading]:
    """Return the key of sheets on personas, and what reads their answers."""
    from pal.human_eval.personas import (
        judgement_tables,
        read_judgements,
        read_persona_key,
        tally_judgements,
    )
    from pal.human_eval.sheets import refuse_empty

    key = read_persona_key(source)

    def read(files: Sequence[Path]) -> tuple[dict[str, Any], str]:
        judgements = read_judgements(files, key)
        refuse_empty(judgements.problems, len(judgements.answers))
        document = tally_judgements(key, judgements, settings.statistics)
        return document, judgement_tables(document)

    return key, read
