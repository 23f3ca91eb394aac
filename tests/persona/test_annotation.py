import pytest

from pal.persona.annotation import add_personas, annotated_prefixes, clean_sentences


def turn(speaker, text):
    return {"speaker": speaker, "text": text, "strategy": None, "persona": []}


DIALOG = [
    turn("seeker", "Hello"),
    turn("supporter", "Hi there! How may I support you today?"),
    turn("seeker", "I am anxious about my job."),
    turn("supporter", "What is it?"),
    turn("seeker", "I study to be a pharmacist."),
    turn("seeker", "It is hard."),
]


def test_cleaning():
    assert clean_sentences(
        [
            " i have   a dog. ", "", "I HAVE A DOG.", "dog", "w " * 26, "w " * 25,
            "my favorite color is red.", "i love My Favorite Band muse.", "two words",
        ]
    ) == ["i have a dog.", " ".join(["w"] * 25), "two words"]  # fmt: skip


@pytest.mark.parametrize(
    ("start", "turns"), [("third_utterance", [2, 4, 5]), ("third_seeker_turn", [4, 5])]
)
def test_where_annotation_starts(start, turns):
    prefixes = annotated_prefixes(DIALOG, start)
    assert list(prefixes) == turns
    assert prefixes[4] == ("Hello", "I am anxious about my job.", "I study to be a pharmacist.")


def test_new_sentences_join_the_known_as_in_table_1():
    inferred = {
        ("Hello", "I am anxious about my job."): ["i am worried about my job's future."],
        ("Hello", "I am anxious about my job.", "I study to be a pharmacist."): [
            "I am worried about my job's future.", "i am studying to be a pharmacist.",
        ],
        ("Hello", "I am anxious about my job.", "I study to be a pharmacist.", "It is hard."): [],
    }  # fmt: skip
    dialogue = add_personas({"dialog": DIALOG}, inferred, "third_utterance")
    known = [turn["persona"] for turn in dialogue["dialog"]]
    worried, pharmacist = "i am worried about my job's future.", "i am studying to be a pharmacist."
    assert known == [[], [], [worried], [worried], [worried, pharmacist], [worried, pharmacist]]
    assert dialogue["persona"] == [worried, pharmacist]
    assert DIALOG[2]["persona"] == []
