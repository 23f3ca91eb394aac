"""``import pal`` is all it takes for the library's automatic classes, and it imports nothing."""

import json
import subprocess
import sys

import pytest

from tests.jobs import environment
from tests.modeling.small import build, small_tokenizer

LOAD = (
    "config = AutoConfig.from_pretrained(folder)\n"
    "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
    "model = AutoModelForSeq2SeqLM.from_pretrained(folder)\n"
    "print(type(config).__name__, type(model).__name__, len(tokenizer))\n"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved")
    build(small_tokenizer()).save_pretrained(path)
    small_tokenizer().save_pretrained(path)
    return path


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; folder = sys.argv[-1]\n{code}", *map(str, arguments)],
        capture_output=True, text=True, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# Runs each in a process of its own, which has what both packages import, but neither of them.
EACH = """
import json, os, sys
import accelerate, scipy.optimize, torch._dynamo, torch.distributed.tensor
assert not {"pal", "transformers"} & set(sys.modules)
for name, code in json.loads(sys.argv[1]).items():
    if not os.fork():
        print(name, end="=", flush=True)
        exec(code)
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""
NAMES = "from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer\n"
ORDERS = {
    "before": f"import pal\n{NAMES}{LOAD}",
    "after": f"{NAMES}import pal\n{LOAD}",
    "between": f"import transformers, pal\n{NAMES}{LOAD}",
    "model first": "import pal\nfrom transformers import AutoModelForSeq2SeqLM, AutoTokenizer, "
    f"AutoConfig\n{LOAD}",
    "family first": "import pal\nfrom transformers import BlenderbotSmallForConditionalGeneration\n"
    f"{NAMES}{LOAD}",
    "generation first": f"import pal, torch, transformers.generation\n{NAMES}{LOAD}",
}
ALONE = {
    "AutoConfig": "PalConfig",
    "AutoModelForSeq2SeqLM": "PalForConditionalGeneration",
    "AutoTokenizer": "BlenderbotSmallTokenizer",
}
BY_HAND = (
    "from pal import PalConfig\nconfig = PalConfig.from_pretrained(folder)\n"
    "from transformers import AutoConfig, AutoModelForSeq2SeqLM\n"
    "print(type(AutoModelForSeq2SeqLM.from_config(config)).__name__,\n"
    "      type(AutoConfig.for_model('pal')).__name__)"
)
OTHERS = (
    "import pal\nfrom transformers import AutoConfig\n"
    "print(type(AutoConfig.for_model('bart')).__name__, AutoConfig.from_pretrained.__name__,\n"
    "      vars(AutoConfig)['from_pretrained'].__class__.__name__)"
)


@pytest.fixture(scope="module")
def printed(folder):
    """What each code prints, by name."""
    alone = {
        name: f"import pal\nfrom transformers import {name}\n"
        f"print(type({name}.from_pretrained(folder)).__name__)"
        for name in ALONE
    }
    codes = {**ORDERS, **alone, "by hand": BY_HAND, "others": OTHERS}
    lines = run(EACH, json.dumps(codes), folder).splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_a_folder_is_loaded_by_a_fresh_process(folder):
    found = run(ORDERS["before"], folder)
    assert found == f"PalConfig PalForConditionalGeneration {len(small_tokenizer())}"


@pytest.mark.parametrize("order", ORDERS)
def test_a_folder_is_loaded_whichever_package_came_first(printed, order):
    found = f"PalConfig PalForConditionalGeneration {len(small_tokenizer())}"
    assert printed[order] == found


@pytest.mark.parametrize(("name", "kind"), ALONE.items())
def test_each_class_loads_alone(printed, name, kind):
    assert printed[name] == kind


def test_a_configuration_made_by_hand_is_enough(printed):
    assert printed["by hand"] == "PalForConditionalGeneration PalConfig"


def test_other_families_load_as_before(printed):
    assert printed["others"] == "BartConfig from_pretrained classmethod"


@pytest.mark.parametrize("code", ["import pal", "from pal.cli import main; main(['--help'])"])
def test_nothing_heavy_is_imported(code):
    heavy = "{'torch', 'transformers', 'datasets', 'numpy', 'pandas'} & set(sys.modules)"
    assert run(f"{code}\nprint('imported:', *{heavy})").splitlines()[-1] == "imported:"
