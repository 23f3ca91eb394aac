"""Commands run as a user runs them, on models small enough for a test."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "data" / "sample"
ESCONV = SAMPLE / "esconv"
PERSONACHAT = SAMPLE / "personachat"


TINY_RESPONSE = [
    "architecture.vocab_size=800", "architecture.max_context_tokens=96",
    "architecture.max_target_tokens=32",
    "architecture.from_scratch={d_model: 32, encoder_layers: 1, decoder_layers: 1, "
    "encoder_attention_heads: 2, decoder_attention_heads: 2, encoder_ffn_dim: 64, "
    "decoder_ffn_dim: 64, max_position_embeddings: 256}",
]  # fmt: skip
TINY_EXTRACTOR = [
    "architecture.vocab_size=800", "architecture.max_context_tokens=96",
    "architecture.from_scratch={model_type: bart, d_model: 32, encoder_layers: 1, "
    "decoder_layers: 1, encoder_attention_heads: 2, decoder_attention_heads: 2, "
    "encoder_ffn_dim: 64, decoder_ffn_dim: 64, max_position_embeddings: 256}",
]  # fmt: skip

TRAIN_RESPONSE = [
    "--config", "quickstart", *TINY_RESPONSE, f"data.train={ESCONV}", "data.split=published",
    "data.max_train_samples=64", "data.max_validation_samples=16",
    "training.num_train_epochs=2",
]  # fmt: skip
TRAIN_LANGUAGE = [
    f"data.train={ESCONV}", "data.split=published", "data.max_train_samples=20",
    "data.max_validation_samples=4", "architecture.max_context_tokens=256",
    "architecture.max_target_tokens=48", "training.per_device_train_batch_size=4",
    "training.per_device_eval_batch_size=4", "training.num_train_epochs=1",
    "training.learning_rate=0.01", "training.report_to=none",
]  # fmt: skip
TRAIN_EXTRACTOR = [
    "--config", "quickstart", "task=persona_extractor", *TINY_EXTRACTOR,
    f"data.train={PERSONACHAT / 'train.txt'}",
    f"data.validation={PERSONACHAT / 'validation.txt'}",
    "training.num_train_epochs=1",
]  # fmt: skip


PROGRAM = "from pal.cli import run_program; run_program()"
STREAMS = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
           "text": True}  # fmt: skip


def environment(**extra):
    """The environment of a command: offline, the checkout importable, nothing to trackers."""
    base = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
    return {**os.environ, **base, **extra}


def start(*arguments, stdin=subprocess.DEVNULL, **extra):
    """Start ``pal`` with these arguments, and more variables, in a process of its own."""
    return python(PROGRAM, *arguments, extra=extra, **{**STREAMS, "stdin": stdin})


def python(code, *arguments, extra=(), early=True, **how):
    """Start Python code in a process of its own, at once where nothing is lost by it.

    With workers (``-n 2``), the processes are forks of one that has done the imports; with ``-n 0``
    all are fresh.

    Args:
        code: what it runs.
        arguments: what it finds in ``sys.argv[1:]``.
        extra: variables of its environment; None takes one out.
        early: whether they count as Python starts and imports, so that the process must be fresh.
        how: further arguments of ``subprocess.Popen``.
    """
    variables = environment(**dict(extra))
    env = {name: value for name, value in variables.items() if value is not None}
    if "PYTEST_XDIST_WORKER" not in os.environ or (extra and early):
        call = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.Popen(call, env=env, **how)
    from tests.warm import WarmProcess

    return WarmProcess(code, arguments, env=env, **how)


def torchrun(processes, *arguments, **extra):
    """Run ``pal`` on several CPU processes and return (exit code, output)."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node",
        str(processes), "-m", "pal.cli", *map(str, arguments),
    ]  # fmt: skip
    done = subprocess.run(
        command, env=environment(ACCELERATE_USE_CPU="true", **extra), capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def command(*arguments):
    """Run ``pal`` in this process and return its exit code."""
    from pal.cli import main

    return main([str(argument) for argument in arguments])
