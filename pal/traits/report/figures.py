"""The trait report's figures, on plain numbers: heat maps, distributions, scatter, shares."""

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pal.report.charts import (
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
from pal.report.tables import MISSING, show

BINS = 16  # of the scale from 1 to 5: a quarter each
SCALE = (1.0, 5.0)


@dataclass(frozen=True)
class Heat:
    """A cell of a heat map.

    Attributes:
        text: the number as it is shown.
        share: strength of the colour, 0 to 1.
        kind: its class: plus, minus, or none for what is undefined.
        title: what pointing at it shows.
        marked: whether it is outlined.
        note: a second line, small.
    """

    text: str
    share: float
    kind: str
    title: str
    marked: bool
    note: str = ""


def heat(
    value: float | None, title: str, *, marked: bool = False, digits: int = 2, note: str = ""
) -> Heat:
    """Return the cell of a correlation, −1 to 1; None is shown as undefined, with ``title``."""
    if value is None:
        return Heat(MISSING, 0.0, "none", title, marked, note)
    kind = "plus" if value >= 0 else "minus"
    return Heat(show(value, digits), min(abs(value), 1.0), kind, title, marked, note)


def histogram(values: Sequence[float]) -> list[Point]:
    """Return the outline of a histogram over the scale, as (score, share of values in %)."""
    low, high = SCALE
    edges = [low + (high - low) * index / BINS for index in range(BINS + 1)]
    counts = [0] * BINS
    for value in values:
        counts[min(max(bisect.bisect_right(edges, value) - 1, 0), BINS - 1)] += 1
    outline = [(low, 0.0)]
    for index, count in enumerate(counts):
        share = 100 * count / (len(values) or 1)
        outline += [(edges[index], share), (edges[index + 1], share)]
    return [*outline, (high, 0.0)]


def distributions(
    dimensions: Sequence[tuple[str, Mapping[str, Sequence[float]], str]], ident: str
) -> Figure:
    """Scores of groups as histograms, one plot a dimension (the paper's Figures 5-7, 19-21).

    Args:
        dimensions: name, scores by group, and what is said beneath, of each dimension.
        ident: unique in the page.
    """
    groups = list(dict.fromkeys(group for _, scores, _ in dimensions for group in scores))
    panels = []
    for number, (name, scores, text) in enumerate(dimensions):
        outlines = {group: histogram(values) for group, values in scores.items()}
        top = max((share for line in outlines.values() for _, share in line), default=0.0)
        plot = Plot(
            f"{ident}-{number}", f"{name}: share of personas by score", SCALE,
            (0, top * 1.05 or 1.0), x_label="score", y_label="personas, %",
            x_ticks=whole_ticks(*SCALE), height=220,
        )  # fmt: skip
        for group, outline in outlines.items():
            series = groups.index(group)
            plot.line(outline, f"{series_class(series)}{' dashed' if series else ''}")
        panels.append(Panel(name, plot.svg(), text))
    legend = [
        (swatch(f"{series_class(n)}{' dashed' if n else ''}", line=True), group)
        for n, group in enumerate(groups)
    ]
    return Figure(panels, legend)


def scatter(groups: Mapping[str, Sequence[Point]], labels: tuple[str, str], ident: str) -> Figure:
    """Points of groups in two dimensions, each group's centre marked (the paper's Figure 8)."""
    points = [point for found in groups.values() for point in found]
    plot = Plot(
        ident, "Scores in two dimensions", span([x for x, _ in points]),
        span([y for _, y in points]), x_label=labels[0], y_label=labels[1], height=340,
    )  # fmt: skip
    for number, (group, found) in enumerate(groups.items()):
        plot.cloud(found, f"{series_class(number)} big")
        if found:
            x, y = (sum(point[axis] for point in found) / len(found) for axis in (0, 1))
            said = f"{group}: centre of {len(found):,}"
            plot.mark(x, y, marker(number), series_class(number), said)
    return Figure([Panel("", plot.svg())], _legend(groups))


def shares(
    groups: Mapping[str, Mapping[str, tuple[float, float | None, float | None]]],
    names: Sequence[str],
    ident: str,
) -> Figure:
    """Shares with intervals, one row a strategy, one bar a group (the paper's Tables 5-8).

    Args:
        groups: (share, low, high) in % by strategy, by group.
        names: the strategies, from the top.
        ident: unique in the page.
    """
    ends = [end for found in groups.values() for row in found.values() for end in row]
    largest = max((end for end in ends if end is not None), default=0.0) or 1.0
    step = 0.7 / max(len(groups), 1)
    plot = Plot(
        ident, "Share of each strategy", (0, largest * 1.06), (0.4, len(names) + 0.6),
        x_label="share of supporter turns, %", y_label="strategy", left=192,
        height=60 + len(names) * (14 + 14 * len(groups)),
        y_ticks=[(float(len(names) - row), name) for row, name in enumerate(names)],
    )  # fmt: skip
    for number, (group, found) in enumerate(groups.items()):
        kind = series_class(number)
        for row, name in enumerate(names):
            if name not in found:
                continue
            share, low, high = found[name]
            at = len(names) - row + (0.5 * (len(groups) - 1) - number) * step
            said = f"{group}, {name}: {show(share, 1)} %"
            if low is not None and high is not None:
                said += f", {show(low, 1)} to {show(high, 1)}"
                plot.line([(low, at), (high, at)], f"{kind} thin")
            _bar(plot, at, share, step * 0.8, kind, said)
            plot.mark(share, at, marker(number), kind, said)
    return Figure([Panel("", plot.svg())], _legend(groups))


def _bar(plot: Plot, at: float, share: float, width: float, kind: str, title: str) -> None:
    (left, top), (right, bottom) = plot.place(0, at + width / 2), plot.place(share, at - width / 2)
    plot.add(
        '<rect class="bar {kind}" style="fill:currentColor;opacity:.25" x="{x}" y="{y}" '
        'width="{w}" height="{h}"><title>{title}</title></rect>',
        kind=kind, x=round(left, 1), y=round(top, 1), w=round(right - left, 1),
        h=round(bottom - top, 1), title=title,
    )  # fmt: skip


def _legend(groups: Iterable[str]) -> list[tuple[Markup, str]]:
    return [(swatch(series_class(n), marker(n)), group) for n, group in enumerate(groups)]
