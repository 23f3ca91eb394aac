import json
import os
import subprocess
import sys

import pytest

from pal.core.errors import DataError, OutputError
from pal.core.files import (
    Journal,
    atomic_writer,
    output_lock,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
)


def test_written_rows_come_back_with_their_line_numbers(tmp_path):
    path = tmp_path / "folder" / "rows.jsonl"
    write_jsonl(path, [{"text": "naïve – ok"}, 2])
    assert list(read_jsonl(path)) == [(1, {"text": "naïve – ok"}), (2, 2)]
    assert "naïve" in path.read_text(encoding="utf-8")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "out.json"
    write_json(path, 1)

    def fail():
        with atomic_writer(path) as handle:
            handle.write("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert json.loads(path.read_text()) == 1
    assert os.listdir(tmp_path) == ["out.json"]


def test_nan_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "out.json", float("nan"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("", "empty"),
        ('{"a": 1}\n{"a": \n', "line 2: not valid JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_bad_files_are_told_in_one_line(tmp_path, content, message):
    path = tmp_path / "in.jsonl"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as caught:
        list(read_jsonl(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_json_document_names_its_line(tmp_path):
    path = tmp_path / "in.json"
    path.write_text('{\n "a": 1,\n oops\n}')
    with pytest.raises(DataError, match="line 3"):
        read_json(path)


def test_a_place_that_cannot_be_written_is_an_output_error():
    with pytest.raises(OutputError, match="cannot write"):
        write_json("/dev/full/x/y.json", 1)


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


def test_journal_cut_inside_its_first_line_starts_anew(tmp_path):
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


def test_second_process_is_refused_while_the_first_writes(tmp_path):
    code = (
        "from pal.core.files import output_lock\n"
        f"with output_lock({str(tmp_path / 'out')!r}): print('got it')"
    )
    with output_lock(tmp_path / "out"):
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "another process is writing it" in second.stderr
    third = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert third.stdout == "got it\n"
    assert os.listdir(tmp_path) == []
