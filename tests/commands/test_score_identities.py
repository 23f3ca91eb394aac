"""Finished scores, analyses and searches belong to the contents of their inputs, not to names."""

import json
import shutil

import pytest

from tests.jobs import ESCONV, command

PLUGIN = """
from pal.metrics import Metric, Scores

def compute(predictions, variant):
    return Scores(corpus={"their_key": 1.0})

METRIC = Metric("theirs", {"their_key": "none"}, "x", ("responses",), compute)
"""


@pytest.fixture(scope="module")
def inputs(response_model, tmp_path_factory):
    """One folder with every kind of input: model, dialogues, cards, encoder, vectors, plug-in."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    from tests.metrics.test_similarity import save_bert

    root = tmp_path_factory.mktemp("inputs")
    shutil.copytree(
        response_model, root / "model", ignore=shutil.ignore_patterns("checkpoint-*", "*.log")
    )
    rows = [json.loads(line) for line in (ESCONV / "test.jsonl").read_text().splitlines()][:3]
    for number, row in enumerate(rows):
        row["id"] = f"talk-{number}"
        for turn in row["dialog"]:
            turn["persona"] = ["I am sad."]
    (root / "dialogues.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cards = [{"id": row["id"], "description": "I am happy. I am sad."} for row in rows]
    (root / "cards.jsonl").write_text("".join(json.dumps(card) + "\n" for card in cards))
    (root / "plain").mkdir()
    save_bert(root / "plain", ["i", "am", "sad", "happy"])
    modules = [Transformer(str(root / "plain")), Pooling(16)]
    SentenceTransformer(modules=modules, device="cpu").save(str(root / "encoder"))
    (root / "words.vec").write_text("i 1 0\nam 0 1\nsad 1 1\nyou 0 1\n. 1 0\n")
    (root / "their_identity_scores.py").write_text(PLUGIN)
    assert command(
        "generate", f"model={root / 'model'}", f"input={root / 'dialogues.jsonl'}",
        f"output={root / 'responses.jsonl'}", "decoding.max_new_tokens=12", "limit=4",
    ) == 0  # fmt: skip
    return root


def check(call, root, edits, capsys):
    """Edit each input in place: the output is then not finished, and the message says why."""
    assert command(*call) == 0
    output = next(part for part in call if part.startswith("output=")).removeprefix("output=")
    with open(output) as handle:
        before = handle.read()
    capsys.readouterr()
    for name, key in edits.items():
        path = root / name
        original = path.read_bytes()
        changed = original[:-1] + bytes([original[-1] ^ 1])
        path.write_bytes(changed if path.suffix == ".safetensors" else original + b"\n")
        try:
            assert command(*call) == 2, name
            error = capsys.readouterr().err
            assert f"differs: {key}" in error, (name, error)
        finally:
            path.write_bytes(original)
    assert command(*call) == 0  # restored, whatever the times of the files: finished
    with open(output) as handle:
        assert handle.read() == before


def test_scores(inputs, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(inputs)
    call = [
        "eval", f"predictions={inputs / 'responses.jsonl'}", f"model={inputs / 'model'}",
        f"input={inputs / 'dialogues.jsonl'}", f"data.cards={inputs / 'cards.jsonl'}",
        f"metrics.embedder={inputs / 'encoder'}", f"output={tmp_path / 'scores.json'}",
        "metrics.names=[bleu_2, cos_sim, ppl, their_identity_scores:METRIC]",
    ]  # fmt: skip
    edits = {
        "responses.jsonl": "predictions",
        "model/config.json": "model",
        "model/model.safetensors": "model",
        "model/tokenizer_config.json": "model",
        "dialogues.jsonl": "input",
        "cards.jsonl": "data.cards",
        "encoder/modules.json": "metrics.embedder",
        "encoder/1_Pooling/config.json": "metrics.embedder",
        "their_identity_scores.py": "metrics",
    }
    check(call, inputs, edits, capsys)
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["metrics"]["their_key"]["value"] == 1
    assert "cards" in " ".join(found["notes"])  # scores with cards say so


def test_analyses(inputs, tmp_path, capsys):
    call = [
        "analyze", f"input={inputs / 'dialogues.jsonl'}", f"data.cards={inputs / 'cards.jsonl'}",
        f"analyze.systems={{one: {inputs / 'responses.jsonl'}}}",
        f"metrics.embedder={inputs / 'encoder'}", f"output={tmp_path / 'analysis.json'}",
    ]  # fmt: skip
    edits = {
        "dialogues.jsonl": "input",
        "cards.jsonl": "data.cards",
        "responses.jsonl": "analyze.systems",
        "encoder/1_Pooling/config.json": "metrics.embedder",
    }
    check(call, inputs, edits, capsys)
    call[-1] = f"output={tmp_path / 'vectors.json'}"
    check([*call, f"analyze.word_vectors={inputs / 'words.vec'}"], inputs,
          {"words.vec": "analyze.word_vectors"}, capsys)  # fmt: skip


def test_searches(inputs, tmp_path, capsys):
    call = [
        "tune-alpha", f"model={inputs / 'model'}", f"input={inputs / 'dialogues.jsonl'}",
        f"data.cards={inputs / 'cards.jsonl'}", f"metrics.embedder={inputs / 'encoder'}",
        "limit=4", "tune_alpha.trials=3", "tune_alpha.step=0.75", "decoding.max_new_tokens=12",
        f"output={tmp_path / 'alpha.json'}",
    ]  # fmt: skip
    edits = {
        "model/config.json": "model",
        "model/model.safetensors": "model",
        "dialogues.jsonl": "input",
        "cards.jsonl": "data.cards",
        "encoder/1_Pooling/config.json": "metrics.embedder",
    }
    check(call, inputs, edits, capsys)
