"""Stages as tasks of a Ray cluster, each with resources of its own.

What Ray users expect holds: RAY_ADDRESS names the cluster, else one of this machine is found or
started. A task that dies with its process or node is reported as dead, and the schedule tries it
again; Ray itself retries nothing, so that a stage is counted once.
"""

import time
from typing import Any

from pal.benchmark.executors.resources import fill_resources
from pal.benchmark.executors.tasks import StageContext, StageReport, StageTask, perform_stage
from pal.benchmark.executors.worker import GRACE
from pal.benchmark.settings import BenchmarkSettings
from pal.cluster.joining import nodes_alive, warn_of_waiting
from pal.core.errors import ConfigError, first_line


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
        nodes = nodes_alive()
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
        if stage.kind not in self.warned:
            key = f"reproduce.resources.{stage.kind}"
            if warn_of_waiting(self.nodes, needs, stage.label, key):
                self.warned.add(stage.kind)
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
