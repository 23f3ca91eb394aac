"""What a stage asks a cluster for, where the user leaves it open."""

from collections.abc import Mapping

from pal.benchmark.executors.tasks import StageTask
from pal.benchmark.settings import StageKind, StageResources

TRAINING_CORES, OTHER_CORES = 4, 2


def fill_resources(
    stage: StageTask,
    chosen: Mapping[StageKind, StageResources],
    *,
    gpus: int,
    cores: int | None = None,
) -> StageResources:
    """Return the resources of a stage, with a number of GPUs and of cores.

    Args:
        stage: the stage.
        chosen: what the user says, by kind.
        gpus: GPUs of a stage that can use one: 1, or 0 where the cluster has none.
        cores: cores of the largest node; a default never asks for more.
    """
    asked = chosen.get(stage.kind, StageResources())
    usual = TRAINING_CORES if stage.kind == "train" else OTHER_CORES
    return StageResources(
        gpus=(gpus if stage.on_gpu else 0) if asked.gpus is None else asked.gpus,
        cpus=min(usual, cores or usual) if asked.cpus is None else asked.cpus,
        memory_gb=asked.memory_gb,
    )
