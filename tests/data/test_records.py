"""What a record means, and what of it is refused."""

import datetime
import json
import math

import pytest

from pal.core.errors import DataError
from pal.data.esconv import load_esconv
from pal.data.samples import load_samples
from pal.data.settings import SourceSettings


def usr(text, **more):
    return {"speaker": "usr", "text": text, **more}


def sys(text, strategy="Question", **more):
    return {"speaker": "sys", "text": text, "strategy": strategy, **more}


LABELLED = [usr("I am sad."), sys("Why?"), usr("My dog died.")]
UNLABELLED = [usr("I am sad."), {"speaker": "sys", "text": "Why?"}, usr("My dog died.")]


@pytest.fixture
def write(tmp_path):
    def write(*records):
        path = tmp_path / "talks.jsonl"
        path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
        return path

    return write


# Requests and dialogues.


def kinds(*records):
    """Whether records are requests, and how many samples they give to generation."""
    rows = load_esconv(list(records), requests=True)
    return rows["request"][:]


def test_a_record_with_labelled_turns_is_a_dialogue_to_training_and_generation(write):
    record = {"id": "a", "dialog": LABELLED, "persona": ["I had a dog."]}
    path = write(record)
    trained = load_esconv(path)
    answered = load_esconv(path, requests=True)
    assert list(trained) == list(answered)
    assert not trained[0]["request"]
    assert [s.turn for s in load_samples(str(path), None, SourceSettings())] == [1]


def test_a_record_without_labels_is_a_request_and_not_for_training(write):
    path = write({"id": "a", "dialog": UNLABELLED, "persona": ["I had a dog."]})
    (sample,) = load_samples(str(path), None, SourceSettings())
    assert (sample.id, sample.turn, sample.response) == ("a/3", 3, None)
    assert sample.persona == ("I had a dog.",)
    with pytest.raises(DataError, match="turn 1: a supporter turn without strategy"):
        load_esconv(path)


def test_a_record_may_say_what_it_is(write):
    waiting = {"id": "a", "dialog": LABELLED, "request": True}
    assert kinds(waiting, {"id": "b", "dialog": LABELLED, "request": False}) == [True, False]
    (sample,) = load_samples(str(write(waiting)), None, SourceSettings())
    assert (sample.turn, sample.context[1]["strategy"]) == (3, "Question")
    with pytest.raises(DataError, match="the next turn, without a response to learn from"):
        load_esconv(write(waiting))
    with pytest.raises(DataError, match="'request' must be true or false, got 1"):
        load_esconv(write({**waiting, "request": 1}), requests=True)
    unlabelled = {"id": "c", "dialog": UNLABELLED, "request": False}
    assert kinds(unlabelled) == [False]


def test_keys_without_a_value_are_no_keys():
    assert kinds({"dialog": UNLABELLED, "situation": None}) == [True]
    assert kinds({"dialog": UNLABELLED, "situation": "Sad."}) == [False]


def test_dialogues_without_a_turn_to_answer_are_told_how_to_ask_for_the_next(write):
    said = [sys("Hi."), usr("I am sad.")]
    with pytest.raises(DataError, match=r'no turn to answer.*; .* give a record "request": true'):
        load_samples(str(write({"situation": "Sad.", "dialog": said})), None, SourceSettings())
    path = write({"situation": "Sad.", "dialog": [usr("I am sad.")]})
    with pytest.raises(DataError, match=r'no supporter turn; .* with "request": true \(in a table'):
        load_samples(str(path), None, SourceSettings())


def test_a_second_turn_of_the_supporter_is_told(caplog):
    ended = [*UNLABELLED, {"speaker": "supporter", "text": "Oh."}]
    load_esconv([{"dialog": UNLABELLED}, {"dialog": ended}], requests=True)
    assert "in 1 of 2 records, the last turn is the supporter's" in caplog.text
    caplog.clear()
    load_esconv([{"dialog": UNLABELLED}], requests=True)
    load_esconv([{"dialog": [*LABELLED, sys("Oh.", "Question")]}], requests=True)
    assert not caplog.text


def test_generation_needs_no_gold_label(write):
    path = write({"situation": "Sad.", "dialog": [*UNLABELLED, sys("Oh.", None)]})
    samples = load_samples(str(path), None, SourceSettings())
    assert [(s.response, s.strategy) for s in samples] == [("Why?", None), ("Oh.", None)]
    with pytest.raises(DataError, match="turn 1: a supporter turn without strategy"):
        load_esconv(path)


# Labels of another set.


def test_labels_of_another_set_are_mapped(write):
    dialog = [usr("Hi"), sys("Hello!", "Greetings"), usr("Sad."), sys("Walk.", "advice OR  fact")]
    path = write({"dialog": dialog})
    with pytest.raises(DataError, match=r"turn 1: unknown strategy 'Greetings'.*strategy_labels='"):
        load_esconv(path)
    labels = {"greetings": "Others", "Advice or fact": "providing suggestions"}
    turns = load_esconv(path, strategy_labels=labels)[0]["dialog"]
    assert [turn["strategy"] for turn in turns] == [None, "Others", None, "Providing Suggestions"]
    how = SourceSettings(strategy_labels={**labels, "Greetings": None})
    samples = load_samples(str(path), None, how)
    assert [sample.strategy for sample in samples] == [None, "Providing Suggestions"]
    with pytest.raises(DataError, match="turn 1: a supporter turn without strategy"):
        load_esconv(path, strategy_labels=how.strategy_labels)


def test_a_mapping_wins_over_a_name_of_ours():
    turns = load_esconv([{"dialog": [sys("Hi", "Question")]}],
                        strategy_labels={"Question": "Others"})[0]["dialog"]  # fmt: skip
    assert turns[0]["strategy"] == "Others"


# Personas of the authors' processing.

FOUR = [usr("hello"), sys("hi"), usr("i bake"), sys("oh"), usr("i am ill"), usr("and sad")]


def personas(dialog, **more):
    rows = load_esconv([{"dialog": dialog, "situation": "x", **more}])
    return [turn["persona"] for turn in rows[0]["dialog"]]


def test_an_entry_for_every_seeker_turn_counts_from_the_third_utterance():
    entries = ["<input>zero", "<input>one", "<input>one<persona>two", "<input>three"]
    assert personas(FOUR, persona_list=entries) == [
        [], [], ["one"], ["one"], ["one", "two"], ["three"],
    ]  # fmt: skip


def test_a_seeker_who_speaks_twice_at_first_is_heard_from_the_third_utterance():
    dialog = [usr("a"), usr("b"), usr("c"), sys("d")]
    assert personas(dialog, persona_list=["A.", "B.", "C."]) == [[], [], ["C."], ["C."]]
    assert personas(dialog, persona_list=["C."]) == [[], [], ["C."], ["C."]]


def test_entries_that_repeat_what_is_said_are_told(caplog):
    echo = ["hello", "i bake", "i am ill", "and sad"]
    assert personas(FOUR, persona_list=echo)[2] == ["i bake"]
    assert "in 1 of 1 records, persona_list repeats the seeker's utterances" in caplog.text
    caplog.clear()
    personas(FOUR, persona_list=["hello", "i bake", "i am ill", "I am sad."])
    personas(FOUR[:4], persona_list=[])
    assert not caplog.text


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_another_number_of_entries_is_refused(count):
    with pytest.raises(DataError, match=rf"expected 2 entries.* or 4, .* got {count}; add or del"):
        personas(FOUR, persona_list=["x"] * count)


# Values.


def survey(side, **scores):
    return {"dialog": [sys("Hi")], "survey_score": {side: scores}}


@pytest.mark.parametrize(
    ("value", "score"), [("5", 5.0), (1, 1.0), ("3.5", 3.5), (None, None), ("", None)]
)
def test_scores_of_the_survey(value, score):
    assert load_esconv([survey("seeker", empathy=value)])[0]["survey"]["empathy"] == score


@pytest.mark.parametrize(
    "value",
    [-3, 0, 6, "0", "7", True, False, "high", "nan", math.nan, math.inf, 10**400, "1e999", [5],
     {"a": 1}, "5" * 5000],
)  # fmt: skip
@pytest.mark.parametrize("key", ["empathy", "final_emotion_intensity"])
def test_scores_outside_of_the_survey_are_refused(key, value):
    with pytest.raises(DataError, match=rf"survey_score.seeker.{key} must be a number from 1 to 5"):
        load_esconv([survey("seeker", **{key: value})])


def test_the_supporters_relevance_may_be_zero_as_in_the_release():
    row = load_esconv([survey("supporter", relevance="0")])[0]
    assert row["survey"]["supporter_relevance"] == 0.0
    with pytest.raises(DataError, match="from 0 to 5"):
        load_esconv([survey("supporter", relevance=-1)])


@pytest.mark.parametrize("scores", [5, "x", [], {"seeker": 3}, {"supporter": [1]}])
def test_a_survey_of_another_shape_is_refused(scores):
    with pytest.raises(DataError, match="'survey_score' must hold an object for each speaker"):
        load_esconv([{"dialog": [sys("Hi")], "survey_score": scores}])


@pytest.mark.parametrize(
    ("value", "name"),
    [("x", "x"), (7, "7"), (0, "0"), (" a\u200b b ", "a b"),
     (datetime.date(2024, 5, 1), "2024-05-01"), (None, "dialogues-00000"), ("", "dialogues-00000")],
)  # fmt: skip
def test_an_id_is_text(value, name):
    assert load_esconv([{"id": value, "dialog": [sys("Hi")]}])["id"][:] == [name]


@pytest.mark.parametrize("value", [True, 1.5, math.nan, [1], {}])
def test_what_is_no_id_is_refused(value):
    with pytest.raises(DataError, match="'id' must be a str or an int"):
        load_esconv([{"id": value, "dialog": [sys("Hi")]}])


@pytest.mark.parametrize("key", ["text", "speaker", "strategy"])
@pytest.mark.parametrize("value", [5, True, 1.5, math.nan, ["a"], {"a": 1}])
def test_values_of_another_type_are_refused(key, value):
    with pytest.raises(DataError, match=r"dialogue 0, turn 0: "):
        load_esconv([{"dialog": [{**sys("Hi"), key: value}]}])


def test_a_key_that_stands_twice_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": 1, "id": 2, "dialog": []}')
    with pytest.raises(DataError, match=r"line 1: not valid JSON .the key 'id' occurs twice"):
        load_esconv(tmp_path / "a.jsonl")


def test_half_a_character_in_memory_is_refused():
    with pytest.raises(DataError, match="not valid Unicode"):
        load_esconv([{"dialog": [sys("sad \ud83d")]}])


# Invisible characters.

INVISIBLE = ["\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u202e", "\ufe0f", "\x00",
             "\x07", "\U000e0041", "\u3164", "\u180e"]  # fmt: skip


@pytest.mark.parametrize("mark", INVISIBLE)
def test_what_cannot_be_seen_is_no_text(mark):
    dialog = [
        usr(f"so anx{mark}ious{mark} {mark}", persona=[f"I am{mark} ill.", mark]),
        sys(f"{mark}Oh no", f"Ques{mark}tion", persona=f"<input>{mark}<persona>I {mark} am ill."),
    ]
    dialog[0]["speaker"] = f"us{mark}r"
    row = load_esconv([{"dialog": dialog, "situation": mark, "id": f"{mark}a"}])[0]
    assert [turn["text"] for turn in row["dialog"]] == ["so anxious", "Oh no"]
    assert [turn["persona"] for turn in row["dialog"]] == [["I am ill."], ["I am ill."]]
    assert (row["situation"], row["id"]) == (None, "a")
    with pytest.raises(DataError, match="'text' is empty, expected what the seeker says"):
        load_esconv([{"dialog": [usr(f" {mark}\n{mark}"), sys("Hi")]}])


def test_other_scripts_and_signs_stay():
    text = "Ça va? 你好 مرحبا नमस्ते 😀 ❤ – “ok” ½"
    assert load_esconv([{"dialog": [sys(text)]}])[0]["dialog"][0]["text"] == text
