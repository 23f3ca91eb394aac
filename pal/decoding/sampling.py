"""The draw of tokens: temperature, top-k, top-p, and noise that is a function of its key.

Shapes: B rows, V vocabulary, k tokens that can be drawn.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from pal.decoding.noise import keyed_gumbel


class Sampler:
    """Draws a token for every row, from the k best alone, not from the vocabulary.

    The order is that of the library's processors: the temperature divides, top-k filters, and top-p
    keeps the most probable of what is left. The arg-max of what remains plus Gumbel noise is the
    draw (:mod:`pal.decoding.noise`).

    Args:
        temperature: divides the scores; 1 when None.
        top_k: how many tokens can be drawn; all when 0 or None.
        top_p: probability of the tokens that can be drawn, together; 1 when None.
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
        """Make the sampler of options that have these three names: ours, or the library's."""
        return cls(temperature=options.temperature, top_k=options.top_k, top_p=options.top_p)

    def draw(self, scores: Tensor, keys: Tensor, step: int | Tensor) -> Tensor:
        """Return a token of every row, [B].

        Args:
            scores: processed logits, float32, [B, V].
            keys: of the rows' noise, from :func:`pal.decoding.noise.sample_keys`, [B].
            step: position of the token, one for all rows or [B].
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
    """A :class:`Sampler` as the last logits processor of a greedy search, which then draws.

    Args:
        sampler: draws.
        keys: one key a row, [B].
    """

    def __init__(self, sampler: Sampler, keys: Tensor):
        self.sampler, self.keys = sampler, keys

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores [B, V] in which the drawn token alone is possible."""
        drawn = self.sampler.draw(scores.float(), self.keys, input_ids.shape[1])
        return torch.full_like(scores, -torch.inf).scatter(1, drawn[:, None], 0.0)
