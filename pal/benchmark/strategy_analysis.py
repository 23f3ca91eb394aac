"""Analysis of strategies: choices of the systems, accuracy, and text metrics of each (Figure 4)."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pal.core.errors import DataError
from pal.data.predictions import column
from pal.data.strategies import STRATEGIES
from pal.metrics import Embedder, build_predictions, compute_metrics
from pal.metrics.base import Tokenizer
from pal.metrics.strategy import TOP_KEYS

logger = logging.getLogger(__name__)

TEXT_KEYS = ("bleu_2", "rouge_l", "distinct_2", "length", "cos_sim")


def analyze_strategies(
    systems: Mapping[str, Sequence[dict[str, Any]]],
    *,
    labels: Mapping[str, str] | None = None,
    embedder: Embedder | None = None,
    tokenizer: Tokenizer = "words",
) -> dict[str, Any] | None:
    """Analyse the strategies in the responses of systems.

    Args:
        systems: name → records of :func:`read_predictions`.
        labels: labels of the systems; their names by default.
        embedder: sentence encoder for cos_sim, which is None without one. It is called for each
            strategy of each system, so give one from :func:`pal.metrics.similarity.remember`.
        tokenizer: tokenizer of the text metrics.

    Returns:
        The part ``strategies`` of analysis.json. Per system: top-1..8 accuracy (paper, Figure 4),
        the confusion matrix, how often each strategy was chosen, and for each GOLD strategy
        precision, recall and F1 (percent) and the text metrics over its samples. Distinct-2
        decreases with the number of words: compare systems within one strategy, not strategies.
        Values that the records of a system do not allow are None or empty. The result is None,
        with a log line, without systems.

    Raises:
        DataError: two systems name different gold strategies for one sample.
    """
    if not systems:
        logger.warning("no strategy analysis: no responses; give analyze.systems={name: file}")
        return None
    gold = _gold_strategies(systems)
    return {
        "gold": _count(list(gold.values())) if gold else None,
        "systems": {
            name: {
                "label": (labels or {}).get(name, name),
                **_describe(name, records, embedder, tokenizer),
            }
            for name, records in systems.items()
        },
    }


def _gold_strategies(systems: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, str]:
    """Return the gold strategy of every sample that some system answers."""
    gold: dict[str, str] = {}
    ids = {name: {record["id"] for record in records} for name, records in systems.items()}
    for name, records in systems.items():
        for record in records:
            strategy = record.get("reference_strategy")
            if strategy and gold.setdefault(record["id"], strategy) != strategy:
                raise DataError(
                    f"{name}, id {record['id']!r}: reference_strategy {strategy!r}, and another "
                    f"system says {gold[record['id']]!r}; give responses to the same input"
                )
        if ids[name] != ids[next(iter(ids))]:
            logger.warning(
                "%s and %s answer different samples; their numbers are not comparable",
                next(iter(ids)), name,
            )  # fmt: skip
    return gold


def _describe(
    name: str,
    records: Sequence[dict[str, Any]],
    embedder: Embedder | None,
    tokenizer: Tokenizer,
) -> dict[str, Any]:
    predictions = build_predictions(records, {}, embedder, tokenizer=tokenizer)
    # cos_sim embeds all texts of the system in one pass, for all strategies.
    report = compute_metrics(predictions, ["strategy", "length", "cos_sim"])
    for note in report.notes:
        logger.warning("%s: %s", name, note)
    for key in ("accuracy", "top_1"):
        if key in report.missing:
            logger.warning("%s: no %s (%s)", name, key, report.missing[key])
    confusion = report.details.get("confusion")
    chosen = predictions.predicted_strategies
    chosen_counts = None if chosen is None else _count([STRATEGIES[index] for index in chosen])
    return {
        "n": len(records),
        "top": None if TOP_KEYS[0] in report.missing else [report.values[key] for key in TOP_KEYS],
        "confusion": None if confusion is None else confusion.tolist(),
        "distribution": chosen_counts or {},
        "per_strategy": _per_strategy(records, confusion, embedder, tokenizer),
    }


def _per_strategy(
    records: Sequence[dict[str, Any]],
    confusion: np.ndarray | None,
    embedder: Embedder | None,
    tokenizer: Tokenizer,
) -> list[dict[str, Any]]:
    if column(records, "reference_strategy") is None:
        return []
    rows = []
    for index, strategy in enumerate(STRATEGIES):
        answers = [record for record in records if record["reference_strategy"] == strategy]
        row: dict[str, Any] = {"strategy": strategy, "n_gold": len(answers)}
        row |= dict.fromkeys(("n_predicted", "precision", "recall", "f1", *TEXT_KEYS))
        if confusion is not None:
            right, predicted = confusion[index, index], int(confusion[:, index].sum())
            row["n_predicted"] = predicted
            row["precision"] = _percent(right, predicted)
            row["recall"] = _percent(right, len(answers))
            row["f1"] = _percent(2 * right, predicted + len(answers))
        if answers:
            predictions = build_predictions(answers, {}, embedder, tokenizer=tokenizer)
            row |= compute_metrics(predictions, TEXT_KEYS).values
        rows.append(row)
    return rows


def _count(strategies: Sequence[str]) -> dict[str, int]:
    counts = Counter(strategies)
    return {name: counts[name] for name in STRATEGIES}


def _percent(part: float, whole: float) -> float | None:
    return float(100 * part / whole) if whole else None
