"""``pal bench annotate``: both sides say the same."""

import json

from tests.jobs import ESCONV, TINY_EXTRACTOR, command

FEW = ["limit=2", "annotate.num_beams=3", "annotate.max_new_tokens=12"]


def test_a_model_on_real_dialogues(extractor_model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pal.speed.machine.PROBE", 32)
    output = tmp_path / "bench.json"
    call = ["bench", "annotate", f"model={extractor_model}", f"input={ESCONV / 'test.jsonl'}",
            *FEW, f"output={output}"]  # fmt: skip
    assert command(*call) == 0
    table = capsys.readouterr().out
    found = json.loads(output.read_text())
    ours, generate = found["sides"]
    assert found["same"] == ours["samples"] == generate["samples"] > 5
    assert f"The same sentences for {found['same']} of {found['same']} prefixes" in table
    assert ours["tokens"] == generate["tokens"]
    assert all(0 <= side["padding"] < 1 for side in (ours, generate))
    assert command(*call) == 2
    assert "overwrite=true" in capsys.readouterr().err


def test_random_weights_of_given_sizes(capsys, monkeypatch):
    monkeypatch.setattr("pal.speed.machine.PROBE", 32)
    assert command("bench", "annotate", *TINY_EXTRACTOR, *FEW) == 0
    assert "from train.jsonl; 3 beams" in capsys.readouterr().out
    assert command("bench", "annotate", *FEW) == 2
    assert "architecture.from_scratch" in capsys.readouterr().err
