"""MISC through the commands: trained, resumed, answered with, and as a system of the benchmark."""

import json
import logging
import shutil

import pytest

from pal.benchmark.settings import BenchmarkSettings
from pal.benchmark.systems import choose_systems
from pal.commands import load_settings
from pal.commands.reproduce import check_plan, stage_settings
from pal.core.errors import ConfigError
from pal.core.files import read_json, read_jsonl, write_jsonl
from pal.data.esconv import load_esconv
from pal.knowledge.queries import knowledge_queries
from tests.jobs import ESCONV, TRAIN_RESPONSE, command

MISC = ["architecture.backbone=misc"]


def write_stub(path):
    """Knowledge that is invented from the letters of a text, about nine texts in ten."""
    rows = [row for split in ("train", "validation", "test")
            for row in load_esconv(ESCONV / f"{split}.jsonl", requests=True)]  # fmt: skip
    tails = ["sad", "to rest", "worried", "lonely", "to find help"]
    write_jsonl(path, [
        {"text": text, "relations": {"xReact": [tails[len(text) % 5]],
                                     "oWant": [tails[len(text) % 3]]}}
        for text in knowledge_queries(rows) if len(text) % 10
    ])  # fmt: skip
    return path


@pytest.fixture(scope="module")
def knowledge(tmp_path_factory):
    return write_stub(tmp_path_factory.mktemp("knowledge") / "k.jsonl")


@pytest.fixture(scope="module")
def trained(knowledge, tmp_path_factory):
    """A MISC trained for a moment, in mode ``released``: it has statistics of its own to keep."""
    folder = tmp_path_factory.mktemp("misc") / "model"
    assert command("train", *TRAIN_RESPONSE, *MISC, f"data.knowledge={knowledge}",
                   "architecture.misc_mode=released", "training.save_strategy=epoch",
                   f"output_dir={folder}") == 0  # fmt: skip
    return folder


def test_training_lowers_the_loss_and_a_stopped_run_becomes_the_same(trained, knowledge, tmp_path):
    log = read_json(trained / "training_log.json")
    losses = [entry["eval_nll"] for entry in log if "eval_nll" in entry]
    assert losses[-1] < losses[0]
    assert any("eval_strategy_accuracy" in entry for entry in log)
    again = tmp_path / "model"
    shutil.copytree(trained, again)
    (again / "run.json").unlink()  # as a run that was killed in its second epoch
    (again / "model.safetensors").unlink()
    *_, last = sorted(again.glob("checkpoint-*"), key=lambda one: int(one.name[11:]))
    started = {name: read_json(trained / "run.json")[name] for name in (
        "identity", "number_format", "number_format_chosen_by", "processes", "devices", "launcher",
    ) if name in read_json(trained / "run.json")}  # fmt: skip
    (again / "started.json").write_text(json.dumps(started))
    shutil.rmtree(last)
    assert command("train", *TRAIN_RESPONSE, *MISC, f"data.knowledge={knowledge}",
                   "architecture.misc_mode=released", "training.save_strategy=epoch",
                   f"output_dir={again}") == 0  # fmt: skip
    for name in ("model.safetensors", "config.json"):
        assert (again / name).read_bytes() == (trained / name).read_bytes()


def test_answers_are_a_function_of_the_sample(trained, knowledge, tmp_path):
    base = ["generate", f"model={trained}", f"input={ESCONV / 'test.jsonl'}", "limit=9",
            f"data.knowledge={knowledge}", "decoding.max_new_tokens=12"]  # fmt: skip
    assert command(*base, f"output={tmp_path / 'a.jsonl'}") == 0
    assert command(*base, f"output={tmp_path / 'b.jsonl'}", "batch_rows=2") == 0
    one, two = ([row for _, row in read_jsonl(tmp_path / f"{n}.jsonl")] for n in "ab")
    assert [row["response"] for row in one] == [row["response"] for row in two]
    assert len(one) == 9
    assert {row["alpha"] for row in one} == {0.0}


def test_without_knowledge_it_answers_and_says_so(trained, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    assert command("generate", f"model={trained}", f"input={ESCONV / 'test.jsonl'}", "limit=2",
                   f"output={tmp_path / 'a.jsonl'}", "decoding.max_new_tokens=12") == 0  # fmt: skip
    assert "responds without any knowledge" in caplog.text


def test_it_talks(trained):
    import pal

    session = pal.load(trained)
    assert session


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["data.knowledge=KNOWLEDGE"], "only MISC reads data.knowledge"),
        (["architecture.misc_mode=paper"], "architecture.misc_mode is for MISC"),
        ([*MISC, "architecture.misc_mode=best"], "architecture.misc_mode"),
        ([*MISC, "architecture.persona_mode=fusion"], "MISC sees no persona"),
        ([*MISC, "data.knowledge=none.jsonl"], "none.jsonl"),
        ([*MISC, "data.knowlege=KNOWLEDGE"], "data.knowledge"),
    ],
)
def test_mistakes_end_in_one_line(options, message, knowledge, tmp_path, capsys):
    options = [option.replace("KNOWLEDGE", str(knowledge)) for option in options]
    assert command("train", *TRAIN_RESPONSE, *options, f"output_dir={tmp_path / 'm'}") == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_other_models_refuse_knowledge(response_model, knowledge, tmp_path, capsys):
    assert command("generate", f"model={response_model}", f"input={ESCONV / 'test.jsonl'}",
                   f"data.knowledge={knowledge}", f"output={tmp_path / 'o'}") == 2  # fmt: skip
    assert "data.knowledge is for MISC" in capsys.readouterr().err.strip().splitlines()[-1]


# The benchmark.


def test_without_knowledge_the_system_says_that_it_is_an_ablation(knowledge):
    chosen = BenchmarkSettings(systems=["misc", "misc_released", "misc_no_knowledge", "joint"])
    labels = [system.label for system in choose_systems(chosen).values()]
    assert labels == ["MISC, no knowledge", "MISC, released code, no knowledge",
                      "MISC, no knowledge", "Blenderbot-Joint"]  # fmt: skip
    labels = [s.label for s in choose_systems(chosen, knowledge=str(knowledge)).values()]
    assert labels == [
        "MISC", "MISC, released code", "MISC, no knowledge", "Blenderbot-Joint",
    ]  # fmt: skip


def test_knowledge_goes_to_misc_alone(knowledge):
    systems = ["misc", "misc_no_knowledge", "pal"]
    settings = load_settings("reproduce", "reproduce_sample", fixed={
        "data": {"knowledge": str(knowledge)}, "reproduce": {"systems": systems},
    })  # fmt: skip
    found = choose_systems(settings.reproduce, knowledge=settings.data.knowledge)
    check_plan(settings, found)
    given = [
        [stage_settings(settings, stage, system=found[name]).data.knowledge is not None
         for stage in ("train", "generate")]
        for name in systems
    ]  # fmt: skip
    assert given == [[True, True], [False, False], [False, False]]
    misc = stage_settings(settings, "generate", system=found["misc"])
    assert (misc.decoding.top_p, misc.decoding.top_k) == (0.3, 30)


def test_what_misc_cannot_decode_is_found_before_training():
    settings = load_settings("reproduce", "reproduce_sample", fixed={
        "decoding": {"num_beams": 4, "do_sample": False}, "reproduce": {"systems": ["misc"]},
    })  # fmt: skip
    with pytest.raises(ConfigError, match=r"reproduce\.systems: misc: decoding\.num_beams=4"):
        check_plan(settings, choose_systems(settings.reproduce))
