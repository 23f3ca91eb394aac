"""A journal gives back what was finished, and nothing that a kill or a bad disk made of it."""

import json
import os
import zlib

import pytest

from pal.core.errors import OutputError
from pal.core.journal import Journal


def test_journal_keeps_finished_work_and_forgets_a_cut_line(tmp_path):
    output = tmp_path / "out.jsonl"
    journal = Journal(output, "identity")
    journal.append("0", ["a"])
    journal.append("1", ["b"])
    journal.close()
    with journal.path.open("a") as handle:
        handle.write('["2", ["cut o')
    again = Journal(output, "identity")
    assert again.read() == {"0": ["a"], "1": ["b"]}
    again.append("2", ["c"])
    again.close()
    other = Journal(output, "identity", part=1)
    other.append("3", ["d"])
    other.close()
    assert Journal(output, "identity").read() == {"0": ["a"], "1": ["b"], "2": ["c"], "3": ["d"]}
    again.delete()
    assert os.listdir(tmp_path) == []


def test_journal_cut_inside_its_first_line_is_restarted(tmp_path):
    journal = Journal(tmp_path / "out", "identity")
    journal.path.write_text('"ident')
    assert journal.read() == {}
    journal.append("0", 1)
    journal.close()
    assert journal.read() == {"0": 1}


def test_journal_of_other_settings_is_refused(tmp_path):
    journal = Journal(tmp_path / "out", "one")
    journal.append("0", 1)
    journal.close()
    with pytest.raises(OutputError, match="overwrite=true"):
        Journal(tmp_path / "out", "two").read()


@pytest.fixture
def journal(tmp_path):
    """A journal with three finished units."""
    journal = Journal(tmp_path / "out.jsonl", "identity")
    for number in range(3):
        journal.append(str(number), [f"text {number}", {"probability": 0.25}])
    journal.close()
    return journal


WITHOUT_CHECKSUM = json.dumps(["1", "x"]).encode()
DAMAGES = {
    "a unit without checksum": lambda line: WITHOUT_CHECKSUM,
    "a checksum of other contents": lambda line: line.replace(b"0.25", b"0.75"),
    "another key with the same contents": lambda line: line.replace(b'["1"', b'["7"'),
    "a checksum that is no number": lambda line: line[: line.rindex(b",")] + b', "0"]',
    "a key that is no text": lambda line: line.replace(b'["1"', b"[1"),
    "a blank line": lambda line: b"",
    "spaces": lambda line: b"   ",
    "a block of NUL": lambda line: b"\0" * 4096,
    "other bytes": lambda line: bytes(range(128, 256)),
    "half a line": lambda line: line[: len(line) // 2],
    "two halves run together": lambda line: line[: len(line) // 2] + line,
    "a word": lambda line: b"true",
    "an object": lambda line: b'{"1": ["text 1"]}',
    "endless nesting": lambda line: b"[" * 100_000,
    "a number of thousands of digits": lambda line: b"9" * 5000,
    "NaN": lambda line: line.replace(b"0.25", b"NaN"),
    "the identity once more": lambda line: b'"identity"',
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_line_is_done_again_and_the_others_are_kept(journal, damage, caplog):
    lines = journal.path.read_bytes().split(b"\n")
    lines[2] = DAMAGES[damage](lines[2])
    journal.path.write_bytes(b"\n".join(lines))
    again = Journal(journal.output, "identity")
    assert set(again.read()) == {"0", "2"}
    assert "damaged journal lines, computed again: 1" in caplog.text
    again.append("1", "once more")
    again.close()
    assert again.read()["1"] == "once more"


HEADS = {
    **DAMAGES,
    "another identity": lambda line: line.replace(b"identity", b"identitx"),
    "another thing that it is made of": lambda line: line.replace(b"null", b"true"),
}
OF_UNITS = {"a checksum of other contents", "another key with the same contents",
            "a key that is no text", "NaN"}  # fmt: skip


@pytest.mark.parametrize("damage", sorted(HEADS.keys() - OF_UNITS))
def test_a_damaged_first_line_is_told_as_that_and_not_as_other_settings(journal, damage):
    lines = journal.path.read_bytes().split(b"\n")
    lines[0] = HEADS[damage](lines[0])
    journal.path.write_bytes(b"\n".join(lines))
    with pytest.raises(OutputError) as caught:
        Journal(journal.output, "identity").read()
    told = str(caught.value)
    assert told.startswith(f"{journal.path}: line 1, ")
    assert "is damaged; delete this file " in told
    assert "settings" not in told
    journal.path.unlink()  # as it says
    assert Journal(journal.output, "identity").read() == {}


def test_units_come_back_as_they_were(tmp_path):
    values = [None, True, 0, -1.5, "é 😀\u2028", "\0", [], {}, {"a": [{"b": None}]}, 10**30]
    journal = Journal(tmp_path / "out", "identity")
    for number, value in enumerate(values):
        journal.append(str(number), value)
    journal.close()
    assert list(Journal(tmp_path / "out", "identity").read().values()) == values


def test_files_of_other_outputs_are_no_parts(tmp_path):
    for name in (
        "out.jsonl.part0",
        "out.jsonl.partial",
        "out.jsonl.part1.tmp",
        "my_out.jsonl.part0",
    ):
        (tmp_path / name).write_text("")
    assert [p.name for p in Journal(tmp_path / "out.jsonl", "x").parts()] == ["out.jsonl.part0"]


def test_a_journal_is_for_the_user_alone(journal):
    assert journal.path.stat().st_mode & 0o777 == 0o600


def test_a_line_ends_with_the_checksum_of_what_stands_before_it(tmp_path):
    journal = Journal(tmp_path / "out", "identity")
    journal.append("7", {"é": [0.5, "a, b"]})
    journal.close()
    line = journal.path.read_bytes().splitlines()[1]
    checksum = zlib.crc32('["7", {"é": [0.5, "a, b"]}]'.encode())
    assert line.decode() == f'["7", {{"é": [0.5, "a, b"]}}, {checksum}]'
