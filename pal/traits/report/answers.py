"""The three questions of "From Personas to Talks", each answered in a sentence by the page's files.

An answer says what the numbers show and of how many personas or dialogues. "Beyond chance" is
p < 0.05 after Holm's adjustment, as in the tables. What was not measured is said to be missing.
"""

from collections.abc import Sequence

from pal.core.job import counted
from pal.report.page import PageAnswer
from pal.report.parts import Part
from pal.report.tables import show
from pal.traits.report.parts import (
    ConsistencyGroup,
    ConsistencyPart,
    CorrelationGroup,
    CorrelationPart,
    StrategiesPart,
    StrategyComparison,
    StrategyGroup,
)
from pal.traits.report.words import BASELINES, condition_name, short_name, spoken

LEVEL = 0.05
QUESTIONS = (
    "Do language models infer stable traits from personas?",
    "Do dialogues keep the traits of the personas they are written from?",
    "Do traits change the supporter’s strategies?",
)


def answer_questions(parts: Sequence[Part], sections: Sequence[str]) -> list[PageAnswer]:
    """Return the three questions with their answers.

    Args:
        parts: documents of the page.
        sections: anchors of its sections.
    """
    theory = [g for p in parts if isinstance(p, CorrelationPart) for g in p.groups if g.pairs]
    shifts = [g for p in parts if isinstance(p, ConsistencyPart) for g in p.groups if g.dimensions]
    mixes = [g for p in parts if isinstance(p, StrategiesPart) for g in p.groups if g.comparisons]
    found = (
        ("correlations", _correlate(theory), "pal traits correlate"),
        ("consistency", _keep(shifts), "pal traits compare"),
        ("strategies", _change(mixes), "pal traits strategies"),
    )
    return [
        PageAnswer(
            question,
            text or f"Not answered: no result of {command} is on this page.",
            section if section in sections else None,
        )
        for question, (section, text, command) in zip(QUESTIONS, found, strict=True)
    ]


def _verdict(held: int, asked: int) -> str:
    return "Yes" if held == asked else "In part" if held else "No evidence"


def _sure(p: float | None) -> bool:
    return p is not None and p < LEVEL


def _join(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)


def _correlate(groups: Sequence[CorrelationGroup]) -> str:
    """Say how many pairs of the theory correlate with the sign it expects."""
    said: list[str] = []
    asked = known = held = 0
    why: dict[str, None] = {}
    for group in groups:
        cells = [(pair, group.cells[pair.row][pair.column]) for pair in group.pairs]
        sure = sum(_sure(cell.p_holm) and pair.sign_as_expected is True for pair, cell in cells)
        asked, held = asked + len(cells), held + sure
        known += sum(cell.r.value is not None for _, cell in cells)
        why |= dict.fromkeys(cell.r.reason for _, cell in cells if cell.r.reason)
        said.append(f"{sure} of {len(cells)} ({group.name}: {counted(group.n, 'persona')})")
    if not groups:
        return ""
    if not known:
        return (
            f"Undefined: none of the {asked} correlations that theory expects could be computed "
            f"({'; '.join(why)})."
        )
    gone = f"; {asked - known} could not be computed" if known < asked else ""
    return (
        f"{_verdict(held, asked)}: of the pairs of dimensions that theory ties together, "
        f"{_join(said)} correlate with the expected sign beyond chance{gone}."
    )


def _keep(groups: Sequence[ConsistencyGroup]) -> str:
    """Say which dimensions shift between persona and dialogue; no shift shown proves nothing."""
    said: list[str] = []
    shifted = known = 0
    for group in groups:
        dimensions = [one for one in group.dimensions if one.delta.value is not None]
        moved = [one for one in dimensions if one.shift in ("rises", "falls")]
        shifted, known = shifted + len(moved), known + len(dimensions)
        names = [f"{spoken(one.name, one.inventory)} ({short_name(one.inventory)}) {one.shift} "
                 f"by {show(abs(one.delta.value or 0.0))}" for one in moved]  # fmt: skip
        what = f": {_join(names)}" if names else ""
        said.append(f"{len(moved)} of {len(dimensions)} dimensions ({group.name}{what})")
    if not groups:
        return ""
    if not known:
        return "Undefined: no dimension has enough personas with both scores."
    if shifted:
        lead = "Not wholly" if shifted < known else "No"
        return f"{lead}: {_join(said)} shift beyond chance."
    return (
        f"No shift is shown: {_join(said)} shift beyond chance, which does not prove that none do."
    )


def _change(groups: Sequence[StrategyGroup]) -> str:
    """Say whether strategies differ from those of dialogues without traits, and which."""
    rows = [(g, one) for g in groups if (one := _against_baseline(g)) is not None]
    if not rows:
        return ""
    known = [(group, one) for group, one in rows if one.p_holm is not None]
    if not known:
        return "Undefined: too few dialogues to compare the conditions."
    held = [one for _, one in known if _sure(one.p_holm)]
    said = [_describe(group, one) for group, one in known]
    return f"{_verdict(len(held), len(known))}: {'; '.join(said)}."


def _against_baseline(group: StrategyGroup) -> StrategyComparison | None:
    """Return the comparison with dialogues without traits, that of most traits if several."""
    order = {name: place for place, name in enumerate(("csi", "hexaco", "persona", "both"))}
    found = [one for one in group.comparisons if (one.a in BASELINES) != (one.b in BASELINES)]
    return max(found, key=lambda one: order.get(_with(one), -1), default=None)


def _with(one: StrategyComparison) -> str:
    return one.b if one.a in BASELINES else one.a


def _describe(group: StrategyGroup, one: StrategyComparison) -> str:
    sign = -1 if one.a in BASELINES else 1
    moved = [
        f"{name} {'more' if sign * found.difference.value > 0 else 'less'} often "
        f"({show(100 * abs(found.difference.value), 1)} points)"
        for name, found in one.strategies.items()
        if _sure(found.p_holm) and found.difference.value
    ]
    base = condition_name(one.a if one.a in BASELINES else one.b)
    said = condition_name(_with(one)).removeprefix("with ")
    sizes = [group.conditions[_with(one)], group.conditions[one.a if one.a in BASELINES else one.b]]
    counts = f"{counted(sizes[0].dialogues, 'dialogue')} and {sizes[1].dialogues:,}"
    where = f"from those {base} ({group.name}: {counts})"
    if not _sure(one.p_holm):
        return f"dialogues with {said} do not differ beyond chance {where}"
    which = f": {_join(moved)}" if moved else ", though in no single strategy beyond chance"
    return f"dialogues with {said} differ in their strategies {where}{which}"
