"""Pearson's r of every personality dimension with every style dimension, and theory's pairs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pal.stats.estimates import Estimate, cell, estimate, table, undefined
from pal.stats.permutation import holm
from pal.stats.resampling import resampled_weights
from pal.stats.settings import StatisticsSettings
from pal.traits.documents import (
    Record,
    describe_failed,
    describe_unanswered,
    grouped,
    paper,
    read_measurements,
)
from pal.traits.inventories import Inventory
from pal.traits.scoring import analyze_reliability

FEWEST = 4  # minimum number of personas: Fisher's interval contains n − 3


def build_correlations(
    path: str, rows: Inventory, columns: Inventory, statistics: StatisticsSettings
) -> dict[str, Any]:
    """Return the document of ``pal traits correlate``.

    Args:
        path: measurements of both inventories.
        rows: the personality inventory.
        columns: the style inventory.
        statistics: resamples, confidence and seed.

    Raises:
        DataError: the measurements cannot be read.
    """
    made, failed = read_measurements(path, [rows, columns])
    return {
        "kind": "traits_correlation",
        "format": 1,
        "inventories": {i.name: describe_inventory(i) for i in (rows, columns)},
        "failed": len(failed),
        "groups": [
            {
                "dataset": dataset,
                "model": model,
                **correlate_group(members, rows, columns, statistics),
                "reliability": _reliability(members, (rows, columns), statistics),
                "unanswered": describe_unanswered(members),
                "paper": [
                    printed
                    for printed in paper()["correlations"]
                    if printed["dataset"].lower() == dataset.lower()
                    and (rows.name, columns.name) == ("hexaco", "csi")
                ],
            }
            for (dataset, model), members in grouped(made).items()
        ],
    }


def describe_inventory(inventory: Inventory) -> dict[str, Any]:
    """Return what results say of an inventory; texts of items only if they may be copied."""
    return {
        "version": inventory.version,
        "licence": inventory.licence,
        "dimensions": {key: one.name for key, one in inventory.dimensions.items()},
        "items": inventory.shown_items(),
    }


def correlate_group(
    members: Sequence[Record], rows: Inventory, columns: Inventory, statistics: StatisticsSettings
) -> dict[str, Any]:
    """Correlate two inventories over the personas of one data set and model.

    Every cell is over the personas that have both scores. Intervals are Fisher's; Holm's adjustment
    is over all cells. Of a pair of the theory, ``largest_in_column`` says whether its |r| is the
    largest among all personality dimensions with that style (``largest_in_row``: among all styles
    with that personality dimension), and the shares, in how many bootstrap samples it is.

    Args:
        members: measurements of both inventories.
        rows: the personality inventory, whose ``theory`` names the pairs.
        columns: the style inventory.
        statistics: resamples, confidence and seed.

    Returns:
        ``n``, ``rows``, ``columns``, ``cells`` (row → column → ``r``, ``p``, ``p_holm``) and
        ``pairs``.
    """
    scores = _matrix(members, rows, columns)
    height = len(rows.dimensions)
    cells: dict[str, dict[str, Any]] = {row: {} for row in rows.dimensions}
    for i, row in enumerate(rows.dimensions):
        for j, column in enumerate(columns.dimensions):
            r, p = correlation(scores[:, i], scores[:, height + j], statistics.confidence)
            cells[row][column] = {"r": r, "p": p, "p_holm": None}
    defined = [one for line in cells.values() for one in line.values() if one["p"] is not None]
    for one, adjusted in zip(defined, holm([one["p"] for one in defined]), strict=True):
        one["p_holm"] = adjusted
    return {
        "n": len(scores),
        "rows": list(rows.dimensions),
        "columns": list(columns.dimensions),
        "cells": cells,
        "pairs": _pairs(cells, _drawn(scores, height, statistics), rows, columns),
    }


def correlation(x: np.ndarray, y: np.ndarray, confidence: float) -> tuple[Estimate, float | None]:
    """Return Pearson's r with Fisher's interval, and its two-sided p.

    Args:
        x: scores, [N], NaN where undefined.
        y: scores, [N], NaN where undefined.
        confidence: confidence level of the interval.
    """
    from scipy import stats

    both = np.isfinite(x) & np.isfinite(y)
    x, y, count = x[both], y[both], int(both.sum())
    if count < FEWEST:
        return undefined(count, f"fewer than {FEWEST} personas with both scores"), None
    if np.ptp(x) < 1e-9 or np.ptp(y) < 1e-9:
        return undefined(count, "one of the scores is the same for all personas"), None
    if len(np.unique(np.stack([x, y]), axis=1).T) < FEWEST:  # copies of few are no sample
        return undefined(count, f"fewer than {FEWEST} different personas by both scores"), None
    found = stats.pearsonr(x, y)
    r = float(np.clip(found.statistic, -1, 1))
    half = stats.norm.ppf((1 + confidence) / 2) / np.sqrt(count - 3)
    middle = np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15))
    low, high = np.tanh([middle - half, middle + half])
    return estimate(r, float(low), float(high), count), float(found.pvalue)


def show_correlations(document: Mapping[str, Any]) -> str:
    """Show a document of ``correlate`` as Markdown."""
    parts = []
    for group in document["groups"]:
        header = ["", *group["columns"]]
        body = []
        for row in group["rows"]:
            line = [row]
            for column in group["columns"]:
                one = group["cells"][row][column]
                sure = one["p_holm"] is not None and one["p_holm"] < 0.05
                line.append(cell(one["r"]) + ("*" if sure else ""))
            body.append(line)
        parts += [
            f"## {group['dataset']}, {group['model']}: {group['n']} personas",
            table(header, body),
            f"Rows: {_names(document, 0)}. Columns: {_names(document, 1)}. Cells: Pearson's r with "
            "its interval; * p < 0.05 after Holm's adjustment over all cells.",
        ]
        pairs = [
            [
                f"{pair['row']}-{pair['column']} ({'+' if pair['sign'] > 0 else '−'})",
                cell(group["cells"][pair["row"]][pair["column"]]["r"]),
                *(
                    "undefined" if pair[key] is None else ("yes" if pair[key] else "no")
                    for key in ("sign_as_expected", "largest_in_column", "largest_in_row")
                ),
                *(
                    str(printed["rows"][pair["row"]][printed["columns"].index(pair["column"])])
                    for printed in group["paper"]
                ),
            ]
            for pair in group["pairs"]
        ]
        if pairs:
            head = [
                "pair that theory expects",
                "r",
                "sign as expected",
                "largest in column",
                "in row",
            ]
            printed = [f"paper: {one['model']}" for one in group["paper"]]
            parts.append(table([*head, *printed], pairs))
        lines = [
            [name, dimension, cell(one["alpha"]), cell(one["omega"])]
            for name, dimensions in group["reliability"].items()
            for dimension, one in dimensions.items()
        ]
        parts.append(table(["inventory", "dimension", "Cronbach's α", "McDonald's ω"], lines))
    if document["failed"]:
        parts.append(describe_failed(document["failed"]))
    return "\n\n".join(parts)


def _names(document: Mapping[str, Any], which: int) -> str:
    name, inventory = list(document["inventories"].items())[which]
    spelled = ", ".join(f"{key} {word}" for key, word in inventory["dimensions"].items())
    return f"{name}, version {inventory['version']} ({spelled})"


def _matrix(members: Sequence[Record], rows: Inventory, columns: Inventory) -> np.ndarray:
    """Scores of both inventories by persona, [N, rows + columns], NaN where there is none."""
    people: dict[str, dict[str, Record]] = {}
    for record in members:
        people.setdefault(record["id"], {})[record["inventory"]] = record["scores"]
    return np.array(
        [
            [scores.get(part.name, {}).get(d) for part in (rows, columns) for d in part.dimensions]
            for scores in people.values()
        ],
        dtype=float,
    )


def _drawn(scores: np.ndarray, height: int, statistics: StatisticsSettings) -> np.ndarray:
    """|r| in bootstrap samples of the personas with all scores, [B, rows, columns], perhaps NaN."""
    whole = scores[np.isfinite(scores).all(1)]
    if len(whole) < FEWEST:
        return np.full((0, height, scores.shape[1] - height), np.nan)
    centred = whole - whole.mean(0)
    weights = resampled_weights(len(whole), statistics.resamples, statistics.seed) / len(whole)
    means, squares = weights @ centred, weights @ centred**2
    spread = np.sqrt(np.maximum(squares - means**2, 0))
    left, right = centred[:, :height], centred[:, height:]
    products = (left[:, :, None] * right[:, None, :]).reshape(len(whole), -1)
    shape = (-1, height, right.shape[1])
    covariance = (weights @ products).reshape(shape)
    covariance -= means[:, :height, None] * means[:, None, height:]
    with np.errstate(divide="ignore", invalid="ignore"):  # a sample without variance
        return np.abs(covariance / (spread[:, :height, None] * spread[:, None, height:]))


def _pairs(
    cells: Mapping[str, Mapping[str, Any]], drawn: np.ndarray, rows: Inventory, columns: Inventory
) -> list[dict[str, Any]]:
    names, others = list(rows.dimensions), list(columns.dimensions)
    sizes = np.array([[abs(cells[i][j]["r"]["value"] or 0.0) for j in others] for i in names])
    found = []
    for row, tie in rows.theory.items():
        if tie.inventory != columns.name or tie.dimension not in columns.dimensions:
            continue
        i, j = names.index(row), others.index(tie.dimension)
        r = cells[row][tie.dimension]["r"]["value"]
        usable = np.nan_to_num(drawn[np.isfinite(drawn[:, i, j])])
        found.append(
            {
                "row": row,
                "column": tie.dimension,
                "sign": tie.sign,
                "sign_as_expected": None if r is None else bool(r * tie.sign > 0),
                "largest_in_column": None if r is None else bool(sizes[i, j] >= sizes[:, j].max()),
                "largest_in_row": None if r is None else bool(sizes[i, j] >= sizes[i].max()),
                "column_share": _share(usable[:, i, j] >= usable[:, :, j].max(1)),
                "row_share": _share(usable[:, i, j] >= usable[:, i].max(1)),
            }
        )
    return found


def _share(hits: np.ndarray) -> float | None:
    return float(hits.mean()) if len(hits) else None


def _reliability(
    members: Sequence[Record], inventories: Sequence[Inventory], statistics: StatisticsSettings
) -> dict[str, Any]:
    found = {}
    for inventory in inventories:
        own = [record for record in members if record["inventory"] == inventory.name]
        if own:
            found[inventory.name] = analyze_reliability(
                inventory,
                [record["answers"] for record in own],
                form=own[0]["form"],
                **statistics.model_dump(),
            )
    return found
