"""Settings: what training starts from, and how a model runs."""

from typing import Annotated, Any, Literal

from pydantic import Field

from pal.core.settings import Section, Source

Tokens = Annotated[int, Field(gt=1, le=2**20)]


class LoraSettings(Section):
    """Low-rank adapters (LoRA): what is trained in place of a decoder-only model's own weights.

    Attributes:
        rank: of the adapters, which are trained then; all weights are trained when null.
        alpha: their scale, divided by the rank.
        dropout: of their inputs in training.
        targets: modules that get one, by the ends of their names; all linear ones when null.
    """

    rank: Annotated[int, Field(gt=0, le=4096)] | None = None
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: list[str] | None = None


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
        gguf_file: GGUF file of the base; the only one in its folder when null.
        lora: low-rank adapters in place of all weights (decoder-only models).
        persona_mode: ``fusion`` (PAL), ``prompt`` (Hard Prompt; notes in the text of a decoder-only
            model) or ``none`` (Blenderbot-Joint); null takes ``fusion``, and ``prompt`` for
            decoder-only models.
        persona_dropout: share of the training dialogues that a decoder-only model sees without
            notes, so that it knows both branches of the contrast.
        misc_mode: how MISC is computed (``backbone: misc``): ``paper`` as described (the default),
            ``released`` as its code does.
        fusion: ``masked``, ``reference``, an ablation (``no_weights``, ``no_persona_stream``) or
            ``their_package.module:Class``.
        template: how a dialogue becomes text: ``clean``, ``natural``, ``authors`` or
            ``their_package.module:Class``; for decoder-only models ``chat`` (the base's chat
            template) or ``plain``; null takes ``clean``, and ``chat`` for decoder-only models.
        max_context_tokens: encoder tokens of the dialogue, or of the extractor's input.
        max_persona_tokens: encoder tokens of the persona.
        max_target_tokens: target tokens.
    """

    base: Source = "facebook/blenderbot_small-90M"
    backbone: str | None = None
    tokenizer: Source | None = None
    vocab_size: int = Field(8000, gt=300, le=2**22)
    from_scratch: dict[str, Any] | None = None
    gguf_file: str | None = None
    lora: LoraSettings = LoraSettings()
    persona_mode: Literal["fusion", "prompt", "none"] | None = None
    persona_dropout: float = Field(0.5, ge=0, le=1)
    misc_mode: Literal["paper", "released"] | None = None
    fusion: str = "masked"
    template: str | None = None
    max_context_tokens: Tokens = Field(512, gt=8)
    max_persona_tokens: Tokens = 160
    max_target_tokens: Tokens = 128
