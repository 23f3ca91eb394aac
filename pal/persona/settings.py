"""Settings: how personas are inferred."""

from typing import Literal

from pydantic import Field

from pal.core.settings import Section


class ExtractionSettings(Section):
    """Persona annotation.

    Attributes:
        extractor: ``bart`` (the trained one, ``model``) or ``llm`` (the one that ``llm`` names).
        start: first annotated seeker turn: ``third_utterance`` of the conversation (the paper's
            Table 1) or the seeker's own third turn, ``third_seeker_turn`` (the released data).
        layout: ``pesconv`` (persona known at every turn) or ``released`` (ESConv.json's form).
        num_beams: beam width (10 in the released code).
        max_new_tokens: longest output.
    """

    extractor: Literal["bart", "llm"] = "bart"
    start: Literal["third_utterance", "third_seeker_turn"] = "third_utterance"
    layout: Literal["pesconv", "released"] = "pesconv"
    num_beams: int = Field(10, gt=0, le=1024)
    max_new_tokens: int = Field(128, gt=0, le=2**20)
