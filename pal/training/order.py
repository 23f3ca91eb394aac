"""The order of training samples: a function of seed and epoch, not of what was drawn before.

A run that continues inside an epoch, on any number of processes, therefore sees the batches that
it would have seen.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices


class EpochSampler(Sampler[int]):
    """Yields the indices of all samples in the order of the epoch that begins.

    Args:
        lengths: of the samples.
        rows: samples of an update, over all processes.
        seed: of the run.
        epoch: returns the number of the epoch that begins.
        by_length: whether samples of similar length come together.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        rows: int,
        seed: int,
        epoch: Callable[[], int],
        by_length: bool,
    ):
        self.lengths, self.rows, self.seed = list(lengths), rows, seed
        self.epoch, self.by_length = epoch, by_length

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        # Two numbers into one, so that no (seed, epoch) shares its order with another one.
        generator = torch.Generator().manual_seed((self.seed % 2**31) * 2**31 + self.epoch())
        if self.by_length:
            order = get_length_grouped_indices(self.lengths, self.rows, generator=generator)
        else:
            order = torch.randperm(len(self.lengths), generator=generator).tolist()
        return iter(order)
