"""A small response model with varied output, and real samples for it."""

import torch
from transformers import initialization as init

from pal.data.batches import Collator
from pal.data.samples import build_samples
from pal.data.templates import SampleEncoder
from pal.data.tokenizer import (
    add_pal_tokens,
    check_strategy_tokens,
    load_tokenizer,
    special_token_ids,
)
from pal.modeling.configuration import PalConfig
from pal.modeling.fusion import CoAttentionFusion
from pal.modeling.pal import PalForConditionalGeneration


class GatedFusion(CoAttentionFusion):
    """What a user adds: a fusion with a parameter of its own."""

    def __init__(self, d_model):
        super().__init__(d_model)
        self.gate = torch.nn.Parameter(torch.empty(2))
        self.reset_parameters()

    def reset_parameters(self):
        super().reset_parameters()
        if hasattr(self, "gate"):
            init.constant_(self.gate, 5.0)


def build(tokenizer, **settings):
    """A two-layer model with random weights large enough that rows differ."""
    torch.manual_seed(11)
    config = PalConfig(
        vocab_size=len(tokenizer), d_model=48, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=96,
        decoder_ffn_dim=96, dropout=0.0, scale_embedding=True, init_std=0.15,
        strategy_token_ids=check_strategy_tokens(tokenizer),
        special_token_ids=special_token_ids(tokenizer), **settings,
    )  # fmt: skip
    return PalForConditionalGeneration(config).eval()


def load_pal_tokenizer(shared_data):
    return add_pal_tokens(load_tokenizer(shared_data / "blenderbot_small_tokenizer"))


PERSONAS = ["i am worried about my job.", "i live alone with two dogs.", "i study pharmacy.",
            "my partner left me last winter and i cannot sleep.", "i am 41 years old."]  # fmt: skip


def encode_samples(shared_data, tokenizer, model, count, seed=5):
    """``count`` random real samples with invented personas of zero to five sentences."""
    from dataclasses import replace

    from pal.data.esconv import load_esconv

    samples = build_samples(load_esconv(shared_data / "esconv/test.jsonl"), "evaluation")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(samples), generator=generator)[:count].tolist()
    encoder = SampleEncoder.from_config(tokenizer, model.config)
    chosen = [
        replace(samples[index], persona=tuple(PERSONAS[: place % (len(PERSONAS) + 1)]))
        for place, index in enumerate(order)
    ]
    return chosen, [encoder.encode(sample) for sample in chosen]


def collate(model, encoded, *, labels=True):
    if not labels:
        encoded = [{k: v for k, v in e.items() if k != "labels"} for e in encoded]
    config = model.config
    return Collator(
        pad_token_id=config.pad_token_id, decoder_start_token_id=config.decoder_start_token_id
    )(encoded)
