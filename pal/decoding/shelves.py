"""Keys and values of encoder states in dense tensors by length, for steps that are not recorded.

Attention of one query reads each key and value once, so a step's time is that of its reads. Rows of
similar length lie together on a shelf, so little of what is read is padding, and a shelf is read as
one piece: products of parts of a larger tensor take twice as long in float32, and in bfloat16 they
copy the parts first.

A row is padded to a length that depends on nothing but its own, so that its sums are the same
whatever rows come with it.

Shapes: n branches, B rows, C places of a shelf, d model width, H heads, w width of a head,
L encoder positions.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pal.decoding.graphs import multiple
from pal.decoding.sending import send
from pal.decoding.step import attend_cached

POSITIONS = 32  # lengths of shelves are multiples of this


class Shelf:
    """Keys and values of branches of similar length.

    Args:
        decoder: a :class:`pal.decoding.engine.FastDecoder`.
        places: number of branches.
        length: encoder positions.

    Attributes:
        slots: the engine's slot of the branch in each place; the places in use come first.
        held: keys and values, [layers, 2, C, H, L, w].
        mask: what is added to scores, [C, 1, 1, L].
    """

    def __init__(self, decoder: Any, places: int, length: int):
        like, self.length = decoder.like, length
        self.slots: list[int] = []
        self.held = like.new_empty(
            len(decoder.layers), 2, places, decoder.heads, length, decoder.size
        )
        self.mask = like.new_empty(places, 1, 1, length)

    @property
    def free(self) -> int:
        """Number of places that hold no branch."""
        return len(self.mask) - len(self.slots)

    def remove(self, place: int) -> None:
        """Empty a place; the last branch moves there. Half empty, the shelf gets smaller."""
        last = len(self.slots) - 1
        if place != last:
            self.held[:, :, place] = self.held[:, :, last]
            self.mask[place] = self.mask[last]
            self.slots[place] = self.slots[last]
        self.slots.pop()
        if last and 2 * last <= len(self.mask):
            self.held, self.mask = self.held[:, :, :last].clone(), self.mask[:last].clone()


class Shelves:
    """Keys and values of the encoder states of all branches of a run.

    Args:
        decoder: a :class:`pal.decoding.engine.FastDecoder`.
    """

    def __init__(self, decoder: Any):
        self.decoder = decoder
        self.shelves: dict[int, list[Shelf]] = {}  # by length
        self.where: list[Shelf] = []  # the shelf of each slot
        self.changed = True

    def add(self, states: Tensor, mask: Tensor, lengths: Sequence[int]) -> None:
        """Keep what a decoder reads of encoder states, for the slots that follow.

        Args:
            states: of new branches, [B, L, d].
            mask: 1 = keep, [B, L]; 0 from the row's length on.
            lengths: of the rows.
        """
        decoder, first = self.decoder, len(self.where)
        rounded = [multiple(length, POSITIONS) for length in lengths]
        places: list[tuple[Shelf, int, list[int]]] = []  # shelf, its first free place, rows
        for length in dict.fromkeys(rounded):
            rows = [row for row, its in enumerate(rounded) if its == length]
            shelves = self.shelves.setdefault(length, [])
            while rows:
                shelf = next((one for one in shelves if one.free), None)
                if shelf is None:
                    shelf = Shelf(decoder, len(rows), length)
                    shelves.append(shelf)
                now, rows = rows[: shelf.free], rows[shelf.free :]
                places.append((shelf, len(shelf.slots), now))
                shelf.slots += [first + row for row in now]
        found: dict[int, Shelf] = {}
        for shelf, start, rows in places:
            there, kept = slice(start, start + len(rows)), min(shelf.length, mask.shape[1])
            shelf.mask[there] = -torch.inf
            shelf.mask[there, 0, 0, :kept].masked_fill_(mask[rows, :kept].bool(), 0.0)
            shelf.held[:, :, there, :, kept:] = 0
            found |= dict.fromkeys(rows, shelf)
        self.where += [found[row] for row in range(len(lengths))]
        for number, layer in enumerate(decoder.layers):
            both = layer.keys_values(states)
            both = both.view(*mask.shape, 2, decoder.heads, decoder.size).permute(2, 0, 3, 1, 4)
            for shelf, start, rows in places:
                there, kept = slice(start, start + len(rows)), min(shelf.length, mask.shape[1])
                some = both if len(rows) == len(lengths) else both[:, rows]
                shelf.held[number, :, there, :, :kept] = some[:, :, :, :kept]
        self.changed = True

    def remove(self, slot: int) -> None:
        """Forget a slot's branch; that of the last slot moves to the slot."""
        shelf = self.where[slot]
        shelf.remove(shelf.slots.index(slot))
        if not shelf.slots:
            self.shelves[shelf.length].remove(shelf)
        last = len(self.where) - 1
        if slot != last:
            moved = self.where[slot] = self.where[last]
            moved.slots[moved.slots.index(last)] = slot
        self.where.pop()
        self.changed = True

    def lay_out(self) -> None:
        """Compute what is valid until a branch is added or removed."""
        self.used = [shelf for shelves in self.shelves.values() for shelf in shelves]
        order = torch.tensor([slot for shelf in self.used for slot in shelf.slots])
        back = order.argsort()
        device = self.decoder.like.device
        self.order, self.back = send(order, device), send(back, device)
        self.sizes = [len(shelf.slots) for shelf in self.used]
        self.changed = False

    def attend(self, layer: int, queries: Tensor) -> Tensor:
        """Return the attention of one query a branch, [n, d], over its encoder states, [n, d].

        Args:
            layer: number of the decoder's layer.
            queries: of all slots.
        """
        if self.changed:
            self.lay_out()
        heads, width = self.decoder.heads, self.decoder.size
        groups = queries[self.order].view(-1, heads, width).split(self.sizes)
        parts = []
        for shelf, some in zip(self.used, groups, strict=True):
            keys, values = shelf.held[layer, :, : len(some)].unbind()
            parts.append(attend_cached(some, keys, values, shelf.mask[: len(some)]))
        return torch.cat(parts)[self.back]
