"""A model together with its text side: samples in, records out.

A record is a function of weights, input, settings, seed and sample id, and of the shapes of the
batch it is computed in.
"""

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from transformers import GenerationConfig

from pal.core.errors import CheckpointError, ConfigError, DataError
from pal.data.samples import Sample
from pal.data.strategies import STRATEGIES, strategy_id
from pal.data.templates import SampleEncoder
from pal.data.tokenizer import check_strategy_tokens, load_tokenizer
from pal.decoding.engine import Encode, Engine, Request
from pal.decoding.noise import sample_keys
from pal.decoding.settings import DecodingSettings
from pal.modeling.checkpoint import load_response_model
from pal.modeling.encoding import collate, encode_sorted, input_length
from pal.modeling.packed import packed_model
from pal.modeling.pal import EncodedInputs


def load_model_and_tokenizer(source: str, dtype: str = "float32") -> tuple[Any, Any]:
    """Load a trained response model and its tokenizer, and make sure the two belong together.

    Raises:
        CheckpointError: another kind of model, or a tokenizer that does not fit it.
    """
    model = load_response_model(source, dtype)
    tokenizer = load_tokenizer(source)
    if check_strategy_tokens(tokenizer) != list(model.config.strategy_token_ids or []):
        raise CheckpointError(
            f"model={source}: its tokenizer gives the strategies other ids than the model knows; "
            "use the tokenizer saved with the model"
        )
    return model, tokenizer


def generation_options(model: Any, decoding: DecodingSettings) -> GenerationConfig:
    """Return the settings' options as the library's, none left open."""
    return GenerationConfig(
        do_sample=decoding.do_sample,
        temperature=decoding.temperature,
        top_k=decoding.top_k,
        top_p=decoding.top_p,
        repetition_penalty=decoding.repetition_penalty,
        num_beams=decoding.num_beams,
        min_new_tokens=decoding.min_new_tokens,
        max_new_tokens=decoding.max_new_tokens,
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
        decoder_start_token_id=model.config.decoder_start_token_id,
    )


class Responder:
    """Answers batches of samples with a model.

    Raises:
        ConfigError: decoding settings that contradict each other or the model.
    """

    def __init__(self, model: Any, tokenizer: Any, decoding: DecodingSettings, seed: int):
        self.model, self.decoding, self.seed = model, decoding, seed
        self.encoder = SampleEncoder.from_config(tokenizer, model.config)
        self.given: int | None = None
        if decoding.strategy not in ("argmax", "sample", "gold"):
            self.given = strategy_id(decoding.strategy)
        if isinstance(decoding.alpha, list) and len(decoding.alpha) != len(STRATEGIES):
            raise ConfigError(
                f"decoding.alpha: expected a number or {len(STRATEGIES)} of them, got "
                f"{len(decoding.alpha)}"
            )
        if decoding.do_sample and decoding.num_beams > 1:
            raise ConfigError(
                "decoding.num_beams > 1 searches and decoding.do_sample=true draws; choose one"
            )
        if decoding.alpha is not None and model.fusion is None and np.any(decoding.alpha):
            raise ConfigError(
                f"decoding.alpha contrasts with and without persona, and this model's persona_mode "
                f"is {model.config.persona_mode!r}; give decoding.alpha=null"
            )
        positions = model.config.max_position_embeddings
        if decoding.max_new_tokens + 2 > positions:
            raise ConfigError(
                f"decoding.max_new_tokens={decoding.max_new_tokens} and two start tokens do not "
                f"fit the model's {positions} positions"
            )
        self.options = generation_options(model, decoding)

    @cached_property
    def packed(self) -> Any:
        """The model as it is used, made when the first batch comes: on the device it is on then."""
        return packed_model(self.model)

    def encode(self, samples: Sequence[Sample]) -> list[dict[str, list[int]]]:
        """Return the encoder inputs of samples, without targets."""
        encoded = [self.encoder.encode(sample) for sample in samples]
        for inputs in encoded:
            inputs.pop("labels", None)
        return encoded

    def encode_states(self, encoded: Sequence[dict[str, list[int]]]) -> EncodedInputs:
        """Run the encoder and the fusion on a batch; nothing of it depends on α or strategy."""
        return self.packed.encode(**collate(self.packed, encoded))

    def answer(
        self,
        samples: Sequence[Sample],
        encoded: Sequence[dict[str, list[int]]],
        *,
        rows: int,
        tokens: int,
    ) -> list[dict[str, Any]]:
        """Return one record a sample, encoding as rows get free; for :meth:`__call__`'s records.

        Args:
            samples: any number of them.
            encoded: their encoder inputs, from :meth:`encode`.
            rows: samples decoded at once, at most.
            tokens: encoder positions held at once, at most.
        """
        lengths = [input_length(inputs) for inputs in encoded]
        if self.options.num_beams > 1:
            return self(samples, self.encode_states(encoded))
        return self._run(
            samples, lengths,
            lambda chosen: encode_sorted(self.packed, [encoded[i] for i in chosen]),
            rows=max(1, min(rows, tokens // max(lengths))),
        )  # fmt: skip

    def __call__(
        self,
        samples: Sequence[Sample],
        states: EncodedInputs,
        *,
        strategies: Sequence[int] | None = None,
        alpha: float | None = None,
        words: bool = True,
    ) -> list[dict[str, Any]]:
        """Return one record a sample: strategy, its probabilities, response, α, token count.

        Args:
            samples: the batch.
            states: what :meth:`encode_states` made of it.
            strategies: strategy ids, in place of the settings' choice.
            alpha: contrast weight for all, in place of the settings'.
            words: False predicts the strategies alone; the responses are then one token long.
        """
        length = max(states.states.shape[1], states.dialogue_states.shape[1])
        return self._run(
            samples, [length] * len(samples),
            lambda chosen: [(range(len(chosen)), states.rows(chosen))],
            rows=len(samples), strategies=strategies, alpha=alpha, words=words,
        )  # fmt: skip

    def _run(
        self,
        samples: Sequence[Sample],
        lengths: Sequence[int],
        encode: Encode,
        *,
        rows: int,
        strategies: Sequence[int] | None = None,
        alpha: float | None = None,
        words: bool = True,
    ) -> list[dict[str, Any]]:
        if strategies is None and self.given is not None:
            strategies = [self.given] * len(samples)
        elif strategies is None and self.decoding.strategy == "gold":
            strategies = [_gold(sample) for sample in samples]
        options = self.options
        if not words:
            options = copy.deepcopy(options)
            options.min_new_tokens, options.max_new_tokens = 0, 1
        given_alpha = self.decoding.alpha if alpha is None else alpha
        choice: Any = "sample" if self.decoding.strategy == "sample" else "argmax"
        if self.options.num_beams == 1:
            config = self.model.config
            table = config.alpha if given_alpha is None else given_alpha
            strategy_alpha = self.decoding.strategy_alpha
            if strategy_alpha is None:
                strategy_alpha = config.strategy_alpha
            fused = self.model.fusion is not None
            engine = Engine(
                self.packed,
                options,
                alpha=[float(a) * fused for a in np.broadcast_to(table, len(STRATEGIES))],
                strategy_alpha=strategy_alpha * fused,
                strategy_choice=choice,
                rows=rows,
            )
            keys = sample_keys(self.seed, [sample.id for sample in samples]).tolist()
            requests = [
                Request(key, None if strategies is None else strategies[index])
                for index, key in enumerate(keys)
            ]
            return [
                self._record(
                    sample, answer.tokens, answer.strategy, answer.strategy_probs, answer.alpha
                )
                for sample, answer in zip(samples, engine(requests, lengths, encode), strict=True)
            ]
        [(_, states)] = encode(range(len(samples)))
        output = self.packed.generate(
            encoded=states,
            strategy_ids=strategies,
            strategy_choice=choice,
            alpha=given_alpha,
            strategy_alpha=self.decoding.strategy_alpha,
            seed=self.seed,
            sample_ids=[sample.id for sample in samples],
            generation_config=options,
            return_strategies=True,
        )
        return [
            self._record(sample, row[2:], strategy, probs, alpha)
            for sample, row, strategy, probs, alpha in zip(
                samples,
                output.sequences.tolist(),
                output.strategy_ids.tolist(),
                output.strategy_probs.tolist(),
                output.alpha.tolist(),
                strict=True,
            )
        ]

    def _record(
        self, sample: Sample, ids: list[int], strategy: int, probs: list[float], alpha: float
    ) -> dict[str, Any]:
        end = self.model.config.eos_token_id
        length = ids.index(end) if end in ids else len(ids)
        return {
            "id": sample.id,
            "strategy": STRATEGIES[strategy],
            "strategy_probs": {
                name: round(p, 6) for name, p in zip(STRATEGIES, probs, strict=True)
            },
            "response": self.encoder.decode(ids[:length]),
            "persona": list(sample.persona),
            "reference": sample.response,
            "reference_strategy": sample.strategy,
            "alpha": round(alpha, 6),
            "tokens": length,
        }


def _gold(sample: Sample) -> int:
    if sample.strategy is None:
        raise DataError(f"{sample.id}: decoding.strategy=gold, but no gold strategy is given there")
    return strategy_id(sample.strategy)
