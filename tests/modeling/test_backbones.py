"""Families of encoder-decoders behind one interface: the same results without a fast decoder."""

import copy
from itertools import pairwise

import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, DynamicCache, EncoderDecoderCache

from pal.data.strategies import ADDED_TOKENS
from pal.data.templates import TEMPLATES, SampleEncoder
from pal.decoding.contrast import combine
from pal.decoding.settings import DecodingSettings
from pal.modeling import checkpoint
from pal.modeling.losses import token_losses
from pal.modeling.pal import PalMixin
from pal.modeling.responder import make_responder
from tests.modeling.families import CASES, build_case, published, tokenizer_of
from tests.modeling.small import build, collate, encode_samples, small_tokenizer

FAMILIES = list(CASES)
GREEDY = {"do_sample": False, "repetition_penalty": 1.0}


def rows_of(case, model, count=6, seed=5):
    samples, encoded = encode_samples(tokenizer_of(case), model, count, seed)
    return samples, encoded, collate(model, encoded, labels=False)


def start_rows(model, strategies):
    """Start token and strategy of every row, [B, 2]."""
    tokens = torch.tensor(model.config.strategy_token_ids)[strategies]
    return torch.cat([model.start_tokens(len(tokens)), tokens[:, None]], dim=1)


@pytest.mark.parametrize("mode", ["fusion", "prompt", "none"])
@pytest.mark.parametrize("case", FAMILIES)
def test_a_row_has_the_same_logits_in_every_batch(case, mode):
    model = build_case(case, persona_mode=mode)
    _, encoded = encode_samples(tokenizer_of(case), model, 7)
    with torch.no_grad():
        together = model(**collate(model, encoded)).logits
        for row, inputs in zip(together, encoded, strict=True):
            alone = model(**collate(model, [inputs])).logits[0]
            assert (row[: len(alone)] - alone).abs().max() <= 1e-5
    assert together.std() > 0.1


@pytest.mark.parametrize("case", FAMILIES)
def test_without_a_contrast_the_family_itself_decodes(case):
    """Mode ``none`` is the library's own model, given the strategy as the decoder's start."""
    model = build_case(case, persona_mode="none")
    stock = stock_of(model)
    _, _, batch = rows_of(case, model)
    strategies = [1, 0, 5, 7, 4, 2]
    ours = model.generate(
        **batch, strategy=strategies, max_new_tokens=8, min_new_tokens=3, **GREEDY
    )
    theirs = stock.generate(
        past_key_values=cache_of(stock),
        **batch, decoder_input_ids=start_rows(model, strategies), max_new_tokens=8,
        min_new_tokens=3, **GREEDY, suppress_tokens=model.suppressed_tokens(),
    )  # fmt: skip
    assert torch.equal(ours, theirs)
    logits = model(**batch, decoder_input_ids=theirs).logits
    stock_logits = stock(**batch, decoder_input_ids=theirs).logits
    assert (logits - stock_logits).abs().max() <= 1e-5


def cache_of(model):
    """What the library makes, with the decoder's own number of layers: for T5 it takes others."""
    config = model.get_decoder().config
    return EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))


def stock_of(model):
    """The library's own model of the family, with the same weights."""
    family = type(model).__mro__[2]
    config = copy.deepcopy(model.config)
    stock = family(config)
    if model.lm_head.weight is not model.get_input_embeddings().weight:
        stock.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    stock.load_state_dict(
        {name: w for name, w in model.state_dict().items() if not name.startswith("fusion.")}
    )
    return stock.eval()


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize("case", FAMILIES)
def test_without_alpha_the_family_reads_the_states(case, fused):
    from transformers.modeling_outputs import BaseModelOutput

    model = build_case(case)
    _, _, batch = rows_of(case, model)
    if not fused:
        batch = {name: batch[name] for name in ("input_ids", "attention_mask")}
    states = model.encode(**batch)
    strategies = [3, 0, 5, 7, 4, 2]
    ours = model.generate(
        **batch, strategy=strategies, max_new_tokens=8, min_new_tokens=8,
        **({"alpha": 0.0, "strategy_alpha": 0.0} if fused else {}), **GREEDY,
    )  # fmt: skip
    stock = stock_of(model)
    theirs = stock.generate(
        past_key_values=cache_of(stock),
        encoder_outputs=BaseModelOutput(states.states), attention_mask=states.mask,
        decoder_input_ids=start_rows(model, strategies), max_new_tokens=8, min_new_tokens=8,
        suppress_tokens=model.suppressed_tokens(), **GREEDY,
    )  # fmt: skip
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("case", FAMILIES)
def test_the_contrast_is_that_of_two_passes(case):
    model = build_case(case)
    _, _, batch = rows_of(case, model)
    plain = {name: batch[name] for name in ("input_ids", "attention_mask")}
    strategies = [1, 0, 5, 7, 4, 2]
    found = model.generate(
        **batch, strategy=strategies, min_new_tokens=5, max_new_tokens=5, output_logits=True,
        return_dict_in_generate=True, **GREEDY,
    )  # fmt: skip
    alpha = torch.tensor(model.config.alpha)[strategies]
    rows = start_rows(model, strategies)
    with torch.no_grad():
        for step in range(5):
            one = model(**batch, decoder_input_ids=rows).logits[:, -1]
            two = model(**plain, decoder_input_ids=rows).logits[:, -1]
            logits = combine(one, two, alpha)
            assert (logits - found.logits[step]).abs().max() <= 1e-5
            logits[:, [*model.suppressed_tokens(), model.config.eos_token_id]] = -torch.inf
            rows = torch.cat([rows, logits.argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(found.sequences, rows)
    assert not torch.equal(one, two)


@pytest.mark.parametrize("case", FAMILIES)
def test_the_strategy_is_predicted_from_the_contrast(case):
    model = build_case(case)
    _, _, batch = rows_of(case, model)
    plain = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        start = model.start_tokens(6)
        one = model(**batch, decoder_input_ids=start).logits[:, -1]
        two = model(**plain, decoder_input_ids=start).logits[:, -1]
    logits = combine(one, two, 0.4)[:, model.config.strategy_token_ids]
    found = model.generate(
        **batch, strategy_alpha=0.4, max_new_tokens=1, return_strategies=True, **GREEDY
    )
    assert torch.allclose(found.strategy_probs, logits.softmax(-1), atol=1e-5)
    assert torch.equal(found.strategy_ids, logits.argmax(-1))


@pytest.mark.parametrize(
    "options",
    [GREEDY, {"do_sample": False, "num_beams": 3},
     {"do_sample": True, "temperature": 0.8, "top_k": 20, "top_p": 0.9}],
    ids=["greedy", "beams", "sampling"],
)  # fmt: skip
@pytest.mark.parametrize("case", FAMILIES)
def test_each_row_has_its_own_alpha_in_one_batch(case, options):
    model = build_case(case)
    _, _, batch = rows_of(case, model)
    strategies, ids = [1, 0, 5, 7, 4, 2], list("abcdef")
    options = {**options, "min_new_tokens": 4, "max_new_tokens": 8, "seed": 3}
    together = model.generate(**batch, strategy=strategies, sample_ids=ids, **options)
    for index in range(6):
        lengths = {
            name: int(batch[f"{name}attention_mask"][index].sum()) for name in ("", "persona_")
        }
        alone = {
            name: tensor[index : index + 1, : lengths["persona_" * name.startswith("persona")]]
            for name, tensor in batch.items()
        }
        one = model.generate(
            **alone, strategy=strategies[index], sample_ids=[ids[index]], **options
        )
        row = together[index, : one.shape[1]]
        assert torch.equal(row, one[0])
        assert (together[index, one.shape[1] :] == model.config.pad_token_id).all()


@pytest.mark.parametrize("case", FAMILIES)
def test_it_trains(case):
    model = build_case(case)
    _, encoded = encode_samples(tokenizer_of(case), model, 6)
    model(**collate(model, encoded)).loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []


@pytest.mark.parametrize("case", FAMILIES)
def test_it_is_saved_and_recognised(case, tmp_path):
    model = build_case(case)
    model.save_pretrained(tmp_path)
    tokenizer_of(case).save_pretrained(tmp_path)
    _, encoded = encode_samples(tokenizer_of(case), model, 3)
    batch = collate(model, encoded)
    wanted = model(**batch).logits
    for again in (
        checkpoint.load_response_model(str(tmp_path)),
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval(),
    ):
        assert type(again) is type(model)
        assert torch.equal(wanted, again(**batch).logits)
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == again.config.to_dict()
    rounded = checkpoint.load_response_model(str(tmp_path), "bfloat16")
    assert rounded.dtype == torch.bfloat16
    assert (rounded(**batch).logits - wanted).abs().mean() < 0.1 * wanted.std()


@pytest.mark.parametrize("case", FAMILIES)
def test_a_published_base_keeps_its_weights(case, tmp_path):
    theirs = published(case)
    theirs.save_pretrained(tmp_path)
    size = theirs.config.vocab_size
    model = checkpoint.build_response_model(
        base=str(tmp_path), from_scratch=None, vocab_size=size + 10,
        pal_settings={"persona_mode": "none"},
    ).eval()  # fmt: skip
    assert checkpoint.find_backbone(str(tmp_path), None).name == theirs.config.model_type
    assert model.get_input_embeddings().weight.shape[0] == size + 10
    tied = theirs.lm_head.weight is theirs.get_input_embeddings().weight
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    ids = torch.tensor([[4, 9, 20, 31, 7]])
    for _ in range(2):
        ours = model(input_ids=ids, decoder_input_ids=ids[:, :3]).logits[..., :size]
        wanted = theirs.eval()(input_ids=ids, decoder_input_ids=ids[:, :3]).logits
        assert (ours - wanted).abs().max() <= 1e-5
        # and so it is after saving
        model.save_pretrained(tmp_path / "again")
        model = type(model).from_pretrained(tmp_path / "again").eval()
        assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied


@pytest.mark.parametrize("template", list(TEMPLATES))
@pytest.mark.parametrize("case", FAMILIES)
def test_text_comes_back(case, template):
    tokenizer = tokenizer_of(case)
    encoder = SampleEncoder(tokenizer, template=template, persona_mode="fusion", **LONG)
    texts = ["I don't know, maybe you're right. It's hard! Isn't it?", "Well-known (or not): 5%."]
    for text in texts[: 1 if case.endswith("of words") and template != "clean" else 2]:
        *ids, end = encoder.encode_target("Question", text)
        assert end == tokenizer.eos_token_id
        assert ids[0] == tokenizer.convert_tokens_to_ids("[Question]")
        assert encoder.decode(ids[1:]) == (text.lower() if case.endswith("of words") else text)
    inputs = encoder.encode_context(TURNS, 500)
    one, two = tokenizer.convert_tokens_to_ids(["</s>", "<s>"])
    assert list(pairwise(inputs)).count((one, two)) == inputs.count(one) == 2
    if template != "authors":  # the words behind a strategy are the same tokens in the history
        words = encoder.encode_target("Question", TURNS[1]["text"])[1:-1]
        place = inputs.index(tokenizer.convert_tokens_to_ids("[Question]")) + 1
        assert inputs[place : place + len(words)] == words


LONG = {"max_context_tokens": 500, "max_persona_tokens": 100, "max_target_tokens": 100}
TURNS = [
    {"speaker": "seeker", "text": "I lost my job.", "strategy": None},
    {"speaker": "supporter", "text": "When was that?", "strategy": "Question"},
]


@pytest.mark.parametrize("case", FAMILIES)
def test_records_and_losses(case):
    model, tokenizer = build_case(case), tokenizer_of(case)
    samples, _, _ = rows_of(case, model, 9)
    for decoding in (
        DecodingSettings(max_new_tokens=10, min_new_tokens=2),
        DecodingSettings(do_sample=False, num_beams=2, max_new_tokens=6, strategy="gold"),
    ):
        responder = make_responder(model, tokenizer, decoding, 7)
        records = responder.answer(samples, responder.encode(samples), rows=4, tokens=2000)
        assert [record["id"] for record in records] == [sample.id for sample in samples]
        assert all(set(record) == set(records[0]) for record in records)
        assert len({record["response"] for record in records}) > 3
        assert not any(mark in r["response"] for r in records for mark in ADDED_TOKENS)
        assert {record["alpha"] for record in records} <= set(model.config.alpha)
    found = token_losses(model, tokenizer, samples)
    with torch.no_grad():
        for place, inputs in enumerate(encode_samples(tokenizer, model, 9)[1]):
            one = model(**collate(model, [inputs]))
            if len(inputs["labels"]) <= model.config.max_target_tokens:
                nats = float(one.loss) * len(inputs["labels"])
                assert found["token_nll"][place] == pytest.approx(nats, rel=1e-4)


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
