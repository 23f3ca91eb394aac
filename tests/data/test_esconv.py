"""Every layout reads to the same rows, every mistake is told, and nothing is lost on the way."""

import json
from collections import Counter
from itertools import pairwise

import datasets
import pytest

from pal.core.errors import DataError
from pal.data.esconv import (
    DESCRIPTION,
    features,
    load_esconv,
    split_dialogues,
    write_pesconv,
    write_released,
)
from pal.data.strategies import STRATEGIES


def usr(text, **more):
    return {"text": text, "speaker": "usr", **more}


def sys(text, strategy="Question", **more):
    return {"text": text, "speaker": "sys", "strategy": strategy, **more}


def seeker(text, **annotation):
    return {"speaker": "seeker", "annotation": annotation, "content": text}


def supporter(text, strategy="Question", **annotation):
    return {
        "speaker": "supporter",
        "annotation": {"strategy": strategy, **annotation},
        "content": text,
    }


HUB = {
    "experience_type": "Current Experience",
    "emotion_type": "anxiety",
    "problem_type": "job crisis",
    "situation": "My shop  closes.\n",
    "survey_score": {
        "seeker": {"empathy": "5", "relevance": 4, "initial_emotion_intensity": ""},
        "supporter": {"relevance": "3.5"},
    },
    "dialog": [usr("Hi  there\n"), sys("Hello!", "Greeting"), usr("My shop closes.")],
}
RELEASED = {
    "dialog": [
        seeker("one"), supporter("a"), seeker("two"), seeker("three"), supporter("b"),
        supporter("c"), seeker("four"), supporter("d"),
    ],
    "persona": "<input><persona>I run a shop.<persona>I am sad.<persona>",
    "persona_list": ["<input>I run a shop.", "<persona>I run a shop.<persona>I am sad.<input>"],
}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    """Write records as JSONL (or one JSON list) and return the path."""

    def write(*records, name="talks.jsonl", as_list=False):
        path = tmp_path / name
        lines = "\n".join(map(json.dumps, records))
        path.write_text(json.dumps(records) if as_list else lines, encoding="utf-8")
        return path

    return write


def rows_without_ids(dataset):
    return [{key: value for key, value in row.items() if key != "id"} for row in dataset]


# What is read.


def test_a_dialogue_becomes_one_validated_row(write):
    dataset = load_esconv(write(HUB))
    assert dataset.features == features()
    assert dataset[0] == {
        "id": "talks-00000",
        "experience_type": "Current Experience",
        "emotion_type": "anxiety",
        "problem_type": "job crisis",
        "situation": "My shop closes.",
        "survey": {
            "empathy": 5.0,
            "relevance": 4.0,
            "initial_emotion_intensity": None,
            "final_emotion_intensity": None,
            "supporter_relevance": 3.5,
        },
        "dialog": [
            {"speaker": "seeker", "text": "Hi there", "strategy": None, "persona": []},
            {"speaker": "supporter", "text": "Hello!", "strategy": "Others", "persona": []},
            {"speaker": "seeker", "text": "My shop closes.", "strategy": None, "persona": []},
        ],
        "persona": [],
        "request": False,
    }


@pytest.mark.parametrize("as_list", [False, True])
def test_layouts_mix_in_one_file(write, as_list):
    turns = [
        {"speaker": "speaker", "content": "Hi there"},
        {"speaker": "listener", "text": "Hello!", "annotation": {"strategy": "Others"}},
        usr("My shop closes."),
    ]
    path = write(HUB, {**HUB, "dialog": turns}, {"text": json.dumps(HUB)}, as_list=as_list)
    first, second, third = rows_without_ids(load_esconv(path))
    assert first == second == third


def test_own_ids_are_kept_and_others_are_numbered(write):
    dataset = load_esconv(write({**HUB, "id": "x"}, HUB, {**HUB, "id": 7}))
    assert dataset["id"][:] == ["x", "talks-00001", "7"]


def test_blank_lines_and_a_byte_order_mark_are_no_records(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(f"\ufeff\n{json.dumps(HUB)}\n\n{json.dumps(HUB)}\n", encoding="utf-8")
    assert load_esconv(path)["id"][:] == ["a-00000", "a-00001"]


def test_a_folder_gives_one_split_or_all(write):
    write(HUB, HUB, name="train.jsonl")
    write(HUB, name="valid.json", as_list=True)
    folder = write(HUB, name="test.jsonl").parent
    assert load_esconv(folder)["id"][:] == [
        "train-00000", "train-00001", "valid-00000", "test-00000",
    ]  # fmt: skip
    assert load_esconv(folder, "validation")["id"][:] == ["valid-00000"]


@pytest.mark.parametrize("wrap", [lambda r: r, lambda r: {"text": json.dumps(r)}])
def test_a_hub_data_set_gives_the_same_rows(write, tmp_path, monkeypatch, wrap):
    names = ("test", "train")  # not in order
    files = {name: str(write(wrap(HUB), name=f"{name}.jsonl")) for name in names}
    hub = datasets.load_dataset("json", data_files=files, cache_dir=str(tmp_path / "cache"))
    monkeypatch.setattr(datasets, "load_dataset", {"thu-coai/esconv": hub}.__getitem__)
    everything = load_esconv("thu-coai/esconv")
    assert everything["id"][:] == ["esconv-train-00000", "esconv-test-00000"]
    assert load_esconv("thu-coai/esconv", "test")["id"][:] == ["esconv-test-00000"]
    assert rows_without_ids(everything) == rows_without_ids(load_esconv(tmp_path))
    with pytest.raises(DataError, match=r"thu-coai/esconv: no validation split; it has te.*train"):
        load_esconv("thu-coai/esconv", "validation")


# Persona.


def test_the_released_persona_is_known_from_the_third_seeker_turn(write):
    row = load_esconv(write(RELEASED, as_list=True))[0]
    shop, both = ["I run a shop."], ["I run a shop.", "I am sad."]
    assert [turn["persona"] for turn in row["dialog"]] == [[], [], [], shop, shop, shop, both, both]
    assert row["persona"] == both


def test_turns_without_persona_carry_what_was_known(write):
    dialog = [usr("a"), sys("b", persona=["I run a shop."]), usr("c"), sys("d", persona=[])]
    row = load_esconv(write({"dialog": dialog}))[0]
    shop = ["I run a shop."]
    assert [turn["persona"] for turn in row["dialog"]] == [[], shop, shop, []]
    assert row["persona"] == []


def test_a_turns_own_persona_wins_over_the_list(write):
    dialog = [*RELEASED["dialog"][:-2], seeker("four", persona=["Mine."]), supporter("d")]
    row = load_esconv(write({**RELEASED, "dialog": dialog}))[0]
    assert [turn["persona"] for turn in row["dialog"]][-2:] == [["Mine."], ["Mine."]]


def test_the_whole_conversations_persona_is_not_known_at_its_turns(write):
    row = load_esconv(write({**HUB, "persona": ["I run a shop."]}))[0]
    assert row["persona"] == ["I run a shop."]
    assert not any(turn["persona"] for turn in row["dialog"])


# Requests.


@pytest.mark.parametrize(
    "persona", [["I am 40.", "I run a shop."], "I am 40.<persona>I run a shop."]
)
def test_a_request_needs_no_strategy_and_knows_its_persona_everywhere(write, persona):
    known = ["I am 40.", "I run a shop."]
    request = {"id": "r", "dialog": [usr("Hi"), sys("Hello", None)], "persona": persona}
    first, second = load_esconv(write(request, {"dialog": [usr("Hi")]}), requests=True)
    assert first["request"]
    assert second["request"]
    assert [turn["persona"] for turn in first["dialog"]] == [known, known]
    assert first["dialog"][1]["strategy"] is None
    assert second["persona"] == []


def test_a_record_with_other_keys_is_no_request(write):
    assert not load_esconv(write(HUB), requests=True)[0]["request"]
    with pytest.raises(DataError, match=r"line 2 \(dialogue 1\): no supporter turn"):
        load_esconv(write(HUB, {**HUB, "dialog": [usr("Hi")]}), requests=True)


def test_requests_are_refused_unless_asked_for(write):
    with pytest.raises(DataError, match="no supporter turn; add one"):
        load_esconv(write({"dialog": [usr("Hi")]}))
    with pytest.raises(DataError, match="turn 1: a supporter turn without strategy"):
        load_esconv(write({"dialog": [usr("Hi"), sys("Hello", None)]}))
    assert not load_esconv(write({"dialog": [usr("Hi"), sys("Hello")]}))[0]["request"]


# Round trips.


@pytest.fixture
def rows(write):
    """Rows with all that layouts must keep: early personas, surveys, requests, odd characters."""
    early = [usr("a", persona=["Early."]), sys("b", persona=["Early."]), usr("c", persona=[])]
    late = [*early, sys("d"), usr("e", persona=["x"]), sys("f", persona=["y"]), usr("g")]
    requests = [
        {"id": "r1", "dialog": [usr("Hi"), sys("Hello", None)], "persona": ["I am 40."]},
        {
            "id": "r2",
            "dialog": [usr("Hi"), sys("Hello"), usr("Sad")],
            "situation": "I lost my job.",
            "problem_type": "job crisis",
            "request": True,
        },
        {"dialog": [usr("é\u2028😀", persona=["Known here."]), usr("b")], "persona": ["Other."]},
    ]
    path = write(HUB, RELEASED, {**HUB, "id": "own", "dialog": late}, *requests)
    return list(load_esconv(path, requests=True))


def test_pesconv_gives_the_same_rows_back(rows, tmp_path):
    write_pesconv(tmp_path / "p.jsonl", rows)
    assert list(load_esconv(tmp_path / "p.jsonl", requests=True)) == rows


def test_the_released_layout_gives_the_same_rows_back(rows, tmp_path):
    write_released(tmp_path / "PESConv.json", rows)
    assert list(load_esconv(tmp_path / "PESConv.json", requests=True)) == rows


def test_the_released_layout_survives_being_read_and_written(write, tmp_path):
    write_released(tmp_path / "one.json", load_esconv(write(RELEASED, as_list=True)))
    (written,) = json.loads((tmp_path / "one.json").read_text())
    assert written["dialog"] == RELEASED["dialog"]
    assert written["persona"] == "<input>I run a shop.<persona>I am sad."
    assert written["persona_list"] == ["<input>I run a shop.", written["persona"]]
    write_released(tmp_path / "two.json", load_esconv(tmp_path / "one.json"))
    assert (tmp_path / "two.json").read_text() == (tmp_path / "one.json").read_text()


def test_only_a_persona_the_list_cannot_tell_goes_to_the_annotation(rows, tmp_path):
    write_released(tmp_path / "p.json", rows)
    dialog = json.loads((tmp_path / "p.json").read_text())[2]["dialog"]
    notes = [turn["annotation"] for turn in dialog]
    found = {index: note["persona"] for index, note in enumerate(notes) if "persona" in note}
    assert found == {0: ["Early."], 2: [], 5: ["y"]}


def test_surveys_are_written_as_the_release_writes_them(rows, tmp_path):
    write_released(tmp_path / "p.json", rows)
    survey = json.loads((tmp_path / "p.json").read_text())[0]["survey_score"]
    assert survey["seeker"]["empathy"] == "5"
    assert survey["seeker"]["final_emotion_intensity"] is None
    assert survey["supporter"] == {"relevance": "3.5"}


# Mistakes: where, what was found, what to do.

MISTAKES = {
    "unknown strategy": (
        {"dialog": [usr("a"), sys("b", "Qestion")]},
        ["turn 1", "unknown strategy 'Qestion'", "did you mean 'Question'", *STRATEGIES],
    ),
    "strategy of a wrong type": (
        {"dialog": [usr("a"), sys("b", ["Question"])]}, ["turn 1", "unknown strategy"]
    ),
    "unknown speaker": (
        {"dialog": [{"speaker": "bot", "text": "a"}]},
        ["turn 0", "unknown speaker 'bot'", "patient; the supporter is supporter, sys, listener,"],
    ),
    "no strategy": ({"dialog": [usr("a"), sys("b", "")]}, ["turn 1", "without strategy; add"]),
    "no strategy in the release": (
        {"dialog": [{"speaker": "supporter", "annotation": {}, "content": "a"}]},
        ["turn 0", "without strategy; add"],
    ),
    "empty dialog": ({"dialog": []}, ["the dialog is empty", "at least one turn"]),
    "no dialog": ({"dialogue": [], "id": 1}, ["missing key 'dialog'", "'dialogue', 'id'"]),
    "messages of a chat": (
        {"id": 1, "messages": [{"role": "user", "content": "a"}]},
        ["it has 'id', 'messages'; expected", '"dialog": [{"speaker": "seeker", "text": "…"}, …]'],
    ),
    "dialog of a wrong type": ({"dialog": "a" * 999}, ["'dialog' must be a list, got 'aaaa"]),
    "record of a wrong type": ([1], ["expected a JSON object, got list"]),
    "turn of a wrong type": ({"dialog": ["hi"]}, ["turn 0", "a JSON object, got str"]),
    "no speaker": ({"dialog": [{"text": "a"}]}, ["turn 0", "missing key 'speaker'"]),
    "no text": ({"dialog": [{"speaker": "usr"}]}, ["turn 0", "missing key 'text'"]),
    "text of a wrong type": ({"dialog": [usr(5)]}, ["turn 0", "'text' must be a str, got 5"]),
    "empty text": ({"dialog": [usr(" \n")]}, ["turn 0", "'text' is empty", "seeker says"]),
    "empty content": ({"dialog": [seeker("")]}, ["turn 0", "'content' is empty"]),
    "annotation": ({"dialog": [usr("a", annotation=[1])]}, ["turn 0", "'annotation'", "[1]"]),
    "no supporter": ({"dialog": [usr("a"), usr("b")]}, ["no supporter turn; add one"]),
    "situation": ({**HUB, "situation": 3}, ["'situation' must be a str, got 3"]),
    "id": ({**HUB, "id": [3]}, ["'id' must be a str or an int, got [3]"]),
    "used id": ({**HUB, "id": "talks-00000"}, ["the id 'talks-00000' was used before"]),
    "survey value": (
        {**HUB, "survey_score": {"seeker": {"empathy": "high"}}},
        ["survey_score.seeker.empathy must be a number from 1 to 5 or null, got 'high'"],
    ),
    "survey NaN": ({**HUB, "survey_score": {"supporter": {"relevance": "nan"}}}, ["got 'nan'"]),
    "survey bool": ({**HUB, "survey_score": {"seeker": {"empathy": True}}}, ["got True"]),
    "survey shape": ({**HUB, "survey_score": {"seeker": [5]}}, ["'survey_score' must hold"]),
    "persona": ({**HUB, "persona": [3]}, ["persona: must be a string or a list", "got [3]"]),
    "turn's persona": (
        {"dialog": [sys("a", persona={"a": 1})]}, ["turn 0, persona: must be", "got {'a': 1}"]
    ),
    "persona_list too short": (
        {**RELEASED, "persona_list": ["<input>"]}, ["persona_list: expected 2", "got 1"]
    ),
    "persona_list too long": ({**HUB, "persona_list": ["a"]}, ["expected 0", "got 1"]),
    "persona_list of a wrong type": (
        {**HUB, "persona_list": "a"}, ["'persona_list' must be a list, got 'a'"]
    ),
    "text column": ({"text": "{oops"}, ["column 'text' is not valid JSON"]),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_in_one_line_with_its_place(write, name):
    record, parts = MISTAKES[name]
    path = write(HUB, record)
    with pytest.raises(DataError) as caught:
        load_esconv(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    for part in [f"{path}, line 2 (dialogue 1)", *parts]:
        assert part in message


def test_a_list_counts_dialogues_from_zero(write):
    path = write(HUB, {"dialog": []}, as_list=True)
    with pytest.raises(DataError, match=f"{path}, dialogue 1: the dialog is empty"):
        load_esconv(path)


def test_half_a_character_is_told(write):
    with pytest.raises(DataError, match=r"talks.jsonl, line 1: not valid JSON \(it holds half a"):
        load_esconv(write({"dialog": [sys("sad \ud83d")]}))


def test_files_that_hold_nothing_are_told(write, tmp_path):
    with pytest.raises(DataError, match=r"talks.jsonl: no dialogues"):
        load_esconv(write(as_list=True))
    with pytest.raises(DataError, match=r"talks.jsonl: the file is empty"):
        load_esconv(write())
    (tmp_path / "bad.jsonl").write_text(json.dumps(HUB) + "\n{oops\n")
    with pytest.raises(DataError, match=r"bad.jsonl, line 2: not valid JSON"):
        load_esconv(tmp_path / "bad.jsonl")
    (tmp_path / "bad.json").write_text('[\n{"dialog": oops}]')
    with pytest.raises(DataError, match=r"bad.json, line 2: not valid JSON"):
        load_esconv(tmp_path / "bad.json")


@pytest.mark.parametrize(
    "source", ["nowhere", "some/file.json", "some/file.jsonl", "/a/b", "a/b/c"]
)
def test_a_missing_file_is_no_hub_id(source, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda name: pytest.fail("asked the hub"))
    with pytest.raises(DataError, match=f"{source}: no such file; check the path"):
        load_esconv(source)


@pytest.mark.parametrize("error", [ConnectionError("offline\nlong story"), KeyError()])
def test_a_hub_that_fails_ends_in_one_line(error, monkeypatch):
    def fail(name):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError) as caught:
        load_esconv("owner/name")
    assert str(caught.value).startswith(
        "owner/name: neither a local path nor an available data set"
    )
    assert str(caught.value).endswith("give a local file or folder")
    assert "\n" not in str(caught.value)


def test_splits_that_are_not_there_are_told(write):
    folder = write(HUB, name="train.jsonl").parent
    with pytest.raises(DataError, match=r"unknown split 'tst'; did you mean 'test'"):
        load_esconv(folder, "tst")
    with pytest.raises(DataError, match=r"expected test.jsonl or .json .* got train.jsonl"):
        load_esconv(folder, "test")
    with pytest.raises(DataError, match=r"train.jsonl: a file has no split 'test'"):
        load_esconv(folder / "train.jsonl", "test")
    (folder / "train.jsonl").unlink()
    with pytest.raises(DataError, match=r"expected train, validation or test.*got no split"):
        load_esconv(folder)


# Splits.


def test_a_seeded_split_parts_the_dialogues_the_same_way_every_time(write):
    dataset = load_esconv(write(*[HUB] * 40))
    first, again, other = (
        {name: part["id"][:] for name, part in split_dialogues(dataset, seed=seed).items()}
        for seed in (1, 1, 2)
    )
    assert list(first) == ["train", "validation", "test"]
    assert [len(part) for part in first.values()] == [28, 8, 4]
    assert sorted(name for part in first.values() for name in part) == dataset["id"][:]
    assert first == again
    assert first != other
    sizes = split_dialogues(dataset, seed=1, ratios=(2, 1, 1))
    assert [len(part) for part in sizes.values()] == [20, 10, 10]


def test_too_few_dialogues_to_split_are_told(write):
    with pytest.raises(DataError, match=r"too few for a split of 0.7:0.2:0.1: 2 in all; give"):
        split_dialogues(load_esconv(write(HUB, HUB)), seed=1)


# The real corpus.


@pytest.fixture(scope="module")
def esconv(shared_data):
    return load_esconv(shared_data / "esconv" / "ESConv.json")


def test_the_real_corpus_has_its_published_counts(esconv):
    turns = [turn for row in esconv for turn in row["dialog"]]
    assert (len(esconv), len(turns)) == (1300, 38365)
    assert Counter(turn["strategy"] for turn in turns if turn["speaker"] == "supporter") == {
        "Question": 3801,
        "Others": 3341,
        "Providing Suggestions": 2954,
        "Affirmation and Reassurance": 2827,
        "Self-disclosure": 1713,
        "Reflection of feelings": 1436,
        "Information": 1215,
        "Restatement or Paraphrasing": 1089,
    }
    assert sum(turn["speaker"] == "supporter" for turn in turns) == 18376
    assert all(turn["strategy"] is None for turn in turns if turn["speaker"] == "seeker")
    same = sum(a["speaker"] == b["speaker"] for row in esconv for a, b in pairwise(row["dialog"]))
    assert same == 7973
    assert sum(row["survey"]["empathy"] is None for row in esconv) == 150
    assert all(row[key] for row in esconv for key in DESCRIPTION)


def test_both_published_layouts_hold_the_same_dialogues(esconv, shared_data):
    folder = load_esconv(shared_data / "esconv")
    assert rows_without_ids(folder) == rows_without_ids(esconv)
    assert len(set(folder["id"])) == 1300


def test_the_seeded_split_of_the_real_corpus_is_the_papers(esconv):
    parts = split_dialogues(esconv, seed=13)
    assert [len(part) for part in parts.values()] == [910, 260, 130]


def test_the_real_corpus_survives_both_layouts(esconv, tmp_path):
    rows = list(esconv)
    write_released(tmp_path / "a.json", rows)
    write_pesconv(tmp_path / "b.jsonl", load_esconv(tmp_path / "a.json"))
    assert list(load_esconv(tmp_path / "b.jsonl")) == rows


@pytest.mark.parametrize(("one", "other"), [("client", "Therapist"), ("user", "assistant")])
def test_speakers_of_other_corpora_are_known(tmp_path, one, other):
    turns = [{"speaker": one, "text": "hi"}, {"speaker": other, "text": "ho", "strategy": "Others"}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"dialog": turns}))
    [row] = load_esconv(tmp_path / "a.jsonl")
    assert [turn["speaker"] for turn in row["dialog"]] == ["seeker", "supporter"]
