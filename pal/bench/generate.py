"""Speed of generation, beside what one would use instead: ``pal bench generate``.

Same weights, same inputs, same strategies, the paper's sampling settings, in one run:

- ours: :class:`pal.modeling.engine.Engine`, inputs sorted by length;
- doubled: transformers' own ``generate`` on a batch that holds every row twice, with a logits
  processor that contrasts the halves;
- two passes: every step runs the decoder twice, persona and dialogue padded to one length and both
  branches for every row, as the specification describes the authors' code.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
)
from transformers.modeling_outputs import BaseModelOutput

from pal.bench.machine import clock, machine
from pal.data.batches import Collator
from pal.decoding.contrast import combine
from pal.decoding.noise import sample_keys
from pal.errors import OutputError
from pal.generation import Responder, input_length, load_model_and_tokenizer, load_samples
from pal.jobs import process_state
from pal.modeling.engine import Engine, Request
from pal.modeling.pal import PalForConditionalGeneration, sampling_processors
from pal.records import fingerprint, write_json
from pal.runs import describe_run
from pal.settings import Settings
from pal.strategies import STRATEGIES, strategy_id

CONTEXTS = 64
DOUBLED_ROWS, TWO_PASS_ROWS = 32, 8  # of a batch; what is fastest for each on two CPU cores


@dataclass
class Work:
    """What every side answers.

    Attributes:
        model: with the weights all sides share.
        inputs: encoder inputs of each row.
        strategies: given strategies, so that all sides contrast the same rows.
        keys: of the noise.
        options: sampling settings; every row gets exactly ``max_new_tokens``.
    """

    model: Any
    inputs: list[dict[str, list[int]]]
    strategies: list[int]
    keys: Tensor
    options: GenerationConfig

    def batches(self, rows: int) -> list[list[int]]:
        """Return the rows in their own order, so many a batch."""
        indices = list(range(len(self.inputs)))
        return [indices[start : start + rows] for start in range(0, len(indices), rows)]

    def collate(self, chosen: Sequence[int]) -> dict[str, Tensor]:
        """Return the padded inputs of some rows."""
        config = self.model.config
        collator = Collator(
            pad_token_id=config.pad_token_id, decoder_start_token_id=config.decoder_start_token_id
        )
        batch = collator([self.inputs[index] for index in chosen])
        return {name: tensor.to(self.model.device) for name, tensor in batch.items()}

    def prompt(self, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return start and strategy tokens of some rows, [B, 2], and their α, [B]."""
        config, device = self.model.config, self.model.device
        strategies = torch.tensor([self.strategies[index] for index in chosen], device=device)
        tokens = torch.tensor(config.strategy_token_ids, device=device)[strategies]
        start = self.model.start_tokens(len(chosen))
        alpha = torch.tensor(config.alpha, device=device)[strategies]
        return torch.cat([start, tokens[:, None]], dim=1), alpha

    def processors(self, keys: Tensor) -> LogitsProcessorList:
        """Return what turns logits into a drawn token, for rows of these keys."""
        options, device = self.options, str(self.model.device)
        found = LogitsProcessorList()
        found.append(RepetitionPenaltyLogitsProcessor(options.repetition_penalty))
        found.append(
            MinNewTokensLengthLogitsProcessor(
                2, options.min_new_tokens, options.eos_token_id, device=device
            )
        )
        suppressed = self.model.suppressed_tokens(options)
        found.append(SuppressTokensLogitsProcessor(suppressed, device=device))
        found.extend(sampling_processors(options, keys))
        return found


def bench_generate(settings: Settings) -> str:
    """Measure generation with ``model`` on samples of ``input``; returns the Markdown table.

    ``limit`` contexts (64 by default), drawn with ``seed``; ours holds ``batch_rows`` rows at once.

    Raises:
        PalError: model, input or output cannot be used.
    """
    settings.require("model", "input")
    output = Path(settings.output) if settings.output else None
    if output and output.exists() and not settings.overwrite:
        raise OutputError(f"{output} exists; give overwrite=true to replace it, or another output")
    work = load_work(settings)
    sides: dict[str, Callable[[], object]] = {
        "ours": lambda: run_ours(work, settings.batch_rows),
        f"doubled batch of {DOUBLED_ROWS}": lambda: run_doubled(work),
        f"two passes, batch of {TWO_PASS_ROWS}": lambda: run_two_passes(work),
    }
    from tqdm.auto import tqdm

    with torch.inference_mode():
        seconds = {
            name: clock(call) for name, call in tqdm(sides.items(), desc="bench generate")
        }  # fmt: skip
    tokens = len(work.inputs) * work.options.max_new_tokens
    ours = seconds["ours"]
    lines = ["| | seconds | tokens/s | times ours |", "| --- | ---: | ---: | ---: |"]
    for name, value in seconds.items():
        lines.append(f"| {name} | {value:.1f} | {tokens / value:.1f} | {value / ours:.2f} |")
    mean = sum(len(row["input_ids"]) for row in work.inputs) / len(work.inputs)
    parameters = sum(p.numel() for p in work.model.parameters()) / 1e6
    facts = machine()
    lines += [
        "",
        f"{len(work.inputs)} contexts of {mean:.0f} tokens on average, "
        f"{work.options.max_new_tokens} new tokens each, {parameters:.1f} million parameters, "
        f"{settings.dtype}, {work.model.device}, {facts['cpu']}, {facts['cores']} cores, "
        f"{torch.get_num_threads()} threads.",
    ]
    if output:
        run = describe_run(settings, "bench generate", fingerprint(work.inputs), **facts)
        document = {"kind": "bench", "format": 1, "title": "generate", "seconds": seconds,
                    "tokens": tokens, "contexts": len(work.inputs), "run": run}  # fmt: skip
        write_json(output, document)
    return "\n".join(lines)


def load_work(settings: Settings) -> Work:
    """Read model and samples, and settle what every side answers."""
    chosen = settings.model_copy(update={"limit": None})
    samples = load_samples(chosen)
    random.Random(settings.seed).shuffle(samples)
    samples = samples[: settings.limit or CONTEXTS]
    model, tokenizer = load_model_and_tokenizer(str(settings.model), settings.dtype)
    model.to(process_state().device)
    responder = Responder(model, tokenizer, settings.decoding, settings.seed)
    options = responder.options
    options.min_new_tokens = options.max_new_tokens
    drawn = random.Random(settings.seed)
    strategies = [
        drawn.randrange(len(STRATEGIES))
        if sample.strategy is None
        else strategy_id(sample.strategy)
        for sample in samples
    ]
    keys = sample_keys(settings.seed, [sample.id for sample in samples], model.device)
    return Work(model, responder.encode(samples), strategies, keys, options)


def run_ours(work: Work, rows: int) -> list[list[int]]:
    """Answer with the engine."""
    config = work.model.config
    engine = Engine(
        work.model, work.options, alpha=list(config.alpha), strategy_alpha=config.strategy_alpha,
        rows=rows,
    )  # fmt: skip
    requests = [
        Request(key, strategy)
        for key, strategy in zip(work.keys.tolist(), work.strategies, strict=True)
    ]
    lengths = [input_length(inputs) for inputs in work.inputs]
    answers = engine(requests, lengths, lambda chosen: work.model.encode(**work.collate(chosen)))
    return [answer.tokens for answer in answers]


class ContrastHalves(LogitsProcessor):
    """Gives both halves of a batch the contrast of the first with the second."""

    def __init__(self, alpha: Tensor):
        self.alpha = alpha

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return contrasted scores [2B, V]."""
        first, second = scores.chunk(2)
        return combine(first[:, None], second[:, None], self.alpha)[:, 0].repeat(2, 1)


def run_doubled(work: Work) -> list[list[int]]:
    """Answer with transformers' ``generate`` on doubled batches."""
    model, answers = work.model, []
    # What is left open the model's own options would decide, so everything is said.
    greedy = GenerationConfig(
        do_sample=False, temperature=1.0, top_k=0, top_p=1.0, repetition_penalty=1.0,
        min_length=0, min_new_tokens=0, max_new_tokens=work.options.max_new_tokens, num_beams=1,
        eos_token_id=model.config.eos_token_id, pad_token_id=model.config.pad_token_id,
    )  # fmt: skip
    for chosen in work.batches(DOUBLED_ROWS):
        encoded = model.encode(**work.collate(chosen))
        prompt, alpha = work.prompt(chosen)
        length = max(encoded.mask.shape[1], encoded.dialogue_mask.shape[1])
        states, mask = [], []
        for side, kept in (
            (encoded.states, encoded.mask), (encoded.dialogue_states, encoded.dialogue_mask)
        ):  # fmt: skip
            states.append(F.pad(side, (0, 0, 0, length - side.shape[1])))
            mask.append(F.pad(kept, (0, length - kept.shape[1])))
        # All of them ours and the contrast first: −inf of both halves would give NaN after it.
        processors = work.processors(work.keys[chosen].repeat(2))
        processors.insert(0, ContrastHalves(alpha))
        rows = super(PalForConditionalGeneration, model).generate(
            decoder_input_ids=prompt.repeat(2, 1),
            encoder_outputs=BaseModelOutput(last_hidden_state=torch.cat(states)),
            attention_mask=torch.cat(mask),
            generation_config=greedy,
            logits_processor=processors,
        )
        answers += rows[: len(chosen), 2:].tolist()
    return answers


def run_two_passes(work: Work) -> list[list[int]]:
    """Answer with two decoder passes a step, persona and dialogue padded to one length."""
    model, options, answers = work.model, work.options, []
    config = model.config
    for chosen in work.batches(TWO_PASS_ROWS):
        batch = work.collate(chosen)
        length = max(batch["input_ids"].shape[1], batch["persona_input_ids"].shape[1])
        for name, tensor in batch.items():
            value = config.pad_token_id if name.endswith("input_ids") else 0
            batch[name] = F.pad(tensor, (0, length - tensor.shape[1]), value=value)
        encoded = model.encode(**batch)
        ids, alpha = work.prompt(chosen)
        sides = [
            (states, mask, EncoderDecoderCache(DynamicCache(config=config),
                                               DynamicCache(config=config)))
            for states, mask in ((encoded.states, encoded.mask),
                                 (encoded.dialogue_states, encoded.dialogue_mask))
        ]  # fmt: skip
        processors = work.processors(work.keys[chosen])
        new = ids
        for _ in range(options.max_new_tokens):
            logits = [
                model(
                    decoder_input_ids=new, attention_mask=mask, past_key_values=cache,
                    encoder_outputs=(states,), use_cache=True,
                ).logits[:, -1:]
                for states, mask, cache in sides
            ]  # fmt: skip
            scores = combine(logits[0], logits[1], alpha)[:, 0].float()
            new = processors(cast(Any, ids), cast(Any, scores)).argmax(-1, keepdim=True)
            ids = torch.cat([ids, new], dim=1)
        answers += ids[:, 2:].tolist()
    return answers
