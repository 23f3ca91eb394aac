"""Configurations: a backbone's own, plus how persona enters and how text is written."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import BartConfig, BlenderbotConfig, BlenderbotSmallConfig, T5Config

from pal.data.strategies import ESCONV
from pal.modeling.auto import register_model

PERSONA_MODES = ("fusion", "prompt", "none")

# Generation options that published configurations carry; PAL states its own.
GENERATION_KEYS = (
    "num_beams", "min_length", "max_length", "no_repeat_ngram_size", "length_penalty",
    "forced_eos_token_id", "force_bos_token_to_be_generated", "encoder_no_repeat_ngram_size",
)  # fmt: skip


@dataclass(kw_only=True)
class PalEntries:
    """What PAL adds to the configuration of a backbone.

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

    model_type: ClassVar[str]
    backbone: ClassVar[str]  # name in pal.modeling.backbones.BACKBONES, or of an outside class

    persona_mode: str = "fusion"
    fusion: str = "masked"
    template: str = "clean"
    max_context_tokens: int = 512
    max_persona_tokens: int = 160
    max_target_tokens: int = 128
    strategy_token_ids: list[int] | None = None
    special_token_ids: list[int] | None = None
    alpha: list[float] | tuple[float, ...] = tuple(ESCONV.alpha)
    strategy_alpha: float = 0.075

    def __post_init__(self, **kwargs: Any) -> None:
        """Let the library's automatic classes know the model, once there is a configuration."""
        kwargs.pop("backbone", None)  # files may say anything; the class knows
        super().__post_init__(**kwargs)  # type: ignore[misc]
        if ":" in self.backbone:  # files of an outside class name it, or it would not be found
            vars(self)["backbone"] = self.backbone
        register_model(self.backbone)

    @classmethod
    def from_base(cls, base: dict[str, Any], **settings: Any) -> Any:
        """Build from the backbone's own configuration, without its generation options."""
        dropped = {*GENERATION_KEYS, "model_type", "architectures", "transformers_version"}
        return cls(**{k: v for k, v in base.items() if k not in dropped} | settings)

    def mistakes(self) -> list[str]:
        """Return what of these entries no model can have; files may say anything."""
        found = []
        if self.persona_mode not in PERSONA_MODES:
            found.append(
                f"persona_mode={self.persona_mode!r} is none of {', '.join(PERSONA_MODES)}"
            )
        for name in ("fusion", "template"):
            if not isinstance(getattr(self, name), str):
                found.append(f"{name} is not a name")
        limits: Any = self
        positions = getattr(limits, "max_position_embeddings", None)
        for name in ("max_context_tokens", "max_persona_tokens", "max_target_tokens"):
            value = getattr(self, name)
            if not is_count(value) or (positions is not None and value > positions):
                found.append(f"{name}={value!r} is not a number of tokens that fits the model")
        for name in ("strategy_token_ids", "special_token_ids"):
            ids = getattr(self, name)
            if not isinstance(ids, list) or not all(
                is_count(token, 0) and token < limits.vocab_size for token in ids
            ):
                found.append(f"{name} are not tokens of the model")
        for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id"):
            token = getattr(self, name)
            if not is_count(token, 0) or token >= limits.vocab_size:
                found.append(f"{name}={token!r} is not a token of the model")
        weights = self.alpha if isinstance(self.alpha, list | tuple) else ()
        if len(weights) != len(ESCONV) or not all(map(is_number, weights)):
            found.append(f"alpha are not {len(ESCONV)} numbers")
        if not is_number(self.strategy_alpha):
            found.append("strategy_alpha is not a number")
        return found


def is_count(value: Any, least: int = 1) -> bool:
    """Return whether a value is a whole number of at least so much."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class PalConfig(PalEntries, BlenderbotSmallConfig):
    """Configuration of :class:`pal.PalForConditionalGeneration`; see :class:`PalEntries`."""

    model_type = "pal"
    backbone = "blenderbot-small"

    forced_eos_token_id: int | list[int] | None = None  # Blenderbot-small's own default is 2


class PalBartConfig(PalEntries, BartConfig):
    """Configuration of PAL's response model on BART; see :class:`PalEntries`."""

    model_type = "pal-bart"
    backbone = "bart"

    forced_eos_token_id: int | list[int] | None = None


class PalT5Config(PalEntries, T5Config):
    """Configuration of PAL's response model on T5; see :class:`PalEntries`.

    Its positions are relative: only ``max_context_tokens`` and the like bound its inputs.

    Args:
        own_head: whether logits are projected by other weights than the embeddings, as in v1.1 and
            Flan-T5. The library finds out from the weights and says ``tie_word_embeddings: true``
            of all, which ties encoder and decoder.
    """

    model_type = "pal-t5"
    backbone = "t5"

    bos_token_id: int | None = None
    decoder_start_token_id: int | None = 0
    own_head: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Keep what sizes say of the head, which the library turns into how states are scaled."""
        self.own_head = self.own_head or kwargs.get("tie_word_embeddings") is False
        super().__post_init__(**kwargs)


class PalBlenderbotConfig(PalEntries, BlenderbotConfig):
    """Configuration of PAL's response model on Blenderbot; see :class:`PalEntries`."""

    model_type = "pal-blenderbot"
    backbone = "blenderbot"

    forced_eos_token_id: int | list[int] | None = None
    encoder_no_repeat_ngram_size: int = 0


MISC_MODES = ("paper", "released")


class MiscConfig(PalEntries, BlenderbotSmallConfig):
    """Configuration of MISC (Tu et al., 2022) on Blenderbot-small; see :class:`PalEntries`.

    Args:
        misc_mode: ``paper`` computes what the paper describes, ``released`` what its code does.
        with_knowledge: whether there are streams of knowledge; False is an ablation.
        utterance_blocks: blocks of knowledge on the last seeker turn, at most.
        situation_blocks: blocks of knowledge on the situation, at most.
        block_tokens: tokens of a block, at most.
    """

    model_type = "pal-misc"
    backbone = "misc"

    forced_eos_token_id: int | list[int] | None = None
    persona_mode: str = "none"
    misc_mode: str = "paper"
    with_knowledge: bool = True
    utterance_blocks: int = 30
    situation_blocks: int = 20
    block_tokens: int = 10

    def mistakes(self) -> list[str]:
        """Return what of these entries no model can have; files may say anything."""
        found = super().mistakes()
        if self.persona_mode != "none":
            found.append(f"persona_mode={self.persona_mode!r}, and MISC sees no persona")
        if self.misc_mode not in MISC_MODES:
            found.append(f"misc_mode={self.misc_mode!r} is none of {', '.join(MISC_MODES)}")
        if not isinstance(self.with_knowledge, bool):
            found.append("with_knowledge is neither true nor false")
        for name in ("utterance_blocks", "situation_blocks", "block_tokens"):
            value = getattr(self, name)
            if not is_count(value) or value > 1024:
                found.append(f"{name}={value!r} is not a number of blocks or tokens")
        return found


# Those of all backbones, by which a model folder is recognised.
CONFIGURATIONS: tuple[type[PalEntries], ...] = (
    PalConfig, PalBartConfig, PalT5Config, PalBlenderbotConfig, MiscConfig,
)  # fmt: skip
