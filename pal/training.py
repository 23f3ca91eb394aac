"""Training, for both tasks: PAL's response model and the persona extractor.

The loop is transformers' ``Seq2SeqTrainer`` with its own options. Added here: losses counted by
token whatever the batches, resuming by itself, and a record of what was run beside the result.
"""

import json
import logging
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
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

from pal.data.batches import Collator
from pal.data.personachat import load_personachat
from pal.data.samples import Sample, build_samples
from pal.data.splits import load_split
from pal.data.templates import SampleEncoder
from pal.data.tokenizer import (
    add_pal_tokens,
    check_strategy_tokens,
    load_tokenizer,
    special_token_ids,
    train_tokenizer,
)
from pal.errors import ConfigError, DataError, OutputError, first_line
from pal.jobs import claimed, is_finished, process_state
from pal.modeling.checkpoint import build_response_model, model_fingerprint
from pal.persona.extractor import ExtractorEncoder, build_extractor
from pal.records import write_json
from pal.runs import identity_of, write_run
from pal.settings import DataSettings, Settings
from pal.tracking import stay_offline_without_key

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


# Where, in the output folder, a tokenizer trained on the spot lies until all processes have it.
SPOT_TOKENIZER = ".tokenizer"


@dataclass
class Ingredients:
    """What a task brings to training.

    Attributes:
        model: the model to train.
        tokenizer: saved with every checkpoint.
        train: encoded training samples with ``labels`` and ``length``.
        validation: encoded validation samples.
        collator: makes batches of them.
        strategy_ids: the eight strategy tokens, for the accuracy of the first target token.
    """

    model: Any
    tokenizer: Any
    train: Dataset
    validation: Dataset
    collator: Collator
    strategy_ids: list[int] | None = None


def train(settings: Settings) -> Path:
    """Train what ``task`` names into ``output_dir``; resume when checkpoints lie there.

    Raises:
        PalError: settings, data, base model or output cannot be used.
    """
    output = Path(settings.output_dir)
    set_seed(settings.seed)
    with claimed(output / "run.json") as state:
        prepare = prepare_response if settings.task == "response" else prepare_extractor_task
        with state.main_process_first():
            parts = prepare(settings)
        state.wait_for_everyone()
        if state.is_main_process:  # it is saved with the model
            shutil.rmtree(output / SPOT_TOKENIZER, ignore_errors=True)
        identity = identity_of(
            settings, "task", "seed", "architecture", "training", "early_stopping_patience",
            train={name: parts.train[name][:] for name in parts.train.column_names},
            validation={name: parts.validation[name][:] for name in parts.validation.column_names},
            start=model_fingerprint(parts.model),
        )  # fmt: skip
        if _is_trained(output, identity, settings.overwrite, state):
            logger.info("%s is trained already; overwrite=true would train anew", output)
            return output
        trainer = _build_trainer(settings, parts, output)
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
    return output


def prepare_response(settings: Settings) -> Ingredients:
    """Read dialogues, build or load tokenizer and PAL model, encode the samples."""
    train_samples, validation_samples = response_samples(settings.data)
    chosen = settings.architecture
    tokenizer = add_pal_tokens(
        _tokenizer(settings, lambda: (t for s in train_samples for t in _texts(s)))
    )
    model = build_response_model(
        base=chosen.base,
        from_scratch=chosen.from_scratch,
        vocab_size=len(tokenizer),
        pal_settings={
            "persona_mode": chosen.persona_mode,
            "fusion": chosen.fusion,
            "template": chosen.template,
            "max_context_tokens": chosen.max_context_tokens,
            "max_persona_tokens": chosen.max_persona_tokens,
            "max_target_tokens": chosen.max_target_tokens,
            "strategy_token_ids": check_strategy_tokens(tokenizer),
            "special_token_ids": special_token_ids(tokenizer),
        },
    )
    longest = max(
        chosen.max_context_tokens, chosen.max_persona_tokens, chosen.max_target_tokens + 1
    )
    if longest > model.config.max_position_embeddings:
        raise ConfigError(
            f"architecture: {longest} tokens do not fit the model's "
            f"{model.config.max_position_embeddings} positions; lower max_*_tokens"
        )
    if chosen.persona_mode != "none" and not any(sample.persona for sample in train_samples):
        logger.warning(
            "%s holds no personas, so persona_mode=%s sees none; make them with `pal annotate` "
            "and give its output as data.train", settings.data.train, chosen.persona_mode,
        )  # fmt: skip
    encoder = SampleEncoder.from_config(tokenizer, model.config)
    return Ingredients(
        model,
        tokenizer,
        _encode_all(encoder.encode, train_samples),
        _encode_all(encoder.encode, validation_samples),
        Collator(
            pad_token_id=model.config.pad_token_id,
            decoder_start_token_id=model.config.decoder_start_token_id,
        ),
        model.config.strategy_token_ids,
    )


def response_samples(data: DataSettings) -> tuple[list[Sample], list[Sample]]:
    """Return training samples (every supporter turn but the first) and validation samples.

    Raises:
        DataError: one of the two is empty.
    """
    whole = data.validation is not None and Path(data.train).is_file()
    train_rows = load_split(
        data.train, None if whole else "train", mode=data.split, seed=data.split_seed
    )
    if data.validation is not None:
        split = None if Path(data.validation).is_file() else "validation"
        validation_rows = load_split(data.validation, split)
    else:
        validation_rows = load_split(
            data.train, "validation", mode=data.split, seed=data.split_seed
        )
    train_samples = build_samples(train_rows, "training")[: data.max_train_samples]
    samples = build_samples(validation_rows, "evaluation")[: data.max_validation_samples]
    for name, found in (("train", train_samples), ("validation", samples)):
        if not found:
            raise DataError(f"data.{name}={getattr(data, name) or data.train}: no samples in it")
    return train_samples, samples


def prepare_extractor_task(settings: Settings) -> Ingredients:
    """Read persona conversations, build or load tokenizer and BART, encode the pairs."""
    data, chosen = settings.data, settings.architecture
    rows = list(load_personachat(data.train))
    if data.validation is not None:
        validation = list(load_personachat(data.validation))
    else:
        order = np.random.default_rng(data.split_seed).permutation(len(rows))
        held_out = {int(index) for index in order[: max(1, len(rows) // 10)]}
        validation = [row for index, row in enumerate(rows) if index in held_out]
        rows = [row for index, row in enumerate(rows) if index not in held_out]
    rows, validation = rows[: data.max_train_samples], validation[: data.max_validation_samples]
    tokenizer = _tokenizer(
        settings, lambda: (t for row in rows for t in (*row["utterances"], *row["persona"]))
    )
    model = build_extractor(base=chosen.base, from_scratch=chosen.from_scratch, tokenizer=tokenizer)
    positions = getattr(model.config, "max_position_embeddings", 1024)
    if max(chosen.max_context_tokens, chosen.max_target_tokens) > positions:
        raise ConfigError(
            f"architecture: max_context_tokens={chosen.max_context_tokens} and max_target_tokens="
            f"{chosen.max_target_tokens} must fit the model's {positions} positions"
        )
    # kept with the model, so that annotation cuts its inputs as training did
    model.config.max_source_tokens = chosen.max_context_tokens
    model.config.max_target_tokens = chosen.max_target_tokens
    encoder = ExtractorEncoder.from_config(tokenizer, model.config)

    def encode(row: dict[str, Any]) -> dict[str, list[int]]:
        return {
            "input_ids": encoder.encode_source(row["utterances"]),
            "labels": encoder.encode_target(row["persona"]),
        }

    return Ingredients(
        model,
        tokenizer,
        _encode_all(encode, rows),
        _encode_all(encode, validation),
        Collator(
            pad_token_id=model.config.pad_token_id,
            decoder_start_token_id=model.config.decoder_start_token_id,
        ),
    )


def _texts(sample: Sample) -> list[str]:
    """Texts of the target and the turn before it: over a corpus, every utterance about once."""
    last = [turn["text"] for turn in sample.context[-1:]]
    return [*last, sample.response or "", *sample.persona]


def _tokenizer(settings: Settings, texts: Callable[[], Any]) -> Any:
    """Load the tokenizer, or train one on the spot for a model from scratch."""
    chosen = settings.architecture
    if chosen.tokenizer or chosen.from_scratch is None:
        return load_tokenizer(chosen.tokenizer or chosen.base)
    folder = Path(settings.output_dir) / SPOT_TOKENIZER
    if process_state().is_main_process:
        logger.info("training a tokenizer of %d entries", chosen.vocab_size)
        return train_tokenizer(texts(), chosen.vocab_size, folder)
    return load_tokenizer(folder)


def _encode_all(encode: Callable[[Any], dict[str, Any]], items: Sequence[Any]) -> Dataset:
    from tqdm.auto import tqdm

    quiet = not process_state().is_main_process
    rows = [encode(item) for item in tqdm(items, desc="tokenise", disable=quiet, leave=False)]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    columns["length"] = [len(row["input_ids"]) for row in rows]
    return Dataset.from_dict(columns)


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


def _build_trainer(settings: Settings, parts: Ingredients, output: Path) -> Seq2SeqTrainer:
    options = {**DEFAULTS, **settings.training}
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
        return Seq2SeqTrainer(
            model=parts.model,
            args=arguments,
            train_dataset=parts.train,
            eval_dataset=parts.validation,
            data_collator=parts.collator,
            processing_class=parts.tokenizer,
            compute_loss_func=token_loss,
            compute_metrics=corpus_metrics(parts.strategy_ids is not None),
            preprocess_logits_for_metrics=summarise_rows(parts.strategy_ids),
            callbacks=callbacks,
        )
    except (TypeError, ValueError, ImportError, RuntimeError) as error:
        raise ConfigError(f"training: {' '.join(str(error).split())}") from error


def _is_trained(output: Path, identity: str, overwrite: bool, state: Any) -> bool:
    """Whether the folder holds this very result; clears it for ``overwrite``.

    Raises:
        OutputError: the folder holds another run, finished or not.
    """
    started = output / "started.json"
    unfinished = started.exists() and json.loads(started.read_text()) == identity
    if overwrite and not (unfinished and not (output / "run.json").exists()):
        state.wait_for_everyone()
        if state.is_main_process:
            for path in [*output.glob("checkpoint-*"), started, output / "run.json"]:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        state.wait_for_everyone()
    if (output / "run.json").exists():
        return is_finished(output, identity, overwrite=False)
    if started.exists() and json.loads(started.read_text()) != identity:
        raise OutputError(
            f"{output}: an unfinished run with other settings or data lies there; give those "
            "again to go on, overwrite=true to start anew, or another output_dir"
        )
    state.wait_for_everyone()
    if state.is_main_process:
        write_json(started, identity)
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
        device=str(trainer.args.device),
    )  # fmt: skip
    (output / "started.json").unlink(missing_ok=True)
    if saved is not None:
        logger.info(
            "%s: validation loss %.3f nats a token (token frequencies alone: %.3f)",
            output, saved, floor,
        )  # fmt: skip
