"""Where the stages of a benchmark run: one after another here, side by side, or on a cluster.

``tasks`` says what a stage is and how any process performs it; ``schedule`` which comes next;
``local``, ``ray_cluster`` and ``slurm`` are three places. None of them can change a result: a stage
is a function of its settings and inputs, and its output bears the identity of both.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from pal.benchmark.executors.schedule import SideBySide, StageExecutor
from pal.benchmark.executors.tasks import StageContext
from pal.benchmark.settings import BenchmarkSettings
from pal.core.errors import ConfigError

PACKAGES = {"ray": "ray", "slurm": "submitit"}


def stages_in_turn(chosen: BenchmarkSettings) -> bool:
    """Return whether stages run one after another in this process."""
    return chosen.executor == "local" and chosen.workers in (None, 1)


def check_executor(chosen: BenchmarkSettings) -> None:
    """Refuse an executor whose package is missing, and settings that another one reads.

    Raises:
        ConfigError: one is.
    """
    package = PACKAGES.get(chosen.executor)
    if package is not None and find_spec(package) is None:
        raise ConfigError(
            f"reproduce.executor={chosen.executor} needs the package {package}; "
            f"pip install 'pal-esc[{chosen.executor}]'"
        )


def make_schedule(
    chosen: BenchmarkSettings,
    root: Path,
    planned: Mapping[str, int],
    variables: Sequence[str] = (),
) -> SideBySide:
    """Return the schedule with the executor that the settings name.

    Args:
        chosen: the benchmark's settings.
        root: folder of the benchmark.
        planned: number of stages by kind.
        variables: variables of the environment, such as an API's key, that stages need.

    Raises:
        ConfigError: the executor cannot be used.
    """
    executor: StageExecutor
    if chosen.executor == "ray":
        from pal.benchmark.executors.ray_cluster import RayExecutor
        from pal.cluster.joining import join_cluster

        ours = join_cluster("reproduce.executor=ray")
        context = StageContext.of_this_process(root, variables)
        executor = RayExecutor(context, chosen, ours=ours)
    elif chosen.executor == "slurm":
        from pal.benchmark.executors.slurm import SlurmExecutor, check_slurm

        check_slurm(chosen)
        context = StageContext.of_this_process(root)
        executor = SlurmExecutor(context, chosen)
    else:
        from pal.benchmark.executors.local import LocalExecutor

        context = StageContext.of_this_process(root)
        executor = LocalExecutor(context, chosen.workers or 1)
    return SideBySide(executor, context, planned)
