"""Settings: which scores are computed."""

from typing import Annotated, Literal

from pydantic import Field

from pal.core.settings import Section, Source


class TextSettings(Section):
    """How texts are cut into tokens and compared.

    Attributes:
        embedder: sentence encoder of cos_sim, a hub id or folder; null leaves cos_sim out.
        tokenizer: ``words``, or ``characters`` for texts in scripts without spaces between words
            (Chinese, Japanese, Thai …).
    """

    embedder: Source | None = "princeton-nlp/sup-simcse-bert-base-uncased"
    tokenizer: Literal["words", "characters"] = "words"


class ScoreSettings(TextSettings):
    """Scores.

    Attributes:
        variant: ``correct``, or ``authors`` for what the released scripts compute.
    """

    variant: Literal["correct", "authors"] = "correct"


class MetricSettings(ScoreSettings):
    """Scores, and which of them.

    Attributes:
        names: metric families to compute; all that the inputs allow when null.
    """

    names: Annotated[list[str], Field(min_length=1)] | None = None
