"""The files the trait report is made of, each told by its ``kind``; checked before they are shown.

An estimate has a value or, where there is none, the reason: the page shows either.
"""

from pydantic import BaseModel, ConfigDict, Field

from pal.benchmark.report.parts import Number, Part, Turn


class Checked(BaseModel):
    """Numbers are finite or null; keys that the page does not show pass."""

    model_config = ConfigDict(allow_inf_nan=False, coerce_numbers_to_str=True)


class Estimate(Checked):
    """A figure with its interval over ``n`` units, or why it is undefined."""

    n: int
    value: Number = None
    low: Number = None
    high: Number = None
    reason: str | None = None


class Inventory(Checked):
    """What a document tells of an inventory."""

    version: str = ""
    dimensions: dict[str, str]


class Cell(Checked):
    """A correlation with its p, before and after Holm."""

    r: Estimate
    p: Number = None
    p_holm: Number = None


class Pair(Checked):
    """A pair that theory ties together; the shares are of bootstrap samples, 0 to 1."""

    row: str
    column: str
    sign: int
    sign_as_expected: bool | None = None
    largest_in_column: bool | None = None
    largest_in_row: bool | None = None
    column_share: Number = None
    row_share: Number = None


class Printed(Checked):
    """A table of numbers that the paper prints."""

    table: int
    model: str
    columns: list[str]
    rows: dict[str, list[float]]


class Reliability(Checked):
    """Of one dimension's items; ``items`` are item-rest correlations after keying."""

    alpha: Estimate
    omega: Estimate
    items: dict[str, Number] = {}


class Answered(Checked):
    """How many answers there are of one inventory, how many are missing, and why."""

    answered: int
    unanswered: int
    reasons: dict[str, int] = {}


class CorrelationGroup(Checked):
    """Two inventories over the personas of one data set and model."""

    dataset: str
    model: str
    n: int
    rows: list[str]
    columns: list[str]
    cells: dict[str, dict[str, Cell]]
    pairs: list[Pair] = []
    reliability: dict[str, dict[str, Reliability]] = {}
    unanswered: dict[str, Answered] = {}
    paper: list[Printed] = []

    @property
    def name(self) -> str:
        """What headings call it."""
        return f"{self.dataset}, {self.model}"


class Correlation(Part):
    """Personality against style (``pal traits correlate``)."""

    inventories: dict[str, Inventory]
    groups: list[CorrelationGroup]
    failed: int = 0

    def dimension(self, which: int, key: str) -> str:
        """Return the name of a dimension of the first (0) or second (1) inventory."""
        return list(self.inventories.values())[which].dimensions.get(key, key).replace("_", " ")


class Shift(Checked):
    """One dimension before and after, over the personas that have both scores."""

    inventory: str
    dimension: str
    name: str
    before: list[float]
    after: list[float]
    mean_before: Estimate
    mean_after: Estimate
    delta: Estimate
    dz: Estimate
    p: Number = None
    p_holm: Number = None
    ks: Number = None
    ks_p_holm: Number = None
    shift: str = ""


class ConsistencyGroup(Checked):
    """Personas of one data set and model, before and after."""

    dataset: str
    model: str
    dimensions: list[Shift]


class Spread(Checked):
    """One figure of spread, with persona and without."""

    name: str
    with_: Estimate = Field(alias="with")
    without: Estimate
    ratio: Estimate
    p: Number = None
    p_holm: Number = None


class ConcentrationGroup(Checked):
    """Seekers of dialogues with and without persona; points are two principal components."""

    dataset: str
    model: str
    inventory: str
    n_with: int
    n_without: int
    points: dict[str, list[tuple[float, float]]] | None = None
    explained: tuple[float, float] | None = None
    statistics: list[Spread] = []
    reason: str | None = None


class Consistency(Part):
    """Traits before and after a dialogue, and without persona (``pal traits compare``)."""

    groups: list[ConsistencyGroup]
    concentration: list[ConcentrationGroup]
    paper: dict[str, int]


class ConditionShares(Checked):
    """Shares of the strategies, 0 to 1, of one condition."""

    dialogues: int
    turns: int
    shares: dict[str, Estimate]


class Difference(Checked):
    """A strategy's share in one condition less that in another; ``paper`` is its sign there."""

    difference: Estimate
    p: Number = None
    p_holm: Number = None
    paper: int | None = None


class StrategyComparison(Checked):
    """Two conditions."""

    a: str
    b: str
    paired: bool
    chi2: Number = None
    dof: int | None = None
    cramers_v: Estimate
    p: Number = None
    p_holm: Number = None
    strategies: dict[str, Difference] = {}


class StrategyGroup(Checked):
    """Conditions of one data set and model."""

    dataset: str
    model: str
    conditions: dict[str, ConditionShares]
    comparisons: list[StrategyComparison]


class PaperStrategies(Checked):
    """All that the paper prints of strategies, in percent."""

    strategies: list[Printed] = []


class Strategies(Part):
    """Strategies by condition (``pal traits strategies``)."""

    groups: list[StrategyGroup]
    paper: PaperStrategies


class Said(Checked):
    """Words and turns of one speaker."""

    words: int
    turns: int
    words_a_turn: Estimate
    turns_a_dialogue: Estimate


class ConditionSize(Checked):
    """Words and turns of one condition."""

    n: int
    all: Said
    seeker: Said
    supporter: Said


class DialogueSizes(Checked):
    """Conditions of one data set and model."""

    dataset: str
    model: str
    conditions: dict[str, ConditionSize]


class CardSizes(Checked):
    """What the cards of one data set hold; known: shares, 0 to 1."""

    dataset: str
    n: int
    dropped: int
    failed: int
    reasons: dict[str, int] = {}
    description_words: Estimate
    problem_words: Estimate
    age_known: Estimate
    gender_known: Estimate
    occupation_known: Estimate


class Statistics(Part):
    """Sizes of dialogues or cards (``pal traits stats``), and what the paper prints."""

    dialogues: list[DialogueSizes]
    cards: list[CardSizes]
    paper: dict[str, dict[str, dict[str, float]]]


class Record(Checked):
    """What all records have; ``failed`` says why there is nothing else, ``origin`` is the file."""

    id: str
    origin: str = ""
    dataset: str | None = None
    failed: str | None = None


class Card(Record):
    """A seeker; ``traits`` are sentences by inventory and dimension."""

    age: str | None = None
    gender: str | None = None
    occupation: str | None = None
    description: str | None = None
    problem: str | None = None
    traits: dict[str, dict[str, str]] = {}


class Measurement(Record):
    """Answers of one card to one inventory; ``unanswered`` are reasons by item."""

    inventory: str = ""
    model: str = ""
    answers: dict[str, int] = {}
    unanswered: dict[str, str] = {}
    scores: dict[str, Number] = {}


class Dialogue(Record):
    """A synthesised or continued dialogue of a card."""

    card: str | None = None
    condition: str | None = None
    dialog: list[Turn] = []


KINDS: dict[str, type[Part]] = {
    "traits_correlation": Correlation,
    "traits_consistency": Consistency,
    "traits_strategies": Strategies,
    "traits_statistics": Statistics,
}
