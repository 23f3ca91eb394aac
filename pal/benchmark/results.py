"""From runs to the table: scores, spread, significance, case studies, in files and as a page."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pal import __version__
from pal.benchmark.report import write_page
from pal.benchmark.stages import Run, source_fingerprint
from pal.benchmark.systems import TABLE_3, System, printed_row
from pal.commands.analyze import analyze_personas, analyze_similarity, analyze_strategies
from pal.commands.evaluate import build_predictions
from pal.commands.generate import load_samples
from pal.core.errors import DataError
from pal.core.files import (
    file_fingerprint,
    fingerprint,
    output_lock,
    read_json,
    write_json,
    write_text,
)
from pal.core.runs import describe_run
from pal.core.schema import Settings
from pal.core.tracking import track
from pal.data.predictions import read_outside, read_predictions
from pal.data.samples import Sample
from pal.data.splits import load_split
from pal.metrics import METRICS, Embedder, Report, compute_metrics, find_metric
from pal.metrics.base import VOCAB_SIZE
from pal.metrics.vectors import StoredEmbedder
from pal.stats.resampling import Spread, compare, group_samples, spreads, statistics_of

logger = logging.getLogger(__name__)

NOTES = (
    "Mean ± standard deviation over training seeds. Intervals: percentile bootstrap over test "
    "dialogues (for Distinct and EAD halves of them, without replacement), the trained models "
    "taken as they are.",
    "Tests: paired permutation by dialogue, two-sided; p adjusted by Holm's method over all "
    "comparisons in the metrics of Table 3, and apart from them over all others.",
)


def write_results(
    settings: Settings, systems: Mapping[str, System], runs: Sequence[Run], root: Path
) -> str:
    """Score all runs, compare the systems, write every result into ``root``; return the table.

    Args:
        settings: name the test dialogues, metrics, statistics and report.
        systems: those trained here.
        runs: their outputs.
        root: where results.json, cases.json, analysis.json, table.md and report.html go.

    Raises:
        PalError: predictions cannot be used, or the folder cannot be written.
    """
    outside = settings.reproduce.outside
    everything = [Run(name, None, Path(path)) for name, path in outside.items()]
    everything = [*runs, *everything]
    files = [path for run in everything for path in (run.predictions, run.losses) if path]
    metrics = [find_metric(name) for name in settings.metrics.names or METRICS]
    embedder = None
    if settings.metrics.embedder and any(metric.name == "similarity" for metric in metrics):
        embedder = StoredEmbedder(settings.metrics.embedder, root / "vectors.sqlite")
    identity = fingerprint(
        [
            settings.model_dump(include={"metrics", "statistics", "report", "tracking", "split",
                                         "limit"}),
            settings.data.model_dump(include={"split", "split_seed"}),
            source_fingerprint(settings.require("input")[0]), settings.decoding.samples,
            settings.reproduce.checkpoint, embedder and embedder.model,
            [file_fingerprint(path) for path in files],
            [[run.system, run.seed] for run in everything],
            [asdict(system) for system in systems.values()],
            [file_fingerprint(Path(path)) for path in settings.report.include],
            [[metric.name, metric.version] for metric in metrics], __version__,
        ]
    )  # fmt: skip
    results, table, page = root / "results.json", root / "table.md", root / "report.html"
    finished = all(path.exists() for path in (results, table, page, root / "analysis.json"))
    if finished and read_json(results)["run"]["identity"] == identity:
        logger.info("%s is up to date", results)
        return table.read_text(encoding="utf-8").rstrip()

    with output_lock(results):
        results.unlink(missing_ok=True)  # written last: what lies there is whole or not there
        samples = load_samples(settings)
        records = {str(run.predictions): _records(run, samples) for run in everything}
        sizes = [read_json(run.losses)["vocab_size"] for run in everything if run.losses]
        vocab_size = sizes[0] if sizes else VOCAB_SIZE  # of EAD, the same in the whole table
        reports = score_runs(settings, everything, records, embedder, vocab_size)
        groups = group_samples([sample.id for sample in samples])
        logger.info("intervals and tests over %d dialogues", groups.max() + 1)
        by_system: dict[str, list[tuple[Run, Report]]] = {}
        for run, report in zip(everything, reports, strict=True):
            by_system.setdefault(run.system, []).append((run, report))
        statistics = {
            name: [statistics_of(report, groups) for _, report in several]
            for name, several in by_system.items()
        }
        options = settings.statistics.model_dump()
        spread, draws = spreads(statistics, **options)
        tests = compare(statistics, draws, primary=TABLE_3, **options)
        for name, several in by_system.items():  # plug-ins that give the corpus value alone
            for key in several[0][1].values.keys() - spread[name].keys():
                values = [report.values[key] for _, report in several if key in report.values]
                sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
                spread[name][key] = Spread(float(np.mean(values)), sd, None, None)
        keys = _order({key for table in spread.values() for key in table})
        first = {key: report.meta[key] for report in reversed(reports) for key in report.meta}
        labels = {name: systems[name].label if name in systems else name for name in by_system}
        document: dict[str, Any] = {
            "kind": "results",
            "format": 1,
            "title": _title(labels, settings.reproduce.seeds if systems else ()),
            "samples": len(samples),
            "dialogues": int(groups.max()) + 1,
            "confidence": settings.statistics.confidence,
            "metrics": {key: asdict(first[key]) for key in keys},
            "systems": {},
            "tests": [asdict(test) for test in tests],
            "notes": [*NOTES, f"Checkpoint: {settings.reproduce.checkpoint}."],
            "run": describe_run(settings, "reproduce", identity),
        }
        for name, several in by_system.items():
            authors = [
                _authors_values(settings, records[str(run.predictions)], report, vocab_size)
                for run, report in several
            ]
            document["systems"][name] = {
                "label": labels[name],
                "note": systems[name].note if name in systems else f"responses from {name}",
                "printed": printed_row(name),
                "summary": {key: asdict(spread[name][key]) for key in keys if key in spread[name]},
                "authors": {
                    key: float(np.mean([values[key] for values in authors]))
                    for key in authors[0]
                    if all(key in values for values in authors)
                },
                "missing": {k: v for _, report in several for k, v in report.missing.items()},
                "runs": [_describe(run, report) for run, report in several],
            }
        first_records = {
            name: records[str(several[0][0].predictions)] for name, several in by_system.items()
        }
        dialogues = _dialogues(settings)
        parts = [document]
        confidence = settings.statistics.confidence
        analysis = {
            "kind": "analysis",
            "format": 1,
            "title": "Test dialogues and responses of the first seed",
            "similarity": embedder
            and analyze_similarity(dialogues, embedder, embedder.name, confidence=confidence),
            "strategies": analyze_strategies(first_records, labels=labels, embedder=embedder),
            "personas": analyze_personas(dialogues),
            "run": document["run"],
        }
        write_json(root / "analysis.json", analysis)
        parts.append(analysis)
        if settings.report.cases:
            cases = build_cases(samples, first_records, labels, settings.report.cases)
            write_json(root / "cases.json", cases)
            parts.append(cases)
        else:
            (root / "cases.json").unlink(missing_ok=True)
        parts += [read_json(path) for path in settings.report.include]
        text = markdown_results(document)
        write_page(page, parts, title=document["title"])
        write_text(table, text + "\n")
        write_json(results, document)
    for run, report in zip(everything, reports, strict=True):
        seed = "" if run.seed is None else f"-seed{run.seed}"
        track(settings, run.system + seed, report.values, records[str(run.predictions)])
    logger.info("written: %s, %s, %s", results, table, page)
    return text


def score_runs(
    settings: Settings,
    runs: Sequence[Run],
    records: Mapping[str, list[dict[str, Any]]],
    embedder: Embedder | None,
    vocab_size: int,
) -> list[Report]:
    """Return the scores of every run; each distinct text is embedded once.

    Args:
        settings: their ``metrics`` block decides.
        runs: the runs.
        records: predictions by file name.
        embedder: sentence encoder of cos_sim.
        vocab_size: V of EAD for runs without a model.
    """
    from tqdm.auto import tqdm

    reports = []
    for run in tqdm(runs, desc="score", unit="run", dynamic_ncols=True):
        losses = read_json(run.losses) if run.losses else {"vocab_size": vocab_size}
        predictions = build_predictions(records[str(run.predictions)], losses, embedder)
        reports.append(
            compute_metrics(predictions, settings.metrics.names, settings.metrics.variant)
        )
    return reports


def build_cases(
    samples: Sequence[Sample],
    records: Mapping[str, Sequence[Mapping[str, Any]]],
    labels: Mapping[str, str],
    most: int,
) -> dict[str, Any]:
    """Return case studies: samples spread evenly over the test set, with every system's response.

    Args:
        samples: the test samples.
        records: each system's predictions, in the samples' order.
        labels: how each system is called.
        most: cases at most.
    """
    step = max(1, -(-len(samples) // most))
    chosen = range(0, len(samples), step)
    turns: dict[str, Sequence[Mapping[str, Any]]] = {}
    for index in chosen:  # the longest context of a dialogue holds the others
        turns[samples[index].dialogue_id] = samples[index].context
    return {
        "kind": "cases",
        "format": 1,
        "systems": [{"name": name, "label": labels[name]} for name in records],
        "dialogues": {
            name: [{k: turn.get(k) for k in ("speaker", "text", "strategy")} for turn in dialog]
            for name, dialog in turns.items()
        },
        "cases": [
            {
                "id": samples[index].id,
                "dialogue": samples[index].dialogue_id,
                "turn": samples[index].turn,
                "persona": list(samples[index].persona),
                "strategy": samples[index].strategy,
                "reference": samples[index].response,
                "responses": {
                    name: {k: found[index].get(k) for k in ("strategy", "response", "alpha")}
                    for name, found in records.items()
                },
            }
            for index in chosen
        ],
    }


def markdown_results(document: Mapping[str, Any]) -> str:
    """Return results as Markdown: the paper's Table 3 with spread, then what differs clearly."""
    keys = [key for key in document["metrics"] if key in TABLE_3]
    arrows = {"higher": " ↑", "lower": " ↓", "none": ""}
    heads = [f"{key}{arrows[document['metrics'][key]['direction']]}" for key in keys]
    lines = [f"| system | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(keys)}"]
    for system in document["systems"].values():
        cells = [_cell(system["summary"].get(key)) for key in keys]
        lines.append(f"| {system['label']} | {' | '.join(cells)} |")
        if system["printed"]:
            printed = [f"*{system['printed'][key]:g}*" for key in keys]
            lines.append(f"| *as printed in the paper* | {' | '.join(printed)} |")
    labels = {name: system["label"] for name, system in document["systems"].items()}
    pairs = dict.fromkeys((test["a"], test["b"]) for test in document["tests"])
    by = {(test["a"], test["b"], test["metric"]): test for test in document["tests"]}
    if pairs:
        lines += ["", "Differences (first − second) and p after Holm's adjustment; * p < 0.05:", ""]
        lines += [f"| systems | {' | '.join(keys)} |", f"| --- |{' ---: |' * len(keys)}"]
        for a, b in pairs:
            cells = [_difference(by.get((a, b, key))) for key in keys]
            lines.append(f"| {labels[a]} − {labels[b]} | {' | '.join(cells)} |")
    missing = [
        f"Left out: {key} of {system['label']} ({why})."
        for system in document["systems"].values() for key, why in system["missing"].items()
        if key in document["metrics"]
    ]  # fmt: skip
    nowhere = {k: r for s in document["systems"].values() for k, r in s["missing"].items()
               if k not in document["metrics"]}  # fmt: skip
    missing += [f"Left out: {key} ({why})." for key, why in nowhere.items()]
    notes = [f"{document['samples']} samples of {document['dialogues']} dialogues."]
    notes += document["notes"]
    notes += missing
    return "\n".join([*lines, "", *notes])


def _cell(spread: Mapping[str, Any] | None) -> str:
    if spread is None:
        return "–"
    sd = "" if spread["sd"] is None else f" ± {spread['sd']:.2g}"
    return f"{spread['mean']:.4g}{sd}"


def _difference(test: Mapping[str, Any] | None) -> str:
    if test is None:
        return "–"
    star = "*" if test["p_holm"] < 0.05 else ""
    return f"{round(test['difference'], 9) + 0.0:+.3g} ({test['p_holm']:.2g}){star}"


def _order(keys: set[str]) -> list[str]:
    """Table 3's keys first, then the others as the metrics' table has them."""
    known = [key for metric in METRICS.values() for key in metric.keys]
    order = [*TABLE_3, *known, *sorted(keys)]
    return [key for key in dict.fromkeys(order) if key in keys]


def _records(run: Run, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Return a run's predictions in the samples' order."""
    if run.seed is None:
        return read_outside(run.predictions, samples)
    found = read_predictions(run.predictions)
    if [record["id"] for record in found] != [sample.id for sample in samples]:
        raise DataError(
            f"{run.predictions}: its ids are not those of the test samples; delete it to make it "
            "anew"
        )
    return found


def _title(labels: Mapping[str, str], seeds: Sequence[int]) -> str:
    def count(number: int, what: str) -> str:
        return f"{number} {what}{'' if number == 1 else 's'}"

    return ", ".join(
        [count(len(labels), "system"), *([count(len(seeds), "seed")] if seeds else [])]
    )


def _authors_values(
    settings: Settings, records: list[dict[str, Any]], report: Report, vocab_size: int
) -> dict[str, float]:
    """What the authors' scripts compute, for the keys where that can differ."""
    if settings.metrics.variant == "authors":
        return {}
    families = {meta.family for meta in report.meta.values()}
    keys = [key for name in METRICS if name in families for key in find_metric(name).authors_differ]
    keys = [key for key in keys if key in report.values]
    if not keys:
        return {}
    predictions = build_predictions(records, {"vocab_size": vocab_size})
    return compute_metrics(predictions, keys, "authors").values


def _describe(run: Run, report: Report) -> dict[str, Any]:
    curve = []
    if run.model:
        for entry in read_json(run.model / "training_log.json"):
            point = {"train_loss": entry.get("loss"), "validation_nll": entry.get("eval_nll")}
            point = {key: value for key, value in point.items() if value is not None}
            if point and "epoch" in entry:
                curve.append({"epoch": entry["epoch"], **point})
    return {
        "seed": run.seed,
        "checkpoint": run.checkpoint and run.checkpoint.name,
        "epoch": run.epoch,
        "validation_nll": run.validation_nll,
        "values": report.values,
        "model": run.model and str(run.model),
        "predictions": str(run.predictions),
        "curve": curve,
    }


def _dialogues(settings: Settings) -> list[dict[str, Any]]:
    (source,) = settings.require("input")
    data = settings.data
    return list(
        load_split(source, settings.split, mode=data.split, seed=data.split_seed, requests=True)
    )
