import json
import os

import pytest

from pal.core.errors import DataError, OutputError
from pal.core.files import atomic_writer, read_json, read_jsonl, write_json, write_jsonl


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
