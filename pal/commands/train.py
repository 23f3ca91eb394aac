"""``pal train``: PAL, a baseline, or the persona extractor.

After an interruption, the same command continues. The result is a function of settings, data, base
model, seed, number format and number of processes: a run that was killed and continued gives the
same bytes as an uninterrupted one.
"""

import logging
import math
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pal.commands.common import check_models
from pal.core.errors import (
    ConfigError,
    DataError,
    OutputError,
    PalError,
    first_line,
    system_refusal,
)
from pal.core.job import COMPUTING, Job, claim, interruptible, runs_on_cpu
from pal.core.settings import OutputPath
from pal.data.settings import DataSettings
from pal.modeling.settings import ArchitectureSettings
from pal.training.settings import TrainingSettings

if TYPE_CHECKING:
    from pal.training.folder import RunFolder
    from pal.training.preparation import Ingredients
    from pal.training.pruning import Choosable

logger = logging.getLogger(__name__)


class TrainSettings(TrainingSettings):
    """Train PAL, a baseline, or the persona extractor.

    Attributes:
        task: response or persona_extractor; the block of that name in the YAML applies too.
        output_dir: folder of the trained model.
        overwrite: replace an existing run.
        data: the corpora.
    """

    examples = (
        "pal train --config small data.train=runs/pesconv output_dir=runs/pal",
        "pal train --config small task=persona_extractor data.train=personachat.txt",
    )
    takes_blocks = True

    task: Literal["response", "persona_extractor"] = "response"
    output_dir: OutputPath = "runs/pal"
    overwrite: bool = False
    data: DataSettings = DataSettings()


def train(settings: TrainSettings, *, choosable: "Choosable | None" = None) -> Path:
    """Train the model of ``task`` into ``output_dir``; continue if it holds checkpoints.

    Args:
        settings: settings of the command.
        choosable: returns, of the validations so far, the steps whose checkpoints are kept; the
            newest is always. None keeps every checkpoint. It does not affect the trained model.

    Raises:
        PalError: settings, data, base model or output cannot be used.
    """
    settings = TrainSettings.of(settings)
    from pal.core.runtime import configure_runtime

    configure_runtime()
    output = Path(settings.output_dir)
    check_sources(settings)
    from transformers import set_seed
    from transformers.integrations import unset_hf_deepspeed_config

    from pal.modeling.attention import training_products
    from pal.training.arguments import build_arguments
    from pal.training.folder import SPOT_TOKENIZER, TOKENS, RunFolder, no_empty_folder
    from pal.training.numbers import (
        NumberFormat,
        asked_format,
        devices_per_process,
        launcher_choices,
        launcher_environment_kept,
        prefers_bf16,
        refuse_unusable_launcher,
    )
    from pal.training.preparation import prepare
    from pal.training.sharing import accumulated_batches
    from pal.training.trainer import build_trainer, run_training

    launcher = launcher_choices()
    refuse_unusable_launcher(runs_on_cpu())
    with no_empty_folder(output), claim(output) as state, ExitStack() as stack:
        asked = asked_format(settings.training, state.device)
        stack.enter_context(launcher_environment_kept())
        devices = state.num_processes * devices_per_process(state)
        options = accumulated_batches(settings.global_batch_size, settings.training, devices)
        build_arguments(  # finds mistakes before any data is read
            options, output, seed=settings.seed,
            numbers=asked or NumberFormat("float32", "machine"),
            with_strategy=settings.task == "response", patience=settings.early_stopping_patience,
        )  # fmt: skip
        unset_hf_deepspeed_config()  # its stage 3 would empty the weights that are read next
        set_seed(settings.seed)
        with state.main_process_first():
            parts = prepare(
                settings.task, settings.data, settings.architecture, output, seed=settings.seed
            )
        # the state that DeepSpeed saves is one of as many processes
        any_number = "ACCELERATE_USE_DEEPSPEED" not in launcher
        any_number = any_number and settings.global_batch_size is not None
        folder = RunFolder(output, state, any_number=any_number)
        folder.remove(SPOT_TOKENIZER)
        begun = folder.begun()
        width = parts.model.get_input_embeddings().embedding_dim
        numbers = asked or NumberFormat("float32", "machine")
        if asked is None and begun.get("number_format_chosen_by") == "machine":
            # started on this or another machine: the run keeps its number format
            numbers = NumberFormat(begun["number_format"], "machine")
        elif asked is None and prefers_bf16(state.device, width):
            numbers = NumberFormat("bfloat16", "machine")
        job = make_job(settings, parts, numbers.name, launcher)
        if folder.is_finished(job, devices):
            logger.info("%s is already trained; overwrite=true trains it again", output)
            folder.remove(TOKENS)
            return output
        trainer = build_trainer(
            parts, output, options=options, seed=settings.seed, numbers=numbers,
            patience=settings.early_stopping_patience, choosable=choosable,
            global_batch_size=settings.global_batch_size,
        )  # fmt: skip
        begin = {
            "number_format": numbers.name, "number_format_chosen_by": numbers.chosen_by,
            "processes": state.num_processes, "devices": devices, "launcher": launcher,
            "parameters": sum(p.numel() for p in parts.model.parameters()),
        }  # fmt: skip
        folder.begin(job, begin)
        resume = folder.last_checkpoint()
        if resume:
            logger.info("continuing from %s", resume)
        try:
            bf16_on_cpu = numbers.name == "bfloat16" and state.device.type == "cpu"
            with (
                interruptible(output, folder.checkpoints),
                training_products(parts.model, bf16_on_cpu),
            ):
                run_training(trainer, resume)
            publish(trainer, parts, job, folder, begin)
        except Exception as error:
            full = shutil.disk_usage(output).free < 2**20  # torch can lose the reason
            refusal = system_refusal(error)
            if not full and refusal is None:
                raise
            reason = "the disk is full" if full else first_line(refusal or error)
            raise OutputError(
                f"cannot write {output}: {reason}; complete checkpoints are kept, run the same "
                "command again to continue"
            ) from error
        folder.remove(TOKENS)
    return output


def check_sources(settings: TrainSettings) -> None:
    """Log what is fetched from a hub, and refuse what can be refused before libraries are loaded.

    Raises:
        ConfigError: the base model lies in the folder that this run replaces.
        CheckpointError: the folder of the base model is not there.
        DataError: a file of data is not there.
    """
    from pal.data.sources import is_hub_id

    chosen = settings.architecture
    sources = check_data_given(settings.data)
    check_base_given(chosen)
    if chosen.from_scratch is None:
        sources["architecture.base"] = chosen.base
        base, output = Path(chosen.base).resolve(), Path(settings.output_dir).resolve()
        if Path(chosen.base).exists() and (base == output or output in base.parents):
            raise ConfigError(
                f"architecture.base={chosen.base} lies in output_dir={settings.output_dir}, which "
                "this run writes; choose another output_dir"
            )
    sources["architecture.tokenizer"] = chosen.tokenizer
    named = [
        f"{key}={name}"
        for key, name in sources.items()
        if name and is_hub_id(name) and not Path(name).exists()
    ]
    if named:
        logger.info(
            "downloaded from the Hugging Face hub unless cached: %s; without a network give local "
            "files or folders instead (`pal quickstart` needs none)", " ".join(named),
        )  # fmt: skip


def check_data_given(data: DataSettings) -> dict[str, str | None]:
    """Refuse dialogues to train on that are not there, and return the sources by their keys.

    Args:
        data: the corpora.

    Raises:
        DataError: a file or folder is not there; the message names the setting.

    Example:
        >>> check_data_given(DataSettings(train="bundled:esconv"))["data.more"]
        None
    """
    from pal.data.sources import is_missing, no_such_source

    sources = {"data.train": data.train, "data.validation": data.validation,
               "data.more": data.more}  # fmt: skip
    for key, name in sources.items():
        if name and is_missing(name):
            raise DataError(f"{key}={name}: {no_such_source(name)}")
    return sources


def check_base_given(architecture: ArchitectureSettings) -> None:
    """Refuse a base that is not there, where training starts from one.

    Args:
        architecture: what is trained.

    Raises:
        CheckpointError: it is no folder, and cannot come from the hub; the message names it.

    Example:
        >>> check_base_given(ArchitectureSettings(base="./none"))
        CheckpointError: architecture.base=./none: no such folder; give a folder or a hub id …
    """
    from pal.data.sources import check_downloaded, check_model_place

    if architecture.from_scratch is not None:
        return
    where = f"architecture.base={architecture.base}"
    remedy = "give a folder or a hub id that can be reached"
    check_model_place(architecture.base, where, remedy)
    check_downloaded(architecture.base, where, remedy)


def check_extractor_training(settings: TrainSettings, *, base_comes: bool = False) -> None:
    """Refuse a stage that trains the persona extractor where what it starts from is not there.

    Args:
        settings: of the stage; what it does not share with the others is in its block of the YAML.
        base_comes: whether the command writes the base before the stage begins.

    Raises:
        PalError: data or a model is not there; the message names the setting in the block.

    Example:
        >>> check_extractor_training(load_settings("train", {"architecture": {"tokenizer": "./x"}}))
        CheckpointError: persona_extractor.architecture.tokenizer=./x: no such folder; …
    """
    try:
        check_data_given(settings.data)
        check_models(settings)
        if not base_comes:
            check_base_given(settings.architecture)
    except PalError as error:
        raise type(error)(f"persona_extractor.{error}") from None


def make_job(
    settings: TrainSettings, parts: "Ingredients", number_format: str, launcher: dict[str, str]
) -> Job:
    """Return the job of a run; its identity holds everything that affects the trained weights."""
    from pal.modeling.checkpoint import model_fingerprint
    from pal.training.preparation import identity_facts

    return Job(
        "train", settings, settings.output_dir, versions=(*COMPUTING, "accelerate"),
        facts={
            **identity_facts(parts),
            "first weights": model_fingerprint(parts.model),
            "number format": number_format,
            "launcher": launcher,
        },
    )  # fmt: skip


def verdict(loss: float, floor: float, training_loss: float | None = None) -> str:
    """Return what a validation loss says, beside that of token frequencies alone.

    Args:
        loss: of the saved model, nats per token.
        floor: of a model that knows nothing but how frequent tokens are in training.
        training_loss: mean of the last epoch, nats per token; None where it is not known.

    Example:
        >>> verdict(2.0, 5.0)
        'validation loss 2.000 nats per token (token frequencies alone: 5.000)'
    """
    if loss < floor:
        return f"validation loss {loss:.3f} nats per token (token frequencies alone: {floor:.3f})"
    said = (
        f"validation loss {loss:.3f} nats per token, no better than token frequencies alone "
        f"({floor:.3f})"
    )
    if training_loss is None:
        return said
    if training_loss < floor:
        return (
            f"{said}: it fits its training dialogues and does not generalise to others, as "
            "small models from random weights do on little data"
        )
    return (
        f"{said}, and neither is the training loss ({training_loss:.3f}): it has hardly learnt "
        "yet; train for more epochs (training.num_train_epochs) or on more dialogues"
    )


def publish(
    trainer: Any, parts: "Ingredients", job: Job, folder: "RunFolder", begin: dict[str, Any]
) -> None:
    """Write the chosen model into the folder file by file, and the record of the run last."""
    from pal.core.files import write_json
    from pal.data.cards import cards_note
    from pal.data.spilled import column_of
    from pal.training.card import write_model_card
    from pal.training.folder import LOG, RECORD, SAVING, STARTED, tidy_saved_files
    from pal.training.losses import unigram_nll
    from pal.training.progress import mean_loss

    output, saving = folder.path, folder.path / SAVING
    trainer.save_model(str(saving))
    if trainer.is_world_process_zero():
        tidy_saved_files(saving)
        for path in sorted(saving.iterdir()):
            os.replace(path, output / path.name)
        saving.rmdir()
        state = trainer.state
        losses = {e["step"]: e["eval_nll"] for e in state.log_history if "eval_nll" in e}
        kept = state.best_global_step if trainer.args.load_best_model_at_end else None
        saved = losses.get(kept or max(losses, default=0))
        floor = unigram_nll(column_of(parts.train, "labels"), column_of(parts.validation, "labels"))
        write_json(output / LOG, state.log_history)
        record = job.describe(
            **begin, bf16=begin["number_format"] == "bfloat16",
            device=str(trainer.args.device),
            train_samples=len(parts.train), validation_samples=len(parts.validation),
            validation_nll=saved, lowest_validation_nll=min(losses.values(), default=None),
            unigram_validation_nll=floor,
            best_checkpoint=Path(state.best_model_checkpoint or "").name or None,
            steps=state.global_step, epochs=state.epoch,
            **cards_note(job.settings.data.cards),  # type: ignore[attr-defined]
        )  # fmt: skip
        write_model_card(output, record)
        write_json(output / RECORD, record)
        (output / STARTED).unlink(missing_ok=True)
        if saved is not None:
            # of MISC, the strategies' loss is added to it
            whole = not getattr(parts.model, "counts_rows", False)
            last = math.ceil(state.epoch or 0) - 1
            learnt = mean_loss(state.log_history, after=last) if whole else None
            logger.info("%s: %s", output, verdict(saved, floor, learnt))
    folder.state.wait_for_everyone()
