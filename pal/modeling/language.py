"""Decoder-only language models: loaded, built to train, with LoRA adapters, from GGUF files.

A trained one is a folder of the library's own model class, or of LoRA adapters, with a few entries
more in its ``config.json``; other programs load it as they load any.

It is long because bases, GGUF files, adapters and trained folders are read with the same checks.
"""

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pal.core.errors import CheckpointError, ConfigError, PalError, suggest
from pal.core.files import read_json
from pal.data.chat import ChatEncoder, ChatFormat
from pal.data.strategies import ESCONV
from pal.modeling.configuration import is_count, is_number

logger = logging.getLogger(__name__)

TASKS = ("response", "persona_extractor")
LANGUAGE_MODES = ("prompt", "none")
ADAPTERS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"

# Configuration of the model that adapters are for. Under its usual name the library would look for
# weights beside it; without that it loads the adapters' base.
ADAPTED_CONFIG = "pal_config.json"


@dataclass(kw_only=True)
class LanguageEntries:
    """What the configuration of a decoder-only model says of how it was trained here.

    Args:
        pal_task: ``response`` or ``persona_extractor``.
        persona_mode: ``prompt`` (notes on the seeker stand in the text) or ``none``.
        chat_format: what stands around turns, see :class:`pal.data.chat.ChatFormat`.
        max_context_tokens: tokens of a dialogue, at most.
        max_target_tokens: target tokens in training, strategy and end token not counted, at most.
        alpha: contrast weight of each strategy (PAL paper, Table 2).
        strategy_alpha: contrast weight of the strategy step.
        base_gguf_file: the GGUF file that adapters were trained on; None for usual weights.
    """

    pal_task: str
    persona_mode: str = "prompt"
    chat_format: dict[str, str]
    max_context_tokens: int = 1024
    max_target_tokens: int = 128
    alpha: list[float]
    strategy_alpha: float = 0.075
    base_gguf_file: str | None = None

    @classmethod
    def of(cls, config: Any, where: str) -> "LanguageEntries":
        """Return the entries of a configuration.

        Raises:
            CheckpointError: they are missing or say nothing that can be.
        """
        names = [field.name for field in fields(cls)]
        try:
            entries = cls(
                **{name: getattr(config, name) for name in names if hasattr(config, name)}
            )
            ChatFormat(**entries.chat_format)
            wrong = [
                name for name, right in {
                    "pal_task": entries.pal_task in TASKS,
                    "persona_mode": entries.persona_mode in LANGUAGE_MODES,
                    "chat_format": all(isinstance(v, str) for v in entries.chat_format.values()),
                    "max_context_tokens": is_count(entries.max_context_tokens),
                    "max_target_tokens": is_count(entries.max_target_tokens),
                    "alpha": len(entries.alpha) == len(ESCONV)
                    and all(map(is_number, entries.alpha)),
                    "strategy_alpha": is_number(entries.strategy_alpha),
                    "base_gguf_file": isinstance(entries.base_gguf_file, str | None),
                }.items() if not right
            ]  # fmt: skip
        except TypeError as error:
            raise CheckpointError(
                f"{where}: config.json does not say how the model was trained ({error}); give the "
                "folder that training wrote"
            ) from None
        if wrong:
            raise CheckpointError(
                f"{where}: config.json: {', '.join(wrong)} cannot be; give the folder that "
                "training wrote"
            )
        return entries

    def put_into(self, config: Any) -> None:
        """Write the entries into a configuration of the library."""
        for name, value in asdict(self).items():
            setattr(config, name, value)


def check_room(config: Any, prompt: int, key: str, new: int) -> None:
    """Make sure that a model has positions for what it is to write behind the longest prompt.

    Args:
        config: of the model.
        prompt: tokens of the longest prompt.
        key: the setting that says how many are written, for messages.
        new: how many that are.

    Raises:
        ConfigError: it has too few.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and prompt + new > positions:
        raise ConfigError(
            f"{key}={new} behind a dialogue of {prompt} tokens does not fit the model's "
            f"{positions} positions; give {key}={max(positions - prompt, 1)}"
        )


def language_task(config: Any) -> str | None:
    """Return what a decoder-only model was trained for here; None for any other model."""
    return getattr(config, "pal_task", None)


def is_decoder_only(model_type: str) -> bool:
    """Whether the library has a causal language model of this type, and no encoder-decoder."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )

    return (
        model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        and model_type not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    )


# ----------------------------------------------------------------------------- GGUF


def find_gguf_file(base: str, given: str | None) -> str | None:
    """Return the GGUF file of a base: the one given, or the only one in a folder without weights.

    Raises:
        CheckpointError: it is not there, there are several, or the package that reads it is
            missing.
    """
    folder = Path(base)
    name = given
    if name is None and folder.is_dir() and not (folder / "config.json").exists():
        found = sorted(path.name for path in folder.glob("*.gguf"))
        if len(found) > 1:
            raise CheckpointError(
                f"architecture.base={base}: {len(found)} GGUF files are there; give "
                f"architecture.gguf_file={found[0]} or another one"
            )
        name = found[0] if found else None
    if name is None:
        return None
    if folder.is_dir() and not (folder / name).is_file():
        there = [path.name for path in folder.glob("*.gguf")]
        raise CheckpointError(
            f"architecture.gguf_file={name}: not in architecture.base={base}{suggest(name, there)}"
        )
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise CheckpointError(
            f"architecture.base={base}: {name} needs the package gguf; pip install gguf"
        ) from None
    return name


def clear_gguf_marks(model: Any) -> None:
    """Let a model that was read from GGUF be saved: its weights are plain numbers now."""
    for owner, names in (
        (model, ("hf_quantizer", "quantization_method", "is_quantized")),
        (model.config, ("quantization_config", "_is_quantized")),
    ):
        for name in names:
            owner.__dict__.pop(name, None)


# ----------------------------------------------------------------------------- bases


def load_base(base: str, gguf_file: str | None, where: str, *, dtype: str | None = None) -> Any:
    """Load a pretrained decoder-only model, before or after training here.

    Args:
        base: folder or hub id.
        gguf_file: its GGUF file, from :func:`find_gguf_file`.
        where: the setting that named it, for messages.
        dtype: number format of the weights; the stored one by default.

    Raises:
        CheckpointError: it cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from pal.modeling.checkpoint import REACHABLE, read_model_config, read_weights, reason

    if gguf_file is None:
        config = read_model_config(base, where, own=False, remedy=REACHABLE)
        return read_weights(AutoModelForCausalLM, base, config, where, dtype=dtype, own=False)
    with quiet_library():
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(
                base, gguf_file=gguf_file, dtype=getattr(torch, dtype or "float32"),
                trust_remote_code=False,
            )  # fmt: skip
        except Exception as error:  # of damaged files the library raises whatever it stumbles over
            raise CheckpointError(
                f"{where}: {gguf_file} cannot be loaded ({reason(error)}); download it again"
            ) from error
    clear_gguf_marks(model)
    return model


@contextlib.contextmanager
def quiet_library() -> Iterator[None]:
    """Hold back what the library and the terminal show while a GGUF file is read."""
    from transformers.utils import logging as library

    shown = library.is_progress_bar_enabled()
    level = library.get_verbosity()
    library.disable_progress_bar()
    library.set_verbosity_error()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that is not the library's
            yield
    finally:
        library.set_verbosity(level)
        if shown:
            library.enable_progress_bar()


def build_language_model(
    *,
    base: str,
    gguf_file: str | None,
    from_scratch: Mapping[str, Any] | None,
    tokenizer: Any,
    lora: Any = None,
    frozen_layers: int = 0,
) -> Any:
    """Build the model to train: a pretrained one, or random weights; with LoRA where asked for.

    Args:
        base: hub id or folder of the pretrained model.
        gguf_file: its GGUF file.
        from_scratch: sizes of random weights, with ``model_type``; None loads ``base``.
        tokenizer: of the base.
        lora: settings of adapters (:class:`pal.modeling.settings.LoraSettings`); None, or no rank,
            trains all weights.
        frozen_layers: number of first layers that keep their weights, with the embeddings.

    Raises:
        CheckpointError: the base cannot be loaded.
        ConfigError: sizes, LoRA targets or frozen layers that cannot be.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    from pal.modeling.checkpoint import build_of_sizes, check_sizes

    if from_scratch is not None:
        sizes = dict(from_scratch)
        model_type = str(sizes.pop("model_type"))
        check_sizes(sizes, AutoConfig.for_model(model_type))

        def make_config() -> Any:
            return AutoConfig.for_model(
                model_type,
                **{
                    "vocab_size": len(tokenizer),
                    "bos_token_id": tokenizer.bos_token_id,
                    "eos_token_id": tokenizer.eos_token_id,
                    "pad_token_id": tokenizer.pad_token_id,
                    **sizes,
                },
            )  # fmt: skip

        model = build_of_sizes(make_config, AutoModelForCausalLM)
    else:
        model = load_base(base, gguf_file, f"architecture.base={base}")
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise CheckpointError(
            f"architecture.base={base}: its tokenizer has {len(tokenizer)} entries and the model "
            f"{model.get_input_embeddings().num_embeddings}; give the tokenizer of the model"
        )
    check_layers(model, base if from_scratch is None else str(model.config.model_type))
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad_id(tokenizer),
    )  # fmt: skip
    if lora is not None and lora.rank is not None:
        return add_adapters(model, base, lora)
    if frozen_layers:
        freeze_layers(model, frozen_layers)
    return model


def freeze_layers(model: Any, count: int) -> None:
    """Keep the embeddings and the first layers of a model as they are in training.

    Nothing below the first trained layer has a gradient, so that no backward pass reaches it.

    Raises:
        ConfigError: it has no more layers than that, or none that can be told apart.
    """
    from torch.nn import Embedding, ModuleList

    parts, depth = list(model.base_model.modules()), model.config.num_hidden_layers
    layers = next((m for m in parts if isinstance(m, ModuleList) and len(m) == depth), None)
    if layers is None:
        raise ConfigError(
            f"architecture.frozen_layers={count}: the layers of a {model.config.model_type} model "
            "are not found; leave it out"
        )
    if count >= depth:
        raise ConfigError(
            f"architecture.frozen_layers={count}: the model has {depth} layers, and at "
            "least one has to be trained"
        )
    embeddings = [part for part in parts if isinstance(part, Embedding)]
    for part in (*embeddings, model.get_output_embeddings(), *layers[:count]):
        part.requires_grad_(False)


def check_layers(model: Any, name: str) -> None:
    """Make sure that the engine can decode with a model (:mod:`pal.decoding.language`).

    Raises:
        CheckpointError: it takes no position ids, or has layers that do not attend to positions.
    """
    kinds = set(getattr(model.config, "layer_types", None) or ())
    kinds -= {"full_attention", "sliding_attention"}
    if "position_ids" not in inspect.signature(model.forward).parameters:
        kinds.add("no position ids")
    if kinds:
        raise CheckpointError(
            f"architecture.base={name}: a {model.config.model_type} model has "
            f"{', '.join(sorted(kinds))}, and PAL decodes with models that attend by position "
            "ids, such as Llama, Qwen or SmolLM2; give one of those"
        )


def pad_id(tokenizer: Any) -> int:
    """Return what rows are padded with; no loss and no attention ever sees it."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


# ----------------------------------------------------------------------------- LoRA


def add_adapters(model: Any, base: str, lora: Any) -> Any:
    """Return a model of which LoRA adapters alone are trained.

    Raises:
        ConfigError: the package is missing, or the targets match no module.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise ConfigError(
            "architecture.lora needs the package peft; pip install 'pal-esc[lora]'"
        ) from None
    try:
        config = LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout,
            target_modules=lora.targets or "all-linear", task_type="CAUSAL_LM",
        )  # fmt: skip
        # A relative path would hold in this folder alone.
        base = str(Path(base).resolve()) if Path(base).exists() else base
        config.base_model_name_or_path = model.name_or_path = base
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it finds out about layers by itself
            return get_peft_model(model, config)
    except ValueError as error:
        names = sorted({
            name.rsplit(".", 1)[-1] for name, module in model.named_modules()
            if type(module).__name__ in ("Linear", "Conv1D")
        })  # fmt: skip
        raise ConfigError(
            f"architecture.lora.targets={lora.targets}: no such modules in {base} (it has "
            f"{', '.join(names)})"
        ) from error


def is_adapted(model: Any) -> bool:
    """Whether a model is one of adapters on a base."""
    return hasattr(model, "peft_config")


# ----------------------------------------------------------------------------- trained models


def load_language_model(source: str, config: Any, dtype: str = "float32") -> Any:
    """Load a decoder-only model that was trained here, adapters merged, in evaluation mode.

    Args:
        source: folder or hub id.
        config: its configuration, from :func:`pal.modeling.checkpoint.read_model_config`.
        dtype: number format of the weights.

    Raises:
        CheckpointError: weights, adapters or their base cannot be read.
    """
    from transformers import AutoModelForCausalLM

    from pal.modeling.checkpoint import read_weights

    where = f"model={source}"
    entries = LanguageEntries.of(config, where)
    if not (Path(source) / ADAPTER_CONFIG).is_file():
        model = read_weights(AutoModelForCausalLM, source, config, where, dtype=dtype)
        return model.eval()
    model = load_adapters(source, entries, dtype)
    entries.put_into(model.config)
    return model.eval()


def load_adapters(source: str, entries: LanguageEntries, dtype: str = "float32") -> Any:
    """Load the base of a folder of adapters, and merge them into it.

    Raises:
        CheckpointError: a file is missing or does not fit, or the base cannot be read.
    """
    from pal.modeling.checkpoint import (
        REMEDY,
        check_finite,
        check_weight_file,
        read_header,
        reason,
    )

    where, folder = f"model={source}", Path(source)
    try:
        from peft import PeftModel, get_peft_model_state_dict
    except ImportError:
        raise CheckpointError(
            f"{where}: LoRA adapters need the package peft; pip install 'pal-esc[lora]'"
        ) from None
    if not (folder / ADAPTERS).is_file():
        raise CheckpointError(
            f"{where}: {ADAPTERS} is missing; give the folder that training wrote"
        )
    check_weight_file(folder / ADAPTERS, where)
    held = read_header(folder / ADAPTERS, where)
    try:
        base = str(read_json(folder / ADAPTER_CONFIG)["base_model_name_or_path"])
    except (KeyError, TypeError, PalError) as error:
        raise CheckpointError(
            f"{where}: {ADAPTER_CONFIG} names no base; give the folder that training wrote"
        ) from error
    named = f"{where}: the base of its adapters, {base},"
    model = load_base(base, entries.base_gguf_file, named, dtype=dtype)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that the library is to drop
            adapted = PeftModel.from_pretrained(model, source, torch_device="cpu")
            wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
            lost = wanted ^ {n for n in held if n in wanted or "lora_" in n}
            if lost:  # peft passes over them
                raise CheckpointError(
                    f"{where}: {ADAPTERS}: {len(lost)} adapters missing, or of other modules than "
                    f"the base has ({min(lost)}, …); {REMEDY}"
                )
            merged: Any = adapted.merge_and_unload()
    except PalError:
        raise
    except Exception as error:  # of adapters that do not fit peft raises many kinds
        raise CheckpointError(f"{where}: cannot be loaded ({reason(error)})") from error
    check_finite(merged, where, dtype)
    return merged


def make_chat_encoder(tokenizer: Any, config: Any) -> ChatEncoder:
    """Return the text side of a model that was trained here.

    Raises:
        CheckpointError: its configuration or its tokenizer cannot be that model's.
    """
    entries = LanguageEntries.of(config, "config.json")
    return ChatEncoder(
        tokenizer, ChatFormat(**entries.chat_format), persona=entries.persona_mode == "prompt",
        max_context_tokens=entries.max_context_tokens, max_target_tokens=entries.max_target_tokens,
    )  # fmt: skip
