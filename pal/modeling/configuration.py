"""PalConfig: Blenderbot-small's configuration plus how persona enters and how text is written."""

from typing import Any

from transformers import BlenderbotSmallConfig

from pal.data.strategies import PAPER_ALPHA

PERSONA_MODES = ("fusion", "prompt", "none")

# Generation options that Blenderbot-small's published config carries; PAL states its own.
GENERATION_KEYS = (
    "num_beams", "min_length", "max_length", "no_repeat_ngram_size", "length_penalty",
    "forced_eos_token_id", "force_bos_token_to_be_generated",
)  # fmt: skip


class PalConfig(BlenderbotSmallConfig):
    """Configuration of :class:`pal.PalForConditionalGeneration`.

    Args:
        persona_mode: how the model sees the persona: ``fusion`` (PAL), ``prompt`` (Hard Prompt:
            as text before the dialogue) or ``none`` (Blenderbot-Joint).
        fusion: name in :data:`pal.modeling.fusion.FUSIONS`, or ``their_package.module:Class``.
        template: how a dialogue becomes text, a name in :data:`pal.data.templates.TEMPLATES`.
        max_context_tokens: encoder tokens of the dialogue, at most.
        max_persona_tokens: encoder tokens of the persona, at most.
        max_target_tokens: target tokens at most, strategy and end token not counted.
        strategy_token_ids: token ids of the eight strategies, in the order of the strategy set.
        special_token_ids: tokens that no response may contain (strategies included).
        alpha: contrast weight of each strategy (PAL paper, Table 2).
        strategy_alpha: contrast weight of the strategy step; 0.075 in the authors' code.
    """

    model_type = "pal"

    persona_mode: str = "fusion"
    fusion: str = "masked"
    template: str = "clean"
    max_context_tokens: int = 512
    max_persona_tokens: int = 160
    max_target_tokens: int = 128
    strategy_token_ids: list[int] | None = None
    special_token_ids: list[int] | None = None
    alpha: list[float] | tuple[float, ...] = PAPER_ALPHA
    strategy_alpha: float = 0.075
    forced_eos_token_id: int | list[int] | None = None  # Blenderbot-small's own default is 2

    @classmethod
    def from_base(cls, base: dict[str, Any], **settings: Any) -> "PalConfig":
        """Build from a Blenderbot-small configuration, without its generation options."""
        dropped = {*GENERATION_KEYS, "model_type", "architectures", "transformers_version"}
        return cls(**{k: v for k, v in base.items() if k not in dropped} | settings)
