"""The trait report's sections: what each kind of file has to show."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pal.data.strategies import STRATEGIES
from pal.report.page import PageSection
from pal.report.parts import Part
from pal.report.tables import show, show_p
from pal.traits.report.figures import Heat, distributions, heat, scatter, shares
from pal.traits.report.parts import (
    ConsistencyPart,
    CorrelationGroup,
    CorrelationPart,
    PrintedTable,
    Shift,
    ShownEstimate,
    StatisticsPart,
    StrategiesPart,
)
from pal.traits.report.records import Records, cases, makings, unanswered

Map = tuple[str, list[str], list[tuple[str, list[Heat]]]]  # title, columns, rows
Make = Callable[[Any, str], dict[str, Any] | None]


def build_sections(
    parts: Sequence[Part], names: Sequence[str], records: Records, most: int
) -> list[PageSection]:
    """Return the sections there is data for, in the page's order.

    Args:
        parts: documents.
        names: the file name of each.
        records: cards, measurements and dialogues.
        most: case studies at most; 0 leaves texts out.
    """
    found = list(_of_documents(parts))
    nothing = Part(kind="traits_records")
    shown = cases(records, most)
    if shown:
        found.append(_section("cases", "Case studies", nothing, {"cases": shown}))
    if records.cards or records.measurements or records.dialogues:
        data = {"lines": unanswered(records)}
        found.append(_section("unanswered", "What is unanswered", nothing, data))
    runs = [(name, part.run) for name, part in zip(names, parts, strict=True) if part.run]
    lines = makings([*runs, *records.runs])
    if lines:
        found.append(_section("making", "How it was made", nothing, {"lines": lines}))
    return found


def facts_of(parts: Sequence[Part], records: Records) -> list[str]:
    """Return what is said beneath the title."""
    counts = {"cards": len(records.cards), "dialogues": len(records.dialogues)}
    facts = [f"{count:,} {name}" for name, count in counts.items() if count]
    groups = [group for part in parts if isinstance(part, CorrelationPart) for group in part.groups]
    facts += dict.fromkeys(group.name for group in groups)
    return facts


def _section(
    name: str, heading: str, part: Part, data: dict[str, Any], more: str = ""
) -> PageSection:
    return PageSection(name + more, heading, f"trait_{name}.html", part, data)


def _of_documents(parts: Sequence[Part]) -> Iterator[PageSection]:
    makers: tuple[tuple[str, str, type[Part], Make], ...] = (
        ("correlations", "Correlations", CorrelationPart, _correlations),
        ("pairs", "Pairs of the theory", CorrelationPart, _pairs),
        ("reliability", "Reliability", CorrelationPart, _reliability),
        ("consistency", "Before and after the dialogue", ConsistencyPart, _consistency),
        ("concentration", "With and without persona", ConsistencyPart, _concentration),
        ("strategies", "Strategies", StrategiesPart, _strategies),
        ("dialogues", "Words and turns", StatisticsPart, _dialogues),
        ("cards", "Cards", StatisticsPart, _cards),
    )
    for name, heading, kind, make in makers:
        alike = [part for part in parts if isinstance(part, kind)]
        made = [(part, make(part, f"{name}-{n}")) for n, part in enumerate(alike, 1)]
        kept = [(part, data) for part, data in made if data is not None]
        for number, (part, data) in enumerate(kept, start=1):
            more = "" if number == 1 else f"-{number}"
            title = f"{heading} {number}" if len(kept) > 1 else heading
            yield _section(name, title, part, data, more)


def _correlations(part: CorrelationPart, ident: str) -> dict[str, Any] | None:
    if not part.groups:
        return None
    return {"groups": [(g, *_maps(part, g)) for g in part.groups]}


def _maps(
    part: CorrelationPart, group: CorrelationGroup
) -> tuple[
    list[tuple[str, list[str], list[tuple[str, list[Heat]]]]], list[tuple[str, ShownEstimate]]
]:
    """Return the heat maps of a group, measured and printed, and its undefined cells."""
    columns = [part.dimension(1, key) for key in group.columns]
    pairs = {(pair.row, pair.column) for pair in group.pairs}
    rows, undefined = [], []
    for row in group.rows:
        line = []
        for column in group.columns:
            cell, where = group.cells[row][column], f"{row}–{column}"
            if cell.r.value is None:
                undefined.append((where, cell.r))
                said = f"{where}: undefined, n = {cell.r.n}, {cell.r.reason}"
            else:
                interval = f"{show(cell.r.low)} to {show(cell.r.high)}"
                said = f"{where}: r {show(cell.r.value)}, {interval}, n = {cell.r.n}"
            adjusted = "" if cell.p_holm is None else show_p(cell.p_holm)
            line.append(heat(cell.r.value, said, marked=(row, column) in pairs, note=adjusted))
        rows.append((part.dimension(0, row), line))
    maps = [("measured", columns, rows)]
    maps += [_printed(part, group, printed, pairs) for printed in group.paper]
    return maps, undefined


def _printed(
    part: CorrelationPart,
    group: CorrelationGroup,
    printed: PrintedTable,
    pairs: set[tuple[str, str]],
) -> tuple[str, list[str], list[tuple[str, list[Heat]]]]:
    rows = [
        (
            part.dimension(0, row),
            [
                heat(value, f"{row}–{column}: printed {show(value)}", marked=(row, column) in pairs)
                for column, value in zip(printed.columns, printed.rows[row], strict=True)
            ],
        )
        for row in group.rows
        if row in printed.rows
    ]
    columns = [part.dimension(1, key) for key in printed.columns]
    return f"the paper’s Table {printed.table}, {printed.model}", columns, rows


def _pairs(part: CorrelationPart, ident: str) -> dict[str, Any] | None:
    return {} if any(group.pairs for group in part.groups) else None


def _reliability(part: CorrelationPart, ident: str) -> dict[str, Any] | None:
    return {} if any(group.reliability for group in part.groups) else None


def _consistency(part: ConsistencyPart, ident: str) -> dict[str, Any] | None:
    if not part.groups:
        return None
    printed = {1: "rises", -1: "falls"}
    groups = []
    for number, group in enumerate(part.groups):
        panels = [
            (f"{one.inventory}: {one.name.replace('_', ' ')}",
             {"before": one.before, "after": one.after}, _shift_text(one))
            for one in group.dimensions
        ]  # fmt: skip
        rows = [
            (one, printed.get(part.paper.get(one.dimension, 0), "stays")
             if one.inventory == "hexaco" else "")
            for one in group.dimensions
        ]  # fmt: skip
        groups.append((group, distributions(panels, f"{ident}-{number}"), rows))
    return {"groups": groups}


def _shift_text(one: Shift) -> str:
    if one.delta.value is None:
        return f"undefined, n = {one.delta.n}: {one.delta.reason}"
    interval = f"{show(one.delta.low)} to {show(one.delta.high)}"
    return f"Δ {show(one.delta.value)} ({interval}), n = {one.delta.n:,}"


def _concentration(part: ConsistencyPart, ident: str) -> dict[str, Any] | None:
    if not part.concentration:
        return None
    groups = []
    for number, group in enumerate(part.concentration):
        figure = None
        if group.points and group.explained:
            axes = [f"component {n} ({100 * share:.0f} % of variance)"
                    for n, share in enumerate(group.explained, 1)]  # fmt: skip
            named = {"with persona": group.points.get("with", []),
                     "without persona": group.points.get("without", [])}  # fmt: skip
            figure = scatter(named, (axes[0], axes[1]), f"{ident}-{number}")
        groups.append((group, figure))
    return {"groups": groups}


def _strategies(part: StrategiesPart, ident: str) -> dict[str, Any] | None:
    if not part.groups:
        return None
    groups = []
    for number, group in enumerate(part.groups):
        found = {
            name: {
                strategy: (
                    100 * (one.value or 0.0),
                    None if one.low is None else 100 * one.low,
                    None if one.high is None else 100 * one.high,
                )
                for strategy, one in condition.shares.items()
            }
            for name, condition in group.conditions.items()
        }
        groups.append((group, shares(found, STRATEGIES, f"{ident}-{number}")))
    return {"groups": groups, "names": STRATEGIES}


def _dialogues(part: StatisticsPart, ident: str) -> dict[str, Any] | None:
    return {"paper": part.paper.get("dialogues", {})} if part.dialogues else None


def _cards(part: StatisticsPart, ident: str) -> dict[str, Any] | None:
    return {"paper": part.paper.get("cards", {})} if part.cards else None
