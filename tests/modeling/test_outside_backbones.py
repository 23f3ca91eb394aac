"""A family that a user brings, as the page on extending shows: one file of theirs."""

import json
import re
import sys

import pytest
import torch

from pal.core.errors import ConfigError
from pal.core.registry import trust
from pal.modeling.backbones import get_backbone
from pal.modeling.checkpoint import find_backbone, load_response_model
from tests.jobs import ESCONV, PROGRAM, ROOT, STREAMS, TRAIN_RESPONSE, command, python
from tests.modeling.families import build_case, published
from tests.modeling.test_auto import run

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"```python\n# my_lab_pegasus.py\n(.*?)```", PAGE, re.DOTALL)
CODE = (
    EXAMPLE
    + """
class NoConfig(Backbone):
    name = "pegasus"

class Plain(Pegasus):
    config_class = PegasusConfig

class TakenConfig(PalEntries, PegasusConfig):
    backbone = "x"

class Taken(Pegasus):
    config_class = TakenConfig

class Other:
    pass

def function():
    pass
"""
)
NAME = "my_lab_pegasus:Pegasus"


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """The folder of the user's module, which stays imported."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "my_lab_pegasus.py").write_text(CODE)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def train(folder, *more):
    sizes = ("architecture.from_scratch={d_model: 32, encoder_layers: 1, decoder_layers: 2, "
             "encoder_attention_heads: 2, decoder_attention_heads: 2, encoder_ffn_dim: 64, "
             "decoder_ffn_dim: 64, max_position_embeddings: 256}")  # fmt: skip
    return command(
        "train", *TRAIN_RESPONSE, f"architecture.backbone={NAME}", sizes,
        "data.max_train_samples=8", "data.max_validation_samples=4", f"output_dir={folder}", *more,
    )  # fmt: skip


def test_it_trains_and_its_checkpoint_loads_where_it_is_trusted(module, tmp_path):
    folder, out = tmp_path / "model", tmp_path / "out.jsonl"
    assert train(folder) == 0
    entries = json.loads((folder / "config.json").read_text())
    assert (entries["model_type"], entries["backbone"]) == ("pal-pegasus", NAME)
    # in other processes, where nobody has named the class yet
    generate = [
        "generate", f"model={folder}", f"input={ESCONV}", "split=test", "limit=2", f"output={out}",
    ]  # fmt: skip
    program = f"import sys; sys.path.insert(0, {str(module)!r})\n{PROGRAM}"
    refused = python(program, *generate, **STREAMS)
    errors = refused.communicate()[1]
    assert refused.returncode == 2
    [line] = [line for line in errors.splitlines() if "error" in line]
    assert f"give trusted_code={NAME} if you trust it" in line
    assert not out.exists()
    allowed = python(program, *generate, f"trusted_code=[{NAME}]", **STREAMS)
    assert allowed.wait() == 0, allowed.communicate()[1]
    assert len(out.read_text().splitlines()) == 2
    load = (
        f"sys.path.insert(0, {str(module)!r})\nimport pal\n"
        "from transformers import AutoModelForSeq2SeqLM\n"
        "from pal.modeling.backbones import get_backbone\n"
        f"get_backbone({NAME!r}, trusted=True)\n"
        "print(type(AutoModelForSeq2SeqLM.from_pretrained(folder)).__name__)"
    )
    assert run(load, folder) == "PalPegasus"


def test_training_goes_on_from_its_checkpoint(module, tmp_path):
    first = tmp_path / "model"
    again = ["architecture.from_scratch=null", f"architecture.base={first}"]
    assert train(first) == 0
    assert train(tmp_path / "more", *again, "training.learning_rate=0") == 0
    trust(NAME)
    one, two = (load_response_model(str(tmp_path / name)) for name in ("model", "more"))
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, two.state_dict()[name])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("brat", "architecture.backbone: unknown backbone 'brat'; did you mean 'bart'"),
        ("my_lab_pegasus:Nobody", "cannot be imported: AttributeError"),
        ("no_such_lab:Pegasus", "cannot be imported: ModuleNotFoundError"),
        ("my_lab_pegasus:function", "is not a class but a function"),
        ("my_lab_pegasus:Other", "is not a subclass of pal.modeling.backbones.base.Backbone"),
        ("my_lab_pegasus:NoConfig", "has no config_class; see"),
        ("my_lab_pegasus:Plain", "without pal.modeling.configuration.PalEntries"),
        ("my_lab_pegasus:Taken", "with the model_type 'pegasus', which is another model's"),
    ],
)
def test_what_is_no_family_is_refused_in_one_line(module, tmp_path, capsys, name, message):
    assert train(tmp_path / "model", f"architecture.backbone={name}") == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "model").exists()


def test_a_checkpoint_names_no_code_for_a_known_family(tmp_path):
    build_case("bart").save_pretrained(tmp_path)
    entries = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**entries, "backbone": "antigravity:Evil"}))
    assert type(load_response_model(str(tmp_path))).__module__.startswith("pal.")
    assert "antigravity" not in sys.modules


def test_the_family_is_that_of_the_base(tmp_path, capsys):
    published("t5").save_pretrained(tmp_path)
    assert find_backbone(str(tmp_path), None).name == "t5"
    assert find_backbone(str(tmp_path), None, "t5") is get_backbone("t5")
    arguments = [*TRAIN_RESPONSE, "architecture.from_scratch=null",
                 f"architecture.base={tmp_path}", f"output_dir={tmp_path / 'out'}"]  # fmt: skip
    assert command("train", *arguments, "architecture.backbone=bart") == 2
    assert "a t5 model, and architecture.backbone=bart builds on bart models" in (
        capsys.readouterr().err
    )
    entries = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**entries, "model_type": "mbart"}))
    assert command("train", *arguments) == 2
    found = capsys.readouterr().err
    assert "a mbart model; PAL builds on blenderbot-small, bart, t5, blenderbot" in found
    with pytest.raises(ConfigError, match=r"model_type=t5 of others; leave one out"):
        find_backbone("", {"model_type": "t5"}, "bart")
