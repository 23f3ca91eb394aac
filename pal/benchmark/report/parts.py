"""The files that the benchmark's page is made of: results, scores, analyses, judgements, cases.

This module defines their format; see :mod:`pal.report.parts`. It is long because the formats of all
kinds stand together.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pal.data.strategies import STRATEGIES
from pal.report.parts import Number, Part, PartModel, ShownTurn

_EIGHT = Field(min_length=len(STRATEGIES), max_length=len(STRATEGIES))


class MetricInfo(PartModel):
    """The meaning of a metric key."""

    family: str = ""
    direction: Literal["higher", "lower", "none"] = "none"
    unit: str = ""
    version: str = ""
    n: int | None = None


class MetricSummary(PartModel):
    """A metric over the seeds of a system; the interval is over dialogues."""

    mean: Number = None
    sd: Number = None
    low: Number = None
    high: Number = None


class CurvePoint(PartModel):
    """One entry of a training log; losses are in nats per token."""

    epoch: float
    train_loss: Number = None
    validation_nll: Number = None


class SystemRun(PartModel):
    """One training run of a system and its scores."""

    seed: int | None = None
    checkpoint: str | None = None
    epoch: Number = None
    validation_nll: Number = None
    values: dict[str, Number] = Field(default_factory=dict)
    model: str | None = None
    predictions: str | None = None
    curve: list[CurvePoint] = Field(default_factory=list)


class SystemResults(PartModel):
    """One row of the results."""

    label: str
    note: str | None = None
    printed: dict[str, Number] | None = None
    summary: dict[str, MetricSummary]
    authors: dict[str, Number] = Field(default_factory=dict)
    missing: dict[str, str] = Field(default_factory=dict)
    runs: list[SystemRun] = Field(default_factory=list)


class TestResult(PartModel):
    """A paired test; the difference is a − b."""

    metric: str
    a: str
    b: str
    difference: Number = None
    low: Number = None
    high: Number = None
    p: Number = None
    p_holm: Number = None


class Results(Part):
    """Scores of all systems (``pal reproduce``)."""

    samples: int
    dialogues: int | None = None
    confidence: float = Field(0.95, gt=0, lt=1)
    metrics: dict[str, MetricInfo]
    systems: dict[str, SystemResults]
    tests: list[TestResult] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)


class ScoreValue(MetricInfo):
    """A metric of one file of responses."""

    value: Number = None


class ScoresPart(Part):
    """Scores of one file of responses (``pal eval``); ``seed`` is that of the responses."""

    system: str = ""
    seed: int | None = None
    samples: int
    variant: str = "correct"
    tokenizer: str | None = None
    metrics: dict[str, ScoreValue]
    missing: dict[str, str] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)


class Level(PartModel):
    """Mean similarity of the dialogues of one survey score."""

    score: float
    n: int
    mean: Number = None
    low: Number = None
    high: Number = None


class ScoreRelation(PartModel):
    """One survey score against the similarity of responses and persona."""

    points: list[tuple[float, float]]
    levels: list[Level] = Field(default_factory=list)
    slope: Number = None
    intercept: Number = None
    r2: Number = None
    r2_levels: Number = None
    rho: Number = None
    p: Number = None
    n: int


class Similarity(PartModel):
    """The paper's Figures 3 and 5."""

    embedder: str
    dialogues: int
    confidence: float = Field(0.95, gt=0, lt=1)
    without_survey: int = 0
    without_persona: int = 0
    note: str | None = None
    scores: dict[str, ScoreRelation]


class StrategyScores(PartModel):
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


class SystemStrategies(PartModel):
    """Strategies that a system chose; ``confusion`` is [gold][predicted] counts."""

    label: str
    n: int | None = None
    top: Annotated[list[float], _EIGHT] | None = None
    confusion: Annotated[list[Annotated[list[int], _EIGHT]], _EIGHT] | None = None
    distribution: dict[str, int] = Field(default_factory=dict)
    per_strategy: list[StrategyScores] = Field(default_factory=list)


class StrategyAnalysis(PartModel):
    """Strategies of the corpus and of the systems."""

    gold: dict[str, int] | None = None
    systems: dict[str, SystemStrategies] = Field(default_factory=dict)


class SentenceCounts(PartModel):
    """Persona sentences per dialogue; histogram rows are [sentences, dialogues]."""

    mean: Number = None
    sd: Number = None
    median: Number = None
    max: Number = None
    histogram: list[tuple[float, int]] = Field(default_factory=list)


class FirstTurns(PartModel):
    """First utterance (from 1) with a persona; histogram rows are [turn, dialogues]."""

    mean: Number = None
    median: Number = None
    histogram: list[tuple[float, int]] = Field(default_factory=list)


class Coverage(PartModel):
    """Evaluated supporter turns with a persona; ``by_turn`` rows are [turn, share 0 to 1]."""

    turns: int
    with_persona: int
    by_turn: list[tuple[float, float]] = Field(default_factory=list)


class Personas(PartModel):
    """Statistics of the personas."""

    dialogues: int
    with_persona: int
    sentences: SentenceCounts
    first_turn: FirstTurns
    coverage: Coverage


class Analysis(Part):
    """Similarity, strategies and personas (``pal analyze``).

    ``seeds`` are the seeds whose responses are counted together, in an analysis of the benchmark;
    ``seed_of`` the one seed of each file of responses, where its record says it.
    """

    seeds: list[int] = Field(default_factory=list)
    seed_of: dict[str, int] = Field(default_factory=dict)
    similarity: Similarity | None = None
    strategies: StrategyAnalysis | None = None
    personas: Personas | None = None


class Objective(PartModel):
    """An objective of the search."""

    key: str
    direction: Literal["higher", "lower", "none"] = "higher"
    unit: str = ""


class AlphaPoint(PartModel):
    """One α vector and its values, with its name or trial number."""

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
    baselines: list[AlphaPoint] = Field(default_factory=list)
    trials: list[AlphaPoint]
    chosen: AlphaPoint | None = None
    strategies: Annotated[list[str], _EIGHT]


class ItemVotes(PartModel):
    """Numbers of items won, tied and lost by the majority of raters, for the sign test."""

    a_wins: int
    ties: int
    b_wins: int


class QuestionVotes(PartModel):
    """Votes on one question about one pair."""

    question: str
    a_wins: int
    ties: int
    b_wins: int
    items: ItemVotes | None = None
    p: Number = None
    p_holm: Number = None


class HumanPair(PartModel):
    """Two systems that were compared."""

    a: str
    b: str
    questions: list[QuestionVotes]
    kappa: dict[str, Number] = Field(default_factory=dict)
    kappa_missing: dict[str, str] = Field(default_factory=dict)
    kappa_items: dict[str, int] = Field(default_factory=dict)
    raters: int | None = None
    items: int | None = None
    same_text: int | None = None
    samples: int | None = None


class Problem(PartModel):
    """A row of a sheet that could not be counted."""

    file: str = ""
    row: int | None = None
    item: str | None = None
    question: str | None = None
    problem: str


class Human(Part):
    """Human evaluation (``pal human-eval score``); ``seed_of`` are the seeds of the responses."""

    pairs: list[HumanPair]
    problems: list[Problem] = Field(default_factory=list)
    seed_of: dict[str, int] = Field(default_factory=dict)


class JudgedFigure(PartModel):
    """A figure with its interval, or why there is none."""

    n: int | None = None
    value: Number = None
    low: Number = None
    high: Number = None
    reason: str | None = None
    p: Number = None
    p_holm: Number = None


class ShownRubric(PartModel):
    """What the judges were asked."""

    name: str
    version: str | int | None = None
    source: str | None = None


class JudgeAgreement(PartModel):
    """Cohen's κ of two judges, by question."""

    a: str
    b: str
    kappa: dict[str, JudgedFigure]


class ModelJudgements(Part):
    """What language models judged; never what people did."""

    rubric: ShownRubric
    confidence: float = Field(0.95, gt=0, lt=1)
    judged_by: dict[str, dict[str, Any]]
    unanswered: dict[str, dict[str, int]] = Field(default_factory=dict)
    agreement: list[JudgeAgreement] = Field(default_factory=list)
    seed_of: dict[str, int] = Field(default_factory=dict)


class JudgedQuestion(QuestionVotes):
    """The verdicts on one question about one pair."""

    preference: JudgedFigure = JudgedFigure()
    kappa: JudgedFigure = JudgedFigure()


class JudgedPair(PartModel):
    """Two systems that judges compared."""

    a: str
    b: str
    questions: list[JudgedQuestion]
    items: int | None = None
    same_text: int | None = None
    samples: int | None = None


class JudgedPairs(ModelJudgements):
    """Comparisons by language models (``pal judge pairs``)."""

    pairs: list[JudgedPair]
    position: dict[str, dict[str, JudgedFigure]] = Field(default_factory=dict)
    consistency: dict[str, dict[str, JudgedFigure]] = Field(default_factory=dict)


class JudgedRatings(ModelJudgements):
    """Ratings by language models (``pal judge ratings``)."""

    scale: tuple[int, int]
    rated: int
    samples: int
    systems: dict[str, dict[str, JudgedFigure]]
    tests: list[TestResult] = Field(default_factory=list)
    judges: dict[str, dict[str, Number]] = Field(default_factory=dict)


class CaseSystem(PartModel):
    """A system of the case studies."""

    name: str
    label: str


class CaseResponse(PartModel):
    """A system's response to a case."""

    response: str
    strategy: str | None = None
    alpha: Number = None


class AnsweredCase(PartModel):
    """A dialogue up to ``turn`` and every response to it."""

    id: str
    dialogue: str
    turn: int = Field(ge=0)
    persona: list[str] = Field(default_factory=list)
    strategy: str | None = None
    reference: str | None = None
    responses: dict[str, CaseResponse | None]


class Cases(Part):
    """Case studies (``pal reproduce``); ``seed_of`` are the seeds of the responses.

    ``seed`` is that of all systems with one.
    """

    seed: int | None = None
    seed_of: dict[str, int | None] = Field(default_factory=dict)
    systems: list[CaseSystem]
    dialogues: dict[str, list[ShownTurn]]
    cases: list[AnsweredCase]

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
    "scores": ScoresPart,
    "analysis": Analysis,
    "alpha": Alpha,
    "human": Human,
    "judge-pairs": JudgedPairs,
    "judge-ratings": JudgedRatings,
    "cases": Cases,
}
