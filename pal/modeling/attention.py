"""Attention by two matrix products and a softmax, on CPUs: of packed models, and in training.

The library's choice, ``scaled_dot_product_attention``, has one kernel for CPUs. For one query a
row, as in a step of decoding, it takes about twice as long as the products; and in bfloat16 it
takes as long as in float32, where oneDNN's products take a sixth, or with gradients less than half.
In float32 with many queries its kernel stays, but for texts that are encoded without padding:
there :func:`attend_to_itself` needs no mask, and no maximum of the scores.

Shapes: B rows, H heads, Q queries, K keys, w width of a head.
"""

import contextlib
import logging
import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

logger = logging.getLogger(__name__)

# By which the library knows them.
NAME = "pal_products"
TRAINING = "pal_products_training"

MULTIPLE = 32  # keys are padded to multiples of this: torch's softmax is half as fast elsewhere
SCORES = 2**21  # computed at once; more take twice as long, since they leave the cache
UNKNOWN = ("position_bias", "softcap", "cache")  # what else the library may ask for
NEVER = -1e30  # added to the scores of keys that are not to be seen
SAFE = 2.0**100  # sums of powers up to this are exact enough, and from its inverse on


def product_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, **settings: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attend; arguments and results are those of the library's attention functions.

    What the products cannot do, or do no faster, is left to the library's function.

    Args:
        module: the attention layer.
        query: [B, H, Q, w].
        key: [B, H, K, w].
        value: [B, H, K, w].
        attention_mask: true where a query sees a key, or what is added to scores, [B, 1, Q, K].
        scaling: of the scores; w^−½ by default.
        dropout: share of scores that training leaves out.
        **settings: what else the library passes.

    Returns:
        [B, Q, H, w], and None for the weights.
    """
    if not _suits(module, query, key, attention_mask, dropout, settings):
        return _library()(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **settings
        )  # type: ignore[no-any-return]
    query = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if query.shape[2] == 1:
        scores = query @ key.transpose(2, 3)
        if attention_mask is not None:
            scores = scores + _as_added(attention_mask, scores.dtype)
        return (scores.softmax(-1) @ value).transpose(1, 2), None
    return _attend_all(query, key, value, attention_mask).transpose(1, 2).contiguous(), None


def _suits(
    module: Any, query: Tensor, key: Tensor, mask: Tensor | None, dropout: float,
    settings: dict[str, Any],
) -> bool:  # fmt: skip
    """Return whether the products give what the library's function would, and faster."""
    one = query.shape[2] == 1
    if not (one or query.dtype == torch.bfloat16) or query.shape[:2] != key.shape[:2] or dropout:
        return False
    if any(settings.get(name) is not None for name in UNKNOWN):
        return False
    if mask is not None and mask.shape[1] != 1:
        return False
    causal = settings.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    return one or mask is not None or not causal


def _attend_all(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Return the attention of many queries, [B, H, Q, w].

    A mask that is the same for all queries takes part in the first product, as one more entry of
    each key, which a one in each query meets: an addition to all scores would take as long as the
    product does.
    """
    rows, heads, queries, width = query.shape
    count = key.shape[2]
    padded = -(-count // MULTIPLE) * MULTIPLE
    alike = mask is None or mask.shape[2] == 1 or bool((mask == mask[:, :, :1]).all())
    wide_query = query.new_zeros(rows, heads, queries, width + 2)
    wide_query[..., :width] = query
    wide_query[..., width] = 1
    wide_key = key.new_zeros(rows, heads, padded, width + 2)
    wide_key[:, :, :count, :width] = key
    wide_key[:, :, count:, width] = NEVER
    if mask is not None and alike:
        wide_key[:, :, :count, width] = _as_added(mask[:, :, 0], key.dtype)
    values = value.new_zeros(rows, heads, padded, width)
    values[:, :, :count] = value
    added = None
    if mask is not None and not alike:
        added = _as_added(mask, key.dtype).expand(rows, heads, queries, count).flatten(0, 1)
    parts, some = [], max(1, SCORES // (queries * padded))
    flat = [part.flatten(0, 1) for part in (wide_query, wide_key, values)]
    for first in range(0, rows * heads, some):
        its_query, its_key, its_value = (part[first : first + some] for part in flat)
        scores = its_query @ its_key.transpose(1, 2)  # [some, Q, padded]
        if added is not None:
            scores[..., :count] += added[first : first + some]
        parts.append(scores.softmax(-1) @ its_value)
    return torch.cat(parts).view(rows, heads, queries, width)


def attend_to_itself(qkv: Tensor, heads: int, out: Tensor, scratch: Tensor) -> None:
    """Attention of one text to itself, all of whose positions see each other.

    In bfloat16 a softmax takes longer than both products, in float32 as long as one. So scores are
    not reduced by their maximum and not divided by their sum: powers of two are summed, and the sum
    divides the result. Only where scores are so large or small that powers would overflow or vanish
    is it a softmax.

    Args:
        qkv: queries, keys and values, [L, 3 · H · w].
        heads: H.
        out: where the result goes, [L, H · w].
        scratch: room for scores, at least H · L · L numbers.
    """
    length = len(qkv)
    parts = qkv.view(length, 3, heads, -1).permute(1, 2, 0, 3)
    result = out.view(length, heads, -1).transpose(0, 1)
    scale = parts.shape[-1] ** -0.5
    query, key, value = parts.contiguous().unbind()  # [H, L, w]
    powers = scratch[: heads * length * length].view(heads, length, length)
    torch.baddbmm(
        powers, query, key.transpose(1, 2), beta=0, alpha=scale * math.log2(math.e), out=powers
    )
    total = powers.exp2_().sum(-1, keepdim=True, dtype=torch.float32)
    low, high = torch.aminmax(total)
    if low > 1 / SAFE and high < SAFE:
        torch.div(powers @ value, total, out=result)
    else:
        torch.baddbmm(powers, query, key.transpose(1, 2), beta=0, alpha=scale, out=powers)
        result.copy_(powers.softmax(-1) @ value)


def training_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, **settings: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attend in bfloat16, with gradients; arguments and results as :func:`product_attention`'s.

    Keys may have fewer heads than queries, each for as many neighbours. Masks that the library left
    out, dropout and few queries stay the library's.
    """
    alike = attention_mask is not None and attention_mask.shape[1] == 1
    odd = any(settings.get(name) is not None for name in UNKNOWN)
    if not alike or odd or dropout or query.shape[2] == 1:
        return _library()(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **settings
        )  # type: ignore[no-any-return]
    rows, heads, queries, width = query.shape
    count, each = key.shape[2], heads // key.shape[1]
    query = query * (width**-0.5 if scaling is None else scaling)
    its_query, its_key, its_value = (
        part.to(torch.bfloat16).flatten(0, 1)
        for part in (
            query, key.repeat_interleave(each, 1), value.repeat_interleave(each, 1),
        )
    )  # fmt: skip
    added = _as_added(attention_mask, torch.bfloat16)  # type: ignore[arg-type]
    added = added.expand(rows, heads, queries, count).flatten(0, 1)
    parts, some = [], max(1, SCORES // (queries * count))
    for first in range(0, rows * heads, some):
        part = slice(first, first + some)
        scores = torch.baddbmm(added[part], its_query[part], its_key[part].transpose(1, 2))
        parts.append(scores.softmax(-1, dtype=torch.bfloat16) @ its_value[part])
    found = torch.cat(parts).view(rows, heads, queries, width)
    return found.transpose(1, 2).contiguous(), None


def _as_added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask as what is added to scores."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, NEVER)


def _library() -> Any:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    return ALL_ATTENTION_FUNCTIONS["sdpa"]


@cache
def register() -> bool:
    """Make the attention known to the library; return whether it can be."""
    try:
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import sdpa_mask

        for name, attend in ((NAME, product_attention), (TRAINING, training_attention)):
            AttentionInterface.register(name, attend)
            AttentionMaskInterface.register(name, sdpa_mask)
    except Exception as error:  # another version of the library may have other names
        logger.debug("attention stays the library's: %s", error)
        return False
    return True


@torch.no_grad()
def attention_works(dtype: torch.dtype) -> bool:
    """Return whether the products give what the library's function gives, on a small case."""
    if not register():
        return False
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, 3, count, 16, generator=generator).to(dtype) for count in (9, 21, 21)
    )
    mask = torch.ones(2, 1, 1, 21, dtype=torch.bool)
    mask[1, :, :, 15:] = False
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    try:
        for queries in (query, query[:, :, :1]):
            seen = mask.expand(-1, -1, queries.shape[2], -1)
            found = product_attention(None, queries, key, value, seen)[0].transpose(1, 2)
            wanted = F.scaled_dot_product_attention(queries, key, value, attn_mask=seen)
            if not torch.allclose(found.float(), wanted.float(), atol=tolerance, rtol=tolerance):
                return False
    except Exception as error:
        logger.debug("attention stays the library's: %s", error)
        return False
    return True


def use_products(model: Any) -> None:
    """Let a model attend by products, where it attends by the library's own choice until now.

    Args:
        model: of the library; its configuration must be its own.
    """
    if getattr(model.config, "_attn_implementation", None) != "sdpa":
        return
    if not attention_works(model.dtype):
        return
    try:
        model.set_attn_implementation(NAME)
    except Exception as error:  # a family whose attention is its own
        logger.debug("attention stays the library's: %s", error)


@contextlib.contextmanager
def training_products(model: Any, wanted: bool) -> Iterator[None]:
    """Let a model train with attention by products, where it attends by the library's own choice.

    Args:
        model: of the library; its configuration is again as it was when the block ends.
        wanted: whether products are computed in bfloat16 on a CPU, where this is faster.
    """
    before = getattr(model.config, "_attn_implementation", None)
    changed = wanted and before == "sdpa" and register()
    if changed:
        try:
            model.set_attn_implementation(TRAINING)
        except Exception as error:  # a family whose attention is its own
            logger.debug("attention stays the library's: %s", error)
            changed = False
    try:
        yield
    finally:
        if changed:
            model.set_attn_implementation(before)
