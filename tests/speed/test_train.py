"""``pal bench train``: the same samples on all sides, and counts that are right."""

import json

import pytest

from pal.modeling.settings import ArchitectureSettings
from pal.speed.inputs import synthetic_rows
from pal.speed.sides import decoder_flops, encoder_flops
from pal.speed.train import draw_batches, load_training_samples, positions, real_tokens
from tests.jobs import ESCONV, TINY_RESPONSE, command

FEW = ["--config", "quickstart", *TINY_RESPONSE, "training.per_device_train_batch_size=2"]


def test_the_command_prints_and_writes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pal.speed.machine.PROBE", 32)
    output = tmp_path / "bench.json"
    call = ["bench", "train", *FEW, "limit=8", f"output={output}"]
    assert command(*call) == 0
    table = capsys.readouterr().out
    found = json.loads(output.read_text())
    names = [side["name"] for side in found["sides"]]
    assert names[0] == "ours, float32"
    assert names[-2:] == ["Seq2SeqTrainer, batch of 2", "the authors' padding, batch of 4"]
    for side in found["sides"]:
        assert f"| {side['name']} |" in table
        assert side["seconds"] > 0
        assert 0 <= side["idle"] < 1
        assert 0 <= side["padding"] < 1
    ours, theirs = found["sides"][0], found["sides"][-1]
    assert (ours["samples"], theirs["samples"]) == (6, 4)  # all but the first step
    assert "train_runtime" not in table
    faster = ours["tokens"] / ours["seconds"] / (theirs["tokens"] / theirs["seconds"])
    assert f"| {faster:.2f} |" in table
    assert command(*call) == 2
    assert "overwrite=true" in capsys.readouterr().err


def test_every_side_has_a_step_to_count(response_model):
    model, encoded, _ = load(response_model, ESCONV, "test")
    options = {"per_device_train_batch_size": 2}
    batches = draw_batches(model, encoded, options=options, limit=4)
    assert len(batches) == 4  # two batches of the authors' four rows


def load(model, source=None, split=None):
    return load_training_samples(
        source and str(source), split, model=str(model), architecture=ArchitectureSettings()
    )


def test_a_model_and_real_samples(response_model):
    model, encoded, source = load(response_model, ESCONV, "test")
    assert {*encoded[0]} == {"input_ids", "persona_input_ids", "labels"}
    assert source.endswith(f"{len(encoded)} in esconv")
    batches = draw_batches(model, encoded, options={})
    assert {len(batch) for batch in batches} == {8}
    indices = [index for batch in batches for index in batch]
    assert len(set(indices)) == len(indices)
    # of similar length, as in the plan of the whole
    rows = [[encoded[index] for index in batch] for batch in batches]
    assert real_tokens(rows) / positions(rows, common_length=False) > 0.6


def test_input_without_a_tokenizer_is_refused(capsys):
    assert command("bench", "train", *FEW, f"input={ESCONV}") == 2
    assert "no tokenizer at facebook/blenderbot_small-90M" in capsys.readouterr().err


def test_positions_by_hand():
    batch = [
        {"input_ids": [1] * 5, "persona_input_ids": [1] * 2, "labels": [1]},
        {"input_ids": [1] * 3, "persona_input_ids": [1] * 1, "labels": [1] * 4},
    ]
    assert real_tokens([batch]) == 16
    assert positions([batch], common_length=False) == 2 * (5 + 2 + 4)
    assert positions([batch], common_length=True) == 2 * (5 + 5 + 4)


def test_synthetic_lengths_are_those_of_esconv(response_model):
    """There 307, 120 and 24 tokens on average."""
    config = load(response_model)[0].config
    config.max_context_tokens, config.max_persona_tokens, config.max_target_tokens = 512, 160, 128
    rows = synthetic_rows(config, 3000, seed=1)
    for name, mean in (("input_ids", 307), ("persona_input_ids", 120), ("labels", 24)):
        assert sum(len(row[name]) for row in rows) / 3000 == pytest.approx(mean, rel=0.06)


def test_flops_are_those_the_library_counts(response_model):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = load(response_model)[0].eval()
    model.set_attn_implementation("eager")
    ids = torch.ones(1, 40, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=ids, decoder_input_ids=ids[:, :24])
    expected = encoder_flops(model.config, 40) + decoder_flops(model.config, 40, 24)
    # ours counts the half of the decoder's attention to itself that is not masked
    masked = model.config.decoder_layers * 2 * 24**2 * model.config.d_model
    assert counter.get_total_flops() == pytest.approx(expected + masked)
