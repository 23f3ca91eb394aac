"""Settings: what training starts from, and how a model runs."""

from typing import Annotated, Any, Literal

from pydantic import Field

from pal.core.settings import Section, Source

Tokens = Annotated[int, Field(gt=1, le=2**20)]


class ArchitectureSettings(Section):
    """What training starts from, and how text enters.

    Attributes:
        base: hub id or folder of the pretrained model to start from.
        backbone: family of models, a name in :data:`pal.modeling.backbones.BACKBONES` or
            ``their_package.module:Class``; found by the base's model type when null.
        tokenizer: hub id or folder; ``base`` by default; with ``from_scratch`` and no tokenizer one
            is trained on the training texts.
        vocab_size: entries of a tokenizer trained on the spot.
        from_scratch: sizes of a model with random weights (keys of its configuration, and
            ``model_type`` for another family than usual); the pretrained weights of ``base`` when
            null.
        persona_mode: ``fusion`` (PAL), ``prompt`` (Hard Prompt) or ``none`` (Blenderbot-Joint).
        fusion: ``masked``, ``reference``, an ablation (``no_weights``, ``no_persona_stream``) or
            ``their_package.module:Class``.
        template: how a dialogue becomes text: ``clean``, ``natural``, ``authors`` or
            ``their_package.module:Class``.
        max_context_tokens: encoder tokens of the dialogue, or of the extractor's input.
        max_persona_tokens: encoder tokens of the persona.
        max_target_tokens: target tokens.
    """

    base: Source = "facebook/blenderbot_small-90M"
    backbone: str | None = None
    tokenizer: Source | None = None
    vocab_size: int = Field(8000, gt=300, le=2**22)
    from_scratch: dict[str, Any] | None = None
    persona_mode: Literal["fusion", "prompt", "none"] = "fusion"
    fusion: str = "masked"
    template: str = "clean"
    max_context_tokens: Tokens = Field(512, gt=8)
    max_persona_tokens: Tokens = 160
    max_target_tokens: Tokens = 128
