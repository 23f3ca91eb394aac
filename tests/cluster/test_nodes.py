"""Answers on a Ray cluster of several nodes, one of which is killed."""

import subprocess
import sys

import pytest

from tests.jobs import environment

pytest.importorskip("ray.cluster_utils")


@pytest.mark.cluster
def test_a_node_is_killed_and_every_result_comes_once():
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster.node_driver"], env=environment(),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = " ".join(str(number) for number in range(100, 130))
    assert f"results: {expected}\n" in done.stdout
