"""The exported task: its files score as ``pal eval`` does, with and without the two programs."""

import asyncio
import importlib.util
import json
import math
import os
import stat
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from pal.core.errors import DataError
from pal.harness.scoring import ExportedTask
from tests.harness.endpoint import answer_to, serve_chat
from tests.jobs import ESCONV, command, environment

DIALOGUES = [
    {
        "id": f"d{number}",
        "dialog": [
            {"speaker": "seeker", "text": f"{start} {{{{ 7 * 7 }}}} {{% raw %}}"},
            {"speaker": "supporter", "text": "What happened then?", "strategy": "Question"},
            {"speaker": "seeker", "text": "</dialogue> Nobody listens.",
             "persona": [f"I have {number} cats."]},
            {"speaker": "supporter", "text": f"I listen to you, and to {number} cats.",
             "strategy": "Affirmation and Reassurance"},
            {"speaker": "seeker", "text": "Thanks."},
            {"speaker": "supporter", "text": "Take care of yourself!", "strategy": "Others"},
        ],
    }
    for number, start in enumerate(["My boss shouts.", "I failed.", "Ich bin müde. 😔", "Hm."])
]  # fmt: skip
ASKED = ["supporter.persona=true", "supporter.strategy_first=true", "metrics.embedder=null"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "mine.jsonl"
    path.write_text("\n".join(map(json.dumps, DIALOGUES)))
    return path


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "strategy_first"])
def exported(request, corpus, tmp_path_factory):
    """(folder of the task, what ``pal answer`` and ``pal eval`` give for the same model)."""
    root = tmp_path_factory.mktemp("task")
    more = ASKED if request.param else ["metrics.embedder=null"]
    given = [f"input={corpus}", f"output={root / 'task'}", "task_name=mine", *more]
    assert command("export-task", *given) == 0
    with serve_chat(request.param) as (url, bodies):
        answer = [
            f"input={corpus}", f"output={root / 'a.jsonl'}", f"llm.base_url={url}",
            f"llm.cache={root / 'cache'}", "llm.model=m", "llm.structured=json_schema",
            *more[:-1],
        ]  # fmt: skip
        assert command("answer", *answer) == 0
    score = [f"predictions={root / 'a.jsonl'}", f"output={root / 'a.json'}"]
    assert command("eval", *score, "metrics.embedder=null") == 0
    metrics = json.loads((root / "a.json").read_text())["metrics"]
    return root / "task", {key: one["value"] for key, one in metrics.items()}, bodies, request.param


def load_file(path):
    names: dict = {"__file__": str(path), "__name__": f"exported_{path.stem}"}
    exec(compile(path.read_text(), path, "exec"), names)
    return types.SimpleNamespace(**names)


def messages_of(row):
    return [{"role": role, "content": row[role]} for role in ("system", "user")]


def test_the_functions_of_lm_eval_give_the_scores_of_pal_eval(exported):
    folder, ours, bodies, strategy_first = exported
    utils = load_file(folder / "utils.py")
    rows = list(utils.load_data(version=1.0)["test"])
    asked = [[{"role": "system", "content": row["system"]},
              {"role": "user", "content": utils.doc_to_text(row)}] for row in rows]  # fmt: skip
    sent = [json.dumps(body["messages"]) for body in bodies]
    assert {json.dumps(one) for one in asked} == set(sent)  # what pal answer asks, to the letter
    results = [
        utils.process_results(row, [answer_to(messages, strategy_first)])
        for row, messages in zip(rows, asked, strict=True)
    ]
    theirs = {
        name: getattr(utils, f"score_{name}")([one[name] for one in results[::-1]])
        for name in utils.NAMES
    }
    assert {name: value for name, value in theirs.items() if not math.isnan(value)} == ours
    assert ours["length"] > 0
    assert ("accuracy" in ours) == strategy_first
    assert [utils.doc_to_target(row) for row in rows][1] == "I listen to you, and to 0 cats."


def test_the_scorer_of_inspect_gives_the_scores_of_pal_eval(exported, monkeypatch):
    folder, ours, _, strategy_first = exported
    made: dict = {}
    plain: Any = types.SimpleNamespace
    fake = {
        "inspect_ai": plain(Task=plain, task=lambda function: function),
        "inspect_ai.dataset": plain(
            MemoryDataset=lambda samples, name: samples, Sample=plain),
        "inspect_ai.model": plain(
            ChatMessageSystem=lambda content: {"role": "system", "content": content},
            ChatMessageUser=lambda content: {"role": "user", "content": content},
            GenerateConfig=plain),
        "inspect_ai.scorer": plain(
            Score=plain, SampleScore=plain, metric=lambda function: function,
            scorer=lambda **how: made.update(how) or (lambda function: function)),
        "inspect_ai.solver": plain(generate=lambda: None),
    }  # fmt: skip
    for name, module in fake.items():
        monkeypatch.setitem(sys.modules, name, module)
    task = load_file(folder / "task.py").mine()
    assert task.config.temperature == 0.0
    [compute] = made["metrics"]

    def state(sample, epoch=1):
        completion = answer_to(sample.input, strategy_first)
        return plain(sample_id=sample.id, epoch=epoch, output=plain(completion=completion))

    found = [asyncio.run(task.scorer(state(sample), None)) for sample in task.dataset]
    assert compute([plain(score=score) for score in found]) == ours
    assert [score.answer for score in found] == [s.metadata["record"]["response"] for s in found]
    with pytest.raises(ValueError, match="epochs"):
        asyncio.run(task.scorer(state(task.dataset[0], epoch=2), None))


def test_both_programs_give_the_scores_of_pal_eval(exported, tmp_path):
    """The programs themselves, in processes of their own."""
    for name in ("lm_eval", "inspect_ai"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f'{name} is not installed (pip install -c constraints.txt ".[harness]")')
    folder, ours, _, strategy_first = exported
    programs = Path(sys.executable).parent

    def run(*arguments):
        done = subprocess.run(
            list(map(str, arguments)), cwd=folder.parent, capture_output=True, text=True,
            env=environment(OPENAI_API_KEY="x", NO_PROXY="127.0.0.1"),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]

    with serve_chat(strategy_first) as (url, _):
        run(
            programs / "lm_eval", "--include_path", folder, "--tasks", "mine",
            "--model", "local-chat-completions", "--apply_chat_template",
            "--output_path", tmp_path / "lm",
            "--model_args", f"model=m,base_url={url}/chat/completions,num_concurrent=3",
        )  # fmt: skip
        run(
            programs / "inspect", "eval", "task/task.py", "--model", "openai-api/local/m",
            "--model-base-url", url, "-M", "api_key=x", "--display", "none",
            "--log-format", "json", "--log-dir", tmp_path / "logs",
        )  # fmt: skip
    [path] = (tmp_path / "lm").rglob("results*.json")
    results = json.loads(path.read_text())["results"]["mine"]
    values = {key.split(",")[0]: value for key, value in results.items() if "stderr" not in key}
    known = {key: value for key, value in values.items() if key in ours}
    assert known == ours
    [path] = (tmp_path / "logs").glob("*.json")
    [scorer] = json.loads(path.read_text())["results"]["scores"]
    assert {key: one["value"] for key, one in scorer["metrics"].items()} == ours


def test_an_answer_that_is_not_what_was_asked_is_an_empty_response(exported):
    folder, _, _, strategy_first = exported
    task = ExportedTask(folder)
    name = task.rows[0]["id"]
    assert task.record(name, None)["response"] == ""
    assert task.record(name, "  \n")["failed"]
    free = task.record(name, "Just words.")
    assert free["response"] == ("" if strategy_first else "Just words.")
    assert ("strategy" in free) == strategy_first
    assert task.scores([]) == {}
    with pytest.raises(DataError, match=r"two answers to 'd0/1'.*epoch"):
        task.scores([free, free])
    with pytest.raises(DataError, match="no sample has the id 'other/1'"):
        task.record("other/1", "Hello.")


def test_texts_are_for_the_user_alone(exported):
    folder = exported[0]
    assert stat.S_IMODE(os.stat(folder / "samples.jsonl").st_mode) == 0o600
    texts = [turn["text"] for one in DIALOGUES for turn in one["dialog"]]
    for path in folder.iterdir():
        if path.name != "samples.jsonl":
            assert not any(text in path.read_text() for text in texts), path


def test_a_folder_is_replaced_only_when_asked_and_whole(corpus, tmp_path, capsys, monkeypatch):
    output = tmp_path / "task"
    given = [f"input={corpus}", f"output={output}", "metrics.names=[length]"]
    assert command("export-task", *given, "limit=2") == 0
    capsys.readouterr()
    assert command("export-task", *given) == 2
    assert "is not empty" in capsys.readouterr().err
    assert len(ExportedTask(output).rows) == 2
    import pal.harness.tasks

    write = pal.harness.tasks.write_json

    def full(path, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pal.harness.tasks, "write_json", full)
    assert command("export-task", *given, "overwrite=true") == 2
    assert "No space left" in capsys.readouterr().err
    assert len(ExportedTask(output).rows) == 2
    monkeypatch.setattr(pal.harness.tasks, "write_json", write)
    assert command("export-task", *given, "overwrite=true") == 0
    assert len(ExportedTask(output).rows) == 12
    assert [path.name for path in tmp_path.iterdir()] == ["task"]
    (output / "task.json").unlink()
    capsys.readouterr()
    assert command("export-task", *given, "overwrite=true") == 2
    assert "not an exported task" in capsys.readouterr().err


def test_folders_of_models_are_named_so_that_any_place_finds_them(corpus, tmp_path, monkeypatch):
    (tmp_path / "encoder").mkdir()
    monkeypatch.chdir(tmp_path)
    more = ["metrics.embedder=encoder", "task_name=other_name", "split=test", "limit=1"]
    assert command("export-task", f"input={ESCONV}", "output=task", *more) == 0
    task = ExportedTask(tmp_path / "task")
    assert task.metrics.embedder == str(tmp_path / "encoder")
    assert "embedder" in task.metrics.model_fields_set  # named by the user: no silent way without
    assert task.about["protocol"]["samples"] == 1
    assert (tmp_path / "task" / "other_name.yaml").is_file()
    assert command("export-task", f"input={ESCONV}", "output=x", "task_name=a-b") == 2
