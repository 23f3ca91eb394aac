"""Only one process writes an output."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pal.core.errors import OutputError
from pal.core.files import write_text
from pal.core.job import output_lock
from tests.jobs import command, environment


def test_second_process_is_refused_while_the_first_writes(tmp_path):
    code = (
        "from pal.core.job import output_lock\n"
        f"with output_lock({str(tmp_path / 'out')!r}): print('got it')"
    )
    call, how = [sys.executable, "-c", code], {"capture_output": True, "text": True}
    how["env"] = environment()
    with output_lock(tmp_path / "out"):
        second = subprocess.run(call, **how)
    assert "another process is writing it" in second.stderr
    third = subprocess.run(call, **how)
    assert third.stdout == "got it\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a file system of Linux")
@pytest.mark.parametrize("name", ["/proc/answers.jsonl", "/proc/self/fd/answers.jsonl"])
def test_a_place_that_holds_no_files_is_called_so(name):
    with pytest.raises(OutputError) as caught, output_lock(name):
        pass
    assert f"nothing can be made in {Path(name).parent}" in str(caught.value)
    assert "another process" not in str(caught.value)


@pytest.mark.parametrize("below", ["answers.jsonl", "deeper/answers.jsonl"])
@pytest.mark.parametrize("write", [write_text, lambda path, _: output_lock(path).__enter__()])
def test_a_file_in_the_place_of_a_folder_is_called_so(tmp_path, below, write):
    (tmp_path / "notes").write_text("a file")
    with pytest.raises(OutputError, match=r"notes is not a folder; choose another output$"):
        write(tmp_path / "notes" / below, "text")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOENT])
def test_a_folder_that_takes_no_files_is_named(tmp_path, monkeypatch, code):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("os.open", refuse)  # root may write into any folder
    place = tmp_path / "out.jsonl"
    for write in (lambda: write_text(place, "x"), lambda: output_lock(place).__enter__()):
        with pytest.raises(OutputError) as caught:
            write()
        assert f"nothing can be made in {tmp_path} ({os.strerror(code)})" in str(caught.value)


@pytest.mark.parametrize("place", ["notes/out.json", "/proc/out.json"])
def test_measurements_find_out_before_they_measure(tmp_path, capsys, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    Path("notes").write_text("a file")
    monkeypatch.setattr("pal.speed.metrics.load_pairs", lambda *_, **__: pytest.fail("it worked"))
    assert command("bench", "metrics", f"output={place}") == 2
    assert f"cannot write {place}: " in capsys.readouterr().err
