"""``pal bench generate`` of decoder-only models: all sides answer the same, as the table says."""

import json
import platform
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pal.core.errors import CheckpointError, ConfigError
from pal.data.samples import build_samples
from pal.decoding.settings import DecodingSettings
from pal.modeling.settings import ArchitectureSettings
from pal.speed.language import (
    load_language_workload,
    measures_language,
    needed_by_language,
    run_guidance,
    run_in_turn,
    run_ours,
    same_share,
    stand_in_notes,
    watch_positions,
)
from tests.jobs import ESCONV, command
from tests.modeling.languages import KINDS, chat_tokenizer, dialogues, tiny

QWEN = ("architecture.from_scratch={model_type: qwen2, hidden_size: 48, intermediate_size: 64, "
        "num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2}")  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def base(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tiny(request.param).save_pretrained(folder)
    chat_tokenizer().save_pretrained(folder)
    return folder


def workload_of(base, count=20, *, context=400, **options):
    chosen = {"do_sample": False, "max_new_tokens": 8, **options}
    samples = build_samples(dialogues()[:3], "evaluation")[:count]
    architecture = ArchitectureSettings(base=str(base), max_context_tokens=context)
    return load_language_workload(
        samples, "here", model=None, architecture=architecture, decoding=DecodingSettings(**chosen)
    )


@torch.inference_mode()
def every_side(work, rows=6):
    return run_ours(work, rows=rows, tokens=900), run_guidance(work), run_in_turn(work, rows=rows)


@pytest.mark.parametrize("sampled", [False, True])
def test_all_sides_give_the_same_responses(base, sampled):
    """So the times are of the same work."""
    work = workload_of(base, do_sample=sampled, temperature=1.0, top_k=50)
    assert len({bool(work.alpha(request)) for request in work.requests}) == 2
    assert len({len(request.ids) for request in work.requests}) > 10
    ours, guidance, two_passes = every_side(work)
    assert ours == guidance == two_passes
    assert {len(tokens) for tokens in ours} == {8}
    assert len({tuple(tokens) for tokens in ours}) > 5


def test_they_would_not_without_the_contrast_or_with_other_noise(base):
    work = workload_of(base, do_sample=True, temperature=1.0, top_k=50)
    ours, guidance, two_passes = every_side(work)
    plain = replace(work, plan=replace(work.plan, alpha=(0.0,) * 8))
    others = every_side(plain)
    assert others[0] == others[1] == others[2] != ours
    contrasted = [bool(work.alpha(request)) for request in work.requests]
    changed = [one != other for one, other in zip(ours, others[0], strict=True)]
    assert all(c for n, c in zip(changed, contrasted, strict=True) if c)
    assert sum(changed) >= sum(contrasted) // 2
    keys = [replace(request, key=request.key + 1) for request in work.requests]
    for side, before in zip(every_side(replace(work, requests=keys)), (ours, guidance, two_passes),
                            strict=True):  # fmt: skip
        assert side != before


def test_a_penalty_that_is_given_is_that_of_the_engine(base):
    assert workload_of(base).plan.options.repetition_penalty == 1.0
    work = workload_of(base, repetition_penalty=1.5)
    assert work.plan.options.repetition_penalty == 1.5
    ours, _, two_passes = every_side(work)
    assert ours == two_passes != every_side(workload_of(base))[0]


def test_positions_are_those_of_the_branches(base):
    """Row by row, without padding: prompt and all tokens but the last, of each branch."""
    work = workload_of(base, 8)
    with watch_positions(work.model) as seen, torch.inference_mode():
        run_guidance(work)
    expected = 0
    for request in work.requests:
        branches = work.prompts(request)[: 2 if work.alpha(request) else 1]
        expected += sum(len(ids) + 7 for ids in branches)
    assert seen["positions"] == expected


def test_needed_operations_are_those_of_a_row(base):
    """Of one row without a contrast, counted by the library."""
    work = workload_of(base, 1, max_new_tokens=1)
    work = replace(work, plan=replace(work.plan, alpha=(0.0,) * 8))
    [request] = work.requests
    ids = torch.tensor([work.prompts(request)[0]])
    work.model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        work.model(input_ids=ids, logits_to_keep=1, use_cache=False)
    # Causal attention: half of what is counted is not needed.
    config = work.model.config
    heads = config.num_attention_heads * getattr(config, "head_dim", config.hidden_size // 4)
    if config.model_type != "gpt2":
        heads = config.num_attention_heads * (config.hidden_size // config.num_attention_heads)
    half = 2 * config.num_hidden_layers * heads * ids.shape[1] ** 2
    assert needed_by_language(work) == pytest.approx(counter.get_total_flops() - half, rel=1e-3)


def test_what_dialogues_share_is_needed_once(base):
    work = workload_of(base, 6, context=2000)  # a dialogue that is cut shares nothing
    alone = sum(needed_by_language(replace(work, requests=[one])) for one in work.requests)
    assert needed_by_language(work) < 0.7 * alone


def test_same_share():
    assert same_share([[1, 2], [3, 4]], [[1, 2], [3, 5]]) == 0.75


def test_stand_in_notes():
    rows = [{"id": "a", "dialog": [
        {"speaker": "seeker", "text": "Hello. I lost my job! It was bad."},
        {"speaker": "supporter", "text": "I see."},
        {"speaker": "seeker", "text": "I lost my job. I am sad."},
    ]}]  # fmt: skip
    turns = stand_in_notes(rows)[0]["dialog"]
    assert [turn["persona"] for turn in turns] == [
        ["I lost my job"], ["I lost my job"], ["I lost my job", "I am sad"]
    ]  # fmt: skip


def test_the_command_measures_a_base_from_its_first_contexts(base, tmp_path, capsys):
    output = tmp_path / "bench.json"
    call = ["bench", "generate", f"architecture.base={base}", "limit=10", "bench.rounds=2",
            "architecture.max_context_tokens=400", "decoding.max_new_tokens=4",
            "decoding.do_sample=false", f"output={output}"]  # fmt: skip
    assert command(*call) == 0
    table = capsys.readouterr().out
    for name in ("ours, 64 rows", "transformers' guidance", "two passes, batch of 64"):
        assert f"| {name}" in table
    assert "10 contexts of 2 dialogues (the bundled corpus, sentences of the seeker" in table
    assert "same tokens" in table
    assert "padding |" not in table
    found = json.loads(output.read_text())
    assert [side["tokens"] for side in found["sides"]] == [40] * 3
    assert [side["same"] for side in found["sides"]] == [1.0] * 3
    assert [len(side["rounds"]) for side in found["sides"]] == [2] * 3
    assert all(side["positions"] > 0 and side["memory"] >= 0 for side in found["sides"])


def test_a_trained_model_and_dialogues_of_ones_own(tmp_path, capsys, caplog):
    folder = tmp_path / "model"
    assert command(
        "train", f"data.train={ESCONV}", QWEN, "architecture.vocab_size=600",
        "data.max_train_samples=8", "data.max_validation_samples=4", "training.num_train_epochs=1",
        "training.report_to=none", f"output_dir={folder}",
    ) == 0  # fmt: skip
    capsys.readouterr()
    call = ["bench", "generate", f"model={folder}", f"input={ESCONV / 'test.jsonl'}", "limit=5",
            "decoding.max_new_tokens=4", "bench.rounds=1"]  # fmt: skip
    assert command(*call, "bench.sides=[ours, guidance]") == 0
    table = capsys.readouterr().out
    assert "5 contexts of 1 dialogues (from test.jsonl)" in table
    assert "0 with notes, 0 with a contrast" in table
    assert "two passes" not in table
    assert "holds no personas, so there is no contrast" in caplog.text


def test_random_weights_have_a_tokenizer_of_the_contexts(capsys):
    call = ["bench", "generate", QWEN, "architecture.vocab_size=600", "limit=4",
            "decoding.max_new_tokens=4", "bench.rounds=1", "bench.sides=[ours]"]  # fmt: skip
    assert command(*call) == 0
    assert "4 contexts of 1 dialogues" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            [QWEN, "bench.sides=[ours, doubled]"],
            "bench.sides: doubled is for the other kind of model",
        ),
        (["bench.sides=[guidance]"], "bench.sides: guidance .* this one has an encoder"),
        ([QWEN, "bench.endings=natural"], "endings=natural .* give bench.endings=fixed"),
        ([QWEN, "decoding.num_beams=2", "decoding.do_sample=false"], "num_beams=2: a decoder-only"),
        ([QWEN, "architecture.persona_mode=fusion"], "persona_mode=fusion: a decoder-only"),
        (["architecture.base=nobody/nothing"], "architecture.base=nobody/nothing"),
    ],
)
def test_mistakes_are_one_line(changes, message, capsys):
    from re import search

    assert command("bench", "generate", "limit=2", "architecture.vocab_size=600", *changes) == 2
    error = capsys.readouterr().err.strip().split("\n")
    assert len([line for line in error if "error" in line]) == 1
    assert search(message, error[-1])


@pytest.mark.parametrize("name", ["train", "annotate"])
def test_what_is_not_measured_is_refused_in_one_line(base, name, capsys):
    for given in (QWEN, f"architecture.base={base}"):
        if name == "annotate" and given != QWEN:
            continue  # it takes no base
        assert command("bench", name, given, "limit=2") == 2
        error = capsys.readouterr().err.strip()
        assert error.endswith("pal bench generate measures both")
        assert "\n" not in error


def test_what_is_decoder_only(base):
    assert measures_language(None, ArchitectureSettings(base=str(base)))
    assert measures_language(None, ArchitectureSettings(from_scratch={"model_type": "llama"}))
    assert not measures_language(None, ArchitectureSettings())
    assert not measures_language(None, ArchitectureSettings(from_scratch={}, base="no/name"))
    with pytest.raises(CheckpointError):
        measures_language(None, ArchitectureSettings(base="no/name"))
    with pytest.raises(ConfigError):
        workload_of(base, num_beams=2)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back")
def test_memory_does_not_depend_on_what_ran_before():
    """What the allocator holds of an earlier side is no room for the next."""
    from pal.speed.machine import measure_call

    def allocate():
        return [torch.ones(200_000) for _ in range(150)]  # 0.8 MB each, 114 MiB in all

    for _ in range(3):
        held = allocate()[-1:]  # one block on top keeps the allocator from giving back the rest
        _, taken = measure_call(allocate, "cpu")
        assert 50 < taken.memory / 2**20 < 160
        assert len(held) == 1
