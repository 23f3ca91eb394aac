"""From records to scores: the models that the settings name, loaded where they are needed."""

from collections.abc import Mapping, Sequence
from typing import Any

from pal.metrics.base import Embedder
from pal.metrics.compute import Report, compute_metrics
from pal.metrics.models import given_texts, load_score_models
from pal.metrics.records import build_predictions
from pal.metrics.settings import MetricSettings
from pal.metrics.similarity import load_embedder, load_if_possible
from pal.metrics.table import choose_metrics


def load_scorers(
    records: Sequence[Mapping[str, Any]] | None, how: MetricSettings
) -> tuple[Embedder | None, dict[str, Any], dict[str, str]]:
    """Load the models that scores of records need.

    Args:
        records: records of a prediction file; None if there are none, and only losses.
        how: which scores, and by which models.

    Returns:
        (sentence encoder, further fields of :class:`pal.metrics.Predictions`, reasons why others
        are missing).

    Raises:
        CheckpointError: a named model cannot be used.
    """
    embedder, reasons = _load_embedder(records, how)
    models, more = load_score_models(
        how.names, present=given_texts(records),
        **how.model_dump(include={"bertscore", "bertscore_layer", "nli"}),
    )  # fmt: skip
    return embedder, models, reasons | (more if records is not None else {})


def score_records(records: Sequence[Mapping[str, Any]], how: MetricSettings) -> Report:
    """Return the scores of records, as ``pal eval`` computes them.

    Args:
        records: records of a prediction file.
        how: which scores, and by which models.

    Raises:
        PalError: a metric or a model cannot be used.

    Example:
        >>> record = {"id": "a/1", "response": "I am here.", "reference": "I am here."}
        >>> round(score_records([record], MetricSettings(names=["bleu_2"])).values["bleu_2"], 6)
        100.0
    """
    embedder, models, reasons = load_scorers(records, how)
    predictions = build_predictions(
        records, embedder=embedder, tokenizer=how.tokenizer, reasons=reasons, models=models
    )
    return compute_metrics(predictions, how.names, how.variant)


def _load_embedder(
    records: Sequence[Mapping[str, Any]] | None, how: MetricSettings
) -> tuple[Embedder | None, dict[str, str]]:
    """Return the sentence encoder if a metric needs it, and reasons if there is none."""
    name = how.embedder
    wanted = any("embedder" in metric.needs for metric, _ in choose_metrics(how.names))
    if records is None or not wanted:
        return None, {}
    if name is None:
        return None, {"embedder": "metrics.embedder is null"}
    if not any(record.get("persona") for record in records):
        return None, {"embedder": "no sample has a persona"}
    embedder, reason = load_if_possible(
        lambda: load_embedder(name), name, chosen="embedder" in how.model_fields_set
    )
    return embedder, {"embedder": reason} if reason else {}
