"""Decoder-only models answer samples: the same records as those of encoder-decoders."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional as F

from pal.data.batches import consecutive_batches, pad
from pal.data.samples import Sample
from pal.decoding.groups import only_at
from pal.decoding.language import LanguageEngine, LanguageRequest, find_groups
from pal.decoding.noise import sample_keys
from pal.decoding.plan import DecodingPlan
from pal.decoding.settings import DecodingSettings, SamplingOptions
from pal.modeling.language import check_room, make_chat_encoder, pad_id
from pal.modeling.live import LiveResponder, SteppingLanguageResponder
from pal.modeling.responder import make_record


class LanguageResponder:
    """Answers batches of samples with a decoder-only model.

    It has the methods of :class:`pal.modeling.responder.Responder`. There are no encoder states:
    what :meth:`encode_states` returns are the prompts themselves.

    Raises:
        ConfigError: decoding settings that contradict each other or the model.
    """

    def __init__(self, model: Any, tokenizer: Any, decoding: DecodingSettings, seed: int):
        self.model, self.seed = model, seed
        self.plan = DecodingPlan.from_settings(decoding, model.config)
        self.encoder = make_chat_encoder(tokenizer, model.config)
        least = max(map(len, self.encoder.strategy_ids))
        check_room(
            model.config, self.encoder.max_context_tokens + least,
            "decoding.max_new_tokens", decoding.max_new_tokens,
        )  # fmt: skip

    def encode(self, samples: Sequence[Sample]) -> list[dict[str, list[int]]]:
        """Return the prompts of samples, with notes and without."""
        return [self.encoder.encode(sample) for sample in samples]

    def encode_states(self, encoded: Sequence[dict[str, list[int]]]) -> Sequence[dict[str, Any]]:
        """Return the prompts: nothing is computed ahead."""
        return list(encoded)

    def plan_batches(
        self, samples: Sequence[Sample], encoded: Sequence[dict[str, list[int]]], *,
        tokens: int, rows: int,
    ) -> list[list[int]]:  # fmt: skip
        """Group samples such that those of a dialogue stand together.

        Args:
            samples: N of them.
            encoded: their prompts.
            tokens: positions that a batch holds at most, where nothing is shared.
            rows: samples that a batch holds at most.
        """
        lengths = [len(inputs["input_ids"]) for inputs in encoded]
        return consecutive_batches(lengths, max_tokens=tokens, max_rows=rows)

    def answer(
        self,
        samples: Sequence[Sample],
        encoded: Sequence[dict[str, list[int]]],
        *,
        rows: int,
        tokens: int,
        watch: Callable[[int], Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Return one record a sample.

        Args:
            samples: any number of them.
            encoded: their prompts, from :meth:`encode`.
            rows: samples decoded at once, at most.
            tokens: positions of dialogues read in one call, at most.
            watch: is told as decoding goes on how many tokens all responses have so far.
        """
        return self._run(samples, encoded, rows=rows, tokens=tokens, watch=watch)

    def __call__(
        self,
        samples: Sequence[Sample],
        states: Sequence[dict[str, list[int]]],
        *,
        strategies: Sequence[int] | None = None,
        alpha: float | None = None,
        words: bool = True,
    ) -> list[dict[str, Any]]:
        """Return one record a sample; see :meth:`pal.modeling.responder.Responder.__call__`."""
        return self._run(
            samples, states, rows=len(samples), tokens=16384, strategies=strategies, alpha=alpha,
            words=words,
        )  # fmt: skip

    def _run(
        self,
        samples: Sequence[Sample],
        encoded: Sequence[dict[str, list[int]]],
        *,
        rows: int,
        tokens: int,
        strategies: Sequence[int] | None = None,
        alpha: float | None = None,
        words: bool = True,
        watch: Callable[[int], Any] | None = None,
    ) -> list[dict[str, Any]]:
        plan, strategies = self.plan.of_call(samples, strategies, alpha=alpha, words=words)
        origin = plan.strategy_from
        keys = sample_keys(self.seed, [sample.id for sample in samples]).tolist()
        given = [None] * len(samples) if strategies is None else strategies
        requests = [
            LanguageRequest(key, inputs["input_ids"], inputs["plain_input_ids"], strategy)
            for key, inputs, strategy in zip(keys, encoded, given, strict=True)
        ]
        engine = LanguageEngine(
            self.model, plan, strategies=self.encoder.strategy_ids, end=self.encoder.end,
            suppressed=self.encoder.special, rows=rows, positions=tokens,
        )  # fmt: skip
        with torch.inference_mode():
            answers = engine(requests, watch=watch)
        end = self.encoder.end
        return [
            make_record(
                sample, answer, self.encoder.decode, plan.strategies.names, origin, end=end
            )
            for sample, answer in zip(samples, answers, strict=True)
        ]  # fmt: skip

    def live(self, rows: int, options: SamplingOptions | None = None) -> LiveResponder:
        """Return what answers requests that come at any moment; see ``Responder.live``."""
        plan = self.plan if options is None else replace(self.plan, options=options)
        return SteppingLanguageResponder(self, plan, rows)


@torch.inference_mode()
def language_losses(
    model: Any, tokenizer: Any, samples: Sequence[Sample], *, batch_tokens: int
) -> dict[str, Any]:
    """Return the losses on gold responses, as :func:`pal.modeling.losses.token_losses` does.

    A strategy is text of several tokens here: ``strategy_count`` says how many, [N].

    Samples of a dialogue are beginnings of one sequence, which is read once. Targets are cut
    only at the model's last position.

    Args:
        model: a decoder-only response model, on its device.
        tokenizer: the one saved with it.
        samples: N of them, each with a gold response.
        batch_tokens: positions that a batch holds at most.
    """
    import numpy as np
    from tqdm.auto import tqdm

    from pal.data.batches import plan_batches

    encoder = make_chat_encoder(tokenizer, model.config)
    prompts = [encoder.encode(sample)["input_ids"] for sample in samples]
    positions = getattr(model.config, "max_position_embeddings", None) or sys.maxsize
    targets = [
        encoder.target(sample.strategy, sample.response or "")[: positions - len(prompt)]
        for sample, prompt in zip(samples, prompts, strict=True)
    ]
    strategies = [
        len(encoder.strategy_ids[encoder.strategies.id(s.strategy)]) if s.strategy else 0
        for s in samples
    ]
    whole = [prompt + target for prompt, target in zip(prompts, targets, strict=True)]
    groups = find_groups(whole)
    batches = plan_batches([len(whole[group[0]]) for group in groups], max_tokens=batch_tokens)
    result = np.zeros((len(samples), 3))
    with tqdm(total=len(samples), desc="perplexity", unit="sample", dynamic_ncols=True) as bar:
        for batch in batches:
            rows = [whole[groups[place][0]] for place in batch]
            ids = pad(rows, pad_id(tokenizer)).to(model.device)
            members = [(row, i) for row, place in enumerate(batch) for i in groups[place]]
            at = [
                (row, len(prompts[i]) - 1 + step, token, i, step < strategies[i])
                for row, i in members for step, token in enumerate(targets[i])
            ]  # fmt: skip
            columns = torch.tensor([one[:3] for one in at], device=model.device).T
            with only_at(model, columns[0], columns[1]):
                # Padding stands on the right, where no real token looks.
                logits = model(input_ids=ids, use_cache=False).logits[0]
            nats = F.cross_entropy(logits.float(), columns[2], reduction="none").cpu().numpy()
            for loss, (_, _, _, sample, of_strategy) in zip(nats, at, strict=True):
                result[sample] += (loss, 1, loss if of_strategy else 0.0)
            bar.update(len(members))
    nll, count, strategy = result.T
    return {
        "token_nll": nll, "token_count": count, "strategy_nll": strategy,
        "strategy_count": np.array(strategies, dtype=float), "vocab_size": model.config.vocab_size,
    }  # fmt: skip
