"""Speed of training, compared with the alternatives: ``pal bench train``.

Same weights, same samples, same number of rows a step (theirs: 4), in one run:

- ours: the trainer of ``pal train``, in float32 and, where the machine multiplies it, in bf16;
- plain: transformers' ``Seq2SeqTrainer`` as it comes, random batches padded to their longest row;
- theirs: as the specification describes the authors' code: random batches of 4, persona padded to
  the dialogue's length, float32, AdamW one tensor after the other.

The samples are those of batches drawn from the plan ours makes of the whole corpus, so that ours
has the padding of the whole, and the others shuffle the same samples.
"""

import copy
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import (
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

from pal.core.errors import DataError
from pal.core.job import process_state
from pal.data.batches import Collator
from pal.data.samples import build_samples
from pal.data.settings import ReadingSettings
from pal.data.splits import load_split
from pal.modeling.fusion import build_fusion
from pal.modeling.responder import load_model_and_tokenizer
from pal.modeling.settings import ArchitectureSettings
from pal.speed.inputs import build_random, synthetic_rows
from pal.speed.machine import machine, measure_call, measure_ceiling, synchronize
from pal.speed.sides import Side, decoder_flops, encoder_flops, sides_document, sides_table
from pal.training.numbers import NumberFormat, prefers_bf16
from pal.training.preparation import Ingredients
from pal.training.trainer import build_trainer

STEPS = 16  # steps of each side, after a first one that is not counted
THEIR_ROWS = 4


@dataclass(frozen=True)
class TrainingSide:
    """The method of one side.

    Attributes:
        name: name of the side.
        batches: indices of the samples of each step.
        call: function that trains a model and returns seconds and waiting time of each step.
        dtype: number format of the matrix products.
        common_length: whether the persona is padded to the dialogue's length.
    """

    name: str
    batches: list[list[int]]
    call: Callable[[Any], list[tuple[float, float]]]
    dtype: str = "float32"
    common_length: bool = False


def measure_training(
    model: Any,
    encoded: list[dict[str, list[int]]],
    source: str,
    *,
    options: Mapping[str, Any],
    limit: int | None = None,
    seed: int = 42,
) -> tuple[str, dict[str, Any]]:
    """Measure training steps of the response model; return the Markdown table and the document.

    Args:
        model: with the weights that all sides begin with.
        encoded: samples as token ids.
        source: where these are from, in words.
        options: of the trainer of ``pal train``.
        limit: samples a side.
        seed: of their choice and order.
    """
    state = process_state()
    batches = draw_batches(model, encoded, options=options, limit=limit, seed=seed)
    able = prefers_bf16(state.device, 2**20) or (
        state.device.type == "cuda" and torch.cuda.is_bf16_supported()
    )
    dtypes = ["float32", "bfloat16"] if able else ["float32"]
    shuffled = [index for batch in batches for index in batch]
    random.Random(seed).shuffle(shuffled)
    rows = len(batches[0])
    plain = [shuffled[at : at + rows] for at in range(0, len(shuffled), rows)]
    theirs = [shuffled[at : at + THEIR_ROWS] for at in range(0, len(shuffled), THEIR_ROWS)]

    def ours(dtype: str) -> TrainingSide:
        ordered = pick(encoded, batches)
        return TrainingSide(
            f"ours, {dtype}", batches,
            lambda model: train_ours(model, ordered, rows, dtype, options=options, seed=seed),
            dtype,
        )  # fmt: skip

    runs = [
        *map(ours, dtypes),
        TrainingSide(
            f"Seq2SeqTrainer, batch of {rows}", plain,
            lambda model: run_plain(model, pick(encoded, plain), rows),
        ),
        TrainingSide(
            f"the authors' padding, batch of {THEIR_ROWS}", theirs,
            lambda model: run_theirs(model, [[encoded[i] for i in batch] for batch in theirs]),
            common_length=True,
        ),
    ]  # fmt: skip
    ceilings = {dtype: measure_ceiling(state.device, getattr(torch, dtype)) for dtype in dtypes}
    sides = []
    for run in runs:
        # A copy for each: what a trainer has prepared for bf16 stays so.
        own = copy.deepcopy(model).to(state.device).train()
        steps, taken = measure_call(partial(run.call, own), state.device)
        counted = [[encoded[index] for index in batch] for batch in run.batches[1:]]
        seconds, tokens = sum(step for step, _ in steps[1:]), real_tokens(counted)
        sides.append(
            Side(
                run.name, seconds, sum(map(len, counted)), tokens,
                1 - tokens / positions(counted, common_length=run.common_length),
                sum(training_flops(model.config, row) for batch in counted for row in batch),
                taken.memory, run.dtype,
                # weights forward and back, gradient written and read, AdamW: 4 read, 3 written
                traffic=11 * 4 * sum(p.numel() for p in model.parameters()) * len(counted),
                idle=sum(wait for _, wait in steps[1:]) / seconds, warm_up=steps[0][0],
            )
        )  # fmt: skip
    parameters = sum(p.numel() for p in model.parameters())
    lines = [
        sides_table(sides, "samples", ceilings),
        f"{len(shuffled)} samples, {source}; {parameters / 1e6:.1f} million parameters, "
        f"{state.device}, {machine()['cpu']}, {machine()['cores']} cores, "
        f"{torch.get_num_threads()} threads. Tokens are those of dialogue, persona and target; the "
        "first step of each side is not counted.",
    ]
    return "\n".join(lines), sides_document("train", sides, ceilings)


def load_training_samples(
    source: str | None,
    split: str | None,
    *,
    model: str | None,
    architecture: ArchitectureSettings,
    how: ReadingSettings | None = None,
    seed: int = 42,
) -> tuple[Any, list[dict[str, list[int]]], str]:
    """Return the model, samples as token ids, and where these are from in words.

    Args:
        source: dialogues; None makes random tokens of ESConv's lengths.
        split: of the source.
        model: folder or hub id; None makes random weights of ``architecture``.
        architecture: sizes of random weights.
        how: how the source is read.
        seed: of random weights and tokens.

    Raises:
        PalError: model or source cannot be used, or there is no tokenizer for the source.
    """
    samples = []
    if source is not None:  # read before the model, which takes longer
        samples = build_samples(load_split(source, split, how=how), "training")
        if not samples:
            raise DataError(f"input={source}: no samples in it")
    loaded: Any
    if model:
        loaded, tokenizer = load_model_and_tokenizer(model)
    else:
        loaded, tokenizer = build_random(architecture, seed=seed, with_tokenizer=source is not None)
    if source is None:
        return loaded, synthetic_rows(loaded.config, 12_271, seed), "of ESConv's lengths"
    encoder = loaded.make_encoder(tokenizer)
    from tqdm.auto import tqdm

    encoded = [encoder.encode(sample) for sample in tqdm(samples, desc="tokenise", leave=False)]
    return loaded, encoded, f"of {len(samples):,} in {Path(source).name}"


def draw_batches(
    model: Any,
    encoded: list[Any],
    *,
    options: Mapping[str, Any],
    limit: int | None = None,
    seed: int = 42,
) -> list[list[int]]:
    """Draw full batches from the plan ours makes of all samples."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of_ours(
            model, dataset(encoded), folder, "float32", options=options, seed=seed
        )
        plan: Any = trainer.get_train_dataloader().batch_sampler
        rows = trainer.args.train_batch_size
        batches = [batch for batch in plan if len(batch) == rows]
    least = max(2, -(-2 * THEIR_ROWS // rows))  # a first step and a counted one on every side
    wanted = STEPS + 1 if limit is None else max(least, limit // rows)
    if len(batches) < least:
        raise DataError(
            f"bench train: {len(encoded)} samples do not fill {least} batches of {rows}"
        )
    random.Random(seed).shuffle(batches)
    return batches[:wanted]


def dataset(encoded: Sequence[Any]) -> Dataset:
    """Return samples as training has them."""
    columns = {name: [row[name] for row in encoded] for name in encoded[0]}
    return Dataset.from_dict({**columns, "length": [len(row["input_ids"]) for row in encoded]})


def pick(encoded: Sequence[Any], batches: list[list[int]]) -> Dataset:
    """Return the samples of some batches, in their order."""
    return dataset([encoded[index] for batch in batches for index in batch])


class StepClock(TrainerCallback):
    """Measures the time of every step, and the wait for its batch."""

    def __init__(self, device: Any, bar: Any):
        self.device, self.bar, self.steps = device, bar, list[tuple[float, float]]()
        self.ended = self.begun = 0.0

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self.ended = time.perf_counter()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Record the arrival of the batch."""
        self.begun = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Record the end of a step."""
        synchronize(self.device)
        now = time.perf_counter()
        self.steps.append((now - self.ended, self.begun - self.ended))
        self.bar.update()
        self.ended = now


def collator_of(model: Any) -> Collator:
    """Return the collator of both trainers."""
    return model.make_collator()  # type: ignore[no-any-return]


def trainer_of_ours(
    model: Any,
    samples: Dataset,
    folder: str,
    dtype: str,
    *,
    options: Mapping[str, Any],
    seed: int = 42,
    **more: Any,
) -> Seq2SeqTrainer:
    """Return the trainer of ``pal train`` for one epoch that neither evaluates nor saves."""
    training = {
        **options, "eval_strategy": "no", "save_strategy": "no", "logging_strategy": "no",
        "load_best_model_at_end": False, "num_train_epochs": 1,
        "max_steps": -1, **more,
    }  # fmt: skip
    parts = Ingredients(model, None, samples, samples, collator_of(model))
    numbers = NumberFormat("bfloat16" if dtype == "bfloat16" else "float32", "settings")
    return build_trainer(parts, Path(folder), options=training, seed=seed, numbers=numbers)


def train_ours(
    model: Any,
    samples: Dataset,
    rows: int,
    dtype: str,
    *,
    options: Mapping[str, Any],
    seed: int = 42,
) -> list[tuple[float, float]]:
    """Train on planned batches; return seconds and waiting time of each step."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of_ours(
            model, samples, folder, dtype, options=options, seed=seed,
            train_sampling_strategy="sequential", per_device_train_batch_size=rows,
        )  # fmt: skip
        return timed_steps(trainer)


def run_plain(model: Any, samples: Dataset, rows: int) -> list[tuple[float, float]]:
    """Train with the unmodified trainer of transformers; the samples are already shuffled."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            output_dir=folder, per_device_train_batch_size=rows, num_train_epochs=1,
            remove_unused_columns=False, report_to="none", save_strategy="no",
            logging_strategy="no", train_sampling_strategy="sequential",
            use_cpu=process_state().device.type == "cpu",
            dataloader_pin_memory=torch.cuda.is_available(),
        )  # fmt: skip
        return timed_steps(
            Seq2SeqTrainer(
                model=model, args=arguments, train_dataset=samples, data_collator=collator_of(model)
            )
        )


def timed_steps(trainer: Seq2SeqTrainer) -> list[tuple[float, float]]:
    """Train, and return seconds and waiting of each step."""
    from tqdm.auto import tqdm
    from transformers import PrinterCallback
    from transformers.trainer_callback import ProgressCallback

    from pal.training.progress import EpochLines

    for callback in (ProgressCallback, PrinterCallback, EpochLines):
        trainer.remove_callback(callback)
    with tqdm(total=len(trainer.get_train_dataloader()), desc="bench train") as bar:
        clock = StepClock(trainer.args.device, bar)
        trainer.add_callback(clock)
        trainer.train()
    return clock.steps


def run_theirs(model: Any, batches: list[list[Any]]) -> list[tuple[float, float]]:
    """Train as the authors' code does: both inputs padded to one length, all logits computed."""
    from tqdm.auto import tqdm

    if model.fusion is not None:
        model.fusion = build_fusion("reference", model.config.d_model).to(model.device)
    collate = collator_of(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-5, foreach=False, fused=False)
    steps = []
    for batch in tqdm(batches, desc="the authors' padding"):
        started = time.perf_counter()
        inputs: dict[str, Tensor] = {k: v.to(model.device) for k, v in collate(batch).items()}
        begun = time.perf_counter()
        model(**inputs).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        synchronize(model.device)
        steps.append((time.perf_counter() - started, begun - started))
    return steps


def real_tokens(batches: list[list[dict[str, list[int]]]]) -> int:
    """Count the tokens of dialogue, persona and target."""
    return sum(len(ids) for batch in batches for row in batch for ids in row.values())


def positions(batches: list[list[dict[str, list[int]]]], *, common_length: bool) -> int:
    """Count tokens and padding, persona padded with the dialogue where ``common_length``."""
    total = 0
    for batch in batches:
        longest = {name: max(len(row[name]) for row in batch) for name in batch[0]}
        if common_length and "persona_input_ids" in longest:
            common = max(longest["input_ids"], longest["persona_input_ids"])
            longest |= {"input_ids": common, "persona_input_ids": common}
        total += len(batch) * sum(longest.values())
    return total


def training_flops(config: Any, row: dict[str, list[int]]) -> float:
    """Operations of matrix products of one sample, forward and (twice that) backward."""
    dialogue, persona = len(row["input_ids"]), len(row.get("persona_input_ids", ()))
    forward = encoder_flops(config, dialogue) + encoder_flops(config, persona)
    forward += 8 * dialogue * persona * config.d_model  # co-attention, both ways
    return 3 * (forward + decoder_flops(config, max(dialogue, persona), len(row["labels"])))
