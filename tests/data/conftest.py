import logging

import pytest


@pytest.fixture(autouse=True)
def messages_are_seen(monkeypatch):
    """Commands of other tests may have led the project's messages past pytest."""
    monkeypatch.setattr(logging.getLogger("pal"), "propagate", True)
