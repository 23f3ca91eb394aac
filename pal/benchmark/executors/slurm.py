"""Stages as Slurm jobs, through submitit.

The number of each job lies in the folder. When the driver dies, the jobs go on, and a driver that
is started again finds them instead of submitting them a second time. A job that Slurm preempts, or
that meets its time limit, is queued again and continues.
"""

import dataclasses
import shutil
import subprocess
import time
from typing import Any

import psutil

from pal.benchmark.executors.resources import fill_resources
from pal.benchmark.executors.tasks import (
    LOGS,
    StageContext,
    StageReport,
    StageTask,
    perform_stage,
)
from pal.benchmark.executors.worker import GRACE
from pal.benchmark.settings import BenchmarkSettings
from pal.core.errors import ConfigError, first_line
from pal.core.files import read_json, write_json

ASK_EVERY = 5.0  # seconds from one look at the queue to the next
GONE_AFTER = 20.0  # seconds that a job may be in neither queue nor folder
DAY = 24 * 60  # minutes: the time limit of a job, unless reproduce.slurm.timeout_min says another


class SlurmStage:
    """What a job calls: a stage that may be queued again at any moment."""

    def __call__(self, stage: StageTask, context: StageContext) -> StageReport:
        """Perform the stage."""
        return perform_stage(stage, context)

    def checkpoint(self, stage: StageTask, context: StageContext) -> Any:
        """Return what is queued when Slurm takes the node away; the stage continues by itself."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, stage, context)


def check_slurm(chosen: BenchmarkSettings) -> None:
    """Refuse a machine without Slurm, and parts of GPUs.

    Raises:
        ConfigError: one is.
    """
    if chosen.slurm.get("cluster", "slurm") == "slurm" and shutil.which("sbatch") is None:
        raise ConfigError(
            "reproduce.executor=slurm: this machine has no sbatch; start it on a login node of "
            "the cluster (reproduce.slurm={cluster: local} tries it here without Slurm)"
        )
    for kind, asked in chosen.resources.items():
        if asked.gpus is not None and asked.gpus % 1:
            raise ConfigError(
                f"reproduce.resources.{kind}.gpus={asked.gpus:g}: Slurm gives whole GPUs; "
                "reproduce.executor=ray shares one among several stages"
            )


class SlurmExecutor:
    """Performs stages as Slurm jobs.

    Args:
        context: what the stages need of this process.
        chosen: the benchmark's settings.

    Raises:
        ConfigError: an option that submitit or Slurm does not have.
    """

    def __init__(self, context: StageContext, chosen: BenchmarkSettings):
        import submitit

        self.context, self.chosen, self.width = context, chosen, chosen.workers
        options = dict(chosen.slurm)
        self.cluster = str(options.pop("cluster", "slurm"))
        self.folder = context.root / LOGS / "slurm"
        shared = submitit.AutoExecutor._valid_parameters()
        self.options = {
            key if key in shared or key.startswith("slurm_") else f"slurm_{key}": value
            for key, value in options.items()
        }
        try:
            self.executor = submitit.AutoExecutor(folder=self.folder, cluster=self.cluster)
            self.executor.update_parameters(**{"timeout_min": DAY, **self.options})
        except Exception as error:  # the library checks names and types in several ways
            raise ConfigError(f"reproduce.slurm: {first_line(error)}") from error
        self.gpus = int(self.cluster == "slurm")
        self.jobs: dict[str, tuple[StageTask, Any]] = {}
        self._asked, self._queued = float("-inf"), frozenset[str]()
        self._missing: dict[str, float] = {}

    def submit(self, stage: StageTask) -> None:
        """Submit a stage, or find the job that an earlier driver submitted for it.

        Raises:
            ConfigError: Slurm refuses the job.
        """
        job = self._find(stage)
        if job is None:
            asked = fill_resources(stage, self.chosen.resources, gpus=self.gpus)
            needs: dict[str, Any] = {"name": stage.name, "cpus_per_task": asked.cpus}
            if asked.gpus:
                needs["gpus_per_node"] = int(asked.gpus)
            if asked.memory_gb is not None:
                needs["mem_gb"] = asked.memory_gb
            self.executor.update_parameters(**needs, **self.options)
            context = self.context
            if self.cluster != "debug":
                threads = {"OMP_NUM_THREADS": str(asked.cpus)}
                context = dataclasses.replace(context, environment=threads)
            try:
                job = self.executor.submit(SlurmStage(), stage, context)
            except Exception as error:  # sbatch says what it refuses
                raise ConfigError(
                    f"{stage.label}: Slurm refuses the job: {first_line(error)} "
                    "(reproduce.slurm, reproduce.resources)"
                ) from error
            write_json(self._record(stage), {"cluster": self.cluster, "job": job.job_id})
        self.jobs[stage.name] = stage, job

    def _record(self, stage: StageTask) -> Any:
        return self.folder / f"{stage.name}.json"

    def _find(self, stage: StageTask) -> Any:
        """Return the unfinished job of an earlier driver, or None."""
        path = self._record(stage)
        record = read_json(path) if path.exists() else {}
        if record.get("cluster") != self.cluster or self.cluster == "debug":
            return None
        job = self.executor.job_class(self.folder, record["job"])
        return None if self._ended(job) else job

    def _ended(self, job: Any) -> bool:
        """Return whether a job has a result, or is gone without one."""
        if self.cluster == "debug" or job.paths.result_pickle.exists():
            return True
        if self.cluster == "slurm":
            return self._is_gone(job.job_id)
        if job._process is None:  # of an earlier driver
            return not _is_submitit(int(job.job_id))
        return bool(job.done())

    def _is_gone(self, number: str) -> bool:
        """Return whether a job left the queue, and its result had time to be seen here.

        The queue is asked, since the accounts that submitit reads are kept on few clusters.
        """
        if time.monotonic() - self._asked > ASK_EVERY:
            self._asked = time.monotonic()
            listing = subprocess.run(
                ["squeue", "--me", "--noheader", "--format=%i"],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if listing.returncode:  # the controller does not answer at the moment
                self._missing.clear()
                return False
            self._queued = frozenset(listing.stdout.split())
        if number in self._queued:
            self._missing.pop(number, None)
            return False
        since = self._missing.setdefault(number, time.monotonic())
        return time.monotonic() - since > GONE_AFTER

    def wait(self, seconds: float) -> list[tuple[StageTask, StageReport]]:
        """Return the stages whose jobs ended."""
        ended = [name for name, (_, job) in self.jobs.items() if self._ended(job)]
        if not ended:
            time.sleep(seconds)
        found = []
        for name in ended:
            stage, job = self.jobs.pop(name)
            found.append((stage, self._report(job)))
            self._record(stage).unlink(missing_ok=True)
        return found

    def _report(self, job: Any) -> StageReport:
        from submitit.core.utils import FailedJobError

        if self.cluster != "debug" and not job.paths.result_pickle.exists():
            return StageReport("died", trace=f"job {job.job_id} left no result")
        try:
            report: StageReport = job.result()
            return report
        except FailedJobError as error:
            problem = ConfigError(
                f"job {job.job_id} could not perform the stage; {job.paths.stderr} says why; "
                "install pal-esc on all nodes, in the versions of the driver"
            )
            return StageReport("failed", error=problem, trace=str(error))

    def stop(self) -> None:
        """Cancel all jobs, and wait until they ended."""
        for _, job in self.jobs.values():
            job.cancel(check=False)
        until = time.monotonic() + GRACE
        while time.monotonic() < until and not all(
            self._ended(job) for _, job in self.jobs.values()
        ):
            time.sleep(0.5)
        for stage, _ in self.jobs.values():
            self._record(stage).unlink(missing_ok=True)
        self.jobs = {}

    def close(self) -> None:
        """Nothing is held."""


def _is_submitit(process: int) -> bool:
    try:
        return any("submitit" in part for part in psutil.Process(process).cmdline())
    except psutil.Error:
        return False
