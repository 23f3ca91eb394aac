"""Fixtures shared by all tests; real corpora and golden files are read where they lie."""

import os
import random
import signal
import sys
from pathlib import Path

import pytest

# A run that was started in the background ignores interrupts, and so would what it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # one core a worker; threads that wait would spin
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")  # as pal.cli does; read at the first product
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("WANDB_MODE", "offline")

BESIDE = Path(__file__).resolve().parents[2] / "shared"


def _beside(name: str) -> Path:
    folder = BESIDE / name
    if not folder.is_dir():
        pytest.skip(f"{name} files are not beside this checkout (../shared/{name})")
    return folder


@pytest.fixture(autouse=True)
def _nobody_is_trusted(monkeypatch):
    """What one test trusts, another does not."""
    monkeypatch.setattr("pal.core.registry._trusted", set())


@pytest.fixture(autouse=True)
def _draws_of_its_own():
    """What a test draws depends on no other test."""
    random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real corpora and the published tokenizer's files."""
    return _beside("data")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Numbers computed by the authors' own code."""
    return _beside("golden")


@pytest.fixture(scope="session")
def response_model(tmp_path_factory) -> Path:
    """A response model trained for a moment on the bundled corpus."""
    from tests.jobs import TRAIN_RESPONSE, command

    folder = tmp_path_factory.mktemp("trained") / "model"
    assert command("train", *TRAIN_RESPONSE, f"output_dir={folder}") == 0
    return folder


@pytest.fixture(scope="session")
def extractor_model(tmp_path_factory) -> Path:
    """A persona extractor trained for a moment on the bundled corpus."""
    from tests.jobs import TRAIN_EXTRACTOR, command

    folder = tmp_path_factory.mktemp("trained") / "extractor"
    assert command("train", *TRAIN_EXTRACTOR, f"output_dir={folder}") == 0
    return folder


@pytest.fixture(scope="session")
def language_model(tmp_path_factory) -> Path:
    """A decoder-only response model trained for a moment on the bundled corpus."""
    from tests.jobs import TRAIN_LANGUAGE, command
    from tests.modeling.languages import chat_tokenizer, tiny

    base = tmp_path_factory.mktemp("base")
    tiny("llama", initializer_range=0.08).save_pretrained(base)
    chat_tokenizer().save_pretrained(base)
    folder = tmp_path_factory.mktemp("trained") / "language"
    arguments = [*TRAIN_LANGUAGE, f"architecture.base={base}", f"output_dir={folder}"]
    assert command("train", *arguments) == 0
    return folder
