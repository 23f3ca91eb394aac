import torch
from transformers import BlenderbotSmallConfig

from pal.decoding.contrast import ContrastiveCache, combine

CONFIG = BlenderbotSmallConfig(d_model=4, decoder_layers=1, vocab_size=10)


def make(alpha):
    alpha = torch.tensor(alpha)
    rows = len(alpha)
    return ContrastiveCache.pair(
        CONFIG,
        fused=(torch.arange(rows * 3.0).view(rows, 3, 1), torch.ones(rows, 3)),
        plain=(-torch.arange(rows * 2.0).view(rows, 2, 1), torch.ones(rows, 2)),
        alpha=alpha,
        rows=torch.arange(rows),
    )


def test_combination_is_equation_6():
    one, two = torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[1.0, 2.0]]])
    assert combine(one, two, torch.tensor([0.5])).tolist() == [[[4.0, 0.5]]]
    assert combine(one, two, torch.tensor([0.0])).tolist() == one.tolist()


def test_combination_takes_hidden_states_and_one_weight_for_all():
    one, two = torch.randn(3, 4), torch.randn(3, 4)
    alpha = torch.tensor([0.5, 0.0, 2.0])
    rows = [(1 + a) * x - a * y for a, x, y in zip(alpha, one, two, strict=True)]
    assert torch.equal(combine(one, two, alpha), torch.stack(rows))
    assert torch.equal(combine(one, two, 0.5), combine(one, two, torch.full((3,), 0.5)))
    half = combine(one.bfloat16(), two.bfloat16(), alpha)
    assert half.dtype == torch.bfloat16


def test_rows_without_contrast_lose_their_second_branch():
    cache = make([0.1, 0.1, 0.1, 0.1])
    assert cache.states.shape == (8, 3, 1)
    assert cache.mask[4:, 2].tolist() == [0.0] * 4
    cache.set_alpha(torch.tensor([0.0, 0.75, 0.0, 0.375]))
    assert cache.rows.tolist() == [1, 3]
    assert cache.states[4:, 1, 0].tolist() == [-3.0, -7.0]
    logits = torch.tensor([1.0, 2.0, 3.0, 4.0, 10.0, 20.0]).view(6, 1, 1)
    contrasted = cache.contrast(logits).flatten().tolist()
    assert contrasted == [1.0, 1.75 * 2 - 0.75 * 10, 3.0, 1.375 * 4 - 0.375 * 20]
    assert cache.both(torch.tensor([5, 6, 7, 8])).tolist() == [5, 6, 7, 8, 6, 8]


def test_no_contrast_at_all_runs_one_branch():
    cache = make([0.5, 0.5])
    cache.set_alpha(torch.zeros(2))
    assert cache.states.shape[0] == 2
    logits = torch.randn(2, 1, 5)
    assert cache.contrast(logits) is logits


def test_repeat_and_reorder_keep_the_branches_beside_their_rows():
    cache = make([0.1, 0.1, 0.1])
    cache.set_alpha(torch.tensor([0.75, 0.0, 0.5]))
    cache.repeat(2)
    assert cache.alpha.tolist() == [0.75, 0.75, 0.0, 0.0, 0.5, 0.5]
    assert cache.rows.tolist() == [0, 1, 4, 5]
    keys = torch.arange(10.0).view(10, 1, 1, 1)
    cache.self_attention_cache.update(keys, keys, 0)
    cache.cross_attention_cache.update(keys, keys, 0)
    cache.reorder_cache(torch.tensor([1, 1, 3, 2, 5, 4]))
    order = cache.self_attention_cache.layers[0].keys.flatten().tolist()
    assert order == [1, 1, 3, 2, 5, 4, 7, 7, 9, 8]
