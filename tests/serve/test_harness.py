"""A harness that people use asks the server as it asks any other."""

import os
import subprocess
import sys

import pytest

import pal
from tests.serve.live import served

TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate


@task
def supporter():
    told = ["I lost my job.", "My dog died.", "I can't sleep.", "He left me.", "I failed."]
    samples = [Sample(input=text, target="e") for text in told]
    return Task(dataset=samples, solver=generate(), scorer=includes())
"""


def test_inspect_ai_runs_samples(response_model, tmp_path):
    pytest.importorskip("inspect_ai", reason="inspect_ai is not installed")
    (tmp_path / "supporter.py").write_text(TASK)
    with served(pal.load(str(response_model))) as (address, server):
        environment = {
            **os.environ, "PAL_BASE_URL": f"{address}/v1", "PAL_API_KEY": "none",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "inspect_ai", "eval", "supporter.py", "--model",
             "openai-api/pal/tiny", "--display", "plain", "--log-dir", "logs"],
            cwd=tmp_path, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        answered = server.numbers.requests.labels("200")._value.get()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Samples:   5/  5" in done.stdout
    assert answered == 5
