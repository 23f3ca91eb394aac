"""Checkpoints of released code, PAL's and MISC's, turned into models of this package."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pal.core.errors import CheckpointError, OutputError
from pal.core.files import new_folder, no_such, parse_json
from pal.core.job import output_lock
from pal.modeling.backbones import get_backbone
from pal.modeling.checkpoint import (
    check_bounds,
    check_weight_file,
    paper_generation_config,
    quiet_when_local,
    reason,
)

# The authors' names of the fusion's parameters, and the order of their three fusion weights
# (H_D, Ĥ_P, Ĥ_D); ours are in the order of the paper's equation 4 (Ĥ_D, Ĥ_P, H_D).
AUTHORS_NORMS = {"persona_norm": "fusion.persona_norm", "context_norm": "fusion.dialogue_norm"}
AUTHORS_WEIGHTS, WEIGHT_ORDER = "persona_context_w", [2, 1, 0]

# A weight that MISC's checkpoints have; what such a model never uses; and its added tokens: eight
# strategies in MISC's own order, nine relations of knowledge, [CLS].
MISC_WEIGHT = "model.encoder.strategy_embedding.weight"
MISC_UNUSED = re.compile(
    r".*(batchNorm_emotion|emotion_head|intensity_head|multi_state_LayerNorm|attn_layer_norm_comet"
    r"|attn_layer_norm_strategy|attn_layer_norm_total|layerNorm_1|decoder\.w[rt]e)\b.*"
)
MISC_ADDED = 18

# Keys under which training scripts wrap a state dict, and what DataParallel puts before its names.
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIX = "module."


def convert_checkpoint(
    state_dict: str | Path, config: str | Path, output: str | Path, tokenizer: Any = None
) -> Path:
    """Turn a checkpoint of released code, PAL's or MISC's, into a model folder.

    PAL's strategy tokens are the last eight of the vocabulary, MISC's stand before its relations
    and [CLS]. The result has ``reference`` fusion, or MISC's mode ``released``, and the ``authors``
    text format, so it computes what it was trained to compute. The folder appears whole or not at
    all.

    Args:
        state_dict: ``.bin``/``.pt`` (read without running code in it) or ``.safetensors``.
        config: the Blenderbot-small ``config.json`` saved with it.
        output: folder to write.
        tokenizer: Blenderbot-small's, saved with the model with the added tokens; without it, the
            folder needs the tokenizer's files added.

    Raises:
        CheckpointError: files missing, or keys that do not match.
        OutputError: the folder exists or cannot be written.
    """
    import torch

    if Path(output).exists() and (not Path(output).is_dir() or any(Path(output).iterdir())):
        raise OutputError(f"{output} exists; choose another output")

    path = Path(state_dict)
    quiet_when_local(str(path.parent))
    base = _read_base(Path(config))
    weights = _read_weights(path)
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {name} holds numbers that are not finite")
    known = MISC_WEIGHT in weights
    if not known and AUTHORS_WEIGHTS not in weights:
        shown = ", ".join(map(str, list(weights)[:3]))
        raise CheckpointError(
            f"{path}: no {AUTHORS_WEIGHTS!r} in it (it begins with {shown or 'nothing'}); not the "
            "authors' PAL model, nor MISC's"
        )
    try:
        model = (_misc_model if known else _pal_model)(weights, base)
    except KeyError as error:
        raise CheckpointError(f"{path}: no {error} in it; not the authors' PAL model") from None
    except Exception as error:  # the library's own checks of the configuration, then torch's
        raise CheckpointError(
            f"{path}: does not fit the model that {config} describes ({reason(error)})"
        ) from error
    model.generation_config = paper_generation_config(model.config)
    folder = Path(output)
    with output_lock(folder), new_folder(folder) as unfinished:
        model.save_pretrained(unfinished)
        if tokenizer is not None:
            get_backbone(model.config.backbone).prepare_tokenizer(tokenizer)
            tokenizer.save_pretrained(unfinished)
    return folder


def _pal_model(weights: dict[str, Any], base: dict[str, Any]) -> Any:
    """Return the PAL model of the authors' weights."""
    from pal.modeling.backbones.blenderbot_small import PalForConditionalGeneration
    from pal.modeling.configuration import PalConfig

    alpha = weights.pop("strategy_alpha").tolist()
    weights["fusion.weights"] = weights.pop(AUTHORS_WEIGHTS).flatten()[WEIGHT_ORDER]
    for theirs, ours in AUTHORS_NORMS.items():
        for part in ("weight", "bias"):
            weights[f"{ours}.{part}"] = weights.pop(f"{theirs}.{part}")
    size = len(weights["model.shared.weight"])
    positions = base["max_position_embeddings"]
    config = PalConfig.from_base(
        {**base, "vocab_size": size},
        fusion="reference",
        template="authors",
        alpha=alpha,
        max_target_tokens=min(50, positions - 2),
        max_context_tokens=positions,
        max_persona_tokens=positions,
        strategy_token_ids=list(range(size - len(alpha), size)),
        special_token_ids=sorted({0, 1, 3, *range(size - len(alpha) - 4, size)}),
    )
    return _fill(PalForConditionalGeneration, config, weights)


def _misc_model(weights: dict[str, Any], base: dict[str, Any]) -> Any:
    """Return the MISC model of released weights, without those that are never used."""
    from pal.data.misc import CODEBOOK_ORDER
    from pal.modeling.backbones.misc import MiscForConditionalGeneration
    from pal.modeling.configuration import MiscConfig

    weights = {name: w for name, w in weights.items() if not MISC_UNUSED.fullmatch(name)}
    size = len(weights["model.shared.weight"])
    added = range(size - MISC_ADDED, size)
    positions = base["max_position_embeddings"]
    config = MiscConfig.from_base(
        {**base, "vocab_size": size},
        misc_mode="released",
        template="authors",
        max_target_tokens=positions - 2,
        max_context_tokens=positions,
        max_persona_tokens=positions,
        strategy_token_ids=[added[CODEBOOK_ORDER.index(one)] for one in range(len(CODEBOOK_ORDER))],
        special_token_ids=sorted({0, 1, 3, *added}),
    )
    return _fill(MiscForConditionalGeneration, config, weights)


def _fill(model_class: Any, config: Any, weights: dict[str, Any]) -> Any:
    """Return a model of a configuration with these weights, tied ones included."""
    shared = weights["model.shared.weight"]
    for name in ("model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"):
        weights[f"{name}.weight"] = shared
    check_bounds(config.to_dict())
    model = model_class(config)
    model.load_state_dict(weights)
    return model


def _read_base(path: Path) -> dict[str, Any]:
    """Read the configuration beside a checkpoint; some scripts put it under ``config``."""
    try:
        base = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: {no_such(path)}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable config.json ({reason(error)})") from error
    base = base.get("config", base) if isinstance(base, dict) else base
    if not isinstance(base, dict) or "max_position_embeddings" not in base:
        raise CheckpointError(f"{path}: not the config.json of a Blenderbot-small model")
    return base


def _read_weights(path: Path) -> dict[str, Any]:
    """Read a state dict, without wrappers around it and prefixes of its names."""
    import torch
    from safetensors.torch import load_file

    if not path.is_file():
        raise CheckpointError(f"{path}: {no_such(path)}")
    check_weight_file(path, str(path.parent))
    try:
        if path.suffix == ".safetensors":
            weights: Any = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # every unreadable file raises its own kind, with its own advice
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({type(error).__name__}): it is damaged, or holds "
            "more than tensors; save its state_dict() alone"
        ) from error
    for name in WRAPPERS:
        if isinstance(weights, Mapping) and isinstance(weights.get(name), Mapping):
            weights = weights[name]
    if not isinstance(weights, Mapping):
        raise CheckpointError(f"{path}: holds a {type(weights).__name__}, not a state dict")
    weights = {str(name).removeprefix(PREFIX): tensor for name, tensor in weights.items()}
    return {name: tensor for name, tensor in weights.items() if isinstance(tensor, torch.Tensor)}
