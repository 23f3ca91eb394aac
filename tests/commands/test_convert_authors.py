"""``pal convert-authors``: which files are taken, what comes out, what is refused."""

import pytest
import torch
from safetensors.torch import save_file

from pal.modeling.checkpoint import load_response_model
from tests.commands.authors import authors_weights, write_config
from tests.jobs import command


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path / "config.json")


def convert(source, config, output, *more):
    return command("convert-authors", source, f"config={config}", f"output={output}", *more)


def test_pickled_and_safe_weights_give_the_same_model(tmp_path, config):
    weights = authors_weights()
    save_file(weights, tmp_path / "theirs.safetensors")
    torch.save(weights, tmp_path / "theirs.bin")
    for name in ("theirs.safetensors", "theirs.bin"):
        assert convert(tmp_path / name, config, tmp_path / f"from-{name}") == 0
    one, two = (
        load_response_model(str(tmp_path / f"from-theirs.{kind}"))
        for kind in ("safetensors", "bin")
    )
    assert (one.config.fusion, one.config.template) == ("reference", "authors")
    assert list(one.config.alpha) == [0.5] * 8
    assert all(torch.equal(a, two.state_dict()[n]) for n, a in one.state_dict().items())
    assert not list((tmp_path / "from-theirs.bin").glob("*.bin"))
