"""Scores before and after a dialogue: paired differences, effect sizes, tests."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pal.core.errors import DataError
from pal.stats.estimates import Estimate, cell, estimate, p_text, table, undefined
from pal.stats.permutation import holm, permutation_p
from pal.stats.resampling import ends, resampled_weights
from pal.stats.settings import StatisticsSettings
from pal.traits.concentration import compare_concentration
from pal.traits.documents import (
    Group,
    Record,
    describe_failed,
    describe_unanswered,
    paper,
    read_measurements,
)
from pal.traits.inventories import Inventory

FEWEST = 3  # minimum number of pairs in a comparison
BATCH = 1000  # permutations at once


def build_shifts(
    path: str,
    before: str | None,
    without: str | None,
    inventories: Sequence[Inventory],
    statistics: StatisticsSettings,
) -> dict[str, Any]:
    """Return the document of ``pal traits compare``.

    Args:
        path: measurements of the seekers of dialogues.
        before: of the personas that those were written from; None leaves shifts out.
        without: of seekers of dialogues without persona; None leaves concentration out.
        inventories: which to compare.
        statistics: resamples, confidence and seed.

    Raises:
        DataError: measurements cannot be read, or no persona is in both files.
    """
    after, failed = read_measurements(path, inventories)
    groups = None
    if before is not None:
        first, lost = read_measurements(before, inventories)
        failed = failed + lost
        groups = _compare_groups(first, after, inventories, statistics, before, path)
    concentration = None
    if without is not None:
        alone, lost = read_measurements(without, inventories)
        failed = failed + lost
        concentration = compare_concentration(after, alone, inventories, statistics)
    return {
        "kind": "traits_consistency",
        "format": 1,
        "failed": len(failed),
        "groups": groups or [],
        "concentration": concentration or [],
        "paper": paper()["shift_directions"],
    }


def _compare_groups(
    before: Sequence[Record],
    after: Sequence[Record],
    inventories: Sequence[Inventory],
    statistics: StatisticsSettings,
    *paths: str,
) -> list[dict[str, Any]]:
    pairs: dict[Group, list[tuple[Record, Record]]] = {}
    first = _by_card(before, paths[0])
    for key, record in _by_card(after, paths[1]).items():
        if key in first:
            if first[key]["form"] != record["form"]:
                raise DataError(
                    f"{paths[1]}: {record['id']!r} was measured with the {record['form']} form of "
                    f"{key[2]!r}, but with the {first[key]['form']} one in {paths[0]}; compare one "
                    "form with itself"
                )
            pairs.setdefault(key[:2], []).append((first[key], record))
    if not pairs:
        raise DataError(
            f"{paths[1]}: no persona of it is in {paths[0]} with the same dataset, model and "
            f"inventory (here {next(iter(_by_card(after, paths[1])))}, there {next(iter(first))}); "
            "read the dialogues' cards with traits.dataset=NAME of the ones they were written from"
        )
    return [
        {
            "dataset": dataset,
            "model": model,
            "unanswered": {
                "before": describe_unanswered(one for one, _ in both),
                "after": describe_unanswered(two for _, two in both),
            },
            "dimensions": compare_group(both, inventories, statistics),
        }
        for (dataset, model), both in sorted(pairs.items())
    ]


def _by_card(rows: Sequence[Record], path: str) -> dict[tuple[str, str, str, str], Record]:
    found: dict[tuple[str, str, str, str], Record] = {}
    for row in rows:
        card = str(row.get("card", row["id"]))
        key = (str(row["dataset"]), str(row["model"]), row["inventory"], card)
        if key in found:
            raise DataError(
                f"{path}: card {card!r} is measured twice with {row['inventory']!r} "
                f"(ids {found[key]['id']!r} and {row['id']!r}); keep one"
            )
        found[key] = row
    return found


def compare_group(
    pairs: Sequence[tuple[Record, Record]],
    inventories: Sequence[Inventory],
    statistics: StatisticsSettings,
) -> list[dict[str, Any]]:
    """Compare every dimension before and after, over the personas of one data set and model.

    Holm's adjustment is over all dimensions of all inventories, for the shift and, apart from it,
    for the Kolmogorov-Smirnov test.

    Args:
        pairs: each persona's two measurements with one inventory.
        inventories: whose dimensions.
        statistics: resamples, confidence and seed.

    Returns:
        One entry a dimension: its scores ``before`` and ``after`` where both exist, the figures of
        :func:`compare_scores`, the adjusted p, and ``shift``, "rises", "falls" or "not shown".
    """
    found = []
    for inventory in inventories:
        own = [pair for pair in pairs if pair[0]["inventory"] == inventory.name]
        for dimension, meaning in inventory.dimensions.items():
            scores = np.array(
                [[record["scores"].get(dimension) for record in pair] for pair in own], dtype=float
            ).reshape(-1, 2)
            scores = scores[np.isfinite(scores).all(1)]
            found.append(
                {
                    "inventory": inventory.name,
                    "dimension": dimension,
                    "name": meaning.name,
                    "before": scores[:, 0].tolist(),
                    "after": scores[:, 1].tolist(),
                    **compare_scores(scores[:, 0], scores[:, 1], statistics),
                }
            )
    for key in ("p", "ks_p"):
        tested = [one for one in found if one[key] is not None]
        adjusted = holm([one[key] for one in tested])
        for one, value in zip(tested, adjusted, strict=True):
            one[f"{key}_holm"] = value
    for one in found:
        sure = one["p_holm"] is not None and one["p_holm"] < 1 - statistics.confidence
        up = sure and one["delta"]["value"] > 0
        one["shift"] = ("rises" if up else "falls") if sure else "not shown"
    return found


def compare_scores(
    before: np.ndarray, after: np.ndarray, statistics: StatisticsSettings
) -> dict[str, Any]:
    """Compare paired scores [N] of one dimension.

    Args:
        before: of the personas.
        after: of the same personas, as read from their dialogues.
        statistics: resamples, confidence and seed.

    Returns:
        ``delta``: mean of after − before, Student's interval. ``dz``: Cohen's, Δ over the standard
        deviation of the differences, bootstrap interval. ``p``: of Δ, two-sided, from random signs
        of the differences. ``ks``: the largest gap between the two distribution functions and
        ``ks_p``; that test takes the two samples for independent, so for pairs it is cautious.
        ``p_holm`` and ``ks_p_holm`` are left None.
    """
    from scipy import stats

    count = len(before)
    found: dict[str, Any] = dict.fromkeys(("p", "p_holm", "ks_p", "ks_p_holm"))
    if count < FEWEST:
        gone = undefined(count, f"fewer than {FEWEST} personas with both scores")
        return {**found, "mean_before": gone, "mean_after": gone, "delta": gone, "dz": gone,
                "ks": None}  # fmt: skip
    difference = after - before
    with warnings.catch_warnings():  # where the exact p is not to be had, it is the asymptotic one
        warnings.filterwarnings("ignore", "ks_2samp: Exact", RuntimeWarning)
        ks = stats.ks_2samp(before, after)
    weights = resampled_weights(count, statistics.resamples, statistics.seed) / count
    found |= {
        "mean_before": mean_estimate(before, statistics.confidence),
        "mean_after": mean_estimate(after, statistics.confidence),
        "delta": mean_estimate(difference, statistics.confidence),
        "dz": undefined(count, "all differences are the same"),
        "ks": float(ks.statistic),
        "ks_p": float(ks.pvalue),
        "p": sign_flip_p(difference, statistics),
    }
    if np.ptp(difference) > 1e-9:
        means, squares = weights @ difference, weights @ difference**2
        spread = np.sqrt(np.maximum(squares - means**2, 0) * count / (count - 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = np.where(spread > 1e-9, means / spread, np.nan)
        dz = float(difference.mean() / difference.std(ddof=1))
        found["dz"] = estimate(dz, *ends(drawn, statistics.confidence), count)
    return found


def mean_estimate(values: np.ndarray, confidence: float) -> Estimate:
    """Return the mean of [N] values with Student's interval."""
    from scipy import stats

    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values)
    mean = float(values.mean())
    return estimate(mean, float(mean - half), float(mean + half), len(values))


def sign_flip_p(difference: np.ndarray, statistics: StatisticsSettings) -> float:
    """Return the two-sided p of a mean difference: random signs of the differences [N]."""
    rng = np.random.default_rng(statistics.seed)
    drawn = []
    for start in range(0, statistics.resamples, BATCH):
        rows = min(BATCH, statistics.resamples - start)
        signs = 2.0 * rng.integers(0, 2, size=(rows, len(difference))) - 1
        drawn.append(np.abs(signs @ difference))
    return permutation_p(np.concatenate(drawn), abs(float(difference.sum())))


def show_shifts(document: Mapping[str, Any]) -> str:
    """Show a document of ``compare`` as Markdown."""
    parts = []
    printed = {1: "rises", -1: "falls", 0: "stays"}
    for group in document["groups"]:
        rows = [
            [
                f"{one['inventory']} {one['dimension']}",
                cell(one["mean_before"]),
                cell(one["mean_after"]),
                cell(one["delta"]),
                cell(one["dz"]),
                p_text(one["p_holm"]),
                "undefined" if one["ks"] is None else f"{one['ks']:.2f}",
                p_text(one["ks_p_holm"]),
                one["shift"],
                printed[document["paper"].get(one["dimension"], 0)]
                if one["inventory"] == "hexaco"
                else "",
            ]
            for one in group["dimensions"]
        ]
        head = ["dimension", "before", "after", "Δ", "dz", "p of Δ", "KS", "p of KS", "shift"]
        parts += [
            f"## {group['dataset']}, {group['model']}: before and after",
            table([*head, "paper"], rows),
            "Before and after: mean scores, 1 to 5. Δ: after − before. dz: Δ in standard "
            "deviations of the differences. KS: largest gap between the distributions of the "
            "scores. p: Holm-adjusted over all dimensions. Shift: rises or falls where Δ is beyond "
            "chance. Paper: what it reports.",
        ]
    for group in document["concentration"]:
        rows = [
            [one["name"], cell(one["with"]), cell(one["without"]), cell(one["ratio"]),
             p_text(one["p_holm"])]
            for one in group["statistics"]
        ]  # fmt: skip
        title = f"{group['dataset']}, {group['model']}, {group['inventory']}"
        parts += [
            f"## {title}: {group['n_with']} seekers with persona, {group['n_without']} without",
            table(["spread", "with", "without", "with / without", "p (Holm)"], rows)
            if rows
            else f"undefined (n={group['n_with']}, {group['n_without']}: {group['reason']})",
        ]
    if document["failed"]:
        parts.append(describe_failed(document["failed"]))
    return "\n\n".join(parts)
