"""A benchmark on a Ray cluster of processes of this machine, nodes and drivers being killed."""

import os
import re
import signal
import time

import psutil
import pytest

from pal.benchmark.executors import make_schedule
from pal.benchmark.executors.tasks import LOGS
from pal.benchmark.settings import BenchmarkSettings
from pal.core.errors import DataError
from tests.benchmark.stage_works import attempts, linger, note, refuse, task
from tests.benchmark.test_executors import run_of
from tests.benchmark.test_stages import benchmark, same_results
from tests.jobs import ROOT, command, start

cluster_utils = pytest.importorskip("ray.cluster_utils")

FOUR = "reproduce.systems=[joint, no_weights, pal_alpha_0, pal]"  # with two seeds each
STORE = 80_000_000  # bytes; what the library takes itself is a third of the memory


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local") / "run"
    assert command(*benchmark(folder, FOUR)) == 0
    return folder


@pytest.fixture
def cluster(monkeypatch):
    """A head that computes nothing, and two nodes with one core each."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False}
    found = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    found.two = [found.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]
    yield found
    found.shutdown()


def driver(cluster, folder):
    more = (FOUR, "reproduce.executor=ray", "reproduce.resources={train: {cpus: 1}}")
    return start(*benchmark(folder, *more), RAY_ADDRESS=cluster.address)


def until(process, folder, pattern, count):
    """Wait until so many files of a pattern are there."""
    end = time.time() + 240
    while len(list(folder.glob(pattern))) < count:
        assert process.poll() is None, process.stderr.read()
        assert time.time() < end
        time.sleep(0.02)


def stop_a_stage(process, folder):
    """Halt a process that is in the midst of a training, and return it."""
    until(process, folder, "models/*/run.json", 3)
    while True:
        assert process.poll() is None, "all stages ended before one could be stopped"
        for log in (folder / LOGS).glob("models-*.log"):
            worker = int(re.findall(r"process (\d+)$", log.read_text(), re.M)[-1])
            model = folder / "models" / log.stem.removeprefix("models-")
            if (model / "run.json").exists() or not psutil.pid_exists(worker):
                continue
            os.kill(worker, signal.SIGSTOP)
            while psutil.Process(worker).status() != psutil.STATUS_STOPPED:
                time.sleep(0.001)
            if not (model / "run.json").exists():
                return psutil.Process(worker)
            os.kill(worker, signal.SIGCONT)
        time.sleep(0.01)


def begun_twice(folder):
    counts = attempts(folder)
    assert all(finished == 1 for _, finished in counts.values()), counts
    return sum(began - 1 for began, _ in counts.values())


def test_a_node_is_killed_in_the_middle_and_the_table_is_the_same_bytes(local, cluster, tmp_path):
    folder = tmp_path / "run"
    process = driver(cluster, folder)
    worker = stop_a_stage(process, folder)
    raylets = {parent.pid for parent in worker.parents()}
    (node,) = [
        node for node in cluster.two
        if raylets & {process.pid for _, process in node.live_processes()}
    ]  # fmt: skip
    cluster.remove_node(node, allow_graceful=False)
    worker.kill()  # what is halted cannot notice that its node is gone
    _, messages = process.communicate(timeout=300)
    assert process.returncode == 0, messages
    same_results(folder, local)
    assert begun_twice(folder) == 1, "none but the one that died with its node"
    assert messages.count("its process died") == 1, messages


@pytest.mark.cluster
def test_a_driver_is_killed_and_the_next_one_continues(local, cluster, tmp_path):
    folder = tmp_path / "run"
    process = driver(cluster, folder)
    until(process, folder, "models/*/run.json", 3)
    process.kill()
    process.wait()
    process = driver(cluster, folder)
    _, messages = process.communicate(timeout=300)
    assert process.returncode == 0, messages
    same_results(folder, local)
    assert begun_twice(folder) <= 2, "none but the two that died with their driver"


@pytest.mark.cluster
def test_two_stages_share_a_gpu(cluster, tmp_path, monkeypatch):
    """The GPU is Ray's word alone; what counts is that both stages get the same one at once."""
    cluster.add_node(num_cpus=2, num_gpus=1, object_store_memory=STORE)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    left, right = tmp_path / "left.json", tmp_path / "right.json"
    name = "CUDA_VISIBLE_DEVICES"
    stages = [task(note, left, right, name), task(note, right, left, name)]
    half = {"train": {"gpus": 0.5, "cpus": 1}}
    chosen = BenchmarkSettings(executor="ray", resources=half)
    with make_schedule(chosen, tmp_path, {"train": 2}) as schedule:
        assert schedule.run([run_of(stages)]) == ["done"]
    assert left.read_text() == right.read_text() == "0"


@pytest.mark.cluster
def test_a_mistake_on_a_node_is_one_line_and_stops_the_others(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    long, wrong = task(linger, tmp_path / "long.json"), task(refuse, tmp_path / "wrong.json")
    chosen = BenchmarkSettings(executor="ray", resources={"all": {"cpus": 1}})
    with (
        make_schedule(chosen, tmp_path, {"train": 2}) as schedule,
        pytest.raises(DataError, match=r"^wrong: .*line 3 is no dialogue$"),
    ):
        schedule.run([run_of([long, wrong])])
    assert set(attempts(tmp_path).values()) == {(1, 0)}
