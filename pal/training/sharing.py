"""How the samples of an update are shared out over processes, so that their number decides nothing.

An update takes the next samples of the epoch's order, as many for all processes together as for
one. They are cut into batches of ``per_device_train_batch_size``, which the processes take in turn.
Where the last batches do not suffice for all, a process computes rows without targets: they add
nothing to the loss and the gradients, and keep the processes in step. Nothing is repeated or left
out.
"""

import hashlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch.utils.data import Dataset, Sampler

from pal.core.errors import ConfigError

logger = logging.getLogger(__name__)

FILLER = -1  # in the place of a sample's index: a row without targets
FILLER_ROWS = 2  # a normalisation over the batch, as in the released MISC, takes no single row

DEFAULT_ROWS = 8  # transformers' own per_device_train_batch_size


class SharedBatches(Sampler[list[int]]):
    """Yields the batches of one process; with those of the others they are an epoch.

    Args:
        sampler: the order of all samples.
        rows: samples of a batch.
        update: samples of an update, over all processes.
        processes: how many there are.
        process: which of them this is, from 0.

    Example:
        >>> list(SharedBatches(range(7), rows=2, update=4, processes=2, process=1))
        [[2, 3], [6]]
    """

    def __init__(
        self, sampler: Any, *, rows: int, update: int, processes: int = 1, process: int = 0
    ):
        self.sampler, self.rows, self.update = sampler, rows, update
        self.processes, self.process = processes, process

    def __len__(self) -> int:
        whole, rest = divmod(len(self.sampler), self.update)
        return whole * self._turns(self.update) + self._turns(rest)

    def _turns(self, samples: int) -> int:
        return math.ceil(math.ceil(samples / self.rows) / self.processes)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.sampler)
        for start in range(0, len(order), self.update):
            samples = order[start : start + self.update]
            batches = [samples[i : i + self.rows] for i in range(0, len(samples), self.rows)]
            for turn in range(self._turns(len(samples))):
                mine = turn * self.processes + self.process
                yield batches[mine] if mine < len(batches) else [FILLER] * FILLER_ROWS


class FilledSamples(Dataset[Mapping[str, Any]]):
    """Encoded samples, and rows without targets where :data:`FILLER` is asked for.

    Args:
        samples: encoded, with ``labels`` and ``length``.
    """

    def __init__(self, samples: Any):
        self.samples = samples
        lengths: Sequence[int] = samples["length"][:]
        self.shortest = min(range(len(lengths)), key=lengths.__getitem__)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Mapping[str, Any]]:
        """Return the samples of these indices."""
        if FILLER not in indices:
            return self.samples.__getitems__(indices)
        sample = self.samples[self.shortest]
        return [{**sample, "labels": [-100] * len(sample["labels"])} for _ in indices]


def accumulated_batches(
    global_batch_size: int | None, training: Mapping[str, Any], devices: int
) -> dict[str, Any]:
    """Return the options of training with the accumulation that a global batch size comes to.

    Args:
        global_batch_size: samples of an update over all processes; None leaves the options alone.
        training: options by transformers' names.
        devices: how many share the batches of an update.

    Raises:
        ConfigError: the batch size contradicts the options.
    """
    options = dict(training)
    if global_batch_size is None:
        return options
    if "gradient_accumulation_steps" in options:
        raise ConfigError(
            f"training.gradient_accumulation_steps={options['gradient_accumulation_steps']} and "
            f"global_batch_size={global_batch_size} set the same thing twice: it follows from the "
            "number of processes; leave one of them out"
        )
    rows = options.get("per_device_train_batch_size", DEFAULT_ROWS)
    if rows > global_batch_size:
        raise ConfigError(
            f"training.per_device_train_batch_size={rows} is more than global_batch_size="
            f"{global_batch_size}, the samples of an update on all devices together; give at most "
            "that many"
        )
    batches = math.ceil(global_batch_size / rows)
    options["gradient_accumulation_steps"] = math.ceil(batches / devices)
    idle = -batches % devices
    if idle:
        logger.warning(
            "an update is %d batches of %d samples, which %d devices share: %d of them wait%s at "
            "the end of each", batches, rows, devices, idle, "s" if idle == 1 else "",
        )  # fmt: skip
    return options


def draw_seed(seed: int, step: int, batch: int) -> int:
    """Return the seed of what a batch draws (dropout): the same on whatever process it is.

    Args:
        seed: of the run.
        step: updates before this one.
        batch: its place in the update, over all processes.
    """
    digest = hashlib.blake2b(f"{seed}\0{step}\0{batch}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")
