"""Sampling of tokens: temperature, top-k, top-p, and noise that is a function of its key.

Shapes: B rows, V vocabulary, k tokens that can be sampled.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from pal.decoding.noise import keyed_gumbel


class Sampler:
    """Samples a token for every row from its k most probable tokens.

    The order is that of the processors of transformers: temperature, top-k, top-p. The sampled
    token is the arg-max of the remaining scores plus Gumbel noise (:mod:`pal.decoding.noise`).

    Args:
        temperature: divisor of the scores; 1 if None.
        top_k: number of tokens that can be sampled; all if 0 or None.
        top_p: total probability of the tokens that can be sampled; 1 if None.
    """

    def __init__(
        self,
        *,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
    ):
        self.temperature, self.top_k = temperature or 1.0, top_k or 0
        self.top_p = 1.0 if top_p is None else top_p

    @classmethod
    def from_options(cls, options: Any) -> "Sampler":
        """Return the sampler of options with these three names, such as a ``GenerationConfig``."""
        return cls(temperature=options.temperature, top_k=options.top_k, top_p=options.top_p)

    def draw(self, scores: Tensor, keys: Tensor, step: int | Tensor) -> Tensor:
        """Return a token of every row, [B].

        Args:
            scores: processed logits, float32, [B, V].
            keys: keys of the rows' noise, from :func:`pal.decoding.noise.sample_keys`, [B].
            step: position of the token, one number for all rows or [B].
        """
        count = min(self.top_k or scores.shape[-1], scores.shape[-1])
        values, tokens = scores.topk(count, dim=-1)  # [B, k], the best first
        values = values / self.temperature
        if self.top_p < 1.0:
            below = values.flip(-1).softmax(-1).cumsum(-1) <= 1 - self.top_p
            below[:, -1] = False
            values = values.masked_fill(below.flip(-1), -torch.inf)
        noisy = values + keyed_gumbel(keys, step, tokens)
        return tokens.gather(1, noisy.argmax(-1, keepdim=True)).squeeze(1)


class KeyedDraw(LogitsProcessor):
    """A :class:`Sampler` as the last logits processor, which turns greedy search into sampling.

    Args:
        sampler: the sampler.
        keys: one key per row, [B].
    """

    def __init__(self, sampler: Sampler, keys: Tensor):
        self.sampler, self.keys = sampler, keys

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores, [B, V], in which only the sampled token is possible."""
        drawn = self.sampler.draw(scores.float(), self.keys, input_ids.shape[1])
        return torch.full_like(scores, -torch.inf).scatter(1, drawn[:, None], 0.0)
