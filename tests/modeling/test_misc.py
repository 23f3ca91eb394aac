"""MISC on small models: what a row depends on, what knowledge does, and how it is decoded."""

from dataclasses import replace

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    BlenderbotSmallConfig,
    BlenderbotSmallForConditionalGeneration,
)

from pal.core.errors import ConfigError
from pal.data.knowledge import Knowledge
from pal.data.misc import MISC_TOKENS, add_misc_tokens
from pal.data.samples import build_samples
from pal.data.tokenizer import load_tokenizer
from pal.decoding.settings import DecodingSettings
from pal.modeling import checkpoint
from pal.modeling.backbones import BACKBONES
from pal.modeling.backbones.misc import Misc
from pal.modeling.losses import token_losses
from pal.modeling.responder import make_responder
from pal.modeling.settings import ArchitectureSettings
from tests.modeling.families import published
from tests.modeling.small import bundled_dialogues, small_tokenizer

MODES = ["paper", "released"]
SIZES = {
    "d_model": 48, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "dropout": 0.0,
    "init_std": 0.15, "max_position_embeddings": 256,
}  # fmt: skip
LIMITS = {"max_context_tokens": 200, "max_persona_tokens": 16, "max_target_tokens": 60}
TAILS = ("sad", "tired of it", "to rest", "lonely and afraid", "to find a new job soon", "worried")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    small_tokenizer().save_pretrained(folder)
    return add_misc_tokens(load_tokenizer(folder))


def build(tokenizer, mode="paper", *, knowledge=True, persona_mode=None):
    torch.manual_seed(15)
    settings = ArchitectureSettings(misc_mode=mode, persona_mode=persona_mode)
    model = checkpoint.build_response_model(
        base="", from_scratch={"model_type": "misc", **SIZES}, vocab_size=len(tokenizer),
        pal_settings={
            **Misc.own_entries(settings, knowledge=knowledge), **Misc.token_entries(tokenizer),
            **LIMITS,
        },
    )  # fmt: skip
    with torch.no_grad():  # statistics as training leaves them
        if mode == "released":
            model.model.encoder.batchNorm_strategy.running_var.fill_(0.4)
    return model.eval()


def samples_of(count=10):
    """Samples with zero to six blocks on the turn, and none to three on the situation."""
    chosen = build_samples(bundled_dialogues(), "training")[20 : 20 + count]
    blocks = [f"[xReact] {tail}" for tail in TAILS]
    return [
        replace(sample, knowledge=Knowledge(
            tuple(blocks[: place % 7]), tuple(blocks[place % 4 : 2 * (place % 4)])
        ))
        for place, sample in enumerate(chosen)
    ]  # fmt: skip


def batch_of(model, tokenizer, samples):
    encoder, collate = model.make_encoder(tokenizer), model.make_collator()
    return collate([encoder.encode(sample) for sample in samples])


@pytest.mark.parametrize("mode", MODES)
@torch.no_grad()
def test_a_row_has_the_same_logits_in_every_batch(tokenizer, mode):
    model, samples = build(tokenizer, mode), samples_of()
    # The released attention to blocks is that sharp: it magnifies rounding.
    most = 1e-5 if mode == "paper" else 5e-5
    together = model(**batch_of(model, tokenizer, samples))
    for index, sample in enumerate(samples):
        alone = model(**batch_of(model, tokenizer, [sample]))
        row = together.logits[index, : alone.logits.shape[1], : alone.logits.shape[2]]
        assert (row - alone.logits[0])[1:].abs().max() <= most
        assert (together.strategy_logits[index] - alone.strategy_logits[0]).abs().max() <= most
    assert together.logits[:, 1:].std() > 0.3
    assert together.strategy_logits.std(0).max() > 0.05


def test_in_training_too_the_paper_knows_no_batch_and_the_released_code_does(tokenizer):
    samples = samples_of()
    for mode in MODES:
        model = build(tokenizer, mode).train()
        with torch.no_grad():
            together = model(**batch_of(model, tokenizer, samples)).strategy_logits[2:4]
            pair = model(**batch_of(model, tokenizer, samples[2:4])).strategy_logits
        assert ((together - pair).abs().max() <= 1e-5) == (mode == "paper")


@torch.no_grad()
def test_an_absent_stream_contributes_nothing_to_the_paper(tokenizer):
    model, sample = build(tokenizer), samples_of()[0]
    empty = replace(sample, knowledge=Knowledge())
    other = replace(sample, knowledge=samples_of()[5].knowledge)
    batch = batch_of(model, tokenizer, [empty, other])
    logits = model(**batch).logits
    assert torch.isfinite(logits).all()
    assert not torch.allclose(logits[0, 1:], logits[1, 1:])
    without = model(**{name: t[:1] for name, t in batch.items() if "blocks" not in name}).logits
    assert (without[0, 1:] - logits[0, 1:]).abs().max() <= 1e-5
    for name in ("refine_utterance", "refine_situation"):
        torch.nn.init.normal_(getattr(model.model.encoder, name).norm.bias)
    changed = model(**batch).logits
    assert (changed[0, 1:] - logits[0, 1:]).abs().max() <= 1e-5
    assert not torch.allclose(changed[1, 1:], logits[1, 1:])


@pytest.mark.parametrize("mode", MODES)
def test_every_weight_is_trained(tokenizer, mode):
    for knowledge in (True, False):
        model = build(tokenizer, mode, knowledge=knowledge).train()
        batch = batch_of(model, tokenizer, samples_of())
        assert ("utterance_blocks" in batch) == knowledge
        model(**batch).loss.backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_blocks_get_a_gradient_in_the_paper_alone(tokenizer):
    for mode in MODES:
        model = build(tokenizer, mode).train()
        states = model.encode_blocks(batch_of(model, tokenizer, samples_of())["utterance_blocks"])
        assert states.states.requires_grad == (mode == "paper")


@pytest.mark.parametrize("mode", MODES)
def test_losses_of_halves_add_up(tokenizer, mode):
    model = build(tokenizer, mode)
    batch = batch_of(model, tokenizer, samples_of(4))
    whole = model(**batch)
    kept = batch["labels"] != -100
    nats = torch.nn.functional.cross_entropy(
        whole.logits.transpose(1, 2), batch["labels"], reduction="none", ignore_index=-100
    )
    words = nats[:, 1:].sum() / (kept.sum() - len(kept))
    assert torch.allclose(whole.loss, words + nats[:, 0].mean(), atol=1e-5)
    half = model(**batch, num_items_in_batch=2 * kept.sum(), skip_logits=True)
    assert torch.allclose(2 * half.loss, whole.loss, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_decoding_is_that_of_whole_passes(tokenizer, mode):
    """Greedy tokens with the cache, against the arg-max of a forward pass for each."""
    model, samples = build(tokenizer, mode), samples_of(6)
    batch = batch_of(model, tokenizer, samples)
    batch.pop("labels")
    options = {"do_sample": False, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0,
               "min_new_tokens": 0, "max_new_tokens": 8}  # fmt: skip
    for given in (None, [0, 7, 3, 1, 4, 2]):
        output = model.generate(
            **batch, **({} if given is None else {"strategy": given}), **options,
            return_strategies=True,
        )  # fmt: skip
        rows = model.start_tokens(6)
        ids = None if given is None else torch.tensor(given)
        for _ in range(output.sequences.shape[1] - 2):
            with torch.no_grad():
                logits = model(**batch, decoder_input_ids=rows, strategies=ids).logits[:, -1]
            logits[:, model.suppressed_tokens()] = -torch.inf
            rows = torch.cat([rows, logits.argmax(-1, keepdim=True)], dim=1)
        for ours, theirs in zip(output.sequences.tolist(), rows.tolist(), strict=True):
            words = ours[2:]
            end = words.index(2) + 1 if 2 in words else len(words)
            assert words[:end] == theirs[1 : end + 1]
        if given is not None:
            assert output.strategy_ids.tolist() == given


@pytest.mark.parametrize("mode", MODES)
def test_records_depend_on_no_batch_mates(tokenizer, mode):
    model, samples = build(tokenizer, mode), samples_of(12)
    for options in ({}, {"strategy": "sample"}, {"strategy": "gold", "do_sample": False}):
        decoding = DecodingSettings(max_new_tokens=10, min_new_tokens=2, **options)
        responder = make_responder(model, tokenizer, decoding, 7)
        encoded = responder.encode(samples)
        records = responder.answer(samples, encoded, rows=5, tokens=4000)
        alone = responder.answer(samples[3:4], encoded[3:4], rows=1, tokens=4000)
        assert [record["id"] for record in records] == [sample.id for sample in samples]
        assert records[3].pop("strategy_probs") == pytest.approx(
            alone[0].pop("strategy_probs"), abs=5e-5
        )
        assert records[3] == alone[0]
        assert len({record["response"] for record in records}) > 3
        assert not any(mark in r["response"] for r in records for mark in MISC_TOKENS)
        if options.get("strategy") == "gold":
            assert all(r["strategy"] == r["reference_strategy"] for r in records)


@pytest.mark.parametrize("mode", MODES)
def test_token_losses_are_those_of_forward(tokenizer, mode):
    model, samples = build(tokenizer, mode), samples_of(7)
    found = token_losses(model, tokenizer, samples)
    for index, sample in enumerate(samples):
        batch = batch_of(model, tokenizer, [sample])
        with torch.no_grad():
            output = model(**batch)
        words = batch["labels"].shape[1] - 1
        nats = float(output.strategy_loss + words * (output.loss - output.strategy_loss))
        assert found["token_nll"][index] == pytest.approx(nats, rel=1e-4)
        assert found["strategy_nll"][index] == pytest.approx(float(output.strategy_loss), rel=1e-3)
        assert found["token_count"][index] == words + 1


@pytest.mark.parametrize("mode", MODES)
def test_it_is_saved_and_recognised(tokenizer, mode, tmp_path):
    model = build(tokenizer, mode)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    batch = batch_of(model, tokenizer, samples_of(3))
    wanted = model(**batch).logits
    for again in (
        checkpoint.load_response_model(str(tmp_path)),
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval(),
    ):
        assert type(again) is type(model)
        assert torch.equal(wanted, again(**batch).logits)
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == again.config.to_dict()


def test_impossible_configurations_are_refused_in_one_line(tokenizer, tmp_path):
    import json

    from pal.core.errors import CheckpointError

    build(tokenizer).save_pretrained(tmp_path)
    entries = json.loads((tmp_path / "config.json").read_text())
    for name, value, message in (
        ("misc_mode", "best", "misc_mode='best' is none of paper, released"),
        ("block_tokens", 0, "block_tokens=0 is not a number"),
        ("with_knowledge", 3, "with_knowledge is neither true nor false"),
        ("persona_mode", "fusion", "MISC sees no persona"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**entries, name: value}))
        with pytest.raises(CheckpointError, match=message) as caught:
            checkpoint.load_response_model(str(tmp_path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", MODES)
def test_it_starts_from_a_published_base(mode, tmp_path):
    size = 90
    config = BlenderbotSmallConfig(vocab_size=size, **SIZES)
    theirs = BlenderbotSmallForConditionalGeneration(config)
    theirs.save_pretrained(tmp_path)
    settings = ArchitectureSettings(misc_mode=mode)
    model = checkpoint.build_response_model(
        base=str(tmp_path), from_scratch=None, vocab_size=size + 18, backbone_name="misc",
        pal_settings={
            **Misc.own_entries(settings, knowledge=True), "strategy_token_ids": list(range(8)),
            "special_token_ids": [0],
        },
    )  # fmt: skip
    assert torch.equal(model.model.shared.weight[:size], theirs.model.shared.weight)
    assert model.lm_head.weight is model.model.shared.weight
    state = model.state_dict()
    for name, weight in theirs.state_dict().items():
        if "layers" in name:
            assert torch.equal(state[name], weight)
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
    if mode == "released":
        norm = model.model.encoder.batchNorm_strategy
        assert norm.running_var.tolist() == [1.0] * 8
        added = model.model.encoder.layers[0].muAttn.q_proj
        assert added.weight.std().item() == pytest.approx(SIZES["init_std"], rel=0.2)
        assert not added.bias.any()
    published("bart").save_pretrained(tmp_path / "bart")
    with pytest.raises(checkpoint.CheckpointError, match="builds on blenderbot-small models"):
        checkpoint.find_backbone(str(tmp_path / "bart"), None, "misc")


def test_settings_of_other_models_are_refused():
    other = ArchitectureSettings(misc_mode="released")
    with pytest.raises(ConfigError, match=r"architecture\.misc_mode is for MISC"):
        BACKBONES["bart"].own_entries(other, knowledge=False)
    with pytest.raises(ConfigError, match=r"only MISC reads data\.knowledge"):
        BACKBONES["bart"].own_entries(ArchitectureSettings(), knowledge=True)
    with pytest.raises(ConfigError, match="MISC sees no persona"):
        Misc.own_entries(ArchitectureSettings(persona_mode="fusion"), knowledge=True)


def test_what_misc_cannot_decode_is_refused(tokenizer):
    model = build(tokenizer)
    batch = batch_of(model, tokenizer, samples_of(2))
    batch.pop("labels")
    for options, message in (
        ({"num_beams": 3, "do_sample": False}, "give num_beams=1"),
        ({"alpha": 0.5}, "alpha is not taken: MISC has no second branch"),
        ({"max_new_tokens": 400}, "do not fit the model's 256 positions"),
        ({"guidance_scale": 2.0}, "guidance_scale is not taken"),
        ({"sample_ids": ["a"]}, "got 1 sample_ids for 2 rows"),
    ):
        with pytest.raises(ValueError, match=message):
            model.generate(**batch, **options)
    with pytest.raises(ConfigError, match=r"num_beams"):
        make_responder(model, tokenizer, DecodingSettings(num_beams=2, do_sample=False), 1)
