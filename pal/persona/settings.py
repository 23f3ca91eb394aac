"""Settings of persona inference."""

from typing import Literal

from pydantic import Field

from pal.core.settings import Section


class PersonaSettings(Section):
    """How personas are inferred from what a seeker has said.

    Attributes:
        start: first seeker turn that gets a persona: third_utterance (from the third utterance of
            the conversation on, as in the paper's Table 1) or third_seeker_turn (from the seeker's
            own third turn on, as in the released data).
        num_beams: beam width of beam search (10 in the released code).
        max_new_tokens: maximum output length, in tokens.
        min_support: minimum share of a sentence's content words in the one utterance so far with
            most of them; sentences below it are dropped. 0 keeps all, as the paper does.
    """

    start: Literal["third_utterance", "third_seeker_turn"] = "third_utterance"
    num_beams: int = Field(10, gt=0, le=1024)
    max_new_tokens: int = Field(128, gt=0, le=2**20)
    min_support: float = Field(0.0, ge=0, le=1)


class ExtractionSettings(PersonaSettings):
    """Persona annotation.

    Attributes:
        extractor: bart (the trained persona extractor in model) or llm (the language model in llm).
        layout: pesconv (the persona known at every turn) or released (the layout of ESConv.json).
    """

    extractor: Literal["bart", "llm"] = "bart"
    layout: Literal["pesconv", "released"] = "pesconv"


class AnnotationSettings(ExtractionSettings):
    """Annotation of dialogues: with personas, or with knowledge for MISC.

    Attributes:
        knowledge: infer commonsense knowledge about the seeker's turns and situations instead of
            personas, by comet (the COMET model in model) or llm (the language model in llm).
        tails: maximum number of inferences per relation.
    """

    knowledge: Literal["comet", "llm"] | None = None
    tails: int = Field(5, gt=0, le=100)
