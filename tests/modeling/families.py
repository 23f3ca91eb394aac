"""Small models and tokenizers of every encoder-decoder family, built on the spot."""

import json
from functools import cache

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForSeq2SeqLM, BartTokenizer

from pal.modeling.backbones import BACKBONES
from pal.modeling.checkpoint import build_response_model
from tests.modeling.small import bundled_dialogues

FAIRSEQ = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "dropout": 0.0,
    "max_position_embeddings": 256, "init_std": 0.25,
}  # fmt: skip
# Name of a case → what architecture.from_scratch says of it.
CASES = {
    "bart": {"model_type": "bart", **FAIRSEQ},
    "bart scaled": {"model_type": "bart", **FAIRSEQ, "scale_embedding": True},
}
LIMITS = {"max_context_tokens": 120, "max_persona_tokens": 40, "max_target_tokens": 40}


def texts():
    return [turn["text"] for row in bundled_dialogues() for turn in row["dialog"]]


@cache
def bart_tokenizer():
    return _byte_level(BartTokenizer, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])


def _byte_level(tokenizer_class, special):
    """A byte-level BPE of the bundled corpus, as published ones are made."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    learner.train_from_iterator(texts(), trainer=trainer)
    model = json.loads(learner.to_str())["model"]
    return tokenizer_class(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])


def plain_tokenizer(case):
    """The tokenizer as the family publishes it, without PAL's tokens."""
    return bart_tokenizer()


@cache
def tokenizer_of(case):
    return BACKBONES[CASES[case]["model_type"]].prepare_tokenizer(plain_tokenizer(case))


def build_case(case, **settings):
    """A model of random weights large enough that rows differ, in evaluation mode."""
    torch.manual_seed(11)
    tokenizer, sizes = tokenizer_of(case), CASES[case]
    backbone = BACKBONES[sizes["model_type"]]
    return build_response_model(
        base="", from_scratch={**backbone.scratch_entries(tokenizer), **sizes},
        vocab_size=len(tokenizer),
        pal_settings={**backbone.token_entries(tokenizer), **LIMITS, **settings},
    ).eval()  # fmt: skip


def published(case):
    """The library's own model of the family, random, with its own configuration."""
    torch.manual_seed(12)
    sizes = dict(CASES[case])
    config = AutoConfig.for_model(sizes.pop("model_type"), vocab_size=90, **sizes)
    return AutoModelForSeq2SeqLM.from_config(config)
