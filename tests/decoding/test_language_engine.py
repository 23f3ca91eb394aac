"""The engine of decoder-only models against a loop without batches, cache or groups."""

import random
from dataclasses import replace

import pytest
import torch

from pal.decoding.language import LanguageEngine, LanguageRequest, StrategyTree, find_groups
from pal.decoding.noise import keyed_gumbel, sample_keys
from pal.decoding.plan import DecodingPlan
from pal.decoding.sampling import Sampler
from pal.decoding.settings import DecodingSettings
from tests.modeling.languages import (
    KINDS,
    OTHERS,
    chat_tokenizer,
    encoder,
    of_family,
    samples,
    tiny,
)

# Texts that share beginnings of every length, and one of a single token.
STRATEGIES = [[5, 6, 7], [5, 8, 9], [5, 6, 10, 11], [12, 13], [14], [15, 16, 17], [5, 8, 18, 9],
              [19, 20, 21]]  # fmt: skip
END, SUPPRESSED, ENTRIES = 3, [0, 1, 3], 100
PAPER = (0.0, 0.75, 0.0, 0.3, 0.75, 0.75, 0.75, 0.375)


def plan_of(alpha=PAPER, strategy_alpha=0.3, *, plausibility=0.0, choice="argmax", **options):
    given = {"do_sample": False, "min_new_tokens": 2, "max_new_tokens": 10, "top_k": 0, **options}
    return DecodingPlan(
        options=DecodingSettings(**given), alpha=alpha, strategy_alpha=strategy_alpha,
        plausibility=plausibility, choice=choice,
    )  # fmt: skip


def asked(dialogues=3, given=None):
    """Requests of several dialogues at several turns; of some both branches are the same."""
    draw = random.Random(0)
    requests = []
    for number in range(dialogues):
        ids, plain = ([draw.randrange(22, ENTRIES) for _ in range(40)] for _ in range(2))
        for turn in (7, 15, 16, 25, 38):
            same = turn == 15
            requests.append(LanguageRequest(
                sample_keys(0, [f"{number}/{turn}"]).item(), ids[:turn],
                ids[:turn] if same else plain[: turn - 5], given,
            ))  # fmt: skip
    return requests


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    return tiny(request.param, ENTRIES)


def answers(model, plan, requests, rows=64, positions=100, watch=None, **more):
    given = {"strategies": STRATEGIES, "end": END, "suppressed": SUPPRESSED, **more}
    with torch.inference_mode():
        engine = LanguageEngine(model, plan, rows=rows, positions=positions, **given)
        return engine(requests, watch=watch)


@torch.inference_mode()
def by_hand(model, plan, request):
    """(strategy, tokens, strategy probabilities), each token from passes over whole sequences."""

    def next_of(ids):
        return model(torch.tensor([list(ids)])).logits[0, -1].float()

    def contrast(said, alpha):
        with_notes = next_of([*request.ids, *said])
        if list(request.ids) == list(request.plain) or not alpha:
            return with_notes, None
        return with_notes, (1 + alpha) * with_notes - alpha * next_of([*request.plain, *said])

    def best(said, alpha):
        with_notes, contrasted = contrast(said, alpha)
        return with_notes if contrasted is None else contrasted

    sums = torch.stack([
        sum(best(text[:place], plan.strategy_alpha).log_softmax(-1)[token]
            for place, token in enumerate(text))
        for text in STRATEGIES
    ])  # fmt: skip
    probs = sums.softmax(-1)
    if request.strategy is not None:
        strategy = request.strategy
    elif plan.choice == "sample":
        noise = keyed_gumbel(torch.tensor([request.key]), 0, torch.arange(8)[None])
        strategy = int((probs.log() + noise[0]).argmax())
    else:
        strategy = int(sums.argmax())
    options, tokens = plan.options, []
    while len(tokens) < options.max_new_tokens and END not in tokens:
        with_notes, contrasted = contrast([*STRATEGIES[strategy], *tokens], plan.alpha[strategy])
        banned = [0, 1, *([END] if len(tokens) < options.min_new_tokens else [])]
        if contrasted is None:
            scores = with_notes.clone()
        else:
            scores = contrasted
            if plan.plausibility:
                possible = with_notes.clone()
                possible[banned] = -torch.inf
                share = possible.softmax(-1) / possible.softmax(-1).max()
                scores[share < plan.plausibility] = -torch.inf
        for token in set(tokens):
            penalty = options.repetition_penalty
            scores[token] = (
                scores[token] * penalty if scores[token] < 0 else scores[token] / penalty
            )
        scores[banned] = -torch.inf
        if options.do_sample:
            sampler = Sampler.from_options(options)
            key = torch.tensor([request.key])
            tokens.append(int(sampler.draw(scores[None], key, len(tokens) + 2)[0]))
        else:
            tokens.append(int(scores.argmax()))
    return strategy, tokens, probs


PLANS = {
    "greedy": plan_of(repetition_penalty=1.0),
    "penalty": plan_of(repetition_penalty=1.3),
    "drawn": plan_of(do_sample=True, temperature=1.5, strategy_alpha=0.0),
    "few of them": plan_of(do_sample=True, temperature=2.0, top_k=5, top_p=0.9),
    "strategies drawn": plan_of(choice="sample"),
    "plausible": plan_of(plausibility=0.3, alpha=(3.0,) * 8),
    "no contrast": plan_of(alpha=(0.0,) * 8, strategy_alpha=0.0),
}


@pytest.mark.parametrize("name", PLANS)
def test_answers_are_those_of_passes_by_hand(model, name):
    plan, requests = PLANS[name], asked(2)
    for found, request in zip(answers(model, plan, requests, rows=4), requests, strict=True):
        strategy, tokens, probs = by_hand(model, plan, request)
        assert (found.strategy, found.tokens) == (strategy, tokens)
        assert found.alpha == plan.alpha[strategy]
        torch.testing.assert_close(torch.tensor(found.strategy_probs), probs, atol=1e-5, rtol=0)


def test_tokens_are_counted_as_they_come(model):
    plan, told = PLANS["drawn"], []
    found = answers(model, plan, asked(3), rows=2, watch=told.append)
    assert told == sorted(told)
    assert told[0] <= 2
    assert told[-1] == sum(len(one.tokens) for one in found)


@pytest.mark.parametrize("name", OTHERS)
def test_other_families_answer_alike(name):
    """Above all those whose layers see the nearest positions alone."""
    other, requests, plan = of_family(name, ENTRIES), asked(2), PLANS["penalty"]
    for found, request in zip(answers(other, plan, requests, rows=4), requests, strict=True):
        strategy, tokens, probs = by_hand(other, plan, request)
        assert (found.strategy, found.tokens) == (strategy, tokens)
        torch.testing.assert_close(torch.tensor(found.strategy_probs), probs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("rows", "positions"), [(1, 10**6), (3, 90), (64, 1)])
def test_a_row_does_not_depend_on_its_batch(model, rows, positions):
    """Alone, in waves that refill as rows end, all at once: the same answers and probabilities."""
    plan = plan_of(do_sample=True, temperature=2.0, min_new_tokens=0, max_new_tokens=16)
    requests = asked()
    said = [token for one in answers(model, plan, requests) for token in one.tokens[3:]]
    end = max(sorted(set(said)), key=said.count)  # many end by it, at different times
    alone = [answers(model, plan, [request], end=end)[0] for request in requests]
    assert len({len(one.tokens) for one in alone}) > 2
    order = list(range(len(requests)))
    random.Random(rows).shuffle(order)
    for chosen in (range(len(requests)), order):
        together = answers(model, plan, [requests[i] for i in chosen], rows, positions, end=end)
        for index, found in zip(chosen, together, strict=True):
            assert (found.strategy, found.tokens) == (alone[index].strategy, alone[index].tokens)
            torch.testing.assert_close(
                torch.tensor(found.strategy_probs), torch.tensor(alone[index].strategy_probs),
                atol=1e-5, rtol=0,
            )  # fmt: skip


def test_weights_of_rows_in_one_batch_are_their_own(model):
    """Rows of every strategy, each with another α, some of them zero, one without notes."""
    plan = plan_of(alpha=(0.0, 0.1, 0.2, 0.0, 1.0, 3.0, 0.75, -0.5), repetition_penalty=1.0)
    requests = [replace(one, strategy=i % 8) for i, one in enumerate(asked(3))]
    for found, request in zip(answers(model, plan, requests), requests, strict=True):
        assert found.strategy == request.strategy
        assert found.alpha == plan.alpha[request.strategy]
        assert found.tokens == by_hand(model, plan, request)[1]


def test_greedy_without_contrast_is_the_library_s_own(model):
    """On real contexts: what ``generate`` says behind dialogue and strategy."""
    real = tiny(model.config.model_type)
    side = encoder(context=400)
    chosen = samples(10)
    plan = plan_of(alpha=(0.0,) * 8, strategy_alpha=0.0, repetition_penalty=1.0, max_new_tokens=20,
                   min_new_tokens=0)  # fmt: skip
    requests = [
        LanguageRequest(0, inputs["input_ids"], inputs["plain_input_ids"], index % 8)
        for index, inputs in enumerate(map(side.encode, chosen))
    ]
    found = answers(real, plan, requests, rows=4, strategies=side.strategy_ids, end=side.end,
                    suppressed=side.special)  # fmt: skip
    for request, answer in zip(requests, found, strict=True):
        ids = torch.tensor([[*request.ids, *side.strategy_ids[request.strategy]]])
        with torch.inference_mode():
            wanted = real.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
                max_new_tokens=20, eos_token_id=side.end,
                suppress_tokens=[token for token in side.special if token != side.end],
                pad_token_id=chat_tokenizer().pad_token_id,
            )[0, ids.shape[1] :].tolist()  # fmt: skip
        assert answer.tokens == wanted


def padded(rows, side, length):
    """Token ids, mask and positions of rows padded on one side."""
    ids, mask, positions = [], [], []
    for row in rows:
        fill = length - len(row)
        before, after = (fill, 0) if side == "left" else (0, fill)
        ids.append([7] * before + row + [7] * after)
        mask.append([0] * before + [1] * len(row) + [0] * after)
        positions.append([0] * before + list(range(len(row))) + [0] * after)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask),
            "position_ids": torch.tensor(positions)}  # fmt: skip


@pytest.mark.parametrize("side", ["left", "right"])
@torch.inference_mode()
def test_logits_do_not_depend_on_padding(model, side):
    """With a mask and position ids a model says the same alone and in a batch."""
    rows = [list(request.ids) for request in asked(2)]
    longest = max(map(len, rows)) + 3
    for attention in ("sdpa", "pal_grouped", "eager"):
        model.set_attn_implementation(attention)
        together = model(**padded(rows, side, longest)).logits
        for row, logits in zip(rows, together, strict=True):
            kept = logits[-len(row) :] if side == "left" else logits[: len(row)]
            alone = model(torch.tensor([row])).logits[0]
            close = 1e-5 * max(1.0, float(alone.abs().max()))  # as exact as float32 is
            torch.testing.assert_close(kept, alone, atol=close, rtol=1e-5)


# ----------------------------------------------------------------------------- corner cases


def planted(values):
    """A model whose logits are these whatever it reads."""
    model = tiny("llama", ENTRIES, tie_word_embeddings=False)
    head = torch.nn.Linear(48, ENTRIES)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(-50.0)
        for token, value in values.items():
            head.bias[token] = value
    model.lm_head = head
    return model.eval()


def test_an_end_that_comes_too_early_is_not_all_that_is_plausible():
    """The end is by far the most probable, and no response may end yet."""
    model = planted({END: 60.0, 30: 1.0, 31: 0.9})
    for options in ({}, {"do_sample": True, "top_p": 0.5}, {"do_sample": True, "top_k": 3}):
        plan = plan_of(plausibility=0.5, alpha=(2.0,) * 8, min_new_tokens=4, max_new_tokens=6,
                       repetition_penalty=1.0, **options)  # fmt: skip
        for found in answers(model, plan, asked(1)):
            assert set(found.tokens[:4]) <= {30, 31}
            assert found.tokens[4:] == [END]
            assert all(0 <= p <= 1 for p in found.strategy_probs)


@pytest.mark.parametrize("plausibility", [1e-30, 1.0])
def test_the_ends_of_plausibility(model, plausibility):
    """At 1 the one most probable with notes is left; close to 0 nothing is dropped."""
    requests = asked(2, given=4)
    plan = plan_of(plausibility=plausibility, alpha=(5.0,) * 8, repetition_penalty=1.0)
    other = replace(plan, plausibility=0.0)
    if plausibility == 1.0:
        other = replace(other, alpha=(0.0,) * 8)
    wanted = [one.tokens for one in answers(model, other, requests)]
    assert [one.tokens for one in answers(model, plan, requests)] == wanted


def test_one_token_and_none_suppressed(model):
    plan = plan_of(min_new_tokens=0, max_new_tokens=1)
    for found, request in zip(answers(model, plan, asked(1)), asked(1), strict=True):
        assert found.tokens == by_hand(model, plan, request)[1]
        assert len(found.tokens) == 1
    assert answers(model, plan, []) == []


def test_suppressed_tokens_are_never_said():
    model = planted({0: 70.0, 1: 60.0, 40: 1.0})
    for plausibility in (0.0, 0.5):
        plan = plan_of(plausibility=plausibility, repetition_penalty=5.0, max_new_tokens=5)
        for found in answers(model, plan, asked(1)):
            assert not {0, 1} & set(found.tokens)
            assert found.tokens[0] == 40


def test_groups_and_trees():
    assert find_groups([[1, 2], [5], [1, 2, 3], [1, 2], [5, 6]]) == [[2, 0, 3], [4, 1]]
    tree = StrategyTree(STRATEGIES)
    for number, text in enumerate(STRATEGIES):
        assert [tree.tokens[node] for node in tree.path(number)] == text[:-1]
        assert [token for _, token in tree.steps[number]] == text
    beginnings = {tuple(t[:n]) for t in STRATEGIES for n in range(1, len(t))}
    assert len(tree) == len(beginnings)
    sees = tree.sees()
    for node in range(len(tree)):
        assert int(sees[node].sum()) == tree.depths[node] + 1
