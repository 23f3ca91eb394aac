"""Options of training that cannot work end in one line, before anything is read or written."""

import json
import os

import pytest

from tests.jobs import TRAIN_EXTRACTOR, TRAIN_RESPONSE, command
from tests.training.runs import record

REFUSED = {
    "unknown name": ("training.learning_rat=1", "did you mean 'training.learning_rate'"),
    "wrong type": ("training.learning_rate=fast", "training.learning_rate"),
    "reserved": ("training.data_seed=1", "give the top-level setting 'seed'"),
    "metric": ("training.metric_for_best_model=bleu", "(allowed: loss, nll, ppl"),
    "noise": ("training.neftune_noise_alpha=5", "NEFTune"),
    "scheduler": ("training.lr_scheduler_type=cosine_with_min_lr", "min_lr"),
    "scheduler's arguments": ("training.lr_scheduler_kwargs={power: 2}", "power"),
    "optimizer's package": ("training.optim=adamw_bnb_8bit", "bitsandbytes"),
    "optimizer": ("training.optim=adamw_hf", "adamw_hf"),
    "upload": ("training.push_to_hub=true", "hf upload"),
    "token": ("training.hub_token=hf_abc", "no file keeps a token"),
    "fp16 on a CPU": ("training.fp16=true", "give training.bf16=true"),
    "no rows": ("training.per_device_train_batch_size=0", "expected at least 1"),
    "no epochs": ("training.num_train_epochs=0", "expected a number above 0"),
    "no workers": ("training.dataloader_persistent_workers=true", "num_workers"),
    "tracker": ("training.report_to=nobody", "nobody is not supported"),
    "order": ("training.train_sampling_strategy=batch_rebalance", "expected one of group_by"),
    "recomputing, an unknown entry": (
        "training.gradient_checkpointing=true "
        "training.gradient_checkpointing_kwargs={use_reentrent: true}",
        "mean 'use_reentrant'",
    ),
    "recomputing, a word for a truth": (
        "training.gradient_checkpointing=true "
        "training.gradient_checkpointing_kwargs={use_reentrant: maybe}",
        "true or false",
    ),
    "recomputing, entries at odds": (
        "training.gradient_checkpointing=true "
        "training.gradient_checkpointing_kwargs={use_reentrant: true, debug: true}",
        "training.gradient_checkpointing_kwargs: ",
    ),
    "recomputing, an unknown check": (
        "training.gradient_checkpointing=true "
        "training.gradient_checkpointing_kwargs={use_reentrant: false, determinism_check: odd}",
        "training.gradient_checkpointing_kwargs: ",
    ),
    "sharding": ("training.fsdp=full_shard", "distributed"),
    "strategies": ("training.save_strategy=steps training.load_best_model_at_end=true", "strategy"),
    "patience": ("early_stopping_patience=1 training.eval_strategy=no", "needs validations"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_one_line_and_leaves_nothing(tmp_path, capsys, changes, message):
    if os.environ.get("CUDA_VISIBLE_DEVICES") != "" and changes == "training.fp16=true":
        import torch

        if torch.cuda.is_available():
            pytest.skip("a GPU trains in fp16")
    folder = tmp_path / "runs" / "model"
    split = changes.replace(" training.", "\ntraining.").split("\n")
    assert command("train", *TRAIN_RESPONSE, f"output_dir={folder}", *split) == 2
    (line,) = [line for line in capsys.readouterr().err.split("\n") if "pal: error" in line]
    assert message in line
    assert "hf_abc" not in line
    assert list(tmp_path.iterdir()) == []


def test_a_metric_that_only_responses_have(tmp_path, capsys):
    changes = ["training.metric_for_best_model=strategy_accuracy", f"output_dir={tmp_path / 'm'}"]
    assert command("train", *TRAIN_EXTRACTOR, *changes) == 2
    assert "(allowed: loss, nll, ppl)" in capsys.readouterr().err


def test_every_mistake_is_named_at_once(tmp_path, capsys):
    changes = ["training.optm=x", "training.seed=1", f"output_dir={tmp_path / 'm'}", "tsk=1"]
    assert command("train", *TRAIN_RESPONSE, *changes) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in ("training.optm", "training.seed", "'tsk'"))


def test_failing_data_leave_no_folder(tmp_path, capsys):
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"id": 1}) + "\n")
    folder = tmp_path / "runs" / "one"
    changes = [f"data.train={data}", "data.validation=null", f"output_dir={folder}"]
    assert command("train", *TRAIN_RESPONSE, *changes) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"data.jsonl"}
    (tmp_path / "runs").mkdir()  # a folder that was there stays
    assert command("train", *TRAIN_RESPONSE, *changes) == 2
    assert list((tmp_path / "runs").iterdir()) == []
    capsys.readouterr()


def test_a_typing_error_with_overwrite_deletes_nothing(response_model, capsys):
    before = {path: path.stat().st_mtime_ns for path in response_model.rglob("*")}
    changes = [f"output_dir={response_model}", "overwrite=true", "training.optim=adamw_bnb_8bit"]
    assert command("train", *TRAIN_RESPONSE, *changes) == 2
    changes = [f"output_dir={response_model}", "overwrite=true", "data.train=nowhere.jsonl"]
    assert command("train", *TRAIN_RESPONSE, *changes) == 2
    after = {path: path.stat().st_mtime_ns for path in response_model.rglob("*")}
    assert {p: t for p, t in after.items() if p.is_file()} == {
        p: t for p, t in before.items() if p.is_file()
    }
    capsys.readouterr()


def test_a_quoted_number_is_a_number(tmp_path):
    folder = tmp_path / "model"
    changes = ['training.learning_rate="1e-3"', "training.num_train_epochs=1"]
    assert command("train", *TRAIN_RESPONSE, *changes, f"output_dir={folder}") == 0
    assert record(folder)["settings"]["training"]["learning_rate"] == 1e-3


def test_a_base_inside_the_output_folder_is_refused(response_model, capsys):
    changes = ["architecture.from_scratch=null", f"architecture.base={response_model}"]
    for base in (response_model, response_model / "checkpoint-4"):
        changes[1] = f"architecture.base={base}"
        assert command("train", *TRAIN_RESPONSE, *changes, f"output_dir={response_model}") == 2
        assert "which this run writes" in capsys.readouterr().err


def test_what_a_hub_would_give_is_named_before_it_is_asked(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pal.data.sources.is_out_of_reach", lambda name: False)
    assert command("train", f"output_dir={tmp_path / 'm'}") == 2
    said = capsys.readouterr().err
    assert "data.train=thu-coai/esconv architecture.base=facebook/blenderbot_small-90M" in said
    assert said.index("without a network") < said.index("pal: error")
