"""Every command that the documents show is one that the command line takes."""

import re
import shlex

import pytest

from pal.cli import parse_arguments
from pal.commands import load_settings
from pal.core.errors import ConfigError
from tests.jobs import ROOT

PAGES = [ROOT / "README.md", ROOT / "data" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What a page shows as an example of what is refused.
REFUSED = ("pal generate tune_alpha.trials=3",)
SCRIPTS = {"train.py": "train", "generate.py": "generate", "eval.py": "eval"}


def commands():
    """Yield (page, command line) of code blocks and of code within sentences."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"```(?:sh|bash)?\n(.*?)```", text, re.DOTALL)
        lines = [line.strip() for block in blocks for line in block.split("\n")]
        lines += re.findall(r"(?<!`)`((?:pal|python|accelerate launch) [^`]+)`(?!`)", text)
        for line in lines:
            for part in re.split(r" && | ; ", line):
                words = part.split()
                if words[:1] == ["pal"] or any(word in SCRIPTS for word in words[:8]):
                    yield page.name, part


CASES = sorted(set(commands()))


def test_the_documents_show_commands():
    assert len(CASES) > 25


@pytest.mark.parametrize(("page", "line"), CASES, ids=[line[:60] for _, line in CASES])
def test_a_command_as_it_is_shown_is_taken(page, line):
    line = re.sub(r"\$\w+", "test", line)
    words = shlex.split(line, comments=True)
    if words[0] == "pal":
        words = words[1:]
    else:
        at = next(index for index, word in enumerate(words) if word in SCRIPTS)
        words = [SCRIPTS[words[at]], *words[at + 1 :]]
    # A placeholder stands for whatever the reader has.
    words = [word for word in words if word not in ("…", "COMMAND", "[PREFIX]", "--help")]
    if not words or words == ["traits"]:
        return
    given = parse_arguments(words)
    overrides = [
        item.replace("…", "http://localhost:8000/v1" if "base_url" in item else "x")
        for item in given.overrides
    ]
    if line in REFUSED:
        with pytest.raises(ConfigError):
            load_settings(given.command, None, overrides)
        return
    config = given.config if given.config and "/alpha.yaml" not in given.config else None
    load_settings(given.command, config, overrides)
