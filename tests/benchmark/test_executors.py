"""The order of stages, retries, stops and restarts, with stages that take no time."""

import dataclasses
import signal
import subprocess
import sys
import time

import psutil
import pytest

from pal.benchmark.executors import schedule as schedules
from pal.benchmark.executors import tasks
from pal.benchmark.executors.local import LocalExecutor
from pal.benchmark.executors.progress import StageBar
from pal.benchmark.executors.resources import fill_resources
from pal.benchmark.executors.schedule import SideBySide, do_in_turn
from pal.benchmark.executors.tasks import StageContext, StageReport, perform_stage
from pal.benchmark.settings import BenchmarkSettings
from pal.cluster.settings import ClusterResources
from pal.core.errors import ConfigError, DataError, OutputError
from pal.core.job import output_lock, record_path
from tests.benchmark.stage_works import (
    attempts,
    break_down,
    die,
    linger,
    meet,
    note,
    refuse,
    task,
    write,
)
from tests.benchmark.test_stages import benchmark
from tests.jobs import command, environment


def side_by_side(folder, *runs, workers=2, executor=LocalExecutor):
    context = StageContext.of_this_process(folder)
    with SideBySide(executor(context, workers), context, {"train": 5}) as schedule:
        return schedule.run(list(runs))


def run_of(*groups, result="done"):
    yield from groups
    return result


def test_a_stage_waits_for_those_it_needs_and_shared_ones_are_done_once(tmp_path):
    first, second, third, other = (tmp_path / f"{name}.json" for name in "abcd")

    def one():
        yield [task(write, first), task(write, second)]
        yield [task(write, third, first, second)]
        return third.read_text()

    def two():
        yield [task(write, first)]
        yield [task(write, other, first)]
        return other.read_text()

    assert side_by_side(tmp_path, one(), two()) == ["a.b.c.", "a.d."]
    assert set(attempts(tmp_path).values()) == {(1, 1)}
    assert len(attempts(tmp_path)) == 4
    assert side_by_side(tmp_path, one(), two()) == ["a.b.c.", "a.d."]
    assert set(attempts(tmp_path).values()) == {(1, 1)}, "what is done is not done again"


def test_in_turn_the_order_is_that_of_the_runs(tmp_path):
    told = []
    paths = [tmp_path / f"{name}.json" for name in "abcd"]
    one = run_of([task(write, paths[0])], [task(write, paths[1]), task(write, paths[2])])
    two = run_of([task(write, paths[0]), task(write, paths[3])], result="two")
    found = do_in_turn([one, two], lambda label, done: told.append((label, done)))
    assert found == ["done", "two"]
    assert told == [("a", False), ("b", False), ("c", False), ("a", True), ("d", False)]


def test_stages_run_at_the_same_time(tmp_path):
    left, right = tmp_path / "left.json", tmp_path / "right.json"
    stages = [task(meet, left, right), task(meet, right, left)]
    assert side_by_side(tmp_path, run_of(stages)) == ["done"]


@pytest.mark.parametrize(("given", "expected"), [("5,7", {"5", "7"}), ("3", {"3"}), ("", {""})])
def test_gpus_are_dealt_to_the_processes(given, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    left, right = tmp_path / "left.json", tmp_path / "right.json"
    name = "CUDA_VISIBLE_DEVICES"
    side_by_side(tmp_path, run_of([task(note, left, right, name), task(note, right, left, name)]))
    assert {left.read_text(), right.read_text()} == expected


def test_cores_are_divided_unless_the_user_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    for given, expected in ((None, "4"), ("3", "3")):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if given:
            monkeypatch.setenv("OMP_NUM_THREADS", given)
        folder = tmp_path / expected
        folder.mkdir()
        left, right = folder / "left.json", folder / "right.json"
        name = "OMP_NUM_THREADS"
        stages = [task(note, left, right, name), task(note, right, left, name)]
        side_by_side(folder, run_of(stages))
        assert left.read_text() == right.read_text() == expected


def test_a_stage_whose_process_dies_is_tried_again_and_no_other(tmp_path, caplog):
    stages = [task(write, tmp_path / "well.json"), task(die, tmp_path / "ill.json", 2)]
    with caplog.at_level("WARNING", logger="pal"):
        assert side_by_side(tmp_path, run_of(stages)) == ["done"]
    found = {name.rpartition("-")[2]: counts for name, counts in attempts(tmp_path).items()}
    assert found == {"well": (1, 1), "ill": (3, 1)}
    assert caplog.text.count("ill: its process died (SIGKILL)") == 2


def test_a_stage_that_dies_every_time_ends_the_run(tmp_path):
    with pytest.raises(OutputError, match=r"ill: its process died 3 times \(SIGKILL\); .*ill\.log"):
        side_by_side(tmp_path, run_of([task(die, tmp_path / "ill.json", 9)]))


def test_a_failed_stage_stops_the_others_and_is_not_tried_again(tmp_path):
    stages = [task(linger, tmp_path / "long.json"), task(refuse, tmp_path / "wrong.json")]
    began = time.time()
    with pytest.raises(DataError, match=r"^wrong: .*wrong\.json: line 3 is no dialogue$"):
        side_by_side(tmp_path, run_of(stages))
    assert time.time() - began < 30
    assert set(attempts(tmp_path).values()) == {(1, 0)}
    (long,) = (tmp_path / "logs").glob("*-long.log")
    assert "KeyboardInterrupt" in long.read_text(), "interrupted as by a Ctrl-C"
    assert not psutil.pid_exists(int((tmp_path / "long.begun").read_text()))


def test_a_defect_of_a_stage_shows_its_traceback(tmp_path):
    with pytest.raises(KeyError) as caught:
        side_by_side(tmp_path, run_of([task(break_down, tmp_path / "broken.json")]))
    assert "break_down" in caught.value.__notes__[0]


def test_an_output_that_another_process_is_writing_is_waited_for(tmp_path, monkeypatch):
    output = tmp_path / "taken.json"
    context = StageContext.of_this_process(tmp_path)
    monkeypatch.setattr(tasks, "PATIENCE", 0.6)
    with output_lock(output):
        report = perform_stage(task(write, output), context)
    assert (report.outcome, type(report.error).__name__) == ("failed", "OutputInUse")

    lock = output_lock(output)
    lock.__enter__()
    monkeypatch.setattr(tasks.time, "sleep", lambda seconds: lock.__exit__(None, None, None))
    assert perform_stage(task(write, output), context).outcome == "finished"
    assert attempts(tmp_path) == {f"{tmp_path.name}-taken": (2, 1)}


def test_a_clock_that_is_set_back_changes_no_duration(tmp_path, monkeypatch):
    """Neither that of a stage, nor when the bar is shown, nor what it estimates."""
    clock = iter(range(2_000_000_000, 0, -86_400))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    stage, shown = task(write, tmp_path / "a.json"), []
    report = perform_stage(stage, StageContext.of_this_process(tmp_path))
    assert report.outcome == "finished"
    assert 0 <= report.seconds < 60
    monkeypatch.setattr(StageBar, "eta", lambda bar, running: shown.extend(running.values()))
    side_by_side(tmp_path, run_of([task(linger, tmp_path / "b.json", 2)]))
    assert shown
    assert all(0 <= seconds < 60 for seconds in shown)


def start_driver(folder):
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "tests.benchmark.stage_works", str(folder)],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def workers_of(folder):
    end = time.time() + 30
    while len(found := list(folder.glob("long*.begun"))) < 2 or not all(
        path.read_text() for path in found
    ):
        assert time.time() < end
        time.sleep(0.02)
    return [psutil.Process(int(path.read_text())) for path in found]


def gone(processes):
    _, alive = psutil.wait_procs(processes, timeout=30)
    return not alive


def test_a_ctrl_c_ends_driver_and_workers_and_the_next_run_continues(tmp_path):
    driver = start_driver(tmp_path)
    workers = workers_of(tmp_path)
    driver.send_signal(signal.SIGINT)
    assert driver.wait(30) != 0
    assert gone(workers)
    assert start_driver(tmp_path).communicate(timeout=60)[0].strip() == "driven"
    found = {name.rpartition("-")[2]: counts for name, counts in attempts(tmp_path).items()}
    assert found == {"short": (1, 1), "long1": (2, 1), "long2": (2, 1)}


def test_a_killed_driver_takes_its_workers_along_and_the_next_one_continues(tmp_path):
    driver = start_driver(tmp_path)
    workers = workers_of(tmp_path)
    driver.kill()
    driver.wait()
    again = start_driver(tmp_path)  # at once: what the dying ones still hold is waited for
    assert again.communicate(timeout=60)[0].strip() == "driven"
    assert gone(workers)
    found = {name.rpartition("-")[2]: counts for name, counts in attempts(tmp_path).items()}
    assert found["short"] == (1, 1)
    assert all(finished == 1 for _, finished in found.values())


class Elsewhere:
    """An executor whose node finishes everything where nobody sees it."""

    def __init__(self, context, workers):
        self.width, self.taken, self.stopped = workers, [], False

    def submit(self, stage):
        self.taken.append(stage)

    def wait(self, seconds):
        return [(self.taken.pop(0), StageReport("finished", host="node7"))] if self.taken else []

    def stop(self):
        self.stopped = True

    def close(self):
        pass


def test_an_output_that_never_appears_says_that_storage_must_be_shared(tmp_path, monkeypatch):
    monkeypatch.setattr(schedules, "VISIBLE_AFTER", 0.3)
    with pytest.raises(OutputError, match=r"node7 finished it, .* not seen here; output_dir must"):
        side_by_side(tmp_path, run_of([task(write, tmp_path / "a.json")]), executor=Elsewhere)


def test_a_node_that_computes_something_else_is_refused(tmp_path):
    context, stage = StageContext.of_this_process(tmp_path), task(write, tmp_path / "a.json")
    for change, message in (
        ({"token": "another"}, "does not see"),
        ({"versions": {"torch": "9.9"}}, "not 9.9 as the driver has"),
    ):
        report = perform_stage(stage, dataclasses.replace(context, **change))
        assert report.outcome == "failed"
        assert isinstance(report.error, ConfigError)
        assert message in str(report.error)
    assert not stage.output.exists()


def test_keys_go_to_ray_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    monkeypatch.setenv("HF_TOKEN", "hf")
    assert StageContext.of_this_process(tmp_path).environment == {}
    found = StageContext.of_this_process(tmp_path, ["MY_KEY"]).environment
    assert (found["MY_KEY"], found["HF_TOKEN"]) == ("secret", "hf")
    assert "PATH" not in found


def test_resources_of_a_kind_those_of_all_and_defaults(tmp_path):
    stage = task(write, tmp_path / "a.json")
    chosen = {"train": ClusterResources(gpus=0.25), "all": ClusterResources(gpus=2, memory_gb=8)}
    assert fill_resources(stage, chosen, gpus=1) == ClusterResources(gpus=0.25, cpus=4, memory_gb=8)
    assert fill_resources(stage, {}, gpus=1, cores=2) == ClusterResources(gpus=1, cpus=2)
    asked = dataclasses.replace(stage, kind="answer", on_gpu=False)
    assert fill_resources(asked, {}, gpus=1) == ClusterResources(gpus=0, cpus=2)


def test_the_bar_estimates_from_stages_of_the_same_kind(tmp_path):
    train = task(write, tmp_path / "a.json")
    losses = dataclasses.replace(train, kind="losses")
    bar = StageBar({"train": 3, "losses": 3}, width=2)
    assert bar.eta({}) is None
    bar.done(train, 100.0)
    bar.done(losses, 2.0)
    assert bar.eta({}) == pytest.approx((2 * 100 + 2 * 2) / 2)
    assert bar.eta({"train:a": 60.0}) == pytest.approx((2 * 100 + 2 * 2 - 60) / 2)
    bar.close()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["reproduce.executor=kubernetes"], "reproduce.executor"),
        (["reproduce.workers=0"], "reproduce.workers"),
        (["reproduce.resources={train: {gpus: 1.5}}"], "a part of one GPU or a whole number"),
        (["reproduce.resources={training: {gpus: 1}}"], "reproduce.resources: expected"),
        (
            [
                "reproduce.executor=slurm",
                "reproduce.slurm={cluster: local}",
                "reproduce.resources={all: {gpus: 0.5}}",
            ],
            "reproduce.resources.all.gpus=0.5: Slurm gives whole GPUs",
        ),
        (
            ["reproduce.executor=slurm", "reproduce.slurm={partition: gpu}"],
            "this machine has no sbatch; start it on a login node",
        ),
    ],
)
def test_wrong_executors_and_resources_are_refused(more, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pal.benchmark.executors.slurm.shutil.which", lambda name: None)
    assert command(*benchmark(tmp_path / "run", *more)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("executor", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_package_is_told_before_any_work(
    executor, package, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("pal.benchmark.executors.find_spec", lambda name: None)
    assert command(*benchmark(tmp_path / "run", f"reproduce.executor={executor}")) == 2
    error = capsys.readouterr().err
    assert f"needs the package {package}; pip install 'pal-esc[{executor}]'" in error
    assert not (tmp_path / "run").exists()


def test_a_cluster_that_does_not_answer_is_one_line(tmp_path, capsys, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    began = time.time()
    assert command(*benchmark(tmp_path / "run", "reproduce.executor=ray")) == 2
    assert time.time() - began < 60
    error = capsys.readouterr().err
    assert "no cluster answers at RAY_ADDRESS=127.0.0.1:1" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_executors_are_no_part_of_any_result():
    from pal.commands import load_settings
    from pal.core.job import decisive

    plain = load_settings("reproduce", "reproduce_sample")
    other = load_settings(
        "reproduce", "reproduce_sample",
        ["reproduce.executor=ray", "reproduce.workers=7", "reproduce.slurm={partition: gpu}",
         "reproduce.resources={train: {gpus: 0.5}}"],
    )  # fmt: skip
    assert decisive(plain) == decisive(other)
    assert BenchmarkSettings().executor == "local"


@pytest.mark.parametrize("contents", ['{"identity": "abc', "", "[1]", '{"identity": "other"}'])
def test_a_stage_whose_record_is_damaged_is_not_done(tmp_path, contents):
    output = tmp_path / "out.jsonl"
    task = tasks.StageTask("generate", "x", "m:f", (), output, identity="abc")
    output.write_text("{}\n")
    assert not task.is_done()
    record_path(output).write_text('{"identity": "abc"}')
    assert task.is_done()
    record_path(output).write_text(contents)
    assert not task.is_done()
