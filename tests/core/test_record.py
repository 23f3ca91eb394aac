"""What the record of a run says, and what it keeps to itself."""

import json
from typing import Any

from pal.core.job import Job, redact
from pal.core.settings import CommandSettings


class MixSettings(CommandSettings):
    """Mix.

    Attributes:
        seed: of the draw.
        options: of a library.
        tokens: how many.
    """

    seed: int = 1
    options: dict[str, Any] = {}
    tokens: int = 128


def record_of(**values):
    return Job("mix", MixSettings(**values), "out").describe(samples=3)


def test_a_record_names_settings_versions_and_facts():
    record = record_of(seed=7, options={"learning_rate": 1})
    assert record["settings"] == {"seed": 7, "options": {"learning_rate": 1}, "tokens": 128}
    assert (record["command"], record["seed"], record["samples"]) == ("mix", 7, 3)
    assert record["versions"]["torch"]
    assert record["made_of"]["seed"] == 7


def test_secrets_are_hidden_at_any_depth():
    hidden = {"runs": [{"training": {"hub_token": "hf_x"}}], "api_key": "sk_y", "password": "z"}
    text = json.dumps(record_of(options=hidden))
    assert "hf_x" not in text
    assert "sk_y" not in text
    assert redact(hidden)["password"] is None
    assert record_of(tokens=64)["settings"]["tokens"] == 64  # a number is no secret


def test_a_record_has_addresses_without_their_passwords():
    given = {"headers": {"Authorization": "Bearer sk_y"}, "from": "https://me:sk_z@example.org/x"}
    record = record_of(options=given)
    assert "sk_" not in json.dumps(record)
    assert record["settings"]["options"]["from"] == "https://***@example.org/x"
