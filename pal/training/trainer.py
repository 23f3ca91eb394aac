"""Training, for both tasks: PAL's response model and the persona extractor.

The loop is transformers' ``Seq2SeqTrainer`` with its own options. Added here: losses counted by
token whatever the batches and without projecting padding to the vocabulary, bf16 where it is
faster, resuming by itself, and a record of what was run beside the result.
"""

import json
import logging
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    EarlyStoppingCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    set_seed,
)
from transformers.utils.logging import disable_progress_bar

from pal.core.errors import ConfigError, OutputError, first_line
from pal.core.files import read_json, write_json
from pal.core.job import claimed, is_finished, process_state
from pal.core.runs import identity_of, write_run
from pal.core.schema import Settings
from pal.core.tracking import stay_offline_without_key
from pal.modeling.checkpoint import model_fingerprint
from pal.training.preparation import (
    SPOT_TOKENIZER,
    TOKENS,
    Ingredients,
    prepare_extractor,
    prepare_response,
)

logger = logging.getLogger(__name__)

# Where they differ from transformers' own defaults; a YAML's ``training`` block wins over them.
DEFAULTS: dict[str, Any] = {
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "load_best_model_at_end": True,
    "metric_for_best_model": "nll",
    "logging_steps": 50,
    "report_to": "none",
    "train_sampling_strategy": "group_by_length",
    "remove_unused_columns": False,
    "label_names": ["labels"],
    "dataloader_pin_memory": torch.cuda.is_available(),
}

BF16_WIDTH = 384  # measured, see prefers_bf16


def train(settings: Settings) -> Path:
    """Train what ``task`` names into ``output_dir``; resume when checkpoints lie there.

    Raises:
        PalError: settings, data, base model or output cannot be used.
    """
    output = Path(settings.output_dir)
    set_seed(settings.seed)
    with claimed(output / "run.json") as state:
        prepare = prepare_response if settings.task == "response" else prepare_extractor
        with state.main_process_first():
            parts = prepare(settings)
        state.wait_for_everyone()
        _remove(output / SPOT_TOKENIZER, state)  # it is saved with the model
        identity = identity_of(
            settings, "task", "seed", "architecture", "training", "early_stopping_patience",
            train={name: parts.train[name][:] for name in parts.train.column_names},
            validation={name: parts.validation[name][:] for name in parts.validation.column_names},
            start=model_fingerprint(parts.model),
        )  # fmt: skip
        fast = prefers_bf16(state.device, parts.model.config.d_model)
        if _is_trained(output, {"identity": identity, "bf16": fast}, settings.overwrite, state):
            logger.info("%s is trained already; overwrite=true would train anew", output)
            _remove(output / TOKENS, state)
            return output
        begun = read_json(output / "started.json")  # perhaps on a machine that differs in bf16
        trainer = build_trainer(settings, parts, output, bf16=begun["bf16"])
        resume = _last_checkpoint(output)
        if resume:
            logger.info("going on from %s", resume)
        try:
            trainer.train(resume_from_checkpoint=resume)
        except Exception as error:
            full = shutil.disk_usage(output).free < 2**20  # torch and safetensors say it unclearly
            if not full and not isinstance(error, OSError):
                raise
            reason = "the disk is full" if full else first_line(error)
            raise OutputError(
                f"cannot write {output}: {reason}; complete checkpoints are kept, run the same "
                "command again to go on"
            ) from error
        _save(trainer, parts, settings, output, identity)
        state.wait_for_everyone()
        _remove(output / TOKENS, state)
    return output


def _remove(folder: Path, state: Any) -> None:
    if state.is_main_process:
        shutil.rmtree(folder, ignore_errors=True)


def prefers_bf16(device: torch.device, width: int) -> bool:
    """Whether training on a CPU is faster in bf16 (weights and their sums stay float32).

    So where the CPU multiplies bf16 itself, unless the model is so narrow that casting costs more
    than it saves. A rule, not a measurement of the moment, so that a run can be repeated.

    Args:
        device: where training runs; on a GPU the user says (``training.bf16``).
        width: of the model, d.
    """
    able: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return (
        device.type == "cpu"
        and width >= BF16_WIDTH
        and bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    )


class LossTrainer(Seq2SeqTrainer):
    """Asks a model that computes the loss itself for nothing else, where only that is wanted."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any):  # type: ignore[override]
        """Return the loss, with outputs if asked; see the base class."""
        if self.compute_loss_func is None and not return_outputs:
            inputs = {**inputs, "skip_logits": True}
        return super().compute_loss(model, inputs, return_outputs, **kwargs)


def token_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    """Mean cross-entropy over all target tokens of a step (PAL paper, equation 5), nats.

    Args:
        outputs: what the model returned, logits [B, T, V].
        labels: [B, T], −100 = ignored.
        num_items_in_batch: target tokens of the whole step, all accumulated batches together.
    """
    total = F.cross_entropy(
        outputs["logits"].flatten(0, 1).float(), labels.flatten(), reduction="sum",
        ignore_index=-100,
    )  # fmt: skip
    return total / ((labels != -100).sum() if num_items_in_batch is None else num_items_in_batch)


def summarise_rows(strategy_ids: list[int] | None) -> Callable[[Any, Tensor], Tensor]:
    """Return a reducer of logits to [B, 3]: summed nats, tokens, whether the strategy is right."""

    def reduce(logits: Any, labels: Tensor) -> Tensor:
        logits = logits[0] if isinstance(logits, tuple) else logits
        nats = F.cross_entropy(
            logits.transpose(1, 2).float(), labels, reduction="none", ignore_index=-100
        ).sum(1)
        right = torch.zeros_like(nats)
        if strategy_ids is not None:
            ids = torch.tensor(strategy_ids, device=labels.device)
            right = (ids[logits[:, 0, ids].argmax(-1)] == labels[:, 0]).to(nats.dtype)
        return torch.stack([nats, (labels != -100).sum(1).to(nats.dtype), right], dim=1)

    return reduce


def corpus_metrics(with_strategy: bool) -> Callable[[Any], dict[str, float]]:
    """Return the validation metrics: ``nll`` (nats a token), ``ppl``, ``strategy_accuracy``."""

    def compute(prediction: Any) -> dict[str, float]:
        nats, tokens, right = np.asarray(prediction.predictions, dtype=np.float64).T
        nll = nats.sum() / tokens.sum()
        metrics = {"nll": float(nll), "ppl": float(np.exp(min(nll, 700.0)))}
        if with_strategy:
            metrics["strategy_accuracy"] = float(right.mean())
        return metrics

    return compute


def unigram_nll(train: Sequence[Sequence[int]], validation: Sequence[Sequence[int]]) -> float:
    """Nats a token of predicting by training token frequencies (add-one smoothed): the floor."""
    counts = Counter(token for row in train for token in row)
    types = len(counts.keys() | {token for row in validation for token in row})
    total = sum(counts.values()) + types
    targets = [token for row in validation for token in row]
    return -sum(math.log((counts[token] + 1) / total) for token in targets) / len(targets)


def build_trainer(
    settings: Settings, parts: Ingredients, output: Path, *, bf16: bool
) -> Seq2SeqTrainer:
    """Build the trainer of a run; ``bf16`` counts where the settings name no number format.

    Raises:
        ConfigError: an option of ``training`` has a value that cannot be.
    """
    options = {**DEFAULTS, **settings.training}
    if "fp16" not in options:
        options.setdefault("bf16", bf16)
    if "wandb" in str(options["report_to"]):
        stay_offline_without_key()
    lower_is_better = ("loss", "nll", "ppl")
    metric = options["metric_for_best_model"].removeprefix("eval_")
    options.setdefault("greater_is_better", metric not in lower_is_better)
    if settings.early_stopping_patience is not None:
        options.setdefault("restore_callback_states_from_checkpoint", True)
    options.setdefault("use_cpu", process_state().device.type == "cpu")
    disable_progress_bar()  # of writing weights; the trainer keeps its own
    callbacks: list[TrainerCallback] = []
    if settings.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(settings.early_stopping_patience))
    try:
        arguments = Seq2SeqTrainingArguments(
            output_dir=str(output), seed=settings.seed, data_seed=settings.seed, **options
        )
        return LossTrainer(
            model=parts.model,
            args=arguments,
            train_dataset=parts.train,
            eval_dataset=parts.validation,
            data_collator=parts.collator,
            processing_class=parts.tokenizer,
            # the response model computes it itself
            compute_loss_func=token_loss if settings.task == "persona_extractor" else None,
            compute_metrics=corpus_metrics(parts.strategy_ids is not None),
            preprocess_logits_for_metrics=summarise_rows(parts.strategy_ids),
            callbacks=callbacks,
        )
    except (TypeError, ValueError, ImportError, RuntimeError) as error:
        raise ConfigError(f"training: {' '.join(str(error).split())}") from error


def _is_trained(output: Path, begin: dict[str, Any], overwrite: bool, state: Any) -> bool:
    """Whether the folder holds this very result; clears it for ``overwrite``.

    Args:
        output: the folder.
        begin: ``identity`` of the run, and whatever else an interrupted one goes on with.
        overwrite: whether another result may be replaced.
        state: accelerate's process state.

    Raises:
        OutputError: the folder holds another run, finished or not.
    """
    started, identity = output / "started.json", begin["identity"]
    found = read_json(started) if started.exists() else None
    unfinished = isinstance(found, dict) and found["identity"] == identity
    if overwrite and not (unfinished and not (output / "run.json").exists()):
        state.wait_for_everyone()
        if state.is_main_process:
            for path in [*output.glob("checkpoint-*"), started, output / "run.json"]:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        state.wait_for_everyone()
        found = None
    if (output / "run.json").exists():
        return is_finished(output, identity, overwrite=False)
    if found is not None and not unfinished:
        raise OutputError(
            f"{output}: an unfinished run with other settings or data lies there; give those "
            "again to go on, overwrite=true to start anew, or another output_dir"
        )
    state.wait_for_everyone()
    if state.is_main_process and found is None:
        write_json(started, begin)
    state.wait_for_everyone()
    return False


def _last_checkpoint(output: Path) -> str | None:
    """The newest complete checkpoint; one that a kill cut off has no readable trainer state."""
    found = sorted(output.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for path in reversed(found):
        try:
            json.loads((path / "trainer_state.json").read_text())
        except (OSError, ValueError):
            logger.warning("%s is incomplete; passed over", path)
            continue
        return str(path)
    return None


def _save(
    trainer: Seq2SeqTrainer, parts: Ingredients, settings: Settings, output: Path, identity: str
) -> None:
    """Write the chosen model into ``output``, file by file, the record of the run last."""
    folder = output / ".saving"
    trainer.save_model(str(folder))
    if not trainer.is_world_process_zero():
        return
    (folder / "training_args.bin").unlink(missing_ok=True)
    for path in sorted(folder.iterdir()):
        os.replace(path, output / path.name)
    folder.rmdir()
    history = trainer.state.log_history
    losses = {entry["step"]: entry["eval_nll"] for entry in history if "eval_nll" in entry}
    kept = trainer.state.best_global_step if trainer.args.load_best_model_at_end else None
    saved = losses.get(kept or max(losses, default=0))
    floor = unigram_nll(parts.train["labels"][:], parts.validation["labels"][:])
    write_json(output / "training_log.json", history)
    write_run(
        output / "run.json", settings, "train", identity,
        parameters=sum(p.numel() for p in parts.model.parameters()),
        train_samples=len(parts.train), validation_samples=len(parts.validation),
        validation_nll=saved, lowest_validation_nll=min(losses.values(), default=None),
        unigram_validation_nll=floor,
        best_checkpoint=Path(trainer.state.best_model_checkpoint or "").name or None,
        steps=trainer.state.global_step, epochs=trainer.state.epoch,
        device=str(trainer.args.device), bf16=trainer.args.bf16,
    )  # fmt: skip
    (output / "started.json").unlink(missing_ok=True)
    if saved is not None:
        logger.info(
            "%s: validation loss %.3f nats a token (token frequencies alone: %.3f)",
            output, saved, floor,
        )  # fmt: skip
