"""A model together with its text side: samples in, records out.

A record is a function of weights, sample, settings, seed and sample id. On a CPU in float32 it is
so to the last digit it is written with, whatever samples come with it; elsewhere rounding can
differ between batches, and in half precision decide between two tokens. A decoder-only model reads
the dialogues of a batch in one call, so its probabilities can differ in their sixth decimal.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from transformers import GenerationConfig

from pal.core.errors import CheckpointError, ConfigError
from pal.data.batches import plan_batches
from pal.data.samples import Sample
from pal.data.tokenizer import check_fit, check_strategy_tokens, load_tokenizer
from pal.decoding.engine import Answer, DecodingRequest, Encode, Engine
from pal.decoding.noise import sample_keys
from pal.decoding.plan import DecodingPlan
from pal.decoding.settings import DecodingSettings, SamplingOptions
from pal.decoding.states import EncodedInputs
from pal.modeling.checkpoint import backbone_of, load_response_model
from pal.modeling.encoding import collate, encode_sorted, input_length
from pal.modeling.language import language_task, make_chat_encoder
from pal.modeling.live import LiveResponder, SteppingResponder, WholeResponder
from pal.modeling.packed import packed_model

logger = logging.getLogger(__name__)


def load_model_and_tokenizer(source: str, dtype: str = "float32") -> tuple[Any, Any]:
    """Load a trained response model and its tokenizer, and make sure the two belong together.

    Args:
        source: folder or hub id.
        dtype: number format of the weights.

    Raises:
        CheckpointError: another kind of model, or a tokenizer that does not fit it.
        ConfigError: the configuration names code that is not trusted.
    """
    model = load_response_model(source, dtype)
    tokenizer = load_tokenizer(source)
    check_fit(tokenizer, model, f"model={source}")
    if language_task(model.config):
        make_chat_encoder(tokenizer, model.config)
    elif check_strategy_tokens(tokenizer) != list(model.config.strategy_token_ids or []):
        raise CheckpointError(
            f"model={source}: its tokenizer gives the strategies different ids than the model "
            "uses; use the tokenizer saved with the model"
        )
    return model, tokenizer


def generation_config(options: SamplingOptions, config: Any) -> GenerationConfig:
    """Return sampling options as the library's, none left open.

    Args:
        options: ours.
        config: the model's configuration, for its special tokens.
    """
    names = ("do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "num_beams",
             "max_new_tokens")  # fmt: skip
    tokens = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    return GenerationConfig(
        **{name: getattr(options, name) for name in names},
        min_new_tokens=options.least,
        **{name: getattr(config, name, None) for name in tokens},
    )


def check_knowledge(model: Any, samples: Sequence[Sample], path: str | None) -> None:
    """Refuse knowledge that a model does not read; warn where one that does gets none.

    Args:
        model: a response model.
        samples: what it answers.
        path: the setting ``data.knowledge``.

    Raises:
        ConfigError: the model reads no knowledge, and some is given.
    """
    reads = bool(getattr(model.config, "with_knowledge", False))
    if path is not None and not reads:
        raise ConfigError(
            "data.knowledge is for MISC, and this model does not read it; leave it out, or give a "
            "MISC model that was trained with knowledge"
        )
    if reads and not any(sample.knowledge for sample in samples):
        logger.warning(
            "data.knowledge is null, so the model responds without any knowledge, which it was not "
            "trained to do"
        )


def make_responder(model: Any, tokenizer: Any, decoding: DecodingSettings, seed: int) -> Any:
    """Return what answers samples with a model, as its backbone has it.

    Raises:
        ConfigError: decoding settings that contradict each other or the model.
    """
    return backbone_of(model.config).make_responder(model, tokenizer, decoding, seed)


class Responder:
    """Answers batches of samples with a model.

    Raises:
        ConfigError: decoding settings that contradict each other or the model.
    """

    def __init__(self, model: Any, tokenizer: Any, decoding: DecodingSettings, seed: int):
        self.model, self.seed = model, seed
        self.plan = DecodingPlan.from_settings(decoding, model.config)
        self.encoder = model.make_encoder(tokenizer)

    @cached_property
    def packed(self) -> Any:
        """The model as it is used, made when the first batch comes: on the device it is on then."""
        return packed_model(self.model)

    @cached_property
    def decoder(self) -> Any:
        """The model's decoder as the engine takes it; None where ``generate`` decodes."""
        if self.plan.options.num_beams > 1:
            return None
        return self.packed.fast_decoder(self.model.suppressed_tokens())

    def encode(self, samples: Sequence[Sample]) -> list[dict[str, list[int]]]:
        """Return the encoder inputs of samples, without targets."""
        return [self.encoder.encode_inputs(sample) for sample in samples]

    def plan_batches(
        self, samples: Sequence[Sample], encoded: Sequence[dict[str, list[int]]], *,
        tokens: int, rows: int,
    ) -> list[list[int]]:  # fmt: skip
        """Group samples of similar length: long ones together.

        Args:
            samples: N of them.
            encoded: their encoder inputs.
            tokens: encoder positions that a batch holds at most.
            rows: samples that a batch holds at most.
        """
        return plan_batches(
            [input_length(one) for one in encoded], max_tokens=tokens, max_rows=rows
        )

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
        watch: Callable[[int], Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Return one record a sample, encoding as rows get free; for :meth:`__call__`'s records.

        Args:
            samples: any number of them.
            encoded: their encoder inputs, from :meth:`encode`.
            rows: samples decoded at once, at most.
            tokens: encoder positions held at once, at most.
            watch: is told as decoding goes on how many tokens all responses have so far; beam
                search does not tell.
        """
        lengths = [input_length(inputs) for inputs in encoded]
        if self.decoder is None:
            records: list[dict[str, Any]] = [{}] * len(samples)
            for group in plan_batches(lengths, max_tokens=tokens, max_rows=rows):
                states = self.encode_states([encoded[i] for i in group])
                for i, record in zip(group, self([samples[i] for i in group], states), strict=True):
                    records[i] = record
            return records
        return self._run(
            samples, lengths,
            lambda chosen: encode_sorted(self.packed, [encoded[i] for i in chosen]),
            rows=max(1, min(rows, tokens // max(lengths))), watch=watch,
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
        watch: Callable[[int], Any] | None = None,
    ) -> list[dict[str, Any]]:
        plan, strategies = self.plan.of_call(samples, strategies, alpha=alpha, words=words)
        origin = plan.strategy_from
        if self.decoder is not None:
            keys = sample_keys(self.seed, [sample.id for sample in samples]).tolist()
            given = [None] * len(samples) if strategies is None else strategies
            requests = [DecodingRequest(key, one) for key, one in zip(keys, given, strict=True)]
            answers = Engine(self.decoder, plan, rows=rows)(requests, lengths, encode, watch=watch)
        else:
            [(_, states)] = encode(range(len(samples)))
            answers = self.generate_answers(samples, states, plan, strategies)
        names, end = plan.strategies.names, self.model.config.eos_token_id
        return [
            make_record(sample, answer, self.encoder.decode, names, origin, end=end)
            for sample, answer in zip(samples, answers, strict=True)
        ]

    def generate_answers(
        self,
        samples: Sequence[Sample],
        states: EncodedInputs,
        plan: DecodingPlan,
        strategies: Sequence[int] | None,
    ) -> list[Answer]:
        """Return the answers that the library's ``generate`` gives, tokens up to the end token.

        Args:
            samples: the batch.
            states: what :meth:`encode_states` made of it.
            plan: how responses are decoded.
            strategies: strategy ids, in place of the plan's choice.
        """
        output = self.packed.generate(
            encoded=states,
            strategy=plan.choice if strategies is None else strategies,
            alpha=plan.alpha,
            strategy_alpha=plan.strategy_alpha,
            seed=self.seed,
            sample_ids=[sample.id for sample in samples],
            generation_config=generation_config(plan.options, self.model.config),
            return_strategies=True,
        )
        end = self.model.config.eos_token_id
        answers = []
        for strategy, probs, alpha, tokens in zip(
            output.strategy_ids.tolist(), output.strategy_probs.tolist(), output.alpha.tolist(),
            output.sequences[:, 2:].tolist(), strict=True,
        ):  # fmt: skip
            if end in tokens:
                tokens = tokens[: tokens.index(end) + 1]
            answers.append(Answer(strategy, probs, alpha, tokens))
        return answers

    def live(self, rows: int, options: SamplingOptions | None = None) -> LiveResponder:
        """Return what answers requests that come at any moment.

        Args:
            rows: answered at once, at most.
            options: how tokens are chosen, in place of the settings'.
        """
        plan = self.plan if options is None else replace(self.plan, options=options)
        whole = plan.options.num_beams > 1 or self.decoder is None
        return (WholeResponder if whole else SteppingResponder)(self, plan, rows)


def make_record(
    sample: Sample,
    answer: Answer,
    decode: Callable[[list[int]], str],
    names: Sequence[str],
    strategy_from: str,
    *,
    end: int,
) -> dict[str, Any]:
    """Return the record of an answered sample.

    Args:
        sample: what was answered.
        answer: strategy, its probabilities, α and tokens.
        decode: turns tokens into text.
        names: of the strategies.
        strategy_from: where the strategy comes from.
        end: the token that ends a response.
    """
    ids = answer.tokens
    length = ids.index(end) if end in ids else len(ids)
    probs = zip(names, answer.strategy_probs, strict=True)
    return {
        "id": sample.id,
        "strategy": names[answer.strategy],
        "strategy_from": strategy_from,
        "strategy_probs": {name: round(p, 6) for name, p in probs},
        "response": decode(ids[:length]),
        "persona": list(sample.persona),
        "reference": sample.response,
        "reference_strategy": sample.strategy,
        "alpha": round(answer.alpha, 6),
        "tokens": length,
    }
