"""Only one process writes an output."""

import os
import subprocess
import sys

from pal.core.job import output_lock
from tests.jobs import environment


def test_second_process_is_refused_while_the_first_writes(tmp_path):
    code = (
        "from pal.core.job import output_lock\n"
        f"with output_lock({str(tmp_path / 'out')!r}): print('got it')"
    )
    command, how = [sys.executable, "-c", code], {"capture_output": True, "text": True}
    how["env"] = environment()
    with output_lock(tmp_path / "out"):
        second = subprocess.run(command, **how)
    assert "another process is writing it" in second.stderr
    third = subprocess.run(command, **how)
    assert third.stdout == "got it\n"
    assert os.listdir(tmp_path) == []
