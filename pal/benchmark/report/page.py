"""The page of the benchmark, made from its parts."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pal.benchmark.notices import join_notices, notices_of, notices_of_settings
from pal.benchmark.report import figures, summary, tables
from pal.benchmark.report.parts import (
    KINDS,
    Alpha,
    Analysis,
    Cases,
    Human,
    JudgedPairs,
    JudgedRatings,
    Results,
    ScoresPart,
)
from pal.benchmark.systems import TABLE_3
from pal.core.files import write_text
from pal.core.job import counted
from pal.data.protocols import check_mergeable
from pal.data.strategies import STRATEGIES
from pal.judging.tables import NOT_PEOPLE
from pal.report.charts import series_class
from pal.report.page import PageSection, lay_out
from pal.report.parts import Part, check_part
from pal.report.tables import number_grid
from pal.report.words import WORDS

OWN_TEMPLATES = Path(__file__).parent / "templates"
FIRST_TABLE = "Metrics of the paper’s Table 3"


def render_page(parts: Sequence[Part], title: str) -> str:
    """Return the page of these parts; the same parts give the same text."""
    parts = sorted(parts, key=lambda part: list(KINDS).index(part.kind))
    sections = list(_sections(parts))
    if not any(isinstance(part, Results) for part in parts):
        # Nothing is compared: what systems say comes before scores of it.
        sections.sort(key=lambda section: not isinstance(section.part, Cases))
    return lay_out(
        title, sections, parts, facts=_facts(parts), notices=_notices(parts),
        summary=_summary(parts), templates=[OWN_TEMPLATES],
        context={"labels": _labels(parts), "not_people": NOT_PEOPLE, "whose": _whose,
                 "metric_name": tables.metric_name, "metric_meaning": tables.metric_meaning},
    )  # fmt: skip


def check_protocols(parts: Sequence[tuple[str, Any]]) -> None:
    """Refuse results of different protocols on one page, where readers would compare them.

    What says something of systems must be of the same samples. An α that was chosen on other
    dialogues needs the same rules alone, and an analysis of a corpus without responses nothing.

    Args:
        parts: (name of the file, its contents) of every part.

    Raises:
        DataError: two results are of different protocols; the message says what differs.
    """
    found = [
        (name, part, part["protocol"])
        for name, part in parts
        if isinstance(part, Mapping) and isinstance(part.get("protocol"), Mapping)
    ]
    systems = [(name, stamp) for name, part, stamp in found if _is_of_systems(part)]
    check_mergeable(systems)
    chosen = [(name, stamp) for name, part, stamp in found if part.get("kind") == "alpha"]
    check_mergeable([*systems[:1], *chosen], same_dialogues=False)


def _is_of_systems(part: Mapping[str, Any]) -> bool:
    """Return whether a part says something of systems' responses to the test samples."""
    if part.get("kind") == "analysis":
        return bool((part.get("strategies") or {}).get("systems"))
    return part.get("kind") != "alpha"


def _sections(parts: Sequence[Part]) -> Iterator[PageSection]:
    """Yield the sections there is data for, in the page's order, each kind's parts in theirs."""
    series = _series(parts)
    makers: tuple[tuple[str, str, type[Part], Callable[..., dict[str, Any] | None]], ...] = (
        ("results", "Results", Results, _results),
        ("significance", "Significance", Results, _significance),
        ("training", "Training", Results, _training),
        ("similarity", "Persona and support", Analysis, _similarity),
        ("strategies", "Strategies", Analysis, _strategies),
        ("personas", "Personas", Analysis, _personas),
        ("alpha", "Contrast weight α", Alpha, _alpha),
        ("human", "Human evaluation", Human, _human),
        ("judged-pairs", "Judged by language models: pairs", JudgedPairs, _judged),
        ("judged-ratings", "Judged by language models: ratings", JudgedRatings, _judged),
        ("cases", WORDS["cases"], Cases, _cases),
    )
    scores = [part for part in parts if isinstance(part, ScoresPart)]
    if scores:  # one table of all
        data = _scores(scores, _labels(parts))
        yield PageSection("scores", "Scores of single files", "scores.html", scores[0], data)
    for name, heading, kind, make in makers:
        alike = [part for part in parts if isinstance(part, kind)]
        found = [(part, make(part, series, f"{name}-{n}")) for n, part in enumerate(alike, 1)]
        kept = [(part, data) for part, data in found if data is not None]
        for number, (part, data) in enumerate(kept, start=1):
            ident = name if number == 1 else f"{name}-{number}"
            more = f": {part.title or number}" if len(kept) > 1 else ""
            yield PageSection(ident, heading + more, f"{name}.html", part, data)


def _series(parts: Sequence[Part]) -> dict[str, int]:
    """Give every system's label its colour and marker, the same in all sections."""
    labels: list[str] = []
    for part in parts:
        if isinstance(part, Analysis) and part.strategies:
            labels += [system.label for system in part.strategies.systems.values()]
        elif isinstance(part, Results):
            labels += [system.label for system in part.systems.values()]
        elif isinstance(part, Cases):
            labels += [system.label for system in part.systems]
    return {label: index for index, label in enumerate(dict.fromkeys(labels))}


def _labels(parts: Sequence[Part]) -> dict[str, str]:
    """Return the systems' labels, for parts that only know their names."""
    labels: dict[str, str] = {}
    for part in parts:
        if isinstance(part, Cases):
            labels |= {system.name: system.label for system in part.systems}
        elif isinstance(part, Results):
            labels |= {name: system.label for name, system in part.systems.items()}
    return labels


def _facts(parts: Sequence[Part]) -> list[str]:
    """Return the lines below the title: size, date and versions of the measurement."""
    facts = []
    results = next((part for part in parts if isinstance(part, Results)), None)
    if results:
        facts.append(counted(results.samples, "sample"))
        if results.dialogues is not None:
            facts.append(counted(results.dialogues, "dialogue"))
        seeds = {run.seed for system in results.systems.values() for run in system.runs}
        seeds.discard(None)
        if seeds:
            facts.append(f"seeds {', '.join(str(seed) for seed in sorted(seeds, key=str))}")
    stamp = next((part.protocol for part in parts if part.protocol), {})
    if stamp.get("name"):
        facts.append(f"protocol {stamp['name']}")
    run: dict[str, Any] = next((part.run for part in parts if part.run), {})
    versions = run.get("versions")
    if isinstance(versions, dict) and versions.get("pal-esc"):
        facts.append(f"pal-esc {versions['pal-esc']}")
    if run.get("git_commit"):
        facts.append(f"commit {str(run['git_commit'])[:8]}")
    if run.get("finished"):
        facts.append(f"finished {str(run['finished'])[:16].replace('T', ' ')}")
    return facts


def _notices(parts: Sequence[Part]) -> list[str]:
    """Return the notices of the parts, or those that follow from their settings."""
    found: list[str] = []
    for part in parts:
        found += part.notices or notices_of_settings(part.run.get("settings"))
        found += notices_of([], [], protocol=part.protocol)
    return join_notices(found)


def _summary(parts: Sequence[Part]) -> list[str]:
    """Return the sentences at the top, of the results or else of the scores."""
    notices = _notices(parts)
    results = [part for part in parts if isinstance(part, Results)]
    if results:
        return [line for one in results for line in summary.summarise_results(one, notices)]
    scores = [part for part in parts if isinstance(part, ScoresPart)]
    return summary.summarise_scores(scores, _labels(parts), notices) if scores else []


def _scores(parts: Sequence[ScoresPart], labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the tables of all files of responses together."""
    together = tables.results_of_scores(parts, labels)
    keys = list(together.metrics)
    first = tables.metric_table(together, [key for key in TABLE_3 if key in keys])
    others = [key for key in keys if key not in TABLE_3]
    notes = dict.fromkeys(note for part in parts for note in part.notes)
    return {
        "tables": [(FIRST_TABLE, first), *tables.further_tables(together, others)],
        "notes": [f"{note[:1].upper()}{note[1:]}{'' if note.endswith('.') else '.'}"
                  for note in notes],
    }  # fmt: skip


def _judged(
    part: JudgedPairs | JudgedRatings, series: dict[str, int], ident: str
) -> dict[str, Any]:
    return {"level": round(1 - part.confidence, 9)}


def _whose(seed_of: Mapping[str, int | None], labels: Mapping[str, str]) -> str:
    """Return of which seed the responses of each system are, as a sentence."""
    if not seed_of:
        return "Of which seed the responses are, their records do not say."
    if len(set(seed_of.values())) == 1:
        seed = next(iter(seed_of.values()))
        return "Responses without a seed." if seed is None else f"Responses of seed {seed}."
    said = [
        f"{labels.get(name, name)} {'without a seed' if seed is None else f'of seed {seed}'}"
        for name, seed in seed_of.items()
    ]
    return f"Responses: {', '.join(said)}."


def _results(part: Results, series: dict[str, int], ident: str) -> dict[str, Any]:
    keys = list(part.metrics)
    others = [key for key in keys if key not in TABLE_3]
    differ = [
        key for key in keys if any(s.authors.get(key) is not None for s in part.systems.values())
    ]
    first = tables.metric_table(part, [key for key in TABLE_3 if key in keys])
    runs = [(system.label, "run", run) for system in part.systems.values() for run in system.runs]
    values = {
        column.name: (lambda run, key=column.key: run.values.get(key)) for column in first.columns
    }
    shown = [
        (FIRST_TABLE, first),
        *tables.further_tables(part, others),
    ]
    return {
        "tables": shown,
        "authors": tables.metric_table(part, differ, authors=True) if differ else None,
        "runs": list(zip(runs, number_grid(values, runs).rows, strict=True)),
        "run_columns": number_grid(values, runs).columns,
        "columns": tables.columns_of(keys, part.metrics),
        "any_sd": any(s.sd is not None for x in part.systems.values() for s in x.summary.values()),
        "any_best": any(
            cell.best
            for _, table in shown
            for _, _, rows in table.groups
            for row in rows
            for cell in row.cells
        ),
        "level": tables.significance_level(part),
        "seeds": summary.seeds_of_systems(part),
        "any_printed": any(system.printed for system in part.systems.values()),
    }


def _significance(part: Results, series: dict[str, int], ident: str) -> dict[str, Any] | None:
    rows = tables.differences(part)
    if not rows:
        return None
    metrics = list(dict.fromkeys(row.metric for row in rows))
    return {
        "rows": rows, "metrics": metrics, "level": tables.significance_level(part),
        "seeds": summary.seeds_of_systems(part),
    }  # fmt: skip


def _training(part: Results, series: dict[str, int], ident: str) -> dict[str, Any] | None:
    figure = figures.loss_curves(part, ident)
    return {"figure": figure, "seeds": summary.seeds_of_systems(part)} if figure.panels else None


def _similarity(part: Analysis, series: dict[str, int], ident: str) -> dict[str, Any] | None:
    if part.similarity is None or not part.similarity.scores:
        return None
    return {"figure": figures.similarity_figure(part.similarity, ident)}


def _strategies(part: Analysis, series: dict[str, int], ident: str) -> dict[str, Any] | None:
    found = part.strategies
    if found is None or not (found.gold or found.systems):
        return None
    scores = {
        "gold": lambda s: s.n_gold,
        "predicted": lambda s: s.n_predicted,
        "precision": lambda s: s.precision,
        "recall": lambda s: s.recall,
        "F1": lambda s: s.f1,
        "B-2": lambda s: s.bleu_2,
        "R-L": lambda s: s.rouge_l,
        "D-2": lambda s: s.distinct_2,
        "length": lambda s: s.length,
        "cos-sim": lambda s: s.cos_sim,
    }
    rows = [
        (row.strategy, system.label, row)
        for system in found.systems.values()
        for row in system.per_strategy
    ]
    return {
        "top": figures.top_accuracy(found, series, f"{ident}-top"),
        "distribution": figures.distribution(found, series, f"{ident}-share"),
        "confusions": [
            (system.label, _confusion(system.confusion))
            for system in found.systems.values()
            if system.confusion is not None
        ],
        "per_strategy": number_grid(scores, rows),
        "labels": [system.label for system in found.systems.values() if system.per_strategy],
        "names": STRATEGIES,
    }


def _confusion(counts: list[list[int]]) -> list[tuple[str, int, list[tuple[int, float]]]]:
    """Return each gold strategy with its total and its (count, share of the row) cells."""
    return [
        (name, sum(row), [(count, count / sum(row) if sum(row) else 0.0) for count in row])
        for name, row in zip(STRATEGIES, counts, strict=True)
    ]


def _personas(part: Analysis, series: dict[str, int], ident: str) -> dict[str, Any] | None:
    if part.personas is None:
        return None
    return {"figure": figures.persona_histograms(part.personas, ident)}


def _alpha(part: Alpha, series: dict[str, int], ident: str) -> dict[str, Any]:
    return {"figure": figures.alpha_fronts(part, ident), "grid": tables.alpha_grid(part)}


def _human(part: Human, series: dict[str, int], ident: str) -> dict[str, Any] | None:
    return {} if part.pairs or part.problems else None


def _cases(part: Cases, series: dict[str, int], ident: str) -> dict[str, Any] | None:
    if not part.cases:
        return None
    longest: dict[str, int] = {}
    for case in part.cases:
        longest[case.dialogue] = max(longest.get(case.dialogue, 0), case.turn)
    counts = Counter(case.strategy for case in part.cases)
    names = [name for name in dict.fromkeys([*STRATEGIES, *counts]) if name and counts[name]]
    # Turns after the last answered one are not shown and stay out of the file.
    return {
        "data": {
            "systems": [
                {**system.model_dump(), "series": series_class(series[system.label])}
                for system in part.systems
            ],
            "dialogues": {
                name: [turn.model_dump(exclude_none=True) for turn in part.dialogues[name][:turns]]
                for name, turns in longest.items()
                if turns
            },
            "cases": [case.model_dump(exclude_none=True) for case in part.cases],
        },
        "strategies": {name: counts[name] for name in names},
        "without": counts[None],
    }


def write_page(path: str | Path, parts: Sequence[dict[str, Any]], *, title: str) -> Path:
    """Write the page of these parts, each the contents of a JSON file, readable by the user alone.

    Args:
        path: the HTML file.
        parts: any number of objects of any kinds, in any order.
        title: heading of the page.

    Raises:
        PalError: a part is not valid for its kind, or the file cannot be written.
    """
    checked: list[Part] = []
    for number, part in enumerate(parts, start=1):
        checked.append(check_part(part, f"part {number} of the report", KINDS))
    write_text(path, render_page(checked, title), private=True)
    return Path(path)


def spread_cases(items: list[Any], limit: int) -> list[Any]:
    """Return at most ``limit`` items, evenly spread."""
    count = min(limit, len(items))
    return [items[index * len(items) // count] for index in range(count)]
