"""Ratings by judges: means of every system, differences, agreement."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from pal.data.samples import Sample
from pal.data.texts import normalise_text
from pal.judging.judges import Answers, load_judge_prompt
from pal.judging.rubric import Kind, Rubric
from pal.llm.base import Request
from pal.stats.agreement import cohen_pooled
from pal.stats.estimates import estimate, resampled, undefined
from pal.stats.permutation import compare_systems
from pal.stats.pooled import Pooled, mean_of
from pal.stats.resampling import spreads
from pal.stats.settings import StatisticsSettings


def draw_rated(samples: Sequence[Sample], items: int, seed: int) -> list[Sample]:
    """Draw the samples that are rated, the same for all systems.

    Args:
        samples: all answered samples.
        items: how many, at most.
        seed: seed of the draw.
    """

    def rank(sample: Sample) -> str:
        return hashlib.blake2b(f"{seed}\0{sample.id}".encode()).hexdigest()

    return sorted(samples, key=rank)[:items]


def rating_requests(
    samples: Sequence[Sample],
    responses: Mapping[str, Mapping[str, str]],
    rubric: Rubric,
    kind: Kind,
    max_tokens: int,
) -> list[Request]:
    """Return a request for every text of every system; none names a system.

    Args:
        samples: what is rated.
        responses: {system: {sample id: text}}.
        rubric: the questions.
        kind: whether the texts are responses or whole dialogues.
        max_tokens: maximum length of an answer.
    """
    prompt, schema, questions = load_judge_prompt("ratings"), rubric.schema(), rubric.ask(kind)
    levels = rubric.levels or {rubric.lowest: "worst", rubric.highest: "best"}
    requests = []
    for system, (name, texts) in enumerate(responses.items()):
        del name
        for number, sample in enumerate(samples):
            said = "\n".join(
                f"{turn['speaker'].capitalize()}: {normalise_text(turn['text'])}"
                for turn in sample.context
            )
            text = texts[sample.id]
            text = normalise_text(text) if kind == "response" else text
            filled = prompt.fill(
                kind=kind, questions=questions, dialogue=said, text=text, levels=levels,
                lowest=rubric.lowest, highest=rubric.highest,
            )  # fmt: skip
            requests.append(
                Request(
                    id=f"{system}/{number}",
                    messages=filled,
                    schema=schema,
                    schema_name="ratings",
                    max_tokens=max_tokens,
                )
            )
    return requests


def rating_results(
    samples: Sequence[Sample],
    systems: Sequence[str],
    answers: Mapping[str, Answers],
    rubric: Rubric,
    how: StatisticsSettings,
) -> dict[str, Any]:
    """Return means, differences of systems, and agreement of judges.

    A rating is the mean over judges. Samples that a judge did not rate for every system are left
    out, so that systems and judges are compared on the same samples.

    Args:
        samples: what was rated.
        systems: names of the systems.
        answers: answers of each judge.
        rubric: the questions.
        how: confidence, resamples and seed.
    """
    questions, judges = list(rubric.questions), list(answers)
    ratings = np.full((len(judges), len(systems), len(samples), len(questions)), np.nan)
    for first, judge in enumerate(judges):
        for second in range(len(systems)):
            for third in range(len(samples)):
                given = answers[judge].get(f"{second}/{third}")
                if given is not None:
                    ratings[first, second, third] = [given[name] for name in questions]
    kept = np.flatnonzero(~np.isnan(ratings).any(axis=(0, 1, 3)))
    ratings = ratings[:, :, kept]
    document: dict[str, Any] = {"rated": len(kept), "samples": len(samples), "systems": {}}
    options = how.model_dump()
    if not len(kept):
        for system in systems:
            document["systems"][system] = {q: undefined(0, "no answers") for q in questions}
        return {**document, "tests": [], "agreement": [], "judges": {}}
    dialogues = [samples[number].dialogue_id for number in kept.tolist()]
    _, groups = np.unique(dialogues, return_inverse=True)
    count = int(groups.max()) + 1
    means = ratings.mean(axis=0)  # [S, N, Q]

    def by_dialogue(values: np.ndarray) -> Pooled:
        return mean_of(values).grouped(groups, count)

    runs = {
        system: [{name: by_dialogue(means[s, :, q]) for q, name in enumerate(questions)}]
        for s, system in enumerate(systems)
    }
    table, draws = spreads(runs, **options)
    for system in systems:
        document["systems"][system] = {
            name: estimate(one.mean, one.low, one.high, len(kept))
            for name, one in table[system].items()
        }
    tests = compare_systems(runs, draws, primary=questions, **options) if count > 1 else []
    document["tests"] = [asdict(test) for test in tests]
    document["judges"] = {
        judge: {name: float(ratings[j, :, :, q].mean()) for q, name in enumerate(questions)}
        for j, judge in enumerate(judges)
    }
    levels = rubric.highest - rubric.lowest + 1
    everyone = np.tile(groups, len(systems))
    agreement = []
    for one, other in combinations(range(len(judges)), 2):
        kappas = {}
        for q, name in enumerate(questions):
            pair = [ratings[j, :, :, q].ravel() - rubric.lowest for j in (one, other)]
            pooled = cohen_pooled(pair[0], pair[1], levels, "quadratic").grouped(everyone, count)
            kappas[name] = resampled(
                pooled, len(everyone), reason="all ratings are the same", **options
            )
        agreement.append({"a": judges[one], "b": judges[other], "kappa": kappas})
    document["agreement"] = agreement
    return document
