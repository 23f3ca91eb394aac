"""What lets a decoder-only model read groups: a cache written in place, and attention over it.

A group is one sequence that several rows are beginnings of; :mod:`pal.decoding.language` says which
rows see what of it, by masks. The model itself is the library's.

Shapes: G groups, C cached positions, n positions, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

GROW = 64  # cached positions that are made at once


def grouped_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as the library's ``sdpa`` has it, without copying keys for every query head.

    Query heads that share keys become further queries of these, where the library repeats the keys.
    """
    shared = query.shape[1] // key.shape[1]
    if attention_mask is None or shared == 1 or attention_mask.shape[1] != 1:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    batch, heads, length, width = query.shape
    folded = query.reshape(batch, key.shape[1], shared * length, width)
    mask = attention_mask.repeat(1, 1, shared, 1)
    out = F.scaled_dot_product_attention(
        folded, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling
    )
    return out.reshape(batch, heads, length, -1).transpose(1, 2).contiguous(), None


AttentionInterface.register("pal_grouped", grouped_attention)
AttentionMaskInterface.register("pal_grouped", sdpa_mask)


class GroupLayer(CacheLayerMixin):
    """Keys and values of a layer, [G, heads, C, width], written in place."""

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self.used = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make room for the first positions."""
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append positions and return all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.used + key_states.shape[2]
        self.keys = self._write(self.keys, key_states, end)
        self.values = self._write(self.values, value_states, end)
        self.used = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def _write(self, held: Any, new: Tensor, end: int) -> Tensor:
        if held.shape[2] < end:
            room = -(-end // GROW) * GROW + GROW
            grown = new.new_empty(*new.shape[:2], room, new.shape[3])
            grown[:, :, : self.used] = held[:, :, : self.used]
            held = grown
        held[:, :, self.used : end] = new
        return held

    def keep(self, groups: Tensor, columns: Tensor) -> None:
        """Keep some groups, [G'], and of each the columns given, [G', C']."""
        index = columns[:, None, :, None]
        for name in ("keys", "values"):
            held = getattr(self, name)[groups]
            wide = index.expand(-1, held.shape[1], -1, held.shape[3])
            setattr(self, name, held.gather(2, wide))
        self.used = columns.shape[1]

    def join(self, other: "GroupLayer") -> None:
        """Add the groups of another layer."""
        end = max(self.used, other.used)
        for name in ("keys", "values"):
            parts = [getattr(layer, name)[:, :, : layer.used] for layer in (self, other)]
            padded = [F.pad(part, (0, 0, 0, end - part.shape[2])) for part in parts]
            setattr(self, name, torch.cat(padded))
        self.used = end

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the positions that a mask covers, and where it begins."""
        return self.used + query_length, 0

    def get_seq_length(self) -> int:
        """Return the positions held."""
        return self.used

    def get_max_length(self) -> int:
        """Return −1: there is no most."""
        return -1

    get_max_cache_shape = get_max_length  # its name in older versions of the library


@contextmanager
def only_at(model: Any, rows: Tensor, columns: Tensor) -> Iterator[None]:
    """Let a call of the model project these positions alone: its logits are [1, n, V].

    Args:
        model: of the library.
        rows: of the batch, [n].
        columns: positions in them, [n].
    """

    def select(module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][rows, columns][None], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()
