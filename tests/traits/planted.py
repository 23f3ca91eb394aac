"""Measurements of people whose traits are known: answers with noise and keying, then scores."""

import numpy as np

from pal.traits.inventories import load_inventory
from pal.traits.scoring import score_dimensions

HEXACO, CSI = load_inventory("hexaco"), load_inventory("csi")


def correlated(truth, count, rng):
    """Traits of HEXACO and CSI [count, 12], standard normal, with cross-correlations ``truth``."""
    whole = np.eye(12)
    whole[:6, 6:], whole[6:, :6] = truth, truth.T
    return rng.multivariate_normal(np.zeros(12), whole, size=count)


def measure(traits, rng, *, noise=1.0, dataset="planted", model="fake", form="full"):
    """Answer every item of both inventories: 3 + trait + noise, keyed, rounded, cut to 1..5."""
    rows = []
    for person, values in enumerate(traits):
        for inventory, part in ((HEXACO, values[:6]), (CSI, values[6:])):
            level = dict(zip(inventory.dimensions, part, strict=True))
            answers = {}
            for item in inventory.items_of(form):
                wanted = 3 + item.keyed * level[item.dimension] + noise * rng.normal()
                answers[item.id] = int(np.clip(np.rint(wanted), 1, 5))
            rows.append(
                {
                    "id": f"p{person}",
                    "dataset": dataset,
                    "inventory": inventory.name,
                    "version": inventory.version,
                    "form": form,
                    "model": model,
                    "answers": answers,
                    "unanswered": {},
                    "scores": score_dimensions(inventory, answers, form),
                }
            )
    return rows


def scored(matrix, *, dataset="planted", model="fake", prefix="p"):
    """Measurements of HEXACO with the given scores [N, 6], without answers."""
    return [
        {
            "id": f"{prefix}{number}",
            "dataset": dataset,
            "inventory": "hexaco",
            "version": "1.0",
            "model": model,
            "scores": dict(zip(HEXACO.dimensions, map(float, line), strict=True)),
        }
        for number, line in enumerate(np.clip(matrix, 1, 5))
    ]
