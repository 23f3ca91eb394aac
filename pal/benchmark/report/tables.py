"""Tables of the benchmark: systems by metrics, significance, points of the α search."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from pal.benchmark.report.parts import (
    Alpha,
    AlphaPoint,
    MetricInfo,
    MetricSummary,
    Results,
    ScoresPart,
    SystemResults,
    SystemRun,
)
from pal.report.charts import forest
from pal.report.tables import MISSING, NumberGrid, decimals, number_grid, show, show_p

# Short name (that of the paper, if any) and meaning of each metric key.
METRIC_NAMES = {
    "accuracy": ("ACC", "accuracy of the predicted strategy"),
    "macro_f1": ("macro F1", "mean F1 over the strategies"),
    "ppl": ("PPL", "perplexity, strategy token included"),
    "ppl_without_strategy": ("PPL (text)", "perplexity without the strategy token"),
    "weighted_f1": ("weighted F1", "mean F1 over the strategies, by their gold counts"),
    "matthews": ("MCC", "Matthews correlation of predicted and gold strategy"),
    "preference_bias": ("bias", "spread of the preference for strategies (Kang et al. 2024)"),
    "nats_per_token": ("nats/token", "loss of the response, without strategy, a token"),
    "nats_per_word": ("nats/word", "loss of the response, without strategy, a word"),
    "meteor": ("METEOR", "METEOR by equal words and stems"),
    "meteor_wordnet": ("METEOR-W", "METEOR with the synonyms of WordNet"),
    "bertscore_p": ("BERT-P", "BERTScore, precision"),
    "bertscore_r": ("BERT-R", "BERTScore, recall"),
    "bertscore_f1": ("BERT-F1", "BERTScore, F1"),
    "repeated_responses": ("same", "responses that were given before"),
    "repeated_openings": ("same start", "responses whose first three tokens were given before"),
    "persona_words": ("persona words", "content words of the persona in the response"),
    "persona_entailment": ("entailed", "persona sentences that the response entails"),
    "persona_contradiction": ("contradicted", "persona sentences that the response contradicts"),
    "c_score": ("C", "persona sentences entailed minus contradicted"),
    **{f"self_bleu_{n}": (f"self-B-{n}", f"BLEU-{n} of a response against all others")
       for n in range(2, 5)},
    **{f"repetition_{n}": (f"rep-{n}", f"{n}-grams that the response has said before")
       for n in range(2, 5)},
    "rouge_l": ("R-L", "ROUGE-L, the longest sequence of words in common with the reference"),
    "f1": ("F1", "unigram F1 of response and reference"),
    "length": ("length", "words of a response"),
    "cos_sim": ("cos-sim", "cosine similarity of response and persona"),
    "bleu_1": ("B-1", "BLEU-1, words in common with the reference"),
    **{f"bleu_{n}": (f"B-{n}", f"BLEU-{n}, sequences of up to {n} words in common with the "
                               "reference") for n in range(2, 5)},
    **{f"distinct_{n}": (f"D-{n}", f"Distinct-{n}, share of different ones among all {what}")
       for n, what in enumerate(("words", "pairs of words", "sequences of 3 words"), 1)},
    **{f"ead_{n}": (f"E-{n}", f"expectation-adjusted Distinct-{n}") for n in range(1, 3)},
    **{f"top_{n}": (f"top-{n}", f"gold strategy among the first {n}") for n in range(1, 9)},
}  # fmt: skip
# Tables of what is not in Table 3: heading and families. What no table names comes last.
FURTHER_TABLES = {
    "Further scores: strategies": ("strategy",),
    "Further scores: likeness to the reference": ("perplexity", "bleu", "rouge", "f1", "meteor",
                                                  "bertscore"),
    "Further scores: diversity and repetition": ("distinct", "length", "self_bleu", "repetition"),
    "Further scores: persona": ("similarity", "persona_words", "persona_nli"),
}  # fmt: skip
ARROWS = {"higher": "↑", "lower": "↓", "none": ""}
_UNITS = {"percent": "%"} | dict.fromkeys(("perplexity", "cosine", "correlation", "preference"), "")


def metric_name(key: str) -> str:
    """Return the short name of a metric, or its key if it has none."""
    return METRIC_NAMES.get(key, (key, ""))[0]


def metric_meaning(key: str) -> str:
    """Return the meaning of a metric, or an empty string if unknown."""
    return METRIC_NAMES.get(key, (key, ""))[1]


@dataclass(frozen=True)
class MetricColumn:
    """A metric as a column."""

    key: str
    name: str
    title: str
    arrow: str
    direction: str
    unit: str


@dataclass
class MetricCell:
    """A value with its interval and marks; ``footnote`` explains a missing value."""

    text: str = MISSING
    sd: str = ""
    interval: str = ""
    best: bool = False
    footnote: str = ""
    reason: str = ""


@dataclass
class MetricRow:
    """One line of a system; ``kind`` is measured, authors or printed."""

    kind: str
    cells: list[MetricCell]


@dataclass
class MetricTable:
    """Systems as rows, metrics as columns."""

    columns: list[MetricColumn]
    groups: list[tuple[str, str, list[MetricRow]]] = field(default_factory=list)
    footnotes: dict[str, str] = field(default_factory=dict)  # letter → reason


def columns_of(keys: Iterable[str], metrics: Mapping[str, MetricInfo]) -> list[MetricColumn]:
    """Return the columns of these metrics."""
    found = []
    for key in keys:
        info = metrics.get(key, MetricInfo())
        unit = _UNITS.get(info.unit, info.unit)
        found.append(
            MetricColumn(key, metric_name(key), metric_meaning(key), ARROWS[info.direction],
                   info.direction, unit)
        )  # fmt: skip
    return found


def metric_table(results: Results, keys: Iterable[str], *, authors: bool = False) -> MetricTable:
    """Return the table of these metrics, with the values of the paper below each system.

    Args:
        results: scores of all systems.
        keys: columns; keys without a value or a reason in any system are left out.
        authors: whether values of the authors' scripts are added, and intervals and marks left
            out.
    """
    systems = results.systems
    keys = [key for key in keys if any(_known(system, key) for system in systems.values())]
    table = MetricTable(columns_of(keys, results.metrics))
    letters: dict[str, str] = {}
    rows: dict[str, list[MetricRow]] = {}
    for name, system in systems.items():
        rows[name] = [MetricRow("measured", [])]
        if authors and system.authors:
            rows[name].append(MetricRow("authors", []))
        if any((system.printed or {}).get(key) is not None for key in keys):
            rows[name].append(MetricRow("printed", []))
    for column in table.columns:
        key = column.key
        digits = decimals(
            value
            for system in systems.values()
            for value in (_summary(system, key).mean, system.authors.get(key) if authors else None,
                          (system.printed or {}).get(key))
        )  # fmt: skip
        best = None if authors else _clearly_best(results, key, column.direction)
        for name, system in systems.items():
            for row in rows[name]:
                if row.kind == "measured":
                    cell = _measured(system, key, digits, plain=authors)
                    cell.best = name == best
                    if cell.reason:
                        cell.footnote = letters.setdefault(cell.reason, _letter(len(letters)))
                else:
                    source = system.authors if row.kind == "authors" else system.printed or {}
                    cell = MetricCell(show(source.get(key), digits))
                row.cells.append(cell)
    table.groups = [(system.label, name, rows[name]) for name, system in systems.items()]
    table.footnotes = {letter: reason for reason, letter in letters.items()}
    return table


def results_of_scores(parts: Sequence[ScoresPart], labels: Mapping[str, str]) -> Results:
    """Return files of responses that were scored one by one as rows of one table, without tests.

    A row is named by its file, and by its seed or number where several have that name.

    Args:
        parts: the scores.
        labels: labels of systems, for the files that are named by one.
    """
    names = [labels.get(part.system, part.system) or "model" for part in parts]
    systems: dict[str, SystemResults] = {}
    for number, (name, part) in enumerate(zip(names, parts, strict=True), start=1):
        label = name if part.seed is None else f"{name}, seed {part.seed}"
        label += ", authors’ variant" if part.variant == "authors" else ""
        if label in systems:
            label = f"{label} ({number})"
        values = {key: found.value for key, found in part.metrics.items()}
        systems[label] = SystemResults(
            label=label,
            summary={key: MetricSummary(mean=value) for key, value in values.items()},
            missing=part.missing,
            runs=[SystemRun(seed=part.seed, values=values)],
        )
    metrics: dict[str, MetricInfo] = {}
    for part in parts:
        metrics = {**part.metrics, **metrics}
    return Results(
        kind="results", samples=parts[0].samples, metrics=metrics, systems=systems,
        protocol=parts[0].protocol,
    )  # fmt: skip


def further_tables(results: Results, keys: Iterable[str]) -> list[tuple[str, MetricTable]]:
    """Return headings and tables of these metrics, by what they measure."""
    keys = list(keys)
    places = {family: heading for heading, names in FURTHER_TABLES.items() for family in names}
    other = "Further scores: others"
    groups: dict[str, list[str]] = {heading: [] for heading in (*FURTHER_TABLES, other)}
    for key in keys:
        family = results.metrics.get(key, MetricInfo()).family
        groups[places.get(family, other)].append(key)
    return [(heading, metric_table(results, group)) for heading, group in groups.items()]


def _known(system: SystemResults, key: str) -> bool:
    return key in system.summary or key in system.missing or key in (system.printed or {})


def _summary(system: SystemResults, key: str) -> MetricSummary:
    return system.summary.get(key, MetricSummary())


def _measured(system: SystemResults, key: str, digits: int, *, plain: bool) -> MetricCell:
    found = _summary(system, key)
    if found.mean is None:
        return MetricCell(reason=system.missing.get(key, "not measured"))
    cell = MetricCell(show(found.mean, digits))
    if not plain:
        cell.sd = "" if found.sd is None else show(found.sd, digits)
        if found.low is not None and found.high is not None:
            cell.interval = f"{show(found.low, digits)} to {show(found.high, digits)}"
    return cell


def _clearly_best(results: Results, key: str, direction: str) -> str | None:
    """Return the best system in a metric, if it differs significantly from the best other one."""
    means = {
        name: mean for name, system in results.systems.items()
        if (mean := _summary(system, key).mean) is not None
    }  # fmt: skip
    if direction == "none" or len(means) < 2:
        return None
    ranked = sorted(means, key=lambda name: means[name], reverse=direction == "higher")
    best, other = ranked[:2]
    clear = any(
        test.metric == key and {test.a, test.b} == {best, other}
        and test.p_holm is not None and test.p_holm < significance_level(results)
        for test in results.tests
    )  # fmt: skip
    return best if clear and means[best] != means[other] else None


def _letter(index: int) -> str:
    return chr(ord("a") + index) if index < 26 else str(index + 1)


@dataclass(frozen=True)
class DifferenceRow:
    """A row of the table of significance."""

    metric: str
    a: str
    b: str
    difference: str
    interval: str
    picture: Markup
    p: str
    p_holm: str
    significant: bool
    favours: str  # label of the significantly better system


def differences(results: Results) -> list[DifferenceRow]:
    """Return the pairwise comparisons as rows, in the order of the results' metrics."""
    reach: dict[str, float] = {}
    digits: dict[str, int] = {}
    for key in {test.metric for test in results.tests}:
        values = [
            value
            for test in results.tests
            if test.metric == key
            for value in (test.difference, test.low, test.high)
            if value is not None
        ]
        reach[key] = max(map(abs, values), default=1.0)
        digits[key] = decimals(values)
    order = {key: index for index, key in enumerate(results.metrics)}
    rows = []
    for test in sorted(results.tests, key=lambda test: order.get(test.metric, len(order))):
        significant = test.p_holm is not None and test.p_holm < significance_level(results)
        known = None not in (test.difference, test.low, test.high)
        places = digits[test.metric]
        interval = f"{signed(test.low, places)} to {signed(test.high, places)}"
        a, b = (_label(results, name) for name in (test.a, test.b))
        direction = results.metrics.get(test.metric, MetricInfo()).direction
        favours = ""
        if significant and test.difference and direction != "none":
            favours = a if (test.difference > 0) == (direction == "higher") else b
        rows.append(
            DifferenceRow(
                test.metric, a, b, signed(test.difference, places),
                interval if known else MISSING,
                forest(test.low or 0, test.high or 0, test.difference or 0, reach[test.metric],
                       filled=significant) if known else Markup(""),
                show_p(test.p), show_p(test.p_holm), significant, favours,
            )
        )  # fmt: skip
    return rows


def significance_level(results: Results) -> float:
    """Return the significance level of adjusted p-values, that of the intervals."""
    return round(1 - results.confidence, 9)


def _label(results: Results, name: str) -> str:
    return results.systems[name].label if name in results.systems else name


def signed(value: float | None, digits: int) -> str:
    """Return a difference as text, with its sign."""
    text = show(value, digits)
    return f"+{text}" if value is not None and value > 0 and float(f"{value:.{digits}f}") else text


def alpha_grid(alpha: Alpha) -> NumberGrid:
    """Return the chosen α, the baselines and the front: objectives, then α of each strategy."""
    points: list[tuple[str, str, AlphaPoint]] = []
    if alpha.chosen:
        points.append(("chosen", "chosen", alpha.chosen))
    points += [(point.name or "baseline", "baseline", point) for point in alpha.baselines]
    front = [point for point in alpha.trials if point.front]
    first = alpha.objectives[0]
    front.sort(
        key=lambda p: (p.values.get(first.key) or 0) * (-1 if first.direction == "higher" else 1)
    )
    points += [(f"trial {point.number}", "front", point) for point in front]

    def value_of(key: str) -> Callable[[AlphaPoint], float | None]:
        return lambda point: point.values.get(key)

    numbers = number_grid(
        {f"{metric_name(o.key)} {ARROWS[o.direction]}": value_of(o.key) for o in alpha.objectives},
        points,
        drop=False,
    )
    fractions = [f"{a:.3f}".rstrip("0").partition(".")[2] for _, _, p in points for a in p.alpha]
    digits = max(map(len, fractions), default=0)
    rows = [
        (name, kind, [*cells, *(show(a, digits) for a in point.alpha)])
        for (name, kind, cells), (_, _, point) in zip(numbers.rows, points, strict=True)
    ]
    return NumberGrid([*numbers.columns, *alpha.strategies], rows)
