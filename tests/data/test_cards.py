"""Cards take the place of personas, and everybody is told what that means."""

import json

import pytest

from pal.core.errors import DataError
from pal.data import cards
from pal.data.cards import CARDS_NOTE, cards_note, give_cards
from pal.data.samples import load_samples
from pal.data.settings import SourceSettings

DIALOGUES = [{"id": "a", "persona": [], "dialog": [{"text": "Hi", "persona": ["Old."]}]}]


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "_warned", set())

    def write(*records):
        path = tmp_path / "cards.jsonl"
        path.write_text("\n".join(map(json.dumps, records)))
        return str(path)

    return write


def test_a_cards_sentences_are_known_at_every_turn(write):
    path = write(
        {"id": "a", "description": "I bake.  I am 40.\u200b \u200bI sing!"},
        {"id": "b", "failed": "x"},
    )
    (row,) = give_cards(DIALOGUES, path)
    assert row["persona"] == row["dialog"][0]["persona"] == ["I bake.", "I am 40.", "I sing!"]
    assert DIALOGUES[0]["dialog"][0]["persona"] == ["Old."]


def test_cards_are_warned_of_once_and_noted(write, caplog):
    path = write({"id": "a", "description": "I bake."})
    list(give_cards(DIALOGUES, path))
    list(give_cards(DIALOGUES, path))
    assert caplog.text.count(CARDS_NOTE) == 1
    assert "at every turn the model knows what the seeker says later" in caplog.text
    assert cards_note(path) == {"cards": CARDS_NOTE}
    assert cards_note(None) == {}
    assert list(give_cards(DIALOGUES, None)) == DIALOGUES


def test_samples_with_cards_are_warned_of(write, tmp_path, caplog):
    path = write({"id": "t-00000", "description": "I bake."})
    talk = {"dialog": [{"speaker": "usr", "text": "Hi"},
                       {"speaker": "sys", "text": "Oh", "strategy": "Others"}]}  # fmt: skip
    (tmp_path / "t.jsonl").write_text(json.dumps(talk))
    (sample,) = load_samples(str(tmp_path / "t.jsonl"), None, SourceSettings(cards=path))
    assert sample.persona == ("I bake.",)
    assert CARDS_NOTE in caplog.text


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([5], "line 1: not a card; give 'id' and 'description'"),
        ([{"id": 3, "description": "x"}], "line 1: not a card"),
        ([{"id": "a"}], "line 1: the card has no 'description'"),
        ([{"id": "a", "description": 5}], "line 1: the card has no 'description'"),
        ([{"id": "a", "description": "x", "keep": 1}], "line 1: 'keep' must be true or false"),
        ([{"id": "a", "description": "x"}] * 2, "line 2: a second card for dialogue 'a'"),
        ([{"id": "b", "description": "x"}], "no card for dialogue 'a'; make one with"),
        ([{"id": "a", "description": "x", "keep": False}], "no card for dialogue 'a'"),
    ],
)  # fmt: skip
def test_cards_that_do_not_fit_are_refused(write, records, message):
    path = write(*records)
    with pytest.raises(DataError, match=message):
        list(give_cards(DIALOGUES, path))
