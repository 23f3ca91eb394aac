"""Every command that the documents show is one that the command line takes."""

import re

import pytest

from pal.cli import parse_arguments
from pal.commands import COMMANDS, load_settings
from pal.core.errors import ConfigError
from tests.documents import (
    PAGES,
    SHELL,
    all_blocks,
    arguments_of,
    inline_commands,
    is_command,
    lines_of,
)
from tests.jobs import ROOT

# What a page shows as an example of what is refused.
REFUSED = ("pal generate tune_alpha.trials=3",)
# A file of the checkout, as pages name it.
FILE = re.compile(r"\b(?:examples|configs|data/sample)/[\w./-]+\.(?:py|ipynb|sh|ya?ml|jsonl|txt)\b")


def commands():
    """Yield (page, command line) of code blocks and of code within sentences."""
    shown = [
        (block.page, line)
        for block in all_blocks()
        if block.language in SHELL
        for line in lines_of(block)
    ]
    shown += [
        (page.name, line) for page in PAGES if page.exists() for line in inline_commands(page)
    ]
    for page, line in shown:
        for part in re.split(r" && | ; | \| ", line):
            if is_command(part):
                yield page, part


CASES = sorted(set(commands()))


def test_the_documents_show_commands():
    assert len(CASES) > 100


def test_every_fence_says_what_is_in_it():
    """A fence without a word would hide its commands from the tests."""
    assert [block.name for block in all_blocks() if not block.language] == []


@pytest.mark.parametrize(("page", "line"), CASES, ids=[line[:60] for _, line in CASES])
def test_a_command_as_it_is_shown_is_taken(page, line):
    # A placeholder stands for whatever the reader has.
    placeholders = ("…", "COMMAND", "[PREFIX]", "--help", "--dry-run")
    words = [word for word in arguments_of(line) if word not in placeholders]
    heads = {name.split()[0] for name in COMMANDS if " " in name}
    if not words or (len(words) == 1 and words[0] in heads):
        return
    given = parse_arguments(words)
    overrides = [
        # A package that carries a model need not be installed for its line to be taken.
        re.sub("=package:.*", "=x", item).replace(
            "…", "http://localhost:8000/v1" if "base_url" in item else "x"
        )
        for item in given.overrides
    ]
    if line in REFUSED:
        with pytest.raises(ConfigError):
            load_settings(given.command, None, overrides)
        return
    config = given.config if given.config and "/alpha.yaml" not in given.config else None
    load_settings(given.command, config, overrides)


def named_files():
    """Yield (page, file) of every file of the checkout that a page names."""
    for page in PAGES:
        if page.exists():
            for found in FILE.findall(page.read_text(encoding="utf-8")):
                yield str(page.relative_to(ROOT)), found


def test_a_file_of_the_checkout_that_a_page_names_is_there():
    named = set(named_files())
    assert "examples/README.md" in {page for page, _ in named}
    assert len(named) > 10
    assert [pair for pair in named if not (ROOT / pair[1]).exists()] == []
