import json

from tests.jobs import command


def test_the_whole_pipeline_runs_and_runs_again_for_free(tmp_path, capsys):
    folder = tmp_path / "quick"
    call = ["quickstart", f"output_dir={folder}", "training.num_train_epochs=1",
            "annotate.max_new_tokens=8", "decoding.max_new_tokens=12"]  # fmt: skip
    assert command(*call) == 0
    names = {path.name for path in folder.iterdir()}
    assert {"extractor", "pesconv.jsonl", "model", "predictions.jsonl", "metrics.json",
            "report.md"} <= names  # fmt: skip
    report = json.loads((folder / "metrics.json").read_text())
    assert report["metrics"]["ppl"]["value"] > 1
    out = capsys.readouterr().out
    assert "bleu_2" in out
    assert out.count("seeker     ") == out.count("persona    ") == 5
    assert str(folder / "predictions.jsonl") in out
    assert "Tiny models with random weights" in out
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")}
    assert command(*call) == 0
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")}


def test_mistakes_are_told_before_any_work(tmp_path, capsys):
    folder = tmp_path / "quick"
    assert command("quickstart", f"output_dir={folder}", "trainin.num_train_epochs=1") == 2
    assert "did you mean 'training.num_train_epochs'" in capsys.readouterr().err
    assert not folder.exists()
