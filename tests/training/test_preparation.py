"""Token ids are made once, and a file that does not fit is made again."""

import logging

import pytest

from pal.training.preparation import encode_all

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
