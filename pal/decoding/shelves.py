"""Keys and values of encoder states in dense tensors by length, for steps that are not recorded.

Attention of one query reads each key and value once, so a step's time is that of its reads. Rows of
similar length lie together on a shelf, so little of what is read is padding, and a shelf is read as
one piece: products of parts of a larger tensor take twice as long in float32, and in bfloat16 they
copy the parts first.

On a CPU they are in float32, see :func:`pal.decoding.step.cache_format`.

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
from pal.decoding.step import attend_by_head, cache_format

POSITIONS = 32  # lengths of shelves are multiples of this


class Shelf:
    """Keys and values of branches of similar length.

    Args:
        decoder: a :class:`pal.decoding.engine.FastDecoder`.
        places: number of branches.
        length: encoder positions.

    Attributes:
        slots: the engine's slot of the branch in each place; the places in use come first.
        held: keys and values of each layer, [2, C, H, L, w]; less at once is sooner given again.
        mask: what is added to scores, [C, H, 1, L].
    """

    def __init__(self, decoder: Any, places: int, length: int):
        like, self.length = decoder.like, length
        self.slots: list[int] = []
        dtype, heads = cache_format(like), decoder.heads
        shape = (2, places, heads, length, decoder.size)
        self.held = [like.new_empty(shape, dtype=dtype) for _ in decoder.layers]
        self.mask = like.new_empty(places, heads, 1, length, dtype=dtype)

    @property
    def free(self) -> int:
        """Number of places that hold no branch."""
        return len(self.mask) - len(self.slots)

    def remove(self, place: int) -> None:
        """Empty a place; the last branch moves there. Half empty, the shelf gets smaller."""
        last = len(self.slots) - 1
        if place != last:
            for held in self.held:
                held[:, place] = held[:, last]
            self.mask[place] = self.mask[last]
            self.slots[place] = self.slots[last]
        self.slots.pop()
        if last and 2 * last <= len(self.mask):
            self.held = [held[:, :last].clone() for held in self.held]
            self.mask = self.mask[:last].clone()


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
        places: list[tuple[Shelf, int, int]] = []  # of each row: shelf, place, positions
        for row, length in enumerate(lengths):
            shelves = self.shelves.setdefault(multiple(length, POSITIONS), [])
            shelf = next((one for one in shelves if one.free), None)
            if shelf is None:
                rounded = [multiple(its, POSITIONS) for its in lengths[row:]]
                shelf = Shelf(decoder, rounded.count(rounded[0]), rounded[0])
                shelves.append(shelf)
            place, kept = len(shelf.slots), min(shelf.length, mask.shape[1])
            shelf.slots.append(first + row)
            shelf.mask[place] = -torch.inf
            shelf.mask[place, :, :, :kept].masked_fill_(mask[row, :kept].bool(), 0.0)
            for held in shelf.held:
                held[:, place, :, kept:] = 0
            places.append((shelf, place, kept))
        self.where += [shelf for shelf, _, _ in places]
        shape = (*mask.shape, 2, decoder.heads, decoder.size)
        for number, layer in enumerate(decoder.layers):
            both = layer.keys_values(states).view(shape).permute(0, 2, 3, 1, 4)
            for its, (shelf, place, kept) in zip(both, places, strict=True):
                shelf.held[number][:, place, :, :kept] = its[:, :, :kept]
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
        used = [shelf for shelves in self.shelves.values() for shelf in shelves]
        order = torch.tensor([slot for shelf in used for slot in shelf.slots])
        device, heads = self.decoder.like.device, self.decoder.heads
        self.order, self.back = send(order, device), send(order.argsort(), device)
        self.sizes = [len(shelf.slots) * heads for shelf in used]
        # Of each layer and shelf: keys, values and mask of the heads of its branches.
        self.parts: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in self.decoder.layers]
        for shelf in used:
            count = len(shelf.slots)
            mask = shelf.mask[:count].flatten(0, 1)
            for parts, held in zip(self.parts, shelf.held, strict=True):
                keys, values = held[:, :count].flatten(1, 2).unbind()
                parts.append((keys, values, mask))
        self.changed = False

    def attend(self, layer: int, queries: Tensor) -> Tensor:
        """Return the attention of one query a branch, [n, d], over its encoder states, [n, d].

        Args:
            layer: number of the decoder's layer.
            queries: of all slots.
        """
        if self.changed:
            self.lay_out()
        by_head = queries[self.order].to(cache_format(queries)).view(-1, 1, self.decoder.size)
        found = torch.empty_like(by_head)
        split = (by_head.split(self.sizes), found.split(self.sizes))
        for some, out, part in zip(*split, self.parts[layer], strict=True):
            attend_by_head(some, *part, out=out)
        return found.view(queries.shape)[self.back].to(queries.dtype)
