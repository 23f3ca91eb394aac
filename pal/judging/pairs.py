"""Comparisons by judges: every pair in both orders, and how far the place decides.

The verdict of a judge on an item is what its answers in the two orders say together: a system that
wins both, or one while the other is a tie, wins; a win in either order for whatever stands first is
a tie. So a preference for a place favours no system. How strong that preference is, is stated.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from pal.data.texts import normalise_text
from pal.human_eval.results import tally_votes
from pal.human_eval.sheets import TextComparison, Votes
from pal.judging.judges import Answers, load_judge_prompt
from pal.judging.rubric import Kind, Rubric
from pal.llm.base import Request
from pal.stats.agreement import cohen_pooled, fleiss_pooled, sign_test
from pal.stats.estimates import resampled, share_of
from pal.stats.permutation import holm
from pal.stats.pooled import Pooled, mean_of
from pal.stats.settings import StatisticsSettings

ORDERS = ("straight", "swapped")  # the first system of the pair stands at A, or at B

# What an answer says for the first system of the pair, by order.
POINTS = {
    "straight": {"A": 1, "Tie": 0, "B": -1},
    "swapped": {"A": -1, "Tie": 0, "B": 1},
}


def compare_requests(
    comparisons: Sequence[TextComparison], rubric: Rubric, kind: Kind, max_tokens: int
) -> list[Request]:
    """Return two requests for every comparison, one for each order; none names a system.

    Args:
        comparisons: what is compared.
        rubric: the questions.
        kind: whether the texts are responses or whole dialogues.
        max_tokens: maximum length of an answer.
    """
    prompt, schema, questions = load_judge_prompt("pairs"), rubric.schema(), rubric.ask(kind)
    requests = []
    for number, one in enumerate(comparisons):
        said = "\n".join(f"{who}: {normalise_text(text)}" for who, text in one.context)
        texts = one.texts
        if kind == "response":
            texts = (normalise_text(texts[0]), normalise_text(texts[1]))
        for order in ORDERS:
            a, b = texts if order == "straight" else texts[::-1]
            filled = prompt.fill(kind=kind, questions=questions, dialogue=said, a=a, b=b)
            requests.append(
                Request(
                    id=f"{number}/{order}",
                    messages=filled,
                    schema=schema,
                    schema_name="comparison",
                    max_tokens=max_tokens,
                )
            )
    return requests


def points_of(
    answers: Mapping[str, Answers], count: int, questions: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return what every judge's answers say for the first system of each pair.

    Args:
        answers: answers of each judge.
        count: number of comparisons.
        questions: names of the questions.

    Returns:
        For every judge +1, 0 or −1 by comparison, order and question, [C, 2, Q]; NaN in both orders
        where an answer to either is missing.
    """
    found = {}
    for judge, given in answers.items():
        points = np.full((count, len(ORDERS), len(questions)), np.nan)
        for number in range(count):
            both = [given.get(f"{number}/{order}") for order in ORDERS]
            if None in both:
                continue
            for place, (order, one) in enumerate(zip(ORDERS, both, strict=True)):
                points[number, place] = [POINTS[order][one[name]] for name in questions]  # type: ignore[index]
        found[judge] = points
    return found


def compare_results(
    comparisons: Sequence[TextComparison],
    facts: Sequence[Mapping[str, Any]],
    answers: Mapping[str, Answers],
    dialogues: Mapping[str, str],
    questions: Sequence[str],
    how: StatisticsSettings,
) -> dict[str, Any]:
    """Return preferences, position bias and agreement.

    Intervals are percentile bootstrap over dialogues, since items of one dialogue are not
    independent; p-values are exact sign tests over items, Holm-corrected over all of their kind.

    Args:
        comparisons: what was compared.
        facts: numbers of each pair, of :func:`pal.human_eval.choice.draw_comparisons`.
        answers: answers of each judge.
        dialogues: dialogue of each sample.
        questions: names of the questions.
        how: confidence, resamples and seed.
    """
    points = points_of(answers, len(comparisons), questions)
    places = np.array([dialogues[one.sample] for one in comparisons])
    judges = list(points)

    def interval(pooled: Pooled, rows: np.ndarray, reason: str) -> Any:
        if not len(rows):
            return resampled(pooled, 0, reason=reason, **how.model_dump())
        _, groups = np.unique(places[rows], return_inverse=True)
        joined = pooled.grouped(groups, int(groups.max()) + 1)
        return resampled(joined, len(rows), reason=reason, **how.model_dump())

    votes = Votes()
    for judge in judges:
        together = points[judge].sum(axis=1)  # [C, Q]
        for number, one in enumerate(comparisons):
            for place, name in enumerate(questions):
                value = together[number, place]
                if not np.isnan(value):
                    cast = votes.answers.setdefault(str(number), {}).setdefault(name, {})
                    cast[judge] = one.systems[0 if value > 0 else 1] if value else "Tie"
    items = {
        str(number): {"A": one.systems[0], "B": one.systems[1]}
        for number, one in enumerate(comparisons)
    }
    key = {"pairs": list(facts), "items": items, "questions": list(questions)}
    results = tally_votes(key, votes)
    for pair in results:
        mine = np.array([set(one.systems) == {pair["a"], pair["b"]} for one in comparisons])
        for place, row in enumerate(pair["questions"]):
            scores = np.stack([points[judge][:, :, place].mean(axis=1) for judge in judges])
            known = mine & ~np.isnan(scores).all(axis=0)
            rows = np.flatnonzero(known)
            mean = np.nanmean(scores[:, rows], axis=0) if len(rows) else np.zeros(0)
            row["preference"] = interval(mean_of(mean), rows, "no answers")
            verdicts = np.sign(scores)
            counts = np.stack([(verdicts == v).sum(axis=0) for v in (1, 0, -1)], axis=1)
            rows = np.flatnonzero(mine & (counts.sum(axis=1) >= 2))
            why = "one judge" if len(judges) < 2 else "all verdicts are the same, or none"
            row["kappa"] = interval(fleiss_pooled(counts[rows]), rows, why)
    return {
        "pairs": results,
        "position": _position(points, questions, interval),
        "agreement": _agreement(points, questions, interval),
        "consistency": _consistency(points, questions, how.confidence),
    }


def _position(points: Mapping[str, np.ndarray], questions: Sequence[str], interval: Any) -> Any:
    """Return how much more often whatever stands first wins, from −1 to 1, by judge and question.

    Half the difference of the two orders: 0 where a judge prefers a system in both, 1 where it
    prefers the first text in both.
    """
    table: dict[str, dict[str, Any]] = {}
    for judge, values in points.items():
        table[judge] = {}
        for place, name in enumerate(questions):
            rows = np.flatnonzero(~np.isnan(values[:, 0, place]))
            bias = (values[rows, 0, place] - values[rows, 1, place]) / 2
            table[judge][name] = {
                **interval(mean_of(bias), rows, "no answers"),
                "p": sign_test(int((bias > 0).sum()), int((bias < 0).sum())),
                "p_holm": None,
            }
    tested = [row for found in table.values() for row in found.values() if row["p"] is not None]
    for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = p
    return table


def _consistency(points: Mapping[str, np.ndarray], questions: Sequence[str], level: float) -> Any:
    """Return the share of items with the same answer in both orders, by judge and question."""
    return {
        judge: {
            name: share_of(
                int((values[:, 0, place] == values[:, 1, place]).sum()),
                int((~np.isnan(values[:, 0, place])).sum()), level, "no answers",
            )
            for place, name in enumerate(questions)
        }
        for judge, values in points.items()
    }  # fmt: skip


def _agreement(points: Mapping[str, np.ndarray], questions: Sequence[str], interval: Any) -> Any:
    """Return Cohen's κ of the verdicts of every two judges, by question."""
    found = []
    for one, other in combinations(points, 2):
        verdicts = [np.sign(points[judge].sum(axis=1)) for judge in (one, other)]
        kappas = {}
        for place, name in enumerate(questions):
            known = ~np.isnan(verdicts[0][:, place]) & ~np.isnan(verdicts[1][:, place])
            rows = np.flatnonzero(known)
            pair = [verdict[rows, place].astype(int) + 1 for verdict in verdicts]
            kappas[name] = interval(
                cohen_pooled(pair[0], pair[1], 3), rows, "all verdicts are the same, or none"
            )
        found.append({"a": one, "b": other, "kappa": kappas})
    return found
