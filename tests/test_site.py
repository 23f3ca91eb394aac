"""The site of the documentation builds without a warning, is whole, and needs nothing from outside.

Its settings are those of the schema, and the links of README.md hold in it and in the repository.
"""

import html
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from pal.commands import all_settings
from pal.core.explain import explain
from tests.jobs import ROOT, environment

DOCS = ROOT / "docs"
FROM_OUTSIDE = re.compile(
    r"""<(?:script|img|iframe|source|video)[^>]*\ssrc=["'](?:https?:)?//"""
    r"""|<link[^>]*\srel=["'](?:stylesheet|preload|preconnect|icon)["'][^>]*href=["'](?:https?:)?//"""
    r"""|url\(\s*["']?(?:https?:)?//|@import\s+(?:url\()?\s*["']?(?:https?:)?//"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site."""
    for name in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(name, reason=f"the extra docs is not installed ({name} is missing)")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", str(DOCS), str(folder)],
        env=environment(OMP_NUM_THREADS="1"), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[str, str]:
    """The text of every page."""
    return {path.name: path.read_text(encoding="utf-8") for path in site.glob("*.html")}


def ids(page: str) -> set[str]:
    return set(re.findall(r'\sid="([^"]+)"', page))


def test_every_page_is_in_the_menu(pages):
    written = {f"{path.stem}.html" for path in DOCS.glob("*.md")}
    assert len(written) > 20
    menu = set(re.findall(r'class="reference internal" href="(\w+\.html)"', pages["index.html"]))
    assert written - menu == {"index.html"}


def test_every_key_of_every_command_is_explained_and_no_other(pages):
    told = {
        html.unescape(key)
        for key in re.findall(
            r'<tr[^>]*><td><p><code[^>]*><span class="pre">([^<]+)<', pages["settings.html"]
        )
    }  # fmt: skip
    rows = [row for cls in all_settings().values() for row in explain(cls)]
    assert len(rows) > 500
    # A key is listed with every default and meaning that some command gives it.
    assert told == {row.key for row in rows}
    text = html.unescape(re.sub(r"<[^>]+>", "", pages["settings.html"]))
    plain = re.sub(r"[^\w]+", "", text)
    assert [row.key for row in rows if re.sub(r"[^\w]+", "", row.meaning) not in plain] == []


def test_links_within_the_site_lead_somewhere(pages, site):
    broken = []
    for name, text in pages.items():
        for href in re.findall(r'href="([^"]+)"', text):
            if re.match(r"[a-z]+:|//", href):
                continue
            target, _, fragment = unquote(html.unescape(href)).partition("#")
            page = target.split("?")[0] or name
            whole = (site / page).exists()
            if not whole or (fragment and page in pages and fragment not in ids(pages[page])):
                broken.append(f"{name}: {href}")
    assert broken == []


def test_nothing_is_loaded_from_outside(site):
    seen = 0
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        seen += 1
        found = FROM_OUTSIDE.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path.name}: {found[0]}"
    assert seen > 25


@pytest.mark.parametrize("text", [
    '<script src="https://cdn.example.org/a.js">', '<img alt="" src="//example.org/a.png">',
    '<link rel="stylesheet" type="text/css" href="https://fonts.example.org/css">',
    "src: url(https://fonts.example.org/a.woff2)", '@import "https://example.org/a.css"',
])  # fmt: skip
def test_what_comes_from_outside_would_be_seen(text):
    assert FROM_OUTSIDE.search(text)


def test_links_of_the_readme_hold_in_the_repository_and_in_the_site(pages):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(
        r'(?:src|srcset|href)="([^"]+)"', text
    )
    inside = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert inside
    for link in inside:
        target, _, fragment = link.partition("#")
        assert not target or (ROOT / target).exists(), link
        if target.startswith("docs/") and target.endswith(".md"):
            page = pages[f"{Path(target).stem}.html"]
            assert not fragment or fragment in ids(page), link


def test_a_page_that_no_list_names_is_in_the_menu_too():
    conf: dict[str, Any] = {"__file__": str(DOCS / "conf.py")}
    exec(compile((DOCS / "conf.py").read_text(encoding="utf-8"), "conf.py", "exec"), conf)
    text = "# T\n\n## First\n\n- [Settings](settings.md): keys\n"
    menu = conf["menu"](text)
    first, more = menu.split(":caption: More")
    assert ":caption: First" in first
    assert "settings" in first
    assert "settings" not in more.split()
    assert {"faq", "guard"} <= set(more.split())


def test_the_readme_is_short_and_its_pictures_are_small_and_described():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.encode()) <= 10_240
    pictures = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text)
    assert len(pictures) == 2
    for described, place in pictures:
        assert len(described) > 40, place
        assert (ROOT / place).stat().st_size < 150_000, place


def test_pictures_of_the_repository_load_nothing_and_suit_dark_pages():
    [picture] = (DOCS / "_static").glob("*.svg")
    text = picture.read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text
    assert "<title" in text
    assert "<desc" in text
    assert not re.search(r"href=|url\((?!#)|<script|<image|@import", text)
