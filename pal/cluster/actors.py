"""Tasks for processes of a Ray cluster that load a model once each, through Ray Data.

Every task is a block of a dataset of its own, so its result comes back as soon as it is there. A
process that dies, with its node or alone, is started again by Ray with the task it had. A task
whose process died three times is not tried again. Where Ray itself gives a dataset up, what is left
is given to it as a new one, until it fails three times without any result.
"""

import contextlib
import logging
import os
import pickle
import socket
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, cast

from pal.cluster.joining import join_cluster, nodes_alive, require_ray, warn_of_waiting
from pal.cluster.nodes import NodeContext, portable_error
from pal.cluster.settings import ClusterResources
from pal.core.errors import OutputError, PalError, first_line

logger = logging.getLogger(__name__)

# How often a task, or the loading of a model, is begun before its deaths count as its own.
ATTEMPTS = 3

Perform = Callable[[Any], Any]


class ActorWork(Protocol):
    """What the processes do; it travels to them, so it holds plain values."""

    def load(self) -> Perform:
        """Load the model and return the function that performs a task with it."""
        ...


class ActorPool:
    """Processes that answer, and what they ask the cluster for.

    The cluster is joined when the first task comes, and left when this process ends: in a second
    session of one process, what is left of the first takes the actors of the second for its own.

    Args:
        asked: the setting that asks for Ray, as ``key=value``, for messages.
        section: section of the settings ``workers`` and ``resources``, for messages.
        workers: number of processes; None for as many as the cluster has room for.
        resources: of one process; by default one core.
        gpus: GPUs of one process where the cluster has any and ``resources`` does not say.

    Example:
        >>> pool = ActorPool("generate.executor=ray", "generate", 2, ClusterResources())
        >>> dict(pool.run(work, {"0": "a task"}, NodeContext.of_driver()))
        {'0': 'its result'}
    """

    def __init__(
        self,
        asked: str,
        section: str,
        workers: int | None,
        resources: ClusterResources,
        *,
        gpus: int = 1,
    ):
        self.asked, self.section = asked, section
        self.workers, self.resources, self.gpus = workers, resources, gpus
        require_ray(asked)

    def run(
        self, work: ActorWork, tasks: Mapping[str, Any], context: NodeContext
    ) -> Iterator[tuple[str, Any]]:
        """Perform all tasks and yield each key with its result, in the order they end in.

        Args:
            work: what the processes do.
            tasks: what is to be done, by key; it is pickled.
            context: what the processes need of this one.

        Raises:
            ConfigError: no cluster answers, or a node cannot compute the same as this one.
            OutputError: a process died three times at one task, or the cluster is gone.
        """
        if not tasks:
            return
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import ray
        import ray.data

        join_cluster(self.asked)
        left, failures = dict(tasks), 0
        with _quietly(ray.data.DataContext.get_current()):
            while left:
                try:
                    for row in self._rows(work, left, context):
                        if row["failed"]:
                            raise pickle.loads(row["result"])
                        if row["key"] in left:
                            del left[row["key"]]
                            failures = 0
                            yield row["key"], pickle.loads(row["result"])
                    reason = "results were lost"
                except ray.exceptions.RayError as error:
                    reason = f"{type(error).__name__}: {first_line(error)}"
                failures += 1
                if left and failures == ATTEMPTS:
                    raise OutputError(f"{self.asked}: the cluster failed ({reason}); {AGAIN}")
                if left:
                    logger.warning(
                        "%s: the cluster failed (%s); what is left is tried again",
                        self.asked, reason,
                    )  # fmt: skip

    def _rows(
        self, work: ActorWork, tasks: Mapping[str, Any], context: NodeContext
    ) -> Iterator[dict[str, Any]]:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = ray.get_runtime_context().get_node_id()
        attempts = ray.remote(_Attempts).options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False)
        ).remote()  # fmt: skip
        asked = self._needs(nodes := nodes_alive())
        warn_of_waiting(nodes, asked, "a process that answers", f"{self.section}.resources")
        rows = [{"key": key, "task": pickle.dumps(task)} for key, task in tasks.items()]
        most = min(self.workers or room_for(nodes, asked), len(rows))
        results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            cast(Any, Actor), fn_constructor_args=(work, context, attempts),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=most),
            num_cpus=asked["CPU"], num_gpus=asked["GPU"], memory=asked["memory"] or None,
        )  # fmt: skip
        for block in results.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield from cast(Any, block).to_pylist()

    def _needs(self, nodes: list[dict[str, float]]) -> dict[str, Any]:
        chosen, some = self.resources, any(node.get("GPU", 0) >= 1 for node in nodes)
        return {
            "GPU": self.gpus * int(some) if chosen.gpus is None else chosen.gpus,
            "CPU": chosen.cpus or 1,
            "memory": int((chosen.memory_gb or 0) * 1e9),
        }


AGAIN = "finished work is kept, run the same command again to continue"

# The library's messages on standard error, for the driver; set before it is first imported.
QUIET = {"RAY_BACKEND_LOG_LEVEL": "fatal"}


def room_for(nodes: list[dict[str, float]], needs: Mapping[str, float]) -> int:
    """Return how many processes the nodes have room for, at least one.

    Example:
        >>> room_for([{"CPU": 4, "GPU": 1}, {"CPU": 8}], {"CPU": 1, "GPU": 0.5, "memory": 0})
        2
    """
    asked = {name: value for name, value in needs.items() if value}
    return max(1, sum(int(min(node.get(k, 0) // v for k, v in asked.items())) for node in nodes))


@contextlib.contextmanager
def _quietly(settings: Any) -> Iterator[None]:
    """Show none of the library's bars and messages; the journal's bar shows the progress."""
    library, bars = logging.getLogger("ray.data"), settings.enable_progress_bars
    level = library.level
    library.setLevel(logging.CRITICAL)
    settings.enable_progress_bars = False
    try:
        yield
    finally:
        library.setLevel(level)
        settings.enable_progress_bars = bars


class _Attempts:
    """Counts how often each task was begun, in a process that outlives those that die."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def begin(self, name: str) -> int:
        """Count an attempt and return how many there were."""
        self.counts[name] = self.counts.get(name, 0) + 1
        return self.counts[name]

    def end(self, name: str) -> None:
        """Forget a task that is done."""
        self.counts.pop(name, None)


class Actor:
    """One process that answers: it becomes one like the driver's, and loads the model.

    Whatever goes wrong comes back as a result and is raised by the driver; an error of the
    constructor would be tried again by the library, and be quoted within a traceback of it.

    Args:
        work: what it does.
        context: what it needs of the driver.
        attempts: handle of :class:`_Attempts`.
    """

    def __init__(self, work: ActorWork, context: NodeContext, attempts: Any):
        import ray

        self.attempts, self.problem = attempts, b""
        self.perform: Perform
        own = f"the process {ray.get_runtime_context().get_actor_id()}"
        try:
            self._begin(own, "while it loaded the model")
            context.enter()
            self.perform = work.load()
        except Exception as error:
            self.problem = _pickled(error)
        self._end(own)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Perform the task of a row."""
        key, problem, result = row["key"], self.problem, b""
        if not problem:
            try:
                self._begin(f"the task {key}", "at the same task")
                result = pickle.dumps(self.perform(pickle.loads(row["task"])))
            except Exception as error:
                problem = _pickled(error)
            self._end(f"the task {key}")
        return {"key": key, "failed": bool(problem), "result": problem or result}

    def _begin(self, name: str, when: str) -> None:
        import ray

        if ray.get(self.attempts.begin.remote(name)) > ATTEMPTS:
            raise OutputError(
                f"a process of the cluster died {ATTEMPTS} times {when}, perhaps for want of "
                f"memory; {AGAIN}"
            )

    def _end(self, name: str) -> None:
        self.attempts.end.remote(name)


def _pickled(error: Exception) -> bytes:
    """Return an error for the driver; a defect brings its traceback."""
    error = portable_error(error)
    if not isinstance(error, PalError):
        error.add_note(f"on {socket.gethostname()}:\n{traceback.format_exc()}")
    return pickle.dumps(error)
