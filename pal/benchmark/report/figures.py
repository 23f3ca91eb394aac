"""Figures of the page: each has plots side by side with one legend."""

import functools
import itertools
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from pal.benchmark.report.parts import (
    Alpha,
    AlphaPoint,
    Objective,
    Personas,
    Results,
    ScoreRelation,
    Similarity,
    StrategyAnalysis,
    SystemRun,
)
from pal.benchmark.report.tables import ARROWS, metric_name
from pal.data.strategies import STRATEGIES
from pal.report.charts import (
    STAR,
    Figure,
    Panel,
    Plot,
    Point,
    marker,
    series_class,
    span,
    swatch,
    whole_ticks,
)
from pal.report.tables import decimals, show, show_p

SCORE_NAMES = {
    "empathy": "Empathy",
    "relevance": "Relevance",
    "intensity_decrease": "Decrease in emotional intensity",
}
LONGEST_LINE = 400  # maximum number of points; a longer training log is thinned


def loss_curves(results: Results, ident: str) -> Figure:
    """Return train and validation loss by epoch; systems that share their training share a plot."""
    shared: dict[str, tuple[list[str], list[SystemRun]]] = {}
    for system in results.systems.values():
        runs = [run for run in system.runs if run.curve]
        if runs:
            key = repr([(run.seed, run.curve) for run in runs])
            shared.setdefault(key, ([], runs))[0].append(system.label)
    points = [point for _, runs in shared.values() for run in runs for point in run.curve]
    losses = [v for p in points for v in (p.train_loss, p.validation_nll) if v is not None]
    seeds = sorted({run.seed for _, runs in shared.values() for run in runs}, key=_none_last)
    panels = []
    for number, (labels, runs) in enumerate(shared.values()):
        name = ", ".join(labels)
        plot = Plot(
            f"{ident}-{number}", f"Loss by epoch of {name}",
            span([0, *(p.epoch for p in points)], zero=True), span(losses),
            x_label="epoch", y_label="loss, nats per token",
        )  # fmt: skip
        for run in runs:
            series = seeds.index(run.seed)
            kind = series_class(series)
            train = [(p.epoch, p.train_loss) for p in run.curve if p.train_loss is not None]
            valid = [(p.epoch, p.validation_nll) for p in run.curve if p.validation_nll is not None]
            plot.line(train[:: len(train) // LONGEST_LINE + 1], f"{kind} dashed thin")
            plot.line(valid, kind)
            for epoch, loss in valid:
                said = f"seed {_seed(run.seed)}, epoch {epoch:g}: validation {show(loss, 3)}"
                plot.mark(epoch, loss, marker(series), kind, said)
            if run.epoch is not None and run.validation_nll is not None:
                said = f"seed {_seed(run.seed)}: {run.checkpoint or 'the checkpoint'} answers"
                plot.mark(run.epoch, run.validation_nll, _RING, f"{kind} ring", said)
        panels.append(Panel(name, plot.svg()))
    legend = [
        (swatch(series_class(s), marker(s), line=True), f"validation, seed {_seed(seed)}")
        for s, seed in enumerate(seeds)
    ]
    legend.append((swatch("gold dashed thin", line=True), "training (same colour)"))
    if any(run.epoch is not None for _, runs in shared.values() for run in runs):
        legend.append((swatch("gold ring", _RING), "the checkpoint that answers"))
    return Figure(panels, legend)


_RING = "M-7.5 0a7.5 7.5 0 1 0 15 0a7.5 7.5 0 1 0-15 0z"


def _none_last(seed: int | None) -> tuple[bool, int]:
    return seed is None, seed or 0


def _seed(seed: int | None) -> str:
    return "–" if seed is None else str(seed)


def similarity_figure(similarity: Similarity, ident: str) -> Figure:
    """Return Figures 3 and 5 of the paper: one plot per survey score."""
    panels = [
        Panel(
            SCORE_NAMES.get(name, name.replace("_", " ")),
            _similarity_plot(relation, name, f"{ident}-{number}"),
            _relation_text(relation),
        )
        for number, (name, relation) in enumerate(similarity.scores.items())
    ]
    legend = [
        (swatch("gold", "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z"), "one dialogue (moved sideways)"),
        (
            swatch("s0", marker(0)),
            f"mean at a score, {100 * similarity.confidence:g} % interval (arrow: it goes on)",
        ),
        (swatch("s1", line=True), "least squares over dialogues"),
    ]
    return Figure(panels, legend)


def _similarity_plot(relation: ScoreRelation, name: str, ident: str) -> Markup:
    scores = [level.score for level in relation.levels] or [x for x, _ in relation.points] or [0.0]
    low, high = min(scores), max(scores)
    plot = Plot(
        ident, f"Similarity of responses and persona by {SCORE_NAMES.get(name, name)}",
        (low - 0.5, high + 0.5), span([y for _, y in relation.points] or [0, 1]),
        x_label=f"{SCORE_NAMES.get(name, name).lower()} score", y_label="similarity",
        x_ticks=whole_ticks(low, high),
    )  # fmt: skip
    # The golden ratio spreads any number of points evenly and deterministically.
    plot.cloud(
        ((x + 0.56 * (index * 0.6180339887 % 1 - 0.5), y) for index, (x, y) in
         enumerate(relation.points)),
        "gold",
    )  # fmt: skip
    if relation.slope is not None and relation.intercept is not None:
        ends = (low - 0.4, high + 0.4)
        plot.line([(x, relation.intercept + relation.slope * x) for x in ends], "s1 halo")
        plot.line([(x, relation.intercept + relation.slope * x) for x in ends], "s1")
    for level in relation.levels:
        if level.mean is not None:
            if level.low is not None and level.high is not None:
                plot.interval(level.score, level.low, level.high, "s0")
            said = f"score {level.score:g}: mean {show(level.mean, 3)} over {level.n} dialogues"
            plot.mark(level.score, level.mean, marker(0), "s0", said)
    return plot.svg()


def _relation_text(relation: ScoreRelation) -> str:
    p = show_p(relation.p)
    parts = [
        f"R² {show(relation.r2, 3)} over dialogues",
        f"R² {show(relation.r2_levels, 3)} over level means",
        f"Spearman’s \N{GREEK SMALL LETTER RHO} {show(relation.rho, 3)}",
        f"p {p}" if p.startswith("<") else f"p = {p}",
        f"n = {relation.n:,}",
    ]
    return "; ".join(parts) + "."


def top_accuracy(
    strategies: StrategyAnalysis, series: Mapping[str, int], ident: str
) -> Figure | None:
    """Return Figure 4 of the paper, accuracy of the first n strategies; None without values."""
    known = {name: s for name, s in strategies.systems.items() if s.top is not None}
    if not known:
        return None
    values = [value for system in known.values() for value in system.top or ()]
    plot = Plot(
        ident, "Top-n strategy accuracy", (0.6, len(STRATEGIES) + 0.4), span(values, margin=0.04),
        x_label="n", y_label="gold strategy among the first n, %",
        x_ticks=whole_ticks(1, len(STRATEGIES)),
    )  # fmt: skip
    for system in known.values():
        kind = series_class(series[system.label])
        points = [(float(n), value) for n, value in enumerate(system.top or (), start=1)]
        plot.line(points, kind)
        for n, value in points:
            said = f"{system.label}, top-{n:g}: {show(value, 1)} %"
            plot.mark(n, value, marker(series[system.label]), kind, said)
    return Figure([Panel("", plot.svg())], _system_legend(known, series, line=True))


def distribution(
    strategies: StrategyAnalysis, series: Mapping[str, int], ident: str
) -> Figure | None:
    """Return the share of each strategy in the corpus (bar) and in responses (marker)."""
    systems = {name: s for name, s in strategies.systems.items() if sum(s.distribution.values())}
    gold = strategies.gold or {}
    if not systems and not sum(gold.values()):
        return None
    shares = {name: _shares(system.distribution) for name, system in systems.items()}
    gold_shares = _shares(gold)
    names = list(dict.fromkeys([*STRATEGIES, *gold, *(k for s in shares.values() for k in s)]))
    largest = max(v for found in (gold_shares, *shares.values()) for v in found.values())
    rows = {strategy: float(len(names) - row) for row, strategy in enumerate(names)}
    plot = Plot(
        ident, "Share of each strategy", (0, largest * 1.06), (0.4, len(names) + 0.6),
        x_label="share of responses, %", y_label="strategy", left=192, height=60 + 30 * len(names),
        y_ticks=[(at, _fit(strategy)) for strategy, at in rows.items()],
    )  # fmt: skip
    for strategy, at in rows.items():
        if gold_shares.get(strategy):
            _wide_bar(plot, at, gold_shares[strategy], strategy)
        for place, (name, system) in enumerate(systems.items()):
            # One above the other, so that equal shares are all visible.
            row = at + (0.5 * (len(systems) - 1) - place) * 0.5 / len(systems)
            share, number = shares[name].get(strategy, 0.0), series[system.label]
            said = f"{system.label}, {strategy}: {show(share, 1)} %"
            plot.mark(share, row, marker(number), series_class(number), said)
    legend = _system_legend(systems, series)
    if gold_shares:
        legend.insert(0, (swatch("gold bar", "M-11-4h22v8h-22z"), "gold"))
    return Figure([Panel("", plot.svg())], legend)


def _wide_bar(plot: Plot, at: float, share: float, strategy: str) -> None:
    (left, top), (right, bottom) = plot.place(0, at + 0.3), plot.place(share, at - 0.3)
    plot.add(
        '<rect class="bar" x="{x}" y="{y}" width="{w}" height="{h}"><title>{title}</title></rect>',
        x=round(left, 1), y=round(top, 1), w=round(right - left, 1), h=round(bottom - top, 1),
        title=f"gold, {strategy}: {show(share, 1)} %",
    )  # fmt: skip


def _fit(text: str) -> str:
    return text if len(text) <= 28 else f"{text[:26]}…"


def _shares(counts: Mapping[str, int]) -> dict[str, float]:
    total = sum(counts.values())
    return {name: 100 * count / total for name, count in counts.items()} if total else {}


def _system_legend(
    systems: Mapping, series: Mapping[str, int], *, line: bool = False
) -> list[tuple[Markup, str]]:
    numbers = {system.label: series[system.label] for system in systems.values()}
    return [
        (swatch(series_class(number), marker(number), line=line), label)
        for label, number in numbers.items()
    ]


def persona_histograms(personas: Personas, ident: str) -> Figure:
    """Return sentences per dialogue, first turn with a persona, and share of such turns."""
    found = (
        ("Sentences per dialogue", "persona sentences", "dialogues", personas.sentences.histogram),
        ("First turn with a persona", "turn", "dialogues", personas.first_turn.histogram),
    )
    panels = [
        Panel(heading, _histogram(rows, f"{ident}-{number}", heading, x, y))
        for number, (heading, x, y, rows) in enumerate(found)
        if rows
    ]
    shares = personas.coverage.by_turn
    if shares:
        plot = Plot(
            f"{ident}-coverage", "Supporter turns with a persona, by turn",
            span([x for x, _ in shares], margin=0.03), (0, 105),
            x_label="turn", y_label="evaluated turns with a persona, %",
            x_ticks=whole_ticks(min(x for x, _ in shares), max(x for x, _ in shares)),
        )  # fmt: skip
        plot.line([(x, 100 * y) for x, y in shares], "s0")
        plot.cloud([(x, 100 * y) for x, y in shares], "s0 full")
        panels.append(Panel("Turns with a persona", plot.svg()))
    return Figure(panels, [])


def _histogram(
    rows: Sequence[tuple[float, int]], ident: str, title: str, x_label: str, y_label: str
) -> Markup:
    low, high = min(x for x, _ in rows), max(x for x, _ in rows)
    top = max(y for _, y in rows) * 1.05 or 1.0
    plot = Plot(
        ident, title, (low - 0.7, high + 0.7), (0, top), x_label=x_label, y_label=y_label,
        x_ticks=whole_ticks(low, high), y_ticks=whole_ticks(0, top, 5),
    )  # fmt: skip
    for x, y in rows:
        plot.bar(x, y, 0.8, f"{x:g}: {y:,}")
    return plot.svg()


def alpha_fronts(alpha: Alpha, ident: str) -> Figure:
    """Return plots of every pair of objectives with front, baselines and chosen α.

    A single objective is drawn against the number of the trial.
    """
    keys = [objective.key for objective in alpha.objectives]
    pairs: list[tuple[Objective | None, Objective]] = [(None, alpha.objectives[0])]
    if len(keys) > 1:
        pairs = list(itertools.combinations(alpha.objectives, 2))
    panels = []
    for number, (across, up) in enumerate(pairs):
        place = functools.partial(_place, across=across, up=up)
        special = [*alpha.baselines, *([alpha.chosen] if alpha.chosen else [])]
        everything = [p for p in map(place, [*alpha.trials, *special]) if p]
        x_name = f"{metric_name(across.key)} {ARROWS[across.direction]}" if across else "trial"
        y_name = f"{metric_name(up.key)} {ARROWS[up.direction]}"
        plot = Plot(
            f"{ident}-{number}", f"{y_name} against {x_name} of every trial",
            span((p[0] for p in everything), margin=0.08),
            span((p[1] for p in everything), margin=0.08),
            x_label=_with_unit(x_name, across.unit if across else ""),
            y_label=_with_unit(y_name, up.unit),
        )  # fmt: skip
        plot.cloud([p for t in alpha.trials if not t.front and (p := place(t))], "gold big")
        for trial in alpha.trials:
            if trial.front and (at := place(trial)):
                said = f"trial {trial.number}: {_values(trial, keys)}; α {_vector(trial)}"
                plot.mark(*at, marker(2), "s0", said)
        for base in alpha.baselines:
            if at := place(base):
                name = base.name or "baseline"
                plot.mark(*at, marker(1), "s1", f"{name}: {_values(base, keys)}")
                plot.label(*at, name)
        if alpha.chosen and (at := place(alpha.chosen)):
            plot.mark(*at, STAR, "s5", f"chosen: {_values(alpha.chosen, keys)}")
            plot.label(*at, "chosen")
        panels.append(Panel(f"{y_name.split()[0]} and {x_name.split()[0]}", plot.svg()))
    legend = [
        (swatch("gold", "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z"), "trial"),
        (swatch("s0", marker(2)), "trial on the front: none is better in every objective"),
        (swatch("s1", marker(1)), "baseline"),
    ]
    if alpha.chosen:
        legend.append((swatch("s5", STAR), "chosen"))
    return Figure(panels, legend)


def _place(point: AlphaPoint, across: Objective | None, up: Objective) -> Point | None:
    """Return the position of a point in a plot of two objectives; None if a value is missing."""
    x = point.number if across is None else point.values.get(across.key)
    y = point.values.get(up.key)
    return None if x is None or y is None else (float(x), y)


def _with_unit(name: str, unit: str) -> str:
    return f"{name}, {'%' if unit == 'percent' else unit}" if unit else name


def _values(point: AlphaPoint, keys: Sequence[str]) -> str:
    return ", ".join(
        f"{metric_name(key)} {show(point.values.get(key), decimals([point.values.get(key)]))}"
        for key in keys
    )


def _vector(point: AlphaPoint) -> str:
    return " ".join(f"{a:g}" for a in point.alpha)
