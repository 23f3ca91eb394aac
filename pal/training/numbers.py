"""The number format that training multiplies in, and what else a launcher asks for.

Weights and their sums are float32 always. Products are in the format that the settings name
(``training.bf16``, ``training.fp16``), else the one that ``accelerate launch`` was asked for, else
the one that is faster on this machine. The choice is part of a run's identity and record.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from pal.core.errors import ConfigError

BF16_WIDTH = 384  # measured, see prefers_bf16

# Asks that one process alone reads the weights. Here all do: a run's identity holds them.
RAM_EFFICIENT = "FSDP_CPU_RAM_EFFICIENT_LOADING"

# What launchers ask for that cannot change a result: devices, messages, and what is handled here.
INERT_VARIABLES = re.compile(
    r"ACCELERATE_(USE_CPU|TORCH_DEVICE|CPU_AFFINITY|DEBUG_.*|LOG_LEVEL|ENABLE_RICH|CONFIG_.*"
    r"|BYPASS_DEVICE_MAP|MIXED_PRECISION)|" + RAM_EFFICIENT
)
LAUNCHER_VARIABLES = re.compile(r"(ACCELERATE|FSDP|PARALLELISM_CONFIG)_\w+")
UNASKED = ("", "no", "false", "0", "none", "default")


@dataclass(frozen=True)
class NumberFormat:
    """What products are computed in.

    Attributes:
        name: of the format.
        chosen_by: who says so.
    """

    name: Literal["float32", "bfloat16", "float16"]
    chosen_by: Literal["settings", "launcher", "machine"]

    def as_options(self) -> dict[str, bool]:
        """Return the options of transformers that stand for it."""
        return {"bf16": self.name == "bfloat16", "fp16": self.name == "float16"}


def asked_format(training: Mapping[str, Any], device: Any) -> NumberFormat | None:
    """Return the number format that settings or launcher ask for; None leaves it to the machine.

    Raises:
        ConfigError: a format that this device or this package does not train in.
    """
    if training.get("fp16") or training.get("bf16"):
        if training.get("fp16") and training.get("bf16"):
            raise ConfigError("training.fp16 and training.bf16 exclude each other; give one")
        found = NumberFormat("float16" if training.get("fp16") else "bfloat16", "settings")
        what = "training.fp16=true"
    elif "fp16" in training or "bf16" in training:
        return NumberFormat("float32", "settings")
    else:
        wanted = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
        if wanted in UNASKED:
            return None
        formats: dict[str, Any] = {"bf16": "bfloat16", "fp16": "float16"}
        if wanted not in formats:
            raise ConfigError(
                f"ACCELERATE_MIXED_PRECISION={wanted}: expected no, bf16 or fp16; start it with "
                "`accelerate launch --mixed_precision no`, or unset the variable"
            )
        found = NumberFormat(formats[wanted], "launcher")
        what = "ACCELERATE_MIXED_PRECISION=fp16"
    if found.name == "float16" and device.type == "cpu":
        raise ConfigError(
            f"{what}: a CPU does not train in fp16; give training.bf16=true, or leave it out"
        )
    return found


def prefers_bf16(device: Any, width: int) -> bool:
    """Return whether training on a CPU is faster in bf16 (weights and their sums stay float32).

    So where the CPU multiplies bf16 itself, unless the model is so narrow that casting costs more
    than it saves. A rule, not a measurement of the moment, so that a run can be repeated.

    Args:
        device: where training runs; on a GPU the user says (``training.bf16``).
        width: of the model, d.
    """
    import torch

    able: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return (
        device.type == "cpu"
        and width >= BF16_WIDTH
        and bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    )


def devices_per_process(state: Any) -> int:
    """Return how many devices share the steps of one process; transformers takes all GPUs it sees.

    Args:
        state: accelerate's process state.
    """
    import torch

    alone = state.num_processes == 1 and state.device.type == "cuda"
    return max(1, torch.cuda.device_count()) if alone else 1


def launcher_choices() -> dict[str, str]:
    """Return what a launcher asks for in the environment that can change a result.

    Example:
        >>> launcher_choices()  # after `accelerate launch --dynamo_backend inductor`
        {'ACCELERATE_DYNAMO_BACKEND': 'INDUCTOR'}
    """
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if LAUNCHER_VARIABLES.fullmatch(name)
        and not INERT_VARIABLES.fullmatch(name)
        and value.lower() not in UNASKED
    }


def refuse_unusable_launcher(on_cpu: bool) -> None:
    """Refuse what a launcher asks for and would get without a word, or not at all.

    Args:
        on_cpu: whether training runs on a CPU.

    Raises:
        ConfigError: a way of sharing a model out that this package, this machine or a CPU does not
            have.
    """
    choices = launcher_choices()
    for way in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"):
        if f"ACCELERATE_USE_{way}" not in choices:
            continue
        if way == "DEEPSPEED" and find_spec("deepspeed") is None:
            raise ConfigError(
                "ACCELERATE_USE_DEEPSPEED asks for DeepSpeed, which is not installed: `pip install "
                "deepspeed`, or share the model out by --config_file configs/accelerate/fsdp2.yaml"
            )
        if on_cpu or way == "MEGATRON_LM":
            where = "on CPU processes" if on_cpu else "here"
            raise ConfigError(
                f"ACCELERATE_USE_{way} asks for a model shared out over processes, which does not "
                f"work {where}; unset it (--config_file configs/accelerate/ddp.yaml, or torchrun, "
                "gives every process a whole model)"
            )
    for kind in ("TP", "CP", "SP"):
        size = choices.get(f"PARALLELISM_CONFIG_{kind}_SIZE", "1")
        if size != "1":
            raise ConfigError(
                f"PARALLELISM_CONFIG_{kind}_SIZE={size} asks for processes that share the samples "
                "of a batch; here every process has its own: leave it out (DDP, FSDP and DeepSpeed "
                "share out an update's samples, and the last two the model)"
            )


@contextmanager
def launcher_environment_kept() -> Iterator[None]:
    """Take from libraries what is decided here, and put all back in the end.

    That is the number format, and that every process reads the weights. Libraries leave variables
    of their own behind, which would reach the next training in this process.
    """
    kept = {k: v for k, v in os.environ.items() if LAUNCHER_VARIABLES.fullmatch(k)}
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)
    if RAM_EFFICIENT in kept:
        os.environ[RAM_EFFICIENT] = "false"
    try:
        yield
    finally:
        for name in [k for k in os.environ if LAUNCHER_VARIABLES.fullmatch(k) and k not in kept]:
            del os.environ[name]
        os.environ.update(kept)
