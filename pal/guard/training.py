"""Training of a head on sentence vectors: logistic regression, cross-validated by source.

The probability of a text is the highest of its windows'. A long message that is labelled crisis
says it in one of its windows, so the head is trained twice: on the mean of each message's windows
first, then on its most telling window. Thresholds come from texts that a head was not trained on.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pal.core.errors import DataError
from pal.core.files import write_json
from pal.guard.lexicon import load_lexicon
from pal.guard.models import HEAD_FILE, HEAD_KIND, PROBE, WEIGHTS_FILE, sigmoid, unit_vectors
from pal.guard.rows import LabelledMessage
from pal.guard.windows import windows_of
from pal.metrics.base import Embedder
from pal.stats.estimates import Estimate, cell, share_of, table

# Rates of false alarms at which recall is reported.
RATES = (0.005, 0.01, 0.02, 0.05)

# Share of texts of no concern that may be called a crisis, for one that may be called a concern.
CRISIS_PART = 0.125


@dataclass(frozen=True)
class TrainedHead:
    """A head and what cross-validation says of it.

    Attributes:
        weights: weights [d] of the unit vector.
        bias: bias.
        chances: probability of each training text by a head that has not seen its source.
        concern: threshold of a concern.
        crisis: threshold of a crisis.
    """

    weights: np.ndarray
    bias: float
    chances: np.ndarray
    concern: float
    crisis: float


def train_head(
    texts: Sequence[str],
    crisis: Sequence[bool],
    sources: Sequence[str],
    embedder: Embedder,
    *,
    folds: int = 5,
    false_alarms: float = 0.02,
    penalty: float = 1.0,
) -> TrainedHead:
    """Train a head.

    Args:
        texts: the training texts.
        crisis: whether each is labelled crisis.
        sources: source of each; a fold holds whole sources. Where there are fewer sources than
            folds, larger ones are split by text.
        embedder: sentence encoder.
        folds: number of folds.
        false_alarms: share of texts of no concern that the threshold lets through.
        penalty: strength of the L2 penalty.

    Raises:
        DataError: there are too few texts of either label.
    """
    labels = np.array(crisis, dtype=bool)
    if labels.sum() < folds or (~labels).sum() < folds:
        raise DataError(
            f"training data: expected at least {folds} messages labelled crisis and as many "
            f"labelled none, got {labels.sum()} and {(~labels).sum()}"
        )
    parts = [windows_of(text) for text in texts]
    owners = np.repeat(np.arange(len(texts)), [len(found) for found in parts])
    vectors = unit_vectors(embedder, [part for found in parts for part in found])
    fold_of = _folds(sources, texts, folds)
    chances = np.zeros(len(texts))
    for fold in range(folds):
        held = fold_of == fold
        if not held.any():
            continue
        if not labels[~held].any() or labels[~held].all():
            raise DataError("training data: one source holds all messages of a label; add sources")
        weights, bias = _fit_twice(vectors, owners, labels, ~held, penalty)
        scores = sigmoid(vectors @ weights + bias)
        best = np.zeros(len(texts))
        np.maximum.at(best, owners, scores)
        chances[held] = best[held]
    weights, bias = _fit_twice(vectors, owners, labels, np.ones(len(texts), dtype=bool), penalty)
    fine = chances[~labels]
    return TrainedHead(
        weights=weights,
        bias=bias,
        chances=chances,
        concern=threshold_at(fine, false_alarms),
        crisis=threshold_at(fine, false_alarms * CRISIS_PART),
    )


def threshold_at(chances: np.ndarray, share: float) -> float:
    """Return the lowest threshold that at most this share of texts reaches."""
    ordered = np.sort(chances)[::-1]
    allowed = int(share * len(ordered))
    if allowed >= len(ordered):
        return float(ordered[-1])
    return float(min(1.0, np.nextafter(ordered[allowed], 2.0)))


def describe_head(
    head: TrainedHead, rows: Sequence[LabelledMessage], confidence: float
) -> dict[str, Any]:
    """Return what cross-validation says of a head, alone and together with the lexicon.

    The threshold is the one that lets the stated share of the messages labelled none through, so
    the rate is exact and the recall a little optimistic.
    """
    labels = np.array([row.crisis for row in rows])
    lexicon = np.array(
        [found.level > 0 for found in load_lexicon().detect([row.text for row in rows])]
    )
    rates = []
    for rate in RATES:
        hits = head.chances >= threshold_at(head.chances[~labels], rate)
        both = hits | lexicon
        rates.append(
            {
                "rate": rate,
                "recall": _share(hits[labels], confidence),
                "false_alarms": _share(hits[~labels], confidence),
                "recall_with_lexicon": _share(both[labels], confidence),
                "false_alarms_with_lexicon": _share(both[~labels], confidence),
            }
        )
    return {
        "crisis": int(labels.sum()),
        "none": int((~labels).sum()),
        "sources": len({row.source for row in rows}),
        "lexicon": {
            "recall": _share(lexicon[labels], confidence),
            "false_alarms": _share(lexicon[~labels], confidence),
        },
        "rates": rates,
    }


def show_head(facts: Mapping[str, Any]) -> str:
    """Show what :func:`describe_head` returns as Markdown."""
    rows = [
        [
            f"{one['rate']:.1%}",
            *(cell(one[key], 3) for key in ("recall", "recall_with_lexicon")),
            cell(one["false_alarms_with_lexicon"], 3),
        ]
        for one in facts["rates"]
    ]
    alone = facts["lexicon"]
    both = (cell(alone["recall"], 3), cell(alone["false_alarms"], 3))
    rows.insert(0, ["lexicon alone", "", *both])
    header = [
        "false alarms of the head",
        "recall",
        "recall with the lexicon",
        "false alarms of both",
    ]
    lines = f"{facts['crisis']} crisis, {facts['none']} none; messages without their context"
    return f"{lines}\n\n{table(header, rows)}"


def _share(hits: np.ndarray, confidence: float) -> Estimate:
    return share_of(int(hits.sum()), len(hits), confidence)


def save_head(
    folder: Path, head: TrainedHead, encoder: str, embedder: Embedder, **facts: Any
) -> None:
    """Write a head to a folder: weights, thresholds, its encoder, and facts of the training."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        "weight": head.weights.astype(np.float32),
        "bias": np.array([head.bias], dtype=np.float32),
        "probe": unit_vectors(embedder, [PROBE])[0].astype(np.float32),
    }
    save_file(tensors, str(folder / WEIGHTS_FILE))
    write_json(
        folder / HEAD_FILE,
        {
            "kind": HEAD_KIND,
            "format": 1,
            "encoder": encoder,
            "thresholds": {"concern": head.concern, "crisis": head.crisis},
            **facts,
        },
    )


def _folds(sources: Sequence[str], texts: Sequence[str], folds: int) -> np.ndarray:
    """Return the fold of each text, whole sources together, of about equal size."""
    largest = max(1, len(texts) // folds)
    counts = {source: sources.count(source) for source in dict.fromkeys(sources)}
    groups = [
        source if counts[source] <= largest else f"{source}/{_digit(text, folds)}"
        for source, text in zip(sources, texts, strict=True)
    ]
    sizes = {group: groups.count(group) for group in dict.fromkeys(groups)}
    loads = [0] * folds
    fold_of: dict[str, int] = {}
    for group in sorted(sizes, key=lambda group: (-sizes[group], group)):
        fold_of[group] = loads.index(min(loads))
        loads[fold_of[group]] += sizes[group]
    return np.array([fold_of[group] for group in groups])


def _digit(text: str, folds: int) -> int:
    return int(hashlib.sha256(text.encode("utf-8", "replace")).hexdigest(), 16) % folds


def _fit_twice(
    vectors: np.ndarray, owners: np.ndarray, labels: np.ndarray, used: np.ndarray, penalty: float
) -> tuple[np.ndarray, float]:
    """Fit on the mean of each crisis text's windows, then on its most telling window.

    All windows of texts of no concern are used both times.
    """
    of_none = used[owners] & ~labels[owners]
    places = [np.flatnonzero(owners == text) for text in np.flatnonzero(used & labels)]
    none = vectors[of_none]
    positive = np.stack([vectors[place].mean(axis=0) for place in places])
    weights, _ = _fit(positive, none, penalty)
    best = [place[np.argmax(vectors[place] @ weights)] for place in places]
    return _fit(vectors[best], none, penalty)


def _fit(positive: np.ndarray, negative: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    """Fit a logistic regression; both labels weigh the same in sum."""
    from scipy.optimize import minimize

    data = np.concatenate([positive, negative])
    signs = np.concatenate([np.ones(len(positive)), -np.ones(len(negative))])
    weight = np.concatenate(
        [np.full(len(positive), 0.5 / len(positive)), np.full(len(negative), 0.5 / len(negative))]
    ) * len(data)

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        margin = signs * (data @ values[:-1] + values[-1])
        slope = -weight * signs * sigmoid(-margin)
        total = (
            float(weight @ np.logaddexp(0.0, -margin)) + 0.5 * penalty * values[:-1] @ values[:-1]
        )
        gradient = np.append(data.T @ slope + penalty * values[:-1], slope.sum())
        return total, gradient

    start = np.zeros(data.shape[1] + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    return found[:-1], float(found[-1])
