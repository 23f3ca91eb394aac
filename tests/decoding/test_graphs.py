"""Steps of fixed shapes against the engine's other way, token for token, also as recordings."""

import random

import pytest
import torch
from transformers import GenerationConfig

from pal.decoding import graphs, shelves
from pal.decoding.engine import DecodingRequest, Engine
from pal.decoding.graphs import round_up
from pal.decoding.noise import sample_keys
from pal.decoding.plan import DecodingPlan
from pal.decoding.settings import DecodingSettings
from pal.modeling.encoding import encode_sorted, input_length
from pal.modeling.fusion import CoAttentionFusion
from tests.decoding.recording import TapeRecorder
from tests.decoding.test_engine import GREEDY, SAMPLED, build_ending
from tests.modeling.small import build, collate, encode_samples, small_tokenizer

COUNT = 60


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return build_ending(tokenizer)


@pytest.fixture(scope="module")
def encoded(tokenizer):
    return encode_samples(tokenizer, build(tokenizer), COUNT)[1]


@pytest.fixture(params=["as they are", "recorded"])
def recorders(request, monkeypatch):
    """The recorders that workspaces get: none, or ones that do what a CUDA graph does."""
    made = []
    if request.param == "recorded":
        init = graphs.Workspace.__init__

        def with_recorder(self, *args, **settings):
            init(self, *args, **settings)
            if settings.get("fixed"):
                self.recorder = TapeRecorder(self)
                made.append(self.recorder)

        monkeypatch.setattr(graphs.Workspace, "__init__", with_recorder)
    return made


def engine_of(model, options, *, rows, decoder=None, alpha=None, **settings):
    plan = DecodingPlan.from_settings(DecodingSettings(**options, alpha=alpha), model.config)
    return Engine(decoder or model.fast_decoder(model.suppressed_tokens()), plan, rows=rows,
                  **settings)  # fmt: skip


def answer(engine, model, inputs, *, limits=None, **more):
    keys = sample_keys(4, [f"s{n}" for n in range(len(inputs))]).tolist()
    limits = limits or [None] * len(inputs)
    requests = [DecodingRequest(k, limit=n) for k, n in zip(keys, limits, strict=True)]
    return engine(
        requests, [input_length(row) for row in inputs],
        lambda chosen: encode_sorted(model, [inputs[i] for i in chosen]), **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def eager(model):
    """What the engine's other way answers, once for all tests that ask the same of it."""
    known = {}

    def ask(options, rows, inputs):
        key = (str(options), rows, *(tuple(row["input_ids"]) for row in inputs))
        if key not in known:
            known[key] = answer(engine_of(model, options, rows=rows), model, inputs)
        return known[key]

    return ask


@pytest.mark.parametrize(
    ("options", "rows", "block"),
    [(GREEDY, 1, 8), (SAMPLED, 7, 1), (GREEDY, 13, 4), (SAMPLED, 64, 8), (SAMPLED, 64, 64)],
)
def test_the_same_tokens(model, encoded, eager, recorders, options, rows, block):
    wanted = eager(options, rows, encoded)
    found = answer(engine_of(model, options, rows=rows, fixed=True, block=block), model, encoded)
    assert found == wanted
    assert len({len(one.tokens) for one in found}) > 2  # rows left at different times
    assert {one.alpha == 0 for one in found} == {True, False}
    for recorder in recorders:
        assert recorder.recorded
        assert recorder.repeated > recorder.recorded


@pytest.mark.parametrize(
    "settings",
    [{"fusion": "no_weights"}, {"fusion": "no_persona_stream"}, {"persona_mode": "none"}],
    ids=str,
)
def test_other_models(tokenizer, encoded, recorders, settings):
    model = build_ending(tokenizer, **settings)
    rows = encoded
    if model.fusion is None:
        rows = [{k: v for k, v in e.items() if not k.startswith("persona")} for e in encoded]
    wanted = answer(engine_of(model, SAMPLED, rows=9), model, rows)
    assert answer(engine_of(model, SAMPLED, rows=9, fixed=True), model, rows) == wanted


class JoinedFusion(CoAttentionFusion):
    """A fusion that gives more positions than it gets, padding between them."""

    def forward(self, dialogue, dialogue_mask, persona, persona_mask):
        return torch.cat([dialogue, persona], 1), torch.cat([dialogue_mask, persona_mask], 1)


@pytest.mark.parametrize("fixed", [False, True])
def test_fused_states_longer_than_both_inputs(tokenizer, encoded, fixed):
    """Whatever the rows that they come with, none is cut."""
    model = build_ending(tokenizer)
    model.fusion.__class__ = JoinedFusion
    persona = max((row["persona_input_ids"] for row in encoded), key=len)
    long = [row["input_ids"] for row in encoded if len(row["input_ids"]) > 100]
    growing = [  # the first rows have the longest inputs, and the later ones the longest states
        {"input_ids": ids[:100], "persona_input_ids": persona[:1]} if place < 6 else
        {"input_ids": ids[:90], "persona_input_ids": persona}
        for place, ids in enumerate(long)
    ]  # fmt: skip
    for inputs in (encoded, growing):
        wanted = model.generate(
            **collate(model, inputs, labels=False), seed=4, strategy="argmax",
            sample_ids=[f"s{n}" for n in range(len(inputs))],
            generation_config=GenerationConfig(**SAMPLED),
        )[:, 2:].tolist()  # fmt: skip
        end = model.config.eos_token_id
        wanted = [row[: row.index(end) + 1] if end in row else row for row in wanted]
        found = answer(engine_of(model, SAMPLED, rows=6, fixed=fixed), model, inputs)
        assert [one.tokens for one in found] == wanted
        ended = play(engine_of(model, SAMPLED, rows=9, fixed=fixed), model, inputs, 1)[1]
        assert [ended[n].tokens for n in range(len(inputs))] == wanted


def test_longer_states_of_a_later_row_uncover_nothing(tokenizer, encoded, monkeypatch):
    """Slots that were filled for shorter states hold numbers up to the longer ones' end."""
    init = shelves.Shelf.__init__

    def unwritten(self, *args):
        init(self, *args)
        for held in self.held:
            held.fill_(torch.nan)

    monkeypatch.setattr(shelves.Shelf, "__init__", unwritten)
    model = build_ending(tokenizer)
    model.fusion.__class__ = JoinedFusion
    long = [row["input_ids"] for row in encoded if len(row["input_ids"]) > 100][:6]
    sizes = [(100, 1, 0.0, 1)] * 6 + [(41, 1, 1.5, None)] * 6 + [(30, 40, 1.5, None)] * 6
    inputs = [
        {"input_ids": ids[:dialogue], "persona_input_ids": ids[-persona:]}
        for (dialogue, persona, *_), ids in zip(sizes, long * 3, strict=True)
    ]
    requests = [
        DecodingRequest(key, alpha=[alpha] * 8, limit=limit)
        for key, (_, _, alpha, limit) in enumerate(sizes)
    ]
    found = [
        engine_of(model, SAMPLED, rows=6, fixed=fixed)(
            requests, [input_length(row) for row in inputs],
            lambda chosen: encode_sorted(model, [inputs[i] for i in chosen]),
        )
        for fixed in (True, False)
    ]  # fmt: skip
    assert [one.tokens for one in found[0]] == [one.tokens for one in found[1]]


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_one_alpha_and_limits(model, encoded, recorders, alpha):
    limits = [None if n % 3 else 1 + n % 11 for n in range(COUNT)]
    engine = engine_of(model, SAMPLED, rows=20, alpha=alpha)
    wanted = answer(engine, model, encoded, limits=limits)
    engine = engine_of(model, SAMPLED, rows=20, alpha=alpha, fixed=True, block=5)
    assert answer(engine, model, encoded, limits=limits) == wanted
    assert max(len(one.tokens) for one in wanted[::33]) == 1


def test_a_workspace_serves_later_calls_of_other_options(model, encoded, eager, recorders):
    """What an earlier run left, and the steps that were recorded for it, change nothing."""
    decoder = model.fast_decoder(model.suppressed_tokens())
    calls = [
        (SAMPLED, 40, encoded), (GREEDY, 20, encoded[::-1]), (SAMPLED, 20, encoded[:30]),
        ({**SAMPLED, "max_new_tokens": 30}, 11, encoded), ({**SAMPLED, "top_p": 0.5}, 40, encoded),
        (SAMPLED, 60, encoded), ({**SAMPLED, "max_new_tokens": 33}, 40, encoded),
        (SAMPLED, 40, encoded),
    ]  # fmt: skip
    used = set()
    for options, rows, inputs in calls:
        wanted = eager(options, rows, inputs)
        engine = engine_of(model, options, rows=rows, fixed=True, decoder=decoder)
        assert answer(engine, model, inputs) == wanted
        held = graphs._idle[decoder]
        used.add(id(held))
        with torch.inference_mode():
            held.own.fill_(torch.nan)  # what an overflow would leave
            held.cross.fill_(torch.nan)
    assert len(used) < len(calls)
    if recorders:
        assert sum(recorder.repeated for recorder in recorders) > 3 * sum(
            recorder.recorded for recorder in recorders
        )


def test_a_workspace_goes_with_its_decoder(model, encoded):
    decoder = model.fast_decoder(model.suppressed_tokens())
    held = len(graphs._idle)
    answer(engine_of(model, GREEDY, rows=4, fixed=True, decoder=decoder), model, encoded[:4])
    assert len(graphs._idle) == held + 1
    del decoder
    assert len(graphs._idle) == held


def play(engine, model, inputs, seed, *, drops=()):
    """An open run whose requests come at moments of their own; its events, by ticket."""
    draw = random.Random(seed)
    keys = sample_keys(4, [f"s{n}" for n in range(len(inputs))]).tolist()
    run = engine.open(lambda tickets: encode_sorted(model, [inputs[t] for t in tickets]))
    coming, seen, ended = list(range(len(inputs))), {}, {}
    while coming or not run.idle:
        for _ in range(min(len(coming), draw.choice([0, 0, 1, 2, 5]))):
            ticket = coming.pop(0)
            run.add(ticket, DecodingRequest(keys[ticket]), input_length(inputs[ticket]))
        for event in run.advance():
            seen.setdefault(event.ticket, []).append(event.token)
            if event.ended:
                ended[event.ticket] = event.answer
            elif event.ticket in drops and len(seen[event.ticket]) == 3:
                run.drop(event.ticket)
    return seen, ended


def test_an_open_run_brings_the_same_events(model, encoded, recorders):
    # The run's room grows for the long ones, and the last ones are as short as the first.
    short = [row for row in encoded if input_length(row) < 128]
    inputs = [*short[::2], *(row for row in encoded if input_length(row) > 256), *short[1::2]]
    assert len(short) > 12
    drops = set(range(0, COUNT, 5))
    options = {**SAMPLED, "max_new_tokens": 24}
    wanted = play(engine_of(model, options, rows=12), model, inputs, 1, drops=drops)
    found = play(engine_of(model, options, rows=12, fixed=True), model, inputs, 1, drops=drops)
    assert found == wanted
    assert len(wanted[1]) < len(inputs)  # some were dropped
    assert {number: one.tokens for number, one in found[1].items()} == {
        number: found[0][number] for number in found[1]
    }
    for recorder in recorders:
        assert recorder.repeated > recorder.recorded > 2


def test_numbers_that_are_none_do_not_spread(model, encoded):
    """Slots that nothing was written to leave nothing that a later row reads."""
    engine = engine_of(model, SAMPLED, rows=32, fixed=True)
    answer(engine, model, encoded[:5])
    workspace = graphs._idle[engine.decoder]
    for name, part in vars(workspace).items():
        if isinstance(part, torch.Tensor) and part.is_floating_point() and name != "cross_mask":
            assert part.isfinite().all(), name


def test_the_host_reads_once_a_block(model, encoded, monkeypatch):
    reads = []
    tolist = torch.Tensor.tolist

    def counted(self):
        if self.dim() == 2 and self.dtype == torch.long:  # tokens of a block
            reads.append(len(self))
        return tolist(self)

    monkeypatch.setattr(torch.Tensor, "tolist", counted)
    options = {**SAMPLED, "max_new_tokens": 20, "min_new_tokens": 20}
    engine = engine_of(model, options, rows=COUNT, fixed=True, block=8)
    told = []
    answer(engine, model, encoded, watch=told.append)
    assert engine.steps == 20
    assert reads == [8, 8, 4]
    assert told == [8 * COUNT, 16 * COUNT, 20 * COUNT]  # from what was read anyway


@pytest.mark.parametrize("fixed", [True, False])
def test_tokens_are_counted_up_to_the_end_of_each_answer(model, encoded, fixed):
    told = []
    engine = engine_of(model, SAMPLED, rows=7, fixed=fixed)
    found = answer(engine, model, encoded, watch=told.append)
    assert told == sorted(told)
    assert told[-1] == sum(len(one.tokens) for one in found)


def test_a_step_that_cannot_be_recorded_runs_as_it_is(model, encoded, caplog):
    class Failing(TapeRecorder):
        def record(self, call):
            super().record(call)
            raise RuntimeError("operation not permitted when stream is capturing")

    decoder = model.fast_decoder(model.suppressed_tokens())
    with torch.inference_mode():
        held = graphs.fixed_workspace(decoder, slots=64, longest=512, steps=14)
        held.recorder = Failing(held)
    graphs.return_workspace(decoder, held)
    wanted = answer(engine_of(model, SAMPLED, rows=32), model, encoded)
    found = answer(engine_of(model, SAMPLED, rows=32, fixed=True, decoder=decoder), model, encoded)
    assert found == wanted
    assert [record.getMessage() for record in caplog.records] == [
        "no step can be recorded, so decoding is slower: operation not permitted when stream is "
        "capturing"
    ]


def test_few_shapes_for_many_sizes():
    sizes = {round_up(count, 1000) for count in range(1, 1001)}
    assert sizes == {16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1000}
    assert all(round_up(count, 1000) >= count for count in range(1, 1001))
    assert round_up(2, 9) == 9
