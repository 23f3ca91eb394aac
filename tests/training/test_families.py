"""Every family goes through all commands: trained, continued, answering, scored, searched."""

import json

import pytest
import torch
import yaml

from pal.modeling.responder import load_model_and_tokenizer
from tests.jobs import ESCONV, command
from tests.modeling.families import LIMITS, plain_tokenizer, published
from tests.modeling.small import collate, encode_samples
from tests.modeling.test_auto import run
from tests.training.runs import interrupted_copy, same, steps_saved, weights

FAMILIES = ["bart", "t5", "t5 v1.1", "blenderbot"]


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request, tmp_path_factory):
    """A base as the family publishes it, the user's YAML, and what training made of them."""
    folder, case = tmp_path_factory.mktemp("family"), request.param
    tokenizer = plain_tokenizer(case)
    tokenizer.save_pretrained(folder / "base")
    published(case, len(tokenizer)).save_pretrained(folder / "base")
    settings = {
        "task": "response", "output_dir": str(folder / "model"),
        "data": {"train": str(ESCONV), "split": "published", "max_train_samples": 4,
                 "max_validation_samples": 4},
        "architecture": {"base": str(folder / "base"), "template": "natural", **LIMITS},
        "training": {"num_train_epochs": 2, "per_device_train_batch_size": 4, "report_to": "none",
                     "save_total_limit": 2, "learning_rate": 0.01},
    }  # fmt: skip
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    assert command("train", "--config", folder / "run.yaml") == 0
    return folder


def test_training_changes_it_and_continues_as_if_never_interrupted(trained, tmp_path):
    plain = trained / "model"
    assert steps_saved(plain) == [1, 2]
    first = weights(plain / "checkpoint-1")
    assert not same(first, weights(plain))
    again = interrupted_copy(plain, tmp_path / "again", 1)
    assert command("train", "--config", trained / "run.yaml", f"output_dir={again}") == 0
    assert same(weights(plain), weights(again))


def test_bf16_training_and_the_checkpoint_of_an_epoch(trained, tmp_path):
    folder, out = tmp_path / "rounded", tmp_path / "answers.jsonl"
    assert command("train", "--config", trained / "run.yaml", "training.bf16=true",
                   f"output_dir={folder}") == 0  # fmt: skip
    assert all(weight.dtype == torch.float32 for weight in weights(folder).values())
    assert not same(weights(folder), weights(trained / "model"))
    arguments = [f"model={folder / 'checkpoint-1'}", f"input={ESCONV}", "split=test", "limit=2"]
    assert command("generate", *arguments, "dtype=bfloat16", f"output={out}") == 0
    assert len(out.read_text().splitlines()) == 2


def test_it_answers_and_is_scored(trained, tmp_path):
    model, out = trained / "model", tmp_path / "answers.jsonl"
    inputs = [f"model={model}", f"input={ESCONV}", "split=test", "limit=3"]
    options = ["decoding.max_new_tokens=12", "decoding.min_new_tokens=2"]
    assert command("generate", *inputs, *options, f"output={out}") == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [set(record) for record in records] == [set(records[0])] * 3
    assert all(1 <= record["tokens"] <= 12 for record in records)
    scores = tmp_path / "scores.json"
    arguments = [f"predictions={out}", *inputs, f"output={scores}"]
    assert command("eval", *arguments, "metrics.names=[perplexity]") == 0
    assert json.loads(scores.read_text())["metrics"]["ppl"]["value"] > 1
    search = ["tune_alpha.trials=2", "tune_alpha.objectives=[bleu_2, distinct_2]",
              "metrics.embedder=null", f"output={tmp_path / 'alpha.json'}"]  # fmt: skip
    assert command("tune-alpha", *inputs, *options, *search) == 0


def test_a_fresh_process_loads_the_same_model(trained):
    model, tokenizer = load_model_and_tokenizer(str(trained / "model"))
    _, encoded = encode_samples(tokenizer, model, 2)
    batch = collate(model, encoded)
    torch.save((dict(batch), model(**batch).logits), trained / "wanted.pt")
    code = (
        "import pal, torch\nfrom transformers import AutoModelForSeq2SeqLM, AutoTokenizer\n"
        "batch, wanted = torch.load(folder + '/wanted.pt')\n"
        "model = AutoModelForSeq2SeqLM.from_pretrained(folder + '/model').eval()\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder + '/model')\n"
        "print(torch.equal(model(**batch).logits, wanted), len(tokenizer))"
    )
    assert run(code, trained) == f"True {len(tokenizer)}"
