"""Conversion of prediction records and token losses to the input of metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pal.data.predictions import column
from pal.data.strategies import STRATEGIES, strategy_id
from pal.metrics.base import Embedder, Predictions, Tokenizer

NOT_CHOSEN = {
    "gold": "the strategies are the gold ones, not the model's choice",
    "given": "the strategies were given, not chosen by the model",
}


def build_predictions(
    records: Sequence[Mapping[str, Any]] | None,
    losses: Mapping[str, Any] | None = None,
    embedder: Embedder | None = None,
    *,
    tokenizer: Tokenizer = "words",
    reasons: Mapping[str, str] | None = None,
    models: Mapping[str, Any] | None = None,
) -> Predictions:
    """Convert records and token losses, sample by sample, to :class:`Predictions`.

    Strategies that were given to the model or are gold are not predictions. They are left out, with
    the reason, so that no accuracy is computed from them. ``strategy_from`` of a record gives the
    origin; without it, the strategy is the choice of the model.

    Args:
        records: records of :func:`pal.data.predictions.read_predictions`; None for losses alone.
        losses: losses of :func:`pal.modeling.losses.token_losses`.
        embedder: sentence encoder for cos_sim.
        tokenizer: ``words`` or ``characters``.
        reasons: why a field is None, such as ``{"embedder": "…"}``.
        models: further fields, the models of :func:`pal.metrics.models.load_score_models`.
    """
    losses, reasons = dict(losses or {}), dict(reasons or {})
    if records is None:
        return Predictions(**losses, tokenizer=tokenizer, reasons=reasons)
    gold, chosen = column(records, "reference_strategy"), column(records, "strategy")
    probs, personas = column(records, "strategy_probs"), column(records, "persona")
    origins = {str(record.get("strategy_from") or "model") for record in records}
    for origin in sorted(origins - {"model"}):
        chosen = probs = None
        reasons["predicted_strategies"] = NOT_CHOSEN.get(origin, f"strategies from {origin}")
    return Predictions(
        responses=[record["response"] for record in records],
        references=column(records, "reference"),
        personas=personas,
        strategies=[strategy_id(name) for name in gold] if gold else None,
        predicted_strategies=[strategy_id(name) for name in chosen] if chosen else None,
        strategy_probs=(
            np.array([[row[name] for name in STRATEGIES] for row in probs]) if probs else None
        ),
        embedder=embedder,
        tokenizer=tokenizer,
        reasons=reasons,
        **losses,
        **(models or {}),
    )
