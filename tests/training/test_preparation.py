"""Token ids are made once, and a file that does not fit is made again."""

import logging

import pytest

from pal.core.errors import DataError
from pal.core.settings import bundled
from pal.data.esconv import load_esconv, write_pesconv
from pal.data.settings import DataSettings
from pal.training.preparation import encode_all, persona_conversations, response_dialogues
from tests.jobs import PERSONACHAT

SAMPLE = str(bundled("sample", "esconv"))
ITEMS = ["ab", "abc", "a"]


class Encode:
    """Counts what it is asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, item):
        self.asked.append(item)
        return {"input_ids": [ord(letter) for letter in item], "labels": [1]}


def check(rows):
    assert rows["input_ids"][:] == [[97, 98], [97, 98, 99], [97]]
    assert rows["length"][:] == [2, 3, 1]
    assert set(rows.column_names) == {"input_ids", "labels", "length"}


def test_a_second_time_reads(tmp_path):
    first, second = Encode(), Encode()
    check(encode_all(first, ITEMS, tmp_path, "key"))
    check(encode_all(second, ITEMS, tmp_path, "key"))
    assert (first.asked, second.asked) == (ITEMS, [])
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("items", "key"), [(["ab", "abc", "b"], "key"), (ITEMS, "other")])
def test_other_texts_or_settings_are_not_taken_for_these(tmp_path, items, key):
    encode_all(Encode(), ITEMS, tmp_path, "key")
    again = Encode()
    encode_all(again, items, tmp_path, key)
    assert again.asked == items


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"foreign"])
def test_a_damaged_file_is_made_again(tmp_path, damage, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("pal"), "propagate", True)
    encode_all(Encode(), ITEMS, tmp_path, "key")
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    again = Encode()
    check(encode_all(again, ITEMS, tmp_path, "key"))
    assert again.asked == ITEMS
    assert "made again" in caplog.text


def test_more_dialogues_are_trained_on_and_nothing_else(tmp_path):
    rows = load_esconv(SAMPLE, "train").to_list()
    write_pesconv(tmp_path / "some.jsonl", rows[:8])
    write_pesconv(tmp_path / "more.jsonl", rows[8:11])
    given = {"train": str(tmp_path / "some.jsonl"), "split": "seeded"}
    alone = response_dialogues(DataSettings(**given))
    train, validation = response_dialogues(DataSettings(**given, more=str(tmp_path / "more.jsonl")))
    added = [row["id"] for row in rows[8:11]]
    assert [row["id"] for row in train] == [*(row["id"] for row in alone[0]), *added]
    assert [row["id"] for row in validation] == [row["id"] for row in alone[1]]


def test_an_extractor_learns_from_the_seekers_of_more_dialogues(tmp_path):
    rows = load_esconv(SAMPLE, "train").to_list()[:3]
    write_pesconv(tmp_path / "none.jsonl", rows)
    rows[1]["persona"] = rows[1]["dialog"][-1]["persona"] = ["i have a cat."]
    write_pesconv(tmp_path / "more.jsonl", rows)
    given = {"train": str(PERSONACHAT / "train.txt")}
    alone = persona_conversations(DataSettings(**given))
    train, validation = persona_conversations(
        DataSettings(**given, more=str(tmp_path / "more.jsonl"))
    )
    added = train.pop()
    assert (train, validation) == alone
    assert added["persona"] == ["i have a cat."]
    said = [turn["text"] for turn in rows[1]["dialog"] if turn["speaker"] == "seeker"]
    assert added["utterances"] == said
    with pytest.raises(DataError, match="no dialogue has a persona"):
        persona_conversations(DataSettings(**given, more=str(tmp_path / "none.jsonl")))
