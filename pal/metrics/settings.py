"""Settings of the scores."""

from typing import Annotated, Literal

from pydantic import Field

from pal.core.settings import AnyModelSource, Section


class TextSettings(Section):
    """How texts are tokenised and compared.

    Attributes:
        embedder: sentence encoder for cos_sim, a hub id or folder; null leaves cos_sim out.
        tokenizer: words, or characters for languages written without spaces between words (Chinese,
            Japanese, Thai …).
    """

    embedder: AnyModelSource | None = "princeton-nlp/sup-simcse-bert-base-uncased"
    tokenizer: Literal["words", "characters"] = "words"


class ScoreSettings(TextSettings):
    """Scores.

    Attributes:
        variant: correct, or authors for the values that the released scripts compute.
    """

    variant: Literal["correct", "authors"] = "correct"


class MetricSettings(ScoreSettings):
    """Scores and the choice of metrics.

    Attributes:
        names: metric families to compute; all that the inputs allow when null.
        bertscore: encoder for BERTScore, a hub id or folder; null leaves BERTScore out. Values from
            different encoders are not comparable; most papers use roberta-large.
        bertscore_layer: layer of that encoder, counted from 1, such as 17 for roberta-large; the
            last when null.
        nli: natural language inference model (entailment, neutral, contradiction), a hub id or
            folder, for scores of how responses relate to the persona; null leaves those scores out.
    """

    names: Annotated[list[str], Field(min_length=1)] | None = None
    bertscore: AnyModelSource | None = None
    bertscore_layer: int | None = Field(None, gt=0)
    nli: AnyModelSource | None = None
