"""The process that results come from is set up once, early, or says that it was late."""

import os
import sys
import warnings

import pytest

from pal.core.runtime import ENVIRONMENT, configure_runtime


@pytest.fixture
def unset(monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)


def test_early_it_is_silent_and_leaves_what_the_user_set(unset, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        configure_runtime()
    expected = {**ENVIRONMENT, "TRANSFORMERS_VERBOSITY": "info"}
    assert {name: os.environ[name] for name in ENVIRONMENT} == expected


def test_after_torch_it_says_what_may_differ(unset, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", object())
    with pytest.warns(UserWarning, match="was called after torch was imported"):
        configure_runtime()
    with warnings.catch_warnings():  # once
        warnings.simplefilter("error")
        configure_runtime()
