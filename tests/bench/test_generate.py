"""``pal bench generate``: all sides answer the same, and the table says so."""

import json

import torch

from pal.bench.generate import load_work, run_doubled, run_ours, run_two_passes
from pal.settings import Settings
from tests.jobs import ESCONV, command

FAST = {"max_new_tokens": 8, "min_new_tokens": 2}


def settings(model):
    return Settings(
        model=str(model), input=str(ESCONV / "test.jsonl"), limit=20, decoding=FAST,
    )  # fmt: skip


def test_all_sides_give_the_same_responses(response_model):
    """So the times are of the same work."""
    work = load_work(settings(response_model))
    with torch.inference_mode():
        ours, doubled, two = run_ours(work, 7), run_doubled(work), run_two_passes(work)
    assert ours == doubled == two
    assert {len(tokens) for tokens in ours} == {8}
    assert len({tuple(tokens) for tokens in ours}) > 5


def test_the_command_prints_and_writes(response_model, tmp_path, capsys):
    output = tmp_path / "bench.json"
    call = ["bench", "generate", f"model={response_model}", f"input={ESCONV / 'test.jsonl'}",
            "limit=10", "decoding.max_new_tokens=4", f"output={output}"]  # fmt: skip
    assert command(*call, "decoding.min_new_tokens=1") == 0
    table = capsys.readouterr().out
    assert "| ours |" in table
    assert "| doubled batch of 32 |" in table
    assert "10 contexts of" in table
    found = json.loads(output.read_text())
    assert found["tokens"] == 40
    assert len(found["seconds"]) == 3
    assert command(*call) == 2
    assert "overwrite=true" in capsys.readouterr().err
