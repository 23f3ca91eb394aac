"""The workload of the generation benchmark: model, inputs, strategies and options."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from pal.core.errors import ConfigError
from pal.core.job import process_state
from pal.data.batches import plan_batches
from pal.data.samples import Sample
from pal.data.strategies import STRATEGIES, strategy_id
from pal.decoding.engine import Answer, DecodingRequest, Engine
from pal.decoding.noise import sample_keys
from pal.decoding.plan import DecodingPlan
from pal.decoding.sampling import KeyedDraw, Sampler
from pal.decoding.settings import DecodingSettings, SamplingOptions
from pal.modeling.encoding import collate, encode_sorted, input_length
from pal.modeling.packed import packed_model
from pal.modeling.responder import Responder, generation_config, load_model_and_tokenizer
from pal.modeling.settings import ArchitectureSettings
from pal.speed.inputs import build_random, synthetic_rows

CONTEXTS = 64
ENDING_ROWS, ENDING_TRIALS = 16, 8  # of the search for the bias of the end token
RESPONSE_LENGTH = 20.0  # mean of the supporter's turns, about


@dataclass
class Workload:
    """The common workload of all sides.

    Attributes:
        model: model whose weights all sides share.
        inputs: encoder inputs of each row.
        strategies: given strategies, so that all sides contrast the same rows.
        keys: keys of the noise.
        options: sampling settings.
        source: where the inputs are from, in words.
        seed: of the noise.
        ids: of the rows, which make its keys.
    """

    model: Any
    inputs: list[dict[str, list[int]]]
    strategies: list[int]
    keys: Tensor
    options: SamplingOptions
    source: str
    seed: int
    ids: list[str]

    def batches(self, rows: int) -> list[list[int]]:
        """Return batches of ``rows`` rows each, in the original order."""
        indices = list(range(len(self.inputs)))
        return [indices[start : start + rows] for start in range(0, len(indices), rows)]

    def collate(self, chosen: Sequence[int]) -> dict[str, Tensor]:
        """Return the padded inputs of some rows."""
        return collate(self.model, [self.inputs[index] for index in chosen])

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
        if options.least:
            found.append(
                MinNewTokensLengthLogitsProcessor(
                    2, options.least, self.model.config.eos_token_id, device=device
                )
            )
        suppressed = self.model.suppressed_tokens()
        found.append(SuppressTokensLogitsProcessor(suppressed, device=device))
        if options.do_sample:
            found.extend([
                TemperatureLogitsWarper(options.temperature),
                *([TopKLogitsWarper(options.top_k)] if options.top_k else []),
                TopPLogitsWarper(options.top_p),
                KeyedDraw(Sampler(top_k=options.top_k), keys),
            ])  # fmt: skip
        return found

    def first(self, count: int) -> "Workload":
        """Return the workload of the first rows."""
        return replace(
            self, inputs=self.inputs[:count], strategies=self.strategies[:count],
            keys=self.keys[:count], ids=self.ids[:count],
        )  # fmt: skip

    @property
    def decoder(self) -> Any:
        """The model's decoder as the engine takes it; None where its family has none."""
        return packed_model(self.model).fast_decoder(self.model.suppressed_tokens())

    def make_engine(self, rows: int, **settings: Any) -> Engine | None:
        """Return an engine for several calls; None where the family has no fast decoder.

        Args:
            rows: answered at once, at most.
            **settings: further ones of the engine.
        """
        decoder, config = self.decoder, self.model.config
        if decoder is None:
            return None
        fused = self.model.fusion is not None
        plan = DecodingPlan(
            self.options, tuple(a * fused for a in config.alpha), config.strategy_alpha * fused
        )
        return Engine(decoder, plan, rows=rows, **settings)

    def answer(self, rows: int, engine: Engine | None = None) -> list[Answer]:
        """Answer with the engine, or with our ``generate``, so many rows at once.

        Args:
            rows: answered at once, at most.
            engine: from :meth:`make_engine`; by default one for this call.
        """
        model = packed_model(self.model)
        engine = engine or self.make_engine(rows)
        if engine is None:
            return self._generate(model, rows)
        requests = [
            DecodingRequest(key, strategy)
            for key, strategy in zip(self.keys.tolist(), self.strategies, strict=True)
        ]
        return engine(
            requests, [input_length(row) for row in self.inputs],
            lambda chosen: encode_sorted(model, [self.inputs[i] for i in chosen]),
        )  # fmt: skip

    def _generate(self, model: Any, rows: int) -> list[Answer]:
        lengths = [input_length(row) for row in self.inputs]
        found: dict[int, Answer] = {}
        for chosen in plan_batches(lengths, max_tokens=rows * max(lengths), max_rows=rows):
            output = model.generate(
                **collate(model, [self.inputs[i] for i in chosen]),
                strategy=[self.strategies[i] for i in chosen], seed=self.seed,
                sample_ids=[self.ids[i] for i in chosen], return_strategies=True,
                generation_config=generation_config(self.options, model.config),
            )  # fmt: skip
            end = model.config.eos_token_id
            for place, i in enumerate(chosen):
                row = output.sequences[place, 2:].tolist()
                found[i] = Answer(
                    self.strategies[i], output.strategy_probs[place].tolist(),
                    float(output.alpha[place]), row[: row.index(end) + 1] if end in row else row,
                )  # fmt: skip
        return [found[i] for i in range(len(self.inputs))]


def load_workload(
    samples: Sequence[Sample] | None,
    *,
    model: str | None,
    architecture: ArchitectureSettings,
    decoding: DecodingSettings,
    natural: bool = False,
    count: int = CONTEXTS,
    seed: int = 42,
    dtype: str = "float32",
) -> Workload:
    """Return given or random weights with given or synthetic inputs.

    Args:
        samples: what is answered; None makes contexts of random tokens of ESConv's lengths.
        model: folder or hub id; None makes random weights.
        architecture: sizes of random weights; those of the published model by default.
        decoding: sampling options.
        natural: let responses end as those of ESConv; else all are as long as they may be.
        count: how many synthetic contexts.
        seed: of weights, inputs, strategies and noise.
        dtype: of the weights.

    Raises:
        PalError: model or tokenizer cannot be used.
    """
    loaded: Any
    if model:
        loaded, tokenizer = load_model_and_tokenizer(model, dtype)
    else:
        loaded, tokenizer = build_random(
            architecture, seed=seed, dtype=dtype, with_tokenizer=samples is not None
        )
    loaded.to(process_state().device)
    options, draw = decoding.model_copy(), random.Random(seed)
    if samples is None:
        inputs = synthetic_rows(loaded.config, count, seed)
        for row in inputs:
            del row["labels"]
        strategies = [draw.randrange(len(STRATEGIES)) for _ in inputs]
        ids: list[str] = [str(index) for index in range(count)]
        source = "synthetic contexts of ESConv's lengths"
    else:
        inputs = Responder(loaded, tokenizer, decoding, seed).encode(samples)
        ids = [sample.id for sample in samples]
        strategies = [
            draw.randrange(len(STRATEGIES)) if s.strategy is None else strategy_id(s.strategy)
            for s in samples
        ]
        source = "real contexts"
    keys = sample_keys(seed, ids, loaded.device)
    workload = Workload(loaded, inputs, strategies, keys, options, source, seed, ids)
    if natural:
        let_end(workload)
    else:
        options.min_new_tokens = options.max_new_tokens
    return workload


def let_end(workload: Workload) -> None:
    """Set the end token's bias so that responses are about as long as ESConv's, on some rows."""
    end, options = workload.model.config.eos_token_id, workload.options
    if not hasattr(workload.model, "final_logits_bias"):
        family = workload.model.config.backbone
        raise ConfigError(
            f"bench.endings=natural sets the end token's bias, and {family} models have none; give "
            "bench.endings=fixed"
        )
    options.min_new_tokens = 0
    low, high = 0.0, 64.0
    for _ in range(ENDING_TRIALS):
        middle = (low + high) / 2
        workload.model.final_logits_bias[0, end] = middle
        answers = workload.first(ENDING_ROWS).answer(ENDING_ROWS)
        mean = float(np.mean([len(answer.tokens) for answer in answers]))
        low, high = (low, middle) if mean < RESPONSE_LENGTH else (middle, high)
