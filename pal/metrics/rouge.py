"""ROUGE-L (PAL paper, Table 3, R-L; Lin 2004)."""

from pal.metrics.base import Metric, Predictions, Scores, Variant

BETA = 1.2  # as in pycocoevalcap, which the authors' code copies; recall has more weight


def compute_rouge(predictions: Predictions, variant: Variant = "correct") -> Scores:
    """Return ROUGE-L, percent, 0 to 100: the mean over samples of F_β with β = 1.2.

    Precision and recall are the length of the longest common subsequence divided by the number of
    tokens of response and reference. A pair without common tokens, or with an empty side, scores 0.
    """
    from rapidfuzz.distance import LCSseq

    values = []
    for response, reference in zip(
        predictions.response_tokens, predictions.reference_tokens, strict=True
    ):
        common = LCSseq.similarity(response, reference)
        # (1 + β²)PR / (R + β²P), multiplied out
        bottom = len(response) + BETA**2 * len(reference)
        values.append(100 * (1 + BETA**2) * common / bottom if common else 0.0)
    scores = Scores()
    scores.add_mean("rouge_l", values)
    return scores


METRIC = Metric(
    name="rouge",
    direction={"rouge_l": "higher"},
    unit="percent",
    needs=("responses", "references"),
    compute=compute_rouge,
)
