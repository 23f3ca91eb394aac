"""The released MISC code's small model, converted to ours, and what that code computed with it."""

import json

import torch
from safetensors.torch import load_file

from pal.data.misc import CODEBOOK_ORDER
from pal.modeling.authors import convert_checkpoint
from pal.modeling.checkpoint import load_response_model

HOUSE = torch.tensor(CODEBOOK_ORDER)  # released number of a strategy → ours


def load_misc(golden, folder):
    """The model; its config.json is written as a released one is."""
    found = json.loads((golden / "misc/model/config.json").read_text())["config"]
    entries = {name: v for name, v in found.items() if not name.startswith(("mutual", "strat"))}
    config = folder / "config.json"
    config.write_text(json.dumps({**entries, "activation_function": "gelu"}))
    convert_checkpoint(golden / "misc/model/model.safetensors", config, folder / "model")
    return load_response_model(str(folder / "model"))


def load_misc_case(golden, name="case"):
    folder = golden / "misc" / "model"
    return load_file(folder / f"{name}.safetensors"), json.loads(
        (folder / f"{name}.json").read_text()
    )


def inputs_of(tensors):
    names = {"input_ids": "input_ids", "attention_mask": "attention_mask",
             "utterance_blocks": "comet_ids", "situation_blocks": "comet_st_ids"}  # fmt: skip
    return {ours: tensors[f"in.{theirs}"] for ours, theirs in names.items()}


def labels_of(model, tensors):
    """Targets as ours are: the strategy's token first."""
    tokens = torch.tensor(model.config.strategy_token_ids)
    gold = HOUSE[tensors["in.decoder_strategy_ids"][:, 0]]
    return torch.cat([tokens[gold][:, None], tensors["in.decoder_labels"]], dim=1)
