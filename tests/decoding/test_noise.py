import torch
from scipy import stats

from pal.decoding.noise import keyed_gumbel, sample_keys


def test_noise_is_standard_gumbel_and_independent_over_all_keys():
    keys = sample_keys(7, [f"sample/{i}" for i in range(400)])
    tokens = torch.arange(50).expand(400, -1)
    one, two = (keyed_gumbel(keys, step, tokens) for step in (2, 3))
    assert stats.kstest(one.flatten().numpy(), "gumbel_r").pvalue > 0.01
    for a, b in ((one, two), (one[:-1], one[1:]), (one[:, :-1], one[:, 1:])):
        assert abs(stats.spearmanr(a.flatten(), b.flatten()).statistic) < 0.03


def test_noise_is_a_function_of_its_key_alone():
    tokens = torch.tensor([[5, 9, 700], [9, 5, 3]])
    keys = sample_keys(1, ["a", "b"])
    both = keyed_gumbel(keys, 4, tokens)
    assert torch.equal(both[1:], keyed_gumbel(keys[1:], 4, tokens[1:]))
    assert torch.equal(both[0, [1, 0]], keyed_gumbel(keys[:1], 4, tokens[1:, :2])[0])
    assert not torch.equal(both, keyed_gumbel(sample_keys(2, ["a", "b"]), 4, tokens))
