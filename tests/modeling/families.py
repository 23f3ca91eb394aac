"""Small models and tokenizers of every encoder-decoder family, built on the spot."""

import json
from functools import cache

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    BartTokenizer,
    BlenderbotTokenizer,
    T5Tokenizer,
)

from pal.modeling.backbones import BACKBONES
from pal.modeling.checkpoint import build_response_model
from tests.modeling.small import bundled_dialogues, small_tokenizer

FAIRSEQ = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "dropout": 0.0,
    "max_position_embeddings": 256, "init_std": 0.25,
}  # fmt: skip
T5 = {
    "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 24,
    "initializer_factor": 0.8,
}  # fmt: skip
# Name of a case → what architecture.from_scratch says of it.
CASES = {
    "bart": {"model_type": "bart", **FAIRSEQ},
    "bart scaled": {"model_type": "bart", **FAIRSEQ, "scale_embedding": True},
    "t5": {"model_type": "t5", **T5},
    "t5 v1.1": {
        "model_type": "t5",
        **T5,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "num_decoder_layers": 3,
    },
    "blenderbot": {
        "model_type": "blenderbot",
        **FAIRSEQ,
        "scale_embedding": True,
        "decoder_layers": 3,
    },
    "bart of words": {"model_type": "bart", **FAIRSEQ},
    "t5 of words": {"model_type": "t5", **T5},
}
LIMITS = {"max_context_tokens": 120, "max_persona_tokens": 40, "max_target_tokens": 40}


def texts():
    return [turn["text"] for row in bundled_dialogues() for turn in row["dialog"]]


def bart_tokenizer():
    return _byte_level(BartTokenizer, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])


def blenderbot_tokenizer():
    return _byte_level(BlenderbotTokenizer, ["<pad>", "<s>", "</s>", "<unk>", "<mask>"])


def t5_tokenizer():
    """A unigram model of the bundled corpus, with T5's hundred marks."""
    learner = Tokenizer(models.Unigram())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=700, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    learner.train_from_iterator([*texts(), *map(chr, range(33, 127))], trainer=trainer)
    vocab = [tuple(entry) for entry in json.loads(learner.to_str())["model"]["vocab"]]
    marks = [(f"<extra_id_{index}>", 0.0) for index in reversed(range(100))]
    return T5Tokenizer(vocab=vocab + marks)


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


@cache
def tokenizer_of(case):
    """A tokenizer as the family publishes them, or one of words, with PAL's tokens."""
    if case.endswith("of words"):
        return small_tokenizer()
    return BACKBONES[CASES[case]["model_type"]].prepare_tokenizer(plain_tokenizer(case))


def plain_tokenizer(case):
    """A tokenizer as the family publishes them."""
    make = {"bart": bart_tokenizer, "blenderbot": blenderbot_tokenizer, "t5": t5_tokenizer}
    return make[CASES[case]["model_type"]]()


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


def published(case, vocab_size=90):
    """The library's own model of the family, random, with its own configuration."""
    torch.manual_seed(12)
    sizes = dict(CASES[case])
    config = AutoConfig.for_model(sizes.pop("model_type"), vocab_size=vocab_size, **sizes)
    model = AutoModelForSeq2SeqLM.from_config(config)
    if case == "t5 v1.1":  # the library ties a new one's head, unlike published ones
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    return model
