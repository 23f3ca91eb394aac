"""The work of a job in windows: what is planned, computed and read back at once.

A job of a million samples holds one window of them at a time: its plan, its inputs, and at the end
its results. What it keeps of all windows are four bytes an item and the places of the batches in
the journal.
"""

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

from pal.core.journal import Journal, Place


@dataclass(frozen=True)
class Window:
    """A part of the items of a job, planned and computed without the others.

    Attributes:
        batches: one list of item numbers per batch, counted from 0 in this window.
        work: function that computes one result per item of a batch.
        elsewhere: function that has batches computed by other processes, in place of ``work``: it
            takes their places in ``batches`` and yields each with its results as it comes.
    """

    batches: Sequence[Sequence[int]]
    work: Callable[[Sequence[int]], list[Any]]
    elsewhere: Callable[[Sequence[int]], Iterator[tuple[int, list[Any]]]] | None = None

    def results(self, places: Sequence[int]) -> Iterator[tuple[int, list[Any]]]:
        """Yield places in ``batches`` with the results of these batches, in any order."""
        if self.elsewhere is not None:
            yield from self.elsewhere(places)
            return
        for place in places:
            yield place, self.work(self.batches[place])


class Plan:
    """The batches of a window, four bytes an item.

    Args:
        first: number of the first batch.
        batches: lists of item numbers in the window.
    """

    def __init__(self, first: int, batches: Sequence[Sequence[int]]):
        self.numbers = range(first, first + len(batches))
        self._ends = array("i", accumulate(map(len, batches), initial=0))
        self._items = array("i", chain.from_iterable(batches))

    def __len__(self) -> int:
        return len(self._items)

    def batch(self, number: int) -> Sequence[int]:
        """Return the items of a batch."""
        place = number - self.numbers.start
        return self._items[self._ends[place] : self._ends[place + 1]]


class JobResults:
    """JobResults of a job in the order of its items, read from its journal one window at a time.

    Args:
        journal: where they are.
        places: of the batches in it.
        plans: of the windows.
    """

    def __init__(self, journal: Journal, places: Mapping[str, Place], plans: Sequence[Plan]):
        self._journal, self._places, self._plans = journal, places, plans

    def __len__(self) -> int:
        return sum(map(len, self._plans))

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self.windows())

    def windows(self) -> Iterator[list[Any]]:
        """Yield the results of each window.

        Raises:
            OutputError: the journal was damaged since it was written.
        """
        for plan in self._plans:
            found: list[Any] = [None] * len(plan)
            for number in plan.numbers:
                results = self._journal.fetch(str(number), self._places[str(number)])
                for item, result in zip(plan.batch(number), results, strict=True):
                    found[item] = result
            yield found
            del found
