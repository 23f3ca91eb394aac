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


def test_outputs_are_the_models():
    """In bfloat16, they are as far from float32's as those of the model itself."""
    tokenizer = small_tokenizer()
    model = build(tokenizer).eval()
    if not can_pack(model):
        pytest.skip("this CPU has no packed products")
    _, (row, *_) = encode_samples(tokenizer, model, 1)
    inputs = {name: torch.tensor([ids]) for name, ids in row.items()}
    with torch.inference_mode():
        expected = model(**inputs).logits
        assert torch.allclose(packed_model(model)(**inputs).logits, expected, atol=1e-5, rtol=1e-5)
        model.to(torch.bfloat16)
        plain, found = (one(**inputs).logits for one in (model, packed_model(model)))
    assert found.dtype == torch.bfloat16
    seen = expected.abs() < 1e4
    errors = [(one - expected)[seen].pow(2).mean().sqrt().item() for one in (plain, found)]
    assert 0 < errors[1] < 1.3 * errors[0]


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
        ("multiply_with_gelu", refuse),
        ("multiply_with_gelu", packed.multiply_reordered),
    ],
    ids=[
        "no order",
        "no product",
        "wrong numbers",
        "wrong shape",
        "wrong type",
        "no GELU",
        "GELU left out",
    ],
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


def test_gelu_is_part_of_the_product_where_the_layer_is_known(model, fast):
    for layer in fast.model.encoder.layers:
        assert layer.fc1.gelu
        assert not layer.fc2.gelu
        assert isinstance(layer.activation_fn, nn.Identity)
    assert not any(
        isinstance(layer.activation_fn, nn.Identity) for layer in model.model.encoder.layers
    )
    other = nn.Module()
    other.fc1, other.activation_fn = PackedLinear(torch.ones(2, 2), None), nn.ReLU()
    assert not packed.applies_gelu(other)
    other.activation_fn = nn.GELU()
    assert not packed.applies_gelu(other)  # who knows what it does between the two


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
