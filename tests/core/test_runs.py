from pal.core.runs import describe_run, identity_of
from pal.core.schema import Settings


def test_record_of_a_run_hides_secrets():
    settings = Settings(training={"hub_token": "hf_secret", "learning_rate": 1})
    record = describe_run(settings, "train", "abc", samples=3)
    assert "hf_secret" not in str(record)
    assert record["settings"]["training"]["learning_rate"] == 1
    assert record["versions"]["torch"]
    assert record["samples"] == 3


def test_secrets_are_hidden_at_any_depth():
    settings = Settings(reproduce={"overrides": {"pal": {"training": {"hub_token": "hf_x"}}}})
    record = describe_run(settings, "reproduce", "abc")
    assert "hf_x" not in str(record)
    assert record["settings"]["architecture"]["max_target_tokens"] == 128  # a number, no secret


def test_identity_depends_on_the_named_settings_alone():
    one, two = Settings(seed=1), Settings(seed=1, output_dir="elsewhere")
    assert identity_of(one, "seed", x=1) == identity_of(two, "seed", x=1)
    assert identity_of(one, "seed", x=1) != identity_of(Settings(seed=2), "seed", x=1)
    assert identity_of(one, "seed", x=1) != identity_of(one, "seed", x=2)
