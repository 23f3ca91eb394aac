"""Ctrl-C in the middle of a command: one line, exit code 130, and run again it ends as if alone.

The middle is a share of the calls within the package that the command makes when left alone.
"""

import os
import re
import shutil
import signal
import sys
import threading
from pathlib import Path

import pytest
from safetensors.torch import save_file

import pal
from tests.campaign.outputs import contents
from tests.commands.authors import authors_weights, write_config
from tests.jobs import ESCONV, TRAIN_RESPONSE, command

INSIDE = str(Path(pal.__file__).parent)
STEPS = ["training.save_strategy=steps", "training.save_steps=3", "training.eval_strategy=steps",
         "training.eval_steps=3"]  # fmt: skip
SUFFIX = {"annotate": ".jsonl", "train": "", "human-eval export": "", "convert-authors": ""}


class CallCounter:
    """Counts the calls within the package, and interrupts the process at one of them."""

    def __init__(self, interrupt_at=None):
        self.calls, self.interrupt_at = 0, interrupt_at

    def __call__(self, frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(INSIDE):
            self.calls += 1
            if self.calls == self.interrupt_at:
                os.kill(os.getpid(), signal.SIGINT)

    def run(self, *arguments):
        assert threading.current_thread() is threading.main_thread()
        sys.setprofile(self)
        try:
            return command(*arguments)
        finally:
            sys.setprofile(None)


@pytest.fixture(scope="module")
def answered(response_model, tmp_path_factory):
    """Dialogues with personas, and the responses of two seeds to them."""
    folder = tmp_path_factory.mktemp("answered")
    for seed in (1, 2):
        assert command("generate", f"model={response_model}", f"input={ESCONV}", "split=test",
                       "limit=12", f"seed={seed}", "decoding.max_new_tokens=12",
                       f"output={folder / f'{seed}.jsonl'}") == 0  # fmt: skip
    return folder


def arguments(name, request):
    if name == "convert-authors":
        folder = request.getfixturevalue("tmp_path")
        save_file(authors_weights(), folder / "theirs.safetensors")
        config = write_config(folder / "config.json")
        return ["convert-authors", folder / "theirs.safetensors", f"config={config}"]
    if name == "train":
        return ["train", *TRAIN_RESPONSE, *STEPS]
    if name == "annotate":
        model = request.getfixturevalue("extractor_model")
        return ["annotate", f"model={model}", f"input={ESCONV}", "split=test", "limit=3",
                "annotate.num_beams=2", "annotate.max_new_tokens=12", "batch_rows=4"]  # fmt: skip
    model = request.getfixturevalue("response_model")
    folder = request.getfixturevalue("answered")
    source = [f"input={ESCONV}", "split=test"]
    return {
        "eval": ["eval", *source, f"model={model}", f"predictions={folder / '1.jsonl'}",
                 "metrics.embedder=null", "batch_rows=4"],
        "tune-alpha": ["tune-alpha", *source, f"model={model}", "limit=6", "tune_alpha.trials=4",
                       "tune_alpha.objectives=[bleu_2, distinct_2]", "metrics.embedder=null",
                       "decoding.max_new_tokens=12"],
        "human-eval export": ["human-eval", "export", *source, "limit=12", "human_eval.items=6",
                              f"human_eval.systems={{a: {folder / '1.jsonl'}, "
                              f"b: {folder / '2.jsonl'}}}"],
    }[name]  # fmt: skip


NAMES = ["train", "annotate", "eval", "tune-alpha", "human-eval export", "convert-authors"]


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_command_continues_to_the_same_result(name, request, tmp_path, capsys):
    work = tmp_path / "work"  # the same in every round: outputs name their paths
    place = work / f"out{SUFFIX.get(name, '.json')}"
    key = "output_dir" if name == "train" else "output"
    call = [*arguments(name, request), f"{key}={place}"]
    work.mkdir()
    assert command(*call) == 0
    expected = contents(place)
    shutil.rmtree(work)
    work.mkdir()
    alone = CallCounter()  # the second time, as later ones: what is remembered is not computed
    assert alone.run(*call) == 0
    assert contents(place) == expected
    for share in (0.3, 0.6, 0.9):
        shutil.rmtree(work)
        work.mkdir()
        capsys.readouterr()
        assert CallCounter(int(share * alone.calls)).run(*call) == 130
        said = capsys.readouterr().err
        end = r"(nothing of \S+ was finished yet, run the same command again|again to continue)$"
        assert re.search(end, said.rstrip())
        assert said.count("pal: interrupted") == 1
        assert "Traceback" not in said
        assert command(*call) == 0
        assert contents(place) == expected
