"""Settings: which scores are computed."""

from typing import Literal

from pal.core.settings import Section


class MetricSettings(Section):
    """Scores.

    Attributes:
        names: metric families to compute; all that the inputs allow when None.
        variant: ``correct``, or ``authors`` for what the released scripts compute.
        embedder: sentence encoder of cos_sim, a hub id or folder; None leaves cos_sim out.
    """

    names: list[str] | None = None
    variant: Literal["correct", "authors"] = "correct"
    embedder: str | None = "princeton-nlp/sup-simcse-bert-base-uncased"
