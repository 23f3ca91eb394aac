"""One sampler draws everywhere; the library's processors are its oracle."""

import pytest
import torch
from scipy import stats
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from pal.decoding.noise import keyed_gumbel, sample_keys
from pal.decoding.sampling import KeyedDraw, Sampler

OPTIONS = [
    {"temperature": 0.5, "top_k": 10, "top_p": 0.9},
    {"temperature": 1.3, "top_k": 0, "top_p": 0.6},
    {"temperature": 1.0, "top_k": 3, "top_p": 1.0},
    {"temperature": 2.0, "top_k": 500, "top_p": 0.01},
    {},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_draws_are_those_of_the_librarys_filters_with_the_same_noise(options):
    torch.manual_seed(3)
    scores = torch.randn(400, 120) * 3
    scores[:, ::7] = -torch.inf
    keys, step = sample_keys(5, range(400)), 6
    chain = LogitsProcessorList()
    if options.get("temperature", 1.0) != 1.0:
        chain.append(TemperatureLogitsWarper(options["temperature"]))
    if options.get("top_k"):
        chain.append(TopKLogitsWarper(options["top_k"]))
    if options.get("top_p", 1.0) < 1.0:
        chain.append(TopPLogitsWarper(options["top_p"]))
    filtered = chain(torch.zeros(400, step, dtype=torch.long), scores)
    noise = keyed_gumbel(keys, step, torch.arange(120).expand(400, -1))
    wanted = (filtered + noise).argmax(-1)
    found = Sampler(**options).draw(scores, keys, step)
    assert torch.equal(found, wanted)
    assert len(set(found.tolist())) > 20
    ids = torch.zeros(400, step, dtype=torch.long)
    one_hot = KeyedDraw(Sampler(**options), keys)(ids, scores)
    assert torch.equal(one_hot.argmax(-1), wanted)
    assert torch.isfinite(one_hot).sum() == 400


def test_what_the_library_leaves_open_draws_from_everything():
    sampler = Sampler.from_options(GenerationConfig(temperature=None, top_k=None, top_p=None))
    assert (sampler.temperature, sampler.top_k, sampler.top_p) == (1.0, 0, 1.0)


def test_draws_follow_the_distribution():
    rows, probabilities = 20_000, torch.tensor([0.5, 0.3, 0.15, 0.05])
    scores = probabilities.log().expand(rows, -1)
    sampler = KeyedDraw(Sampler(), sample_keys(3, range(rows)))
    drawn = sampler(torch.zeros(rows, 2, dtype=torch.long), scores).argmax(-1)
    counts = torch.bincount(drawn, minlength=4)
    assert stats.chisquare(counts.numpy(), (probabilities * rows).numpy()).pvalue > 0.01


@pytest.mark.parametrize("top_k", [0, 2])
def test_filtered_tokens_are_never_drawn(top_k):
    scores = torch.tensor([[0.0, -torch.inf, 1.0, -torch.inf]]).expand(500, -1)
    sampler = KeyedDraw(Sampler(top_k=top_k), sample_keys(0, range(500)))
    drawn = sampler(torch.zeros(500, 3, dtype=torch.long), scores).argmax(-1)
    assert set(drawn.tolist()) == {0, 2}
