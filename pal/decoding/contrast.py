"""The contrast of logits with and without persona, and the cache that holds both branches.

Shapes: B rows, M rows with α ≠ 0 (which have a second branch), T decoder tokens, L encoder
positions, d model width, V vocabulary.
"""

import torch
from torch import LongTensor, Tensor
from torch.nn import functional as F
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedConfig


def combine(with_persona: Tensor, without_persona: Tensor, alpha: Tensor | float) -> Tensor:
    """Return ``(1 + α) · logits(r | d, p) − α · logits(r | d)`` (PAL paper, equation 6).

    The output projection is linear, so hidden states before it combine in the same way as logits.

    Args:
        with_persona: logits or hidden states, [B, …].
        without_persona: the same for the unfused dialogue, [B, …].
        alpha: contrast weight of each row, [B], or one number for all.
    """
    if isinstance(alpha, Tensor):
        alpha = alpha.to(with_persona.dtype)
        alpha = alpha.reshape(alpha.shape + (1,) * (with_persona.dim() - alpha.dim()))
    return (1 + alpha) * with_persona - alpha * without_persona


class ContrastiveCache(EncoderDecoderCache):
    """A key-value cache for B rows with persona followed by M of the same rows without it.

    ``generate`` sees a cache of B rows; the decoder runs B + M rows in one call. Only rows whose α
    is not zero have a second branch. The cache holds all decoding state, the model none.

    Args:
        config: configuration of the model, which gives the layers of the caches.
        states: encoder states of both branches, [B + M, L, d].
        mask: attention mask of the states, 1 = keep, [B + M, L].
        alpha: contrast weight of each of the B rows, [B].
        rows: indices from 0 to B − 1 of the rows with a second branch, [M].
    """

    def __init__(
        self, config: PreTrainedConfig, *, states: Tensor, mask: Tensor, alpha: Tensor, rows: Tensor
    ):
        super().__init__(DynamicCache(config=config), DynamicCache(config=config))
        self.states, self.mask = states, mask
        self.alpha, self.rows = alpha, rows

    @classmethod
    def pair(
        cls,
        config: PreTrainedConfig,
        *,
        fused: tuple[Tensor, Tensor],
        plain: tuple[Tensor, Tensor],
        alpha: Tensor,
        rows: Tensor,
    ) -> "ContrastiveCache":
        """Join the (states, mask) of both branches; the shorter one is padded on the right."""
        length = max(fused[1].shape[1], plain[1].shape[1])
        states = [F.pad(s, (0, 0, 0, length - s.shape[1])) for s in (fused[0], plain[0][rows])]
        masks = [F.pad(m, (0, length - m.shape[1])) for m in (fused[1], plain[1][rows])]
        return cls(config, states=torch.cat(states), mask=torch.cat(masks), alpha=alpha, rows=rows)

    def both(self, per_row: Tensor) -> Tensor:
        """Append the rows with a second branch to a [B, …] tensor; return [B + M, …]."""
        return torch.cat([per_row, per_row[self.rows]]) if len(self.rows) else per_row

    def contrast(self, logits: Tensor) -> Tensor:
        """Combine the logits of both branches, [B + M, T, V], to those of the rows, [B, T, V]."""
        if not len(self.rows):
            return logits
        main, plain = logits[: len(self.alpha)], logits[len(self.alpha) :]
        contrasted = combine(main[self.rows], plain, self.alpha[self.rows])
        return main.index_copy(0, self.rows, contrasted)

    def set_alpha(self, alpha: Tensor) -> None:
        """Set the α of every row and drop second branches that are no longer needed."""
        kept = (alpha[self.rows] != 0).nonzero().squeeze(1)
        self._select(torch.arange(len(alpha), device=alpha.device), kept)
        self.alpha = alpha

    def repeat(self, times: int) -> None:
        """Repeat every row ``times`` times, for beams or several sequences per row."""
        rows = torch.arange(len(self.alpha), device=self.alpha.device).repeat_interleave(times)
        branches = torch.arange(len(self.rows), device=rows.device).repeat_interleave(times)
        new_rows = (self.rows[:, None] * times + torch.arange(times, device=rows.device)).flatten()
        self._select(rows, branches)
        self.alpha, self.rows = self.alpha[rows], new_rows

    def reorder_cache(self, beam_idx: LongTensor) -> None:
        """Reorder rows in a beam search; beams of one row share α, so branches stay aligned."""
        place = torch.zeros(len(self.alpha), dtype=torch.long, device=self.rows.device)
        place[self.rows] = torch.arange(len(self.rows), device=self.rows.device)
        index = torch.cat([beam_idx, place[beam_idx[self.rows]] + len(self.alpha)])
        super().reorder_cache(index)  # type: ignore[arg-type]

    def _select(self, rows: Tensor, branches: Tensor) -> None:
        """Keep only these rows (of B) and second branches (of M) of the cache."""
        index = torch.cat([rows, branches + len(self.alpha)])
        self.states, self.mask = self.states[index], self.mask[index]
        self.rows = self.rows[branches]
        if self.get_seq_length():
            self.batch_select_indices(index)
