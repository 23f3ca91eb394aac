"""Random weights and random tokens of realistic sizes, the defaults of the benchmarks."""

from typing import Any

import numpy as np
import torch

from pal.data.strategies import STRATEGIES, strategy_token
from pal.data.tokenizer import add_pal_tokens, load_tokenizer, special_token_ids
from pal.modeling.checkpoint import build_response_model, find_backbone
from pal.modeling.settings import ArchitectureSettings

# Tokens of the 14,642 evaluation samples of ESConv (all splits, the 90M tokenizer, at most 512 and
# 160), personas from a small extractor: shares of samples and the length up to which they reach.
SHARES = (0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
DIALOGUE = (7, 7, 25, 45, 107, 175, 252, 328, 406, 472, 494, 504, 508, 512, 512)
PERSONA = (1, 1, 1, 31, 69, 107, 143, 152, 154, 156, 157, 159, 160, 160, 160)
TARGET = (3, 4, 7, 9, 12, 15, 18, 21, 25, 29, 35, 45, 56, 86, 206)  # strategy and end included
PUBLISHED_VOCABULARY = 54_960  # of the 90M tokenizer with PAL's tokens


def build_random(
    chosen: ArchitectureSettings, *, seed: int, dtype: str = "float32", with_tokenizer: bool
) -> tuple[Any, Any]:
    """Return a response model with random weights, in evaluation mode, and its tokenizer if any."""
    tokenizer, sizes = None, chosen.from_scratch or {}
    if with_tokenizer:
        tokenizer = add_pal_tokens(load_tokenizer(chosen.tokenizer or chosen.base))
        vocabulary = len(tokenizer)
        strategies = tokenizer.convert_tokens_to_ids([strategy_token(name) for name in STRATEGIES])
        special = special_token_ids(tokenizer)
        backbone = find_backbone(chosen.base, sizes, chosen.backbone)
        sizes = {**backbone.scratch_entries(tokenizer), **sizes}
    else:
        vocabulary = PUBLISHED_VOCABULARY if chosen.from_scratch is None else chosen.vocab_size
        strategies = list(range(vocabulary - len(STRATEGIES), vocabulary))
        special = [0, 1, 2, *strategies]
    torch.manual_seed(seed)
    model = build_response_model(
        base=chosen.base, from_scratch=sizes, vocab_size=vocabulary, backbone_name=chosen.backbone,
        pal_settings={
            "persona_mode": chosen.persona_mode or "fusion", "fusion": chosen.fusion,
            "template": chosen.template or "clean", "max_context_tokens": chosen.max_context_tokens,
            "max_persona_tokens": chosen.max_persona_tokens,
            "max_target_tokens": chosen.max_target_tokens,
            "strategy_token_ids": strategies, "special_token_ids": special,
        },
    )  # fmt: skip
    return model.to(getattr(torch, dtype)).eval(), tokenizer


def synthetic_rows(config: Any, count: int, seed: int) -> list[dict[str, list[int]]]:
    """Return random tokens of ESConv's lengths: encoder inputs and ``labels``.

    The persona grows with the dialogue, so both lengths follow from one random share; the target
    length is independent.
    """
    draw = np.random.default_rng(seed)
    together, apart = (draw.permutation(np.linspace(0, 1, count)) for _ in range(2))
    lengths = {
        "input_ids": np.interp(together, SHARES, DIALOGUE).clip(max=config.max_context_tokens),
        "persona_input_ids": np.interp(together, SHARES, PERSONA).clip(
            max=config.max_persona_tokens
        ),
        "labels": np.interp(apart, SHARES, TARGET).clip(max=config.max_target_tokens + 1),
    }
    if config.persona_mode != "fusion":
        del lengths["persona_input_ids"]
    return [
        {
            name: draw.integers(4, config.vocab_size, int(values[row])).tolist()
            for name, values in lengths.items()
        }
        for row in range(count)
    ]
