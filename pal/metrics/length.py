"""Mean length of the responses (computed by the authors' code, not in the paper)."""

from pal.metrics.base import Metric, Predictions, Scores, Variant


def compute_length(predictions: Predictions, variant: Variant = "correct") -> Scores:
    """Return the mean length of a response, word tokens, 0 or more: the mean over samples."""
    scores = Scores()
    scores.add_mean("length", [len(tokens) for tokens in predictions.response_tokens])
    return scores


METRIC = Metric(
    name="length",
    direction={"length": "none"},
    unit="tokens",
    needs=("responses",),
    compute=compute_length,
)
