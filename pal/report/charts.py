"""Plots as inline SVG: text in the page's own font, colours from its style sheet, few bytes.

Plots do not use a plotting library, because their colours and fonts are those of the page (light,
dark, print), because the output must be the same bytes every time, and because a thousand points
are one short path. Colours are the classes ``s0`` to ``s7`` and ``gold``; every series also has its
own marker, so that no information depends on colour alone.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

SERIES = 8  # number of colours and markers; further series reuse them
WIDTH, HEIGHT = 400, 270
_RIGHT, _BOTTOM = 14, 44

# Marker outlines around (0, 0), about 9 px wide.
_MARKERS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M-3.7-3.7h7.4v7.4h-7.4z",
    "M0-5.2L4.8 0L0 5.2L-4.8 0z",
    "M0-4.8L4.8 3.8H-4.8z",
    "M0 4.8L4.8-3.8H-4.8z",
    "M-1.6-4.8h3.2v3.2h3.2v3.2h-3.2v3.2h-3.2v-3.2h-3.2v-3.2h3.2z",
    "M0-5L4.8-1.5L2.9 4H-2.9L-4.8-1.5z",
    "M-4.6-2.6L0-5.2L4.6-2.6V2.6L0 5.2L-4.6 2.6z",
)
STAR = "M0-8L2-2.7L7.6-2.5L3.2 1L4.7 6.5L0 3.3L-4.7 6.5L-3.2 1L-7.6-2.5L-2-2.7z"

Point = tuple[float, float]
Tick = tuple[float, str]


def marker(series: int) -> str:
    """Return the marker outline of a series."""
    return _MARKERS[series % SERIES]


def series_class(series: int | None) -> str:
    """Return the colour class of a series; None is the corpus itself."""
    return "gold" if series is None else f"s{series % SERIES}"


def span(values: Iterable[float], *, margin: float = 0.05, zero: bool = False) -> Point:
    """Return the range of an axis that shows all values with a margin."""
    found = [*values, *([0.0] if zero else [])] or [0.0, 1.0]
    low, high = min(found), max(found)
    room = (high - low) * margin or abs(high) * margin or 1.0
    return (low if zero and low == 0 else low - room, high if zero and high == 0 else high + room)


def ticks(low: float, high: float, count: int = 5) -> list[Tick]:
    """Return about ``count`` round values within a range, with their labels."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(k * step, f"{k * step:,.6g}".replace("-", "−")) for k in range(first, last + 1)]


def whole_ticks(low: float, high: float, count: int = 8) -> list[Tick]:
    """Return integer ticks, for axes of counts."""
    step = max(1, *(int(v) for v, _ in ticks(0, max(high - low, 1), count)[1:2]))
    first = math.ceil(low / step) * step
    return [
        (float(v), f"{v:,}".replace("-", "−")) for v in range(first, math.floor(high) + 1, step)
    ]


class Plot:
    """Axes, and marks in the data's own coordinates.

    Args:
        ident: id of the plot, unique in the page.
        title: description of the plot for screen readers, and its heading if ``heading``.
        x: range of the horizontal axis.
        y: range of the vertical axis.
        x_label: name and unit of the horizontal axis, below it.
        y_label: name and unit of the vertical axis, above it.
        x_ticks: positions and labels on the horizontal axis; round values if None.
        y_ticks: positions and labels on the vertical axis; round values if None.
        left: space for the labels of the vertical axis, px.
        height: height at a width of 400 px, px.
    """

    def __init__(
        self,
        ident: str,
        title: str,
        x: Point,
        y: Point,
        *,
        x_label: str,
        y_label: str,
        x_ticks: Sequence[Tick] | None = None,
        y_ticks: Sequence[Tick] | None = None,
        left: int = 46,
        height: int = HEIGHT,
    ):
        self.ident, self.title, self.left, self.height = ident, title, left, height
        self.x, self.y = x, y
        self.top = 30
        self.parts: list[Markup] = []
        self._axes(
            ticks(*x) if x_ticks is None else x_ticks,
            ticks(*y) if y_ticks is None else y_ticks,
            x_label,
            y_label,
        )
        self._labels: list[tuple[float, float, str]] = []

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the position of a value, px."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        bottom = self.height - _BOTTOM
        return self.left + across * (WIDTH - _RIGHT - self.left), bottom - up * (bottom - self.top)

    def add(self, template: str, **values: object) -> None:
        """Add a piece of SVG; values are escaped."""
        self.parts.append(Markup(template).format(**values))

    def line(self, points: Sequence[Point], kind: str) -> None:
        """Draw a line through points; ``kind`` holds its classes."""
        if points:
            path = "M" + "L".join(_pair(self.place(*point)) for point in points)
            self.add('<path class="line {kind}" d="{path}"/>', kind=kind, path=path)

    def cloud(self, points: Iterable[Point], kind: str) -> None:
        """Draw many small dots as one path."""
        path = "".join(f"M{_pair(self.place(*point))}h0" for point in points)
        self.add('<path class="cloud {kind}" d="{path}"/>', kind=kind, path=path)

    def mark(self, x: float, y: float, shape: str, kind: str, title: str = "") -> None:
        """Draw one marker, with a tooltip."""
        across, down = self.place(x, y)
        said = Markup("<title>{}</title>").format(title) if title else ""
        self.add(
            '<path class="mark {kind}" transform="translate({x} {y})" d="{d}">{said}</path>',
            kind=kind, x=_short(across), y=_short(down), d=shape, said=said,
        )  # fmt: skip

    def interval(self, x: float, low: float, high: float, kind: str) -> None:
        """Draw a vertical interval with caps; an end beyond the axis is an arrow at its edge."""
        inside = [min(max(end, self.y[0]), self.y[1]) for end in (low, high)]
        (across, bottom), (_, top) = (self.place(x, end) for end in inside)
        path = f"M{_short(across)} {_short(bottom)}V{_short(top)}"
        for end, shown, down in zip((low, high), inside, (bottom, top), strict=True):
            if end == shown:
                path += f"M{_short(across - 4)} {_short(down)}h8"
            else:
                back = -6 if end < shown else 6  # away from the edge, down the page
                path += f"M{_short(across - 4)} {_short(down + back)}l4 {-back}l4 {back}"
        self.add('<path class="line {kind}" d="{path}"/>', kind=kind, path=path)

    def bar(self, x: float, value: float, width: float, title: str) -> None:
        """Draw a bar from the bottom of the axis; ``width`` is in data units."""
        (left, top), (right, _) = self.place(x - width / 2, value), self.place(x + width / 2, value)
        self.add(
            '<rect class="bar" x="{x}" y="{y}" width="{w}" height="{h}"><title>{title}</title>'
            "</rect>",
            x=_short(left), y=_short(top), w=_short(right - left),
            h=_short(self.height - _BOTTOM - top), title=title,
        )  # fmt: skip

    def label(self, x: float, y: float, text: str) -> None:
        """Add a label beside a mark; overlapping labels are moved apart."""
        self._labels.append((*self.place(x, y), text))

    def svg(self) -> Markup:
        """Return the plot."""
        last = -math.inf
        for across, down, text in sorted(self._labels, key=lambda label: label[1]):
            last = max(down + 4, last + 14)
            right = across > WIDTH * 0.62
            self.add(
                '<text class="note" x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>',
                x=_short(across + (-10 if right else 10)), y=_short(last),
                anchor="end" if right else "start", text=text,
            )  # fmt: skip
        self._labels = []
        return Markup(
            '<svg class="plot" viewBox="0 0 {w} {h}" role="img" aria-labelledby="{id}">'
            '<title id="{id}">{title}</title>{inner}</svg>'
        ).format(
            w=WIDTH,
            h=self.height,
            id=self.ident,
            title=self.title,
            inner=Markup("").join(self.parts),
        )

    def _axes(
        self, x_ticks: Sequence[Tick], y_ticks: Sequence[Tick], x_label: str, y_label: str
    ) -> None:
        bottom, right = self.height - _BOTTOM, WIDTH - _RIGHT
        for value, text in y_ticks:
            _, down = self.place(self.x[0], value)
            self.add(
                '<path class="grid" d="M{l} {y}H{r}"/>'
                '<text class="tick" data-axis="y" x="{x}" y="{base}" text-anchor="end">{text}'
                "</text>",
                l=self.left, r=right, y=_short(down), x=self.left - 7, base=_short(down + 4),
                text=text,
            )  # fmt: skip
        for value, text in x_ticks:
            across, _ = self.place(value, self.y[0])
            self.add(
                '<path class="axis" d="M{x} {b}v4"/>'
                '<text class="tick" data-axis="x" x="{x}" y="{base}" text-anchor="middle">{text}'
                "</text>",
                x=_short(across), b=bottom, base=bottom + 17, text=text,
            )  # fmt: skip
        self.add('<path class="axis" d="M{l} {b}H{r}"/>', l=self.left, b=bottom, r=right)
        self.add(
            '<text class="name" data-axis="x" x="{x}" y="{base}" text-anchor="middle">{text}'
            "</text>",
            x=(self.left + right) / 2, base=self.height - 8, text=x_label,
        )  # fmt: skip
        self.add('<text class="name" data-axis="y" x="2" y="14">{text}</text>', text=y_label)


def forest(low: float, high: float, value: float, reach: float, *, filled: bool) -> Markup:
    """Return a plot of a difference and its interval around zero, for a table cell.

    Args:
        low: lower end.
        high: upper end.
        value: the difference.
        reach: value at the right edge; the left edge is its negative.
        filled: whether the difference is significant.
    """
    x = [_short(80 + 74 * v / (reach or 1)) for v in (low, value, high)]
    return Markup(
        '<svg class="forest" viewBox="0 0 160 18" aria-hidden="true"><path class="axis" '
        'd="M80 1v16"/><path class="line" d="M{l} 9H{h}M{l} 6v6M{h} 6v6"/>'
        '<circle class="{kind}" cx="{v}" cy="9" r="3.6"/></svg>'
    ).format(l=x[0], v=x[1], h=x[2], kind="full" if filled else "hollow")


def swatch(kind: str, shape: str = "", *, line: bool = False) -> Markup:
    """Return the small picture of a series in a legend."""
    inner = Markup('<path class="line {}" d="M1 8H25"/>').format(kind) if line else Markup("")
    if shape:
        inner += Markup(
            '<path class="mark {}" transform="translate(13 8)" d="{}"/>'
        ).format(kind, shape)  # fmt: skip
    return Markup(
        '<svg class="swatch" viewBox="0 0 26 16" width="26" height="16" aria-hidden="true">{}</svg>'
    ).format(inner)


@dataclass(frozen=True)
class Panel:
    """One plot with its heading and caption."""

    heading: str
    plot: Markup
    text: str = ""


@dataclass(frozen=True)
class Figure:
    """Plots side by side that share a legend of (picture, name)."""

    panels: list[Panel]
    legend: list[tuple[Markup, str]]


def _short(value: float) -> str:
    """Return a coordinate, rounded to 0.1 px, in as few characters as possible."""
    return f"{value:z.1f}".removesuffix(".0")


def _pair(point: tuple[float, float]) -> str:
    return f"{_short(point[0])} {_short(point[1])}"
