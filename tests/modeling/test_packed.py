"""A model with packed layers gives what its model gives, and shares all but the packed copies."""

import pytest
import torch
from torch import nn

from pal.modeling import packed
from pal.modeling.packed import PackedLinear, can_pack, join, packed_model
from tests.modeling.small import build, encode_samples, small_tokenizer


@pytest.fixture(scope="module")
def model():
    return build(small_tokenizer()).eval()


@pytest.fixture
def fast(model):
    if not can_pack(model):
        pytest.skip("this CPU has no packed products")
    return packed_model(model)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_outputs_are_the_models(dtype, tolerance):
    tokenizer = small_tokenizer()
    model = build(tokenizer).eval().to(dtype)
    if not can_pack(model):
        pytest.skip("this CPU has no packed products")
    _, (row, *_) = encode_samples(tokenizer, model, 1)
    inputs = {name: torch.tensor([ids]) for name, ids in row.items()}
    with torch.inference_mode():
        expected = model(**inputs).logits
        found = packed_model(model)(**inputs).logits
    assert found.dtype == dtype
    assert torch.allclose(found.float(), expected.float(), atol=tolerance, rtol=tolerance)


def test_weights_are_shared_and_the_model_stays(model, fast):
    own, shared = dict(model.named_parameters()), dict(fast.named_parameters())
    assert own.keys() == shared.keys()
    assert all(shared[name] is own[name] for name in own)
    assert fast.final_logits_bias is model.final_logits_bias
    assert not any(isinstance(module, PackedLinear) for module in model.modules())
    layers = [module for module in fast.modules() if isinstance(module, nn.Linear)]
    assert len(layers) == sum(isinstance(module, nn.Linear) for module in model.modules())
    assert all(isinstance(layer, PackedLinear) for layer in layers)


def test_only_layers_in_use_are_packed(fast):
    with torch.inference_mode():
        fast.encode(torch.tensor([[5, 6, 7]]))
    assert all(m.packed is not None for m in fast.model.encoder.modules() if hasattr(m, "packed"))
    assert all(m.packed is None for m in fast.model.decoder.modules() if hasattr(m, "packed"))


def test_elsewhere_the_model_itself_is_used(model, monkeypatch):
    monkeypatch.setattr(packed, "can_pack", lambda model: False)
    assert packed_model(model) is model


def refuse(*arguments):
    raise RuntimeError("no such operation")


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("reorder_weight", refuse),
        ("multiply_reordered", refuse),
        ("multiply_reordered", lambda x, weight, bias: x @ torch.zeros(x.shape[-1], 48)),
        ("multiply_reordered", lambda x, weight, bias: x),
        ("multiply_reordered", lambda x, weight, bias: (x @ torch.ones(x.shape[-1], 48)).half()),
    ],
    ids=["no order", "no product", "wrong numbers", "wrong shape", "wrong type"],
)
def test_operations_that_fail_or_are_wrong_leave_the_layers_plain(model, monkeypatch, name, broken):
    _, (row, *_) = encode_samples(small_tokenizer(), model, 1)
    inputs = {key: torch.tensor([ids]) for key, ids in row.items() if key != "labels"}
    ids = model.generate(**inputs, do_sample=False, max_new_tokens=8)
    monkeypatch.setattr(packed, name, broken)
    packed.products_work.cache_clear()
    try:
        assert not can_pack(model)
        assert packed_model(model) is model
        assert torch.equal(packed_model(model).generate(**inputs, do_sample=False,
                                                        max_new_tokens=8), ids)  # fmt: skip
    finally:
        monkeypatch.undo()
        packed.products_work.cache_clear()


@pytest.mark.parametrize("kind", [nn.Linear, PackedLinear])
def test_joined_layers_give_all_outputs(kind):
    torch.manual_seed(0)
    layers = [nn.Linear(6, size) for size in (4, 3)]
    x = torch.randn(5, 6)
    with torch.inference_mode():
        expected = torch.cat([layer(x) for layer in layers], dim=-1)
        parts = layers if kind is nn.Linear else [kind(of.weight, of.bias) for of in layers]
        joined = join(parts)
        assert type(joined) is kind
        assert torch.allclose(joined(x), expected, atol=1e-6)
        bias = torch.arange(4.0)
        assert torch.allclose(join(parts[:1], bias)(x), x @ layers[0].weight.T + bias, atol=1e-6)
