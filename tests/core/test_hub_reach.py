"""Without a network, hub names are looked for on this machine at once."""

import contextlib
import socket
import time

import pytest
from huggingface_hub import constants

from pal.core import hub
from pal.core.errors import PalError
from pal.data.esconv import load_esconv
from pal.data.tokenizer import load_tokenizer
from pal.metrics import load_embedder
from pal.modeling.checkpoint import read_model_config
from tests.hub import serve


@pytest.fixture(autouse=True)
def online(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    hub.is_reachable.cache_clear()


def refusing_address():
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def nothing_there(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", refusing_address())


LOADERS = {
    "encoder": load_embedder,
    "model": lambda name: read_model_config(name, f"model={name}"),
    "tokenizer": load_tokenizer,
    "dialogues": load_esconv,
}


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
def test_a_name_is_given_up_at_once_where_nothing_answers(monkeypatch, load):
    nothing_there(monkeypatch)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail(f"it waits {seconds} s"))
    began = time.monotonic()
    with pytest.raises(PalError) as caught:
        load("some-lab/some-model")
    assert time.monotonic() - began < 20
    assert "\n" not in str(caught.value)
    assert constants.HF_HUB_OFFLINE


def test_what_is_left_out_is_said_once(monkeypatch):
    nothing_there(monkeypatch)
    said = []
    monkeypatch.setattr(hub.logger, "warning", lambda text, *values: said.append(text % values))
    hub.go_offline_without_network("some-lab/some-model")
    hub.go_offline_without_network("some-lab/another-model")
    assert said == [
        f"no connection to {constants.ENDPOINT}: only what was downloaded before is used"
    ]


def test_with_a_network_nothing_changes(monkeypatch):
    with serve({}) as (address, asked):  # it answers every path with "not found"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        hub.go_offline_without_network("some-lab/some-model")
        hub.go_offline_without_network("some-lab/another-model")
        assert not constants.HF_HUB_OFFLINE
        assert len(asked) == 1


def test_a_folder_asks_nobody(monkeypatch, tmp_path):
    nothing_there(monkeypatch)
    hub.go_offline_without_network(str(tmp_path))
    assert not constants.HF_HUB_OFFLINE
