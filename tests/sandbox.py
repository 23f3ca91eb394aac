"""A folder in which the commands of the documents run: every name they use is there, but small.

Hub names are folders of the same names, with models of a few thousand weights; runs are models
trained for a moment; an endpoint's address is that of a loopback server. The shell expands a
block's own lines, so loops, quotes and pipes are those that a reader would type; ``pal`` is a
stand-in that writes down how it was called, and the calls are then made in this process.
"""

import csv
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import BartConfig, BartForConditionalGeneration

from pal.data.samples import build_samples
from pal.data.splits import load_split
from tests.commands.authors import authors_weights, write_config
from tests.jobs import ESCONV, PERSONACHAT, ROOT, SAMPLE
from tests.modeling.families import bart_tokenizer
from tests.modeling.languages import chat_tokenizer, tiny
from tests.test_hub import SIZES, make_blenderbot, make_simcse


def make_bart(folder: Path) -> None:
    """Write a BART with random weights and a tokenizer of the bundled corpus."""
    tokenizer = bart_tokenizer()
    tokenizer.save_pretrained(folder)
    config = BartConfig(vocab_size=len(tokenizer), max_position_embeddings=512, **SIZES)
    BartForConditionalGeneration(config).save_pretrained(folder)


HUB = {
    "facebook/blenderbot_small-90M": make_blenderbot,
    "facebook/bart-large-cnn": make_bart,
    "princeton-nlp/sup-simcse-bert-base-uncased": make_simcse,
    "sentence-transformers/all-MiniLM-L6-v2": make_simcse,
}
LANGUAGE = ("HuggingFaceTB/SmolLM2-135M-Instruct", "Qwen/Qwen3-8B")

# What keeps a run short, by key; a command gets those that it takes and its line does not set.
SHORT = {
    "training.max_steps": "2", "training.save_strategy": "steps", "training.save_steps": "2",
    "training.eval_strategy": "steps", "training.eval_steps": "2", "training.warmup_steps": "1",
    "data.max_train_samples": "8", "data.max_validation_samples": "4", "limit": "3",
    "overwrite": "true", "annotate.max_new_tokens": "4", "annotate.num_beams": "1",
    "decoding.max_new_tokens": "12", "statistics.resamples": "100", "reproduce.seeds": "[13]",
    "tune_alpha.trials": "4", "tune_alpha.step": "1.0", "bench.rounds": "1",
    "human_eval.items": "2", "simulation.exchanges": "3", "traits.form": "short",
    "architecture.max_context_tokens": "96", "architecture.max_persona_tokens": "32",
    "architecture.max_target_tokens": "32", "training.per_device_train_batch_size": "4",
    "llm.backoff": "0.01",
}  # fmt: skip

RECORDER = """\
#!{python}
import json, os, stat, sys
piped = stat.S_ISFIFO(os.fstat(0).st_mode)
call = {{"program": os.path.basename(sys.argv[0]), "arguments": sys.argv[1:],
        "input": sys.stdin.read() if piped else None}}
with open({log!r}, "a") as log:
    log.write(json.dumps(call) + "\\n")
"""


def minimal(schema: dict[str, Any]) -> Any:
    """Return the plainest value that a JSON schema allows."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    if kind == "object":
        return {name: minimal(part) for name, part in schema["properties"].items()}
    if kind == "array":
        return [minimal(schema["items"])] * max(1, schema.get("minItems", 1))
    plain = {"boolean": True, "integer": schema.get("minimum", 3), "number": 1.0}
    return plain.get(kind, "Case 1. I lost my job and I have two cats.")


def reply(body: dict[str, Any]) -> Any:
    """Answer a request as its form asks: what a model behind an endpoint could say."""
    form = body.get("response_format", {}).get("json_schema")
    return minimal(form["schema"]) if form else "I hear you. That sounds hard."


def _rows(name: str, count: int) -> list[dict[str, Any]]:
    lines = (ESCONV / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:count]]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def fill(folder: Path, response: Path, extractor: Path, language: Path) -> None:
    """Make every file and folder that the documents name."""
    runs = folder / "runs"
    runs.mkdir(parents=True)
    for name, model in {
        "pal": response, "joint": response, "mine_model": response, "quickstart/model": response,
        "extractor": extractor, "small_extractor": extractor, "quickstart/extractor": extractor,
        "smollm2": language, "lora": language,
    }.items():  # fmt: skip
        shutil.copytree(model, runs / name)
    for name, make in HUB.items():
        make_folder(make, folder / name)
    for name in LANGUAGE:
        tiny("llama", initializer_range=0.08).save_pretrained(folder / name)
        chat_tokenizer().save_pretrained(folder / name)
    shutil.copytree(SAMPLE, folder / "data" / "sample")
    shutil.copytree(ROOT / "configs", folder / "configs")
    write_dialogues(folder)
    write_others(folder)


def say(answers: list[dict[str, Any]], word: str) -> list[dict[str, Any]]:
    """Return answers that begin with a word of their system's."""
    return [{**answer, "response": f"{word}: {answer['response']}"} for answer in answers]


def make_folder(make: Any, folder: Path) -> None:
    """Make a model's folder, whose parents may be missing."""
    folder.mkdir(parents=True)
    make(folder)


def write_dialogues(folder: Path) -> None:
    """Write dialogues, with and without personas, under the names of the documents."""
    splits = {name: _rows(f"{name}.jsonl", 4) for name in ("train", "validation", "test")}
    known = {
        split: [
            {**row, "id": f"{split}-{number}", "dialog": [
                {**turn, "persona": ["i have two kids", "i work as a nurse"][: 1 + place // 4]}
                for place, turn in enumerate(row["dialog"][:8])
            ]}
            for number, row in enumerate(rows)
        ]
        for split, rows in splits.items()
    }  # fmt: skip
    for split, rows in splits.items():
        _write(folder / "thu-coai" / "esconv" / f"{split}.jsonl", rows)
        _write(folder / "esconv" / f"{split}.jsonl", rows)
        _write(folder / f"{split}.txt", rows)
        _write(folder / "runs" / "pesconv" / f"{split}.jsonl", known[split])
    everything = [row for rows in known.values() for row in rows]
    quickstart = "runs/quickstart/pesconv.jsonl"
    for name in ("mine.jsonl", "esconv.jsonl", "pesconv.jsonl", "runs/mine.jsonl", quickstart):
        _write(folder / name, everything)
    _write(folder / "requests.jsonl", [
        {"id": str(number), "dialog": [{"speaker": "seeker", "text": "I lost my job."}]}
        for number in range(2)
    ])  # fmt: skip
    answers = [
        {"id": sample.id, "strategy": sample.strategy, "persona": ["i have two kids"],
         "response": f"Well, {sample.response}"}
        for sample in build_samples(load_split(str(folder / "pesconv.jsonl"), None), "evaluation")
    ]  # fmt: skip
    for name in ("a.jsonl", "b.jsonl"):
        _write(folder / name, say(answers, name[0]))
    dialogues = load_split(str(folder / quickstart), "test", mode="seeded")
    tested = build_samples(dialogues, "evaluation")
    _write(folder / "runs/quickstart/predictions.jsonl", [
        {"id": sample.id, "strategy": sample.strategy, "persona": [], "response": "I see."}
        for sample in tested[: int(SHORT["limit"])]
    ])  # fmt: skip
    answers = [answer for answer in answers if answer["id"].startswith("test")]
    for name in ("runs/pal_test.jsonl", "runs/joint_test.jsonl"):
        _write(folder / name, say(answers, name[5]))


def write_others(folder: Path) -> None:
    """Write what is no dialogue: personas, messages, situations, a checkpoint, knowledge."""
    for name, split in {
        "train_both_original": "train",
        "valid_both_original": "validation",
    }.items():
        shutil.copy(PERSONACHAT / f"{split}.txt", folder / f"{name}.txt")
    _write(folder / "cards.jsonl", [
        {"id": f"c{n}", "dataset": "made", "description": f"Case {n}. I have {n + 2} cats.",
         "problem": f"I lost job number {n}."} for n in range(3)
    ])  # fmt: skip
    _write(folder / "personas.jsonl", [
        {"id": f"p{n}", "persona": f"I have {n + 2} cats."} for n in range(3)
    ])  # fmt: skip
    (folder / "situations.txt").write_text("\n".join(f"I lost job {n}." for n in range(12)) + "\n")
    labelled = [("I want to end my life.", "crisis"), ("I lost my job.", "none")]
    _write(folder / "labelled.jsonl", [
        {"text": f"{text} {n}", "label": label, "source": f"s{n}", "wording": "explicit"}
        for n in range(12) for text, label in labelled
    ])  # fmt: skip
    torch.save(authors_weights(), folder / "pytorch_model.bin")
    write_config(folder / "config.json")
    with (folder / "turns.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("conv", "who", "said", "move"), (1, "seeker", "Hi.", "")])


def calls_of(text: str, folder: Path) -> list[dict[str, Any]]:
    """Return the calls that a shell makes which runs this text: program, arguments, input."""
    programs, log = folder / "programs", folder / "calls.jsonl"
    programs.mkdir(exist_ok=True)
    log.write_text("")
    for name in ("pal", "pip", "git", "python", "accelerate", "torchrun", "pytest", "cd"):
        path = programs / name
        path.write_text(RECORDER.format(python=sys.executable, log=str(log)))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    text = re.sub(r"<[^>\n]*>", "PLACE", text)
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", f"cd() {{ :; }}\n{text}"], cwd=folder, text=True,
        capture_output=True, stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in log.read_text().splitlines()]
