"""Keys and values on shelves: attention is that of each row alone, and room is given back."""

import random
from types import SimpleNamespace

import torch

from pal.decoding.shelves import POSITIONS, Shelves

HEADS, WIDTH, LAYERS = 2, 4, 2


class Layer:
    def __init__(self, number):
        generator = torch.Generator().manual_seed(number)
        self.weight = torch.randn(HEADS * WIDTH, 2 * HEADS * WIDTH, generator=generator)

    def keys_values(self, states):
        return states @ self.weight


def make_decoder():
    return SimpleNamespace(
        layers=[Layer(number) for number in range(LAYERS)], heads=HEADS, size=WIDTH,
        like=torch.zeros(1),
    )  # fmt: skip


def alone(decoder, layer, query, states):
    keys, values = decoder.layers[layer].keys_values(states).view(-1, 2, HEADS, WIDTH).unbind(1)
    query = query.view(HEADS, WIDTH)
    weights = (torch.einsum("hw,lhw->hl", query, keys) * WIDTH**-0.5).softmax(-1)
    return torch.einsum("hl,lhw->hw", weights, values).flatten()


def test_attention_is_that_of_each_row_whatever_comes_and_goes():
    decoder, draw = make_decoder(), random.Random(3)
    torch.manual_seed(0)
    shelves, held = Shelves(decoder), []
    for _ in range(60):
        if held and draw.random() < 0.6:
            slot = draw.randrange(len(held))
            shelves.remove(slot)
            last = held.pop()
            if slot < len(held):
                held[slot] = last
        else:
            lengths = [draw.choice((1, 5, 31, 32, 33, 64, 70)) for _ in range(draw.randint(1, 4))]
            states = torch.randn(len(lengths), max(lengths) + draw.randint(0, 20), HEADS * WIDTH)
            mask = (torch.arange(states.shape[1]) < torch.tensor(lengths)[:, None]).long()
            shelves.add(states, mask, lengths)
            held += [row[:length] for row, length in zip(states, lengths, strict=True)]
        if not held:
            continue
        queries = torch.randn(len(held), HEADS * WIDTH)
        for layer in range(LAYERS):
            wanted = [
                alone(decoder, layer, query, one) for query, one in zip(queries, held, strict=True)
            ]
            found = shelves.attend(layer, queries)
            assert torch.allclose(found, torch.stack(wanted), atol=1e-5)
        used = [shelf for these in shelves.shelves.values() for shelf in these]
        assert sum(len(shelf.slots) for shelf in used) == len(held)
        assert all(shelf.slots for shelf in used)
        # No shelf stays more than half empty.
        assert all(len(shelf.mask) < 2 * len(shelf.slots) + 1 for shelf in used)


def test_a_row_is_padded_by_its_own_length_alone():
    decoder = make_decoder()
    states = torch.randn(3, 200, HEADS * WIDTH)
    mask = torch.zeros(3, 200)
    for row, length in enumerate((10, POSITIONS, 200)):
        mask[row, :length] = 1
    shelves = Shelves(decoder)
    shelves.add(states, mask, [10, POSITIONS, 200])
    assert sorted(shelves.shelves) == [POSITIONS, 7 * POSITIONS]


def test_places_of_rows_that_left_are_taken_again():
    decoder, states = make_decoder(), torch.randn(4, 20, HEADS * WIDTH)
    shelves = Shelves(decoder)
    shelves.add(states, torch.ones(4, 20), [20] * 4)
    shelves.remove(1)
    shelves.add(states[:1], torch.ones(1, 20), [20])
    (shelf,) = shelves.shelves[POSITIONS]
    assert sorted(shelf.slots) == [0, 1, 2, 3]
