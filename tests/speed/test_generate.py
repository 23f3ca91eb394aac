"""``pal bench generate``: all sides answer the same, and the table says so."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pal.core.errors import ConfigError
from pal.data.samples import load_samples
from pal.data.settings import SourceSettings
from pal.decoding.engine import Engine
from pal.decoding.settings import DecodingSettings
from pal.modeling.settings import ArchitectureSettings
from pal.speed.generate import (
    clock_phases,
    measure_generation,
    needed,
    padding_share,
    phase_table,
    watch_padding,
)
from pal.speed.machine import Ceiling
from pal.speed.peers import run_doubled, run_two_passes
from pal.speed.sides import decoder_flops, encoder_flops, layer_sizes
from pal.speed.workload import load_workload
from tests.jobs import ESCONV, command
from tests.modeling.families import build_case, tokenizer_of

FAST = DecodingSettings(max_new_tokens=8, min_new_tokens=2)
SMALL = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
         "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}  # fmt: skip


def workload_of(model):
    samples = load_samples(str(ESCONV / "test.jsonl"), None, SourceSettings(), limit=20)
    return load_workload(
        samples, model=str(model), architecture=ArchitectureSettings(), decoding=FAST
    )


def ours(work):
    return [answer.tokens for answer in work.answer(7)]


def test_all_sides_give_the_same_responses(response_model):
    """So the times are of the same work."""
    work = workload_of(response_model)
    with torch.inference_mode():
        found = ours(work)
        assert found == run_doubled(work, 6) == run_two_passes(work, 3)
    assert {len(tokens) for tokens in found} == {8}
    assert len({tuple(tokens) for tokens in found}) > 5


@pytest.mark.parametrize("case", ["bart", "t5", "t5 v1.1", "blenderbot"])
def test_families_without_a_fast_decoder_are_measured(case, tmp_path):
    model = build_case(case)
    model.save_pretrained(tmp_path)
    tokenizer_of(case).save_pretrained(tmp_path)
    work = workload_of(tmp_path)
    with torch.inference_mode():
        found = ours(work)
        assert found == run_doubled(work, 6) == run_two_passes(work, 3)
    assert len({tuple(tokens) for tokens in found}) > 5
    table, document = measure_generation(
        work, sides=["ours", "doubled"], rows=8, tokens=4000, rounds=1
    )
    assert "| ours |" in table
    assert "| phase" not in table
    assert document["phases"] == {}
    assert document["sides"][0]["flops"] > 0


@pytest.mark.parametrize("case", ["bart", "t5 v1.1", "blenderbot"])
def test_flops_are_those_of_the_layers(case):
    """Of one row, padding apart, counted by the library."""
    model = build_case(case, persona_mode="none")
    model.set_attn_implementation("eager")
    ids = torch.full((1, 30), 7)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=ids, decoder_input_ids=ids[:, :20])
    found = encoder_flops(model.config, 30) + decoder_flops(model.config, 30, 20)
    size = layer_sizes(model.config)
    whole = 2 * 20 * 20 * size.heads * size.decoder_layers  # causal: half of it is not needed
    assert counter.get_total_flops() == pytest.approx(found + whole, rel=1e-3)


def test_natural_endings_need_a_bias(tmp_path):
    build_case("t5").save_pretrained(tmp_path)
    tokenizer_of("t5").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"endings=natural .* t5 models have none"):
        load_workload(
            None, model=str(tmp_path), decoding=FAST, natural=True, count=4,
            architecture=ArchitectureSettings(),
        )  # fmt: skip


def test_synthetic_contexts_random_weights_and_natural_endings():
    work = load_workload(
        None, model=None, decoding=DecodingSettings(), natural=True, count=24,
        architecture=ArchitectureSettings(from_scratch=SMALL, base="unreachable/name"),
    )  # fmt: skip
    with torch.inference_mode():
        found = ours(work)
        assert found == run_doubled(work, 6)
    assert len({len(tokens) for tokens in found}) > 10
    contexts = [len(row["input_ids"]) for row in work.inputs]
    assert 280 < sum(contexts) / len(contexts) < 330  # ESConv's mean is 304
    assert max(contexts) <= 512


def test_padding_is_counted(response_model):
    work = workload_of(response_model)
    shares = []
    with torch.inference_mode():
        for call in (ours, lambda work: run_two_passes(work, 10)):
            with watch_padding(work.model) as seen:
                call(work)
            shares.append(padding_share(seen))
    assert shares[0] < 0.2 < 0.4 < shares[1]


def test_needed_work_is_that_of_a_run_without_padding_or_contrast(response_model):
    """Against the library's own count of the operations of single rows."""
    from torch.utils.flop_counter import FlopCounterMode

    work = workload_of(response_model)
    work.model.config.alpha = [0.0] * 8
    work.model.set_attn_implementation("eager")  # the count knows no fused attention on a CPU
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        encoded = work.model.encode(**work.collate([0]))
        work.model.model.decoder(
            input_ids=work.model.start_tokens(1), encoder_hidden_states=encoded.states
        )
    config = work.model.config
    itself = 4 * config.d_model * config.decoder_layers  # the start token's attention to itself
    assert needed(work, [1])["encode"] == counter.get_total_flops() - itself


def test_the_command_prints_and_writes(response_model, tmp_path, capsys):
    output = tmp_path / "bench.json"
    call = ["bench", "generate", f"model={response_model}", f"input={ESCONV / 'test.jsonl'}",
            "limit=10", "decoding.max_new_tokens=4", "bench.rounds=2",
            f"output={output}"]  # fmt: skip
    assert command(*call, "decoding.min_new_tokens=1") == 0
    table = capsys.readouterr().out
    assert "| ours |" in table
    assert "| doubled batch of 32 |" in table
    assert "| encode |" in table
    assert "10 real contexts of" in table
    found = json.loads(output.read_text())
    assert {side["tokens"] for side in found["sides"]} == {40}
    assert [len(side["rounds"]) for side in found["sides"]] == [2, 2, 2]
    assert command(*call) == 2
    assert "overwrite=true" in capsys.readouterr().err


def test_phases_of_fixed_steps_are_clocked(response_model):
    """As on a GPU, whose recorded steps a profile cannot tell apart."""
    work = workload_of(response_model)
    with torch.inference_mode():
        engine = work.make_engine(7, fixed=True)
        found = clock_phases(work, engine)
        lengths = [len(answer.tokens) for answer in work.answer(7, engine)]
        assert engine.phase is Engine.phase
    assert list(found) == ["encode", "step"]
    flops = needed(work, lengths)
    assert found["encode"]["flops"] == flops["encode"]
    assert found["step"]["flops"] == flops["decode"] + flops["choose"]
    assert found["step"]["calls"] >= 3 * 8  # three times seven rows of eight tokens, or more
    assert all(phase["seconds"] > 0 and phase["traffic"] > 0 for phase in found.values())
    ceiling = Ceiling(flops=1e12, bandwidth=1e12)
    assert [line.split()[1] for line in phase_table(found, ceiling)[2:]] == ["encode", "step"]
