"""Settings: what training starts from, and how a model runs."""

from typing import Annotated, Any, Literal

from pydantic import Field

from pal.core.settings import AnyModelSource, Section, Source

Tokens = Annotated[int, Field(gt=1, le=2**20)]


class LoraSettings(Section):
    """Low-rank adapters (LoRA): what is trained in place of a decoder-only model's own weights.

    Attributes:
        rank: rank of the LoRA adapters; null trains all weights instead.
        alpha: scale of the adapters, which is divided by the rank.
        dropout: dropout on the adapters' inputs during training.
        targets: modules that get an adapter, by the end of their names; all linear modules when
            null.
    """

    rank: Annotated[int, Field(gt=0, le=4096)] | None = None
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: list[str] | None = None


class ArchitectureSettings(Section):
    """What training starts from, and how text enters.

    Attributes:
        base: hub id or folder of the pretrained model to start from.
        backbone: model family: a name in pal.modeling.backbones.BACKBONES or
            their_package.module:Class; null recognises it by the base's model type.
        tokenizer: hub id or folder of the tokenizer; null takes the tokenizer of base. With
            from_scratch, null trains one on the training texts.
        vocab_size: vocabulary size of a tokenizer trained on the training texts.
        from_scratch: sizes of a model with random initial weights: keys of its configuration, and
            model_type for a family other than the default. Null starts from the pretrained weights
            of base.
        gguf_file: GGUF file in the folder of base; null takes the only one there.
        lora: low-rank adapters in place of all weights (decoder-only models).
        frozen_layers: number of a decoder-only model's first layers that keep their weights in
            training, as do its embeddings; a step then takes less time and memory. 0 trains all.
        persona_mode: fusion (PAL), prompt (Hard Prompt; for a decoder-only model, persona notes in
            the text) or none (Blenderbot-Joint). Null means prompt for decoder-only models and
            fusion for all others.
        persona_dropout: share of the training dialogues that a decoder-only model sees without
            persona notes, so that it learns both branches of the contrast.
        misc_mode: how MISC (backbone: misc) is computed: paper (as described there; the default) or
            released (as in the released code).
        fusion: ``masked``, ``reference``, an ablation (``no_weights``, ``no_persona_stream``) or
            ``their_package.module:Class``.
        template: how a dialogue is written as text: clean, natural, authors or
            their_package.module:Class; for decoder-only models chat (the base's chat template) or
            plain. Null means chat for decoder-only models and clean for all others.
        max_context_tokens: maximum number of encoder tokens for the dialogue, or for the persona
            extractor's input.
        max_persona_tokens: maximum number of encoder tokens for the persona.
        max_target_tokens: maximum number of target tokens.
    """

    base: Source = "facebook/blenderbot_small-90M"
    backbone: str | None = None
    tokenizer: AnyModelSource | None = None
    vocab_size: int = Field(8000, gt=300, le=2**22)
    from_scratch: dict[str, Any] | None = None
    gguf_file: str | None = None
    lora: LoraSettings = LoraSettings()
    frozen_layers: int = Field(0, ge=0)
    persona_mode: Literal["fusion", "prompt", "none"] | None = None
    persona_dropout: float = Field(0.5, ge=0, le=1)
    misc_mode: Literal["paper", "released"] | None = None
    fusion: str = "masked"
    template: str | None = None
    max_context_tokens: Tokens = Field(512, gt=8)
    max_persona_tokens: Tokens = 160
    max_target_tokens: Tokens = 128
