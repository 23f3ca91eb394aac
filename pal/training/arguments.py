"""Transformers' arguments of a run, made from our options and checked before anything is read."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import Seq2SeqTrainingArguments, get_scheduler

from pal.core.errors import ConfigError, suggest
from pal.core.job import runs_on_cpu
from pal.core.tracking import stay_offline_without_key
from pal.training.losses import LOWER_IS_BETTER, metric_names
from pal.training.numbers import NumberFormat, launcher_environment_kept
from pal.training.options import DEFAULTS, FIXED

# What transformers raises for options that cannot be.
REFUSALS = (TypeError, ValueError, KeyError, ImportError, RuntimeError, AttributeError, OSError)


def build_arguments(
    options: Mapping[str, Any],
    output: Path,
    *,
    seed: int,
    numbers: NumberFormat,
    with_strategy: bool,
    patience: int | None = None,
) -> Seq2SeqTrainingArguments:
    """Return transformers' arguments of a run.

    Args:
        options: by transformers' names; they win over the defaults.
        output: folder of the run.
        seed: of the run.
        numbers: what products are computed in.
        with_strategy: whether validation knows the accuracy of strategies.
        patience: of early stopping; None for none.

    Raises:
        ConfigError: options that cannot be, alone or together.
    """
    options = {**DEFAULTS, **options, **FIXED, **numbers.as_options()}
    metric = str(options["metric_for_best_model"]).removeprefix("eval_")
    options["metric_for_best_model"] = metric
    options.setdefault("greater_is_better", metric not in LOWER_IS_BETTER)
    if patience is not None:
        options.setdefault("restore_callback_states_from_checkpoint", True)
    on_cpu = runs_on_cpu()
    options["use_cpu"] = on_cpu
    options.setdefault("dataloader_pin_memory", torch.cuda.is_available() and not on_cpu)
    if "wandb" in str(options["report_to"]):
        stay_offline_without_key()
    known = metric_names(with_strategy)
    if metric not in known:
        raise ConfigError(
            f"training.metric_for_best_model={metric}: no such metric of validation "
            f"(allowed: {', '.join(known)})"
        )
    if patience is not None and str(options["eval_strategy"]) == "no":
        raise ConfigError(
            "early_stopping_patience needs validations, and training.eval_strategy=no has none; "
            "leave one of them out"
        )
    try:
        with launcher_environment_kept(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arguments = Seq2SeqTrainingArguments(
                output_dir=str(output), seed=seed, data_seed=seed, **options
            )
        # A dry run of what else would only fail with the first step.
        one = [torch.nn.Parameter(torch.zeros(1))]
        dummy = torch.optim.SGD(one, lr=arguments.learning_rate)
        specific: Any = arguments.lr_scheduler_kwargs or {}
        get_scheduler(
            arguments.lr_scheduler_type, dummy, arguments.get_warmup_steps(100), 100,
            scheduler_specific_kwargs=dict(specific),
        )  # fmt: skip
    except REFUSALS as error:
        raise refused(error) from error
    if arguments.gradient_checkpointing:
        given: Any = arguments.gradient_checkpointing_kwargs
        check_checkpointing(given)
    return arguments


def check_checkpointing(given: Mapping[str, Any] | None) -> None:
    """Make sure that what is given to torch's checkpointing of activations works.

    Raises:
        ConfigError: it does not.
    """
    names = {"use_reentrant", "preserve_rng_state", "debug", "early_stop", "determinism_check"}
    key = "training.gradient_checkpointing_kwargs"
    for name, value in (given or {}).items():
        if name not in names:
            allowed = ", ".join(sorted(names))
            raise ConfigError(
                f"{key}: unknown entry {name!r}{suggest(name, names)} (allowed: {allowed})"
            )
        if name != "determinism_check" and not isinstance(value, bool):
            raise ConfigError(f"{key}: {name} is true or false, got {value!r:.80}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one: Any = checkpoint(torch.sin, torch.ones(1, requires_grad=True), **(given or {}))
            one.backward()
    except REFUSALS as error:
        raise ConfigError(f"{key}: {' '.join(str(error).split())}") from error


def refused(error: Exception) -> ConfigError:
    """Return an error of transformers' about its options as one of ours."""
    return ConfigError(f"training: {' '.join(str(error).split()) or type(error).__name__}")
