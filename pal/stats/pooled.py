"""Values over many units, computed from sums or counts, for any selection of the units.

A unit is a sample, or a dialogue of several samples. A mean is a :class:`Pooled` value, see
:func:`mean_of`. Intervals and tests select units by weights and compute the value again.
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
        parts: terms of each sample, [N, K].
        finish: function from sums [..., K] to values [...]; the sums of one sample give the
            value of that sample.
    """

    parts: np.ndarray
    finish: Callable[[np.ndarray], np.ndarray]

    def value(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Return the corpus value, or one value for each row of sample weights [..., N]."""
        return self.finish(self.parts.sum(0) if weights is None else weights @ self.parts)

    def grouped(self, groups: np.ndarray, count: int) -> "Pooled":
        """Return the value over groups of samples; ``groups`` are from 0 to count − 1, [N]."""
        sums = np.zeros((count, self.parts.shape[1]))
        np.add.at(sums, groups, self.parts)
        return Pooled(sums, self.finish)

    def join(self, *others: "Pooled") -> "Pooled":
        """Return the value over these samples followed by those of ``others``."""
        return Pooled(np.concatenate([self.parts, *(o.parts for o in others)]), self.finish)


def mean_of(values: Sequence[float] | np.ndarray) -> Pooled:
    """Return the mean of values of single samples, [N], as a pooled value."""
    values = np.asarray(values, dtype=float)
    return Pooled(np.stack([values, np.ones(len(values))], axis=1), _ratio)


def _ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


class Items:
    """The items of each sample, such as its n-grams, counted for any selection of samples.

    Args:
        list_items: function that returns the items of each of N samples, with repeats; called when
            they are first counted.
    """

    def __init__(self, list_items: Callable[[], Sequence[Sequence[Hashable]]]):
        self._list = list_items
        self._last: tuple[np.ndarray, tuple[np.ndarray, np.ndarray]] | None = None

    @cached_property
    def items(self) -> Sequence[Sequence[Hashable]]:
        """The items of each sample, with repeats."""
        return self._list()

    @cached_property
    def _table(self) -> tuple[Any, np.ndarray]:
        """The samples that hold each type, sparse [types, N], and the number of items, [N]."""
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
        """Return the numbers of types and items, with samples weighted by ``weights``, [..., N]."""
        if self._last is None or self._last[0] is not weights:  # metrics share weights
            table, lengths = self._table
            rows = weights.reshape(-1, weights.shape[-1])
            types = np.empty(len(rows))
            for start in range(0, len(rows), 512):
                chosen = (rows[start : start + 512] > 0).astype(np.float32)
                types[start : start + 512] = (table @ chosen.T > 0).sum(0)
            self._last = weights, (types.reshape(weights.shape[:-1]), weights @ lengths)
        return self._last[1]

    def grouped(self, groups: np.ndarray, count: int) -> "Items":
        """Return the value over groups of samples; ``groups`` are from 0 to count − 1, [N]."""
        merged: list[list[Hashable]] = [[] for _ in range(count)]
        for group, held in zip(groups, self.items, strict=True):
            merged[group].extend(held)
        return Items(lambda: merged)

    def join(self, *others: "Items") -> "Items":
        """Return the value over these samples followed by those of ``others``."""
        return Items(lambda: [held for one in (self, *others) for held in one.items])


@dataclass(frozen=True)
class Types:
    """A corpus value computed from the number of distinct items (types) and of all items.

    Args:
        items: items of each of N samples; several values may share them.
        finish: function from types [...] and items [...] to values [...].
    """

    items: Items
    finish: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def value(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Return the corpus value, or one value for each row of sample weights [..., N]."""
        weights = np.ones(len(self.items.items)) if weights is None else weights
        return self.finish(*self.items.count(weights))
