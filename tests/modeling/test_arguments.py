"""Arguments that the library's models take: they work, or they are refused by their names."""

import pytest
import torch
from transformers import BlenderbotSmallForConditionalGeneration, LogitsProcessor

from pal.modeling.pal import REFUSED
from tests.modeling.small import build, collate, encode_samples, small_tokenizer

SHORT = {"do_sample": False, "min_new_tokens": 3, "max_new_tokens": 6}


@pytest.fixture(scope="module")
def model():
    model = build(small_tokenizer())
    model.set_attn_implementation("eager")  # the one that returns attentions
    return model


@pytest.fixture(scope="module")
def batch(model):
    return collate(model, encode_samples(small_tokenizer(), model, 4)[1], labels=False)


def test_attentions_and_hidden_states_are_those_of_the_branch_with_persona(model, batch):
    plain = model.generate(**batch, **SHORT, alpha=1.0)
    out = model.generate(
        **batch, **SHORT, alpha=1.0, output_attentions=True, output_hidden_states=True,
        output_scores=True, output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    assert torch.equal(out.sequences, plain)
    layers, length = model.config.decoder_layers, model.encode(**batch).states.shape[1]
    steps = out.sequences.shape[1] - 2
    assert len(out.decoder_attentions) == len(out.cross_attentions) == steps
    assert len(out.decoder_hidden_states) == len(out.scores) == len(out.logits) == steps
    assert len(out.cross_attentions[0]) == layers
    assert out.cross_attentions[0][0].shape == (4, 4, 1, length)
    assert out.decoder_attentions[1][0].shape == (4, 4, 1, 3)
    assert out.decoder_hidden_states[0][-1].shape == (4, 1, 48)
    assert torch.allclose(out.cross_attentions[0][0].sum(-1), torch.ones(4, 4, 1), atol=1e-5)


@torch.no_grad()
def test_forward_returns_what_it_is_asked_for(model, batch):
    ids = torch.tensor([[1, 5, 6]] * 4)
    out = model(**batch, decoder_input_ids=ids, output_attentions=True, output_hidden_states=True)
    assert out.decoder_attentions[0].shape == (4, 4, 3, 3)
    assert len(out.decoder_hidden_states) == model.config.decoder_layers + 1
    assert torch.equal(out.logits, model(**batch, decoder_input_ids=ids).logits)
    assert model(**batch, decoder_input_ids=ids).decoder_attentions is None


@torch.no_grad()
def test_forward_is_the_familys_own_without_persona_and_fusion():
    ours = build(small_tokenizer(), persona_mode="none")
    theirs = BlenderbotSmallForConditionalGeneration(ours.config).eval()
    theirs.load_state_dict(ours.state_dict())
    scaled = theirs.get_input_embeddings().weight * ours.embed_scale
    dialogue, target = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[1, 9, 10]])
    wanted = theirs(inputs_embeds=scaled[dialogue], decoder_inputs_embeds=scaled[target]).logits
    found = ours(dialogue, decoder_input_ids=target).logits
    assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("name", [*REFUSED, "use_cache"])
def test_what_a_contrast_cannot_take_is_refused_by_its_name(model, batch, name):
    with pytest.raises(ValueError, match=f"^{name}.*is not taken"):
        model.generate(**batch, **SHORT, **{name: False if name == "use_cache" else [[1]]})


@pytest.mark.parametrize("name", ["inputs_embeds", "decoder_inputs_embeds"])
def test_forward_refuses_embeddings_by_their_name(model, batch, name):
    with pytest.raises(ValueError, match=f"^{name} is not taken"):
        model(**batch, decoder_input_ids=torch.ones(4, 1), **{name: torch.zeros(4, 2, 48)})


def test_an_unknown_argument_is_named(model, batch):
    with pytest.raises(ValueError, match="num_beems"):
        model.generate(**batch, num_beems=2)


def test_inputs_is_the_librarys_name_of_input_ids(model, batch):
    rest = {name: tensor for name, tensor in batch.items() if name != "input_ids"}
    assert torch.equal(
        model.generate(inputs=batch["input_ids"], **rest, **SHORT),
        model.generate(**batch, **SHORT),
    )


def test_stop_strings_end_a_response(model, batch):
    tokenizer = small_tokenizer()
    free = model.generate(**batch, **SHORT | {"max_new_tokens": 12})
    words = [token for token in free[0, 4:].tolist() if 4 < token < 2000]
    if not words:  # the vocabulary is larger than the tokenizer's
        bias = torch.zeros_like(model.final_logits_bias)
        bias[0, len(tokenizer) :] = -1e4
        model.final_logits_bias += bias
        free = model.generate(**batch, **SHORT | {"max_new_tokens": 12})
        words = [token for token in free[0, 4:].tolist() if 4 < token < 2000]
    stop = tokenizer.decode([words[0]]).strip()
    cut = model.generate(
        **batch, **SHORT | {"max_new_tokens": 12}, stop_strings=[stop], tokenizer=tokenizer
    )
    first = cut[0].tolist()
    assert words[0] in first
    assert all(token == 0 for token in first[first.index(words[0]) + 1 :])
    with pytest.raises(ValueError, match="stop_strings needs tokenizer"):
        model.generate(**batch, **SHORT, stop_strings=[stop])


class Never(LogitsProcessor):
    def __init__(self, token):
        self.token = token

    def __call__(self, input_ids, scores):
        scores[:, self.token] = -torch.inf
        return scores


@pytest.mark.parametrize("do_sample", [False, True])
def test_processors_of_the_user_see_what_is_drawn_from(model, batch, do_sample):
    options = SHORT | {"do_sample": do_sample, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    free = model.generate(**batch, **options)
    token = int(free[0, 2])
    held = model.generate(**batch, **options, logits_processor=[Never(token)])
    assert token not in held[:, 2:].flatten().tolist()
    assert torch.equal(held, model.generate(**batch, **options, suppress_tokens=[token]))


@pytest.mark.parametrize("name", ["input_ids", "persona_input_ids", "decoder_input_ids"])
def test_an_input_longer_than_the_model_names_both_lengths(model, batch, name):
    long = torch.full((4, 600), 5)
    given = {key: tensor for key, tensor in batch.items() if not key.endswith("mask")}
    with pytest.raises(ValueError, match=f"^{name} has 600 positions and the model 512"):
        model(**{"decoder_input_ids": torch.ones(4, 1).long(), **given, name: long})
    if name != "decoder_input_ids":
        with pytest.raises(ValueError, match=f"^{name} has 600 positions"):
            model.generate(**{**given, name: long})


def test_a_response_longer_than_the_model_is_refused(model, batch):
    with pytest.raises(ValueError, match="max_new_tokens=511 and two start tokens do not fit"):
        model.generate(**batch, max_new_tokens=511)


def test_strategies_and_alpha_of_every_form(model, batch):
    def answer(**given):
        return model.generate(**batch, **SHORT, return_strategies=True, **given)

    wanted = answer(strategy_ids=[0, 0, 0, 0])
    for given in (
        {"strategy": "Question"}, {"strategy": "questions"}, {"strategy": 0},
        {"strategy_ids": 0}, {"strategy_ids": ["Question"] * 4},
        {"strategy_ids": torch.zeros(4, dtype=torch.long)},
    ):  # fmt: skip
        found = answer(**given)
        assert found.strategy_ids.tolist() == [0] * 4
        assert torch.equal(found.sequences, wanted.sequences)
    assert answer(strategy="Question", alpha={"Questions": 0.5}).alpha.tolist() == [0.5] * 4
    assert answer(strategy="Others", alpha={"Question": 0.5}).alpha.tolist() == [0.375] * 4
    assert answer(strategy=["Others", 1, 2, 3], alpha=range(8)).alpha.tolist() == [7, 1, 2, 3]
    for given, message in (
        ({"strategy": "Qestion"}, "did you mean 'Question'"),
        ({"strategy_ids": ["Question"]}, "1 strategies for 4 rows"),
        ({"strategy": 9}, "from 0 to 7"),
        ({"alpha": [1, 2]}, "8 of them, got 2"),
        ({"alpha": {"Advice": 1}}, "unknown strategy"),
    ):
        with pytest.raises(ValueError, match=message):
            answer(**given)
