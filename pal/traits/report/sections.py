"""The trait report's sections: what each kind of file has to show."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from pal.data.strategies import STRATEGIES
from pal.report.page import PageSection
from pal.report.parts import Part
from pal.report.tables import show, show_p
from pal.report.words import WORDS
from pal.traits.readers import DROPPED
from pal.traits.report.figures import Heat, distributions, heat, scatter, shares
from pal.traits.report.parts import (
    ConsistencyPart,
    CorrelationGroup,
    CorrelationPart,
    Shift,
    ShownEstimate,
    StatisticsPart,
    StrategiesPart,
)
from pal.traits.report.records import Records, SeekerCase, cases, makings, unanswered
from pal.traits.report.words import (
    condition_name,
    dimension_name,
    inventory_name,
    short_name,
    spoken,
)

Line = tuple[str, bool, list[Heat]]  # whose numbers, whether measured, cells
Make = Callable[[Any, str], dict[str, Any] | None]
NAMES = {
    "condition": condition_name, "dimension": dimension_name, "inventory": inventory_name,
    "short": short_name, "spoken": spoken,
}  # fmt: skip


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
    shown = [(case, _scores(case)) for case in cases(records, most)]
    if shown:
        found.append(_section("cases", WORDS["cases"], nothing, {"cases": shown}))
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
    facts = []
    for name, rows in (("cards", records.cards), ("dialogues", records.dialogues)):
        written = sum(row.failed is None for row in rows)
        if rows:
            facts.append(f"{written:,} {name.removesuffix('s') if written == 1 else name}")
        dropped = sum(row.failed == DROPPED for row in rows)
        failed = len(rows) - written - dropped
        notes = [f"{dropped:,} not continued: the filter dropped their cards"] * (dropped > 0)
        notes += [f"{failed:,} that could not be written"] * (failed > 0)
        if notes:
            facts[-1] += f" (and {'; '.join(notes)})"
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
        ("cards", "Cards of seekers", StatisticsPart, _cards),
    )
    for name, heading, kind, make in makers:
        alike = [part for part in parts if isinstance(part, kind)]
        made = [(part, make(part, f"{name}-{n}")) for n, part in enumerate(alike, 1)]
        kept = [(part, data) for part, data in made if data is not None]
        for number, (part, data) in enumerate(kept, start=1):
            more = "" if number == 1 else f"-{number}"
            title = f"{heading} {number}" if len(kept) > 1 else heading
            yield _section(name, title, part, data, more)


def why_undefined(shown: Any) -> list[str]:
    """Return what has no value in these documents, counted by number and reason."""
    counts: Counter[str] = Counter()

    def look(value: Any) -> None:
        if isinstance(value, ShownEstimate):
            if value.value is None:
                counts[f"n = {value.n:,}, {value.reason or 'no reason is given'}"] += 1
        elif isinstance(value, BaseModel):
            for name in type(value).model_fields:
                look(getattr(value, name))
        elif isinstance(value, dict):
            for one in value.values():
                look(one)
        elif isinstance(value, list | tuple):
            for one in value:
                look(one)

    look(shown)
    return [f"{count:,} times {WORDS['undefined']}, {why}" for why, count in counts.items()]


def _correlations(part: CorrelationPart, ident: str) -> dict[str, Any] | None:
    if not part.groups:
        return None
    first = part.groups[0]
    styles = list(dict.fromkeys(key for group in part.groups for key in group.columns))
    traits = list(dict.fromkeys(key for group in part.groups for key in group.rows))
    pairs = {(pair.row, pair.column) for group in part.groups for pair in group.pairs}
    blocks = [(part.dimension(0, row), _lines(part, row, styles, pairs)) for row in traits]
    named = list(part.inventories)
    return {
        "styles": [part.dimension(1, key) for key in styles], "blocks": blocks,
        "inventories": [inventory_name(key) for key in named], "printed": bool(first.paper),
        "undefined": [
            f"{group.name}: {why}" for group in part.groups for why in why_undefined(group.cells)
        ],
    }  # fmt: skip


def _lines(
    part: CorrelationPart, row: str, styles: Sequence[str], pairs: set[tuple[str, str]]
) -> list[Line]:
    """Return the lines of one personality dimension: measured, then as the paper prints them."""
    lines: list[Line] = []
    for group in part.groups:
        if row in group.cells:
            cells = [_measured(part, group, row, style, (row, style) in pairs) for style in styles]
            lines.append((f"{group.name}, n = {group.n:,}", True, cells))
    printed = {table.table: table for group in part.groups for table in group.paper}
    for number, table in sorted(printed.items()):
        if row in table.rows:
            values = dict(zip(table.columns, table.rows[row], strict=True))
            who = f"paper, Table {number}: {table.model}"
            name = part.dimension(0, row)
            lines.append((who, False, [
                heat(values.get(style), f"{name} and {part.dimension(1, style)}, {who}: "
                     f"{show(values.get(style))}", marked=(row, style) in pairs)
                for style in styles
            ]))  # fmt: skip
    return lines


def _measured(
    part: CorrelationPart, group: CorrelationGroup, row: str, style: str, marked: bool
) -> Heat:
    where = f"{part.dimension(0, row)} and {part.dimension(1, style)}"
    cell = group.cells[row].get(style)
    if cell is None:
        return heat(None, f"{where}: not measured", marked=marked)
    if cell.r.value is None:
        said = f"{where}: {WORDS['undefined']}, n = {cell.r.n}, {cell.r.reason}"
    else:
        interval = f"{show(cell.r.low)} to {show(cell.r.high)}"
        said = f"{where}: r {show(cell.r.value)}, {interval}, n = {cell.r.n}"
    adjusted = "" if cell.p_holm is None else show_p(cell.p_holm)
    return heat(cell.r.value, said, marked=marked, note=adjusted)


def _pairs(part: CorrelationPart, ident: str) -> dict[str, Any] | None:
    if not any(group.pairs for group in part.groups):
        return None
    return {"titles": [inventory_name(key) for key in part.inventories]}


def _reliability(part: CorrelationPart, ident: str) -> dict[str, Any] | None:
    found = [(group, name, dimensions) for group in part.groups
             for name, dimensions in group.reliability.items()]  # fmt: skip
    if not found:
        return None
    blocks = []
    for group, name, dimensions in found:
        known = part.inventories[name].dimensions if name in part.inventories else None
        version = part.inventories[name].version if name in part.inventories else ""
        rows = [(dimension_name(name, key, known), one) for key, one in dimensions.items()]
        against = [
            f"{dimension}: {item} ({show(r)})" for dimension, one in rows
            for item, r in one.items.items() if r is not None and r < 0
        ]  # fmt: skip
        title = " ".join(filter(None, (inventory_name(name), version)))
        blocks.append((f"{group.name}: {title}", rows, against))
    return {"blocks": blocks, "undefined": why_undefined([rows for _, rows, _ in blocks])}


def _consistency(part: ConsistencyPart, ident: str) -> dict[str, Any] | None:
    if not part.groups:
        return None
    printed = {1: "rises", -1: "falls"}
    figures, blocks = [], []
    for number, group in enumerate(part.groups):
        name = group.name
        panels = [
            (f"{spoken(one.name, one.inventory)} ({short_name(one.inventory)})",
             {"before": one.before, "after": one.after}, _shift_text(one))
            for one in group.dimensions
        ]  # fmt: skip
        figures.append((name, distributions(panels, f"{ident}-{number}")))
        for inventory in dict.fromkeys(one.inventory for one in group.dimensions):
            rows = [
                (one, printed.get(part.paper.get(one.dimension, 0), "stays")
                 if inventory == "hexaco" else "")
                for one in group.dimensions if one.inventory == inventory
            ]  # fmt: skip
            blocks.append((f"{name}: {inventory_name(inventory)}", rows))
    return {"figures": figures, "blocks": blocks, "undefined": why_undefined(part.groups)}


def _shift_text(one: Shift) -> str:
    if one.delta.value is None:
        return f"{WORDS['undefined']}, n = {one.delta.n}"
    interval = f"{show(one.delta.low)} to {show(one.delta.high)}"
    return f"Δ {show(one.delta.value)} ({interval}), n = {one.delta.n:,}"


def _concentration(part: ConsistencyPart, ident: str) -> dict[str, Any] | None:
    if not part.concentration:
        return None
    figures, blocks = [], []
    for number, group in enumerate(part.concentration):
        name = f"{group.dataset}, {group.model}: {inventory_name(group.inventory)}"
        if group.points and group.explained:
            axes = [f"component {n} ({100 * share:.0f} % of variance)"
                    for n, share in enumerate(group.explained, 1)]  # fmt: skip
            named = {WORDS["with_persona"]: group.points.get("with", []),
                     WORDS["without_persona"]: group.points.get("without", [])}  # fmt: skip
            figures.append((name, scatter(named, (axes[0], axes[1]), f"{ident}-{number}")))
        blocks.append((name, group))
    undefined = [
        f"{name}: {WORDS['undefined']}, n = {one.n_with:,} and {one.n_without:,}, {one.reason}"
        for name, one in blocks if not one.statistics
    ]  # fmt: skip
    gone = why_undefined([group.statistics for _, group in blocks])
    return {"figures": figures, "blocks": blocks, "undefined": [*undefined, *gone]}


def _strategies(part: StrategiesPart, ident: str) -> dict[str, Any] | None:
    if not part.groups:
        return None
    figures = []
    for number, group in enumerate(part.groups):
        found = {
            condition_name(name): {
                strategy: (
                    100 * (one.value or 0.0),
                    None if one.low is None else 100 * one.low,
                    None if one.high is None else 100 * one.high,
                )
                for strategy, one in condition.shares.items()
            }
            for name, condition in group.conditions.items()
        }
        figures.append((group.name, shares(found, STRATEGIES, f"{ident}-{number}")))
    reach = max(
        (abs(one.difference.value or 0.0) for group in part.groups for two in group.comparisons
         for one in two.strategies.values()), default=0.0,
    ) or 1.0  # fmt: skip
    directions = {
        strategy: one.paper for group in part.groups for two in group.comparisons
        for strategy, one in two.strategies.items() if one.paper is not None
    }  # fmt: skip
    return {
        "figures": figures, "names": STRATEGIES, "reach": reach, "directions": directions,
        "compared": [(group, one) for group in part.groups for one in group.comparisons],
        "undefined": why_undefined(part.groups),
    }  # fmt: skip


def _dialogues(part: StatisticsPart, ident: str) -> dict[str, Any] | None:
    if not part.dialogues:
        return None
    return {
        "paper": part.paper.get("dialogues", {}), "undefined": why_undefined(part.dialogues)
    }  # fmt: skip


def _cards(part: StatisticsPart, ident: str) -> dict[str, Any] | None:
    if not part.cards:
        return None
    return {"paper": part.paper.get("cards", {}), "undefined": why_undefined(part.cards)}


def _scores(
    case: SeekerCase,
) -> list[tuple[str, list[tuple[str, str]], list[tuple[str, list[float | None]]]]]:
    """Return a table an inventory: its name, the files measured, and a row a dimension."""
    tables = []
    for inventory in dict.fromkeys(one.inventory for one in case.measurements):
        found = [one for one in case.measurements if one.inventory == inventory]
        keys = list(dict.fromkeys(key for one in found for key in one.scores))
        rows = [(dimension_name(inventory, key), [one.scores.get(key) for one in found])
                for key in keys]  # fmt: skip
        files = [(one.origin, one.model) for one in found]
        tables.append((inventory_name(inventory), files, rows))
    return tables
