"""Strategy prediction: accuracy (PAL paper, Table 3, ACC), top-k accuracy, macro F1, confusion."""

import numpy as np

from pal.data.strategies import STRATEGIES
from pal.metrics.base import Metric, Predictions, Scores, Variant
from pal.stats.pooled import Pooled

SIZE = len(STRATEGIES)
TOP_KEYS = tuple(f"top_{k}" for k in range(1, SIZE + 1))
STRATEGY_KEYS = ("accuracy", *TOP_KEYS, "macro_f1")


def compute_strategy(predictions: Predictions, variant: Variant = "correct") -> Scores:
    """Return accuracy, top-k accuracy for every k, and macro F1, percent, 0 to 100.

    Accuracy and top-k are means over samples. Macro F1 is computed from the confusion matrix, so it
    is in ``pooled`` only. Top-k needs ``strategy_probs``; ties are sorted by id.
    ``details["confusion"]`` counts samples, [gold, predicted].
    """
    gold = np.asarray(predictions.strategies, dtype=int)
    predicted = np.asarray(predictions.predicted_strategies, dtype=int)
    scores = Scores()
    scores.add_mean("accuracy", 100.0 * (gold == predicted))
    if (probs := predictions.strategy_probs) is None:
        scores.undefined |= dict.fromkeys(TOP_KEYS, "needs strategy_probs")
    else:
        order = np.argsort(-probs, axis=1, kind="stable")
        rank = np.argmax(order == gold[:, None], axis=1)  # 0 = most probable
        for k, key in enumerate(TOP_KEYS, start=1):
            scores.add_mean(key, 100.0 * (rank < k))
    cells = np.eye(SIZE * SIZE)[gold * SIZE + predicted]  # [N, 64]: one cell per sample
    scores.add_pooled("macro_f1", Pooled(cells, macro_f1_of_cells))
    scores.details["confusion"] = cells.sum(0).astype(int).reshape(SIZE, SIZE)
    return scores


def macro_f1_of_cells(cells: np.ndarray) -> np.ndarray:
    """Return macro F1, percent, of flattened confusion matrices, [..., 64].

    The mean is over the strategies that occur, as gold label or as prediction (scikit-learn's
    default), not over all eight.
    """
    matrix = cells.reshape(*cells.shape[:-1], SIZE, SIZE)
    occurrences = matrix.sum(-1) + matrix.sum(-2)
    right = np.diagonal(matrix, axis1=-2, axis2=-1)
    f1 = 2 * right / np.maximum(occurrences, 1)
    return 100 * f1.sum(-1) / (occurrences > 0).sum(-1)


METRIC = Metric(
    name="strategy",
    direction=dict.fromkeys(STRATEGY_KEYS, "higher"),
    unit="percent",
    needs=("strategies", "predicted_strategies"),
    compute=compute_strategy,
)
