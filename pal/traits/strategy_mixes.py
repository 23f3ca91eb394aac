"""Strategy distributions by condition and their differences; the unit is the dialogue.

Turns of one dialogue are not independent, so an ordinary χ² test would find too much: χ² is given
as a distance and tested by exchanging whole dialogues.
"""

import logging
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from pal.core.errors import DataError
from pal.data.strategies import STRATEGIES
from pal.stats.estimates import cell, estimate, p_text, table, undefined
from pal.stats.permutation import holm, permutation_p
from pal.stats.resampling import ends, resampled_weights
from pal.stats.settings import StatisticsSettings
from pal.traits.documents import describe_failed, paper
from pal.traits.talks import BASELINES, Conditions, Talk

logger = logging.getLogger(__name__)

FEWEST = 3  # minimum number of dialogues in a condition
BATCH = 1000  # permutations at once
NO_ENDS = (None, None)  # of a single dialogue


def build_strategies(
    groups: Mapping[tuple[str, str], Conditions], failed: int, statistics: StatisticsSettings
) -> dict[str, Any]:
    """Return the document of ``pal traits strategies``.

    Args:
        groups: dialogues by data set and model, and within these by condition.
        failed: how many records had failed earlier.
        statistics: resamples, confidence and seed.

    Raises:
        DataError: no supporter turn of a condition has a strategy.
    """
    found = []
    for (dataset, model), conditions in groups.items():
        counts = {name: _counts(name, talks) for name, talks in conditions.items()}
        keys = {name: [talk.key for talk in talks] for name, talks in conditions.items()}
        compared = compare_strategies(counts, keys, statistics)
        found.append({"dataset": dataset, "model": model, **compared})
    printed = {key: paper()[key] for key in ("strategies", "strategy_directions")}
    return {
        "kind": "traits_strategies", "format": 1, "failed": failed, "groups": found,
        "paper": printed,
    }  # fmt: skip


def compare_strategies(
    counts: Mapping[str, np.ndarray],
    keys: Mapping[str, Sequence[str]],
    statistics: StatisticsSettings,
) -> dict[str, Any]:
    """Describe and compare conditions.

    Args:
        counts: by condition, how often each dialogue uses each strategy, [N dialogues, 8].
        keys: by condition, what each dialogue was written from; two conditions with the same keys,
            each once, are compared in pairs.
        statistics: resamples, confidence and seed.

    Returns:
        ``conditions``: ``dialogues``, ``turns`` and the share of each strategy. ``comparisons`` of
        every two, see :func:`compare_two`; their overall p are adjusted together (``p_holm``).
    """
    found = []
    for a, b in combinations(counts, 2):
        one, two, paired = counts[a], counts[b], False
        if len(set(keys[a])) == len(keys[a]) and sorted(keys[a]) == sorted(keys[b]):
            paired = True
            one, two = one[np.argsort(keys[a])], two[np.argsort(keys[b])]
        entry = compare_two(one, two, statistics, paired=paired)
        directions = paper()["strategy_directions"] if b in BASELINES else {}
        for strategy, difference in entry["strategies"].items():
            difference["paper"] = directions.get(strategy)
        found.append({"a": a, "b": b, "paired": paired, **entry})
    tested = [entry for entry in found if entry["p"] is not None]
    for entry, adjusted in zip(tested, holm([entry["p"] for entry in tested]), strict=True):
        entry["p_holm"] = adjusted
    return {
        "conditions": {name: describe_mix(one, statistics) for name, one in counts.items()},
        "comparisons": found,
    }


def describe_mix(counts: np.ndarray, statistics: StatisticsSettings) -> dict[str, Any]:
    """Return the shares of the strategies, 0 to 1, over all turns, with intervals over dialogues.

    Args:
        counts: [N dialogues, 8].
        statistics: resamples, confidence and seed.
    """
    drawn = _shares(resampled_weights(len(counts), statistics.resamples, statistics.seed) @ counts)
    shares = _shares(counts.sum(0)[None])[0]
    figures = {}
    for column, name in enumerate(STRATEGIES):
        low, high = ends(drawn[:, column], statistics.confidence) if len(counts) > 1 else NO_ENDS
        figures[name] = estimate(float(shares[column]), low, high, len(counts))
    return {"dialogues": len(counts), "turns": int(counts.sum()), "shares": figures}


def compare_two(
    one: np.ndarray, two: np.ndarray, statistics: StatisticsSettings, *, paired: bool
) -> dict[str, Any]:
    """Compare two conditions.

    Args:
        one: strategy counts, [N dialogues, 8].
        two: [M dialogues, 8]; row i is the partner of row i of ``one`` if ``paired``.
        statistics: resamples, confidence and seed.
        paired: draw and exchange pairs; single dialogues otherwise.

    Returns:
        ``chi2`` of the table of turns with its degrees of freedom ``dof``, ``cramers_v`` with a
        bootstrap interval (V is never negative, so its interval lies high for small tables),
        ``p`` of χ² by exchanging dialogues, ``p_holm`` left None, and for each of ``strategies``:
        ``difference`` of shares with interval, ``p``, and ``p_holm`` over the eight.
    """
    size = len(one), len(two)
    entry: dict[str, Any] = {"p": None, "p_holm": None}
    if min(size) < FEWEST:
        gone = undefined(sum(size), f"fewer than {FEWEST} dialogues in a condition")
        return {**entry, "chi2": None, "dof": None, "cramers_v": gone, "strategies": {}}
    observed = one.sum(0)[None], two.sum(0)[None]
    used = int(((observed[0] + observed[1]) > 0).sum())
    seeds = (statistics.seed, statistics.seed + (not paired))
    drawn = [
        resampled_weights(len(counts), statistics.resamples, seed) @ counts
        for counts, seed in zip((one, two), seeds, strict=True)
    ]
    permuted = _permuted(one, two, statistics, paired=paired)
    difference = (_shares(observed[0]) - _shares(observed[1]))[0]
    if used < 2:
        v = undefined(sum(size), "only one strategy is used")
    else:
        chi2 = float(_chi2(*observed)[0])
        low, high = ends(_cramers_v(*drawn), statistics.confidence)
        v = estimate(float(_cramers_v(*observed)[0]), low, high, sum(size))
        entry |= {"p": permutation_p(_chi2(*permuted), chi2)}
    spread = _shares(drawn[0]) - _shares(drawn[1])
    by_chance = np.abs(_shares(permuted[0]) - _shares(permuted[1]))
    found: dict[str, Any] = {}
    for column, name in enumerate(STRATEGIES):
        low, high = ends(spread[:, column], statistics.confidence)
        found[name] = {
            "difference": estimate(float(difference[column]), low, high, sum(size)),
            "p": permutation_p(by_chance[:, column], abs(float(difference[column]))),
        }
    adjusted = holm([strategy["p"] for strategy in found.values()])
    for strategy, value in zip(found.values(), adjusted, strict=True):
        strategy["p_holm"] = value
    return {
        **entry,
        "chi2": None if used < 2 else chi2,
        "dof": None if used < 2 else used - 1,
        "cramers_v": v,
        "strategies": found,
    }


def _permuted(
    one: np.ndarray, two: np.ndarray, statistics: StatisticsSettings, *, paired: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Turns by strategy after exchanging dialogues at random, [B, 8] for each condition."""
    rng = np.random.default_rng(statistics.seed)
    pooled = np.concatenate([one, two])
    first = []
    for start in range(0, statistics.resamples, BATCH):
        rows = min(BATCH, statistics.resamples - start)
        if paired:
            swapped = rng.integers(0, 2, size=(rows, len(one))).astype(float)
            first.append((1 - swapped) @ one + swapped @ two)
        else:
            order = rng.random((rows, len(pooled))).argsort(1)
            first.append((order < len(one)).astype(float) @ pooled)
    mine = np.concatenate(first)
    return mine, pooled.sum(0) - mine


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / np.maximum(counts.sum(-1, keepdims=True), 1)


def _chi2(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """χ² of 2 by 8 tables of turns, [B, 8] twice → [B]."""
    both = np.stack([one, two], axis=1)
    total = both.sum((1, 2), keepdims=True)
    expected = both.sum(2, keepdims=True) * both.sum(1, keepdims=True) / np.maximum(total, 1)
    return ((both - expected) ** 2 / np.where(expected > 0, expected, 1)).sum((1, 2))


def _cramers_v(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """V = √(χ²/n): of the two numbers of rows and columns, less one, the smaller is 1."""
    return np.sqrt(_chi2(one, two) / np.maximum((one + two).sum(-1), 1))


def _counts(name: str, talks: Sequence[Talk]) -> np.ndarray:
    """How often each dialogue uses each strategy, [N, 8]."""
    counts = np.zeros((len(talks), len(STRATEGIES)))
    unlabelled = 0
    for row, talk in enumerate(talks):
        for turn in talk.turns:
            if turn.strategy is not None:
                counts[row, STRATEGIES.index(turn.strategy)] += 1
            unlabelled += turn.speaker == "supporter" and turn.strategy is None
    if not counts.sum():
        raise DataError(f"condition {name!r}: no supporter turn of it has a strategy")
    if unlabelled:
        logger.warning(
            "condition %s: %d supporter turns without a strategy left out", name, unlabelled
        )
    return counts


def show_strategies(document: Mapping[str, Any]) -> str:
    """Show a document of ``strategies`` as Markdown."""
    parts = []
    arrows = {1: "more", -1: "fewer", None: ""}
    for group in document["groups"]:
        conditions = group["conditions"]
        rows = [
            [name, *(cell(_percent(one["shares"][name]), 1) for one in conditions.values())]
            for name in STRATEGIES
        ]
        rows.append(["turns", *(str(one["turns"]) for one in conditions.values())])
        rows.append(["dialogues", *(str(one["dialogues"]) for one in conditions.values())])
        parts += [
            f"## {group['dataset']}, {group['model']}: strategies, percent of supporter turns",
            table(["", *conditions], rows),
        ]
        for entry in group["comparisons"]:
            chi2 = "undefined" if entry["chi2"] is None else f"{entry['chi2']:.1f}"
            parts.append(
                f"{entry['a']} − {entry['b']}{', same dialogues' if entry['paired'] else ''}: "
                f"χ² {chi2}, Cramér's V {cell(entry['cramers_v'], 3)}, "
                f"p {p_text(entry['p_holm'])} (permutation of dialogues, Holm-adjusted over the "
                "comparisons)"
            )
            if entry["strategies"]:
                lines = [
                    [name, cell(_percent(one["difference"]), 1), p_text(one["p_holm"]),
                     arrows[one["paper"]]]
                    for name, one in entry["strategies"].items()
                ]  # fmt: skip
                parts.append(table(["", "difference, % points", "p (Holm)", "in the paper"], lines))
    if document["failed"]:
        parts.append(describe_failed(document["failed"]))
    return "\n\n".join(parts)


def _percent(figure: Any) -> Any:
    return {
        **figure,
        **{
            key: None if figure[key] is None else 100 * figure[key]
            for key in ("value", "low", "high")
        },
    }
