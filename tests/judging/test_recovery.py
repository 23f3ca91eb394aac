"""Planted preferences, preferences for a place, and agreement come back within their intervals.

Twenty seeds through server and command run on request (``pytest -m recovery``), two of them always.
Without structure, tests reject as often as they say, and intervals hold zero.
"""

import numpy as np
import pytest

from pal.judging.rubric import load_rubric
from tests.judging.planted import MARKS, QUESTIONS, SYSTEMS, PlantedJudge, judged
from tests.stats_of import holds, least, most

ITEMS = 40
WINS, PLACE, NOISE = (0.5, 0.2), 0.25, 0.2
SEEDS = [
    pytest.param(range(2), id="two seeds"),
    pytest.param(range(20), id="twenty seeds", marks=pytest.mark.recovery),
]


def cohen(one, other, categories):
    table = np.zeros((categories, categories))
    np.add.at(table, (one, other), 1)
    table /= table.sum()
    chance = table.sum(1) @ table.sum(0)
    return (np.trace(table) - chance) / (1 - chance)


def verdict_agreement(wins, place, noise, people=400_000):
    """Cohen's κ of two judges in a very large study, worked out apart from the package."""
    draw = np.random.default_rng(5)
    truth = draw.choice([1, -1, 0], people, p=[*wins, 1 - sum(wins)])
    verdicts = []
    for _ in range(2):
        total = np.zeros(people)
        for side in (1, -1):  # what stands first
            lot = draw.random(people)
            guess = draw.choice([1, -1, 0], people)
            total += np.where(lot < place, side, np.where(lot < place + noise, guess, truth))
        verdicts.append(np.sign(total).astype(int) + 1)
    return cohen(*verdicts, 3)


@pytest.mark.parametrize("seeds", SEEDS)
def test_preferences_places_and_agreement_come_back(seeds, tmp_path):
    preference = (1 - PLACE - NOISE) * (WINS[0] - WINS[1])
    kappa = verdict_agreement(WINS, PLACE, NOISE)
    assert 0.1 < kappa < 0.5
    found = {"preference": [], "place": [], "kappa": []}
    for seed in seeds:
        judge = PlantedJudge(WINS, PLACE, NOISE, seed)
        code, results, _ = judged("pairs", tmp_path / str(seed), judge, count=ITEMS)
        assert code == 0
        for row in results["pairs"][0]["questions"]:
            found["preference"].append(holds(row["preference"], preference))
            found["kappa"].append(holds(row["kappa"], kappa))
            one = results["agreement"][0]["kappa"][row["question"]]
            assert abs(one["value"] - row["kappa"]["value"]) < 0.1  # two judges: nearly the same
        for bias in results["position"].values():
            found["place"] += [holds(row, PLACE) for row in bias.values()]
    for name, held in found.items():
        assert sum(held) >= least(len(held)), (name, sum(held), len(held))
    print({name: f"{sum(held)} of {len(held)}" for name, held in found.items()})


@pytest.mark.parametrize("seeds", SEEDS)
def test_a_strong_place_makes_no_preference_and_chance_no_place(seeds, tmp_path):
    """Systems that are equally good: one judge goes by the place, the other by nothing."""
    preference, place, kappa = [], [], []
    for seed in seeds:
        judge = PlantedJudge((0.4, 0.4), 0.0, 1.0, seed, own={"one": 0.6})
        code, results, _ = judged("pairs", tmp_path / str(seed), judge, count=ITEMS)
        assert code == 0
        rows = results["pairs"][0]["questions"]
        preference += [row["p"] is not None and row["p"] < 0.05 for row in rows]
        kappa += [holds(row, 0) for row in results["agreement"][0]["kappa"].values()]
        place += [row["p"] < 0.05 for row in results["position"]["two"].values()]
        assert all(row["p_holm"] < 0.05 for row in results["position"]["one"].values())
    assert sum(preference) <= most(len(preference)), sum(preference)
    assert sum(place) <= most(len(place)), sum(place)
    assert sum(kappa) >= least(len(kappa)), sum(kappa)
    print(f"{sum(preference)} and {sum(place)} of {len(place)} rejected, {sum(kappa)} κ hold 0")


DIMENSIONS = tuple(load_rubric("esc_eval", "ratings").questions)


class PlantedRater:
    """Rates a text by its system, its item, the judge's severity, and noise."""

    def __init__(self, better, seed):
        self.better, self.seed = better, seed

    def level(self, good, shared, own, harsh):
        value = 2 + (self.better if good else 0) + shared + own - 0.3 * harsh
        return np.clip(np.rint(value), 0, 4).astype(int)

    def __call__(self, body):
        text = body["messages"][-1]["content"]
        good, item = "mild" in text, int(text.rpartition("matter ")[2].split(".")[0])
        harsh = body["model"] == "two"
        answer = {}
        for place, name in enumerate(DIMENSIONS):
            shared = np.random.default_rng([self.seed, 1, item, place]).normal(0, 0.7)
            key = [self.seed, 2 + harsh, item, place, good]
            own = np.random.default_rng(key).normal(0, 0.7)
            answer[name] = int(self.level(good, shared, own, harsh))
        return answer

    def population(self, people=400_000):
        """Mean of either system, and quadratic κ of the judges, in a very large study."""
        draw = np.random.default_rng(9)
        columns, means = [], []
        shared = draw.normal(0, 0.7, people)
        for good in (True, False):
            pair = [self.level(good, shared, draw.normal(0, 0.7, people), h) for h in (0, 1)]
            means.append(float(np.mean(pair)))
            columns.append(pair)
        one, other = np.concatenate(columns, axis=1)
        gap = np.mean((one - other) ** 2)
        chance = one.var() + other.var() + (one.mean() - other.mean()) ** 2
        return means, 1 - gap / chance


@pytest.mark.parametrize("seeds", SEEDS)
def test_ratings_come_back(seeds, tmp_path):
    (better, worse), kappa = PlantedRater(0.8, 0).population()
    held, differs = {"mean": [], "kappa": [], "difference": []}, []
    for seed in seeds:
        rater = PlantedRater(0.8, seed)
        code, results, _ = judged("ratings", tmp_path / str(seed), rater, count=ITEMS)
        assert code == 0
        for name in DIMENSIONS:
            north, south = (results["systems"][system][name] for system in SYSTEMS)
            held["mean"] += [holds(north, better), holds(south, worse)]
            held["kappa"].append(holds(results["agreement"][0]["kappa"][name], kappa))
        held["difference"] += [holds(test, better - worse) for test in results["tests"]]
        differs += [test["p_holm"] < 0.05 for test in results["tests"]]
    for name, found in held.items():
        assert sum(found) >= least(len(found)), (name, sum(found), len(found))
    assert sum(differs) >= 0.9 * len(differs)
    print({name: f"{sum(found)} of {len(found)}" for name, found in held.items()})


@pytest.mark.parametrize("seeds", SEEDS)
def test_equal_systems_are_rated_alike(seeds, tmp_path):
    rejected = []
    for seed in seeds:
        _, results, _ = judged(
            "ratings", tmp_path / str(seed), PlantedRater(0.0, seed), count=ITEMS
        )
        rejected += [test["p"] < 0.05 for test in results["tests"]]
    assert sum(rejected) <= most(len(rejected)), sum(rejected)
    print(f"{sum(rejected)} of {len(rejected)} rejected")


def test_the_marks_are_no_words_of_the_prompts(tmp_path):
    """What the planted judge goes by is said by the systems alone."""
    _, _, sent = judged("pairs", tmp_path, PlantedJudge(), count=2, judges=("one",))
    for body in sent:
        assert not any(mark in body["messages"][0]["content"] for mark in MARKS.values())
    assert len(QUESTIONS) == 6
