"""Every speed feature of generation, alone and together, changes no greedy response.

Against the straightforward implementation: two decoder passes a step, both inputs padded to one
length, batches in file order.
"""

import pytest
import torch
from torch.nn import functional as F

from pal.decoding.engine import DecodingRequest, Engine
from pal.decoding.plan import DecodingPlan
from pal.decoding.settings import DecodingSettings
from pal.modeling.encoding import collate, encode_sorted, input_length
from pal.modeling.packed import can_pack, packed_model
from tests.modeling.small import build, encode_samples, small_tokenizer

COUNT = 360
ALONE = ["groups and distinct personas", "refilled rows", "packed weights"]
OPTIONS = DecodingSettings(
    do_sample=False, repetition_penalty=1.03, min_new_tokens=2, max_new_tokens=10
)
STRATEGIES = [index % 8 for index in range(COUNT)]


@pytest.fixture(scope="module")
def model():
    model = build(small_tokenizer())
    model.final_logits_bias[0, model.config.eos_token_id] = 3.0  # responses end at different times
    return model


@pytest.fixture(scope="module")
def inputs(model):
    _, encoded = encode_samples(small_tokenizer(), model, COUNT)
    return [{name: ids for name, ids in row.items() if name != "labels"} for row in encoded]


def run_two_passes(model, inputs, rows):
    """Answer with equation 6 written out: no cache, no second thought."""
    config, answers = model.config, []
    banned = model.suppressed_tokens()
    for first in range(0, len(inputs), rows):
        batch = collate(model, inputs[first : first + rows])
        length = max(batch[name].shape[1] for name in ("input_ids", "persona_input_ids"))
        batch = {name: F.pad(part, (0, length - part.shape[1])) for name, part in batch.items()}
        plain = {name: batch[name] for name in ("input_ids", "attention_mask")}
        chosen = torch.tensor(STRATEGIES[first : first + rows])
        alpha = torch.tensor(config.alpha)[chosen][:, None]
        tokens = torch.tensor(config.strategy_token_ids)[chosen]
        ids = torch.stack([torch.full_like(tokens, config.decoder_start_token_id), tokens], dim=1)
        for step in range(OPTIONS.max_new_tokens):
            with_persona = model(**batch, decoder_input_ids=ids).logits[:, -1]
            without = model(**plain, decoder_input_ids=ids).logits[:, -1]
            scores = (1 + alpha) * with_persona - alpha * without
            seen = scores.gather(1, ids)
            penalty = OPTIONS.repetition_penalty
            scores.scatter_(1, ids, torch.where(seen < 0, seen * penalty, seen / penalty))
            scores[:, banned] = -torch.inf
            if step < OPTIONS.min_new_tokens:
                scores[:, config.eos_token_id] = -torch.inf
            ids = torch.cat([ids, scores.argmax(-1, keepdim=True)], dim=1)
        for row in ids[:, 2:].tolist():
            end = config.eos_token_id
            answers.append(row[: row.index(end) + 1] if end in row else row)
    return answers


@pytest.fixture(scope="module")
def straightforward(model, inputs):
    with torch.inference_mode():
        found = run_two_passes(model, inputs, 45)
    assert len(found) == COUNT
    assert len({tuple(row) for row in found}) > 100
    assert len({len(row) for row in found}) > 2
    return found


def answer(model, inputs, rows, encode):
    plan = DecodingPlan.from_settings(OPTIONS, model.config)
    found = Engine(model.fast_decoder(model.suppressed_tokens()), plan, rows=rows)
    requests = [DecodingRequest(0, strategy) for strategy in STRATEGIES]
    answers = found(requests, [input_length(row) for row in inputs], encode)
    return [answer.tokens for answer in answers]


@pytest.mark.parametrize("feature", [*ALONE, "together"])
def test_greedy_responses_stay(model, inputs, straightforward, feature):
    groups, refills, packs = (feature in (name, "together") for name in ALONE)
    used = packed_model(model) if packs else model
    assert (used is not model) == (packs and can_pack(model))

    def encode(chosen):
        rows = [inputs[index] for index in chosen]
        if groups:
            return encode_sorted(used, rows, 700)
        return [(range(len(chosen)), used.encode(**collate(used, rows)))]

    assert answer(used, inputs, 20 if refills else COUNT, encode) == straightforward


def test_distinct_personas_are_encoded_once(model, inputs):
    seen = []
    handle = model.model.encoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(kwargs["attention_mask"])), with_kwargs=True
    )
    with torch.inference_mode():
        groups = list(encode_sorted(model, inputs, 700))
    handle.remove()
    distinct = {tuple(row["persona_input_ids"]) for row in inputs}
    assert len(distinct) < 10
    assert sum(seen) == COUNT + len(distinct)
    assert sorted(index for group, _ in groups for index in group) == list(range(COUNT))
