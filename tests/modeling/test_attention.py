"""Attention by products gives what the library's function gives, for every kind of mask."""

import copy

import pytest
import torch
from torch import nn

from pal.modeling import attention
from pal.modeling.attention import (
    product_attention,
    register,
    training_attention,
    training_products,
)
from pal.modeling.packed import can_pack, packed_model
from tests.modeling.families import build_case
from tests.modeling.small import build, small_tokenizer

KEYS = 45  # no multiple of anything
MASKS = {
    "none": None,
    "padding": lambda q: (torch.arange(KEYS) < torch.tensor([[KEYS], [30]]))[:, None, None].expand(
        -1, -1, q, -1
    ),
    "causal": lambda q: torch.ones(KEYS, KEYS).tril().bool()[None, None, KEYS - q :],
    "added": lambda q: torch.randn(2, 1, q, KEYS, generator=torch.Generator().manual_seed(1)),
}


class Layer(nn.Module):
    is_causal = False


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("queries", [1, 2, 37])
@pytest.mark.parametrize("kind", MASKS)
def test_results_are_the_librarys(kind, queries, dtype, monkeypatch):
    assert register()
    monkeypatch.setattr(attention, "SCORES", 3 * 37 * 64)  # three heads at once
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, 4, count, 24, generator=generator).to(dtype)
        for count in (queries, KEYS, KEYS)
    )
    make = MASKS[kind]
    mask = make and make(queries)
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(dtype)
    found, weights = product_attention(Layer(), query, key, value, mask, scaling=0.3)
    wanted, _ = attention._library()(Layer(), query, key, value, mask, scaling=0.3)
    assert weights is None
    assert found.dtype == dtype
    assert found.shape == wanted.shape
    tolerance = 2e-6 if dtype == torch.float32 else 3e-2
    assert torch.allclose(found.float(), wanted.float(), atol=tolerance, rtol=tolerance)


def test_a_causal_layer_without_a_mask_stays_causal():
    query, key, value = torch.randn(3, 1, 2, 40, 16).bfloat16()
    layer = Layer()
    layer.is_causal = True
    found = product_attention(layer, query, key, value, None)[0]
    cut = [part[:, :, :20] for part in (query, key, value)]
    alone = product_attention(layer, *cut, None)[0]
    assert torch.allclose(found[:, :20], alone, atol=1e-2, rtol=0)  # a shape rounds in its own way
    layer.is_causal = False
    both_ways = product_attention(layer, query, key, value, None)[0]
    assert not torch.allclose(found, both_ways, atol=0.5, rtol=0)


def error(found, wanted):
    return (found.float() - wanted).pow(2).mean().sqrt().item()


@pytest.mark.parametrize("case", ["bart", "t5", "blenderbot"])
def test_models_of_all_families_give_the_same_logits(case):
    """In bfloat16, they are as far from float32's as those of the model itself."""
    model = build_case(case).eval()
    if not can_pack(model):
        pytest.skip("this CPU has no packed products")
    ids = torch.randint(4, 40, (3, 21), generator=torch.Generator().manual_seed(2))
    mask = (torch.arange(21) < torch.tensor([[21], [9], [14]])).long()
    call = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": ids[:, :7]}
    with torch.inference_mode():
        wanted = model(**call).logits
        assert torch.allclose(packed_model(model)(**call).logits, wanted, atol=1e-5, rtol=1e-5)
        half = copy.deepcopy(model).bfloat16()
        plain, found = (error(one(**call).logits, wanted) for one in (half, packed_model(half)))
    assert 0 < found < 1.3 * plain


def test_the_model_keeps_its_own_attention(monkeypatch):
    model = build(small_tokenizer()).eval()
    if not can_pack(model):
        pytest.skip("this CPU has no packed products")
    assert packed_model(model).config._attn_implementation == attention.NAME
    assert model.config._attn_implementation == "sdpa"
    monkeypatch.setattr(attention, "product_attention", lambda *args, **settings: args[1:2])
    assert packed_model(model).config._attn_implementation == "sdpa"


@pytest.mark.parametrize("shared", [1, 2])
@pytest.mark.parametrize("kind", ["none", "padding", "causal"])
def test_gradients_in_training_are_the_librarys(kind, shared, monkeypatch):
    monkeypatch.setattr(attention, "SCORES", 3 * 37 * KEYS)  # three heads at once
    generator = torch.Generator().manual_seed(0)
    given = [
        torch.randn(2, heads, count, 24, generator=generator).bfloat16().requires_grad_()
        for heads, count in ((4, 37), (4 // shared, KEYS), (4 // shared, KEYS))
    ]
    layer = Layer()
    layer.num_key_value_groups = shared
    mask = MASKS[kind] and MASKS[kind](37)
    results = []
    for attend in (training_attention, attention._library()):
        out = attend(layer, *given, mask, scaling=0.3)[0].float()
        results.append((out, *torch.autograd.grad((out**2).sum(), given)))
    for found, wanted in zip(*results, strict=True):
        assert (found - wanted).norm() < 0.02 * wanted.norm()


def test_a_model_attends_by_products_only_while_it_trains_in_bf16(monkeypatch):
    model = build(small_tokenizer())
    calls = []

    def counted(*given, **settings):
        calls.append(1)
        return training_attention(*given, **settings)

    monkeypatch.setattr(attention, "training_attention", counted)
    register.cache_clear()
    inputs = {"input_ids": torch.arange(24).view(2, 12) % 9 + 5, "labels": torch.ones(2, 4).long()}
    for wanted in (False, True):
        with training_products(model, wanted), torch.autocast("cpu", torch.bfloat16):
            model(**inputs).loss.backward()
        assert bool(calls) == wanted
        assert model.config._attn_implementation == "sdpa"
    monkeypatch.undo()
    register.cache_clear()
    assert register()
