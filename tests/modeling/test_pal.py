import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

from pal import PalConfig, PalForConditionalGeneration
from pal.core.errors import ConfigError
from pal.modeling.fusion import FUSIONS, attend, build_fusion
from tests.modeling.small import build, collate, encode_samples, small_tokenizer

GREEDY = {"do_sample": False, "min_new_tokens": 3, "max_new_tokens": 12}
SAMPLED = {"do_sample": True, "temperature": 0.9, "top_k": 20, "top_p": 0.95, "max_new_tokens": 12}


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return build(tokenizer)


@pytest.fixture(scope="module")
def encoded(tokenizer, model):
    return encode_samples(tokenizer, model, 50)[1]


@torch.no_grad()
def test_logits_of_a_sample_are_the_same_alone_and_in_any_batch(model, encoded):
    worst = 0.0
    for start in range(0, 50, 10):
        group = encoded[start : start + 10]
        batch = collate(model, group)
        together = model(**batch).logits
        for row, sample in enumerate(group):
            alone = model(**collate(model, [sample])).logits[0]
            worst = max(worst, (together[row, : len(alone)] - alone).abs().max().item())
    assert worst <= 1e-5
    assert model(**collate(model, encoded[:2])).logits.std() > 0.3  # not vacuous


@torch.no_grad()
def test_the_guard_sees_a_batch_dependent_model(tokenizer, encoded):
    leaky = build(tokenizer, fusion="reference")
    together = leaky(**collate(leaky, encoded[:10])).logits
    alone = leaky(**collate(leaky, encoded[3:4])).logits[0]
    assert (together[3, : len(alone)] - alone).abs().max() > 1e-3


@pytest.mark.parametrize("options", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_batch_mates_and_order_change_no_response(model, encoded, options):
    group = encoded[:12]
    ids = [f"s{n}" for n in range(12)]

    def respond(order):
        batch = collate(model, [group[i] for i in order], labels=False)
        rows = model.generate(**batch, sample_ids=[ids[i] for i in order], seed=4, **options)
        return {i: [t for t in row if t] for i, row in zip(order, rows.tolist(), strict=True)}

    expected = respond(range(12))
    assert len({tuple(row) for row in expected.values()}) > 6
    for order in ([3, 7, 1, 0], [11, 10], [5], list(range(11, -1, -1))):
        found = respond(order)
        assert found == {i: expected[i] for i in order}


def test_sampling_depends_on_seed_and_sample_id_only(model, encoded):
    batch = collate(model, encoded[:4], labels=False)
    ids = ["a", "b", "c", "d"]
    one = model.generate(**batch, seed=1, sample_ids=ids, **SAMPLED)
    torch.manual_seed(99)
    assert torch.equal(one, model.generate(**batch, seed=1, sample_ids=ids, **SAMPLED))
    assert not torch.equal(one, model.generate(**batch, seed=2, sample_ids=ids, **SAMPLED))


def test_only_what_is_present_counts_at_a_position(model):
    fusion = model.fusion
    dialogue, persona = torch.randn(1, 3, 48), torch.randn(1, 5, 48)
    fused, mask = fusion(dialogue, torch.ones(1, 3), persona, torch.ones(1, 5))
    assert mask.tolist() == [[1, 1, 1, 1, 1]]
    attended = torch.softmax(persona @ dialogue.transpose(1, 2), -1) @ dialogue
    expected = fusion.persona_norm(persona + attended)
    assert torch.allclose(fused[:, 3:], expected[:, 3:], atol=1e-5)

    attended_dialogue = fusion.dialogue_norm(
        dialogue + torch.softmax(dialogue @ persona.transpose(1, 2), -1) @ persona
    )
    by_hand = (attended_dialogue + expected[:, :3] + dialogue) / 3
    assert torch.allclose(fused[:, :3], by_hand, atol=1e-5)


def test_generate_writes_strategy_first_and_no_special_token_after(model, encoded):
    batch = collate(model, encoded[:8], labels=False)
    output = model.generate(**batch, return_strategies=True, **SAMPLED)
    tokens = torch.tensor(model.config.strategy_token_ids)
    assert (output.sequences[:, 0] == model.config.decoder_start_token_id).all()
    assert torch.equal(output.sequences[:, 1], tokens[output.strategy_ids])
    assert torch.allclose(output.strategy_probs.sum(-1), torch.ones(8))
    special = set(model.config.special_token_ids) - {2, 0}
    assert not special & set(output.sequences[:, 2:].flatten().tolist())
    table = torch.tensor(model.config.alpha)
    assert torch.equal(output.alpha, table[output.strategy_ids])


def test_given_strategies_and_alpha(model, encoded):
    batch = collate(model, encoded[:4], labels=False)
    output = model.generate(
        **batch, strategy_ids=[0, 7, 3, 1], alpha=0.5, return_strategies=True, **GREEDY
    )
    assert output.strategy_ids.tolist() == [0, 7, 3, 1]
    assert output.alpha.tolist() == [0.5] * 4
    assert not torch.equal(
        output.sequences,
        model.generate(**batch, strategy_ids=[0, 7, 3, 1], alpha=3.0, **GREEDY),
    )


@torch.no_grad()
def test_contrast_equals_two_full_passes(model, encoded):
    """Greedy text of the paired cache against a plain loop over equation 6 without caches."""
    batch = collate(model, encoded[:6], labels=False)
    strategies = [1, 0, 5, 7, 4, 2]
    fast = model.generate(**batch, strategy_ids=strategies, do_sample=False, min_new_tokens=6,
                          max_new_tokens=6)  # fmt: skip
    alpha = torch.tensor(model.config.alpha)[strategies][:, None]
    plain = {k: batch[k] for k in ("input_ids", "attention_mask")}
    tokens = torch.tensor(model.config.strategy_token_ids)[strategies]
    rows = torch.stack([torch.full_like(tokens, 1), tokens], dim=1)
    banned = [*model.config.special_token_ids, model.config.eos_token_id]
    for _ in range(6):
        with_persona = model(**batch, decoder_input_ids=rows).logits[:, -1]
        without = model(**plain, decoder_input_ids=rows).logits[:, -1]
        logits = (1 + alpha) * with_persona - alpha * without
        logits[:, banned] = -torch.inf
        rows = torch.cat([rows, logits.argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(fast, rows)


def test_beams_and_several_sequences_a_row(model, encoded):
    batch = collate(model, encoded[:3], labels=False)
    one = model.generate(**batch, num_beams=1, **GREEDY)
    beams = model.generate(**batch, num_beams=4, **GREEDY)
    assert beams.shape[0] == 3
    alone = model.generate(**collate(model, encoded[1:2], labels=False), num_beams=4, **GREEDY)
    assert [t for t in beams[1].tolist() if t] == [t for t in alone[0].tolist() if t]
    many = model.generate(**batch, num_return_sequences=3, sample_ids=["a", "b", "c"], **SAMPLED)
    assert many.shape[0] == 9
    assert len({tuple(row) for row in many.tolist()}) > 3
    assert one.shape[0] == 3


@pytest.mark.parametrize("mode", ["none", "prompt"])
def test_modes_without_fusion(tokenizer, mode):
    plain = build(tokenizer, persona_mode=mode)
    assert plain.fusion is None
    inputs = encode_samples(tokenizer, plain, 3)[1]
    output = plain.generate(
        **collate(plain, inputs, labels=False), return_strategies=True, **GREEDY
    )
    assert output.alpha.tolist() == [0.0] * 3
    with pytest.raises(ValueError, match="persona_mode='fusion'"):
        plain.generate(**collate(plain, inputs, labels=False), alpha=0.5, **GREEDY)


def test_misuse_is_told(model, encoded):
    batch = collate(model, encoded[:2], labels=False)
    with pytest.raises(ValueError, match="choose one"):
        model.generate(**batch, do_sample=True, num_beams=2)
    with pytest.raises(ValueError, match="3 sample_ids for 2 rows"):
        model.generate(**batch, sample_ids=[1, 2, 3])
    with pytest.raises(ValueError, match="decoder_input_ids or labels"):
        model(**batch | {"decoder_input_ids": None})


def test_nothing_is_left_on_the_model(model, encoded):
    before = set(vars(model))
    model.generate(**collate(model, encoded[:2], labels=False), **GREEDY)
    assert set(vars(model)) == before


def test_save_and_load_round_trip_through_the_auto_classes(model, tokenizer, encoded, tmp_path):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), PalConfig)
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    assert isinstance(again, PalForConditionalGeneration)
    batch = collate(model, encoded[:3])
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, model(**batch).logits)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert len(loaded) == len(tokenizer)
    text = "[Others] hello </s> <s> there"
    assert loaded(text).input_ids == tokenizer(text).input_ids
    assert not list(tmp_path.glob("*.bin"))


def test_gradient_checkpointing_and_eager_attention_change_nothing(tokenizer, encoded, model):
    batch = collate(model, encoded[:3])
    gradients = []
    for attention, checkpointing in (("sdpa", False), ("sdpa", True), ("eager", False)):
        other = build(tokenizer).train()
        other.load_state_dict(model.state_dict())
        other.set_attn_implementation(attention)
        if checkpointing:
            other.gradient_checkpointing_enable()
        other(**batch).loss.backward()
        gradients.append(other.fusion.persona_norm.weight.grad)
    assert gradients[0].abs().max() > 0
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)
    assert torch.allclose(gradients[0], gradients[2], atol=1e-5)


@torch.no_grad()
def test_decoder_embeddings_are_scaled_in_one_place(model):
    """transformers 5 leaves the scale out; when it mends that, this test says so.

    Then pass ``decoder_input_ids`` through and drop ``embed_scale`` from the model.
    """
    decoder = model.model.decoder
    ids = torch.tensor([[1, 5, 9]])
    states = torch.zeros(1, 2, 48)
    by_ids = decoder(input_ids=ids, encoder_hidden_states=states)[0]
    unscaled = decoder(inputs_embeds=decoder.embed_tokens(ids), encoder_hidden_states=states)[0]
    assert torch.equal(by_ids, unscaled)
    assert model.embed_scale == pytest.approx(48**0.5)


def test_config_from_base_drops_inherited_generation_options():
    base = {
        "model_type": "blenderbot-small", "d_model": 512, "scale_embedding": True, "num_beams": 10,
        "min_length": 20, "length_penalty": 0.65, "no_repeat_ngram_size": 3, "vocab_size": 54944,
    }  # fmt: skip
    config = PalConfig.from_base(base, fusion="reference")
    assert (config.model_type, config.d_model, config.vocab_size) == ("pal", 512, 54944)
    assert config.scale_embedding
    assert not {"num_beams", "min_length", "no_repeat_ngram_size"} & set(config.to_diff_dict())


@torch.no_grad()
def test_half_precision_pads_without_nan(model, encoded):
    import copy

    half = copy.deepcopy(model).half()
    batch = collate(half, encoded[:6])
    logits = half(**batch).logits
    assert torch.isfinite(logits[batch["labels"] != -100]).all()


def test_parameters_of_a_new_fusion_are_initialised(tokenizer, tmp_path):
    """On a base without them, a fusion's own parameters get the values the fusion states."""
    from transformers import BlenderbotSmallConfig, BlenderbotSmallForConditionalGeneration

    from pal.modeling.checkpoint import build_response_model

    base = BlenderbotSmallConfig(
        vocab_size=100, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16,
        decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2,
    )  # fmt: skip
    BlenderbotSmallForConditionalGeneration(base).save_pretrained(tmp_path)
    built = build_response_model(
        base=str(tmp_path), from_scratch=None, vocab_size=112,
        pal_settings={"fusion": "tests.modeling.small:GatedFusion"},
    )  # fmt: skip
    assert built.fusion.gate.tolist() == [5.0, 5.0]
    assert built.fusion.weights.tolist() == pytest.approx([1 / 3] * 3)
    assert built.fusion.persona_norm.weight.tolist() == [1.0] * 16
    assert built.model.shared.weight.shape[0] == 112


@pytest.mark.parametrize("name", FUSIONS)
def test_every_fusion_trains_all_it_has_and_survives_saving(name, tokenizer, encoded, tmp_path):
    """A parameter without a gradient would stop training on several devices."""
    model = build(tokenizer, fusion=name)
    batch = collate(model, encoded[:4])
    model(**batch).loss.backward()
    idle = [n for n, p in model.fusion.named_parameters() if p.grad is None]
    assert not idle, f"fusion {name}: delete what forward does not use (del self.{idle[0]}): {idle}"
    model.save_pretrained(tmp_path)
    loaded = PalForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(model(**batch).logits, loaded(**batch).logits)


def test_a_class_that_is_no_fusion_is_refused(monkeypatch):
    monkeypatch.setattr("pal.core.registry._trusted", {"torch.nn:Linear"})
    with pytest.raises(
        ConfigError, match=r"'torch.nn:Linear' is not a fusion: expected a subclass"
    ):
        build_fusion("torch.nn:Linear", 8)


@torch.no_grad()
def test_ablations_leave_out_what_they_say(tokenizer):
    torch.manual_seed(0)
    dialogue, persona = torch.randn(2, 5, 48), torch.randn(2, 7, 48)
    masks = torch.ones(2, 5), torch.ones(2, 7)
    full, equal, narrow = (
        build(tokenizer, fusion=name).fusion
        for name in ("masked", "no_weights", "no_persona_stream")
    )
    states, _ = full(dialogue, masks[0], persona, masks[1])
    assert torch.equal(states, equal(dialogue, masks[0], persona, masks[1])[0])  # before training
    full.weights += torch.tensor([2.0, 0.0, -1.0])
    assert not torch.allclose(states, full(dialogue, masks[0], persona, masks[1])[0])
    assert not [name for name, _ in equal.named_parameters() if "norm" not in name]

    short, short_mask = narrow(dialogue, masks[0], persona, masks[1])
    assert (states.shape[1], short.shape[1], short_mask.shape[1]) == (7, 5, 5)
    attended = narrow.dialogue_norm(dialogue + attend(dialogue, persona))
    assert torch.allclose(short, (attended + dialogue) / 2, atol=1e-6)


@pytest.mark.parametrize("fusion", ["masked", "reference"])
def test_a_step_is_that_of_the_plain_way(tokenizer, encoded, fusion):
    """Neither the joint look-up nor leaving out padded targets changes loss or gradients."""
    model = build(tokenizer, fusion=fusion).train()
    batch = collate(model, encoded[:6])
    assert (batch["labels"] == -100).any()

    fast = model(**batch, skip_logits=True)
    assert fast.logits is None
    fast.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    ids, masks = model._encoder_inputs(
        *(batch[n] for n in ("input_ids", "attention_mask")),
        *(batch[n] for n in ("persona_input_ids", "persona_attention_mask")),
    )
    states = [
        model.model.encoder(input_ids=part, attention_mask=mask)[0]
        for part, mask in zip(ids, masks, strict=True)
    ]
    fused, mask = model.fusion(states[0], masks[0], states[1], masks[1])
    embed = model.model.decoder.embed_tokens
    decoded = model.model.decoder(
        inputs_embeds=embed(batch["decoder_input_ids"]) * model.embed_scale,
        encoder_hidden_states=fused, encoder_attention_mask=mask,
    )  # fmt: skip
    logits = model.lm_head(decoded.last_hidden_state) + model.final_logits_bias
    plain = torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch["labels"])
    plain.backward()
    assert fast.loss.item() == pytest.approx(plain.item(), abs=1e-5)
    assert model(**batch).loss.item() == pytest.approx(plain.item(), abs=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-5)
