"""``import pal`` is all it takes for the library's automatic classes, and it imports nothing."""

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


NAMES = "from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer\n"


@pytest.mark.parametrize(
    "code",
    [
        f"import pal\n{NAMES}{LOAD}",
        f"{NAMES}import pal\n{LOAD}",
        f"import transformers, pal\n{NAMES}{LOAD}",
        "import pal\nfrom transformers import AutoModelForSeq2SeqLM, AutoTokenizer, AutoConfig\n"
        + LOAD,
        "import pal\nfrom transformers import BlenderbotSmallForConditionalGeneration\n"
        f"{NAMES}{LOAD}",
        f"import pal, torch, transformers.generation\n{NAMES}{LOAD}",
    ],
    ids=["before", "after", "between", "model first", "family first", "generation first"],
)
def test_a_folder_is_loaded_whichever_package_came_first(folder, code):
    found = run(code, folder)
    assert found == f"PalConfig PalForConditionalGeneration {len(small_tokenizer())}"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("AutoConfig", "PalConfig"),
        ("AutoModelForSeq2SeqLM", "PalForConditionalGeneration"),
        ("AutoTokenizer", "BlenderbotSmallTokenizer"),
    ],
)
def test_each_class_loads_alone(folder, name, kind):
    code = f"import pal\nfrom transformers import {name}\n"
    code += f"print(type({name}.from_pretrained(folder)).__name__)"
    assert run(code, folder) == kind


def test_a_configuration_made_by_hand_is_enough(folder):
    code = (
        "from pal import PalConfig\nconfig = PalConfig.from_pretrained(folder)\n"
        "from transformers import AutoConfig, AutoModelForSeq2SeqLM\n"
        "print(type(AutoModelForSeq2SeqLM.from_config(config)).__name__,\n"
        "      type(AutoConfig.for_model('pal')).__name__)"
    )
    assert run(code, folder) == "PalForConditionalGeneration PalConfig"


def test_other_families_load_as_before(folder, tmp_path):
    code = (
        "import pal\nfrom transformers import AutoConfig\n"
        "print(type(AutoConfig.for_model('bart')).__name__, AutoConfig.from_pretrained.__name__)\n"
        "print(vars(AutoConfig)['from_pretrained'].__class__.__name__)"
    )
    assert run(code).split() == ["BartConfig", "from_pretrained", "classmethod"]


@pytest.mark.parametrize("code", ["import pal", "from pal.cli import main; main(['--help'])"])
def test_nothing_heavy_is_imported(code):
    heavy = "{'torch', 'transformers', 'datasets', 'numpy', 'pandas'} & set(sys.modules)"
    assert run(f"{code}\nprint('imported:', *{heavy})").splitlines()[-1] == "imported:"
