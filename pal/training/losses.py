"""Losses counted by token, whatever the batches: in training, in validation, and their floor."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# Metrics of which less is better; of the others more.
LOWER_IS_BETTER = ("loss", "nll", "ppl")


def token_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    """Return the mean cross-entropy over all target tokens of a step (PAL paper, equation 5), nats.

    Args:
        outputs: what the model returned, logits [B, T, V].
        labels: [B, T], −100 = ignored.
        num_items_in_batch: target tokens of the whole step, all accumulated batches together.
    """
    total = F.cross_entropy(
        outputs["logits"].flatten(0, 1).float(), labels.flatten(), reduction="sum",
        ignore_index=-100,
    )  # fmt: skip
    return total / ((labels != -100).sum() if num_items_in_batch is None else num_items_in_batch)


def summarise_rows(strategy_ids: list[int] | None) -> Callable[[Any, Tensor], Tensor]:
    """Return a reducer of logits to [B, 3]: summed nats, tokens, whether the strategy is right."""

    def reduce(logits: Any, labels: Tensor) -> Tensor:
        logits = logits[0] if isinstance(logits, tuple) else logits
        nats = F.cross_entropy(
            logits.transpose(1, 2).float(), labels, reduction="none", ignore_index=-100
        ).sum(1)
        right = torch.zeros_like(nats)
        if strategy_ids is not None:
            ids = torch.tensor(strategy_ids, device=labels.device)
            right = (ids[logits[:, 0, ids].argmax(-1)] == labels[:, 0]).to(nats.dtype)
        return torch.stack([nats, (labels != -100).sum(1).to(nats.dtype), right], dim=1)

    return reduce


def metric_names(with_strategy: bool) -> tuple[str, ...]:
    """Return the names of the validation metrics, without ``eval_``."""
    return (*LOWER_IS_BETTER, *(("strategy_accuracy",) if with_strategy else ()))


def corpus_metrics(with_strategy: bool) -> Callable[[Any], dict[str, float]]:
    """Return the validation metrics: ``nll`` (nats per token), ``ppl``, ``strategy_accuracy``."""

    def compute(prediction: Any) -> dict[str, float]:
        nats, tokens, right = np.asarray(prediction.predictions, dtype=np.float64).T
        nll = nats.sum() / tokens.sum()
        metrics = {"nll": float(nll), "ppl": float(np.exp(min(nll, 700.0)))}
        if with_strategy:
            metrics["strategy_accuracy"] = float(right.mean())
        return metrics

    return compute


def unigram_nll(train: Iterable[Sequence[int]], validation: Iterable[Sequence[int]]) -> float:
    """Return the baseline, nats per token, of training token frequencies (add-one smoothing).

    Args:
        train: labels of the training samples.
        validation: of the validation samples; they are read twice.
    """
    counts, targets = (
        Counter(token for row in rows for token in row if token != -100)
        for rows in (train, validation)
    )
    types = len(counts.keys() | targets.keys())
    total = sum(counts.values()) + types
    nats = sum(
        math.log((counts[token] + 1) / total)
        for row in validation
        for token in row
        if token != -100
    )
    return -nats / sum(targets.values())
