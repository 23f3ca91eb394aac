"""Dialogues of a corpus that may be larger than memory, read again each time they are asked for."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pal.data.cards import lay_cards, read_card_personas, warn_of_cards
from pal.data.harm import mark_harmful, report_harmful
from pal.data.spilled import in_parts, iterate_rows

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]


class Dialogues:
    """Rows of a data set, with what settings add to them.

    Args:
        dataset: of :func:`pal.data.load_esconv`.
        cards: the setting ``data.cards``.
        harmful: whether harmful supporter turns stay targets, see :mod:`pal.data.harm`.

    Raises:
        DataError: the cards cannot be read.
    """

    def __init__(self, dataset: Any, *, cards: str | None = None, harmful: bool = True):
        self.dataset, self.cards, self.harmful = dataset, cards, harmful
        self._personas = None
        if cards is not None:
            warn_of_cards(cards)
            self._personas = read_card_personas(cards)
        self._reported = False

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Row]:
        found = self._given(iterate_rows(self.dataset))
        if self.harmful:
            yield from found
            return
        count = 0
        for row in found:
            row, marked = mark_harmful(row)
            count += marked
            yield row
        if not self._reported:
            self._reported = True
            report_harmful(count)

    def parts(self, size: int) -> Iterator[list[Row]]:
        """Yield the dialogues in lists of ``size``; one list is held at a time."""
        return in_parts(self, size)

    def block(self, first: int, size: int) -> Iterator[Row]:
        """Yield ``size`` dialogues from number ``first`` on, or what is left."""
        last = min(first + size, len(self))
        rows = self._given(self.dataset.with_format("arrow")[first:last].to_pylist())
        return rows if self.harmful else (mark_harmful(row)[0] for row in rows)

    def _given(self, rows: Iterable[Row]) -> Iterator[Row]:
        if self.cards is None or self._personas is None:
            return iter(rows)
        return lay_cards(rows, self._personas, self.cards)
