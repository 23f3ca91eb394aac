"""The authors' small model, converted to ours, and the tensors their code computed with it."""

import json
from functools import lru_cache
from pathlib import Path

from safetensors.torch import load_file

from pal.modeling.authors import convert_checkpoint
from pal.modeling.checkpoint import load_response_model

INPUTS = ("input_ids", "attention_mask", "persona_input_ids", "persona_attention_mask")


@lru_cache
def load_case(folder: Path, name: str):
    return load_file(folder / f"{name}.safetensors"), json.loads(
        (folder / f"{name}.json").read_text()
    )


def load_model(folder: Path, output: Path):
    convert_checkpoint(folder / "model.safetensors", folder / "config.json", output)
    return load_response_model(str(output))
