"""Settings of the scores."""

from typing import Annotated, Literal

from pydantic import Field

from pal.core.settings import Section, Source


class TextSettings(Section):
    """How texts are tokenised and compared.

    Attributes:
        embedder: sentence encoder for cos_sim, a hub id or folder; null leaves cos_sim out.
        tokenizer: ``words``, or ``characters`` for texts in scripts without spaces between words
            (Chinese, Japanese, Thai …).
    """

    embedder: Source | None = "princeton-nlp/sup-simcse-bert-base-uncased"
    tokenizer: Literal["words", "characters"] = "words"


class ScoreSettings(TextSettings):
    """Scores.

    Attributes:
        variant: ``correct``, or ``authors`` for values as the released scripts compute them.
    """

    variant: Literal["correct", "authors"] = "correct"


class MetricSettings(ScoreSettings):
    """Scores and the choice of metrics.

    Attributes:
        names: metric families to compute; all that the inputs allow when null.
        bertscore: encoder for BERTScore, a hub id or folder; null leaves BERTScore out. Values of
            different encoders do not compare; papers mostly use ``roberta-large``.
        bertscore_layer: layer of that encoder, counted from 1, such as 17 of ``roberta-large``; the
            last when null.
        nli: model that tells entailment, neutral and contradiction, a hub id or folder, for what
            responses say of the persona; null leaves those scores out.
    """

    names: Annotated[list[str], Field(min_length=1)] | None = None
    bertscore: Source | None = None
    bertscore_layer: int | None = Field(None, gt=0)
    nli: Source | None = None
