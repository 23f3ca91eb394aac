"""Lines that are read one at a time are those of the whole file, and so are the faults."""

import bz2
import gzip
import lzma
import os
import tracemalloc

import pytest

from pal.core.errors import DataError
from pal.core.files import Streamed, fingerprint, read_text, write_json, write_json_list
from pal.core.streams import read_head, read_lines

TEXTS = {
    "plain": b"one\ntwo\n",
    "without an end": b"one\ntwo",
    "line ends of other systems": b"one\r\ntwo\rthree\r\n\r\n",
    "a byte order mark": "\ufeffone\ntwo".encode(),
    "separators that end no line": "a\u2028b\x0bc\x0cd\x85e\n".encode(),
    "blank lines": b"\n\n  \none\n\n",
}
PACKED = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("ending", PACKED)
@pytest.mark.parametrize("name", TEXTS)
def test_the_lines_are_those_of_the_whole_text(name, ending, tmp_path):
    path = tmp_path / f"x.txt{ending}"
    path.write_bytes(PACKED[ending](TEXTS[name]))
    expected = read_text(path).split("\n")
    assert list(read_lines(path)) == (expected[:-1] if expected[-1] == "" else expected)
    assert read_head(path, 3) == TEXTS[name][:3]


def test_a_zst_file_is_read(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    path = tmp_path / "x.zst"
    with pyarrow.CompressedOutputStream(str(path), "zstd") as stream:
        stream.write(b"one\ntwo\n" * 100_000)
    assert list(read_lines(path)) == ["one", "two"] * 100_000


FAULTS = {
    "empty": b"",
    "blank": b" \n\n",
    "not UTF-8": b"one\n" * 50_000 + b"\xff\n",
    "UTF-16": "one".encode("utf-16"),
    "a damaged archive": gzip.compress(os.urandom(200_000))[:150_000],
    "an archive of no text": gzip.compress(b"\xff\xfe\xfd"),
    "a pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "a pickle": b"\x80\x04\x95",
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_faults_are_those_of_the_whole_text(name, tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(FAULTS[name])
    with pytest.raises(DataError) as whole:
        read_text(path)
    with pytest.raises(DataError) as lines:
        list(read_lines(path))
    assert str(lines.value) == str(whole.value)
    for wrong in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataError):
            list(read_lines(wrong))


def test_a_large_file_is_not_held(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"a line of a large file\n" * 500_000)
    tracemalloc.start()
    assert sum(1 for _ in read_lines(path)) == 500_000
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001])
def test_streamed_values_have_the_fingerprint_of_their_list(count):
    values = [{"b": number, "a": ["é", None, "\ud800"]} for number in range(count)]
    for place in (
        lambda rows: rows,
        lambda rows: {"z": 1, "rows": rows, "a": {"deep": rows}},
        lambda rows: ["x", rows],
    ):
        assert fingerprint(place(Streamed(values))) == fingerprint(place(values))


@pytest.mark.parametrize("values", [[], [1], [{"a": ["line\nend", {}]}, [], "é"]])
def test_a_list_is_written_as_one_document(values, tmp_path):
    write_json(tmp_path / "whole.json", values)
    write_json_list(tmp_path / "parts.json", iter(values))
    assert (tmp_path / "parts.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
