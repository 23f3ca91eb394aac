"""The options of training: transformers' own, which of them have no effect here, and defaults."""

import dataclasses
import math
from collections.abc import Mapping
from functools import cache
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from pal.core.errors import in_words, suggest

# Where they differ from transformers' own; a YAML's ``training`` block wins over them.
DEFAULTS: dict[str, Any] = {
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "load_best_model_at_end": True,
    "metric_for_best_model": "nll",
    "logging_steps": 50,
    "disable_tqdm": False,  # transformers has no bar where its own messages are off
    "report_to": "none",
    "train_sampling_strategy": "group_by_length",
}

# What the rest of this package relies on.
FIXED: dict[str, Any] = {"remove_unused_columns": False, "label_names": ["labels"]}

# Orders of samples that a resumed run sees again.
SAMPLING = ("group_by_length", "random", "sequential")

UPLOAD = (
    "training uploads nothing, and no file keeps a token; leave it out and upload the finished "
    "folder with `hf upload`"
)
RELIED_ON = "the loss, the batches and the metrics of training rely on it; leave it out"

# Options that cannot be given, and what to do instead.
RESERVED = {
    "output_dir": "give the top-level setting 'output_dir' instead",
    "seed": "give the top-level setting 'seed' instead",
    "data_seed": "give the top-level setting 'seed' instead",
    "resume_from_checkpoint": "a run resumes automatically; leave it out",
    "ignore_data_skip": "a resumed run sees the same batches as a plain one; leave it out",
    "predict_with_generate": "validation computes losses only; leave it out and use `pal generate`",
    "label_smoothing_factor": "the loss is the paper's equation 5, without smoothing; leave it out",
    "neftune_noise_alpha": "noise on embeddings (NEFTune) does not work with these models; leave "
    "it out",
    "push_to_hub": UPLOAD,
    "hub_model_id": UPLOAD,
    "hub_token": UPLOAD,
    "hub_strategy": UPLOAD,
    "hub_private_repo": UPLOAD,
    "hub_always_push": UPLOAD,
    "hub_revision": UPLOAD,
    "remove_unused_columns": RELIED_ON,
    "label_names": RELIED_ON,
    "length_column_name": RELIED_ON,
    "batch_eval_metrics": RELIED_ON,
    "prediction_loss_only": RELIED_ON,
    "auto_find_batch_size": RELIED_ON,
    "dataloader_drop_last": "validation would leave samples out too; leave it out",
    "ddp_backend": "accelerate chooses how processes communicate on the device; leave it out",
    "average_tokens_across_devices": RELIED_ON,
    "accelerator_config": "pal distributes the samples of an update over the processes itself; "
    "leave it out",
    "dataloader_in_order": "the order of batches is part of a run's identity; leave it out",
    "use_cpu": "set ACCELERATE_USE_CPU=true in the environment instead",
    "local_rank": "launchers set it in the environment; leave it out",
    "debug": "it does not work with these models; leave it out",
    "use_liger_kernel": "it has no kernels for these models; leave it out",
    "liger_kernel_config": "it has no kernels for these models; leave it out",
}

# The smallest values that mean something, where transformers takes any.
AT_LEAST = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "dataloader_num_workers": 0,
    "max_grad_norm": 0,
    "weight_decay": 0,
    "learning_rate": 0,
}
ABOVE_ZERO = ("num_train_epochs", "logging_steps", "eval_steps", "save_steps", "max_steps")


@cache
def option_types() -> dict[str, Any]:
    """Return the type of every option of transformers' training arguments, by name."""
    from transformers import Seq2SeqTrainingArguments

    hints = get_type_hints(Seq2SeqTrainingArguments)
    return {f.name: hints[f.name] for f in dataclasses.fields(Seq2SeqTrainingArguments) if f.init}


def option_names() -> list[str]:
    """Return the names of the options that a ``training`` block may hold."""
    return [name for name in option_types() if name not in RESERVED]


def check_options(training: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return options with numbers in place of quoted ones, and what is wrong with them.

    Args:
        training: the ``training`` block.
    """
    types, checked, mistakes = option_types(), dict(training), []
    for key, value in training.items():
        if key in RESERVED:
            mistakes.append(f"training.{key}: {RESERVED[key]}")
            continue
        if key not in types:
            hint = suggest(key, option_names()).replace("mean '", "mean 'training.")
            mistakes.append(f"unknown key 'training.{key}'{hint}")
            continue
        if key == "train_sampling_strategy" and value not in SAMPLING:
            allowed = ", ".join(SAMPLING)
            mistakes.append(f"training.{key}: expected one of {allowed}, got {value!r}")
            continue
        given, value = value, "no" if value is False and "strategy" in key else value
        try:
            # truth is no number, though Python counts with it
            valid = TypeAdapter(types[key]).validate_python(
                value, strict=True if isinstance(value, bool) else None
            )
        except ValidationError as error:
            message = in_words(error.errors()[0])
            mistakes.append(f"training.{key}: {message}, got {given!r:.80}")
            continue
        except PydanticSchemaGenerationError:
            continue  # a type only transformers itself can judge
        if isinstance(valid, float) and not math.isfinite(valid):
            mistakes.append(f"training.{key}: expected a finite number, got {given!r:.80}")
        elif isinstance(value, str):
            checked[key] = valid
        expected = _bound(key, valid)
        if expected:
            mistakes.append(f"training.{key}: expected {expected}, got {given!r}")
    return checked, mistakes


def _bound(key: str, value: Any) -> str:
    """Return in words the bound that a value does not keep, or an empty string."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return ""
    if key in AT_LEAST and not value >= AT_LEAST[key]:
        return f"at least {AT_LEAST[key]}"
    if key in ABOVE_ZERO and not value > 0 and not (key == "max_steps" and value == -1):
        return "a number above 0" + (", or -1 for all epochs" if key == "max_steps" else "")
    return ""
