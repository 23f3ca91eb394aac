"""A small response model with varied output, and samples of the bundled corpus for it."""

import json
import shutil
import tempfile
from dataclasses import replace
from functools import cache

import torch
from safetensors.torch import load_file, save_file
from transformers import initialization as init

from pal.data.batches import Collator
from pal.data.esconv import load_esconv
from pal.data.samples import build_samples
from pal.data.templates import SampleEncoder
from pal.data.tokenizer import (
    add_pal_tokens,
    check_strategy_tokens,
    special_token_ids,
    train_tokenizer,
)
from pal.modeling.backbones.blenderbot_small import PalForConditionalGeneration
from pal.modeling.configuration import PalConfig
from pal.modeling.fusion import CoAttentionFusion
from tests.jobs import ESCONV

VOCABULARY = 30000  # more than the tokenizer has: arg-maxima among many differ between rows


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
    torch.manual_seed(15)
    config = PalConfig(
        vocab_size=VOCABULARY, d_model=48, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=96,
        decoder_ffn_dim=96, dropout=0.0, scale_embedding=True, init_std=0.15,
        strategy_token_ids=check_strategy_tokens(tokenizer),
        special_token_ids=special_token_ids(tokenizer), **settings,
    )  # fmt: skip
    return PalForConditionalGeneration(config).eval()


def with_outside_fusion(model, folder):
    """Copy a trained model into a folder, with a fusion that is no class of the package's."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    path = folder / "config.json"
    entries = {**json.loads(path.read_text()), "fusion": "tests.modeling.small:GatedFusion"}
    path.write_text(json.dumps(entries))
    weights = load_file(folder / "model.safetensors")
    weights["fusion.gate"] = torch.zeros(2)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return entries["fusion"]


@cache
def bundled_dialogues():
    """All dialogues of the bundled corpus."""
    return [row for split in ("train", "validation", "test")
            for row in load_esconv(ESCONV / f"{split}.jsonl")]  # fmt: skip


@cache
def small_tokenizer():
    """A tokenizer trained on the bundled corpus, with the tokens that PAL adds."""
    texts = [turn["text"] for row in bundled_dialogues() for turn in row["dialog"]]
    with tempfile.TemporaryDirectory() as folder:
        return add_pal_tokens(train_tokenizer(texts, 2000, folder))


PERSONAS = ["i am worried about my job.", "i live alone with two dogs.", "i study pharmacy.",
            "my partner left me last winter and i cannot sleep.", "i am 41 years old."]  # fmt: skip


def encode_samples(tokenizer, model, count, seed=5):
    """``count`` random samples of the corpus with invented personas of zero to five sentences."""
    samples = build_samples(bundled_dialogues(), "training")
    assert count <= len(samples)
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
