"""Every command killed at random moments ends, run again, in the bytes of a run left alone.

    pytest -n0 -m campaign tests/campaign/test_kills.py          # 300 kills; PAL_KILLS changes it

Moments are drawn with a seed (PAL_SEED), so that a failure can be looked at again.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaign.outputs import contents
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
    yield folder, fork
    fork.process.stdin.close()
    fork.process.wait()


def jobs(folder, url):
    """Return the jobs by name: arguments without their output, and the key that names it."""
    model, pes, out = folder / "model", folder / "pes.jsonl", folder / "out.jsonl"
    other = folder / "other.jsonl"
    llm = [f"llm.base_url={url}", "llm.model=m", "llm.backoff=0.01"]
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
    }  # fmt: skip


SUFFIX = {"tune-alpha": ".json", "eval": ".json", "analyze": ".json", "annotate": ".jsonl",
          "generate": ".jsonl", "traits measure": ".jsonl"}  # fmt: skip


NAMES = list(jobs(Path(), ""))


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_command_ends_in_the_same_bytes(assets, name, tmp_path):
    folder, fork = assets
    chance = random.Random(f"{SEED} {name}")
    share, killed, rounds = -(-KILLS // len(NAMES)), 0, 0
    with FakeServer(answer(World(planted(12)))) as server:
        arguments, key = jobs(folder, f"http://127.0.0.1:{server.port}/v1")[name]

        work = tmp_path / "work"  # the same in every round: outputs name their paths
        place = work / f"out{SUFFIX.get(name, '')}"
        cache = [f"llm.cache={work / 'c.sqlite'}"] if name.startswith("traits") else []

        def run(**how):
            work.mkdir(exist_ok=True)
            found = fork(*arguments, *cache, f"{key}={place}", **how)
            assert found["code"] in (0, -9), fork.log.read_text()[-2000:]
            return found

        first = run()
        assert first["code"] == 0
        expected = contents(place)
        while killed < share:
            rounds += 1
            shutil.rmtree(work)
            for _ in range(IN_A_ROW):
                killed += run(kill_after=chance.uniform(0, first["seconds"]))["code"] == -9
            assert run()["code"] == 0
            assert contents(place) == expected
            names = [path.name for path in work.rglob("*")]
            left = [name for name in names if ".tmp" in name or ".part" in name]
            assert not left
    print(f"{name}: {killed} kills, {rounds} results, all the same")
