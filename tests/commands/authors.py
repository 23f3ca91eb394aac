"""A checkpoint in the layout of the authors' code, with random weights."""

import json

import torch
from transformers import BlenderbotSmallConfig, BlenderbotSmallForConditionalGeneration

SIZES = {
    "vocab_size": 60, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
    "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "max_position_embeddings": 32, "scale_embedding": True,
}  # fmt: skip


def write_config(path, **other):
    """Write the ``config.json`` that lies beside such a checkpoint."""
    config = BlenderbotSmallConfig(**{**SIZES, **other}).to_dict()
    path.write_text(json.dumps(config))
    return path


def authors_weights():
    """The weights by the authors' names, without copies of the tied ones."""
    torch.manual_seed(4)
    model = BlenderbotSmallForConditionalGeneration(BlenderbotSmallConfig(**SIZES))
    tied = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight",
            "lm_head.weight")  # fmt: skip
    weights = {name: t.clone() for name, t in model.state_dict().items() if name not in tied}
    for name in ("persona_norm", "context_norm"):
        weights[f"{name}.weight"] = torch.rand(16)
        weights[f"{name}.bias"] = torch.rand(16)
    weights["persona_context_w"] = torch.tensor([0.1, 0.2, 0.7])
    weights["strategy_alpha"] = torch.full((8,), 0.5)
    return weights
