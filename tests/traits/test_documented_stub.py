"""The stub of an endpoint in docs/traits.md, with the commands beside it, as they are printed."""

import contextlib
import os
import signal
import socket
import subprocess
import sys

from pal.core.files import read_json
from tests.documents import all_blocks
from tests.jobs import environment


def test_the_stub_and_its_commands_make_a_page(tmp_path):
    stub, commands = (
        next(
            block.text
            for block in all_blocks()
            if block.page == "docs/traits.md" and has in block.text
        )
        for has in ("class Stub", "python stub.py")
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    (tmp_path / "stub.py").write_text(stub.replace("8099", port))
    for name, module in (("python", ""), ("pal", "-m pal")):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
        program.chmod(0o755)
    shell = subprocess.Popen(
        ["bash", "-c", commands.replace("8099", port)], cwd=tmp_path, start_new_session=True,
        env=environment(PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        said, _ = shell.communicate(timeout=300)
    finally:
        with contextlib.suppress(ProcessLookupError):  # the last command has ended the stub
            os.killpg(shell.pid, signal.SIGKILL)
    made = tmp_path / "runs" / "trial"
    assert (made / "report.html").exists(), said
    (found,) = made.glob("correlations-????????????.json")
    assert read_json(found)["groups"][0]["n"] > 3, "enough cards for a correlation"
    assert not list(made.glob("esconv-measure-*.failed.jsonl"))
