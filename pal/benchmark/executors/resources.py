"""What a stage asks a cluster for, where the user leaves it open."""

from collections.abc import Mapping

from pal.benchmark.executors.tasks import StageTask
from pal.benchmark.settings import ResourceKind
from pal.cluster.settings import ClusterResources

TRAINING_CORES, OTHER_CORES = 4, 2


def fill_resources(
    stage: StageTask,
    chosen: Mapping[ResourceKind, ClusterResources],
    *,
    gpus: int,
    cores: int | None = None,
) -> ClusterResources:
    """Return the resources of a stage, with a number of GPUs and of cores.

    Args:
        stage: the stage.
        chosen: what the user says, by kind; ``all`` for what a kind leaves open.
        gpus: GPUs of a stage that can use one: 1, or 0 where the cluster has none.
        cores: cores of the largest node; a default never asks for more.
    """
    own, common = (chosen.get(kind, ClusterResources()) for kind in (stage.kind, "all"))
    usual = TRAINING_CORES if stage.kind == "train" else OTHER_CORES
    defaults = {"gpus": gpus if stage.on_gpu else 0, "cpus": min(usual, cores or usual)}
    given = common.model_dump(exclude_none=True) | own.model_dump(exclude_none=True)
    return ClusterResources(**defaults | given)
