"""Three sentences at the top of the page, from the results: what was compared, effects, costs.

They say nothing that the tables below them do not: an effect is named only where its adjusted
p-value is below the level of the results.
"""

from collections.abc import Iterable, Mapping, Sequence

from pal.benchmark.report.parts import Results, ScoresPart, TestResult
from pal.benchmark.report.tables import metric_name, signed, significance_level
from pal.benchmark.systems import TABLE_3
from pal.core.job import counted
from pal.report.tables import decimals

# What two systems differ by alone: its name, the system with it, the system without.
EFFECTS = (
    ("contrast", "pal", "pal_alpha_0"),
    ("contrast", "lm_pal", "lm_prompt"),
    ("persona", "pal_alpha_0", "joint"),
    ("persona", "prompt", "joint"),
    ("persona", "lm_prompt", "lm_joint"),
    ("persona", "llm_persona", "llm"),
    ("persona", "llm_persona_strategy", "llm_strategy"),
)


def summarise_results(results: Results, notices: Sequence[str] = ()) -> list[str]:
    """Return what was compared, what contrast and persona did, and what it cost or leaves open.

    Args:
        results: scores of all systems.
        notices: notices of the page; with any, the numbers say nothing about PAL.

    Returns:
        Three sentences.
    """
    found = [(what, a, b, _tests_of(results, a, b)) for what, a, b in EFFECTS]
    found = [effect for effect in found if effect[3]]
    return [_compared(results), _effects(results, found), _limits(results, found, notices)]


def summarise_scores(
    parts: Sequence[ScoresPart], labels: Mapping[str, str], notices: Sequence[str] = ()
) -> list[str]:
    """Return three sentences on files of responses that were scored one by one.

    Args:
        parts: the scores.
        labels: labels of systems, for the files that are named by one.
        notices: of the page.
    """
    systems = (labels.get(part.system, part.system) or "a model" for part in parts)
    names = join_words(list(dict.fromkeys(systems)))
    samples = join_words([f"{n:,}" for n in dict.fromkeys(part.samples for part in parts)])
    noun = "sample" if samples == "1" else "samples"
    nothing = " and nothing about PAL on ESConv" if notices else ""
    return [
        f"{names} {'was' if len(parts) == 1 else 'were'} scored on {samples} {noun}"
        f"{'' if len(parts) == 1 else ', each file of responses by itself'}.",
        "No other scores were given to compare them with."
        if len(parts) == 1
        else "Nothing was tested, so no difference between the rows is more than a number.",
        f"The scores are automatic and say nothing about how people judge the responses{nothing}.",
    ]


def seeds_of_systems(results: Results) -> str:
    """Return over which seeds the values of each system are, as a part of a sentence."""
    shared: dict[tuple[int, ...], list[str]] = {}
    for system in results.systems.values():
        seeds = sorted({run.seed for run in system.runs if run.seed is not None})
        shared.setdefault(tuple(seeds), []).append(system.label)
    if len(shared) == 1:
        return _seeds(next(iter(shared)))
    return "; ".join(f"{join_words(labels)}: {_seeds(seeds)}" for seeds, labels in shared.items())


def _seeds(seeds: Sequence[int]) -> str:
    if not seeds:
        return "one set of responses without a seed"
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    return f"{len(seeds)} seeds ({join_words([str(seed) for seed in seeds])})"


def join_words(words: Sequence[str]) -> str:
    """Return words as a list in a sentence.

    Example:
        >>> join_words(["a", "b", "c"])
        'a, b and c'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _compared(results: Results) -> str:
    labels = [system.label for system in results.systems.values()]
    where = counted(results.samples, "sample")
    if results.dialogues is not None:
        where += f" of {counted(results.dialogues, 'dialogue')}"
    stamp = results.protocol or {}
    if stamp.get("bundled"):
        where += " of the bundled sample"
    elif stamp.get("name"):
        split = f"the {stamp['split']} split of " if stamp.get("split") else ""
        where += f" ({split}protocol {stamp['name']})"
    if len(labels) == 1:
        return f"{labels[0]} answered {where}, over {seeds_of_systems(results)}."
    return (
        f"{len(labels)} systems ({join_words(labels)}) were compared on {where}, over "
        f"{seeds_of_systems(results)}."
    )


def _tests_of(results: Results, a: str, b: str) -> list[TestResult]:
    """Return the tests of two systems in Table 3's metrics, each as the difference a − b."""
    found = []
    for test in results.tests:
        if test.metric not in TABLE_3 or {test.a, test.b} != {a, b}:
            continue
        if test.a == b and test.difference is not None:
            test = test.model_copy(update={"a": a, "b": b, "difference": -test.difference})
        found.append(test)
    order = {key: place for place, key in enumerate(TABLE_3)}
    return sorted(found, key=lambda test: order[test.metric])


def _significant(results: Results, tests: Iterable[TestResult], *, better: bool) -> list[str]:
    """Return the metrics, with differences, in which a is significantly better, or worse."""
    level, found = significance_level(results), []
    for test in tests:
        info = results.metrics.get(test.metric)
        difference = test.difference
        if not difference or info is None or info.direction == "none":
            continue
        if test.p_holm is None or test.p_holm >= level:
            continue
        if ((difference > 0) == (info.direction == "higher")) == better:
            size = signed(difference, decimals([difference]))
            found.append(f"{metric_name(test.metric)} ({size})")
    return found


_Effect = tuple[str, str, str, list[TestResult]]


def _effects(results: Results, effects: Sequence[_Effect]) -> str:
    level = f"Holm-adjusted p < {significance_level(results):g}"
    if not effects:
        primary = [test for test in results.tests if test.metric in TABLE_3]
        if not primary:
            return "Nothing was tested, so no difference is more than a number."
        clear = sum(
            t.p_holm is not None and t.p_holm < significance_level(results) for t in primary
        )
        return (
            "No two of these systems are alike in all but the contrast, or in all but the "
            "persona, so what either does cannot be read from them; of "
            f"{counted(len(primary), 'comparison')} in the metrics of Table 3, {clear} "
            f"{'is' if clear == 1 else 'are'} significant ({level})."
        )
    said = []
    for what, a, b, tests in effects:
        better = _significant(results, tests, better=True)
        worse = _significant(results, tests, better=False)
        rest = len(tests) - len(better) - len(worse)
        parts = [
            f"{join_words(found)} significantly {word}"
            for word, found in (("better", better), ("worse", worse))
            if found
        ]
        who = f"the {what} ({results.systems[a].label} against {results.systems[b].label})"
        if not parts:
            said.append(f"{who} changed none of {len(tests)} metrics significantly")
        else:
            left = f", and left {rest} of {len(tests)} without a significant change" if rest else ""
            said.append(f"{who} made {' and '.join(parts)}{left}")
    whole = f"In the metrics of Table 3 ({level}), {'; '.join(said)}"
    return f"{whole}."


def _limits(results: Results, effects: Sequence[_Effect], notices: Sequence[str]) -> str:
    costs = []
    for what, a, _, tests in effects:
        if what == "contrast":
            worse = _significant(results, tests, better=False)
            label = results.systems[a].label
            costs.append(
                f"the contrast cost {label} {join_words(worse)}"
                if worse
                else f"the contrast cost {label} nothing that chance does not explain"
            )
    fixed = "these are automatic scores of models as trained here; they do not show what people"
    limits = f"{fixed} would prefer or what another training would give"
    if notices:
        limits += ", and with this corpus or models this small nothing about PAL on ESConv"
    said = "; ".join([*costs, limits])
    return f"{said[0].upper()}{said[1:]}."
