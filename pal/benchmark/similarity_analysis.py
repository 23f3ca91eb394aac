"""Relation between the similarity of responses and persona and the seekers' survey scores.

Figures 3 (SimCSE) and 5 (mean word vectors) of the PAL paper show the mean cosine of supporter
turns and persona in each dialogue against the score that the seeker gave in the survey.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pal.data.samples import build_samples
from pal.metrics import Embedder, Predictions, compute_metrics

logger = logging.getLogger(__name__)

SIMILARITY_NOTE = (
    "similarity: mean over a dialogue's supporter turns of the cosine of the turn and the persona "
    "known when it was said (sentences joined by a space); turns before any persona are left out; "
    "levels: mean similarity of the dialogues of one score, interval from Student's t; R² over so "
    "few level means is high by chance alone (about 1/3 for four of them): judge by Spearman's rho "
    "and its p"
)


def analyze_similarity(
    dialogues: Iterable[Mapping[str, Any]],
    embedder: Embedder | None,
    name: str,
    *,
    confidence: float = 0.95,
) -> dict[str, Any] | None:
    """Relate the similarity of responses and persona to the seekers' scores.

    The paper says "the average cosine similarity between the responses and persona information in a
    conversation" and leaves open which persona. Here a turn is compared with the persona known at
    that turn, as in cos_sim (section 4.4 of the paper compares its Table 3 with Figure 3). The
    final persona of the dialogue would credit early turns for information that the seeker gave
    later, often in reply to these turns. Every supporter turn with a known persona counts, also one
    that follows a supporter turn, since the survey is about the whole conversation.

    Args:
        dialogues: rows of :func:`pal.data.load_esconv`.
        embedder: function from texts to vectors; it gets every distinct text once.
        name: name of the embedder in the result.
        confidence: confidence level of the intervals of level means.

    Returns:
        The part ``similarity`` of analysis.json: points of dialogues and, for each score, levels,
        trend line (least squares over dialogues), R² over dialogues and over the level means
        (unweighted, what the paper's plots show: of k means without any relation about 1/(k − 1)),
        Spearman's rho over dialogues and its two-sided p. A dialogue without any of the three
        scores counts as ``without_survey``, another one whose supporter never spoke at a known
        persona as ``without_persona``. None, with the reason logged, if there is no embedder or no
        dialogue with both.
    """
    if embedder is None:
        logger.warning("no similarity analysis: no embedder; give metrics.embedder=…")
        return None
    scores, turns = [], []
    without_survey = without_persona = 0
    for dialogue in dialogues:
        answers = _survey_scores(dialogue["survey"])
        known = [s for s in build_samples([dialogue], "training") if " ".join(s.persona).strip()]
        if not any(score is not None for score in answers.values()):
            without_survey += 1
        elif not known:
            without_persona += 1
        else:
            scores.append(answers)
            turns.append(known)
    if not turns:
        logger.warning(
            "no similarity analysis: of %d dialogues %d have no seeker's survey score and %d more "
            "have no persona known at a supporter turn; pal annotate infers personas",
            without_survey + without_persona, without_survey, without_persona,
        )  # fmt: skip
        return None
    similarity = _mean_similarity(turns, embedder)
    found = {}
    for key in scores[0]:
        points = [
            (score, float(value))
            for answers, value in zip(scores, similarity, strict=True)
            if (score := answers[key]) is not None
        ]
        found[key] = relate(points, confidence)
    return {
        "embedder": name,
        "dialogues": len(turns),
        "without_survey": without_survey,
        "without_persona": without_persona,
        "turns": sum(map(len, turns)),
        "confidence": confidence,
        "note": SIMILARITY_NOTE,
        "scores": found,
    }


def relate(points: Sequence[tuple[float, float]], confidence: float = 0.95) -> dict[str, Any]:
    """Return the relation between similarity and a score.

    Args:
        points: (score, similarity) of every dialogue.
        confidence: confidence level of the intervals of level means (Student's t; None for a
            single dialogue).

    Returns:
        ``points``, ``levels``, ``slope`` and ``intercept`` (cosine per point of the score),
        ``r2``, ``r2_levels``, ``rho``, ``p``, ``n``. A number is None where it is undefined:
        fewer than three dialogues (levels, for ``r2_levels``), or all of one score or similarity.
    """
    from scipy import stats

    scores, similarity = np.array(points, dtype=float).reshape(-1, 2).T
    marks = np.unique(scores)
    levels = []
    for mark in marks:
        values = similarity[scores == mark]
        mean, low, high = float(values.mean()), None, None
        if len(values) > 1:
            quantile = stats.t.ppf((1 + confidence) / 2, len(values) - 1)
            half = float(quantile * values.std(ddof=1) / np.sqrt(len(values)))
            low, high = mean - half, mean + half
        levels.append(
            {"score": float(mark), "n": len(values), "mean": mean, "low": low, "high": high}
        )
    means = np.array([level["mean"] for level in levels])
    line = stats.linregress(scores, similarity) if _vary(scores, similarity) else None
    level_line = stats.linregress(marks, means) if _vary(marks, means) else None
    rank = stats.spearmanr(scores, similarity) if line else None
    return {
        "points": [list(point) for point in points],
        "levels": levels,
        "slope": float(line.slope) if line else None,
        "intercept": float(line.intercept) if line else None,
        "r2": float(line.rvalue**2) if line else None,
        "r2_levels": float(level_line.rvalue**2) if level_line else None,
        "rho": float(rank.statistic) if rank else None,
        "p": float(rank.pvalue) if rank else None,
        "n": len(points),
    }


def _vary(*sides: np.ndarray) -> bool:
    return all(len(values) > 2 and np.ptp(values) > 0 for values in sides)


def _survey_scores(survey: Mapping[str, float | None]) -> dict[str, float | None]:
    initial, final = survey["initial_emotion_intensity"], survey["final_emotion_intensity"]
    return {
        "empathy": survey["empathy"],
        "relevance": survey["relevance"],
        "intensity_decrease": None if initial is None or final is None else initial - final,
    }


def _mean_similarity(turns: Sequence[Sequence[Any]], embedder: Embedder) -> np.ndarray:
    """Return the mean cos_sim of each dialogue, [D]; all turns are embedded in one pass."""
    samples = [sample for known in turns for sample in known]
    predictions = Predictions(
        responses=[sample.response for sample in samples],
        personas=[list(sample.persona) for sample in samples],
        embedder=embedder,
    )
    cosines = compute_metrics(predictions, ["cos_sim"]).per_sample["cos_sim"]
    lengths = [len(known) for known in turns]
    return np.add.reduceat(cosines, np.cumsum([0, *lengths[:-1]])) / lengths
