"""Stages as tasks of a Ray cluster, each with resources of its own.

What Ray users expect holds: RAY_ADDRESS names the cluster, else one of this machine is found or
started. A task that dies with its process or node is reported as dead, and the schedule tries it
again; Ray itself retries nothing, so that a stage is counted once.
"""

import logging
import os
import socket
import time
from typing import Any

from pal.benchmark.executors.resources import fill_resources
from pal.benchmark.executors.tasks import StageContext, StageReport, StageTask, perform_stage
from pal.benchmark.executors.worker import GRACE
from pal.benchmark.settings import BenchmarkSettings
from pal.core.errors import ConfigError, first_line

logger = logging.getLogger(__name__)


def join_cluster() -> bool:
    """Join the cluster of RAY_ADDRESS, or one of this machine; return whether this call did it.

    Raises:
        ConfigError: no cluster answers.
    """
    import ray

    if ray.is_initialized():
        return False
    where = os.environ.get("RAY_ADDRESS", "")
    remedy = "start one with `ray start --head`, or correct or unset RAY_ADDRESS"
    host, _, port = where.rpartition("//")[2].rpartition(":")
    if host and port.isdigit():  # the library tries for minutes
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"reproduce.executor=ray: no cluster answers at RAY_ADDRESS={where} "
                f"({first_line(error)}); {remedy}"
            ) from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:  # whatever the library finds wrong
        raise ConfigError(
            f"reproduce.executor=ray: the cluster cannot be joined ({first_line(error)}); {remedy}"
        ) from error
    return True


class RayExecutor:
    """Performs stages on the nodes of a Ray cluster.

    Args:
        context: what the stages need of this process.
        chosen: the benchmark's settings.
        ours: whether the cluster was joined for this, and is left in the end.
    """

    def __init__(self, context: StageContext, chosen: BenchmarkSettings, *, ours: bool):
        import ray

        self.context, self.chosen, self.width = context, chosen, chosen.workers
        self.ray: Any = ray
        self.ours = ours
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self.gpus = int(any(node.get("GPU", 0) >= 1 for node in nodes))
        self.cores = int(max((node.get("CPU", 0) for node in nodes), default=1)) or 1
        self.nodes = nodes
        self.warned: set[str] = set()
        self.perform = ray.remote(perform_stage)
        self.tasks: dict[Any, StageTask] = {}

    def submit(self, stage: StageTask) -> None:
        """Begin a stage on whichever node has room."""
        asked = fill_resources(stage, self.chosen.resources, gpus=self.gpus, cores=self.cores)
        memory = None if asked.memory_gb is None else int(asked.memory_gb * 1e9)
        needs = {"GPU": asked.gpus or 0, "CPU": asked.cpus or 1, "memory": memory or 0}
        fits = any(all(node.get(k, 0) >= v for k, v in needs.items()) for node in self.nodes)
        if not fits and stage.kind not in self.warned:
            self.warned.add(stage.kind)
            logger.warning(
                "no node of the cluster has %g GPUs, %d CPU cores%s together, which %s asks for "
                "(reproduce.resources.%s): it waits until one joins", needs["GPU"], needs["CPU"],
                f" and {asked.memory_gb:g} GB" if memory else "", stage.label, stage.kind,
            )  # fmt: skip
        task = self.perform.options(
            name=stage.label, num_cpus=needs["CPU"], num_gpus=needs["GPU"], memory=memory,
            max_retries=0, scheduling_strategy="SPREAD",
        ).remote(stage, self.context)  # fmt: skip
        self.tasks[task] = stage

    def wait(self, seconds: float) -> list[tuple[StageTask, StageReport]]:
        """Return the stages that ended."""
        if not self.tasks:
            time.sleep(seconds)
            return []
        ended, _ = self.ray.wait(list(self.tasks), num_returns=1, timeout=seconds)
        return [(self.tasks.pop(task), self._report(task)) for task in ended]

    def _report(self, task: Any) -> StageReport:
        try:
            report: StageReport = self.ray.get(task)
            return report
        except self.ray.exceptions.RayTaskError as error:
            reason = str(error).strip().splitlines()[-1]
            problem = ConfigError(
                f"a node of the cluster cannot perform stages ({reason}); install pal-esc on all "
                "nodes, in the versions of the driver"
            )
            return StageReport("failed", error=problem, trace=str(error))
        except self.ray.exceptions.RayError as error:
            return StageReport("died", trace=f"{type(error).__name__}: {first_line(error)}")

    def stop(self) -> None:
        """Interrupt all tasks as a Ctrl-C does; kill those that do not end."""
        for force, patience in ((False, GRACE), (True, 5.0)):
            for task in self.tasks:
                self.ray.cancel(task, force=force)
            if not self.tasks:
                break
            many = len(self.tasks)
            ended, _ = self.ray.wait(list(self.tasks), num_returns=many, timeout=patience)
            for task in ended:
                del self.tasks[task]

    def close(self) -> None:
        """Leave the cluster, if this object joined it."""
        if self.ours:
            self.ray.shutdown()
