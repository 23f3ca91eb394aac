import itertools

import torch

from pal.training.order import EpochSampler

LENGTHS = [3, 9, 4, 1, 7, 7, 2, 8, 6, 5, 3, 9, 2] * 8


def order(seed=1, epoch=0, by_length=True):
    sampler = EpochSampler(LENGTHS, rows=2, seed=seed, epoch=lambda: epoch, by_length=by_length)
    assert len(sampler) == len(LENGTHS)
    return list(sampler)


def test_seed_and_epoch_decide_the_order_and_nothing_else_does():
    for by_length in (True, False):
        first = order(by_length=by_length)
        torch.randn(7)
        assert order(by_length=by_length) == first
        assert sorted(first) == list(range(len(LENGTHS)))
        assert order(epoch=1, by_length=by_length) != first
        assert order(seed=2, by_length=by_length) != first
    assert order(seed=1, epoch=2) != order(seed=2, epoch=1)


def test_similar_lengths_come_together_longest_first():
    lengths = [LENGTHS[index] for index in order()]
    assert lengths[0] == 9
    near = sum(abs(a - b) for a, b in itertools.pairwise(lengths))
    plain = [LENGTHS[index] for index in order(by_length=False)]
    assert near < sum(abs(a - b) for a, b in itertools.pairwise(plain))
