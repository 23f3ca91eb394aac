"""The process that results come from is set up once, early, or says that it was late."""

import io
import logging
import os
import sys
import warnings

import pytest

from pal.core.runtime import ENVIRONMENT, configure_runtime, show_messages


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


@pytest.fixture
def messages():
    """The project's logger, whose handlers are afterwards what they were."""
    logger = logging.getLogger("pal")
    before = (list(logger.handlers), logger.propagate, logger.level)
    yield logger
    logger.handlers[:], logger.propagate = before[0], before[1]
    logger.setLevel(before[2])


def test_a_warning_is_one_line_whatever_it_quotes(messages, capsys):
    show_messages()
    messages.warning("%s: no persona at https://me:pw@example.org", "a\nb\x1b[1m.csv")
    messages.info("two cards\n- one failed")
    told = "a\\nb\\x1b[1m.csv: no persona at https://***@example.org\ntwo cards\n- one failed\n"
    assert capsys.readouterr().err == told


def test_a_stream_that_was_closed_costs_no_traceback(messages, monkeypatch):
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", first)
    show_messages()
    first.close()
    monkeypatch.setattr(sys, "stderr", second)
    messages.error("seen")
    show_messages()
    messages.error("seen once")
    assert second.getvalue() == "seen\nseen once\n"


def test_attention_that_plans_for_every_shape_is_off_where_work_begins():
    import torch

    from pal.core.job import process_state

    torch.backends.cuda.enable_cudnn_sdp(True)
    process_state()
    assert not torch.backends.cuda.cudnn_sdp_enabled()
