"""What a GPU would refuse or wait for, on a machine that has none; and that the helper sees it."""

import pytest
import torch
from torch.nn import functional as F
from transformers import GenerationConfig

import pal.decoding.engine as engines
import pal.decoding.language as languages
from pal.modeling.fusion import FUSIONS
from pal.persona.extractor import build_extractor, make_extractor
from pal.training.language import PackingCollator, keeps_apart, language_loss
from pal.training.losses import summarise_rows, token_loss
from tests.decoding.test_engine import GREEDY, SAMPLED, build_ending
from tests.decoding.test_graphs import answer, engine_of, play
from tests.decoding.test_language_engine import ENTRIES, answers, asked, plan_of
from tests.devices import NAME, MixedDevices, claimed, claimed_device
from tests.modeling.families import build_case, tokenizer_of
from tests.modeling.languages import tiny
from tests.modeling.small import build, collate, encode_samples, small_tokenizer
from tests.persona.test_extractor import SIZES

COUNT = 40


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


@pytest.fixture(scope="module")
def encoded(tokenizer):
    return encode_samples(tokenizer, build(tokenizer), COUNT)[1]


def tokens_of(found):
    return [one.tokens for one in found]


# ----------------------------------------------------------------------------- the helper


def test_tensors_say_where_they_are_and_what_they_hold():
    with claimed_device() as device:
        x = device.take(torch.arange(6.0).view(2, 3))
        assert (x.device.type, x.is_cuda, x.shape) == ("cuda", True, (2, 3))
        made = [
            torch.zeros(2, device=NAME), torch.arange(3, device=x.device), x.new_ones(2),
            torch.full((2,), 3, device="cuda"), torch.zeros_like(x, dtype=torch.long), x[1],
            x[:, 0], x.sum(1), F.softmax(x, -1), x.view(3, 2).t(), x.to(torch.long), x > 2,
            ~(x > 2), torch.where(x > 2, x, 0.0), x.masked_fill(x > 2, 1.0), x.contiguous(),
        ]  # fmt: skip
        assert all(claimed(one) for one in made)
        x[:, -1] = -torch.inf
        x[1] += 1
        assert device.syncs == []
        assert x.tolist() == [[0.0, 1.0, -torch.inf], [4.0, 5.0, -torch.inf]]
        assert len(device.syncs) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda x, cpu, ids: x + cpu,
        lambda x, cpu, ids: cpu * x,
        lambda x, cpu, ids: F.linear(x, torch.ones(3, 3)),
        lambda x, cpu, ids: F.embedding(ids, x),
        lambda x, cpu, ids: torch.cat([x, cpu]),
        lambda x, cpu, ids: torch.where(cpu > 0, x, 0.0),
        lambda x, cpu, ids: x.gather(1, ids),
        lambda x, cpu, ids: x.index_select(0, ids[0]),
        lambda x, cpu, ids: x.index_copy_(0, ids[0], x),
        lambda x, cpu, ids: cpu[x[0].long()],
        lambda x, cpu, ids: x.__setitem__(ids[0], cpu),
        lambda x, cpu, ids: x.masked_fill(cpu > 0, 0.0),
        lambda x, cpu, ids: F.scaled_dot_product_attention(x[None], x[None], cpu[None]),
        lambda x, cpu, ids: x.add_(cpu),
        lambda x, cpu, ids: x.sum() + cpu,
    ],
)
def test_mixed_devices_are_refused(call):
    with claimed_device() as device, torch.no_grad():
        x = device.take(torch.ones(2, 3))
        with pytest.raises(RuntimeError, match=r"same device|on the CPU"):
            call(x, torch.ones(2, 3), torch.zeros(2, 2, dtype=torch.long))


@pytest.mark.parametrize(
    ("call", "waits"),
    [
        (lambda x: x.sum().item(), 1),
        (lambda x: float(x.sum()), 1),
        (lambda x: bool((x > 0).all()), 1),
        (lambda x: 1 if x.sum() > 0 else 0, 1),
        (lambda x: x.tolist(), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: x.to("cpu", torch.double), 1),
        (lambda x: x.nonzero(), 1),
        (lambda x: x.masked_select(x > 0), 1),
        (lambda x: x[x > 0], 1),
        (lambda x: torch.where(x > 0), 1),
        (lambda x: x[[0, 1]], 1),
        (lambda x: x[torch.tensor([0])], 1),
        (lambda x: x[: x.sum().long()], 1),
        (lambda x: torch.equal(x, x), 1),
        (lambda x: torch.ones(2).to(x.device), 1),
        (lambda x: torch.ones(2).cuda(), 1),
        (lambda x: torch.tensor([1.0], device=x.device), 1),
        (lambda x: x.copy_(torch.ones(2, 3)), 1),
        (lambda x: torch.zeros(2, 3).copy_(x), 1),
        (lambda x: x.unique(), 1),
        (lambda x: x.repeat_interleave(torch.ones(2, device=NAME).long(), 0), 1),
        (lambda x: torch.ones(2).pin_memory().to(x.device, non_blocking=True), 0),
        (lambda x: x.copy_(torch.ones(2, 3), non_blocking=True), 0),
        (lambda x: x.__setitem__(x > 0, 0.0), 0),
        (lambda x: x + torch.tensor(2.0), 0),
        (lambda x: x.topk(2, dim=-1).values.cumsum(-1), 0),
        (lambda x: x.to(x.device), 0),
    ],
)
def test_what_a_host_waits_for_is_counted(call, waits):
    with claimed_device() as device, torch.no_grad():
        x = device.take(torch.ones(2, 3))
        call(x)
        assert len(device.syncs) == waits, device.syncs
    if waits:
        assert device.syncs[0][1].startswith("tests/test_devices.py:")


def test_results_are_those_of_the_cpu(tokenizer, encoded):
    model, batch = build(tokenizer), collate(build(tokenizer), encoded[:6])
    with torch.no_grad():
        wanted = model(**batch)
        with claimed_device() as device:
            device.take(model)
            assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
            found = model(**{name: device.take(part) for name, part in batch.items()})
    assert torch.allclose(found.logits.held, wanted.logits, atol=1e-4)
    assert torch.allclose(found.loss.held, wanted.loss, atol=1e-5)


# ----------------------------------------------------------------------------- the engines


def watch_steps(monkeypatch, device, owner, name):
    """Count what the host waits for in each call of a method."""
    counts, real = [], getattr(owner, name)

    def call(self, *args, **settings):
        before = len(device.syncs)
        found = real(self, *args, **settings)
        counts.append(len(device.syncs) - before)
        return found

    monkeypatch.setattr(owner, name, call)
    return counts


@pytest.mark.parametrize("options", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("fixed", [False, True], ids=["dynamic", "fixed"])
def test_a_step_waits_once(tokenizer, encoded, monkeypatch, options, fixed):
    """Of fixed shapes a block of steps does, whatever rows leave."""
    model = build_ending(tokenizer)
    wanted = answer(engine_of(model, options, rows=9), model, encoded)
    with claimed_device() as device:
        device.take(model)
        engine = engine_of(model, options, rows=9, fixed=fixed, block=3)
        counts = watch_steps(monkeypatch, device, engines._Run, "step")
        assert tokens_of(answer(engine, model, encoded)) == tokens_of(wanted)
    assert set(counts) == {1}
    assert engine.steps > 2 * len(counts) if fixed else engine.steps == len(counts)
    if not fixed:
        return
    admitted = [place for what, place in device.syncs if what == "tolist"]
    assert len(admitted) - len(counts) < 15  # once for the strategies of each group of a length


def test_fixed_is_what_a_gpu_gets(tokenizer):
    model = build_ending(tokenizer)
    assert not engine_of(model, SAMPLED, rows=2).fixed
    with claimed_device() as device:
        device.take(model)
        assert engine_of(model, SAMPLED, rows=2).fixed


@pytest.mark.parametrize("fixed", [False, True], ids=["dynamic", "fixed"])
def test_an_open_run_waits_once_a_step(tokenizer, encoded, monkeypatch, fixed):
    model = build_ending(tokenizer)
    wanted = play(engine_of(model, SAMPLED, rows=6), model, encoded[:20], 1, drops={5, 10})
    with claimed_device() as device:
        device.take(model)
        counts = watch_steps(monkeypatch, device, engines._Run, "step")
        engine = engine_of(model, SAMPLED, rows=6, fixed=fixed)
        found = play(engine, model, encoded[:20], 1, drops={5, 10})
    assert found[0] == wanted[0]
    assert set(counts) == {1}


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_step_of_a_language_model_waits_once(monkeypatch, kind):
    plan = plan_of(do_sample=True, top_k=20, plausibility=0.1, repetition_penalty=1.2)
    wanted = answers(tiny(kind, ENTRIES), plan, asked(), rows=6)
    model = tiny(kind, ENTRIES)
    with claimed_device() as device:
        device.take(model)
        counts = watch_steps(monkeypatch, device, languages.Batch, "step")
        found = answers(model, plan, asked(), rows=6)
    assert tokens_of(found) == tokens_of(wanted)
    assert len(counts) >= 30
    assert sum(counts) <= len(counts) + 5  # groups that leave are counted on the host
    assert sorted(counts)[len(counts) // 2] == 1


def index_on_the_host(real):
    def step(decoder, token, position, every, **given):
        return real(decoder, token, position, torch.arange(len(every)), **given)

    return step


def position_on_the_host(real):
    def step(decoder, token, position, every, **given):
        return real(decoder, token, torch.full(position.shape, 3), every, **given)

    return step


def reading(real):
    def step(decoder, token, position, every, **given):
        real(decoder, token, position, every, **given)[0, 0].item()
        return real(decoder, token, position, every, **given)

    return step


@pytest.mark.parametrize("fault", [index_on_the_host, position_on_the_host, reading])
def test_a_planted_fault_is_seen(tokenizer, encoded, monkeypatch, fault):
    """Each gives the right results, or may, on a CPU."""
    model = build_ending(tokenizer)
    monkeypatch.setattr(engines, "decode_step", fault(engines.decode_step))
    answer(engine_of(model, SAMPLED, rows=9), model, encoded[:9])
    with claimed_device() as device:
        device.take(model)
        counts = watch_steps(monkeypatch, device, engines._Run, "step")
        try:
            answer(engine_of(model, SAMPLED, rows=9, fixed=False), model, encoded[:9])
        except MixedDevices:
            return
    assert min(counts) > 1


# ----------------------------------------------------------------------------- models


@pytest.mark.parametrize("beams", [1, 3])
def test_generate_with_its_processors(tokenizer, encoded, beams):
    model = build_ending(tokenizer)
    batch = collate(model, encoded[:8], labels=False)
    options = SAMPLED if beams == 1 else {"max_new_tokens": 8, "num_beams": beams}
    given = {
        "sample_ids": list(range(8)), "seed": 4, "strategy": list(range(8)),
        "return_strategies": True, "generation_config": GenerationConfig(**options),
    }  # fmt: skip
    wanted = model.generate(**batch, **given)
    with claimed_device() as device:
        device.take(model)
        found = model.generate(**{n: device.take(part) for n, part in batch.items()}, **given)
    assert found.sequences.held.tolist() == wanted.sequences.tolist()
    assert found.alpha.held.tolist() == wanted.alpha.tolist()
    assert {bool(alpha) for alpha in wanted.alpha} == {True, False}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_and_its_loss(tokenizer, encoded, fusion):
    model = build(tokenizer, fusion=fusion)
    batch = collate(model, encoded[:6])
    reduce = summarise_rows(model.config.strategy_token_ids)

    def losses(part):
        output = model(**part)
        summary = reduce(output.logits, part["labels"])
        return token_loss(output, part["labels"]), output.loss, summary

    with torch.no_grad():
        wanted = losses(batch)
        with claimed_device() as device:
            device.take(model)
            found = losses({name: device.take(part) for name, part in batch.items()})
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one.held, other, atol=1e-5)


@pytest.mark.parametrize("case", ["bart", "t5", "blenderbot"])
def test_other_families(case):
    model, tokenizer = build_case(case), tokenizer_of(case)
    inputs = encode_samples(tokenizer, model, 6)[1]
    batch, asked_for = collate(model, inputs), collate(model, inputs, labels=False)
    given = {"sample_ids": list(range(6)), "seed": 4, "generation_config": GenerationConfig(
        do_sample=True, top_k=20, max_new_tokens=6, min_new_tokens=1, repetition_penalty=1.03,
    )}  # fmt: skip
    with torch.no_grad():
        loss = model(**batch).loss
        wanted = model.generate(**asked_for, **given)
        with claimed_device() as device:
            device.take(model)
            found = model(**{name: device.take(part) for name, part in batch.items()}).loss
            said = model.generate(**{n: device.take(p) for n, p in asked_for.items()}, **given)
    assert torch.allclose(found.held, loss, atol=1e-5)
    assert said.held.tolist() == wanted.tolist()


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_the_loss_of_a_language_model(kind):
    model = tiny(kind)
    samples = [{"input_ids": list(range(9, 9 + n)), "labels": [-100, *range(10, 9 + n)]}
               for n in (5, 9, 14)]  # fmt: skip
    batch = PackingCollator(pad_token_id=0, packs=keeps_apart(model))(samples)
    with torch.no_grad():
        wanted = language_loss(model, batch)
        with claimed_device() as device:
            device.take(model)
            assert keeps_apart(model)
            found = language_loss(model, {name: device.take(p) for name, p in batch.items()})
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one.held, other, atol=1e-5)


def test_the_extractor(tokenizer):
    torch.manual_seed(0)
    model = build_extractor(base="", from_scratch=SIZES, tokenizer=tokenizer).eval()

    def sentences():
        extract = make_extractor(model, tokenizer, num_beams=2, max_new=10, rows=4)
        return extract([extract.encode_source([text]) for text in ("i have a dog .", "hello")])

    wanted = sentences()
    with claimed_device() as device:
        device.take(model)
        assert sentences() == wanted
    assert device.syncs
