"""The files a page is made of: results, analysis, alpha, human, cases, each told by its ``kind``.

Their format is written down here, and checked: a page is never made from half a file. Numbers that
a file leaves out, or gives as null, are shown as missing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pal.core.errors import DataError, suggest
from pal.core.files import read_json
from pal.data.strategies import STRATEGIES

FORMAT = 1  # of all five kinds

_EIGHT = Field(min_length=len(STRATEGIES), max_length=len(STRATEGIES))
Number = float | None


class _Model(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False, coerce_numbers_to_str=True)


class MetricInfo(_Model):
    """What a metric key means."""

    family: str = ""
    direction: Literal["higher", "lower", "none"] = "none"
    unit: str = ""
    version: str = ""
    n: int | None = None


class Summary(_Model):
    """A metric over a system's seeds; the interval is over dialogues."""

    mean: Number = None
    sd: Number = None
    low: Number = None
    high: Number = None


class CurvePoint(_Model):
    """One entry of a training log; losses in nats a token."""

    epoch: float
    train_loss: Number = None
    validation_nll: Number = None


class SystemRun(_Model):
    """One training run of a system and its scores."""

    seed: int | None = None
    checkpoint: str | None = None
    epoch: Number = None
    validation_nll: Number = None
    values: dict[str, Number] = {}
    model: str | None = None
    predictions: str | None = None
    curve: list[CurvePoint] = []


class System(_Model):
    """One row of the results."""

    label: str
    note: str | None = None
    printed: dict[str, Number] | None = None
    summary: dict[str, Summary]
    authors: dict[str, Number] = {}
    missing: dict[str, str] = {}
    runs: list[SystemRun] = []


class Comparison(_Model):
    """A paired test; the difference is a − b."""

    metric: str
    a: str
    b: str
    difference: Number = None
    low: Number = None
    high: Number = None
    p: Number = None
    p_holm: Number = None


class Part(_Model):
    """What all kinds have."""

    kind: str
    title: str | None = None
    run: dict[str, Any] = {}


class Results(Part):
    """Scores of all systems (``pal reproduce``)."""

    samples: int
    dialogues: int | None = None
    confidence: float = Field(0.95, gt=0, lt=1)
    metrics: dict[str, MetricInfo]
    systems: dict[str, System]
    tests: list[Comparison] = []
    notes: list[str] = []


class Level(_Model):
    """Mean similarity of the dialogues of one survey score."""

    score: float
    n: int
    mean: Number = None
    low: Number = None
    high: Number = None


class ScoreRelation(_Model):
    """One survey score against the similarity of responses and persona."""

    points: list[tuple[float, float]]
    levels: list[Level] = []
    slope: Number = None
    intercept: Number = None
    r2: Number = None
    r2_levels: Number = None
    rho: Number = None
    p: Number = None
    n: int


class Similarity(_Model):
    """The paper's Figures 3 and 5."""

    embedder: str
    dialogues: int
    confidence: float = Field(0.95, gt=0, lt=1)
    without_survey: int = 0
    without_persona: int = 0
    note: str | None = None
    scores: dict[str, ScoreRelation]


class StrategyScores(_Model):
    """Scores of one strategy."""

    strategy: str
    n_gold: int | None = None
    n_predicted: int | None = None
    precision: Number = None
    recall: Number = None
    f1: Number = None
    bleu_2: Number = None
    rouge_l: Number = None
    distinct_2: Number = None
    length: Number = None
    cos_sim: Number = None


class SystemStrategies(_Model):
    """What strategies a system chose; ``confusion`` is [gold][predicted] counts."""

    label: str
    n: int | None = None
    top: Annotated[list[float], _EIGHT] | None = None
    confusion: Annotated[list[Annotated[list[int], _EIGHT]], _EIGHT] | None = None
    distribution: dict[str, int] = {}
    per_strategy: list[StrategyScores] = []


class Strategies(_Model):
    """Strategies of the corpus and of the systems."""

    gold: dict[str, int] | None = None
    systems: dict[str, SystemStrategies] = {}


class SentenceCounts(_Model):
    """Persona sentences a dialogue; histogram rows are [sentences, dialogues]."""

    mean: Number = None
    sd: Number = None
    median: Number = None
    max: Number = None
    histogram: list[tuple[float, int]] = []


class FirstTurns(_Model):
    """First utterance (from 1) with a persona; histogram rows are [turn, dialogues]."""

    mean: Number = None
    median: Number = None
    histogram: list[tuple[float, int]] = []


class Coverage(_Model):
    """Evaluated supporter turns with a persona; ``by_turn`` rows are [turn, share 0 to 1]."""

    turns: int
    with_persona: int
    by_turn: list[tuple[float, float]] = []


class Personas(_Model):
    """Statistics of the personas."""

    dialogues: int
    with_persona: int
    sentences: SentenceCounts
    first_turn: FirstTurns
    coverage: Coverage


class Analysis(Part):
    """Similarity, strategies and personas (``pal analyze``)."""

    similarity: Similarity | None = None
    strategies: Strategies | None = None
    personas: Personas | None = None


class Objective(_Model):
    """What a trial is judged by."""

    key: str
    direction: Literal["higher", "lower", "none"] = "higher"
    unit: str = ""


class AlphaPoint(_Model):
    """One α vector and its values, with what tells it apart."""

    alpha: Annotated[list[float], _EIGHT]
    values: dict[str, Number]
    name: str | None = None
    number: int | None = None
    front: bool = False
    rule: str | None = None


class Alpha(Part):
    """Choice of α (``pal tune-alpha``)."""

    model: str | None = None
    input: str | None = None
    samples: int
    sampler: str = ""
    objectives: Annotated[list[Objective], Field(min_length=1)]
    baselines: list[AlphaPoint] = []
    trials: list[AlphaPoint]
    chosen: AlphaPoint | None = None
    strategies: Annotated[list[str], _EIGHT]


class ItemVotes(_Model):
    """Items won, tied and lost by most of their raters: what the sign test counts."""

    a_wins: int
    ties: int
    b_wins: int


class Question(_Model):
    """Votes on one question about one pair."""

    question: str
    a_wins: int
    ties: int
    b_wins: int
    items: ItemVotes | None = None
    p: Number = None
    p_holm: Number = None


class Pair(_Model):
    """Two systems that met."""

    a: str
    b: str
    questions: list[Question]
    kappa: dict[str, Number] = {}
    kappa_missing: dict[str, str] = {}
    raters: int | None = None
    items: int | None = None
    same_text: int | None = None
    samples: int | None = None


class Problem(_Model):
    """A row of a sheet that could not be counted."""

    file: str = ""
    row: int | None = None
    item: str | None = None
    question: str | None = None
    problem: str


class Human(Part):
    """Human evaluation (``pal human-eval score``)."""

    pairs: list[Pair]
    problems: list[Problem] = []


class CaseSystem(_Model):
    """A system of the case studies."""

    name: str
    label: str


class Turn(_Model):
    """One utterance."""

    speaker: Literal["seeker", "supporter"]
    text: str
    strategy: str | None = None


class CaseResponse(_Model):
    """A system's response to a case."""

    response: str
    strategy: str | None = None
    alpha: Number = None


class Case(_Model):
    """A dialogue up to ``turn`` and every response to it."""

    id: str
    dialogue: str
    turn: int = Field(ge=0)
    persona: list[str] = []
    strategy: str | None = None
    reference: str | None = None
    responses: dict[str, CaseResponse | None]


class Cases(Part):
    """Case studies (``pal reproduce``)."""

    systems: list[CaseSystem]
    dialogues: dict[str, list[Turn]]
    cases: list[Case]

    @model_validator(mode="after")
    def _check_turns(self) -> Self:
        for case in self.cases:
            if case.turn > len(self.dialogues.get(case.dialogue, ())):
                raise ValueError(
                    f"case {case.id!r} answers turn {case.turn} of dialogue {case.dialogue!r}, "
                    f"which has {len(self.dialogues.get(case.dialogue, ()))} here"
                )
        return self


KINDS: dict[str, type[Part]] = {
    "results": Results,
    "analysis": Analysis,
    "alpha": Alpha,
    "human": Human,
    "cases": Cases,
}


def read_part(path: str | Path, kinds: Mapping[str, type[Part]] = KINDS) -> Part:
    """Read one file of any of these kinds.

    Raises:
        DataError: missing, not JSON, or not what its kind should be (see :func:`check_part`).
    """
    return check_part(read_json(path), str(path), kinds)


def check_part(value: Any, where: str, kinds: Mapping[str, type[Part]] = KINDS) -> Part:
    """Check one part and return it in its kind's form.

    Args:
        value: what the JSON file holds.
        where: what messages call it.
        kinds: the forms, by name.

    Raises:
        DataError: another kind or format, or a field of the wrong type; one line names the first.
    """
    kind = str(value.get("kind")) if isinstance(value, Mapping) else ""
    if not isinstance(value, Mapping) or kind not in kinds:
        got = (
            f"kind {value.get('kind')!r}"
            if isinstance(value, Mapping)
            else f"a {type(value).__name__}"
        )
        raise DataError(
            f"{where}: expected an object of kind {', '.join(kinds)}, got {got}"
            f"{suggest(kind, kinds)}; give what a command of this report wrote"
        )
    if value.get("format") != FORMAT:
        raise DataError(
            f"{where}: {kind} of format {value.get('format')!r}, but only format {FORMAT} can be "
            "read; write it anew with this version"
        )
    try:
        return kinds[kind].model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or kind
        got = "" if first["type"] == "missing" else f", got {_shorten(first['input'])}"
        raise DataError(
            f"{where}: {place}: {first['msg'].removeprefix('Value error, ')}"
            f"{got if first['loc'] else ''}; write the {kind} anew with this version"
        ) from None


def _shorten(value: Any) -> str:
    """Return a value for a message: one line, and no whole dialogue."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
