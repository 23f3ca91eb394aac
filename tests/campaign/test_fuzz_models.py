"""Damaged models: their configuration, weights and tokenizer are used as they are, or refused.

    pytest tests/campaign/test_fuzz_models.py                # about 60 inputs
    pytest -m campaign tests/campaign/test_fuzz_models.py    # 3,000; PAL_FUZZ changes it

A model that is not refused answers two samples, or annotates a dialogue. A weight that is another
number is a model as good as any; what is held here is that nothing fails but in one line.
"""

import os
import shutil

import pytest

from tests.campaign.damaging import run_damaged
from tests.jobs import ESCONV

QUICK = 60
MANY = int(os.environ.get("PAL_FUZZ", "3000"))
FEW = ["decoding.max_new_tokens=4", "decoding.min_new_tokens=1", "limit=2"]


@pytest.fixture(scope="module")
def made(response_model, extractor_model, language_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    source = [f"input={ESCONV}", "split=test"]
    calls = {
        "response": (response_model, ["generate", *source, *FEW]),
        "extractor": (extractor_model, ["annotate", *source, "limit=1", "annotate.num_beams=1",
                                        "annotate.max_new_tokens=4"]),
        "language": (language_model, ["generate", *source, *FEW]),
    }  # fmt: skip
    found = {}
    for name, (model, call) in calls.items():
        shutil.copytree(model, folder / name, ignore=shutil.ignore_patterns("checkpoint-*"))
        reads = [path for path in sorted((folder / name).iterdir())
                 if path.suffix in (".json", ".safetensors", ".txt", ".model", ".jinja")
                 and path.name not in ("training_log.json",)]  # fmt: skip
        found[name] = [*call, f"model={folder / name}"], reads, "out.jsonl"
    return found


def test_a_damaged_model_is_used_or_refused(made, tmp_path, tally):
    run_damaged(made, range(QUICK), tmp_path, tally)
    assert tally["refused"] > QUICK // 6
    assert tally["read"] > QUICK // 20


@pytest.mark.campaign
def test_many_damaged_models_are_used_or_refused(made, tmp_path, tally):
    run_damaged(made, range(MANY), tmp_path, tally)
