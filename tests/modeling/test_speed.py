"""Every speed feature of generation, alone and together, changes no greedy response.

Against the straightforward implementation: two decoder passes a step, both inputs padded to one
length, batches in file order. The model is the authors' small one, whose vocabulary has 300
entries: the ids of real contexts are folded into it.
"""

import json

import pytest
import torch
from pal.speed.work import Work
from transformers import GenerationConfig

from pal.modeling import engine
from pal.modeling.checkpoint import load_response_model
from pal.modeling.encoding import encode_sorted
from pal.modeling.packed import can_pack, inference_twin
from pal.speed.peers import run_two_passes
from tests.modeling.golden import load_model
from tests.modeling.small import build, encode_samples, load_pal_tokenizer

COUNT = 500
ALONE = ["groups and distinct personas", "refilled rows", "packed weights"]


@pytest.fixture(scope="module")
def work(shared_data, golden, tmp_path_factory):
    tokenizer = load_pal_tokenizer(shared_data)
    folder = tmp_path_factory.mktemp("golden") / "model"
    load_model(golden / "model", folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "fusion": "masked"}))
    model = load_response_model(str(folder))  # the other fusion depends on a row's batch
    model.config.special_token_ids = [0, 1, 2]
    samples, encoded = encode_samples(shared_data, tokenizer, build(tokenizer), COUNT)
    size = model.config.max_position_embeddings
    inputs = [
        {name: [3 + token % 280 for token in row[name]][-size:]
         for name in ("input_ids", "persona_input_ids")}
        for row in encoded
    ]  # fmt: skip
    options = GenerationConfig(
        do_sample=False, repetition_penalty=1.03, min_new_tokens=2, max_new_tokens=10,
        eos_token_id=model.config.eos_token_id, pad_token_id=model.config.pad_token_id,
    )  # fmt: skip
    strategies = [index % 8 for index in range(len(samples))]
    return Work(model, inputs, strategies, torch.arange(COUNT), options, "real contexts")


@pytest.fixture(scope="module")
def straightforward(work):
    with torch.inference_mode():
        found = run_two_passes(work, 50)
    assert len(found) == COUNT
    assert len({tuple(row) for row in found}) > 100
    return found


def answer(work, model, rows, encode):
    config = model.config
    found = engine.Engine(
        model, work.options, alpha=list(config.alpha), strategy_alpha=config.strategy_alpha,
        rows=rows,
    )  # fmt: skip
    requests = [engine.Request(0, strategy) for strategy in work.strategies]
    lengths = [max(len(row[name]) for name in row) for row in work.inputs]
    return [answer.tokens for answer in found(requests, lengths, encode)]


@pytest.mark.parametrize("feature", [*ALONE, "together"])
def test_greedy_responses_stay(work, straightforward, feature):
    groups, refills, packs = (feature in (name, "together") for name in ALONE)
    model = inference_twin(work.model) if packs else work.model
    assert (model is not work.model) == (packs and can_pack(work.model))

    def encode(chosen):
        if groups:
            return encode_sorted(model, [work.inputs[index] for index in chosen], 700)
        return [(range(len(chosen)), model.encode(**work.collate(chosen)))]

    assert answer(work, model, 20 if refills else COUNT, encode) == straightforward


def test_distinct_personas_are_encoded_once(work):
    seen = []
    handle = work.model.model.encoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(kwargs["attention_mask"])), with_kwargs=True
    )
    with torch.inference_mode():
        groups = list(encode_sorted(work.model, work.inputs, 700))
    handle.remove()
    distinct = {tuple(row["persona_input_ids"]) for row in work.inputs}
    assert len(distinct) < 10
    assert sum(seen) == COUNT + len(distinct)
    assert sorted(index for group, _ in groups for index in group) == list(range(COUNT))
