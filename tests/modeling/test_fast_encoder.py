"""Texts encoded one behind the other have the model's states, whatever texts come with them."""

import copy

import pytest
import torch

from pal.modeling import attention
from pal.modeling.attention import attend_to_itself
from pal.modeling.backbones import blenderbot_small
from pal.modeling.encoding import encode_sorted
from pal.modeling.packed import can_pack, packed_model
from tests.modeling.small import build, encode_samples, small_tokenizer

LENGTHS = (1, 2, 15, 16, 17, 40, 77, 130)


@pytest.fixture(scope="module")
def model():
    model = build(small_tokenizer())
    if not can_pack(model):
        pytest.skip("this CPU has no packed products")
    return model


@pytest.fixture(scope="module")
def texts():
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(5, 300, (count,), generator=generator).tolist() for count in LENGTHS]


def plain_states(model, text):
    ids = torch.tensor([text])
    with torch.inference_mode():
        return model.encode_text(ids, torch.ones_like(ids))[0].float()


def error(found, wanted):
    return (found.float() - wanted).pow(2).mean().sqrt().item()


def test_states_are_the_models(model, texts):
    """In bfloat16, they are as far from float32's as those of the model itself."""
    half = copy.deepcopy(model).bfloat16()
    with torch.inference_mode():
        found, found_half = (packed_model(one).fast_encoder()(texts) for one in (model, half))
    errors = [0.0, 0.0]
    for text, states, half_states in zip(texts, found, found_half, strict=True):
        wanted = plain_states(model, text)
        assert torch.allclose(states, wanted, atol=2e-5, rtol=1e-5)
        assert half_states.dtype == torch.bfloat16
        errors[0] += error(plain_states(half, text), wanted)
        errors[1] += error(half_states, wanted)
    assert 0 < errors[1] < 1.3 * errors[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("most", [20, 100, 4096])
def test_bits_do_not_depend_on_other_texts(model, texts, dtype, most, monkeypatch):
    encoder = packed_model(copy.deepcopy(model).to(dtype)).fast_encoder()
    with torch.inference_mode():
        alone = [encoder([text])[0] for text in texts]
        monkeypatch.setattr(blenderbot_small, "MOST_ENCODED", most)
        together = encoder(texts[::-1])[::-1]
    assert all(torch.equal(*pair) for pair in zip(alone, together, strict=True))


def test_texts_without_tokens_have_no_states_and_too_long_ones_are_refused(model):
    encoder = packed_model(model).fast_encoder()
    with torch.inference_mode():
        assert [len(states) for states in encoder([[], [5, 6], []])] == [0, 2, 0]
        with pytest.raises(ValueError, match="513 positions and the model 512"):
            encoder([[5], [5] * 513])


def test_only_packed_layers_that_do_not_train_encode_so(model):
    assert model.fast_encoder() is None
    packed = packed_model(model)
    assert packed.fast_encoder() is packed.fast_encoder()
    packed.train()
    try:
        assert packed.fast_encoder() is None
    finally:
        packed.eval()


def test_what_decoding_reads_is_what_the_model_encodes(model, monkeypatch):
    _, rows = encode_samples(small_tokenizer(), model, 6)
    rows = [{name: ids for name, ids in row.items() if name != "labels"} for row in rows]
    packed, calls = packed_model(model), []

    def encode():
        found = {}
        with torch.inference_mode():
            for group, encoded in encode_sorted(packed, rows):
                for place, index in enumerate(group):
                    found[index] = [part[place] for part in encoded]
        return found

    packed.get_encoder().register_forward_pre_hook(lambda *given: calls.append(1))
    fast = encode()
    assert not calls
    monkeypatch.setattr(type(packed), "fast_encoder", lambda self: None)
    slow = encode()
    assert calls
    for index, (states, mask, dialogue, dialogue_mask) in fast.items():
        wanted = slow[index]
        assert torch.equal(mask, wanted[1])
        assert torch.equal(dialogue_mask, wanted[3])
        for one, other, kept in ((states, wanted[0], mask), (dialogue, wanted[2], dialogue_mask)):
            assert torch.allclose(one[kept.bool()], other[kept.bool()], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [0.01, 1.0, 8.0, 400.0])
def test_scores_of_any_size_are_attended_to_as_by_a_softmax(size, dtype, monkeypatch):
    """The largest ones here are far beyond what a power of two can hold."""
    qkv = torch.randn(45, 3, 4, 24, generator=torch.Generator().manual_seed(1)).to(dtype)
    qkv[:, :2] *= size**0.5
    query, key, value = qkv.float().transpose(0, 2).unbind(1)
    scores = query @ key.transpose(1, 2) * 24**-0.5
    assert (scores.abs().max() > 300) == (size == 400)
    wanted = (scores.softmax(-1) @ value).transpose(0, 1).flatten(1)
    scratch, found = torch.empty(4 * 45 * 45, dtype=dtype), []
    for safe in (attention.SAFE, 1.0):  # of the latter, no sum is safe
        monkeypatch.setattr(attention, "SAFE", safe)
        found.append(torch.full((45, 96), torch.nan, dtype=dtype))
        attend_to_itself(qkv.flatten(1), 4, found[-1], scratch)
    assert torch.equal(*found) == (size == 400)
    if dtype == torch.float32:
        assert torch.allclose(found[0], wanted, atol=1e-4)
        return
    # Of the results without a softmax, one more is rounded.
    assert error(found[0], wanted) < 1.5 * error(found[1], wanted)
