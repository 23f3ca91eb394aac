"""The loop: transformers' ``Seq2SeqTrainer`` with its own options.

Added here: losses counted by token whatever the batches and without projecting padding to the
vocabulary, an order of samples that survives interruptions, a log that does not depend on them.
"""

import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from safetensors.torch import load_model
from torch.utils.data import DataLoader, SequentialSampler
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Seq2SeqTrainer,
    TrainerCallback,
    TrainerState,
    set_seed,
)
from transformers.trainer_callback import ProgressCallback
from transformers.utils.logging import disable_progress_bar

from pal.core.errors import ConfigError
from pal.modeling.language import ADAPTED_CONFIG, is_adapted
from pal.training.arguments import REFUSALS, build_arguments, refused
from pal.training.folder import LAST_WRITTEN, tidy_saved_files
from pal.training.language import language_loss
from pal.training.losses import (
    corpus_metrics,
    summarise_rows,
)
from pal.training.numbers import NumberFormat, launcher_environment_kept
from pal.training.order import EpochSampler
from pal.training.preparation import Ingredients
from pal.training.progress import EpochLines, mean_loss
from pal.training.pruning import Choosable, LimitCheckpoints, PruneCheckpoints
from pal.training.sharing import FilledSamples, SharedBatches, draw_seed

logger = logging.getLogger(__name__)


class PalTrainer(Seq2SeqTrainer):
    """Trains so that an interrupted run becomes the same model, byte for byte.

    Args:
        global_batch_size: samples of an update over all processes. Dropout then draws by batch, so
            that an update is the same on any number of processes.
        options: transformers' own arguments.
    """

    def __init__(self, *, global_batch_size: int | None = None, **options: Any):
        super().__init__(**options)
        self.global_batch_size = global_batch_size
        self.turn = 0  # batches of the update that this process has computed
        self.rows_in_update: Any = None  # with targets, on all processes

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """Return the batches of an update and how many targets it has; count its rows too."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.turn = 0
        wanted = getattr(self.accelerator.unwrap_model(self.model), "counts_rows", False)
        if wanted and batches and self.args.n_gpu <= 1:
            rows = sum((batch["labels"][:, 0] != -100).sum() for batch in batches)
            self.rows_in_update = self.accelerator.gather(rows.to(device)).sum()
        return batches, items

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute a batch; with a global batch size, what it draws is its own."""
        if self.global_batch_size is not None:
            batch = self.turn * self.args.world_size + self.args.process_index
            set_seed(draw_seed(self.args.seed, self.state.global_step, batch))
        self.turn += 1
        return super().training_step(*args, **kwargs)

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any):  # type: ignore[override]
        """Return the loss, with outputs if asked; a model that computes it makes no logits then."""
        if self.compute_loss_func is None and not return_outputs:
            inputs = {**inputs, "skip_logits": True}
        if self.rows_in_update is not None and kwargs.get("num_items_in_batch") is not None:
            inputs = {**inputs, "num_rows_in_batch": self.rows_in_update}
        return super().compute_loss(model, inputs, return_outputs, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the whole model, also where the processes hold parts of it."""
        if self.optimizer is None:  # nothing was trained, so nothing was shared out
            self._save(output_dir)
        elif self.is_fsdp_enabled:  # whatever form its own checkpoints have
            self._save(output_dir, state_dict=self.accelerator.get_state_dict(self.model))
        else:
            super().save_model(output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write the model; LoRA adapters with the configuration that says what they are."""
        model: Any = self.accelerator.unwrap_model(self.model)
        for name, source in getattr(model, "all_tied_weights_keys", {}).items():
            if state_dict and name in state_dict and source in state_dict:
                state_dict[name] = state_dict[source]  # one again, after they were gathered
        with warnings.catch_warnings():  # peft looks for a config.json beside a GGUF file
            warnings.filterwarnings("ignore", message="Could not find a config file")
            super()._save(output_dir, state_dict)
        if is_adapted(model) and self.args.should_save:
            folder = Path(output_dir or str(self.args.output_dir))
            model.config.to_json_file(str(folder / ADAPTED_CONFIG))
            (folder / "README.md").unlink(missing_ok=True)  # a form that nobody filled in

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return this process's batches, in the order that seed and epoch give."""
        args, strategy = self.args, self.args.train_sampling_strategy
        dataset = FilledSamples(self.train_dataset)
        rows, world = self._train_batch_size, args.world_size
        update = self.global_batch_size or rows * args.gradient_accumulation_steps * world
        sampler: Any = SequentialSampler(dataset)
        if strategy != "sequential":
            sampler = EpochSampler(
                dataset.samples["length"][:], rows=update, seed=args.seed,
                epoch=lambda: int(self.state.epoch or 0), by_length=strategy == "group_by_length",
            )  # fmt: skip
        loader: DataLoader[Any] = DataLoader(
            dataset, collate_fn=self.data_collator,
            batch_sampler=SharedBatches(
                sampler, rows=rows, update=update, processes=world, process=args.process_index
            ),
            num_workers=args.dataloader_num_workers, pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
        )  # fmt: skip
        # The batches are this process's own already; the library moves them to the device.
        return prepare_data_loader(
            loader, self.accelerator.device, num_processes=1, process_index=0, put_on_device=True
        )

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Validate on every sample once: what fills up the last batch of several is dropped."""
        self.gather_function = self.accelerator.gather_for_metrics  # theirs for texts keeps it
        return super().evaluation_loop(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log values; the mean loss of the run is that of the logged windows, resumed or not."""
        if "train_loss" in logs:
            logs.pop("train_loss")
            mean = mean_loss(self.state.log_history)
            if mean is not None:
                logs["train_loss"] = mean
        super().log(logs, start_time)


class LanguageTrainer(PalTrainer):
    """Trains decoder-only models: their hidden states are projected at targets alone."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.model_accepts_loss_kwargs = True  # the loss is ours, whatever the model takes

    def get_eval_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader[Any]:
        """Return batches with one sequence a row: of several processes each has as many rows."""
        collator: Any = self.data_collator
        self.data_collator = collator.one_a_row()
        try:
            return super().get_eval_dataloader(*args, **kwargs)
        finally:
            self.data_collator = collator

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any):  # type: ignore[override]
        """Return the loss; as outputs, what validation needs of every row."""
        loss, summary = language_loss(model, inputs, kwargs.get("num_items_in_batch"))
        if self.args.average_tokens_across_devices and kwargs.get("num_items_in_batch") is not None:
            loss = loss * self.accelerator.num_processes  # the gradients are averaged over them
        return (loss, {"logits": summary}) if return_outputs else loss

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write the model as one that other programs run, with its cache."""
        model: Any = self.accelerator.unwrap_model(self.model)
        model.config.use_cache = True  # the trainer switches it off
        super()._save(output_dir, state_dict)


class KeepExact(TrainerCallback):
    """Keeps checkpoints such that a run that continues from one equals a plain one.

    A mean loss is logged whenever a checkpoint may be saved, so that no mean spans an
    interruption. What is saved after the last step of an epoch is saved after its validation too,
    which a continued run would not do again. And the best checkpoint is found where the folder is
    now.
    """

    def __init__(self, output: Path):
        self.output, self.postponed = output, False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Find the best checkpoint of a resumed run in the folder, wherever that was moved."""
        best = self.output / f"checkpoint-{state.best_global_step}"
        if state.best_global_step and best.is_dir():
            state.best_model_checkpoint = str(best)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log where a checkpoint may be saved; leave the saving to the end of an epoch there."""
        ends = state.global_step >= state.max_steps or state.epoch == int(state.epoch)
        if control.should_save and ends:
            control.should_save, self.postponed = False, True
        self._log(args, control, ends)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log and save what the last step left to do."""
        if self.postponed:
            control.should_save, self.postponed = True, False
        self._log(args, control, True)

    def _log(self, args: Any, control: Any, ends: bool) -> None:
        wanted = control.should_save or control.should_evaluate or ends
        if wanted and args.logging_strategy != "no":
            control.should_log = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave no pickle of the arguments, and weights that others may read as the umask says."""
        if args.should_save:
            tidy_saved_files(self.output / f"checkpoint-{state.global_step}")


def run_training(trainer: Seq2SeqTrainer, checkpoint: Path | None) -> None:
    """Train to the end, from a checkpoint or the start, and leave the chosen weights in the model.

    A checkpoint may be one after which nothing more is trained: the last step, or a validation
    that stopped the run early. transformers would train on from it.

    Args:
        trainer: from :func:`build_trainer`.
        checkpoint: what an interrupted run continues from.
    """
    if checkpoint is None or not has_ended(checkpoint):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        return
    trainer.state = TrainerState.load_from_json(str(checkpoint / LAST_WRITTEN))
    best = checkpoint.with_name(f"checkpoint-{trainer.state.best_global_step}")
    if best.is_dir():
        trainer.state.best_model_checkpoint = str(best)
    chosen = best if trainer.args.load_best_model_at_end and best.is_dir() else checkpoint
    model: Any = trainer.model
    if is_adapted(model):
        model.load_adapter(str(chosen), model.active_adapters[0])
    else:
        load_model(model, str(chosen / "model.safetensors"))
    trainer.log({"total_flos": trainer.state.total_flos, "train_loss": 0.0})


def has_ended(checkpoint: Path) -> bool:
    """Whether nothing is trained after a checkpoint."""
    state = json.loads((checkpoint / LAST_WRITTEN).read_text(encoding="utf-8"))
    control = state.get("stateful_callbacks", {}).get("TrainerControl", {}).get("args", {})
    return state["global_step"] >= state["max_steps"] or bool(control.get("should_training_stop"))


def build_trainer(
    parts: Ingredients,
    output: Path,
    *,
    options: Mapping[str, Any],
    seed: int,
    numbers: NumberFormat,
    patience: int | None = None,
    choosable: Choosable | None = None,
    global_batch_size: int | None = None,
) -> Seq2SeqTrainer:
    """Return the trainer of a run.

    Args:
        parts: model, tokenizer and samples.
        output: folder of the run.
        options: of training, by transformers' names.
        seed: of the run.
        numbers: what products are computed in.
        patience: validations without improvement after which training stops; None for no end.
        choosable: see :class:`PruneCheckpoints`; None keeps every checkpoint.
        global_batch_size: samples of an update over all processes, which the options come to; None
            leaves it to the options.

    Raises:
        ConfigError: the options and the model, or this machine, do not go together.
    """
    arguments = build_arguments(
        options, output, seed=seed, numbers=numbers, with_strategy=parts.strategy_ids is not None,
        patience=patience,
    )  # fmt: skip
    if parts.language and arguments.n_gpu > 1:  # torch's way of one process copies models
        raise ConfigError(
            f"a decoder-only model is trained on {arguments.n_gpu} GPUs by as many processes: "
            f"`torchrun --nproc_per_node {arguments.n_gpu} train.py …`; or set "
            "CUDA_VISIBLE_DEVICES=0 for one of them"
        )
    disable_progress_bar()  # of writing weights; the trainer keeps its own
    callbacks: list[TrainerCallback] = [KeepExact(output)]
    if patience is not None:
        callbacks.append(EarlyStoppingCallback(patience))
    if choosable is not None:
        callbacks.append(PruneCheckpoints(output, choosable))
    if arguments.save_total_limit:
        callbacks.append(LimitCheckpoints(output, arguments.save_total_limit))
        arguments.save_total_limit = None  # not by transformers
    try:
        with launcher_environment_kept():
            trainer = (LanguageTrainer if parts.language else PalTrainer)(
                model=parts.model,
                args=arguments,
                train_dataset=parts.train,
                eval_dataset=parts.validation,
                data_collator=parts.collator,
                processing_class=parts.tokenizer,
                compute_loss_func=parts.loss,
                compute_metrics=corpus_metrics(parts.strategy_ids is not None),
                preprocess_logits_for_metrics=(
                    None if parts.language else summarise_rows(parts.strategy_ids)
                ),
                callbacks=callbacks,
                global_batch_size=global_batch_size,
            )
            for theirs in (ProgressCallback, PrinterCallback):
                trainer.remove_callback(theirs)
            trainer.add_callback(EpochLines(bar=not arguments.disable_tqdm))
            # A dry run of what else would only fail when training begins.
            trainer.create_optimizer()  # the packages of some are not installed everywhere
            trainer.optimizer = None
            trainer.get_train_dataloader()
            trainer.get_eval_dataloader()
    except REFUSALS as error:
        raise refused(error) from error
    return trainer
