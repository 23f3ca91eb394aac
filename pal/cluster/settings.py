"""What one process asks a cluster for."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from pal.core.settings import INERT, Count, Section


class ClusterResources(Section):
    """What a stage of the benchmark, or a process that answers, asks a cluster for.

    Attributes:
        gpus: number of GPUs; on Ray also a part of one, such as 0.25.
        cpus: number of CPU cores.
        memory_gb: gigabytes of memory.
    """

    gpus: Annotated[float | None, Field(ge=0), INERT] = None
    cpus: Annotated[Count | None, INERT] = None
    memory_gb: Annotated[float | None, Field(gt=0), INERT] = None

    @model_validator(mode="after")
    def _whole_or_a_part(self) -> Self:
        if self.gpus is not None and self.gpus > 1 and self.gpus % 1:
            raise ValueError("gpus: should be a part of one GPU or a whole number")
        return self
