import bz2
import gzip
import json
import lzma
import os
import threading

import pytest
from safetensors import SafetensorError

from pal.core.errors import DataError, OutputError
from pal.core.files import (
    atomic_writer,
    kind_of,
    new_folder,
    no_such,
    parse_json,
    read_json,
    read_jsonl,
    read_text,
    source_fingerprint,
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
    path.write_text('{"a": 1}\n{"a": 2}\n')
    with pytest.raises(DataError, match="line 2: a second JSON value"):
        read_json(path)
    path.write_text('{"a": 1}\n}\n')
    with pytest.raises(DataError, match="line 2: not valid JSON"):
        read_json(path)


def test_a_place_that_cannot_be_written_is_an_output_error():
    with pytest.raises(OutputError, match="cannot write"):
        write_json("/dev/full/x/y.json", 1)


# Files as people have them.


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_compressed_files_are_read_as_what_is_in_them(tmp_path, pack):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(pack('{"a": "é"}\r\n\r\n[1]\n'.encode()))
    assert list(read_jsonl(path)) == [(1, {"a": "é"}), (3, [1])]


def test_a_damaged_archive_is_one_line(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    for contents in (gzip.compress(b"[1]" * 99)[:-9], b"\x1f\x8b" + b"\xff" * 20):
        path.write_bytes(contents)
        with pytest.raises(DataError, match=r"a damaged gz file .*; download or compress it again"):
            read_text(path)


@pytest.mark.parametrize(
    ("path", "what", "near"),
    [
        ("talk.csv", "file", "talks.csv"),
        ("talks.tsv", "file", "talks.csv"),  # a slip in the ending
        ("plan.csv", "file", None),  # an ending alone makes no name near
        ("tinny", "folder", "tiny"),
        ("tinny/model", "folder", "tiny/model"),
        ("tinny/base", "folder", None),
        ("talk", "folder", None),  # a file is no model
        ("conversation.jsonl", "file", None),  # a record of a run, hidden files
        ("talks.csv/x", "file", None),
        ("drafts.txt", "file", None),  # a copy of an editor, unfinished work, a database's journal
        ("tiny", "file", None),  # it is there, as a folder
        ("a\0b", "file", None),
        ("", "file", None),
    ],
)
def test_a_missing_path_gets_a_near_name_that_is_there(tmp_path, monkeypatch, path, what, near):
    (tmp_path / "tiny" / "model").mkdir(parents=True)
    for name in ("talks.csv", "notes.txt", "conversations.jsonl.run.json", ".conversation.jsonl",
                 "draft.txt~", "drafts.part0", "drafts.lock", "drafts.db-wal"):  # fmt: skip
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    meant = f"did you mean {near!r}?" if near else "look again"
    assert no_such(path, what, "look again") == f"no such {what}; {meant}"
    if near and path != "":
        whole = f"did you mean {str(tmp_path / near)!r}?"
        assert no_such(tmp_path / path, what) == f"no such {what}; {whole}"


def test_a_mistyped_file_is_refused_with_the_name_that_is_there(tmp_path):
    (tmp_path / "talks.json").write_text("[]")
    with pytest.raises(
        DataError, match=r"talk\.json: no such file; did you mean '.*talks\.json'\?$"
    ):
        read_json(tmp_path / "talk.json")


def test_a_path_leads_to_a_file_a_folder_a_pipe_or_nothing(tmp_path):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    os.symlink(tmp_path / "nowhere", tmp_path / "link")
    kinds = {name: kind_of(tmp_path / name) for name in ("file", ".", "pipe", "link", "x")}
    assert kinds == {"file": "file", ".": "folder", "pipe": "pipe", "link": "nothing",
                     "x": "nothing"}  # fmt: skip
    assert kind_of("/dev/null") == "device"
    assert kind_of("a\0b") == kind_of("x" * 5000) == "nothing"


@pytest.mark.parametrize(
    ("path", "message"),
    [("/tmp", "a folder, not a file"), ("/dev/zero", "a device, not a file"),
     ("a\0b", "no such file"), ("x" * 5000, "no such file")],
)  # fmt: skip
def test_what_is_no_file_is_refused_in_one_short_line(path, message):
    for read in (read_text, read_json):
        with pytest.raises(DataError, match=message) as caught:
            read(path)
        assert len(str(caught.value)) < 400


def test_a_pipe_is_read_once_and_stays(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(b"[1]\n[2]\n"))
    writer.start()
    assert [value for _, value in read_jsonl(path)] == [[1], [2]]
    writer.join()
    (tmp_path / "file").write_bytes(b"[1]\n[2]\n")
    assert read_text(path) == "[1]\n[2]\n"
    assert source_fingerprint(path) == source_fingerprint(tmp_path / "file")


@pytest.mark.parametrize(
    "text",
    ['{"a": 1, "a": 2}', "NaN", "-Infinity", "1" * 5000, "[" * 100_000, "1e999", '"\\ud800"',
     '{"a": {"b": [{"c": 1, "c": 1}]}}', "1" * 5000 + ".0", "", "1 2", "\0", "'a'"],
)  # fmt: skip
def test_json_is_read_strictly(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


@pytest.mark.parametrize("value", [0, -1.5, 10**300, "é\U0001f600\u2028", [], {"a": [None, True]}])
def test_all_other_json_is_read_as_it_is(value):
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False)) == value


def test_texts_are_for_the_user_alone_and_figures_as_the_umask_says(tmp_path):
    before = os.umask(0o022)
    try:
        write_jsonl(tmp_path / "texts.jsonl", [1])
        write_json(tmp_path / "figures.json", 1)
    finally:
        os.umask(before)
    assert (tmp_path / "texts.jsonl").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "figures.json").stat().st_mode & 0o777 == 0o644


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match="device or a pipe"), atomic_writer(pipe):
        raise AssertionError("nothing is written")
    assert pipe.is_fifo()


def test_a_folder_is_replaced_whole_and_nothing_beside_it_is_touched(tmp_path):
    """Also the folders of somebody else whose names begin alike."""
    folder = tmp_path / "out"
    for name in ("out", "out.old", "out.saving"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "first").write_text(name)
    with pytest.raises(TypeError), new_folder(folder) as unfinished:
        (unfinished / "second").write_text(None)
    assert [path.name for path in folder.iterdir()] == ["first"]
    (tmp_path / ".out.unfinished").mkdir()  # of a run that was killed
    (tmp_path / ".out.replaced").mkdir()
    with new_folder(folder) as unfinished:
        (unfinished / "second").write_text("whole")
    assert [path.name for path in folder.iterdir()] == ["second"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.old", "out.saving"]
    assert (tmp_path / "out.old" / "first").read_text() == "out.old"


@pytest.mark.parametrize("error", [
    OSError(28, "No space left on device"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
])  # fmt: skip
def test_a_folder_for_which_the_disk_is_too_small_is_one_line(tmp_path, error):
    with pytest.raises(OutputError, match=r"out: No space left .*; free space"), \
            new_folder(tmp_path / "out"):  # fmt: skip
        raise error
    assert not list(tmp_path.iterdir())


def test_a_folder_does_not_replace_a_file(tmp_path):
    (tmp_path / "out").write_text("mine")
    (tmp_path / "link").symlink_to("/nowhere")
    for name in ("out", "link"):
        with pytest.raises(OutputError, match=f"{name} is not a folder.*move it away"), \
                new_folder(tmp_path / name):  # fmt: skip
            pass
    assert (tmp_path / "out").read_text() == "mine"


def test_a_kill_while_a_folder_is_replaced_leaves_one_of_the_two(tmp_path, monkeypatch):
    folder, moved = tmp_path / "out", os.replace
    folder.mkdir()
    (folder / "first").touch()

    def killed(source, target):
        if calls.append(target) or len(calls) == 2:
            raise KeyboardInterrupt
        moved(source, target)

    calls = []
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt), new_folder(folder) as unfinished:
        (unfinished / "second").touch()
    monkeypatch.undo()
    assert (tmp_path / ".out.replaced" / "first").exists()
    with new_folder(folder) as unfinished:
        (unfinished / "second").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
