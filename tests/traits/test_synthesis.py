import json

import pytest

from pal import load_esconv
from pal.config import load_settings
from pal.core.errors import ConfigError
from pal.core.files import read_jsonl, write_jsonl
from pal.data.samples import build_samples
from pal.data.strategies import STRATEGIES
from pal.llm.structured import parse
from pal.training.preparation import response_samples
from pal.traits import steps
from pal.traits.forms import check_dialog, dialog_schema
from pal.traits.readers import DROPPED
from pal.traits.report.parts import ShownDialogue
from pal.traits.report.records import Records, unanswered
from pal.traits.report.sections import facts_of
from pal.traits.steps import failures_path
from pal.traits.synthesis import continue_dialogues, synthesize
from tests.jobs import ESCONV
from tests.traits.fakes import FakeModel, World, planted, talk
from tests.traits.test_cards import card


@pytest.fixture
def model(monkeypatch):
    fake = FakeModel(World(planted(40)))
    monkeypatch.setattr(steps, "connect", lambda llm, dtype: fake)
    return fake


def run(action, tmp_path, source, *more):
    output = tmp_path / "out.jsonl"
    text = action(load_settings(None, [f"input={source}", f"output={output}", *more]))
    return [row for _, row in read_jsonl(output)], text


@pytest.fixture
def given(tmp_path):
    path = tmp_path / "cards.jsonl"
    write_jsonl(path, [card(n, description=f"Case {n}. The person is shy.") for n in range(20)])
    return path


def test_dialogues_are_a_corpus_that_pal_reads_and_trains_on(model, tmp_path, given):
    found, _ = run(synthesize, tmp_path, given)
    rows = list(load_esconv(tmp_path / "out.jsonl"))
    assert [row["id"] for row in rows] == [f"p{n}" for n in range(20)]
    assert {t["strategy"] for row in rows for t in row["dialog"]} == {
        None, "Information", "Question", "Affirmation and Reassurance"
    }  # fmt: skip
    assert found[0]["condition"] == "persona"
    sample = build_samples(rows, "evaluation")[0]
    assert sample.persona == ("Case 0.", "The person is shy.")
    settings = load_settings(None, [f"data.train={tmp_path / 'out.jsonl'}"])
    train, validation = response_samples(settings.data)
    assert len(train) + len(validation) == 3 * (14 + 4)


def test_without_persona_the_card_gives_its_id_only(model, tmp_path, given):
    found, _ = run(synthesize, tmp_path, given, "traits.without_persona=true")
    assert not any("Case" in text for r in model.asked for _, text in r.messages)
    assert len({request.messages for request in model.asked}) == 1
    assert len({request.seed for request in model.asked}) == 20  # or all would be one dialogue
    assert {row["condition"] for row in found} == {"without_persona"}
    assert found[0]["persona"] == []


def test_all_eight_strategies_are_explained(model, tmp_path, given):
    from pal.data.strategies import DEFINITIONS, STRATEGIES

    run(synthesize, tmp_path, given, "limit=1")
    system = dict(model.asked[0].messages)["system"]
    assert tuple(DEFINITIONS) == STRATEGIES
    assert all(f"- {name}: {DEFINITIONS[name]}" in system for name in STRATEGIES)


def change(index, **values):
    exchanges = talk(0, False)
    exchanges[index].update(values)
    return exchanges


@pytest.mark.parametrize(
    ("exchanges", "problem"),
    [
        (talk(0, False), None),
        (change(2, seeker="  "), "exchange 2: no text of the seeker"),
        (change(0, supporter=""), "exchange 0: no text of the supporter"),
    ],
)
def test_blank_texts_are_no_dialogue(exchanges, problem):
    assert check_dialog(None, {"dialog": exchanges}) == problem


@pytest.mark.parametrize(
    ("exchanges", "valid"),
    [
        (talk(0, False), True),
        (change(1, strategy="Joke"), False),
        (change(1, speaker="seeker"), False),
        (talk(0, False)[:2], False),
    ],
)
def test_the_form_is_checked_for_every_model(exchanges, valid):
    value, reason = parse(json.dumps({"dialog": exchanges}), dialog_schema((6, 60), STRATEGIES))
    assert (reason is None) == (value is not None) == valid


@pytest.mark.parametrize(
    ("turns", "bounds"), [((6, 60), (3, 30)), ((2, 2), (1, 1)), ((7, 9), (4, 4)), ((7, 7), (4, 4))]
)
def test_the_schema_holds_the_number_of_exchanges(turns, bounds):
    dialog = dialog_schema(turns, STRATEGIES)["properties"]["dialog"]
    assert (dialog["minItems"], dialog["maxItems"]) == bounds


def test_failures_are_listed_apart(model, tmp_path, given):
    write_jsonl(given, [card(0), {"id": "x", "dataset": "d", "failed": "refused"}, card(1)])
    world = World(planted(4))
    model.world = lambda name, system, user: (
        {"dialog": change(0, seeker=" ")} if "Case 1." in user else world(name, system, user)
    )
    found, text = run(synthesize, tmp_path, given)
    assert [row["id"] for row in found] == ["p0"]
    failed = [row for _, row in read_jsonl(failures_path(tmp_path / "out.jsonl"))]
    assert [(row["id"], row["failed"]) for row in failed] == [
        ("x", "refused"), ("p1", "exchange 0: no text of the seeker")
    ]  # fmt: skip
    assert "| dialogues written | 1 |\n" in text
    assert "| not written: refused | 1 |" in text
    assert f"listed in {failures_path(tmp_path / 'out.jsonl')}: what is not written" in text


def measurements(path, ids):
    write_jsonl(path, [
        {"id": name, "dataset": "d", "inventory": inventory, "scores": dict.fromkeys(keys, 3.25)}
        for name in ids
        for inventory, keys in (("hexaco", "HEXACO"), ("csi", ["X", "P", "VA", "Q", "E", "IM"]))
    ])  # fmt: skip


def test_continuation_under_every_condition(model, tmp_path):
    source = ESCONV / "test.jsonl"
    ids = [row["id"] for row in load_esconv(source)]
    measurements(tmp_path / "m.jsonl", ids[:2])
    found, _ = run(continue_dialogues, tmp_path, source, "limit=3",
                   f"traits.measurements={tmp_path / 'm.jsonl'}")  # fmt: skip
    assert [row["id"] for row in found] == [
        f"{name}@{c}" for name in ids[:2] for c in ("none", "hexaco", "csi", "both")
    ]
    assert len(load_esconv(tmp_path / "out.jsonl")) == 8
    none, hexaco, csi, both = (dict(request.messages)["user"] for request in model.asked[:4])
    assert '"strategy": "Question"' in none
    assert "Score" not in none
    assert hexaco.count("Score: 3.2.") == csi.count("Score: 3.2.") == 6
    assert both.count("Score: 3.2.") == 12
    assert "honesty_humility" in hexaco
    assert "honesty_humility" not in csi
    failed = [row for _, row in read_jsonl(failures_path(tmp_path / "out.jsonl"))]
    assert [row["failed"] for row in failed] == [
        "no scores and no trait sentences for csi and hexaco"
    ] * 4


def test_trait_sentences_may_stand_beside_or_for_scores(model, tmp_path):
    source = ESCONV / "test.jsonl"
    ids = [row["id"] for row in load_esconv(source)]
    sentences = {"hexaco": {key: f"The person has {key}." for key in "HEXACO"}}
    write_jsonl(tmp_path / "c.jsonl", [{**card(0), "id": ids[0], "traits": sentences}])
    run(continue_dialogues, tmp_path, source, "limit=1", "traits.conditions=[hexaco]",
        f"traits.cards={tmp_path / 'c.jsonl'}")  # fmt: skip
    user = dict(model.asked[0].messages)["user"]
    assert "The person has H." in user
    assert "Score" not in user


def test_what_the_filter_dropped_is_said_to_be_dropped(model, tmp_path, caplog):
    caplog.set_level("INFO", "pal")
    source = ESCONV / "test.jsonl"
    ids = [row["id"] for row in load_esconv(source)]
    write_jsonl(tmp_path / "c.jsonl", [
        {**card(0), "id": ids[0], "keep": False},
        {"id": ids[3], "dataset": "d", "failed": "refused"},
    ])  # fmt: skip
    measurements(tmp_path / "m.jsonl", ids[2:3])
    given = ["limit=4", "traits.conditions=[hexaco]", f"traits.measurements={tmp_path / 'm.jsonl'}"]
    run(continue_dialogues, tmp_path, source, *given, f"traits.cards={tmp_path / 'c.jsonl'}")
    failed = [row for _, row in read_jsonl(failures_path(tmp_path / "out.jsonl"))]
    assert [row["failed"] for row in failed] == [
        "the filter dropped its card", "no scores and no trait sentences for hexaco",
        "its card failed: refused",
    ]  # fmt: skip
    said = "3 of 4 dialogues are not continued under any condition: the filter dropped its card (1)"
    assert said in caplog.text
    run(continue_dialogues, tmp_path, source, *given, "overwrite=true")
    assert "traits.measurements= gives scores (the output of pal traits measure), " in caplog.text
    assert "trait sentences (that of pal traits describe) and whose card the" in caplog.text


def test_a_dropped_card_gets_no_dialogue_and_is_counted(model, tmp_path, caplog):
    caplog.set_level("INFO", "pal")
    write_jsonl(tmp_path / "c.jsonl", [card(0), card(1, keep=False), card(2)])
    found, _ = run(synthesize, tmp_path, tmp_path / "c.jsonl")
    assert [row["id"] for row in found] == ["p0", "p2"]
    assert "the filter dropped 1 of 3 cards, which get no dialogue" in caplog.text


def test_conditions_with_traits_need_traits(model, tmp_path):
    with pytest.raises(ConfigError, match=r"traits\.measurements= .* traits\.conditions=\[none\]"):
        run(continue_dialogues, tmp_path, ESCONV / "test.jsonl")
    found, _ = run(continue_dialogues, tmp_path, ESCONV / "test.jsonl", "limit=1",
                   "traits.conditions=[none]")  # fmt: skip
    assert found[0]["condition"] == "none"


def test_the_page_counts_dialogues_that_were_not_written():
    found = [ShownDialogue(id="a"), ShownDialogue(id="b", failed="refused"), ShownDialogue(id="c")]
    assert facts_of([], Records(dialogues=found)) == [
        "2 dialogues (and 1 that could not be written)"
    ]
    assert facts_of([], Records(dialogues=found[::2])) == ["2 dialogues"]
    found += [ShownDialogue(id="d", failed=DROPPED), ShownDialogue(id="e", failed=DROPPED)]
    assert facts_of([], Records(dialogues=found)) == [
        "2 dialogues (and 2 not continued: the filter dropped their cards; 1 that could not be "
        "written)"
    ]
    assert [(line.what, line.count) for line in unanswered(Records(dialogues=found))] == [
        ("dialogues, not continued", 2), ("dialogues", 1),
    ]  # fmt: skip
