"""Values over many units that follow from sums or from counts, for any choice of the units.

A unit is a sample, or a dialogue of several. A mean is a :class:`Pooled` value: see
:func:`mean_of`. Intervals and tests choose units with weights and ask for the value again.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Pooled:
    """A corpus value computed from sums over the samples, for resampling without recounting.

    Args:
        parts: what each sample adds, [N, K].
        finish: turns sums [..., K] into values [...]; sums of one sample give that sample's value.
    """

    parts: np.ndarray
    finish: Callable[[np.ndarray], np.ndarray]

    def value(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Return the corpus value, or one value for each row of sample weights [..., N]."""
        return self.finish(self.parts.sum(0) if weights is None else weights @ self.parts)

    def grouped(self, groups: np.ndarray, count: int) -> "Pooled":
        """Return the same over groups of samples; ``groups`` has each sample's, 0 to count − 1."""
        sums = np.zeros((count, self.parts.shape[1]))
        np.add.at(sums, groups, self.parts)
        return Pooled(sums, self.finish)

    def join(self, *others: "Pooled") -> "Pooled":
        """Return the same over this one's samples and then the others'."""
        return Pooled(np.concatenate([self.parts, *(o.parts for o in others)]), self.finish)


def mean_of(values: Sequence[float] | np.ndarray) -> Pooled:
    """Return the mean of values of single samples, [N], as a pooled value."""
    values = np.asarray(values, dtype=float)
    return Pooled(np.stack([values, np.ones(len(values))], axis=1), _ratio)


def _ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


class Items:
    """What each sample holds, such as its n-grams, counted for any choice of samples.

    Args:
        list_items: returns the things each of N samples holds, repeats included; called when they
            are first counted.
    """

    def __init__(self, list_items: Callable[[], Sequence[Sequence[Hashable]]]):
        self._list = list_items
        self._last: tuple[np.ndarray, tuple[np.ndarray, np.ndarray]] | None = None

    @cached_property
    def items(self) -> Sequence[Sequence[Hashable]]:
        """The things each sample holds, repeats included."""
        return self._list()

    @cached_property
    def _table(self) -> tuple[Any, np.ndarray]:
        """Which sample holds which type, sparse [types, N], and the number of items, [N]."""
        from scipy.sparse import csr_array

        ids: dict[Hashable, int] = {}
        cells = [
            (ids.setdefault(item, len(ids)), sample)
            for sample, held in enumerate(self.items)
            for item in dict.fromkeys(held)
        ]
        rows, columns = np.array(cells, dtype=np.int64).reshape(-1, 2).T
        shape = (len(ids), len(self.items))
        held = csr_array((np.ones(len(cells), dtype=np.float32), (rows, columns)), shape=shape)
        return held, np.array([len(held) for held in self.items], dtype=float)

    def count(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return types and items among the samples, each taken ``weights`` times, [..., N]."""
        if self._last is None or self._last[0] is not weights:  # metrics ask for the same in turn
            table, lengths = self._table
            rows = weights.reshape(-1, weights.shape[-1])
            types = np.empty(len(rows))
            for start in range(0, len(rows), 512):
                chosen = (rows[start : start + 512] > 0).astype(np.float32)
                types[start : start + 512] = (table @ chosen.T > 0).sum(0)
            self._last = weights, (types.reshape(weights.shape[:-1]), weights @ lengths)
        return self._last[1]

    def grouped(self, groups: np.ndarray, count: int) -> "Items":
        """Return the same over groups of samples; ``groups`` has each sample's, 0 to count − 1."""
        merged: list[list[Hashable]] = [[] for _ in range(count)]
        for group, held in zip(groups, self.items, strict=True):
            merged[group].extend(held)
        return Items(lambda: merged)

    def join(self, *others: "Items") -> "Items":
        """Return the same over this one's samples and then the others'."""
        return Items(lambda: [held for one in (self, *others) for held in one.items])


@dataclass(frozen=True)
class Types:
    """A corpus value computed from the number of different items and of all items.

    Args:
        items: what each of N samples holds; values of the same items may share it.
        finish: turns types [...] and items [...] into values [...].
    """

    items: Items
    finish: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def value(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Return the corpus value, or one value for each row of sample weights [..., N]."""
        weights = np.ones(len(self.items.items)) if weights is None else weights
        return self.finish(*self.items.count(weights))
