"""The worked examples of docs/extending.md: each is added to a copy of the package, and used."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from tests.jobs import ESCONV, ROOT, environment

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = {
    match[1]: f"{match[2]}"
    for match in re.finditer(
        r"(?:```python\n# (?=pal)|`(?=tests/\S+:))(\w+/\S+?\.\w+)(?:`:\n\n```json)?\n(.*?)```",
        PAGE, re.DOTALL,
    )
}  # fmt: skip

# The one line of each: file, what stands there, and what it becomes with the line in front.
LINES = {
    "pal/modeling/fusion.py": (
        '"masked":', '"gated": "pal.modeling.gated_fusion:GatedFusion", "masked":',
    ),
    "pal/metrics/table.py": ('"strategy", "perplexity"', '"questions", "strategy", "perplexity"'),
    "pal/data/corpora/__init__.py": (
        '"table": "pal', '"script": "pal.data.corpora.scripts:ScriptReader", "table": "pal',
    ),
    "pal/commands/__init__.py": (
        '    "quickstart": Command(',
        '    "count": Command("count the turns of a corpus", "pal.commands.count", "count",\n'
        '                     "CountSettings"),\n    "quickstart": Command(',
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """The package with the four examples in it, in a folder of its own."""
    folder = tmp_path_factory.mktemp("extended")
    for name in ("pal", "configs", "data", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    assert len(FILES) == 6, list(FILES)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    for name, (before, after) in LINES.items():
        text = (folder / name).read_text()
        assert text.count(before) == 1, name
        (folder / name).write_text(text.replace(before, after))
    return folder


COMMANDS = """
import json, sys
from pal.cli import main
for arguments in json.loads(sys.argv[1]):
    if main(arguments) != 0:
        sys.exit(f"failed: {arguments}")
"""


def run(extended, *arguments):
    done = subprocess.run(
        [sys.executable, *arguments], cwd=extended, text=True, capture_output=True,
        env=environment(PYTHONPATH=str(extended)),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commands(extended, *calls):
    """Run commands of the package in one process; return what it prints."""
    return run(extended, "-c", COMMANDS, json.dumps([[str(word) for word in one] for one in calls]))


def test_the_page_names_every_line():
    for _, after in LINES.values():
        words = re.sub(
            r"\s+", " ", after.split('"masked"')[0].split('"table"')[0].split('    "q')[0]
        )
        assert words.strip().split(",")[0].strip() in re.sub(r"\s+", " ", PAGE)


def test_the_command(extended):
    output = extended / "count.json"
    count = ["count", f"input={ESCONV}", "split=test", f"output={output}"]
    assert "words" in commands(extended, ["count", "--help"], count)
    found = json.loads(output.read_text())
    assert set(found) == {"seeker", "supporter"}
    words = ["count", f"input={ESCONV}", "words=true", f"output={extended / 'w.json'}"]
    assert "seeker" in commands(extended, words)


def test_the_command_obeys_every_setting_that_it_takes(extended):
    table = extended / "turns.csv"
    table.write_text(
        "dialogue,speaker,text,said,strategy\na,seeker,one two,x,\na,supporter,three,y,Query\n"
        "b,seeker,four,z,\nb,supporter,five,y,Others\n"
    )
    settings = {
        "limit=1": {"seeker": 2, "supporter": 1},
        "data.columns.text=said": {"seeker": 2, "supporter": 2},
        "data.reader=table": {"seeker": 3, "supporter": 2},
    }
    commands(extended, *(
        ["count", f"input={table}", f"output={extended / extra}.json", "words=true",
         "data.strategy_labels={Query: Question}", extra]
        for extra in settings
    ))  # fmt: skip
    for extra, expected in settings.items():
        assert json.loads((extended / f"{extra}.json").read_text()) == expected, extra


def test_the_tests_are_content_with_all_four(extended):
    """What the page promises: those that walk the tables ask for nothing that it does not say."""
    run(extended, "-m", "pytest", "-q", "-n0", "tests/test_contracts.py",
        "tests/core/test_identity.py", "tests/core/test_settings.py", "tests/metrics/test_table.py",
        "tests/metrics/test_cases.py", "tests/metrics/test_hub.py", "tests/modeling/test_pal.py",
        "-k", "contract or public or count or questions or gated or keys or cannot "
        "or every_family_and_key")  # fmt: skip


def test_the_corpus_and_the_metric(extended):
    script = extended / "play.txt"
    script.write_text(
        "Seeker: I lost my job.\nSupporter [Question]: What happened?\n\n"
        "Seeker: Hi.\nSupporter [Others]: Hi.\n"
    )
    predictions = extended / "predictions.jsonl"
    rows = [{"id": "a/1", "response": "how are you?"}, {"id": "a/3", "response": "ok"}]
    predictions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = commands(
        extended, ["count", f"input={script}", f"output={extended / 'play.json'}"],
        ["eval", f"predictions={predictions}", "metrics.names=questions", "metrics.embedder=null"],
    )  # fmt: skip
    assert json.loads((extended / "play.json").read_text()) == {"seeker": 2, "supporter": 2}
    assert "| questions | 50 |" in table


def test_the_fusion(extended):
    code = (
        "import torch; from pal.modeling.fusion import build_fusion;"
        "f = build_fusion('gated', 8);"
        "x, m = torch.randn(2, 3, 8), torch.ones(2, 3, dtype=torch.long);"
        "print(type(f).__name__, f(x, m, x, m)[0].shape)"
    )
    assert run(extended, "-c", code).strip() == "GatedFusion torch.Size([2, 3, 8])"
