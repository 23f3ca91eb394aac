"""Models in and out of files: building, loading, and moving over from the authors' code."""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pal.core.errors import CheckpointError, ConfigError, OutputError, first_line, suggest
from pal.modeling.configuration import PalConfig


def model_fingerprint(model: Any) -> str:
    """Return a hash of a model's configuration-independent content: names, shapes, weights."""
    import torch

    digest = hashlib.blake2b(digest_size=12)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def quiet_when_local(source: str) -> None:
    """Keep the library's progress bars for downloads; a local folder loads in an instant."""
    from transformers.utils.logging import disable_progress_bar, enable_progress_bar

    disable_progress_bar() if Path(source).is_dir() else enable_progress_bar()


def load_response_model(source: str, dtype: str = "float32") -> Any:
    """Load a trained response model in evaluation mode.

    Raises:
        CheckpointError: nothing there, another kind of model, or weights missing from the file.
    """
    import torch
    from transformers import AutoConfig

    from pal.modeling.pal import PalForConditionalGeneration

    quiet_when_local(source)
    remedy = "give the folder that training wrote, or one of its checkpoints"
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"model={source}: no model there ({first_line(error)}); {remedy}"
        ) from error
    if not isinstance(config, PalConfig):
        raise CheckpointError(
            f"model={source}: a {config.model_type} model, not a PAL response model; {remedy}"
        )
    try:
        loaded: Any = PalForConditionalGeneration.from_pretrained(
            source, config=config, dtype=getattr(torch, dtype), output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"model={source}: cannot be loaded ({first_line(error)})") from error
    model, info = loaded
    check_complete(source, info)
    return model.eval()


def check_complete(source: str, info: dict[str, Any]) -> None:
    """Make sure that a checkpoint held every weight of its model.

    Raises:
        CheckpointError: weights are missing or have another shape.
    """
    wrong = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if wrong:
        raise CheckpointError(
            f"model={source}: {len(wrong)} weights missing or misshapen ({wrong[0]}, …); give the "
            "folder that training wrote, or one of its checkpoints"
        )


def check_sizes(sizes: dict[str, Any], config: Any) -> None:
    """Make sure that sizes of a model from scratch are keys of its configuration.

    Raises:
        ConfigError: an unknown key, with the closest known one.
    """
    known = config.to_dict()
    for key in sizes:
        if key not in known:
            hint = suggest(key, known)
            raise ConfigError(f"architecture.from_scratch: unknown size {key!r}{hint}")


def build_response_model(
    *,
    base: str,
    from_scratch: dict[str, Any] | None,
    vocab_size: int,
    pal_settings: dict[str, Any],
) -> Any:
    """Build the model to train: a pretrained Blenderbot-small, or random weights.

    Args:
        base: hub id or folder of the pretrained model.
        from_scratch: sizes that differ from the 90M configuration, for random weights; None
            loads ``base``.
        vocab_size: entries of the tokenizer, added tokens included.
        pal_settings: PAL's own entries of the configuration.

    Raises:
        CheckpointError: the base cannot be loaded or is another kind of model.
        ConfigError: unknown sizes.
    """
    from transformers import AutoConfig, GenerationConfig

    from pal.modeling.pal import PalForConditionalGeneration

    if from_scratch is not None:
        check_sizes(from_scratch, PalConfig())
        sizes = {"scale_embedding": True, **scaled_init(from_scratch), **from_scratch}
        sizes["vocab_size"] = vocab_size
        model = PalForConditionalGeneration(PalConfig(**sizes, **pal_settings))
    else:
        try:
            config = AutoConfig.from_pretrained(base)
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"architecture.base={base}: no model there ({first_line(error)}); give a folder "
                "or a hub id that can be reached"
            ) from error
        if config.model_type not in ("blenderbot-small", "pal"):
            raise CheckpointError(
                f"architecture.base={base}: a {config.model_type} model; PAL builds on "
                "Blenderbot-small (facebook/blenderbot_small-90M)"
            )
        config = PalConfig.from_base(config.to_dict(), **pal_settings)
        try:
            loaded: Any = PalForConditionalGeneration.from_pretrained(
                base, config=config, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(
                f"architecture.base={base}: cannot be loaded ({first_line(error)})"
            ) from error
        model, info = loaded
        missing = [key for key in info["missing_keys"] if not key.startswith("fusion.")]
        if missing:
            raise CheckpointError(
                f"architecture.base={base}: {len(missing)} weights missing ({missing[0]}, …)"
            )
        if vocab_size != config.vocab_size:
            model.resize_token_embeddings(vocab_size)
    model.generation_config = paper_generation_config(model.config, GenerationConfig)
    return model


def scaled_init(sizes: dict[str, Any]) -> dict[str, float]:
    """Initial weights of standard deviation 1/√d for a model that starts from nothing.

    With the usual 0.02, attention and layers of a narrow model start so weak that the encoder's
    states collapse to one vector within an epoch (standard deviation over inputs 0.03 against 0.71
    for the small extractor) and the decoder learns to ignore its input.
    """
    return {"init_std": float(sizes.get("d_model", 512)) ** -0.5}


def paper_generation_config(config: PalConfig, factory: Any) -> Any:
    """The paper's sampling settings (section 4.3) as a model's own generation options."""
    return factory(
        do_sample=True, temperature=0.5, top_k=10, top_p=0.9, repetition_penalty=1.03,
        min_new_tokens=10, max_new_tokens=50,
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id, decoder_start_token_id=config.decoder_start_token_id,
    )  # fmt: skip


# The authors' names of the fusion's parameters, and the order of their three fusion weights
# (H_D, Ĥ_P, Ĥ_D); ours are in the order of the paper's equation 4 (Ĥ_D, Ĥ_P, H_D).
_AUTHORS_NORMS = {"persona_norm": "fusion.persona_norm", "context_norm": "fusion.dialogue_norm"}
_AUTHORS_WEIGHTS, _WEIGHT_ORDER = "persona_context_w", [2, 1, 0]


def convert_checkpoint(state_dict: str | Path, config: str | Path, output: str | Path) -> Path:
    """Turn a checkpoint of the authors' code into a PAL model folder.

    Their strategy tokens are the last eight of the vocabulary. The result has ``reference``
    fusion and the ``authors`` text format, so it computes what it was trained to compute.

    Args:
        state_dict: ``.bin``/``.pt`` (read without running code in it) or ``.safetensors``.
        config: the Blenderbot-small ``config.json`` saved with it.
        output: folder to write, model only; put the tokenizer beside it.

    Raises:
        CheckpointError: files missing, or keys that do not match.
        OutputError: the folder exists.
    """
    import torch
    from safetensors.torch import load_file
    from transformers import GenerationConfig

    if Path(output).exists() and any(Path(output).iterdir()):
        raise OutputError(f"{output} exists; choose another output")

    from pal.modeling.pal import PalForConditionalGeneration

    path = Path(state_dict)
    try:
        base = json.loads(Path(config).read_text(encoding="utf-8"))
        if path.suffix == ".safetensors":
            weights = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{error.filename}: no such file; check the path") from None
    except Exception as error:  # every unreadable pickle or JSON raises its own kind
        raise CheckpointError(
            f"{path}: not a readable checkpoint with {config} ({first_line(error)})"
        ) from error
    base = base.get("config", base)
    if _AUTHORS_WEIGHTS not in weights:
        raise CheckpointError(f"{path}: no {_AUTHORS_WEIGHTS!r} in it; not the authors' PAL model")
    weights = dict(weights)
    try:
        alpha = weights.pop("strategy_alpha").tolist()
        weights["fusion.weights"] = weights.pop(_AUTHORS_WEIGHTS).flatten()[_WEIGHT_ORDER]
        for theirs, ours in _AUTHORS_NORMS.items():
            for part in ("weight", "bias"):
                weights[f"{ours}.{part}"] = weights.pop(f"{theirs}.{part}")
        shared = weights["model.shared.weight"]
    except KeyError as error:
        raise CheckpointError(f"{path}: no {error} in it; not the authors' PAL model") from None
    for name in ("model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"):
        weights[f"{name}.weight"] = shared

    size = len(shared)
    strategies = list(range(size - len(alpha), size))
    pal_config = PalConfig.from_base(
        {**base, "vocab_size": size},
        fusion="reference",
        template="authors",
        alpha=alpha,
        max_target_tokens=50,
        max_context_tokens=base["max_position_embeddings"],
        max_persona_tokens=base["max_position_embeddings"],
        strategy_token_ids=strategies,
        special_token_ids=sorted({0, 1, 3, *range(size - len(alpha) - 4, size)}),
    )
    model = PalForConditionalGeneration(pal_config)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: keys do not match; {first_line(error)}") from error
    model.generation_config = paper_generation_config(pal_config, GenerationConfig)
    model.save_pretrained(output)
    return Path(output)
