"""Stages as Slurm jobs: through commands that play Slurm, submitit's own executor, a real one."""

import os
import shutil
import signal
import subprocess
import time

import pytest

from pal.benchmark.executors.schedule import SideBySide
from pal.benchmark.executors.tasks import StageContext
from pal.benchmark.settings import BenchmarkSettings
from pal.core.errors import ConfigError
from tests.benchmark import fake_slurm
from tests.benchmark.stage_works import attempts, die, linger, task, write
from tests.benchmark.test_executors import run_of
from tests.benchmark.test_stages import benchmark, same_results
from tests.jobs import ROOT, command

pytest.importorskip("submitit")

# The smallest benchmark: training, responses, losses, scores.
SMALL = ["reproduce.systems=[joint]", "reproduce.seeds=[13]", "reproduce.extractor=null"]


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    from pal.benchmark.executors import slurm

    monkeypatch.setattr(slurm, "ASK_EVERY", 0.2)
    monkeypatch.setattr(slurm, "GONE_AFTER", 1.0)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = tmp_path / "slurm"
    folder.mkdir()
    return fake_slurm.install(folder, monkeypatch)


def executor(folder, **options):
    from pal.benchmark.executors.slurm import SlurmExecutor

    context = StageContext.of_this_process(folder)
    return SlurmExecutor(context, BenchmarkSettings(executor="slurm", **options)), context


def schedule(folder, **options):
    one, context = executor(folder, **options)
    return SideBySide(one, context, {"train": 2})


def calls(slurm):
    return (slurm / "calls").read_text().splitlines()


def test_jobs_get_their_resources_and_their_outputs_are_found(slurm, tmp_path):
    stages = [task(write, tmp_path / "a.json"), task(write, tmp_path / "b.json")]
    chosen = {
        "resources": {"train": {"gpus": 2, "cpus": 3, "memory_gb": 16}},
        "slurm": {"partition": "gpu", "timeout_min": 90},
    }
    with schedule(tmp_path, **chosen) as one:
        assert one.run([run_of(stages)]) == ["done"]
    assert len(calls(slurm)) == 2
    (script,) = [path.read_text() for path in (tmp_path / "logs/slurm").glob("101_*.sh")]
    for line in ("--partition=gpu", "--time=90", "--cpus-per-task=3", "--gpus-per-node=2",
                 "--mem=16GB"):  # fmt: skip
        assert f"#SBATCH {line}\n" in script, line
    assert set(attempts(tmp_path).values()) == {(1, 1)}
    assert not list((tmp_path / "logs/slurm").glob("*.json"))


def test_a_driver_that_comes_back_finds_its_jobs(slurm, tmp_path):
    stage = task(linger, tmp_path / "long.json", 3)
    first, _ = executor(tmp_path)
    first.submit(stage)
    while not (tmp_path / "long.begun").exists():
        time.sleep(0.05)
    del first  # the driver died; nothing told the job
    with schedule(tmp_path) as second:
        assert second.run([run_of([stage])]) == ["done"]
    assert len(calls(slurm)) == 1
    assert set(attempts(tmp_path).values()) == {(1, 1)}


def test_a_job_that_leaves_no_result_is_submitted_again(slurm, tmp_path):
    stages = [task(die, tmp_path / "ill.json", 1), task(write, tmp_path / "well.json")]
    with schedule(tmp_path) as one:
        assert one.run([run_of(stages)]) == ["done"]
    found = {name.rpartition("-")[2]: counts for name, counts in attempts(tmp_path).items()}
    assert found == {"ill": (2, 1), "well": (1, 1)}
    assert len(calls(slurm)) == 3


def test_a_job_that_died_while_no_driver_was_there_is_submitted_again(slurm, tmp_path):
    stage = task(linger, tmp_path / "long.json", 1)
    first, _ = executor(tmp_path)
    first.submit(stage)
    while not (tmp_path / "long.begun").exists():
        time.sleep(0.05)
    os.killpg(int((slurm / "job101").read_text()), signal.SIGKILL)
    with schedule(tmp_path) as second:
        assert second.run([run_of([stage])]) == ["done"]
    assert len(calls(slurm)) == 2


def test_what_is_stopped_is_cancelled(slurm, tmp_path):
    one, _ = executor(tmp_path)
    one.submit(task(linger, tmp_path / "long.json"))
    while not (tmp_path / "long.begun").exists():
        time.sleep(0.05)
    one.stop()
    listed = subprocess.run(["squeue"], capture_output=True, text=True, check=True).stdout
    assert listed == ""
    assert not list((tmp_path / "logs/slurm").glob("*.json"))


def test_what_slurm_refuses_is_one_line(slurm, tmp_path):
    (slurm / "refuse").touch()
    one, _ = executor(tmp_path)
    with pytest.raises(ConfigError, match=r"^a: Slurm refuses the job: .*invalid partition"):
        one.submit(task(write, tmp_path / "a.json"))
    with pytest.raises(ConfigError, match=r"reproduce\.slurm: .*partitoin"):
        executor(tmp_path, slurm={"partitoin": "gpu"})
    with pytest.raises(ConfigError, match=r"reproduce\.slurm: .*kubernetes"):
        executor(tmp_path, slurm={"cluster": "kubernetes"})


def test_in_process_for_finding_mistakes(tmp_path):
    with schedule(tmp_path, slurm={"cluster": "debug"}) as one:
        assert one.run([run_of([task(write, tmp_path / "a.json")])]) == ["done"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "run"
    assert command(*benchmark(folder, *SMALL)) == 0
    return folder


@pytest.mark.cluster
def test_through_submitit_a_benchmark_is_the_same_bytes(small, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    more = ["reproduce.executor=slurm", "reproduce.slurm={cluster: local}"]
    folder = tmp_path / "run"
    assert command(*benchmark(folder, *SMALL, *more)) == 0
    same_results(folder, small, patterns=WITHOUT_PERSONAS)
    assert set(attempts(folder).values()) == {(1, 1)}


WITHOUT_PERSONAS = ("responses/*.jsonl", "losses/*-????????????.json", "models/*/model.safetensors",
                    "cases.json", "table.md")  # fmt: skip


@pytest.mark.cluster
def test_on_a_slurm_of_this_machine_a_benchmark_is_the_same_bytes(small, tmp_path, monkeypatch):
    """Whatever ``sbatch`` here submits to; one node without GPUs is enough."""
    if shutil.which("sbatch") is None:
        pytest.skip("no sbatch on this machine")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    more = ["reproduce.executor=slurm", "reproduce.resources={all: {gpus: 0, cpus: 1}}"]
    folder = tmp_path / "run"
    assert command(*benchmark(folder, *SMALL, *more)) == 0
    same_results(folder, small, patterns=WITHOUT_PERSONAS)
    assert set(attempts(folder).values()) == {(1, 1)}
