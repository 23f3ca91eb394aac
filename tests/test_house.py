"""The floors of the house: a module imports only from floors below its own."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# The README shows the same map. Wings on one floor do not import each other.
FLOORS = [
    ["pal.errors"],
    ["pal.records", "pal.strategies"],
    ["pal.settings", "pal.jobs", "pal.decoding", "pal.data"],
    ["pal.config", "pal.runs", "pal.modeling", "pal.llm"],
    ["pal.persona", "pal.metrics", "pal.tracking"],
    ["pal.preparation", "pal.generation"],
    ["pal.training"],
    ["pal.evaluation"],
    ["pal.traits"],
    ["pal.quickstart", "pal.bench"],
    ["pal.cli"],
    ["train", "generate", "eval"],
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# ``pal`` itself only forwards names to the rooms; it belongs to no floor.
MODULES = [
    path
    for path in [*(ROOT / "pal").rglob("*.py"), *ROOT.glob("*.py")]
    if path != ROOT / "pal" / "__init__.py"
]


def room_of(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "pal" else parts[0]


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            found |= {f"{base}.{alias.name}" if base == "pal" else base for alias in node.names}
    return {name for name in found if name.split(".")[0] == "pal"} - {"pal.__version__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_climbs_a_floor(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    room = room_of(module)
    assert room in FLOOR, f"{room} has no floor; add it to the map"
    for name in imports_of(path):
        other = room_of(name)
        assert other == room or FLOOR[other] < FLOOR[room], f"{module} imports {name}"


def test_the_guard_sees_a_climb(tmp_path):
    path = tmp_path / "x.py"
    path.write_text("def f():\n    from pal.cli import main\n    import pal.training\n")
    assert imports_of(path) == {"pal.cli", "pal.training"}
    assert FLOOR["pal.cli"] > FLOOR["pal.data"]


def test_help_needs_no_heavy_import():
    import subprocess
    import sys

    code = (
        "import sys; from pal.cli import build_parser; build_parser();"
        "print([m for m in ('torch', 'transformers', 'datasets', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_readme_maps_every_module():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [
        str(path.relative_to(ROOT))
        for path in MODULES
        if path.name != "__init__.py" and path.name not in readme
    ]
    assert not missing
