"""Planted correlations, shifts and strategy mixes come back through server, client and commands.

Twenty seeds, some 2,900 questions each: minutes, so it runs on request (``pytest -m recovery``).
What an interval should hold is not the trait but what the answers of a very large population would
score: answers are whole numbers from 1 to 5, which shrinks correlations and shifts.
"""

import json

import numpy as np
import pytest

from pal.core.files import read_json, write_jsonl
from tests.jobs import command
from tests.llm.server import FakeServer
from tests.traits.fakes import INVENTORIES, World, planted, talk
from tests.traits.test_cards import card
from tests.traits.test_chain import endpoint

SEEDS, PEOPLE, POPULATION = 20, 40, 200_000
NOISE = 0.5
PAIRS = (("X", "X", 2, 6), ("C", "P", 4, 7), ("A", "VA", 3, 8))
SHIFT = {"E": 0.8, "X": -0.8, "H": 0.0}
MIX = {"persona": (0.7, 0.2, 0.1), "without_persona": (0.3, 0.5, 0.2)}
CHOSEN = ("Question", "Information", "Others")


class Drawn(World):
    """A world whose answers and strategies are drawn anew for every seed."""

    def __init__(self, traits, seed):
        super().__init__(traits, NOISE, [seed])

    def reply(self, body):
        texts = {message["role"]: message["content"] for message in body["messages"]}
        name = body["response_format"]["json_schema"]["name"]
        if name == "dialogue":
            draw = np.random.default_rng([*self.seed, body["seed"]])
            mix = MIX["persona" if "Case" in texts["user"] else "without_persona"]
            exchanges = talk(0, False)
            for exchange in exchanges:
                exchange["strategy"] = str(draw.choice(CHOSEN, p=mix))
            return json.dumps({"dialog": exchanges})
        return json.dumps(self(name, texts["system"], texts["user"]))


def population(traits):
    """Scores [N, 12] that the short forms give to people with these traits."""
    draw, columns = np.random.default_rng(1), []
    for which, inventory in enumerate(INVENTORIES):
        for at, dimension in enumerate(inventory.dimensions):
            items = [i for i in inventory.items_of("short") if i.dimension == dimension]
            level = traits[:, 6 * which + at]
            scores = np.zeros(len(traits))
            for item in items:
                value = 3 + item.keyed * level + draw.normal(0, NOISE, len(level))
                answered = np.clip(np.rint(value), 1, 5)
                scores += answered if item.keyed > 0 else 6 - answered
            columns.append(scores / len(items))
    return np.stack(columns, axis=1)


def shifted(traits):
    later = traits.copy()
    for dimension, shift in SHIFT.items():
        later[:, [*INVENTORIES[0].dimensions].index(dimension)] += shift
    return later


def holds(figure, truth):
    return figure["low"] <= truth <= figure["high"]


@pytest.mark.recovery
def test_what_was_planted_is_recovered(tmp_path):
    everyone = planted(POPULATION, seed=999)
    scores, later = population(everyone), population(shifted(everyone))
    wanted_r, wanted_shift = np.corrcoef(scores.T), (later - scores).mean(0)
    held = {"r": [], "shift": [], "share": [], "difference": []}
    found_all = 0
    for seed in range(SEEDS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        run_seed(folder, planted(PEOPLE, seed), seed)
        (group,) = read_json(folder / "r.json")["groups"]
        cells = [(group["cells"][row][column], i, j) for row, column, i, j in PAIRS]
        held["r"] += [holds(cell["r"], wanted_r[i, j]) for cell, i, j in cells]
        (group,) = read_json(folder / "c.json")["groups"]
        shifts = {one["dimension"]: one for one in group["dimensions"]}
        for key in SHIFT:
            column = [*INVENTORIES[0].dimensions].index(key)
            held["shift"].append(holds(shifts[key]["delta"], wanted_shift[column]))
        (group,) = read_json(folder / "s.json")["groups"]
        for name, mix in MIX.items():
            shares = group["conditions"][name]["shares"]
            held["share"] += [holds(shares[s], p) for s, p in zip(CHOSEN, mix, strict=True)]
        (entry,) = group["comparisons"]
        sign = 1 if entry["a"] == "persona" else -1
        for strategy, one, two in zip(CHOSEN, MIX["persona"], MIX["without_persona"], strict=True):
            figure = entry["strategies"][strategy]["difference"]
            held["difference"].append(holds(figure, sign * (one - two)))
        found_all += (
            all(cell["p_holm"] < 0.05 for cell, _, _ in cells)
            and [shifts[key]["shift"] for key in ("E", "X")] == ["rises", "falls"]
            and entry["p"] < 0.05
        )  # fmt: skip
    print({name: f"{sum(values)} of {len(values)}" for name, values in held.items()}, found_all)
    for name, values in held.items():  # 95 % intervals; three standard errors and some for ties
        assert np.mean(values) > 0.95 - 3 * (0.95 * 0.05 / len(values)) ** 0.5 - 0.01, name
    assert found_all >= SEEDS - 1


def run_seed(folder, traits, seed):
    def pal(action, source, output, *more):
        code = command(
            "traits", action, f"input={folder / source}", f"output={folder / output}", *more
        )
        assert code == 0

    write_jsonl(folder / "cards.jsonl", [card(n) for n in range(PEOPLE)])
    with FakeServer(Drawn(traits, seed).reply) as server:
        asks = endpoint(server, folder)
        pal("measure", "cards.jsonl", "before.jsonl", "traits.form=short", *asks)
        pal("synthesize", "cards.jsonl", "with.jsonl", f"seed={seed}", *asks)
        pal("synthesize", "cards.jsonl", "without.jsonl", f"seed={seed}",
            "traits.without_persona=true", *asks)  # fmt: skip
    with FakeServer(Drawn(shifted(traits), seed + 1000).reply) as server:
        pal("measure", "cards.jsonl", "after.jsonl", "traits.form=short",
            "traits.inventories=[hexaco]",
            *endpoint(server, folder, f"llm.cache={folder / 'later.sqlite'}"))  # fmt: skip
    few = "statistics.resamples=999"
    pal("correlate", "before.jsonl", "r.json", few)
    pal("compare", "after.jsonl", "c.json", f"traits.before={folder / 'before.jsonl'}", few,
        "traits.inventories=[hexaco]")  # fmt: skip
    files = f"persona: {folder / 'with.jsonl'}, without_persona: {folder / 'without.jsonl'}"
    pal("strategies", "with.jsonl", "s.json", f"traits.dialogues={{{files}}}", few)
