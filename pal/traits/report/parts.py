"""The files the trait report is made of, each known by its ``kind``; checked before they are shown.

An estimate has a value or, where there is none, the reason: the page shows either.
"""

from typing import ClassVar

from pydantic import Field

from pal.report.parts import Number, Part, PartModel, ShownTurn
from pal.traits.report.words import dimension_name


class ShownEstimate(PartModel):
    """A figure with its interval over ``n`` units, or why it is undefined."""

    n: int
    value: Number = None
    low: Number = None
    high: Number = None
    reason: str | None = None


class ShownInventory(PartModel):
    """What a document says of an inventory."""

    version: str = ""
    dimensions: dict[str, str]


class CorrelationCell(PartModel):
    """A correlation with its p, before and after Holm."""

    r: ShownEstimate
    p: Number = None
    p_holm: Number = None


class TheoryPair(PartModel):
    """A pair that theory ties together; the shares are of bootstrap samples, 0 to 1."""

    row: str
    column: str
    sign: int
    sign_as_expected: bool | None = None
    largest_in_column: bool | None = None
    largest_in_row: bool | None = None
    column_share: Number = None
    row_share: Number = None


class PrintedTable(PartModel):
    """A table of numbers that the paper prints."""

    table: int
    model: str
    columns: list[str]
    rows: dict[str, list[float]]


class ShownReliability(PartModel):
    """Of one dimension's items; ``items`` are item-rest correlations after keying."""

    alpha: ShownEstimate
    omega: ShownEstimate
    items: dict[str, Number] = {}


class AnswerCounts(PartModel):
    """How many answers there are of one inventory, how many are missing, and why."""

    answered: int
    unanswered: int
    reasons: dict[str, int] = {}


class CorrelationGroup(PartModel):
    """Two inventories over the personas of one data set and model."""

    dataset: str
    model: str
    n: int
    rows: list[str]
    columns: list[str]
    cells: dict[str, dict[str, CorrelationCell]]
    pairs: list[TheoryPair] = []
    reliability: dict[str, dict[str, ShownReliability]] = {}
    unanswered: dict[str, AnswerCounts] = {}
    paper: list[PrintedTable] = []

    @property
    def name(self) -> str:
        """What headings call it."""
        return f"{self.dataset}, {self.model}"


class CorrelationPart(Part):
    """Personality against style (``pal traits correlate``)."""

    inventories: dict[str, ShownInventory]
    groups: list[CorrelationGroup]
    failed: int = 0

    def dimension(self, which: int, key: str) -> str:
        """Return the name of a dimension of the first (0) or second (1) inventory."""
        inventory = list(self.inventories)[which]
        return dimension_name(inventory, key, self.inventories[inventory].dimensions)


class Shift(PartModel):
    """One dimension before and after, over the personas that have both scores."""

    inventory: str
    dimension: str
    name: str
    before: list[float]
    after: list[float]
    mean_before: ShownEstimate
    mean_after: ShownEstimate
    delta: ShownEstimate
    dz: ShownEstimate
    p: Number = None
    p_holm: Number = None
    ks: Number = None
    ks_p_holm: Number = None
    shift: str = ""


class ConsistencyGroup(PartModel):
    """Personas of one data set and model, before and after."""

    dataset: str
    model: str
    dimensions: list[Shift]

    @property
    def name(self) -> str:
        """What headings call it."""
        return f"{self.dataset}, {self.model}"


class SpreadComparison(PartModel):
    """One figure of spread, with persona and without."""

    name: str
    with_: ShownEstimate = Field(alias="with")
    without: ShownEstimate
    ratio: ShownEstimate
    p: Number = None
    p_holm: Number = None


class ConcentrationGroup(PartModel):
    """Seekers of dialogues with and without persona; points are two principal components."""

    dataset: str
    model: str
    inventory: str
    n_with: int
    n_without: int
    points: dict[str, list[tuple[float, float]]] | None = None
    explained: tuple[float, float] | None = None
    statistics: list[SpreadComparison] = []
    reason: str | None = None


class ConsistencyPart(Part):
    """Traits before and after a dialogue, and without persona (``pal traits compare``)."""

    groups: list[ConsistencyGroup]
    concentration: list[ConcentrationGroup]
    paper: dict[str, int]


class ConditionShares(PartModel):
    """Shares of the strategies, 0 to 1, of one condition."""

    dialogues: int
    turns: int
    shares: dict[str, ShownEstimate]


class Difference(PartModel):
    """A strategy's share in one condition less that in another; ``paper`` is its sign there."""

    difference: ShownEstimate
    p: Number = None
    p_holm: Number = None
    paper: int | None = None


class StrategyComparison(PartModel):
    """Two conditions."""

    a: str
    b: str
    paired: bool
    chi2: Number = None
    dof: int | None = None
    cramers_v: ShownEstimate
    p: Number = None
    p_holm: Number = None
    strategies: dict[str, Difference] = {}


class StrategyGroup(PartModel):
    """Conditions of one data set and model."""

    dataset: str
    model: str
    conditions: dict[str, ConditionShares]
    comparisons: list[StrategyComparison]

    @property
    def name(self) -> str:
        """What headings call it."""
        return f"{self.dataset}, {self.model}"


class PaperStrategies(PartModel):
    """All that the paper prints of strategies, in percent."""

    strategies: list[PrintedTable] = []


class StrategiesPart(Part):
    """Strategies by condition (``pal traits strategies``)."""

    groups: list[StrategyGroup]
    paper: PaperStrategies


class Said(PartModel):
    """Words and turns of one speaker."""

    words: int
    turns: int
    words_a_turn: ShownEstimate
    turns_a_dialogue: ShownEstimate


class ConditionSize(PartModel):
    """Words and turns of one condition."""

    n: int
    all: Said
    seeker: Said
    supporter: Said


class DialogueSizes(PartModel):
    """Conditions of one data set and model."""

    dataset: str
    model: str
    conditions: dict[str, ConditionSize]


class CardSizes(PartModel):
    """What the cards of one data set hold; known: shares, 0 to 1."""

    dataset: str
    n: int
    dropped: int
    failed: int
    reasons: dict[str, int] = {}
    description_words: ShownEstimate
    problem_words: ShownEstimate
    age_known: ShownEstimate
    gender_known: ShownEstimate
    occupation_known: ShownEstimate


class StatisticsPart(Part):
    """Sizes of dialogues or cards (``pal traits stats``), and what the paper prints."""

    dialogues: list[DialogueSizes]
    cards: list[CardSizes]
    paper: dict[str, dict[str, dict[str, float]]]


class ShownRecord(PartModel):
    """What all records have; ``failed`` says why there is nothing else, ``origin`` is the file."""

    noun: ClassVar[str] = "record"

    id: str
    origin: str = ""
    dataset: str | None = None
    failed: str | None = None


class ShownCard(ShownRecord):
    """A seeker; ``traits`` are sentences by inventory and dimension."""

    noun = "card"

    age: str | None = None
    gender: str | None = None
    occupation: str | None = None
    description: str | None = None
    problem: str | None = None
    traits: dict[str, dict[str, str]] = {}


class ShownMeasurement(ShownRecord):
    """Answers of one card to one inventory; ``unanswered`` are reasons by item."""

    noun = "measurement"

    inventory: str = ""
    model: str = ""
    answers: dict[str, int] = {}
    unanswered: dict[str, str] = {}
    scores: dict[str, Number] = {}


class ShownDialogue(ShownRecord):
    """A synthesised or continued dialogue of a card."""

    noun = "dialogue"

    card: str | None = None
    condition: str | None = None
    dialog: list[ShownTurn] = []


KINDS: dict[str, type[Part]] = {
    "traits_correlation": CorrelationPart,
    "traits_consistency": ConsistencyPart,
    "traits_strategies": StrategiesPart,
    "traits_statistics": StatisticsPart,
}
