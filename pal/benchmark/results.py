"""From runs to the table: scores, spread, significance, case studies, in files and as a page.

It is long because all that the results hold is put together here, in the order of the document.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pal.benchmark.notices import notices_of
from pal.benchmark.persona_analysis import analyze_personas
from pal.benchmark.report.page import check_protocols, write_page
from pal.benchmark.similarity_analysis import analyze_similarity
from pal.benchmark.stages import LOG, FinishedRun
from pal.benchmark.strategy_analysis import analyze_strategies
from pal.benchmark.systems import FURTHER_SCORES, TABLE_3, System, printed_row
from pal.core.errors import DataError
from pal.core.files import read_json, sweep_temporary, write_json, write_text
from pal.core.job import Job, counted, record_beside
from pal.data.audit import describe_audit, summarise_audit
from pal.data.predictions import read_outside, read_predictions
from pal.data.protocols import describe_stamp
from pal.data.samples import Sample
from pal.metrics import (
    METRICS,
    Embedder,
    Report,
    build_predictions,
    compute_metrics,
    find_metric,
    group_by_dialogue,
)
from pal.metrics.base import VOCAB_SIZE
from pal.metrics.settings import MetricSettings
from pal.stats.permutation import compare_systems
from pal.stats.resampling import Spread, spreads
from pal.stats.settings import StatisticsSettings

logger = logging.getLogger(__name__)

NOTES = (
    "Mean ± standard deviation over training seeds. Intervals: percentile bootstrap over test "
    "dialogues (for Distinct, EAD and repeated responses random halves, without replacement), with "
    "the trained models fixed. Self-BLEU has none: the value of a response depends on all others.",
    "Tests: paired permutation by dialogue, two-sided; p adjusted by Holm's method over all "
    "comparisons in the metrics of Table 3, and separately over all others.",
)


OTHER_TOKENS = (
    "Perplexity is per token, and these systems cut texts into different tokens: compare it only "
    "between systems of one tokenizer, and others by nats_per_word. No test compares perplexities "
    "of different tokens."
)


class ScoredRuns:
    """Every run with its records and scores.

    Args:
        runs: runs trained here, and runs of outside systems.
        samples: the test samples of all runs.
        metrics: settings of the scores.
        embedder: sentence encoder for cos_sim.
        reasons: reasons for missing inputs, such as the encoder.
        models: the models of :func:`pal.metrics.models.load_score_models`.

    Raises:
        PalError: predictions cannot be used.
    """

    def __init__(
        self,
        runs: Sequence[FinishedRun],
        samples: Sequence[Sample],
        metrics: MetricSettings,
        embedder: Embedder | None = None,
        reasons: Mapping[str, str] | None = None,
        models: Mapping[str, Any] | None = None,
    ):
        from tqdm.auto import tqdm

        self.runs, self.samples, self.metrics = list(runs), list(samples), metrics
        self.embedder = embedder
        self.records = [_read_run(run, samples) for run in runs]
        sizes = [read_json(run.losses)["vocab_size"] for run in runs if run.losses]
        self.vocab_size = sizes[0] if sizes else VOCAB_SIZE  # for EAD, the same in the whole table
        self.reports: list[Report] = []
        self.targets: list[list[float] | None] = []  # tokens of each gold response
        rows = zip(runs, self.records, strict=True)
        for run, records in tqdm(rows, desc="score", unit="run", total=len(runs), disable=None):
            losses: dict[str, Any] = {"vocab_size": self.vocab_size}
            if run.losses:
                losses = read_json(run.losses)
            predictions = build_predictions(
                records, losses, embedder, tokenizer=metrics.tokenizer,
                reasons={**(reasons or {}), **run.reasons}, models=models,
            )  # fmt: skip
            self.reports.append(compute_metrics(predictions, metrics.names, metrics.variant))
            self.targets.append(losses.get("token_count"))

    def by_system(self) -> dict[str, list[int]]:
        """Return the indices of the runs of each system."""
        found: dict[str, list[int]] = {}
        for number, run in enumerate(self.runs):
            found.setdefault(run.system, []).append(number)
        return found

    def same_tokens(self, one: str, other: str) -> bool:
        """Return whether two systems cut the gold responses into as many tokens each."""
        numbers = self.by_system()
        return self.targets[numbers[one][0]] == self.targets[numbers[other][0]]

    def authors_values(self, number: int) -> dict[str, float]:
        """Return the values of the authors' scripts for a run, for keys where they can differ."""
        if self.metrics.variant == "authors":
            return {}
        report = self.reports[number]
        families = {meta.family for meta in report.meta.values()}
        names = [name for name in METRICS if name in families]
        keys = [key for name in names for key in find_metric(name).authors_differ]
        keys = [key for key in keys if key in report.values]
        if not keys:
            return {}
        predictions = build_predictions(
            self.records[number], {"vocab_size": self.vocab_size}, tokenizer=self.metrics.tokenizer
        )
        return compute_metrics(predictions, keys, "authors").values


def build_results(
    scored: ScoredRuns,
    systems: Mapping[str, System],
    statistics: StatisticsSettings,
    *,
    rule: str | int,
) -> dict[str, Any]:
    """Return the results of all systems in the format of results.json, without the run's record.

    Args:
        scored: the runs.
        systems: systems trained here, by name.
        statistics: settings of intervals and tests.
        rule: rule for the choice of checkpoints.
    """
    groups = group_by_dialogue(sample.id for sample in scored.samples)
    logger.info("intervals and tests over %s", counted(groups.max() + 1, "dialogue"))
    numbers = scored.by_system()
    grouped = {
        name: [scored.reports[number].by_group(groups) for number in several]
        for name, several in numbers.items()
    }
    options = statistics.model_dump(include={"confidence", "resamples", "seed"})
    spread, draws = spreads(grouped, **options)
    tests = compare_systems(grouped, draws, primary=TABLE_3, **options)
    perplexities = set(find_metric("ppl").keys) - {"nats_per_word"}
    comparable = [
        test for test in tests if test.metric not in perplexities
        or scored.same_tokens(test.a, test.b)
    ]  # fmt: skip
    others = [OTHER_TOKENS] if len(comparable) < len(tests) else []
    for name, several in numbers.items():  # plug-ins that give only a corpus value
        reports = [scored.reports[number] for number in several]
        for key in reports[0].values.keys() - spread[name].keys():
            values = [report.values[key] for report in reports if key in report.values]
            sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
            spread[name][key] = Spread(float(np.mean(values)), sd, None, None)
    keys = _order({key for table in spread.values() for key in table})
    others += [*base_notes(scored, systems), *unanswered_notes(scored, systems)]
    meta = {key: report.meta[key] for report in reversed(scored.reports) for key in report.meta}
    labels = labels_of(scored, systems)
    document: dict[str, Any] = {
        "kind": "results",
        "format": 1,
        "title": _title(len(numbers), len({run.seed for run in scored.runs} - {None})),
        "samples": len(scored.samples),
        "dialogues": int(groups.max()) + 1,
        "confidence": statistics.confidence,
        "metrics": {key: asdict(meta[key]) for key in keys},
        "systems": {},
        "tests": [asdict(test) for test in comparable],
        "notes": [*NOTES, *others, f"Checkpoint: {rule}."],
    }
    for name, several in numbers.items():
        authors = [scored.authors_values(number) for number in several]
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
            "missing": {
                key: why for n in several for key, why in scored.reports[n].missing.items()
            },
            "runs": [_describe_run(scored.runs[n], scored.reports[n]) for n in several],
        }
    return document


def base_notes(scored: ScoredRuns, systems: Mapping[str, System]) -> list[str]:
    """Return a sentence for each base: which systems were trained from it, and of what size.

    The names of systems are those of the paper, also where a base is much smaller than its own.
    """
    whose: dict[str, dict[str, int]] = {}  # base → parameters by label
    for name, several in scored.by_system().items():
        folder = scored.runs[several[0]].model
        record = record_beside(folder) if folder is not None else {}
        architecture = (record.get("settings") or {}).get("architecture")
        size = record.get("parameters")
        if not isinstance(architecture, Mapping) or not isinstance(size, int):
            continue
        base = "random weights" if architecture.get("from_scratch") else architecture.get("base")
        whose.setdefault(str(base), {})[labels_of(scored, systems)[name]] = size
    notes = []
    for base, sizes in whose.items():
        ends = dict.fromkeys(f"{end(sizes.values()) / 1e6:.3g}" for end in (min, max))
        systems_of = ", ".join(sizes)
        notes.append(f"Trained from {base} ({' to '.join(ends)} million parameters): {systems_of}.")
    return notes


def unanswered_notes(scored: ScoredRuns, systems: Mapping[str, System]) -> list[str]:
    """Return a sentence on every system some of whose requests brought no response."""
    notes = []
    for name, several in scored.by_system().items():
        records = [record for number in several for record in scored.records[number]]
        failed = sum("failed" in record for record in records)
        if failed:
            chosen = any(record.get("strategy") for record in records)
            notes.append(
                f"{labels_of(scored, systems)[name]}: {failed} of {len(records)} requests were "
                "refused or malformed; they count as empty responses"
                f"{' of the strategy Others' if chosen else ''}."
            )
    return notes


def labels_of(scored: ScoredRuns, systems: Mapping[str, System]) -> dict[str, str]:
    """Return the label of each system."""
    names = scored.by_system()
    return {name: systems[name].label if name in systems else name for name in names}


def build_analysis(
    scored: ScoredRuns,
    systems: Mapping[str, System],
    dialogues: Sequence[Mapping[str, Any]],
    *,
    embedder_name: str,
    confidence: float,
) -> dict[str, Any]:
    """Return the analysis of the test dialogues and of the responses of all seeds.

    Strategies are counted over all seeds; scores of strategies are means over seeds.

    Args:
        scored: the runs.
        systems: systems trained here, by name.
        dialogues: the test dialogues.
        embedder_name: name of the embedder of the similarity.
        confidence: confidence level of the intervals of the similarity.
    """
    labels, numbers = labels_of(scored, systems), scored.by_system()
    embedder = scored.embedder
    rounds = max(map(len, numbers.values()))
    by_seed = []
    for turn in range(rounds):
        records = {
            name: scored.records[several[turn]]
            for name, several in numbers.items() if turn < len(several)
        }  # fmt: skip
        found = analyze_strategies(
            records, labels=labels, embedder=embedder, tokenizer=scored.metrics.tokenizer
        )
        if found:
            by_seed.append(found)
    seeds = {run.seed for run in scored.runs if run.seed is not None}
    return {
        "kind": "analysis",
        "format": 1,
        "title": "Test dialogues and responses of all seeds",
        "seeds": sorted(seeds),
        "similarity": embedder
        and analyze_similarity(dialogues, embedder, embedder_name, confidence=confidence),
        "strategies": join_seeds(by_seed),
        "personas": analyze_personas(dialogues),
    }


def join_seeds(analyses: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Join the analyses of :func:`analyze_strategies` over seeds: sums of counts, means of scores.

    Args:
        analyses: one analysis per seed, in which some systems may be missing.
    """
    if not analyses:
        return None
    systems: dict[str, list[Mapping[str, Any]]] = {}
    for analysis in analyses:
        for name, found in analysis["systems"].items():
            systems.setdefault(name, []).append(found)
    return {
        "gold": analyses[0]["gold"],
        "systems": {name: _join_system(several) for name, several in systems.items()},
    }


def _join_system(several: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    tops = [one["top"] for one in several if one["top"] is not None]
    counts = [one["confusion"] for one in several if one["confusion"] is not None]
    shares: dict[str, int] = {}
    for one in several:
        for strategy, count in one["distribution"].items():
            shares[strategy] = shares.get(strategy, 0) + count
    return {
        **several[0],
        "n": sum(one["n"] for one in several),
        "top": np.mean(tops, axis=0).tolist() if tops else None,
        "confusion": np.sum(counts, axis=0).tolist() if counts else None,
        "distribution": shares,
        "per_strategy": [
            _join_rows(rows) for rows in zip(*(one["per_strategy"] for one in several), strict=True)
        ],
    }


def _join_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the joined row of one strategy: sums of counts, means of available scores."""
    joined: dict[str, Any] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row[key] for row in rows if row.get(key) is not None]
        if key == "strategy" or not values:
            joined[key] = rows[0].get(key)
        elif key.startswith("n_"):
            joined[key] = int(sum(values))
        else:
            joined[key] = float(np.mean(values))
    return joined


def write_results(
    job: Job,
    scored: ScoredRuns,
    systems: Mapping[str, System],
    dialogues: Sequence[Mapping[str, Any]],
    *,
    statistics: StatisticsSettings,
    rule: str | int,
    sources: Sequence[str],
    embedder_name: str = "",
    cases: int = 200,
    include: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
    protocol: Mapping[str, Any] | None = None,
    audit: Mapping[str, Any] | None = None,
) -> str:
    """Write results.json, cases.json, analysis.json, table.md and report.html; return the table.

    Args:
        job: job of results.json, which is written last, so that existing results are complete.
        scored: the runs.
        systems: systems trained here, by name.
        dialogues: the test dialogues.
        statistics: settings of intervals and tests.
        rule: rule for the choice of checkpoints.
        sources: corpora, for the notice that they are samples.
        embedder_name: name of the embedder of the similarity.
        cases: maximum number of case studies.
        include: further parts of the page.
        facts: further entries of the record of the run.
        protocol: what the results say of their protocol, see :mod:`pal.data.protocols`.
        audit: report on duplicates in the corpus, see :mod:`pal.data.audit`.

    Raises:
        PalError: a part cannot be used, or the folder cannot be written.
    """
    root = job.output.parent
    table, page = root / "table.md", root / "report.html"
    document = build_results(scored, systems, statistics, rule=rule)
    trained = [run.model for run in scored.runs if run.model]
    document["notices"] = notices_of(sources, trained, protocol=protocol)
    document["protocol"] = None if protocol is None else dict(protocol)
    if protocol is not None:
        document["notes"].insert(0, describe_stamp(protocol))
    if audit is not None:
        document["audit"] = summarise_audit(audit)
        document["notes"].insert(1 if protocol is not None else 0, describe_audit(audit))
    document["run"] = job.describe(**(facts or {}))
    analysis = build_analysis(
        scored, systems, dialogues, embedder_name=embedder_name, confidence=statistics.confidence
    )
    analysis |= {name: document[name] for name in ("protocol", "notices", "run")}
    text = markdown_results(document)
    parts = [document, analysis]
    if cases:
        firsts = {name: several[0] for name, several in scored.by_system().items()}
        seeds = [seed for n in firsts.values() if (seed := scored.runs[n].seed) is not None]
        studies = build_cases(
            scored.samples, {name: scored.records[number] for name, number in firsts.items()},
            labels_of(scored, systems), cases, seed=seeds[0] if seeds else None,
        )  # fmt: skip
        studies["seed_of"] = {name: scored.runs[number].seed for name, number in firsts.items()}
        studies |= {name: document[name] for name in ("protocol", "notices")}
        parts.append(studies)
    more = [read_json(path) for path in include]
    check_protocols([("these results", document), *zip(include, more, strict=True)])

    def write(path: Path) -> None:
        for other in (table, page, root / "analysis.json", root / "cases.json"):
            sweep_temporary(other)
        write_json(root / "analysis.json", analysis)
        if cases:
            write_json(root / "cases.json", studies, private=True)
        else:
            (root / "cases.json").unlink(missing_ok=True)
        write_page(page, [*parts, *more], title=document["title"])
        write_text(table, text + "\n")
        write_json(path, document)

    job.publish(write)
    logger.info("written: %s, %s, %s", job.output, table, page)
    return text


def build_cases(
    samples: Sequence[Sample],
    records: Mapping[str, Sequence[Mapping[str, Any]]],
    labels: Mapping[str, str],
    most: int,
    *,
    seed: int | None = None,
) -> dict[str, Any]:
    """Return case studies: evenly spread test samples with the responses of all systems.

    Args:
        samples: the test samples.
        records: predictions of each system, in the order of the samples.
        labels: label of each system.
        most: maximum number of cases.
        seed: seed of the responses.
    """
    step = max(1, -(-len(samples) // most))
    chosen = range(0, len(samples), step)
    turns: dict[str, Sequence[Mapping[str, Any]]] = {}
    for index in chosen:  # the longest context of a dialogue contains the others
        turns[samples[index].dialogue_id] = samples[index].context
    return {
        "kind": "cases",
        "format": 1,
        "seed": seed,
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
    """Return results as Markdown: Table 3 with spread, further scores, then the differences."""
    keys = [key for key in document["metrics"] if key in TABLE_3]
    lines = _heads(document, keys)
    for system in document["systems"].values():
        cells = [_cell(system["summary"].get(key)) for key in keys]
        lines.append(f"| {system['label']} | {' | '.join(cells)} |")
        if system["printed"]:
            printed = [f"*{system['printed'][key]:g}*" for key in keys]
            lines.append(f"| *as printed in the paper* | {' | '.join(printed)} |")
    if further := [key for key in FURTHER_SCORES if key in document["metrics"]]:
        share = f"{100 * document['confidence']:g} %"
        lines += ["", f"Further scores, with {share} intervals where there are any:", ""]
        lines += _heads(document, further)
        for system in document["systems"].values():
            cells = [_cell(system["summary"].get(key), interval=True) for key in further]
            lines.append(f"| {system['label']} | {' | '.join(cells)} |")
    labels = {name: system["label"] for name, system in document["systems"].items()}
    pairs = dict.fromkeys((test["a"], test["b"]) for test in document["tests"])
    by = {(test["a"], test["b"], test["metric"]): test for test in document["tests"]}
    if pairs:
        lines += ["", "Differences (first − second) and p after Holm's adjustment; * p < 0.05:", ""]
        lines += [f"| systems | {' | '.join(keys)} |", f"| --- |{' ---: |' * len(keys)}"]
        for a, b in pairs:
            cells = [_difference(by.get((a, b, key))) for key in keys]
            lines.append(f"| {labels[a]} − {labels[b]} | {' | '.join(cells)} |")
    gone: dict[tuple[str, str], dict[str, None]] = {}  # (whose, why) → names of scores
    for system in document["systems"].values():
        for key, why in system["missing"].items():
            whose = f" of {system['label']}" if key in document["metrics"] else ""
            gone.setdefault((whose, why), {})[key] = None
    missing = [
        f"Left out: {', '.join(names)}{whose} ({why})." for (whose, why), names in gone.items()
    ]
    notes = [
        f"{counted(document['samples'], 'sample')} of {counted(document['dialogues'], 'dialogue')}."
    ]
    notes += document["notes"]
    notes += missing
    return "\n".join([*lines, "", *notes])


def _heads(document: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """Return the two lines that a table of these metrics begins with."""
    arrows = {"higher": " ↑", "lower": " ↓", "none": ""}
    heads = [f"{key}{arrows[document['metrics'][key]['direction']]}" for key in keys]
    return [f"| system | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(keys)}"]


def _cell(spread: Mapping[str, Any] | None, *, interval: bool = False) -> str:
    if spread is None:
        return "–"
    sd = "" if spread["sd"] is None else f" ± {spread['sd']:.2g}"
    ends = ""
    if interval and spread["low"] is not None:
        ends = f" ({spread['low']:.3g} to {spread['high']:.3g})"
    return f"{spread['mean']:.4g}{sd}{ends}"


def _difference(test: Mapping[str, Any] | None) -> str:
    if test is None:
        return "–"
    star = "*" if test["p_holm"] < 0.05 else ""
    return f"{round(test['difference'], 9) + 0.0:+.3g} ({test['p_holm']:.2g}){star}"


def _order(keys: set[str]) -> list[str]:
    """Return keys in order: those of Table 3 first, then the others as in the metrics' table."""
    known = [key for metric in METRICS.values() for key in metric.keys]
    order = [*TABLE_3, *known, *sorted(keys)]
    return [key for key in dict.fromkeys(order) if key in keys]


def _read_run(run: FinishedRun, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Return the predictions of a run in the order of the samples."""
    if run.seed is None:
        return read_outside(run.predictions, samples)
    found = read_predictions(run.predictions)
    if [record["id"] for record in found] != [sample.id for sample in samples]:
        raise DataError(
            f"{run.predictions}: the ids are not those of the test samples; delete it to make it "
            "again"
        )
    return found


def _title(systems: int, seeds: int) -> str:
    counts = [(systems, "system"), (seeds, "seed")]
    return ", ".join(f"{n} {what}{'' if n == 1 else 's'}" for n, what in counts if n)


def _describe_run(run: FinishedRun, report: Report) -> dict[str, Any]:
    curve = []
    if run.model:
        for entry in read_json(run.model / LOG):
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
