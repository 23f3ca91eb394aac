"""``pal analyze``: analyses of a corpus and of responses beyond the table of scores.

Similarity of responses and persona against the seekers' scores (PAL paper, Figures 3 and 5),
strategies (Figure 4), and how much persona the dialogues hold at which turn (Table 1). Each part is
a function of its own in :mod:`pal.benchmark`; the command reads the files and writes the analysis
as JSON, with a Markdown summary beside it.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pal.benchmark.settings import AnalysisSettings
from pal.commands.common import WriterSettings, beside
from pal.core.errors import ConfigError, DataError
from pal.core.job import COMPUTING, SCORING, Job, counted, refuse_several_processes
from pal.core.runtime import configure_runtime
from pal.core.settings import Source
from pal.data.settings import SourceSettings
from pal.metrics.settings import TextSettings
from pal.stats.settings import ConfidenceSettings

if TYPE_CHECKING:
    from pal.metrics import Embedder

logger = logging.getLogger(__name__)


class AnalyzeSettings(WriterSettings):
    """Describe a corpus and responses: similarity, strategies, personas.

    Attributes:
        input: dialogues with personas: a file, a folder, a hub id, or ``bundled:esconv``.
        split: split to read, where input is a folder or hub id with splits.
        output: JSON file of the analysis; the summary is printed, and written beside it as .md.
    """

    examples = (
        "pal analyze input=runs/pesconv split=test output=runs/analysis.json",
        "pal analyze 'analyze.systems={PAL: pal.jsonl, Joint: joint.jsonl}'",
    )

    input: Source | None = None
    split: Literal["train", "validation", "test"] | None = None
    data: SourceSettings = SourceSettings()
    analyze: AnalysisSettings = AnalysisSettings()
    metrics: TextSettings = TextSettings()
    statistics: ConfidenceSettings = ConfidenceSettings()


def analyze(settings: AnalyzeSettings) -> str:
    """Analyse ``input``, ``analyze.systems`` or both, and return the Markdown summary.

    With ``output`` set, the analysis is written there as JSON and the summary beside it as .md.

    Raises:
        PalError: inputs, settings or output cannot be used, or nothing is there to analyse.
    """
    settings = AnalyzeSettings.of(settings)
    configure_runtime()
    if settings.input is None and not settings.analyze.systems:
        raise ConfigError("missing settings: give input=… or analyze.systems={name: file}, or both")
    if settings.output and settings.output.endswith(".md"):
        raise ConfigError(
            f"output={settings.output}: give a .json name; the summary goes beside it as .md"
        )
    refuse_several_processes("analyze")
    from pal.benchmark.notices import join_notices, notices_beside, notices_of, seeds_beside
    from pal.benchmark.persona_analysis import analyze_personas
    from pal.benchmark.similarity_analysis import analyze_similarity
    from pal.benchmark.strategy_analysis import analyze_strategies
    from pal.core.files import write_json, write_text
    from pal.data.cards import cards_note, give_cards
    from pal.data.predictions import read_predictions
    from pal.data.protocols import check_mergeable, check_responses, evaluation_rule, stamp_of
    from pal.data.samples import build_samples
    from pal.data.splits import is_cut_off, load_split

    job = Job(
        "analyze", settings, settings.output or "analysis.json", versions=(*SCORING, *COMPUTING)
    )
    summary_path = job.output.with_suffix(".md")
    if settings.output:
        summary_path = beside(job, ".md")
        if job.is_finished() and summary_path.exists():
            return summary_path.read_text(encoding="utf-8").rstrip()

    files = settings.analyze.systems
    protocol = check_responses(list(files.values()))
    systems = {name: read_predictions(path) for name, path in files.items()}
    dialogues: list[Mapping[str, Any]] = []
    personas = None
    if settings.input is None:
        logger.warning("no analysis of personas and similarity: no input=…")
    else:
        found = load_split(settings.input, settings.split, how=settings.data)
        dialogues = list(give_cards(found, settings.data.cards))
        personas = analyze_personas(dialogues)
        how = settings.data
        stamp = stamp_of(
            found, how, samples=len(build_samples(found, evaluation_rule(how))),
            seeded=is_cut_off(settings.input, settings.split, how),
        )  # fmt: skip
        if protocol is not None and how.protocol is not None:
            given = [(next(iter(files.values())), protocol), (settings.input, stamp)]
            check_mergeable(given, same_dialogues=False)
        protocol = protocol or stamp
    if personas is None and not systems:
        raise DataError(
            f"{settings.input}: nothing to analyse: no turn has a persona and no responses are "
            "given; infer personas first (pal annotate), or give analyze.systems={name: file}"
        )
    similarity = None
    name, embedder = _load_embedder(settings, dialogues if personas else [], systems)
    if personas:
        confidence = settings.statistics.confidence
        similarity = analyze_similarity(dialogues, embedder, name, confidence=confidence)
    analysis = {
        "kind": "analysis",
        "format": 1,
        "title": _title(settings),
        "protocol": protocol,
        "notices": join_notices(
            notices_of([settings.input] if settings.input else [], [], protocol=protocol),
            notices_beside(files.values()),
        ),
        "seed_of": seeds_beside(files),
        "similarity": similarity,
        "strategies": analyze_strategies(
            systems, embedder=embedder, tokenizer=settings.metrics.tokenizer
        ),
        "personas": personas,
        "run": job.describe(dialogues=len(dialogues), **cards_note(settings.data.cards)),
    }
    summary = analysis_summary(analysis)
    if settings.output:
        with job.claimed(processes=False):

            def write(path: Path) -> None:
                write_text(summary_path, summary + "\n")
                write_json(path, analysis)

            job.publish(write, dialogues=len(dialogues), **cards_note(settings.data.cards))
        logger.info("analysis written to %s", job.output)
    return summary


def analysis_summary(analysis: Mapping[str, Any]) -> str:
    """Return the Markdown summary of an analysis, one section per part."""
    lines = [f"# {analysis['title']}"]
    if similarity := analysis["similarity"]:
        lines += ["", *_similarity_lines(similarity)]
    if strategies := analysis["strategies"]:
        lines += ["", *_strategy_lines(strategies)]
    if personas := analysis["personas"]:
        lines += ["", *_persona_lines(personas)]
    return "\n".join(lines)


def _title(settings: AnalyzeSettings) -> str:
    if settings.input is None:
        return f"Analysis of {', '.join(settings.analyze.systems)}"
    split = f" ({settings.split})" if settings.split else ""
    return f"Analysis of {Path(settings.input).name}{split}"


def _load_embedder(
    settings: AnalyzeSettings,
    dialogues: Sequence[Mapping[str, Any]],
    systems: Mapping[str, Sequence[Mapping[str, Any]]],
) -> "tuple[str, Embedder | None]":
    """Return name and embedder; the embedder is None if no text has a persona to compare."""
    from pal.metrics.similarity import (
        load_embedder,
        load_if_possible,
        load_word_vectors,
        remember,
    )
    from pal.metrics.text import tokenize

    name, path = settings.metrics.embedder, settings.analyze.word_vectors
    records = [record for records in systems.values() for record in records]
    if not dialogues and not any(record.get("persona") for record in records):
        return name or "", None
    if path is None:
        if name is None:
            return "", None
        embedder, _ = load_if_possible(
            lambda: load_embedder(name), name,
            chosen="embedder" in settings.metrics.model_fields_set,
        )  # fmt: skip
        return name, remember(embedder) if embedder else None
    turns = [turn for row in dialogues for turn in row["dialog"]]
    texts = {turn["text"] for turn in turns if turn["speaker"] == "supporter"}
    texts.update(record["response"] for record in records)
    texts.update(" ".join(known.get("persona") or ()) for known in (*turns, *records))
    words = {word for text in texts for word in tokenize(text)}
    return Path(path).name, remember(load_word_vectors(path, words))


def _similarity_lines(part: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Similarity of responses and persona against the seeker's scores",
        "",
        f"{counted(part['dialogues'], 'dialogue')}, {counted(part['turns'], 'supporter turn')}; "
        f"left out: {counted(part['without_survey'], 'dialogue')} without survey, "
        f"{part['without_persona']} without persona. Embedder: {part['embedder']}.",
        "",
        *_table(
            ("score", "n", "slope", "R²", "R² (level means)", "Spearman rho", "p"),
            [
                (name, found["n"], *map(_number, (found[key] for key in (
                    "slope", "r2", "r2_levels", "rho", "p"))))
                for name, found in part["scores"].items()
            ],
        ),
        "",
        f"Mean similarity at each score, with its {part['confidence']:.0%} interval:",
        "",
        *_table(
            ("score", "level", "n", "mean", "low", "high"),
            [
                (name, f"{level['score']:g}", level["n"],
                 *(_number(level[key]) for key in ("mean", "low", "high")))
                for name, found in part["scores"].items()
                for level in found["levels"]
            ],
        ),
    ]  # fmt: skip
    return [*lines, "", f"{part['note'][0].upper()}{part['note'][1:]}."]


def _strategy_lines(part: Mapping[str, Any]) -> list[str]:
    systems, lines = part["systems"], ["## Strategies"]
    top = [(s["label"], *map(_number, s["top"])) for s in systems.values() if s["top"]]
    if top:
        head = ("top-n accuracy, %", *(f"n = {n}" for n in range(1, len(top[0]))))
        lines += ["", *_table(head, top)]
    chosen = [(s["label"], s["distribution"]) for s in systems.values() if s["distribution"]]
    columns = [*([("gold", part["gold"])] if part["gold"] else []), *chosen]
    if columns:
        rows = [
            (name, *(f"{100 * counts[name] / sum(counts.values()):.1f}" for _, counts in columns))
            for name in columns[0][1]
        ]
        lines += ["", *_table(("share of samples, %", *(label for label, _ in columns)), rows)]
    from pal.benchmark.strategy_analysis import TEXT_KEYS

    keys = ("n_gold", "n_predicted", "precision", "recall", "f1", *TEXT_KEYS)
    for system in systems.values():
        if system["per_strategy"]:
            rows = [
                (row["strategy"], *(_number(row[key]) for key in keys))
                for row in system["per_strategy"]
            ]
            lines += [
                "",
                f"{system['label']}, {counted(system['n'], 'sample')}, by gold strategy:",
                "",
            ]
            lines += _table(("strategy", *keys), rows)
    return lines


def _persona_lines(part: Mapping[str, Any]) -> list[str]:
    sentences, first, coverage = part["sentences"], part["first_turn"], part["coverage"]
    share = coverage["with_persona"] / coverage["turns"] if coverage["turns"] else 0
    return [
        "## Personas",
        "",
        f"- {part['with_persona']} of {part['dialogues']} dialogues have a persona.",
        f"- Sentences per dialogue: mean {sentences['mean']:.2f}, median {sentences['median']:g}, "
        f"most {sentences['max']}.",
        f"- First turn with a persona (1 = the first utterance): mean {first['mean']:.2f}, "
        f"median {first['median']:g}.",
        f"- Supporter turns after a seeker turn with a known persona: {coverage['with_persona']} "
        f"of {coverage['turns']} ({share:.1%}).",
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    marks = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(map(str, row))} |" for row in (head, marks, *rows)]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
