"""Unigram F1 between response and reference (computed by the authors' code, not in the paper)."""

from collections import Counter

from pal.metrics.base import Metric, Predictions, Scores, Variant


def compute_f1(predictions: Predictions, variant: Variant = "correct") -> Scores:
    """Return unigram F1, percent, 0 to 100: the mean over samples; an empty response scores 0.

    Words of both sides are counted as multisets.
    """
    values = []
    for response, reference in zip(
        predictions.response_tokens, predictions.reference_tokens, strict=True
    ):
        common = (Counter(response) & Counter(reference)).total()
        values.append(200 * common / (len(response) + len(reference)) if common else 0.0)
    scores = Scores()
    scores.add_mean("f1", values)
    return scores


METRIC = Metric(
    name="f1",
    direction={"f1": "higher"},
    unit="percent",
    needs=("responses", "references"),
    compute=compute_f1,
)
