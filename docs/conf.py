"""The site of the documentation: ``sphinx-build -W -n docs build/site``.

The pages are Markdown that reads well in the repository too. Two things are made while the site is
built: the menu, from the lists of links in ``index.md``, and the tables of ``settings.md``, from
the settings classes themselves, as ``pal settings`` prints them. Nothing comes from outside: no
fonts, no scripts.
"""

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # the checkout's own settings, not those of an installed copy

project = "PAL"
author = "The PAL authors"
copyright = "the PAL authors, Apache-2.0"
version = release = re.search(
    r'^version = "(.+)"', (HERE.parent / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
)[1]  # type: ignore[index]

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["_build"]
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_block"]
nitpicky = True
# Examples hold "…" where a reader's own value stands, which is no JSON and no Python.
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = f"PAL {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options: dict[str, Any] = {"footer_icons": []}

LINK = re.compile(r"^- \[[^]]+\]\((\w+)\.md\)", re.MULTILINE)
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
TABLES = "<!-- The tables stand here on the site. -->"


def menu(text: str) -> str:
    """Return the table of contents that the lists of ``index.md`` describe, and of what they lack.

    Every section with links to pages becomes a part of the menu; pages that no list names follow
    under "More", so that a new page is never lost.
    """
    parts: list[tuple[str, list[str]]] = []
    pieces = SECTION.split(text)
    for title, body in zip(pieces[1::2], pieces[2::2], strict=True):
        if pages := LINK.findall(body):
            parts.append((title, pages))
    named = {page for _, pages in parts for page in pages}
    rest = sorted(path.stem for path in HERE.glob("*.md") if path.stem != root_doc)
    if more := [page for page in rest if page not in named]:
        parts.append(("More", more))
    return "".join(
        "\n```{toctree}\n:hidden:\n:caption: " + title + "\n\n" + "\n".join(pages) + "\n```\n"
        for title, pages in parts
    )


def settings_tables() -> str:
    """Return every key of every command, section by section, as ``pal settings`` prints them."""
    from pal.commands.help import settings_table

    head, rule, *rows = settings_table().split("\n")
    sections: dict[str, list[str]] = {}
    for row in rows:
        key = row.split("`")[1]
        sections.setdefault(key.rpartition(".")[0], []).append(row)
    return "\n".join(
        f"### {f'{section}.…' if section else 'Top level'}\n\n"
        + "\n".join([head, rule, *lines, ""])
        for section, lines in sections.items()
    )


def fill(app: Any, name: str, source: list[str]) -> None:
    """Put what is made into the pages that have a place for it."""
    if name == root_doc:
        source[0] += menu(source[0])
    if name == "settings":
        source[0] = source[0].replace(TABLES, settings_tables())


def setup(app: Any) -> dict[str, bool]:
    """Ask Sphinx to call ``fill`` for every page that it reads."""
    app.connect("source-read", fill)
    return {"parallel_read_safe": True}
