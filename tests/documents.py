"""The examples of the documents: blocks of code, and the commands in them and in sentences."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.jobs import ROOT

PAGES = [
    *(
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "data/README.md", "examples/README.md")
    ),
    *sorted((ROOT / "docs").glob("*.md")),
]
SCRIPTS = {"train.py": "train", "generate.py": "generate", "eval.py": "eval"}
SHELL = ("sh", "bash")

_BLOCK = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`((?:pal|python|accelerate launch) [^`]+)`(?!`)")
_NEEDS = re.compile(r"^ *# needs: (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: name of the page.
        number: its place among the blocks of the page, from 1.
        language: the word behind the fence.
        text: what stands in it.
        needs: what ``# needs: …`` says that it takes, so that no test runs it; else empty.
    """

    page: str
    number: int
    language: str
    text: str
    needs: str

    @property
    def name(self) -> str:
        return f"{self.page}-{self.number}"


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    name = str(page.relative_to(ROOT))
    for number, found in enumerate(_BLOCK.finditer(text), start=1):
        body = re.sub(f"^{found[1]}", "", found[3], flags=re.MULTILINE)
        needs = _NEEDS.search(body)
        yield Block(name, number, found[2], body, needs[1] if needs else "")


def all_blocks() -> list[Block]:
    """Return the blocks of all pages."""
    return [block for page in PAGES if page.exists() for block in blocks_of(page)]


def lines_of(block: Block) -> list[str]:
    """Return the lines of a shell block, continued ones joined, without comments."""
    text = re.sub(r"\\\n\s*", "", block.text)
    return [line.strip() for line in text.split("\n") if line.strip() and line.strip()[0] != "#"]


def inline_commands(page: Path) -> list[str]:
    """Return the commands that stand in the sentences of a page."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    return [" ".join(found.split()) for found in _INLINE.findall(text)]


def is_command(part: str) -> bool:
    """Return whether a piece of a line calls this package."""
    words = part.split()
    launched = "-m pal " in part and "…" not in part
    return words[:1] == ["pal"] or launched or any(word in SCRIPTS for word in words[:8])


def arguments_of(line: str) -> list[str]:
    """Return the arguments of ``pal`` that a command line stands for."""
    words = shlex.split(re.sub(r"\$(\w+|\([^)]*\))", "test", line), comments=True)
    for sign in ("|", ">", "2>"):
        words = words[: words.index(sign)] if sign in words else words
    if "pal" in words and words[0] != "pal" and words[words.index("pal") - 1] == "-m":
        words = words[words.index("pal") :]  # behind a launcher
    if words[0] == "pal":
        return words[1:]
    at = next(index for index, word in enumerate(words) if word in SCRIPTS)
    return [SCRIPTS[words[at]], *words[at + 1 :]]
