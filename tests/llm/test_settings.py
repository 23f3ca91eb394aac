import pytest

from pal.config import load_settings
from pal.core.errors import ConfigError
from pal.llm.settings import LlmSettings


@pytest.mark.parametrize("command", [None, "traits measure", "annotate"])
def test_a_key_of_earlier_days_is_still_read(tmp_path, command, caplog):
    (tmp_path / "a.yaml").write_text("llm: {tries: 3, backoff: 2}\n")
    for config, overrides, expected in (
        (None, ["llm.tries=2"], 2), (str(tmp_path / "a.yaml"), [], 3),
        (str(tmp_path / "a.yaml"), ["llm.max_attempts=4"], 4), ({"llm": {"tries": 5}}, [], 5),
    ):  # fmt: skip
        caplog.clear()
        settings = load_settings(config, overrides, command=command)
        assert settings.llm.max_attempts == expected
        assert "llm.tries is now called llm.max_attempts" in caplog.text


def test_an_earlier_key_beside_todays_is_refused():
    with pytest.raises(ConfigError, match=r"llm\.tries and llm\.max_attempts are the same setting"):
        load_settings({"llm": {"tries": 1, "max_attempts": 2}})


def test_an_address_loses_the_slash_at_its_end():
    assert LlmSettings(base_url="http://localhost:8000/v1/").base_url == "http://localhost:8000/v1"


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "ftp://host/v1", "http://", "http://host:99999999/v1", "http://[::1/v1",
     "https://host/v1?x=1", "https://host/v1#a", "https://a@host/v1", "http://ho st/v1", "http:///"],
)  # fmt: skip
def test_what_is_no_address_of_an_endpoint_is_refused(url):
    with pytest.raises(ConfigError, match=r"llm\.base_url: expected http://HOST:PORT/v1"):
        load_settings({"llm": {"base_url": url}})


def test_settings_that_are_set_in_python_count_and_are_checked():
    from pal.traits.measure import measure

    settings = load_settings(None, ["input=cards.jsonl"])
    settings.traits.form = "long"
    with pytest.raises(ConfigError, match=r"traits\.form: .*'full' or 'short', got 'long'"):
        measure(settings)
