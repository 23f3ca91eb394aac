"""What people give to generate, and what the record of the run says of it."""

import gzip
import json
import subprocess

import pytest

from pal.data.cards import CARDS_NOTE
from pal.data.esconv import load_esconv
from tests.jobs import ESCONV, command, start

FAST = ["decoding.max_new_tokens=8", "decoding.min_new_tokens=1", "limit=3"]
REQUEST = {"id": "r", "dialog": [{"speaker": "seeker", "text": "I lost my job."}]}


def generate(model, source, output, *more):
    return command(
        "generate", f"model={model}", f"input={source}", f"output={output}", *FAST, *more
    )


def run_of(output):
    return json.loads(output.with_name(output.name + ".run.json").read_text())


def test_a_run_with_cards_says_what_cards_know(response_model, tmp_path, capsys):
    cards = tmp_path / "cards.jsonl"
    rows = [{"id": row["id"], "description": "I fly."} for row in load_esconv(ESCONV, "test")]
    cards.write_text("\n".join(map(json.dumps, rows)))
    output = tmp_path / "out.jsonl"
    assert generate(response_model, ESCONV, output, "split=test", f"data.cards={cards}") == 0
    assert run_of(output)["cards"] == CARDS_NOTE
    assert CARDS_NOTE in capsys.readouterr().err
    assert {tuple(json.loads(line)["persona"]) for line in output.open()} == {("I fly.",)}
    assert generate(response_model, ESCONV, tmp_path / "b.jsonl", "split=test") == 0
    assert "cards" not in run_of(tmp_path / "b.jsonl")


@pytest.mark.parametrize("name", ["requests.jsonl", "requests.jsonl.gz", "one.json"])
def test_files_of_any_form_are_answered(response_model, tmp_path, name):
    text = json.dumps(REQUEST, indent=1 if name == "one.json" else None).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    output = tmp_path / "out.jsonl"
    assert generate(response_model, tmp_path / name, output) == 0
    assert [json.loads(line)["id"] for line in output.open()] == ["r/1"]


def test_a_turn_that_is_not_answered_is_told(response_model, tmp_path, capsys):
    (tmp_path / "t.csv").write_text(
        "dialogue,speaker,text,strategy,request\n1,seeker,Hi,,\n1,supporter,Hi,Others,\n"
        "1,seeker,I lost my job.,,\n"
    )
    output = tmp_path / "out.jsonl"
    assert generate(response_model, tmp_path / "t.csv", output) == 0
    told = "t.csv: the last turn of 1 dialogue is the seeker's and is not answered"
    assert capsys.readouterr().err.count(told) == 1
    (tmp_path / "t.csv").write_text((tmp_path / "t.csv").read_text()[:-1] + "true\n")
    assert generate(response_model, tmp_path / "t.csv", output, "overwrite=true") == 0
    assert told not in capsys.readouterr().err
    assert [json.loads(line)["id"] for line in output.open()] == ["1/3"]


def test_a_pipe_is_answered_and_other_contents_are_another_job(response_model, tmp_path):
    output = tmp_path / "out.jsonl"

    def piped(*records):
        call = ["generate", f"model={response_model}", "input=/dev/stdin", f"output={output}"]
        process = start(*call, *FAST, stdin=subprocess.PIPE)
        return process.communicate("\n".join(map(json.dumps, records)))[1], process.returncode

    told, code = piped(REQUEST)
    assert code == 0, told
    written = output.read_bytes()
    assert "is already finished" in piped(REQUEST)[0]
    told, code = piped({**REQUEST, "id": "s"})
    assert code == 2
    assert "differs: input" in told
    assert output.read_bytes() == written


def test_labels_of_another_set_are_mapped_on_the_command_line(response_model, tmp_path, capsys):
    said = (
        ("usr", "Hi", None),
        ("sys", "Hello", "Hail"),
        ("usr", "Sad", None),
        ("sys", "O", "Echo"),
    )
    turns = [dict(zip(("speaker", "text", "strategy"), turn, strict=True)) for turn in said]
    talk = {"situation": "x", "dialog": turns}
    (tmp_path / "t.jsonl").write_text(json.dumps(talk))
    output = tmp_path / "out.jsonl"
    assert generate(response_model, tmp_path / "t.jsonl", output) == 2
    assert "data.strategy_labels='{Hail: …}'" in capsys.readouterr().err
    labels = "data.strategy_labels={Hail: Others, echo: null}"
    assert generate(response_model, tmp_path / "t.jsonl", output, labels) == 0
    gold = [json.loads(line)["reference_strategy"] for line in output.open()]
    assert gold == ["Others", None]
    assert run_of(output)["settings"]["data"]["strategy_labels"] == {"Hail": "Others", "echo": None}
    assert generate(response_model, tmp_path / "t.jsonl", tmp_path / "b.jsonl", labels,
                    "decoding.strategy=gold") == 2  # fmt: skip
    assert "the sample has no gold strategy" in capsys.readouterr().err
