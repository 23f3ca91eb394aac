"""What the rooms may know of each other."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "pal").rglob("*.py"))

# Each room of the left imports nothing of those on the right.
FACES = ("conversation", "terminal", "serve", "study")
ABOVE = (
    "commands", "benchmark", "traits", "human_eval", "training", "speed", "judging", "simulation",
    "supporter", "cli", "config", *FACES,
)  # fmt: skip
OVER = ("guard", *ABOVE)
CONTRACTS = {
    "core": (
        "data",
        "modeling",
        "decoding",
        "persona",
        "metrics",
        "llm",
        "stats",
        "report",
        "cluster",
        *OVER,
    ),
    "cluster": ("data", "modeling", "decoding", "persona", "metrics", "llm", "stats", *OVER),
    "data": ("modeling", "decoding", "persona", "metrics", "llm", "stats", "report", *OVER),
    "decoding": ("modeling", "persona", "metrics", "llm", "stats", "report", *OVER),
    "modeling": ("persona", "metrics", "llm", "stats", "report", *OVER),
    "metrics": ("modeling", "decoding", "persona", "llm", "report", *OVER),
    "llm": ("modeling", "decoding", "persona", "metrics", "stats", "report", *OVER),
    "stats": ("data", "modeling", "decoding", "persona", "metrics", "llm", "report", *OVER),
    "report": ("modeling", "decoding", "persona", "metrics", "llm", *OVER),
    "persona": ("metrics", "stats", "report", *OVER),
    "knowledge": ("persona", "metrics", "stats", "report", *OVER),
    "guard": ("modeling", "decoding", "persona", "llm", "report", *ABOVE),
    "conversation": (
        "stats",
        "report",
        "metrics",
        "terminal",
        "serve",
        "study",
        *ABOVE[: -len(FACES)],
    ),
    "terminal": ("stats", "report", "metrics", "llm", "serve", "study", *ABOVE[: -len(FACES)]),
    "serve": ("stats", "report", "metrics", "llm", "study", *ABOVE[: -len(FACES)]),
    "study": ("benchmark", "traits", "commands", "training", "speed", "serve"),
    "supporter": (
        "modeling",
        "decoding",
        "persona",
        "metrics",
        "stats",
        "report",
        "guard",
        "benchmark",
        "traits",
        "commands",
        "training",
        "human_eval",
        "judging",
        "simulation",
        "speed",
        *FACES,
    ),
    "judging": (
        "modeling",
        "decoding",
        "persona",
        "guard",
        "benchmark",
        "traits",
        "commands",
        "training",
        "simulation",
        "speed",
        *FACES,
    ),
    "harness": (
        "modeling",
        "decoding",
        "persona",
        "stats",
        "report",
        "guard",
        "benchmark",
        "traits",
        "commands",
        "training",
        "human_eval",
        "judging",
        "simulation",
        "speed",
        *FACES,
    ),
    "simulation": (
        "modeling",
        "decoding",
        "metrics",
        "stats",
        "report",
        "benchmark",
        "commands",
        "training",
        "human_eval",
        "judging",
        "speed",
        "serve",
        "study",
    ),
    "benchmark": ("traits", "commands", "speed"),
    "traits": ("benchmark", "commands", "training", "modeling", "decoding", "human_eval", "speed"),
    "human_eval": ("benchmark", "traits", "commands", "modeling", "decoding", "training", "speed"),
    "training": ("benchmark", "traits", "commands", "human_eval", "speed", "metrics", "report"),
    "speed": ("commands", "traits"),
}


def room_of(module):
    parts = module.split(".")
    return parts[1] if parts[0] == "pal" and len(parts) > 1 else ""


def imports_of(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            found |= {f"pal.{alias.name}" for alias in node.names} if base == "pal" else {base}
    return {name for name in found if name.split(".")[0] == "pal"}


@pytest.mark.parametrize("room", CONTRACTS)
def test_contract(room):
    broken = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in FILES
        if path.relative_to(ROOT).parts[1].removesuffix(".py") == room
        for name in imports_of(path)
        if room_of(name) in CONTRACTS[room]
    ]
    assert not broken


def test_the_contracts_see_an_import(tmp_path):
    path = tmp_path / "x.py"
    path.write_text("def f():\n    from pal.cli import main\n    import pal.training.trainer\n")
    assert imports_of(path) == {"pal.cli", "pal.training.trainer"}


def test_no_public_name_stands_twice():
    places = defaultdict(list)
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                places[node.name].append(str(path.relative_to(ROOT)))
    twice = {name: found for name, found in places.items() if len(found) > 1 and name[0] != "_"}
    # Python's own face of the settings is called as the commands' own.
    assert set(twice) <= {"load_settings"}, twice
