"""The page that all reports share: sections in, one HTML file out.

The page holds all it needs and loads nothing: it opens from disk, and a policy in its head forbids
every request and every script but its own. All texts reach it escaped, as they are.
"""

import base64
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pal.core.errors import ConfigError
from pal.core.files import write_text
from pal.core.job import Job
from pal.report.parts import Part
from pal.report.tables import MISSING, show, show_p

logger = logging.getLogger(__name__)

TEMPLATES = Path(__file__).parent / "templates"
PAGE_SUFFIXES = (".html", ".htm")


@dataclass(frozen=True)
class PageSection:
    """A section of a page.

    Attributes:
        ident: its anchor, unique in the page.
        heading: its heading.
        template: name of its template.
        part: what it is made of; the template reads it as ``part``.
        data: what else the template reads, as ``data``.
    """

    ident: str
    heading: str
    template: str
    part: Part
    data: dict[str, Any]


def lay_out(
    title: str,
    sections: Sequence[PageSection],
    parts: Sequence[Part],
    *,
    facts: Sequence[str],
    notices: Sequence[str] = (),
    templates: Sequence[Path] = (),
    context: Mapping[str, Any] | None = None,
) -> str:
    """Return the page of these sections in the frame that all reports share.

    Args:
        title: heading of the page.
        sections: what it shows, in order.
        parts: what it is made of; the records of their runs stand at its end.
        facts: what is said beneath the title.
        notices: what a reader must know first; in a box beneath the title.
        templates: folders of the sections' templates, besides the frame's own; the style sheets
            and scripts in them (``*.css``, ``*.js``) are added to the frame's.
        context: further names that the templates read.

    Returns:
        HTML text; the same arguments give the same text.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader([*templates, TEMPLATES]), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    environment.filters |= {"number": show, "p": show_p, "pretty": _pretty}
    folders = [TEMPLATES, *templates]
    style, script = (_joined_files(folders, suffix) for suffix in (".css", ".js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(
        {
            **(context or {}),
            "title": title,
            "facts": facts,
            "notices": notices,
            "sections": sections,
            "recorded": [part for part in parts if part.run],
            "style": Markup(style),
            "script": Markup(script),
            "script_hash": digest,
            "missing": MISSING,
        }
    )


def _joined_files(folders: Sequence[Path], suffix: str) -> str:
    """Return the text of all files of that suffix, folder by folder."""
    files = [file for folder in folders for file in sorted(folder.glob(f"*{suffix}"))]
    return "\n".join(file.read_text("utf-8") for file in files)


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def page_output(output: str, include: Sequence[str], example: str) -> Path:
    """Return where a page goes, once it is clear that there is something to show.

    Args:
        output: what the user gave.
        include: files to show.
        example: a file to include, for the message.

    Raises:
        ConfigError: nothing is included, or the output is no name of a page.
    """
    path = Path(output)
    if not include:
        raise ConfigError(f"missing settings: give report.include=[{example}, …]")
    if path.suffix.lower() not in PAGE_SUFFIXES:
        raise ConfigError(f"output={output}: give a name that ends in .html")
    return path


def write_report(job: Job, draw: Callable[[], str]) -> Path:
    """Write a page and its record, unless the page is finished; only the user may read it.

    Args:
        job: of the page; its settings hold all that the page is made of.
        draw: gives the page.

    Returns:
        Path of the page.

    Raises:
        OutputError: something else lies there, or it cannot be written.
    """
    if not job.is_finished():
        page = draw()
        with job.claimed(processes=False):
            job.publish(lambda path: write_text(path, page, private=True))
            logger.info("written to %s", job.output)
    return job.output
