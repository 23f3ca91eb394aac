"""The engine against ``generate``, which it must equal whatever leaves and enters when."""

import pytest
import torch
from transformers import GenerationConfig

from pal.decoding.engine import DecodingRequest, Engine
from pal.decoding.noise import sample_keys
from pal.decoding.plan import DecodingPlan
from pal.decoding.settings import DecodingSettings
from pal.decoding.states import EncodedInputs
from pal.modeling.encoding import encode_sorted, input_length
from pal.modeling.packed import can_pack, packed_model
from tests.modeling.small import build, collate, encode_samples, small_tokenizer

COUNT = 60
GREEDY = {"do_sample": False, "repetition_penalty": 1.03, "min_new_tokens": 3, "max_new_tokens": 12}
SAMPLED = {**GREEDY, "do_sample": True, "temperature": 0.9, "top_k": 20, "top_p": 0.95}


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


@pytest.fixture(scope="module")
def encoded(tokenizer):
    return encode_samples(tokenizer, build(tokenizer), COUNT)[1]


def build_ending(tokenizer, **settings):
    """A model whose responses end at different times."""
    model = build(tokenizer, **settings)
    model.final_logits_bias[0, model.config.eos_token_id] = 3.0
    return model


def both(model, encoded, options, *, rows, strategies=None, alpha=None, choice="argmax"):
    """What ``generate`` says, and what the engine says."""
    ids = [f"s{n}" for n in range(len(encoded))]
    settings = DecodingSettings(**options, strategy=choice, alpha=alpha)
    options = GenerationConfig(**{"top_k": None, "temperature": None, "top_p": None} | options)
    batch = collate(model, encoded, labels=False)
    wanted = model.generate(
        **batch, seed=4, sample_ids=ids, strategy=choice if strategies is None else strategies,
        alpha=alpha, return_strategies=True, generation_config=options,
    )  # fmt: skip
    plan = DecodingPlan.from_settings(settings, model.config)
    engine = Engine(model.fast_decoder(model.suppressed_tokens()), plan, rows=rows)
    keys = sample_keys(4, ids).tolist()
    requests = [
        DecodingRequest(k, s) for k, s in zip(keys, strategies or [None] * len(ids), strict=True)
    ]
    lengths = [max(len(e["input_ids"]), len(e.get("persona_input_ids", ()))) for e in encoded]
    calls = []

    def encode(chosen):
        calls.append(len(chosen))
        return encode_sorted(model, [encoded[i] for i in chosen])

    answers = engine(requests, lengths, encode)
    end = model.config.eos_token_id
    theirs = []
    for row in wanted.sequences.tolist():
        row = row[2:]
        theirs.append(row[: row.index(end) + 1] if end in row else row)
    return wanted, theirs, answers, calls


@pytest.mark.parametrize("options", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_responses_are_those_of_generate(tokenizer, encoded, options, rows):
    model = build_ending(tokenizer)
    wanted, theirs, answers, calls = both(model, encoded, options, rows=rows)
    assert [answer.tokens for answer in answers] == theirs
    assert [answer.strategy for answer in answers] == wanted.strategy_ids.tolist()
    assert [answer.alpha for answer in answers] == pytest.approx(wanted.alpha.tolist())
    probs = torch.tensor([answer.strategy_probs for answer in answers])
    assert torch.allclose(probs, wanted.strategy_probs, atol=1e-5)
    assert sum(calls) == COUNT
    assert max(calls) <= rows
    lengths = {len(tokens) for tokens in theirs}
    assert len(lengths) > 2  # rows left at different times
    assert {answer.alpha == 0 for answer in answers} == {True, False}


@pytest.mark.parametrize(
    "settings",
    [
        {"fusion": "no_weights"},
        {"fusion": "no_persona_stream"},
        {"persona_mode": "none"},
        {"persona_mode": "prompt"},
    ],
    ids=str,
)
def test_other_models(tokenizer, encoded, settings):
    model = build_ending(tokenizer, **settings)
    rows = encoded
    if model.fusion is None:
        rows = [{k: v for k, v in e.items() if not k.startswith("persona")} for e in encoded]
    _, theirs, answers, _ = both(model, rows, SAMPLED, rows=9)
    assert [answer.tokens for answer in answers] == theirs
    assert {answer.alpha for answer in answers} == {0.0} or model.fusion is not None


def test_given_strategies_one_alpha_and_drawn_strategies(tokenizer, encoded):
    model = build_ending(tokenizer)
    strategies = [n % 8 for n in range(COUNT)]
    for alpha in (0.0, 1.5):
        _, theirs, answers, _ = both(
            model, encoded, SAMPLED, rows=9, strategies=strategies, alpha=alpha
        )
        assert [answer.tokens for answer in answers] == theirs
        assert [answer.strategy for answer in answers] == strategies
    wanted, theirs, answers, _ = both(model, encoded, SAMPLED, rows=9, choice="sample")
    assert [answer.strategy for answer in answers] == wanted.strategy_ids.tolist()
    assert [answer.tokens for answer in answers] == theirs


def test_rows_of_encoded_inputs_stay_fused_or_not():
    states, mask = torch.arange(12.0).view(3, 2, 2), torch.ones(3, 2)
    plain = EncodedInputs(states, mask, states, mask).rows([2, 0])
    assert not plain.is_fused
    assert plain.states.tolist() == states[[2, 0]].tolist()
    fused = EncodedInputs(states, mask, states + 1, mask).rows([1])
    assert fused.is_fused
    assert fused.dialogue_states.tolist() == (states[[1]] + 1).tolist()


@pytest.mark.parametrize(
    "settings", [{}, {"persona_mode": "none"}, {"fusion": "no_weights"}], ids=str
)
def test_states_and_probabilities_are_the_same_bits_in_every_batch(tokenizer, encoded, settings):
    model = build_ending(tokenizer, **settings)
    if not can_pack(model):
        pytest.skip("the promise is for x86 CPUs")
    model, rows = packed_model(model), encoded
    if model.fusion is None:
        rows = [{"input_ids": row["input_ids"]} for row in encoded]
    plan = DecodingPlan.from_settings(DecodingSettings(max_new_tokens=1, min_new_tokens=0),
                                      model.config)  # fmt: skip
    lengths = [input_length(row) for row in rows]
    requests = [DecodingRequest(key) for key in range(COUNT)]

    def answer(at_once, chosen):
        engine = Engine(model.fast_decoder(model.suppressed_tokens()), plan, rows=at_once)
        found = engine(
            [requests[i] for i in chosen], [lengths[i] for i in chosen],
            lambda some: encode_sorted(model, [rows[chosen[i]] for i in some]),
        )  # fmt: skip
        return {i: one.strategy_probs for i, one in zip(chosen, found, strict=True)}

    wanted = answer(COUNT, range(COUNT))
    for at_once in (1, 2, 3, 7, 20):
        assert answer(at_once, range(COUNT)) == wanted
    for chosen in ([5], [1, 2], [50, 3, 40, 4]):
        assert answer(9, chosen) == {i: wanted[i] for i in chosen}
