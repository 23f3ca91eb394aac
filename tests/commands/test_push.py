"""``pal export push_to=…``: what a hub is given, and what not."""

import json
import shutil
import subprocess
import sys

import pytest
import yaml

from pal.training.card import MARK, evaluation_results, write_model_card
from tests.hub import serve
from tests.jobs import command, environment


def push(model, output, address, name="me/mine"):
    return subprocess.run(
        [sys.executable, "-m", "pal.cli", "export", f"model={model}", f"output={output}",
         f"push_to={name}"],
        env=environment(
            HF_ENDPOINT=address, HF_HUB_OFFLINE="0", HF_HUB_DISABLE_XET="1", HF_TOKEN="hf_hidden",
            NO_PROXY="127.0.0.1"),
        capture_output=True, text=True,
    )  # fmt: skip


def test_a_hub_gets_the_model_and_its_card_and_no_more(response_model, tmp_path):
    model, uploads = tmp_path / "model", {}
    shutil.copytree(response_model, model)
    (model / ".eval_results").mkdir()
    (model / ".eval_results" / "pal.yaml").write_text("- value: 1\n")
    with serve({"me/mine": tmp_path / "nothing"}, uploads) as (address, _):
        done = push(model, tmp_path / "out", address)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "hf_hidden" not in done.stdout + done.stderr
    made = uploads["created"]
    assert made.get("visibility") == "private" or made.get("private") is True
    files = set(uploads["files"])
    assert {"model.safetensors", "config.json", "README.md", ".eval_results/pal.yaml"} <= files
    assert not {name for name in files if "run" in name or "log" in name or "journal" in name}
    assert b"hf_hidden" not in b"".join(uploads["files"].values())
    written = tmp_path / "out" / "model.safetensors"
    assert uploads["files"]["model.safetensors"] == written.read_bytes()


def test_a_hub_that_is_not_there_is_one_line(response_model, tmp_path):
    done = push(response_model, tmp_path / "out", "http://127.0.0.1:9")
    assert done.returncode == 2
    assert "push_to=me/mine: the hub does not take it" in done.stderr.splitlines()[-1]
    assert "hf_hidden" not in done.stdout + done.stderr
    assert (tmp_path / "out" / "config.json").is_file()


@pytest.mark.parametrize(("corpus", "loss", "number"), [
    ("thu-coai/esconv", 3.25, 1), ("/home/me/private.jsonl", 3.25, 0), ("thu-coai/esconv", None, 0),
])  # fmt: skip
def test_results_name_a_data_set_of_the_hub(corpus, loss, number):
    found = evaluation_results(
        {"settings": {"data": {"train": corpus}}, "validation_nll": loss,
         "validation_samples": 7, "finished": "2026-01-02T03:04:05+0000"}
    )  # fmt: skip
    assert len(found) == number
    for one in found:
        assert one["dataset"] == {"id": corpus, "task_id": "validation_loss"}
        assert one["value"] == loss


def test_a_repository_has_an_owner(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    given = [f"model={tmp_path}", f"output={tmp_path / 'out'}", "push_to=mine"]
    assert command("export", *given) == 2
    assert "push_to=mine: give a repository as owner/name" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_results_of_an_earlier_run_do_not_stay(response_model, tmp_path):
    record = json.loads((response_model / "run.json").read_text())
    (tmp_path / "README.md").write_text("My own words.")
    record["settings"]["data"]["train"] = "thu-coai/esconv"
    write_model_card(tmp_path, record)
    [found] = yaml.safe_load((tmp_path / ".eval_results" / "pal.yaml").read_text())
    assert found["value"] == round(record["validation_nll"], 6)
    record["settings"]["data"]["train"] = str(tmp_path / "mine.jsonl")
    write_model_card(tmp_path, record)
    assert not (tmp_path / ".eval_results" / "pal.yaml").exists()
    assert MARK not in (tmp_path / "README.md").read_text()
