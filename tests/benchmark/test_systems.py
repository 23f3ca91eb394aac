import pytest

from pal.benchmark.settings import BenchmarkSettings
from pal.benchmark.systems import SYSTEMS, TABLE_3, choose_systems, printed_row
from pal.commands import load_settings
from pal.commands.reproduce import check_plan
from pal.core.errors import ConfigError
from pal.core.registry import Registry
from pal.metrics import find_metric


@pytest.mark.parametrize("name", SYSTEMS)
def test_settings_of_every_system_are_valid(name):
    settings = load_settings("reproduce", "small", fixed=SYSTEMS[name].settings)
    if SYSTEMS[name].asked:
        assert load_settings("answer", "small", fixed=SYSTEMS[name].settings)
        assert set(SYSTEMS[name].settings) <= {"llm", "supporter"}
        return
    fusion = name not in ("joint", "prompt", "lm_joint", "lm_prompt", "lm_pal") and (
        not name.startswith("misc")
    )
    assert (settings.architecture.persona_mode == "fusion") == fusion


def test_printed_rows_are_table_3():
    assert all(find_metric(key) for key in TABLE_3)
    assert printed_row("pal")["distinct_2"] == 30.27
    assert printed_row("MISC")["ppl"] == 16.28
    assert printed_row("no_weights") is None


def test_alpha_0_is_pal_without_any_contrast():
    pal, without = (
        load_settings("reproduce", "small", fixed=SYSTEMS[n].settings)
        for n in ("pal", "pal_alpha_0")
    )
    assert pal.architecture == without.architecture  # so they share one training
    assert (without.decoding.alpha, without.decoding.strategy_alpha) == (0, 0)


def test_systems_of_ones_own():
    found = choose_systems(
        BenchmarkSettings(
            systems=["pal", "tuned", "prompt"],
            overrides={
                "tuned": {"base": "pal", "label": "PAL (tuned)", "decoding": {"alpha": 0.5}},
                "prompt": {"training": {"learning_rate": 1e-4}},
            },
        )
    )
    assert found["tuned"].label == "PAL (tuned)"
    assert found["tuned"].settings["decoding"] == {"alpha": 0.5}
    assert found["tuned"].settings["architecture"] == {"persona_mode": "fusion"}
    assert found["prompt"].label == "Hard Prompt"
    assert found["prompt"].settings["training"] == {"learning_rate": 1e-4}
    assert "training" not in SYSTEMS["prompt"].settings


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"systems": ["pall"]}, "unknown system 'pall'; did you mean 'pal'"),
        ({"systems": ["pal", "pal"]}, "'pal' is named twice"),
        ({"systems": ["pal"], "outside": {"pal": "x"}}, "'pal' is named twice"),
        ({"systems": ["pal"], "overrides": {"joint": {}}}, "'joint' is not in reproduce.systems"),
        (
            {"systems": ["pal"], "overrides": {"pal": {"seed": 1}}},
            "'seed' cannot be set for one",
        ),
        ({"systems": []}, "reproduce.systems is empty"),
    ],
)
def test_mistakes(chosen, message):
    with pytest.raises(ConfigError, match=message):
        choose_systems(BenchmarkSettings(**chosen))


def test_a_family_that_cannot_be_imported_is_found_before_any_work():
    settings = load_settings("reproduce", "small", ["architecture.backbone=my_lab.models:Mine"])
    settings.training.pop("save_total_limit", None)
    with pytest.raises(ConfigError, match=r"architecture\.backbone.*cannot be imported"):
        check_plan(settings, choose_systems(BenchmarkSettings(systems=["pal"])))


@pytest.mark.parametrize(("name", "words"), [("lm_pal", "decoder-only"), ("pal", "encoder")])
def test_a_system_of_another_family_than_the_base_is_found_before_any_work(name, words):
    model_type = "blenderbot-small" if name == "lm_pal" else "llama"
    sizes = f"architecture.from_scratch={{model_type: {model_type}}}"
    settings = load_settings("reproduce", None, [sizes])
    with pytest.raises(ConfigError, match=f"{name} needs an? {words}"):
        check_plan(settings, choose_systems(BenchmarkSettings(systems=[name])))


@pytest.mark.parametrize("key", ["fusion", "template"])
def test_checkpoints_of_the_benchmark_may_name_the_classes_that_its_settings_name(key):
    name = "my_lab.models:Mine"
    settings = load_settings("reproduce", "small", [f"architecture.{key}={name}"])
    settings.training.pop("save_total_limit", None)
    check_plan(settings, choose_systems(BenchmarkSettings(systems=["pal"])))
    with pytest.raises(ConfigError, match="cannot be imported"):  # and not: it is not trusted
        Registry(key, {}).find(name, trusted=False)
