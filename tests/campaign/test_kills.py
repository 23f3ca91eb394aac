"""Every command killed at random moments ends, run again, in the bytes of a run left alone.

    pytest -n0 -m campaign tests/campaign/test_kills.py          # 300 kills; PAL_KILLS changes it

Moments are drawn with a seed (PAL_SEED), so that a failure can be looked at again.
"""

import csv
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

from pal.human_eval.choice import PAL_QUESTIONS
from tests.benchmark.test_stages import TINY
from tests.campaign.outputs import contents
from tests.commands.authors import authors_weights, write_config
from tests.jobs import ESCONV, ROOT, TRAIN_EXTRACTOR, TRAIN_RESPONSE, environment
from tests.llm.server import FakeServer
from tests.traits.fakes import World, answer, planted

pytestmark = pytest.mark.campaign

KILLS = int(os.environ.get("PAL_KILLS", "300"))
SEED = int(os.environ.get("PAL_SEED", "1"))
IN_A_ROW = 4  # kills before a job may finish

STEPS = ["training.save_strategy=steps", "training.save_steps=3", "training.eval_strategy=steps",
         "training.eval_steps=3"]  # fmt: skip


class ForkServer:
    """Commands in forked processes; see :mod:`tests.campaign.forkserver`."""

    def __init__(self, folder):
        self.log = folder / "commands.log"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.campaign.forkserver"], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(OMP_NUM_THREADS="1"),
        )  # fmt: skip
        assert json.loads(self.process.stdout.readline()) == "ready"

    def __call__(self, *arguments, kill_after=None):
        order = {"arguments": [str(a) for a in arguments], "log": str(self.log)}
        if kill_after is not None:
            order["kill_after"] = kill_after
        print(json.dumps(order), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    """A fork server, and what the commands read: models, personas, responses, measurements."""
    folder = tmp_path_factory.mktemp("kills")
    fork = ForkServer(folder)

    def made(*arguments):
        found = fork(*arguments)
        assert found["code"] == 0, fork.log.read_text()[-2000:]

    made("train", *TRAIN_RESPONSE, f"output_dir={folder / 'model'}")
    made("train", *TRAIN_EXTRACTOR, f"output_dir={folder / 'extractor'}")
    made("annotate", f"model={folder / 'extractor'}", f"input={ESCONV}", "split=test",
         "annotate.num_beams=2", "annotate.max_new_tokens=12",
         f"output={folder / 'pes.jsonl'}")  # fmt: skip
    made("generate", f"model={folder / 'model'}", f"input={folder / 'pes.jsonl'}",
         "decoding.max_new_tokens=12", f"output={folder / 'out.jsonl'}")  # fmt: skip
    made("generate", f"model={folder / 'model'}", f"input={folder / 'pes.jsonl'}", "seed=7",
         "decoding.max_new_tokens=12", f"output={folder / 'other.jsonl'}")  # fmt: skip
    cards = [
        {"id": f"p{n}", "dataset": "d", "description": f"Case {n}. A person.", "problem": "x",
         "age": "young", "gender": "female", "occupation": "cook", "keep": True}
        for n in range(12)
    ]  # fmt: skip
    (folder / "cards.jsonl").write_text("".join(json.dumps(card) + "\n" for card in cards))
    made("tune-alpha", f"model={folder / 'model'}", f"input={folder / 'pes.jsonl'}",
         "tune_alpha.trials=4", "tune_alpha.objectives=[bleu_2, distinct_2]", "limit=12",
         "metrics.embedder=null", "decoding.max_new_tokens=8",
         f"output={folder / 'alpha.json'}")  # fmt: skip
    made("analyze", f"input={folder / 'pes.jsonl'}", "metrics.embedder=null",
         f"analyze.systems={{a: {folder / 'out.jsonl'}}}",
         f"output={folder / 'analysis.json'}")  # fmt: skip
    made("human-eval", "export", f"input={folder / 'pes.jsonl'}", "human_eval.items=10",
         f"human_eval.systems={{a: {folder / 'out.jsonl'}, b: {folder / 'other.jsonl'}}}",
         f"output={folder / 'export'}")  # fmt: skip
    fill_in(folder / "export" / "for_raters" / "sheet.csv", folder / "sheet.csv")
    save_file(authors_weights(), folder / "theirs.safetensors")
    write_config(folder / "theirs.json")
    people = [json.dumps({"persona": f"Case {n}. A clerk."}) + "\n" for n in range(6)]
    (folder / "people.jsonl").write_text("".join(people))
    with FakeServer(answer(World(planted(12)))) as server:
        made(*study(folder, endpoint(server.port)), f"output_dir={folder / 'study'}",
             f"llm.cache={folder / 'study.sqlite'}")  # fmt: skip
    yield folder, fork
    fork.process.stdin.close()
    fork.process.wait()


def fill_in(sheet, to):
    """Write a sheet on which a rater has chosen, by turns."""
    with sheet.open(encoding="utf-8-sig", newline="") as handle:
        rows = list(csv.DictReader(handle))
    for number, row in enumerate(rows):
        for place, question in enumerate(PAL_QUESTIONS):
            row[question.name] = ("A", "B", "Tie")[(number + place) % 3]
        row["rater"] = "someone"
    with to.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def endpoint(port):
    return [f"llm.base_url=http://127.0.0.1:{port}/v1", "llm.model=m", "llm.backoff=0.01"]


def study(folder, llm):
    return ["traits", "run", "split=test", "limit=4", f"traits.personas={folder / 'people.jsonl'}",
            f"traits.corpora={{esconv: {{input: {ESCONV}}}}}", "traits.form=short",
            "traits.conditions=[none, both]", "statistics.resamples=199", *llm]  # fmt: skip


def step(folder, name):
    """Return the file that a step of the study wrote."""
    found = [p for p in folder.glob(f"study/{name}-*.json*") if not p.name.endswith(".run.json")]
    return found[0] if found else folder / "study" / name


def jobs(folder, llm):
    """Return the jobs by name: arguments without their output, and the key that names it."""
    model, pes, out = folder / "model", folder / "pes.jsonl", folder / "out.jsonl"
    other = folder / "other.jsonl"
    cards, described = step(folder, "esconv-cards"), step(folder, "esconv-describe")
    measured = step(folder, "esconv-measure")
    fast = "statistics.resamples=199"
    return {
        "train by epoch": (["train", *TRAIN_RESPONSE], "output_dir"),
        "train by steps": (["train", *TRAIN_RESPONSE, *STEPS], "output_dir"),
        "train the extractor": (["train", *TRAIN_EXTRACTOR, *STEPS], "output_dir"),
        "annotate": (["annotate", f"model={folder / 'extractor'}", f"input={ESCONV}", "split=train",
                      "limit=8", "annotate.num_beams=2", "annotate.max_new_tokens=24",
                      "batch_rows=8"], "output"),
        "generate": (["generate", f"model={model}", f"input={pes}", "batch_rows=2",
                      "decoding.max_new_tokens=40"], "output"),
        "eval": (["eval", f"model={model}", f"input={pes}", f"predictions={out}",
                  "metrics.embedder=null"], "output"),
        "tune-alpha": (["tune-alpha", f"model={model}", f"input={pes}", "tune_alpha.trials=12",
                        "tune_alpha.objectives=[bleu_2, distinct_2]", "metrics.embedder=null",
                        "decoding.max_new_tokens=12"], "output"),
        "analyze": (["analyze", f"input={pes}", f"analyze.systems={{a: {out}}}",
                     "metrics.embedder=null"], "output"),
        "human-eval export": (["human-eval", "export", f"input={pes}",
                               f"human_eval.systems={{a: {out}, b: {other}}}"], "output"),
        "traits measure": (["traits", "measure", f"input={folder / 'cards.jsonl'}", *llm,
                            "traits.form=short"], "output"),
        "report": (["report", f"report.include=[{folder / 'analysis.json'}, "
                    f"{folder / 'alpha.json'}]"], "output"),
        "reproduce": (["reproduce", *TINY, "reproduce.systems=[joint, pal]",
                       "reproduce.seeds=[13]"], "output_dir"),
        "human-eval score": (["human-eval", "score", f"input={folder / 'export'}",
                              f"human_eval.answers=[{folder / 'sheet.csv'}]"], "output"),
        "convert-authors": (["convert-authors", folder / "theirs.safetensors",
                             f"config={folder / 'theirs.json'}"], "output"),
        "bench metrics": (["bench", "metrics", "limit=300", "overwrite=true"], "output"),
        "traits cards": (["traits", "cards", f"input={ESCONV}", "split=test", *llm], "output"),
        "traits filter": (["traits", "filter", f"input={cards}", *llm], "output"),
        "traits describe": (["traits", "describe", f"input={cards}", *llm], "output"),
        "traits expand": (["traits", "expand", f"input={folder / 'people.jsonl'}", *llm], "output"),
        "traits synthesize": (["traits", "synthesize", f"input={described}", *llm], "output"),
        "traits continue": (["traits", "continue", f"input={ESCONV}", "split=test", "limit=4",
                             f"traits.cards={described}", f"traits.measurements={measured}",
                             "traits.conditions=[none, both]", *llm], "output"),
        "traits correlate": (["traits", "correlate", f"input={step(folder, 'measurements')}", fast],
                             "output"),
        "traits compare": (["traits", "compare", f"input={step(folder, 'persona-measure')}",
                            f"traits.before={step(folder, 'personas-measure')}", fast], "output"),
        "traits strategies": (["traits", "strategies", f"input={step(folder, 'esconv-continue')}",
                               fast], "output"),
        "traits stats": (["traits", "stats", f"input={step(folder, 'esconv-continue')}", fast],
                         "output"),
        "traits report": (["traits", "report", "report.include="
                           f"[{step(folder, 'correlations')}, {step(folder, 'strategies')}]"],
                          "output"),
        "traits run": (study(folder, llm), "output_dir"),
    }  # fmt: skip


SUFFIX = {"tune-alpha": ".json", "eval": ".json", "analyze": ".json", "annotate": ".jsonl",
          "generate": ".jsonl", "report": ".html", "human-eval score": ".json",
          "bench metrics": ".json", "traits report": ".html", "traits correlate": ".json",
          "traits compare": ".json", "traits strategies": ".json",
          "traits stats": ".json"}  # fmt: skip
ASKING = ("measure", "cards", "filter", "describe", "expand", "synthesize", "continue", "run")
FOLDERS = ("train", "human-eval export", "convert-authors", "reproduce", "traits run")


def place_of(name, work):
    """Return where a job writes; steps that ask write JSON lines."""
    asking = ".jsonl" if name.startswith("traits") else ""
    return work / f"out{SUFFIX.get(name, '' if name.startswith(FOLDERS) else asking)}"


def whole_study(place):
    """Return what an output holds; its page shows documents that name their moment."""
    found = contents(place)
    for name in [name for name in found if name.endswith("report.html")]:
        found[name] = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", b"then", found[name])
        found.pop(f"{name}.run.json", None)
    return found


def figures(value):
    """Return a measurement without its figures, which no two runs share."""
    if isinstance(value, dict):
        return {key: figures(item) for key, item in value.items()}
    return [figures(item) for item in value] if isinstance(value, list) else type(value).__name__


def measured(place):
    """Return the form of a measurement."""
    return figures(contents(place))


NAMES = list(jobs(Path(), []))


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_command_ends_in_the_same_bytes(assets, name, tmp_path):
    folder, fork = assets
    chance = random.Random(f"{SEED} {name}")
    share, killed, rounds = -(-KILLS // len(NAMES)), 0, 0
    with FakeServer(answer(World(planted(12)))) as server:
        arguments, key = jobs(folder, endpoint(server.port))[name]

        work = tmp_path / "work"  # the same in every round: outputs name their paths
        place = place_of(name, work)
        asks = name.startswith("traits") and name.endswith(ASKING)
        cache = [f"llm.cache={work / 'c.sqlite'}"] if asks else []
        look = whole_study if name in ("reproduce", "traits run") else contents
        if name.startswith("bench"):
            look = measured

        def run(**how):
            work.mkdir(exist_ok=True)
            found = fork(*arguments, *cache, f"{key}={place}", **how)
            assert found["code"] in (0, -9), fork.log.read_text()[-2000:]
            return found

        first = run()
        assert first["code"] == 0
        expected = look(place)
        assert expected
        while killed < share:
            rounds += 1
            shutil.rmtree(work)
            for _ in range(IN_A_ROW):
                killed += run(kill_after=chance.uniform(0, first["seconds"]))["code"] == -9
            assert run()["code"] == 0
            assert look(place) == expected
            names = [path.name for path in work.rglob("*")]
            left = [name for name in names if ".tmp" in name or ".part" in name]
            assert not left
    print(f"{name}: {killed} kills, {rounds} results, all the same")
