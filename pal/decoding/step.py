"""One step of the decoder for many branches: what the engine's two ways of running it share.

:mod:`pal.decoding.engine` calls it with the branches that there are, and
:mod:`pal.decoding.graphs` with room for more. Nothing here reads a tensor's values on the host, so
that a GPU need not wait.

Shapes: n branches, B rows, S slots (at least n), d model width, H heads, w width of a head,
T decoder positions, L encoder positions, V vocabulary.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pal.decoding.sampling import Sampler


def decode_step(
    decoder: Any, token: Tensor, position: Tensor, every: Tensor, *,
    own: Tensor, attend_cross: Callable[[int, Tensor], Tensor], top: int,
) -> Tensor:  # fmt: skip
    """Return the last hidden states of the decoder, [n, d], and write keys and values of its own.

    Args:
        decoder: a :class:`pal.decoding.engine.FastDecoder`.
        token: what the branches read, [n].
        position: where, below ``top`` for a branch whose result counts, [n].
        every: the numbers from 0 to n − 1, [n].
        own: keys and values of the branches' own positions, [layers, 2, S, H, T, w].
        attend_cross: function from the number of a layer and queries, [n, d], to the attention
            over the encoder states, [n, d].
        top: how many own positions are attended to.
    """
    active = len(token)
    heads, width = decoder.heads, decoder.size
    unseen = torch.arange(top, device=position.device) > position[:, None]
    mask = torch.zeros_like(unseen, dtype=own.dtype).masked_fill_(unseen, -torch.inf)
    mask = mask.repeat_interleave(heads, 0)[:, None]  # [n · H, 1, top]
    x: Tensor = decoder.embed(token, position)

    def attend_own(own: Tensor, qkv: Tensor) -> Tensor:
        parts = qkv.view(active, 3, heads, width).to(own.dtype)
        own[:, every, :, position] = parts[:, 1:]
        keys, values = own[:, :active, :, :top].flatten(1, 2).unbind()
        queries = parts[:, 0].reshape(-1, 1, width)
        return attend_by_head(queries, keys, values, mask).view(active, -1).to(qkv.dtype)

    for number, (layer, own_part) in enumerate(zip(decoder.layers, own, strict=True)):
        x = layer(x, partial(attend_own, own_part), partial(attend_cross, number))
    return x


def choose_tokens(
    decoder: Any, sampler: Sampler, options: Any, hidden: Tensor, *,
    length: Tensor, history: Tensor, keys: Tensor,
) -> Tensor:  # fmt: skip
    """Return the next token of rows, [B]; the order of operations is that of transformers.

    Args:
        decoder: a :class:`pal.decoding.engine.FastDecoder`.
        sampler: draws a token, where the options say so.
        options: how tokens are chosen.
        hidden: the decoder's last states, contrasted, [B, d].
        length: number of tokens so far, with start and strategy, [B].
        history: these tokens, and the start token behind them, [B, T].
        keys: of the rows' noise, [B].
    """
    scores = decoder.project(hidden).float()
    if options.repetition_penalty != 1.0:
        # The history is filled with the start token, which every row has.
        found = scores.gather(1, history)
        penalty = options.repetition_penalty
        scores.scatter_(1, history, torch.where(found < 0, found * penalty, found / penalty))
    if options.least:
        early = length - 2 < options.least
        scores[:, decoder.end].masked_fill_(early, -torch.inf)
    if not options.do_sample:
        return scores.argmax(-1)
    return sampler.draw(scores, keys, length)


def attend_cached(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Attend with one query per branch, [n, H, w], to keys and values [n, H, L, w]; return [n, d].

    Two matrix products and a softmax take half the time of ``scaled_dot_product_attention`` on a
    CPU, whose kernel is optimised for many queries.
    """
    scores = (queries * queries.shape[-1] ** -0.5)[:, :, None] @ keys.transpose(2, 3) + mask
    return (scores.softmax(-1) @ values).flatten(1)


def attend_by_head(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, out: Tensor | None = None
) -> Tensor:
    """Attend as :func:`attend_cached`, in three calls; heads of branches are m matrices.

    Args:
        queries: [m, 1, w].
        keys: [m, L, w].
        values: [m, L, w].
        mask: added to the scores, [m, 1, L].
        out: where the result goes, [m, 1, w].
    """
    scale = queries.shape[-1] ** -0.5
    scores = torch.baddbmm(mask, queries, keys.transpose(1, 2), alpha=scale)
    return torch.bmm(scores.softmax(-1), values, out=out)


def cache_format(like: Tensor) -> torch.dtype:
    """Return the number format of keys and values that one query a branch attends to.

    On CPUs this is float32 for models in other formats too: products of one row by a matrix take
    half as long again there in bfloat16, although they read half as much.
    """
    return torch.float32 if like.device.type == "cpu" else like.dtype
