import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pal.training.losses import corpus_metrics, summarise_rows, token_loss, unigram_nll
from pal.training.numbers import prefers_bf16
from tests.jobs import ESCONV, TRAIN_EXTRACTOR, TRAIN_RESPONSE, command, torchrun
from tests.training.runs import begun_of, same, weights


def test_a_trained_folder_holds_everything(response_model):
    names = {path.name for path in response_model.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "vocab.json",
            "run.json", "training_log.json"} <= names  # fmt: skip
    assert sum(name.startswith("checkpoint-") for name in names) == 2
    assert not names & {"started.json", ".tokenizer", ".saving", "training_args.bin"}
    assert not list(response_model.rglob("training_args.bin"))
    run = json.loads((response_model / "run.json").read_text())
    assert run["settings"]["seed"] == run["seed"] == 42
    assert run["versions"]["transformers"]
    assert run["train_samples"] == 64
    assert 0 < run["unigram_validation_nll"] < math.log(900)
    config = json.loads((response_model / "config.json").read_text())
    assert config["model_type"] == "pal"
    assert len(config["strategy_token_ids"]) == 8


def test_training_again_does_nothing_and_other_settings_are_refused(response_model, capsys):
    before = (response_model / "model.safetensors").stat().st_mtime_ns
    again = [*TRAIN_RESPONSE, f"output_dir={response_model}"]
    assert command("train", *again) == 0
    assert (response_model / "model.safetensors").stat().st_mtime_ns == before
    assert command("train", *again, "training.learning_rate=5e-4") == 2
    assert "overwrite=true" in capsys.readouterr().err


def test_same_seed_gives_the_same_model_and_another_seed_another(response_model, tmp_path):
    assert command("train", *TRAIN_RESPONSE, f"output_dir={tmp_path / 'same'}") == 0
    assert same(weights(response_model), weights(tmp_path / "same"))
    assert command("train", *TRAIN_RESPONSE, "seed=7", f"output_dir={tmp_path / 'other'}") == 0
    assert not same(weights(response_model), weights(tmp_path / "other"))


def test_extractor_trains(extractor_model):
    run = json.loads((extractor_model / "run.json").read_text())
    assert run["train_samples"] == 100
    assert run["validation_samples"] == 20
    assert json.loads((extractor_model / "config.json").read_text())["model_type"] == "bart"


@pytest.mark.distributed
def test_two_processes_train(tmp_path):
    """In every run, those of ``test_distributed.py`` train the model of one."""
    folder = tmp_path / "model"
    code, output = torchrun(
        2, "train", *TRAIN_RESPONSE, "training.num_train_epochs=1", f"output_dir={folder}"
    )
    assert code == 0, output
    run = json.loads((folder / "run.json").read_text())
    assert run["steps"] == 2  # 64 samples over 2 processes of 16 rows
    assert (folder / "model.safetensors").exists()


def test_accumulated_steps_equal_one_large_step(tmp_path):
    """1x16 rows and 4x4 rows see the same loss: it counts tokens, not batches."""
    losses = []
    for rows, steps in ((16, 1), (4, 4)):
        folder = tmp_path / str(rows)
        arguments = [
            *TRAIN_RESPONSE, f"output_dir={folder}", "data.max_train_samples=16",
            f"training.per_device_train_batch_size={rows}", "training.logging_steps=1",
            f"training.gradient_accumulation_steps={steps}", "training.warmup_steps=0",
            "training.train_sampling_strategy=sequential",
        ]  # fmt: skip
        assert command("train", *arguments) == 0
        log = json.loads((folder / "training_log.json").read_text())
        losses.append([float(entry["loss"]) for entry in log if "loss" in entry])
    assert len(losses[0]) == 2
    assert losses[0] == pytest.approx(losses[1], abs=2e-4)


def test_validation_metrics_count_tokens_whatever_the_batches():
    logits = torch.randn(3, 4, 9)
    labels = torch.tensor([[5, 1, 2, -100], [6, 3, -100, -100], [5, 1, 1, 2]])
    reduce = summarise_rows([5, 6])
    rows = torch.cat([reduce((logits[:1],), labels[:1]), reduce(logits[1:], labels[1:])])
    metrics = corpus_metrics(True)(SimpleNamespace(predictions=rows.numpy()))
    expected = token_loss({"logits": logits}, labels).item()
    assert metrics["nll"] == pytest.approx(expected, abs=1e-5)
    assert metrics["ppl"] == pytest.approx(math.exp(expected), rel=1e-4)
    right = (logits[:, 0, [5, 6]].argmax(-1) + 5 == labels[:, 0]).double().mean()
    assert metrics["strategy_accuracy"] == pytest.approx(right.item())


def test_unigram_floor_by_hand():
    # counts a:2 b:1, types a b c, add one: a 3/6, b 2/6, c 1/6
    expected = -(np.log(3 / 6) + np.log(1 / 6)) / 2
    assert unigram_nll([[1, 1, 2]], [[1, 3]]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.train=nowhere.jsonl"], "nowhere.jsonl"),
        (["architecture.max_context_tokens=600"], "600 tokens do not fit the model's 256"),
        (["architecture.from_scratch={d_modl: 3}"], "did you mean 'd_model'"),
        (["architecture.fusion=maskd"], "did you mean 'masked'"),
        (["architecture.from_scratch=null", "architecture.base=/nowhere"], "/nowhere"),
        (["training.eval_strategy=never"], "training"),
        (["data.validation=" + str(ESCONV / "nothing.jsonl")], "no such file"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, capsys, changes, message):
    assert command("train", *TRAIN_RESPONSE, f"output_dir={tmp_path / 'm'}", *changes) == 2
    errors = [line for line in capsys.readouterr().err.split("\n") if "pal: error" in line]
    assert len(errors) == 1
    assert message in errors[0]


def test_extractor_of_a_wrong_file(tmp_path, capsys):
    bad = tmp_path / "bad.txt"
    bad.write_text("hello\n")
    code = command("train", *TRAIN_EXTRACTOR, f"data.train={bad}", f"output_dir={tmp_path / 'm'}")
    assert code == 2
    assert f"{bad}" in capsys.readouterr().err


@pytest.mark.parametrize("settings", [TRAIN_RESPONSE, TRAIN_EXTRACTOR])
def test_data_are_read_before_the_base_is_asked_for(tmp_path, capsys, monkeypatch, settings):
    """A base is a download of gigabytes, and a mistake in the data is found in seconds."""
    asked = []
    for name in ("read_model_config", "find_backbone", "find_gguf_file"):
        monkeypatch.setattr(f"pal.training.preparation.{name}", lambda *a, **k: asked.append(a))
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"dialog": 3}\n')
    base = tmp_path / "base"
    base.mkdir()
    call = [f"data.train={bad}", "architecture.from_scratch=null", f"architecture.base={base}"]
    assert command("train", *settings, *call, f"output_dir={tmp_path / 'm'}") == 2
    assert f"pal: error: {bad}" in capsys.readouterr().err
    assert not asked


def test_other_personas_are_other_data(tmp_path, capsys):
    """With a tokenizer of its own, only the persona inputs change; the run must not be reused."""
    rows = [json.loads(line) for line in (ESCONV / "train.jsonl").read_text().splitlines()[:6]]
    folder = tmp_path / "model"
    from pal.data.tokenizer import train_tokenizer

    words = [turn["text"] for row in rows for turn in row["dialog"]]
    train_tokenizer(words, 700, tmp_path / "tokenizer").save_pretrained(tmp_path / "tokenizer")
    for persona, expected in ((["i am a nurse."], 0), (["i am a nurse."], 0), (["i sail."], 2)):
        for row in rows:
            for turn in row["dialog"]:
                turn["persona"] = persona
        source = tmp_path / "pesconv.jsonl"
        source.write_text("\n".join(map(json.dumps, rows)))
        code = command(
            "train", *TRAIN_RESPONSE, f"data.train={source}", f"data.validation={source}",
            f"architecture.tokenizer={tmp_path / 'tokenizer'}", f"output_dir={folder}",
            "training.num_train_epochs=1",
        )  # fmt: skip
        assert code == expected
    assert "overwrite=true" in capsys.readouterr().err


def test_the_best_checkpoint_follows_its_metric(tmp_path):
    folder = tmp_path / "model"
    assert command(
        "train", *TRAIN_RESPONSE, f"output_dir={folder}", "training.load_best_model_at_end=true",
        "training.metric_for_best_model=strategy_accuracy", "early_stopping_patience=3",
    ) == 0  # fmt: skip
    state = json.loads((max(folder.glob("checkpoint-*")) / "trainer_state.json").read_text())
    log = json.loads((folder / "training_log.json").read_text())
    accuracies = [entry["eval_strategy_accuracy"] for entry in log if "eval_nll" in entry]
    assert state["best_metric"] == max(accuracies)


def test_a_users_tokenizer_inside_the_output_folder_stays(tmp_path):
    from pal.data.tokenizer import train_tokenizer

    folder = tmp_path / "model"
    train_tokenizer((ESCONV / "train.jsonl").read_text().split("\n"), 700, folder / "tokenizer")
    assert command(
        "train", *TRAIN_RESPONSE, f"output_dir={folder}", "training.num_train_epochs=1",
        f"architecture.tokenizer={folder / 'tokenizer'}",
    ) == 0  # fmt: skip
    assert (folder / "tokenizer" / "vocab.json").exists()


@pytest.mark.parametrize(
    ("device", "width", "able", "expected"),
    [
        ("cpu", 512, {"avx512_bf16": True}, True),
        ("cpu", 384, {"amx_bf16": True}, True),
        ("cpu", 192, {"avx512_bf16": True}, False),
        ("cpu", 512, {"avx2": True}, False),
        ("cuda", 512, {"avx512_bf16": True}, False),
    ],
)
def test_where_bf16_is_the_default(monkeypatch, device, width, able, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    assert prefers_bf16(torch.device(device), width) is expected


def test_the_settings_win_and_an_interrupted_run_keeps_its_format(
    response_model, tmp_path, monkeypatch
):
    """The machine's choice is made once a run and is no part of what the run is."""
    assert json.loads((response_model / "run.json").read_text())["bf16"] is False
    monkeypatch.setattr("pal.training.numbers.prefers_bf16", lambda *_: True)
    assert command("train", *TRAIN_RESPONSE, f"output_dir={response_model}") == 0

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "started.json").write_text(json.dumps(begun_of(response_model)))
    assert command("train", *TRAIN_RESPONSE, f"output_dir={folder}") == 0
    assert same(weights(response_model), weights(folder))
    assert not (folder / ".tokens").exists()

    chosen = [f"output_dir={tmp_path / 'plain'}", "training.bf16=false"]
    assert command("train", *TRAIN_RESPONSE, *chosen) == 0
    assert same(weights(response_model), weights(tmp_path / "plain"))
    assert command("train", *TRAIN_RESPONSE, f"output_dir={tmp_path / 'half'}") == 0
    assert json.loads((tmp_path / "half" / "run.json").read_text())["bf16"] is True
    assert not same(weights(response_model), weights(tmp_path / "half"))
