"""What products are computed in, whoever says so, is part of what a run is."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from pal.core.errors import ConfigError
from pal.training.numbers import (
    NumberFormat,
    asked_format,
    launcher_choices,
    launcher_environment_kept,
    refuse_unusable_launcher,
)
from tests.jobs import TRAIN_EXTRACTOR, TRAIN_RESPONSE, command, torchrun
from tests.training.runs import record, same, weights

CPU, GPU = torch.device("cpu"), torch.device("cuda")
ONE_EPOCH = ["training.num_train_epochs=1"]


@pytest.mark.parametrize(
    ("training", "wanted", "device", "expected"),
    [
        ({}, None, CPU, None),
        ({}, "no", CPU, None),
        ({}, "bf16", CPU, ("bfloat16", "launcher")),
        ({}, "fp16", GPU, ("float16", "launcher")),
        ({"bf16": True}, None, CPU, ("bfloat16", "settings")),
        ({"bf16": False}, "bf16", CPU, ("float32", "settings")),
        ({"fp16": False}, "bf16", CPU, ("float32", "settings")),
        ({"fp16": True}, "bf16", GPU, ("float16", "settings")),
    ],
)
def test_settings_come_before_the_launcher(monkeypatch, training, wanted, device, expected):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if wanted:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", wanted)
    assert asked_format(training, device) == (NumberFormat(*expected) if expected else None)


@pytest.mark.parametrize(
    ("training", "wanted", "message"),
    [
        ({"fp16": True}, "no", "training.fp16=true: a CPU"),
        ({}, "fp16", "ACCELERATE_MIXED_PRECISION=fp16: a CPU"),
        ({}, "fp8", "expected no, bf16 or fp16"),
        ({"bf16": True, "fp16": True}, "no", "exclude each other"),
    ],
)
def test_formats_that_no_cpu_trains_in(monkeypatch, training, wanted, message):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", wanted)
    with pytest.raises(ConfigError, match=message):
        asked_format(training, CPU)


def test_the_launchers_choice_is_honoured_recorded_and_part_of_the_identity(
    tmp_path, monkeypatch, capsys
):
    def trained(name, *changes, code=0):
        few = [
            "data.max_train_samples=4", "data.max_validation_samples=2", "training.warmup_steps=0",
        ]  # fmt: skip
        folder = tmp_path / name
        arguments = [*TRAIN_RESPONSE, *few, *ONE_EPOCH, *changes, f"output_dir={folder}"]
        assert command("train", *arguments) == code
        return folder

    plain = trained("plain")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    trained("plain", code=2)
    assert "number format" in capsys.readouterr().err
    half = trained("half")
    found = record(half)
    assert (found["number_format"], found["number_format_chosen_by"]) == ("bfloat16", "launcher")
    assert found["identity"] != record(plain)["identity"]
    assert not same(weights(half), weights(plain))
    assert same(weights(trained("given", "training.bf16=false")), weights(plain))
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    assert same(weights(trained("asked", "training.bf16=true")), weights(half))


def test_whatever_else_a_launcher_asks_for_is_seen(monkeypatch):
    for name in launcher_choices():
        monkeypatch.delenv(name)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "no")
    assert launcher_choices() == {}
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    monkeypatch.setenv("FSDP_SHARDING_STRATEGY", "FULL_SHARD")
    assert set(launcher_choices()) == {"ACCELERATE_DYNAMO_BACKEND", "FSDP_SHARDING_STRATEGY"}


def test_what_libraries_leave_in_the_environment_reaches_no_later_run(monkeypatch):
    import os

    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with launcher_environment_kept():
        assert "ACCELERATE_MIXED_PRECISION" not in os.environ
        os.environ["ACCELERATE_USE_FSDP"] = "true"
        os.environ["ACCELERATE_MIXED_PRECISION"] = "no"
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"
    assert "ACCELERATE_USE_FSDP" not in os.environ


@pytest.mark.parametrize("way", ["FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"])
def test_models_shared_out_over_cpu_processes_are_refused(monkeypatch, way):
    monkeypatch.setenv(f"ACCELERATE_USE_{way}", "true")
    with pytest.raises(ConfigError, match=f"ACCELERATE_USE_{way}"):
        refuse_unusable_launcher(on_cpu=True)
    monkeypatch.setenv(f"ACCELERATE_USE_{way}", "false")
    refuse_unusable_launcher(on_cpu=True)


@pytest.mark.distributed
def test_sharding_asked_of_two_cpu_processes_is_one_line(tmp_path):
    """The refusal itself is in every run, above."""
    folder = tmp_path / "model"
    arguments = [*TRAIN_RESPONSE, f"output_dir={folder}"]
    code, output = torchrun(2, "train", *arguments, ACCELERATE_USE_FSDP="true")
    assert code != 0
    assert "pal: error: ACCELERATE_USE_FSDP" in output
    assert not folder.exists()


def halve(folder):
    """Store a model's weights in half precision."""
    import json

    path, config = folder / "model.safetensors", folder / "config.json"
    metadata = {"format": "pt"}
    save_file({k: v.half() for k, v in load_file(path).items()}, path, metadata=metadata)
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "float16"}))


@pytest.mark.parametrize("task", ["response", "persona_extractor"])
def test_a_base_in_half_precision_is_trained_in_float32(task, request, tmp_path):
    """Its numbers are taken as they are; what is added to them is not rounded to half."""
    import json
    import shutil

    fixture = "response_model" if task == "response" else "extractor_model"
    base, folder = tmp_path / "base", tmp_path / "model"
    shutil.copytree(request.getfixturevalue(fixture), base)
    halve(base)
    arguments = TRAIN_RESPONSE if task == "response" else TRAIN_EXTRACTOR
    changes = [
        "architecture.from_scratch=null", f"architecture.base={base}", *ONE_EPOCH,
        "training.learning_rate=1e-7", "training.warmup_steps=0",
        "training.load_best_model_at_end=false", "data.max_train_samples=16",
    ]  # fmt: skip
    assert command("train", *arguments, *changes, f"output_dir={folder}") == 0
    trained, before = weights(folder), weights(base)
    assert {tensor.dtype for tensor in trained.values()} == {torch.float32}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"
    name = next(name for name in trained if name.endswith("fc1.weight"))
    moved = trained[name] - before[name].float()
    assert 0 < moved.abs().max() < 1e-5
    assert not torch.equal(trained[name].half().float(), trained[name])
