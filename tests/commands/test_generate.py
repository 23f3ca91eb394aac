import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
import torch

from pal.data.strategies import PAPER_ALPHA, STRATEGIES
from tests.jobs import ESCONV, PROGRAM, command, environment, python, start, torchrun
from tests.modeling.small import with_outside_fusion

VALID = (
    '{"emotion_type": "x", "dialog": [{"speaker": "usr", "text": "hi"}, '
    '{"speaker": "sys", "text": "hello", "strategy": "Others"}]}'
)
FAST = ["decoding.max_new_tokens=12", "decoding.min_new_tokens=2", "batch_rows=8"]


def arguments(model, output, *more, source=ESCONV / "test.jsonl"):
    return ["generate", f"model={model}", f"input={source}", f"output={output}", *FAST, *more]


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="session")
def predictions(response_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("generated") / "predictions.jsonl"
    assert command(*arguments(response_model, path)) == 0
    return path


def test_records_hold_what_they_promise(predictions):
    rows = records(predictions)
    assert len(rows) > 40
    for row in rows:
        assert list(row) == [
            "id", "strategy", "strategy_from", "strategy_probs", "response", "persona",
            "reference", "reference_strategy", "alpha", "tokens",
        ]  # fmt: skip
        assert row["strategy_from"] == "model"
        assert sum(row["strategy_probs"].values()) == pytest.approx(1, abs=1e-4)
        assert row["strategy"] == max(row["strategy_probs"], key=row["strategy_probs"].get)
        assert row["alpha"] == PAPER_ALPHA[STRATEGIES.index(row["strategy"])]
        assert 2 <= row["tokens"] <= 12
        assert row["reference"]
        assert not set("[<") & set(row["response"])
    order = [row["id"] for row in rows]
    assert len(set(order)) == len(order)
    run = json.loads(predictions.with_name("predictions.jsonl.run.json").read_text())
    assert run["samples"] == len(rows)
    names = {path.name for path in predictions.parent.iterdir()}
    assert names == {"predictions.jsonl", "predictions.jsonl.run.json"}


def test_responses_to_a_crisis_are_counted(response_model, tmp_path, caplog):
    """Batches have no guard, so they say where one would have spoken."""
    said = (
        "I lost my job.",
        "I want to kill myself.",
        "My friend left.",
        "I took all my pills.",
        "My brother says he wants to kill himself.",
    )
    source = tmp_path / "in.jsonl"
    source.write_text("".join(
        json.dumps({"dialog": [{"speaker": "seeker", "text": text}]}) + "\n" for text in said
    ))  # fmt: skip
    output = tmp_path / "out.jsonl"
    assert command(*arguments(response_model, output, source=source)) == 0
    assert f"2 responses of {output} to a turn that reads as a crisis" in caplog.text
    assert f"1 response of {output} to a turn that gives cause for concern" in caplog.text
    caplog.clear()
    source.write_text(json.dumps({"dialog": [{"speaker": "seeker", "text": said[0]}]}))
    assert command(*arguments(response_model, tmp_path / "b.jsonl", source=source)) == 0
    assert "without the guard" not in caplog.text


@pytest.mark.parametrize("columns", [0, 60])
def test_progress_is_shown_on_a_terminal_of_any_width(response_model, tmp_path, columns):
    """One that does not know its width says 0, for which tqdm draws nothing."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 0, columns, 0, 0))
    call = arguments(response_model, tmp_path / "out.jsonl", "limit=3")
    process = python(PROGRAM, *call, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while piece := os.read(master, 65536):
            shown += piece
    os.close(master)
    assert process.wait() == 0
    assert re.search(rb"generate: 100%\|.*3/3 \[", shown)


def test_same_seed_same_bytes_other_seed_other_bytes(response_model, predictions, tmp_path):
    assert command(*arguments(response_model, tmp_path / "a.jsonl")) == 0
    assert (tmp_path / "a.jsonl").read_bytes() == predictions.read_bytes()
    assert command(*arguments(response_model, tmp_path / "b.jsonl", "seed=5")) == 0
    assert (tmp_path / "b.jsonl").read_bytes() != predictions.read_bytes()


@pytest.mark.parametrize("batches", [("batch_rows=3",), ("batch_rows=1", "batch_tokens=300")])
def test_batches_change_no_byte(response_model, predictions, tmp_path, batches):
    assert command(*arguments(response_model, tmp_path / "a.jsonl", *batches)) == 0
    one, two = records(predictions), records(tmp_path / "a.jsonl")
    assert [r["response"] for r in one] == [r["response"] for r in two]
    if not torch.accelerator.is_available():  # the promise is for CPUs
        assert (tmp_path / "a.jsonl").read_bytes() == predictions.read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_record_says_where_batches_count(response_model, tmp_path, dtype):
    output = tmp_path / "a.jsonl"
    assert command(*arguments(response_model, output, f"dtype={dtype}", "limit=4")) == 0
    said = json.loads((tmp_path / "a.jsonl.run.json").read_text())["depends_on_batches"]
    assert (said is None) == (dtype == "float32")


def test_killed_and_resumed_gives_the_same_bytes(response_model, predictions, tmp_path):
    output = tmp_path / "out.jsonl"
    call = arguments(response_model, output)
    process = start(*call)
    part = tmp_path / "out.jsonl.part0"
    while not part.exists() or part.read_text().count("\n") < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not output.exists()
    with part.open("a") as handle:
        handle.write('["9", [{"id": "cut o')  # and the kill hit a line half written
    assert command(*call) == 0
    assert output.read_bytes() == predictions.read_bytes()
    assert not part.exists()


def test_interrupt_is_told_and_loses_nothing(response_model, predictions, tmp_path):
    output = tmp_path / "out.jsonl"
    call = arguments(response_model, output, "overwrite=true")
    process = start(*call)
    part = tmp_path / "out.jsonl.part0"
    while not part.exists() or part.read_text().count("\n") < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    assert part.read_text().count("\n") >= 2
    kept = part.read_text()
    (tmp_path / "out.jsonl.partner").write_text("not ours")
    process = start(*call)  # overwrite=true goes on with its own unfinished work
    process.communicate()
    assert process.returncode == 0
    assert kept
    assert output.read_bytes() == predictions.read_bytes()
    assert (tmp_path / "out.jsonl.partner").exists()


def test_two_processes_write_the_bytes_of_one(response_model, predictions, tmp_path):
    output = tmp_path / "out.jsonl"
    code, text = torchrun(2, *arguments(response_model, output))
    assert code == 0, text
    assert output.read_bytes() == predictions.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"out.jsonl", "out.jsonl.run.json"}


def test_finished_output_is_kept_and_others_are_refused(
    response_model, predictions, capsys, monkeypatch
):
    """Whether work is left is looked at before a model is loaded, which can take minutes."""
    monkeypatch.delattr("pal.modeling.responder.load_model_and_tokenizer")
    before = predictions.stat().st_mtime_ns
    capsys.readouterr()
    assert command(*arguments(response_model, predictions)) == 0
    told = capsys.readouterr().err
    assert "is already finished" in told
    assert "loading" not in told
    assert command(*arguments(response_model, predictions, "seed=9")) == 2
    assert "overwrite=true" in capsys.readouterr().err
    assert predictions.stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["generate", "tune-alpha", "simulate", "chat"])
def test_decoding_that_no_model_has_is_refused_before_one_is_loaded(
    response_model, tmp_path, capsys, monkeypatch, name
):
    for module in ("modeling.responder", "conversation.session"):
        monkeypatch.setattr(f"pal.{module}.load_model_and_tokenizer", None)
    cards = tmp_path / "cards.jsonl"
    cards.write_text('{"id": "a", "dataset": "d", "persona": "I fly."}')
    source = cards if name == "simulate" else ESCONV / "test.jsonl"
    files = [] if name == "chat" else [f"input={source}", f"output={tmp_path / 'o.json'}"]
    call = [name, f"model={response_model}", *files, "decoding.strategy=Qestion"]
    assert command(*call) == 2
    assert "did you mean 'Question'" in capsys.readouterr().err


def test_unfinished_work_of_other_settings_is_refused(response_model, tmp_path, capsys):
    output = tmp_path / "out.jsonl"
    (tmp_path / "out.jsonl.part0").write_text('"another identity"\n["0", []]\n')
    assert command(*arguments(response_model, output)) == 2
    assert "unfinished work" in capsys.readouterr().err
    assert command(*arguments(response_model, output, "limit=3", "overwrite=true")) == 0
    assert len(records(output)) == 3


@pytest.mark.parametrize("strategy", ["gold", "sample", "Information"])
def test_strategy_choices(response_model, tmp_path, strategy):
    output = tmp_path / "out.jsonl"
    call = arguments(response_model, output, f"decoding.strategy={strategy}", "limit=16")
    assert command(*call) == 0
    rows = records(output)
    origin = {"gold": "gold", "sample": "model", "Information": "given"}[strategy]
    assert {row["strategy_from"] for row in rows} == {origin}
    if strategy == "gold":
        assert all(row["strategy"] == row["reference_strategy"] for row in rows)
    elif strategy == "Information":
        assert {row["strategy"] for row in rows} == {"Information"}
    else:
        assert len({row["strategy"] for row in rows}) > 2


def test_requests_are_answered(response_model, tmp_path):
    source = tmp_path / "requests.jsonl"
    source.write_text(
        '{"id": "one", "dialog": [{"speaker": "usr", "text": "I lost my job."}]}\n'
        '{"id": "two", "dialog": [{"speaker": "seeker", "text": "Hi"}, '
        '{"speaker": "supporter", "text": "Hello"}, {"speaker": "seeker", "text": "I am sad"}], '
        '"persona": ["i am a nurse."]}\n'
    )
    output = tmp_path / "out.jsonl"
    assert command(*arguments(response_model, output, source=source)) == 0
    one, two = records(output)
    assert (one["id"], two["id"]) == ("one/1", "two/3")
    assert two["persona"] == ["i am a nurse."]
    assert one["reference"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("", "empty"),
        (f"{VALID}\n" * 6 + "{oops\n", "line 7"),
        ('{"emotion_type": "x", "dialog": [{"speaker": "usr", "text": "hi"}, '
         '{"speaker": "sys", "text": "hi", "strategy": "Qestion"}]}', "did you mean 'Question'"),
        ('{"emotion_type": "x", "dialog": [{"speaker": "bob", "text": "hi"}]}', "bob"),
        ('{"emotion_type": "x", "dialog": [{"speaker": "usr", "text": "hi"}]}', "supporter"),
    ],
)  # fmt: skip
def test_bad_inputs_end_in_one_line(response_model, tmp_path, capsys, text, message):
    source = tmp_path / "in.jsonl"
    if text is not None:
        source.write_text(text)
    output = tmp_path / "out.jsonl"
    assert command(*arguments(response_model, output, source=source)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(source) in error
    assert "Traceback" not in error
    assert not output.exists()


def test_a_bar_fills_no_log_file(response_model, tmp_path):
    """Nor does a count get decimals."""
    process = start(*arguments(response_model, tmp_path / "out.jsonl", "batch_rows=1"))
    shown = process.communicate(timeout=300)[1]
    assert process.returncode == 0
    total = len(records(tmp_path / "out.jsonl"))
    assert f" {total}/{total} [" in shown
    assert shown.count("\r") < 10 < total


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["generate", "model=model", "input=mine.jsonl", "output=o"], "mine.jsonl, line 2"),
        (["annotate", "model=model", "input=mine.jsonl", "output=o"], "mine.jsonl, line 2"),
        (["train", "data.train=./none.jsonl", "output_dir=o"], "none.jsonl: no such file"),
    ],
)
def test_inputs_are_refused_before_torch_is_loaded(line, message, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "mine.jsonl").write_text(VALID + "\n{")
    code = f"import sys; from pal.cli import main; main({line}); sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), cwd=tmp_path, capture_output=True,
        text=True,
    )  # fmt: skip
    assert message in done.stderr
    assert done.returncode == 0


def test_wrong_models_are_refused(extractor_model, response_model, tmp_path, capsys):
    output = tmp_path / "out.jsonl"
    assert command(*arguments(extractor_model, output)) == 2
    assert "a bart model, not a PAL response model" in capsys.readouterr().err
    assert command(*arguments(tmp_path / "nowhere", output)) == 2
    assert "nowhere: no such folder; give the folder that" in capsys.readouterr().err
    assert command("generate", f"output={output}") == 2
    assert "model=… input=…" in capsys.readouterr().err


def test_a_tokenizer_that_splits_strategies_is_refused(response_model, tmp_path, capsys):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(response_model, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    for name in ("added_tokens.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("added_tokens_decoder", None)
    settings.pop("additional_special_tokens", None)
    settings.pop("extra_special_tokens", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert command(*arguments(folder, tmp_path / "out.jsonl")) == 2
    assert "splits the strategy token [Question]" in capsys.readouterr().err


def test_contradicting_decoding_settings(response_model, tmp_path, capsys):
    call = arguments(response_model, tmp_path / "out.jsonl")
    assert command(*call, "decoding.alpha=[1, 2]") == 2
    assert "expected a number or 8" in capsys.readouterr().err
    assert command(*call, "decoding.num_beams=3") == 2
    assert "choose one" in capsys.readouterr().err
    assert command(*call, "decoding.strategy=Qestion") == 2
    assert "did you mean 'Question'" in capsys.readouterr().err


@pytest.mark.parametrize("overwrite", ["true", "false"])
def test_a_folder_as_output_is_refused_before_any_work(response_model, tmp_path, capsys, overwrite):
    call = arguments(response_model, tmp_path, f"overwrite={overwrite}")
    assert command(*call) == 2
    assert "is a folder; give the name of a file" in capsys.readouterr().err


def test_a_class_from_outside_is_run_only_where_the_user_names_it(response_model, tmp_path, capsys):
    folder = tmp_path / "model"
    name = with_outside_fusion(response_model, folder)
    call = arguments(folder, tmp_path / "out.jsonl", "limit=2")
    assert command(*call) == 2
    assert f"give trusted_code={name} if you trust it" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()
    assert command(*call, f"trusted_code={name}") == 0
    assert len(records(tmp_path / "out.jsonl")) == 2
