"""A model with planted traits: what it writes about people follows from who they are.

Person ``n`` is named ``Case n.`` in descriptions; their twelve traits are row n of a matrix. The
same function answers a loopback server (:func:`answer`) and stands in for the client
(:class:`FakeModel`).
"""

import json
import re

import numpy as np

from pal.llm.base import Outcome
from pal.traits.inventories import load_inventory

INVENTORIES = [load_inventory(name) for name in ("hexaco", "csi")]
ITEMS = {
    item.text: (6 * which + [*inventory.dimensions].index(item.dimension), item.keyed)
    for which, inventory in enumerate(INVENTORIES)
    for item in inventory.items
}


def planted(people, seed=0, pairs=((2, 6, 0.8), (4, 7, 0.7), (3, 8, -0.8))):
    """Twelve standard normal traits for each person, correlated in pairs (row, column, r)."""
    covariance = np.eye(12)
    for row, column, r in pairs:
        covariance[row, column] = covariance[column, row] = r
    return np.random.default_rng(seed).multivariate_normal(np.zeros(12), covariance, people)


class World:
    """Answers every prompt of the wing.

    Args:
        traits: planted, [people, 12], in standard deviations.
        noise: of an answer, standard deviation.
        seed: more numbers that decide an answer's noise.
    """

    def __init__(self, traits, noise=0.5, seed=()):
        self.traits, self.noise, self.seed = traits, noise, seed

    def __call__(self, name, system, user):
        case = re.search(r"Case (\d+)\.", user)
        number = int(case[1]) if case else 0
        person = {"age": "young", "gender": "unknown", "occupation": "clerk",
                  "description": f"Case {number}. The person works as a clerk."}  # fmt: skip
        if name == "card" and "problem" in system:
            return {**person, "problem": "The person lost a job and sleeps badly."}
        if name == "card":
            return person
        if name == "verdict":
            keep = number % 5 != 4
            criteria = dict.fromkeys(
                ["emotions", "events", "background", "cause_and_consequence", "specific"], keep
            )
            return {**criteria, "keep": keep, "reasons": [] if keep else ["no event"]}
        if name == "sentences":
            keys = re.findall(r"^- (\w+) \(", system, re.MULTILINE)
            return {key: f"Case {number}. The person is like that in {key}." for key in keys}
        if name == "answer":
            statement = re.search(r"<statement>\n(.*)\n</statement>", user)[1]
            trait, keyed = ITEMS[statement]
            draw = np.random.default_rng([*self.seed, number, *statement.encode()])
            value = 3 + keyed * self.traits[number, trait] + draw.normal(0, self.noise)
            return {"answer": int(np.clip(round(value), 1, 5))}
        if name == "dialogue":
            return {"dialog": talk(number, "indicators" in user)}
        if name == "persona":
            return {"sentences": ["I work as a clerk.", "I have two cats."]}
        raise AssertionError(name)


def talk(number, traits):
    """Three exchanges; with traits the supporter asks, without they inform."""
    said = [
        (f"Hello. Case {number}. I feel low.", "Question" if traits else "Information",
         "What has happened?"),
        ("I lost my job.", "Affirmation and Reassurance", "You have done well so far."),
        ("Thanks.", "Question", "Shall we look for help?"),
    ]  # fmt: skip
    return [dict(zip(("seeker", "strategy", "supporter"), one, strict=True)) for one in said]


def answer(world):
    """Turn a world into what a loopback server asks."""

    def reply(body):
        form = body["response_format"]["json_schema"]["name"]
        texts = {message["role"]: message["content"] for message in body["messages"]}
        return json.dumps(world(form, texts["system"], texts["user"]))

    return reply


class FakeModel:
    """A language model without client or cache.

    Args:
        world: answers.
        reasons: request → why it has no answer, or None.
    """

    name = "fake"

    def __init__(self, world, reasons=lambda request: None):
        self.world, self.reasons, self.asked = world, reasons, []

    def describe(self):
        return {"model": self.name}

    def ask(self, requests, *, description, check=None):
        self.asked += requests
        outcomes = []
        for request in requests:
            texts = dict(request.messages)
            value = self.world(request.schema_name, texts["system"], texts["user"])
            reason = self.reasons(request) or (check and check(request, value))
            outcomes.append(Outcome(request.id, None if reason else value, reason))
        return outcomes
