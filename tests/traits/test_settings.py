"""Every step has the keys that it uses, and what they name is part of what it made."""

import shutil
from pathlib import Path

import pytest

from pal.commands import load_settings
from pal.core.errors import ConfigError, DataError, OutputError
from pal.core.files import read_json, read_jsonl, write_jsonl
from pal.traits import steps
from pal.traits.consistency import compare_measurements
from pal.traits.correlations import correlate
from pal.traits.inventories import FOLDER
from pal.traits.measure import measure
from pal.traits.synthesis import synthesize
from tests.jobs import ESCONV, command
from tests.traits.fakes import FakeModel, World, planted
from tests.traits.test_cards import card


@pytest.fixture
def model(monkeypatch):
    fake = FakeModel(World(planted(40)))
    monkeypatch.setattr(steps, "connect", lambda llm, dtype: fake)
    return fake


@pytest.mark.parametrize(
    ("action", "override", "owner"),
    [
        ("measure", "traits.days=5", "traits continue"),
        ("filter", "traits.form=short", "traits measure"),
        ("correlate", "llm.model=m", "annotate"),
        ("strategies", "seed=3", "traits expand"),
        ("cards", "traits.temperature=1", "traits expand"),
        ("stats", "limit=3", "annotate"),
    ],
)
def test_a_key_of_another_step_is_refused_with_the_step_that_has_it(
    capsys, action, override, owner
):
    assert command("traits", action, override) == 2
    error = capsys.readouterr().err
    assert f"{override.partition('=')[0]!r} is a setting of" in error
    assert owner in error


def inventory(folder, name):
    return Path(shutil.copy(FOLDER / f"{name}.yaml", folder))


def edit(path):
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("keyed: -1", "keyed: 1", 1), encoding="utf-8")


@pytest.mark.parametrize("step", ["measure", "correlate", "compare"])
def test_an_inventory_counts_by_its_contents(model, tmp_path, step):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    files = [inventory(tmp_path / "here", name) for name in ("hexaco", "csi")]
    write_jsonl(tmp_path / "cards.jsonl", [card(n) for n in range(6)])

    def run(action, function, output, *more, inventories=files):
        names = ", ".join(map(str, inventories))
        function(
            load_settings(
                f"traits {action}", None,
                [f"output={tmp_path / output}", f"traits.inventories=[{names}]", *more],
            )
        )  # fmt: skip

    source = f"input={tmp_path / 'cards.jsonl'}"
    run("measure", measure, "m.jsonl", source)
    steps_ = {
        "measure": ("measure", measure, "m.jsonl", source),
        "correlate": ("correlate", correlate, "r.json", f"input={tmp_path / 'm.jsonl'}",
                      "statistics.resamples=100"),
        "compare": ("compare", compare_measurements, "c.json", f"input={tmp_path / 'm.jsonl'}",
                    f"traits.before={tmp_path / 'm.jsonl'}", "statistics.resamples=100"),
    }  # fmt: skip
    call = steps_[step]
    run(*call)
    asked = len(model.asked)
    moved = [Path(shutil.copy(path, tmp_path / "there")) for path in files]
    run(*call, inventories=moved)  # the same contents elsewhere
    run(*call, inventories=["hexaco", "csi"])
    assert len(model.asked) == asked
    edit(moved[0])
    with pytest.raises(OutputError, match=r"differs: traits\.inventories"):
        run(*call, inventories=moved)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"dataset": ["d"]}, r"line 1: 'dataset' must be text, got \['d'\]"),
        ({"problem": 3}, "line 1: 'problem' must be text, got 3"),
        ({"traits": ["kind"]}, "line 1: 'traits' must map inventories"),
        ({"traits": {"hexaco": "kind"}}, "line 1: 'traits' must map inventories"),
        ({"traits": {"hexaco": {"H": 3}}}, "line 1: 'traits' must map inventories"),
    ],
)
def test_a_card_with_odd_fields_is_named(model, tmp_path, more, message):
    write_jsonl(tmp_path / "cards.jsonl", [card(0, **more)])
    given = [f"input={tmp_path / 'cards.jsonl'}", f"output={tmp_path / 'o.jsonl'}"]
    for action, function in (("measure", measure), ("synthesize", synthesize)):
        with pytest.raises(DataError, match=message):
            function(load_settings(f"traits {action}", None, given))


@pytest.mark.parametrize(
    "line",
    ['{"id": "1", "description": NaN}', '{"id": "1", "description": "\\ud800"}',
     '{"id": "1", "description": "x", "traits": {"a": 1e999}}', '{"id": 1, "description": "x"}'],
)  # fmt: skip
def test_a_card_that_is_no_text_is_named(tmp_path, line):
    (tmp_path / "cards.jsonl").write_text(line + "\n")
    given = [f"input={tmp_path / 'cards.jsonl'}", f"output={tmp_path / 'o.jsonl'}"]
    with pytest.raises(DataError, match="line 1: ") as caught:
        measure(load_settings("traits measure", None, given))
    assert "\n" not in str(caught.value)


def test_a_data_set_that_is_a_number_is_its_text(model, tmp_path):
    cards = [card(0, dataset=7), card(1, dataset=7, problem=None, traits=None)]
    write_jsonl(tmp_path / "cards.jsonl", cards)
    given = [f"input={tmp_path / 'cards.jsonl'}", f"output={tmp_path / 'o.jsonl'}"]
    synthesize(load_settings("traits synthesize", None, given))
    assert {row["dataset"] for _, row in read_jsonl(tmp_path / "o.jsonl")} == {"7"}


def test_cards_of_a_prefix_know_no_more_than_was_said(model, tmp_path):
    from pal.traits.cards import cards

    given = [f"input={ESCONV / 'test.jsonl'}", "limit=2"]
    whole = [*given, f"output={tmp_path / 'whole.jsonl'}"]
    cards(load_settings("traits cards", None, whole))
    cut = [*given, "traits.prefix_turns=3", f"output={tmp_path / 'cut.jsonl'}"]
    cards(load_settings("traits cards", None, cut))
    texts = [dict(request.messages)["user"] for request in model.asked]
    assert [text.count("\n") for text in texts[2:]] == [4, 4]  # three turns between two tags
    assert all(long.startswith(short[:-8]) for long, short in zip(texts, texts[2:], strict=False))
    assert [row["turns"] for _, row in read_jsonl(tmp_path / "cut.jsonl")] == [3, 3]
    assert not any("turns" in row for _, row in read_jsonl(tmp_path / "whole.jsonl"))
    posts = ["input=posts.csv", "output=o.jsonl", "traits.text_column=a", "traits.prefix_turns=3"]
    with pytest.raises(ConfigError, match="give one of the two"):
        cards(load_settings("traits cards", None, posts))


def test_two_servers_under_one_name_do_not_answer_for_each_other(tmp_path):
    from tests.llm.server import FakeServer
    from tests.traits.test_chain import endpoint

    write_jsonl(tmp_path / "cards.jsonl", [card(0)])
    found = []
    for number in (2, 5):
        with FakeServer(lambda body, number=number: {"answer": number}) as server:
            output = tmp_path / f"{number}.jsonl"
            call = ["traits", "measure", f"input={tmp_path / 'cards.jsonl'}", f"output={output}",
                    "traits.form=short", *endpoint(server, tmp_path)]  # fmt: skip
            assert command(*call) == 0
            found += [set(row["answers"].values()) for _, row in read_jsonl(output)]
            assert read_json(f"{output}.run.json")["llm"]["endpoint"] == server.url
    assert found == [{2}, {2}, {5}, {5}]
