"""Another family behind the same interface: one class, no fast decoder, the same results."""

from typing import ClassVar

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration

from pal.core.registry import Registry
from pal.decoding.settings import DecodingSettings
from pal.modeling import auto, backbones, checkpoint, configuration, responder
from pal.modeling.backbones import BACKBONES
from pal.modeling.backbones.base import Backbone
from pal.modeling.configuration import PalConfig, PalEntries
from pal.modeling.pal import PalMixin
from pal.modeling.responder import make_responder
from tests.modeling.small import build, collate, encode_samples, small_tokenizer

SIZES = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
}  # fmt: skip


class PalBartConfig(PalEntries, BartConfig):
    model_type = "pal-bart"
    backbone = "bart"
    forced_eos_token_id: int | list[int] | None = None


class PalBart(PalMixin, BartForConditionalGeneration):
    config_class = PalBartConfig

    def project(self, hidden):
        return self.lm_head(hidden) + self.final_logits_bias


class Bart(Backbone):
    name = "bart"
    config_class = PalBartConfig
    model_class = PalBart
    tokenizer_class = type(small_tokenizer())
    sizes: ClassVar = {"pad_token_id": 0, "bos_token_id": 1, "decoder_start_token_id": 1}


@pytest.fixture
def with_bart(monkeypatch):
    table = Registry("backbone", {**dict(BACKBONES), "bart": Bart})
    for module in (backbones, checkpoint, responder):
        monkeypatch.setattr(module, "BACKBONES", table)
    monkeypatch.setattr(configuration, "CONFIGURATIONS", (PalConfig, PalBartConfig))
    auto.register_configurations()


def build_bart(**more):
    torch.manual_seed(3)
    tokenizer = small_tokenizer()
    return checkpoint.build_response_model(
        base="", from_scratch={"model_type": "bart", **SIZES, **more}, vocab_size=len(tokenizer),
        pal_settings=Bart.token_entries(tokenizer),
    ).eval()  # fmt: skip


def test_it_is_built_saved_and_recognised(with_bart, tmp_path):
    model = build_bart()
    assert isinstance(model, PalBart)
    assert model.config.alpha == PalConfig().alpha
    model.save_pretrained(tmp_path)
    again = checkpoint.load_response_model(str(tmp_path))
    assert isinstance(again, PalBart)
    batch = collate(again, encode_samples(small_tokenizer(), again, 3)[1])
    assert torch.equal(model(**batch).logits, again(**batch).logits)


def test_a_published_base_of_the_family_keeps_its_weights(with_bart, tmp_path):
    theirs = BartForConditionalGeneration(BartConfig(vocab_size=90, **SIZES))
    theirs.save_pretrained(tmp_path)
    model = checkpoint.build_response_model(
        base=str(tmp_path), from_scratch=None, vocab_size=100, pal_settings={}
    )
    assert isinstance(model, PalBart)
    fc1 = "model.decoder.layers.0.fc1.weight"
    assert torch.equal(model.state_dict()[fc1], theirs.state_dict()[fc1])
    assert model.model.shared.weight.shape == (100, 16)
    assert model.lm_head.weight is model.model.shared.weight


def test_it_trains_and_contrasts(with_bart):
    model = build_bart(init_std=0.4)
    batch = collate(model, encode_samples(small_tokenizer(), model, 6)[1])
    model(**batch).loss.backward()
    assert all(p.grad is not None for p in model.fusion.parameters())
    batch.pop("labels"), batch.pop("decoder_input_ids")
    strategies = [1, 0, 5, 7, 4, 2]
    fast = model.generate(**batch, strategy=strategies, do_sample=False, min_new_tokens=5,
                          max_new_tokens=5, repetition_penalty=1.0)  # fmt: skip
    alpha = torch.tensor(model.config.alpha)[strategies][:, None]
    plain = {name: batch[name] for name in ("input_ids", "attention_mask")}
    tokens = torch.tensor(model.config.strategy_token_ids)[strategies]
    rows = torch.stack([torch.full_like(tokens, 1), tokens], dim=1)
    with torch.no_grad():
        for _ in range(5):
            one = model(**batch, decoder_input_ids=rows).logits[:, -1]
            two = model(**plain, decoder_input_ids=rows).logits[:, -1]
            logits = (1 + alpha) * one - alpha * two
            logits[:, [*model.suppressed_tokens(), model.config.eos_token_id]] = -torch.inf
            rows = torch.cat([rows, logits.argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(fast, rows)


@pytest.mark.parametrize("strategy", ["argmax", "sample", "gold", "Information"])
def test_records_are_the_same_without_a_fast_decoder(strategy, monkeypatch):
    model, tokenizer = build(small_tokenizer()), small_tokenizer()
    model.final_logits_bias[0, model.config.eos_token_id] = 3.0
    samples, _ = encode_samples(tokenizer, model, 30)
    decoding = DecodingSettings(strategy=strategy, max_new_tokens=10, min_new_tokens=2)

    def answer():
        answers = make_responder(model, tokenizer, decoding, 7)
        encoded = answers.encode(samples)
        with torch.inference_mode():
            return answers.answer(samples, encoded, rows=8, tokens=2000)

    fast = answer()
    monkeypatch.setattr(type(model), "fast_decoder", PalMixin.fast_decoder)
    slow = answer()
    for one, two in zip(fast, slow, strict=True):
        assert one.pop("strategy_probs") == pytest.approx(two.pop("strategy_probs"), abs=1e-4)
        assert one == two
    assert len({record["response"] for record in fast}) > 3
