"""``pal analyze``: what a corpus and responses show beyond a table of scores.

Similarity of responses and persona against the seekers' scores (PAL paper, Figures 3 and 5),
strategies (Figure 4), and how much persona the dialogues hold and when (Table 1). Each part is a
function of its own; ``analyze`` reads the files, writes analysis.json and a Markdown summary.
"""

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pal.benchmark.similarity_analysis import analyze_similarity
from pal.benchmark.strategy_analysis import TEXT_KEYS, analyze_strategies
from pal.core.errors import ConfigError, DataError
from pal.core.files import file_fingerprint, write_json, write_text
from pal.core.job import claimed, is_finished, record_path
from pal.core.runs import describe_run, identity_of
from pal.core.schema import Settings
from pal.data.predictions import read_predictions
from pal.data.samples import build_samples
from pal.data.splits import load_split
from pal.metrics import Embedder, load_embedder
from pal.metrics.similarity import load_word_vectors, remember
from pal.metrics.text import tokenize

__all__ = ["analyze", "analyze_personas", "analyze_similarity", "analyze_strategies", "markdown"]

logger = logging.getLogger(__name__)


def analyze(settings: Settings) -> str:
    """Analyse ``input`` and/or ``analyze.systems``; returns the Markdown summary.

    With ``output`` set, the analysis is written there as JSON and the summary beside it as .md.

    Raises:
        PalError: inputs, settings or output cannot be used, or there is nothing to analyse.
    """
    if settings.input is None and not settings.analyze.systems:
        raise ConfigError("missing settings: give input=… or analyze.systems={name: file}, or both")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError("analyze runs in one process; start it without torchrun or accelerate")
    output = Path(settings.output) if settings.output else None
    if output and output.suffix == ".md":
        raise ConfigError(f"output={output}: give a .json name; the summary goes beside it as .md")
    identity = _identity(settings)
    done = output and is_finished(output, identity, overwrite=settings.overwrite)
    if output and done and output.with_suffix(".md").exists():
        logger.info("%s is finished already; overwrite=true would make it anew", output)
        return output.with_suffix(".md").read_text(encoding="utf-8").rstrip()

    systems = {name: read_predictions(path) for name, path in settings.analyze.systems.items()}
    dialogues: list[Mapping[str, Any]] = []
    personas = None
    if settings.input is None:
        logger.warning("no analysis of personas and similarity: no input=…")
    else:
        mode, seed = settings.data.split, settings.data.split_seed
        dialogues = list(load_split(settings.input, settings.split, mode=mode, seed=seed))
        personas = analyze_personas(dialogues)
    if personas is None and not systems:
        raise DataError(
            f"{settings.input}: nothing to analyse: no turn has a persona and no responses are "
            "given; infer personas first (pal annotate), or give analyze.systems={name: file}"
        )
    similarity = None
    name, embedder = _embedder(settings, dialogues if personas else [], systems)
    if personas:
        confidence = settings.statistics.confidence
        similarity = analyze_similarity(dialogues, embedder, name, confidence=confidence)
    analysis = {
        "kind": "analysis",
        "format": 1,
        "title": _title(settings),
        "similarity": similarity,
        "strategies": analyze_strategies(systems, embedder=embedder),
        "personas": personas,
        "run": describe_run(settings, "analyze", identity, dialogues=len(dialogues)),
    }
    summary = markdown(analysis)
    if output:
        with claimed(output):
            output.unlink(missing_ok=True)  # the record first: a kill between the two is harmless
            write_json(record_path(output), analysis["run"])
            write_text(output.with_suffix(".md"), summary + "\n")
            write_json(output, analysis)
        logger.info("analysis written to %s", output)
    return summary


def analyze_personas(dialogues: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Describe how much persona dialogues hold, and from when on (PAL paper, Table 1).

    Args:
        dialogues: rows of :func:`pal.data.load_esconv`.

    Returns:
        The part ``personas`` of analysis.json. ``sentences`` are those known at a dialogue's end,
        over all dialogues (0 where none); ``first_turn`` is over dialogues with a persona; turns
        count from 1; ``coverage`` is of the supporter turns that evaluation answers, those after a
        seeker turn. None, with the reason logged, if no turn has a persona: what a file says of a
        whole conversation alone is not known at any turn.
    """
    sentences: list[int] = []
    first: list[int] = []
    covered: defaultdict[int, list[bool]] = defaultdict(list)
    for dialogue in dialogues:
        known = [bool(turn["persona"]) for turn in dialogue["dialog"]]
        sentences.append(len(dialogue["dialog"][-1]["persona"]))
        if any(known):
            first.append(known.index(True) + 1)
        for sample in build_samples([dialogue], "evaluation"):
            covered[sample.turn + 1].append(bool(sample.persona))
    if not first:
        logger.warning(
            "no analysis of personas and similarity: no turn of the %d dialogues has a persona; "
            "pal annotate infers them", len(sentences),
        )  # fmt: skip
        return None
    return {
        "dialogues": len(sentences),
        "with_persona": len(first),
        "sentences": {
            "mean": float(np.mean(sentences)),
            "sd": float(np.std(sentences, ddof=1)) if len(sentences) > 1 else None,
            "median": float(np.median(sentences)),
            "max": max(sentences),
            "histogram": _histogram(sentences),
        },
        "first_turn": {
            "mean": float(np.mean(first)),
            "median": float(np.median(first)),
            "histogram": _histogram(first),
        },
        "coverage": {
            "turns": sum(map(len, covered.values())),
            "with_persona": sum(map(sum, covered.values())),
            "by_turn": [[turn, sum(on) / len(on)] for turn, on in sorted(covered.items())],
        },
    }


def markdown(analysis: Mapping[str, Any]) -> str:
    """Return the summary of an analysis: a section for each part that there is."""
    lines = [f"# {analysis['title']}"]
    if similarity := analysis["similarity"]:
        lines += ["", *_similarity_lines(similarity)]
    if strategies := analysis["strategies"]:
        lines += ["", *_strategy_lines(strategies)]
    if personas := analysis["personas"]:
        lines += ["", *_persona_lines(personas)]
    return "\n".join(lines)


def _identity(settings: Settings) -> str:
    """Hash what decides the analysis: settings, and the content of the files they name."""
    sources = [settings.input, settings.analyze.word_vectors, *settings.analyze.systems.values()]
    if settings.analyze.word_vectors is None:
        sources.append(settings.metrics.embedder)
    files = {}
    for source in filter(None, sources):
        found = [Path(source), *sorted(Path(source).glob("*"))]
        files[source] = [file_fingerprint(path) for path in found if path.is_file()]
    return identity_of(
        settings, "analyze", "split", "data", files=files, embedder=settings.metrics.embedder,
        confidence=settings.statistics.confidence,
    )  # fmt: skip


def _title(settings: Settings) -> str:
    if settings.input is None:
        return f"Analysis of {', '.join(settings.analyze.systems)}"
    split = f" ({settings.split})" if settings.split else ""
    return f"Analysis of {Path(settings.input).name}{split}"


def _embedder(
    settings: Settings,
    dialogues: Sequence[Mapping[str, Any]],
    systems: Mapping[str, Sequence[Mapping[str, Any]]],
) -> tuple[str, Embedder | None]:
    """Return name and embedder, None where no text has a persona to be compared with."""
    name, path = settings.metrics.embedder, settings.analyze.word_vectors
    records = [record for records in systems.values() for record in records]
    if not dialogues and not any(record.get("persona") for record in records):
        return name or "", None
    if path is None:
        return name or "", remember(load_embedder(name)) if name else None
    turns = [turn for row in dialogues for turn in row["dialog"]]
    texts = {turn["text"] for turn in turns if turn["speaker"] == "supporter"}
    texts.update(record["response"] for record in records)
    texts.update(" ".join(known.get("persona") or ()) for known in (*turns, *records))
    words = {word for text in texts for word in tokenize(text)}
    return Path(path).name, remember(load_word_vectors(path, words))


def _histogram(values: Sequence[int]) -> list[list[int]]:
    return [[value, count] for value, count in sorted(Counter(values).items())]


# The summary.


def _similarity_lines(part: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Similarity of responses and persona against the seeker's scores",
        "",
        f"{part['dialogues']} dialogues, {part['turns']} supporter turns; left out: "
        f"{part['without_survey']} dialogues without survey, {part['without_persona']} without "
        f"persona. Embedder: {part['embedder']}.",
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
    keys = ("n_gold", "n_predicted", "precision", "recall", "f1", *TEXT_KEYS)
    for system in systems.values():
        if system["per_strategy"]:
            rows = [
                (row["strategy"], *(_number(row[key]) for key in keys))
                for row in system["per_strategy"]
            ]
            lines += ["", f"{system['label']}, {system['n']} samples, by gold strategy:", ""]
            lines += _table(("strategy", *keys), rows)
    return lines


def _persona_lines(part: Mapping[str, Any]) -> list[str]:
    sentences, first, coverage = part["sentences"], part["first_turn"], part["coverage"]
    share = coverage["with_persona"] / coverage["turns"] if coverage["turns"] else 0
    return [
        "## Personas",
        "",
        f"- {part['with_persona']} of {part['dialogues']} dialogues have a persona.",
        f"- Sentences a dialogue: mean {sentences['mean']:.2f}, median {sentences['median']:g}, "
        f"most {sentences['max']}.",
        f"- First turn with a persona (1 = the first utterance): mean {first['mean']:.2f}, "
        f"median {first['median']:g}.",
        f"- Supporter turns after a seeker turn that know a persona: {coverage['with_persona']} "
        f"of {coverage['turns']} ({share:.1%}).",
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    marks = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(map(str, row))} |" for row in (head, marks, *rows)]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
