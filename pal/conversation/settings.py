"""Settings of the commands that talk with people."""

from typing import Literal

from pal.core.settings import CommandSettings, ExtractorSource, ModelSource, Seed
from pal.decoding.settings import DecodingSettings
from pal.guard.settings import GuardSettings
from pal.persona.settings import PersonaSettings


class TalkSettings(CommandSettings):
    """A command that talks with people through a trained response model.

    Attributes:
        model: folder or hub id of the trained response model.
        extractor: folder or hub id of a persona extractor. With one, the persona is inferred turn
            by turn, as in PESConv.
        dtype: number format of the weights.
        seed: random seed of token sampling.
        trusted_code: classes from outside the package that the model's configuration may name,
            their_package.module:Class.
    """

    model: ModelSource | None = None
    extractor: ExtractorSource | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    seed: Seed = 42
    decoding: DecodingSettings = DecodingSettings()
    annotate: PersonaSettings = PersonaSettings()
    guard: GuardSettings = GuardSettings()
    trusted_code: list[str] = []
