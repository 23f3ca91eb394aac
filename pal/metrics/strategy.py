"""Strategy prediction: accuracy (PAL paper, Table 3, ACC), top-k accuracy, F1, Matthews, bias.

The preference bias is that of Kang et al. 2024, "Can Large Language Models be Good Emotional
Supporter? Mitigating Preference Bias on Emotional Support Conversation" (ACL 2024), and of
the code released with it, which also prints weighted F1 (github.com/1eastar/EmotionalSupport).
"""

import numpy as np

from pal.data.strategies import STRATEGIES
from pal.metrics.base import Metric, Predictions, Scores, Variant
from pal.stats.pooled import Pooled

SIZE = len(STRATEGIES)
TOP_KEYS = tuple(f"top_{k}" for k in range(1, SIZE + 1))
CELL_KEYS = ("macro_f1", "weighted_f1", "matthews", "preference_bias")
STRATEGY_KEYS = ("accuracy", *TOP_KEYS, *CELL_KEYS)

PREFERENCE_ROUNDS = 20  # as in the code of Kang et al.


def compute_strategy(predictions: Predictions, variant: Variant = "correct") -> Scores:
    """Return accuracy, top-k accuracy for every k, F1, Matthews and the preference bias.

    Accuracy and top-k, percent, are means over samples. Top-k needs ``strategy_probs``; ties are
    sorted by id. All others follow from the confusion matrix, so they are in ``pooled`` only: macro
    and weighted F1, percent; the Matthews correlation, −1 to 1; and ``preference_bias``, 0 (no
    strategy is preferred) to √7. ``details`` has ``confusion``, samples by [gold, predicted], and
    ``preference``, that of each strategy, None where no error involves it.
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
    scores.add_pooled("weighted_f1", Pooled(cells, weighted_f1_of_cells))
    scores.add_pooled("matthews", Pooled(cells, matthews_of_cells))
    counts = cells.sum(0)
    confusion = counts.astype(int).reshape(SIZE, SIZE)
    scores.details["confusion"] = confusion
    if np.isfinite(preference_bias_of_cells(counts)):
        scores.add_pooled("preference_bias", Pooled(cells, preference_bias_of_cells))
        scores.details["preference"] = [
            None if np.isnan(value) else float(value) for value in preferences_of_cells(counts)
        ]
    elif (gold == predicted).all():
        scores.undefined["preference_bias"] = "no strategy was confused with another"
    else:
        never = [STRATEGIES[i] for i in _unbeaten(_wins(counts)).nonzero()[0]]
        scores.undefined["preference_bias"] = (
            f"{', '.join(never)}: predicted for others and never missed, so its preference is "
            "infinite"
        )
    return scores


def macro_f1_of_cells(cells: np.ndarray) -> np.ndarray:
    """Return macro F1, percent, of flattened confusion matrices, [..., 64].

    The mean is over the strategies that occur, as gold label or as prediction (scikit-learn's
    default), not over all eight.
    """
    f1, occurrences, _ = _f1_of_cells(cells)
    return 100 * f1.sum(-1) / (occurrences > 0).sum(-1)


def weighted_f1_of_cells(cells: np.ndarray) -> np.ndarray:
    """Return F1, percent, weighted by gold counts, of flattened confusion matrices, [..., 64]."""
    f1, _, gold = _f1_of_cells(cells)
    return 100 * (f1 * gold).sum(-1) / gold.sum(-1)


def matthews_of_cells(cells: np.ndarray) -> np.ndarray:
    """Return the Matthews correlation of several classes of flattened matrices, [..., 64].

    It is that of Gorodkin 2004, and 0 if all gold labels or all predictions are one strategy, as in
    scikit-learn.
    """
    matrix = cells.reshape(*cells.shape[:-1], SIZE, SIZE)
    gold, predicted, total = matrix.sum(-1), matrix.sum(-2), matrix.sum((-1, -2))
    right = np.trace(matrix, axis1=-2, axis2=-1)
    top = right * total - (gold * predicted).sum(-1)
    spreads = [total**2 - (counts**2).sum(-1) for counts in (gold, predicted)]
    bottom = np.sqrt(spreads[0] * spreads[1])
    return np.divide(top, bottom, out=np.zeros_like(bottom), where=bottom > 0)


def preference_bias_of_cells(cells: np.ndarray) -> np.ndarray:
    """Return the preference bias (Kang et al. 2024) of flattened confusion matrices, [..., 64].

    It is the standard deviation (over n) of the preferences of the strategies that errors involve;
    NaN where there are no errors, or a preference has no limit.
    """
    preferences = preferences_of_cells(cells)
    involved = ~np.isnan(preferences)
    count = np.maximum(involved.sum(-1), 1)
    squares = np.where(involved, preferences - 1, 0.0) ** 2  # their mean is 1
    return np.where(involved.any(-1), np.sqrt(squares.sum(-1) / count), np.nan)


def preferences_of_cells(cells: np.ndarray) -> np.ndarray:
    """Return the preference of each strategy, mean 1, [..., 8], of flattened matrices, [..., 64].

    Every error is a game that the predicted strategy wins against the gold one. The preferences are
    the strengths of Bradley and Terry's model (1952): with p_i and p_j, i wins with probability
    p_i / (p_i + p_j). They start equal and are improved one after the other in 20 rounds (Newman
    2023), p_i = Σ_j w_ij p_j / (p_i + p_j) / Σ_j w_ji / (p_i + p_j), w_ij being how often i won. As
    in the code of Kang et al. the rounds are 20 whether or not the strengths still change.

    A strategy that no error involves has NaN and is left out; all have NaN if one is predicted for
    others but never missed, because its preference then has no limit.
    """
    wins = _wins(cells)  # [..., predicted, gold]
    strengths = np.ones(wins.shape[:-1])
    for _ in range(PREFERENCE_ROUNDS):
        for i in range(SIZE):
            sums = strengths[..., i, None] + strengths
            known = np.where(sums > 0, sums, 1.0)  # 0 if neither is ever preferred: no term
            won = (wins[..., i, :] * strengths / known).sum(-1)
            lost = (wins[..., :, i] / known).sum(-1)
            beaten = lost > 0
            strengths[..., i] = np.where(beaten, won / np.where(beaten, lost, 1.0), 0.0)
        strengths /= np.maximum(strengths.sum(-1, keepdims=True), 1e-300)  # not to overflow
    involved = (wins.sum(-1) + wins.sum(-2)) > 0
    known = involved & ~_unbeaten(wins).any(-1, keepdims=True)
    scale = involved.sum(-1, keepdims=True) / np.maximum(strengths.sum(-1, keepdims=True), 1e-300)
    return np.where(known, strengths * scale, np.nan)


def _wins(cells: np.ndarray) -> np.ndarray:
    """Return how often each strategy is predicted for each other one, [..., predicted, gold]."""
    matrix = cells.reshape(*cells.shape[:-1], SIZE, SIZE)
    return np.swapaxes(matrix * (1.0 - np.eye(SIZE)), -1, -2)


def _unbeaten(wins: np.ndarray) -> np.ndarray:
    """Return which strategies are predicted for others but never missed, [..., 8]."""
    return (wins.sum(-1) > 0) & (wins.sum(-2) == 0)


def _f1_of_cells(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return F1, occurrences and gold counts of each strategy, [..., 8]."""
    matrix = cells.reshape(*cells.shape[:-1], SIZE, SIZE)
    gold, occurrences = matrix.sum(-1), matrix.sum(-1) + matrix.sum(-2)
    right = np.diagonal(matrix, axis1=-2, axis2=-1)
    return 2 * right / np.maximum(occurrences, 1), occurrences, gold


METRIC = Metric(
    name="strategy",
    direction={**dict.fromkeys(STRATEGY_KEYS, "higher"), "preference_bias": "lower"},
    unit="percent",
    needs=("strategies", "predicted_strategies"),
    compute=compute_strategy,
    version="1.1",
    units={"matthews": "correlation", "preference_bias": "preference"},
)
