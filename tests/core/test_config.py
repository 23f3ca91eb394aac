from pathlib import Path

import pytest

from pal.core.config import find_config, load_settings, merge
from pal.core.errors import ConfigError
from pal.core.schema import Settings, bundled

CONFIGS = sorted(path.stem for path in bundled("configs").glob("*.yaml"))


def test_every_bundled_config_is_listed_here():
    assert CONFIGS == [
        "joint", "pal", "pal_authors", "persona_extractor", "prompt", "quickstart", "reproduce",
        "reproduce_sample", "reproduce_small", "small", "traits",
    ]  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_bundled_configs_load_and_open_with_their_command(name):
    settings = load_settings(name, check_training=True)
    assert settings.training or settings.traits.corpora
    head = find_config(name).read_text().split("\n")[:4]
    assert head[0].startswith("# ")
    assert any(f"configs/{name}.yaml" in line or f"pal {name}" in line for line in head[1:])


def test_the_papers_recipe():
    training = load_settings("pal").training
    assert (training["learning_rate"], training["warmup_steps"]) == (2.5e-5, 100)
    assert (training["per_device_train_batch_size"], training["num_train_epochs"]) == (4, 10)
    authors = load_settings("pal_authors")
    assert authors.training["learning_rate"] == 1.5e-5
    assert authors.training["warmup_steps"] == 0
    assert (authors.architecture.fusion, authors.architecture.template) == ("reference", "authors")
    assert authors.architecture.max_target_tokens == 50


def test_overrides_win_over_file_and_task_block():
    settings = load_settings(
        "small",
        [
            "task=persona_extractor",
            "training.learning_rate=1e-5",
            "architecture.vocab_size=900",
        ],
        check_training=True,
    )
    assert settings.architecture.from_scratch["model_type"] == "bart"
    assert settings.architecture.vocab_size == 900
    assert settings.training["learning_rate"] == 1e-5
    assert load_settings("small").architecture.from_scratch.get("model_type") is None


def test_a_block_of_overrides_is_for_its_task_alone():
    given = ["persona_extractor.data.train=x.csv", "data.train=y"]
    assert load_settings("small", given).data.train == "y"
    settings = load_settings("small", [*given, "task=persona_extractor"])
    assert settings.data.train == "x.csv"


def test_a_block_can_be_put_to_null():
    settings = load_settings("small", ["architecture.from_scratch=null"])
    assert settings.architecture.from_scratch is None


def test_all_mistakes_are_told_at_once_in_one_line(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(
        "sed: 3\ndata: {trian: x, split: foo}\n"
        "training: {learning_rat: 1, num_train_epochs: abc, seed: 1}\n"
        "architecture: {max_context_tokens: many}\nmax_new_tokens: 3\nlearning_rate: 1\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_settings(str(path), ["decoding.top_k=-1", "plain"], check_training=True)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "11 mistakes",
        "'plain' is not of the form key=value",
        "unknown key 'sed'; did you mean 'seed'?",
        "unknown key 'data.trian'; did you mean 'data.train'?",
        "data.split: input should be 'published' or 'seeded', got 'foo'",
        "did you mean 'training.learning_rate'?",
        "training.num_train_epochs",
        "training.seed: give the top-level setting 'seed' instead",
        "architecture.max_context_tokens",
        "decoding.top_k",
        "unknown key 'learning_rate'; did you mean 'training.learning_rate'?",
    ):
        assert part in message
    assert "annotate.max_new_tokens" in message or "decoding.max_new_tokens" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "line 1: not valid YAML"),
        ("- 1\n- 2", "expected 'key: value' lines, got list"),
        ("training: 3", "training: input should be a valid dictionary"),
        ("seed: 1.5", "seed: "),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_settings(str(path))


def test_a_bare_no_is_a_strategy_of_training():
    """YAML reads it as false; transformers knows the word only."""
    settings = load_settings("small", ["training.eval_strategy=no"], check_training=True)
    assert settings.training["eval_strategy"] == "no"


def test_bundled_corpus_by_name():
    settings = Settings(data={"train": "bundled:esconv"}, input="bundled:personachat/train.txt")
    assert Path(settings.data.train).is_dir()
    assert Path(settings.input).is_file()


def test_unknown_config_name_lists_the_bundled_ones():
    with pytest.raises(ConfigError, match=r"did you mean 'small'.*quickstart"):
        load_settings("smal")


def test_missing_settings_are_all_named():
    with pytest.raises(ConfigError, match="model=… output=…"):
        Settings(input="x").require("model", "input", "output")


def test_merge_is_deep_and_leaves_its_arguments_alone():
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merge(base, {"a": {"b": None}}) == {"a": {"b": None, "c": 2}, "d": 3}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}
