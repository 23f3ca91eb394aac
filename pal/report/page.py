"""The frame that all reports share: it renders sections as one HTML file.

The page is self-contained: it opens from disk, and a content security policy forbids every request
and every script but its own. All texts are escaped.
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
from pal.core.job import Job, counted
from pal.report.parts import Part
from pal.report.tables import MISSING, show, show_p
from pal.report.words import WORDS

logger = logging.getLogger(__name__)

TEMPLATES = Path(__file__).parent / "templates"
PAGE_SUFFIXES = (".html", ".htm")


@dataclass(frozen=True)
class PageSection:
    """A section of a page.

    Attributes:
        ident: anchor of the section, unique in the page.
        heading: heading of the section.
        template: name of the template.
        part: contents of the section; the template reads it as ``part``.
        data: further values for the template, as ``data``.
    """

    ident: str
    heading: str
    template: str
    part: Part
    data: dict[str, Any]


@dataclass(frozen=True)
class PageAnswer:
    """A question that a page opens with, and its answer.

    Attributes:
        question: the question.
        text: the answer, one sentence.
        section: anchor of the section that holds the numbers; None where there is none.
    """

    question: str
    text: str
    section: str | None = None


def lay_out(
    title: str,
    sections: Sequence[PageSection],
    parts: Sequence[Part],
    *,
    facts: Sequence[str],
    notices: Sequence[str] = (),
    summary: Sequence[str] = (),
    answers: Sequence[PageAnswer] = (),
    templates: Sequence[Path] = (),
    context: Mapping[str, Any] | None = None,
) -> str:
    """Return the page of these sections in the frame that all reports share.

    Args:
        title: heading of the page.
        sections: sections of the page, in order.
        parts: parts of the page; the records of their runs are shown at its end.
        facts: lines below the title.
        notices: warnings for the reader, in a box below the title.
        summary: sentences on what was found, below the notices.
        answers: questions with their answers, below the summary.
        templates: folders of the sections' templates, besides the frame's own; the style sheets
            and scripts in them (``*.css``, ``*.js``) are added to the frame's.
        context: further values for the templates.

    Returns:
        The HTML text; equal arguments give equal text.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader([*templates, TEMPLATES]), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    environment.globals["word"] = WORDS
    environment.filters |= {"number": show, "p": show_p, "pretty": _pretty, "counted": counted}
    folders = [TEMPLATES, *templates]
    style, script = (_joined_files(folders, suffix) for suffix in (".css", ".js"))
    headings = {section.ident: section for section in sections}
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template("page.html").render(
        {
            **(context or {}),
            "title": title,
            "facts": facts,
            "notices": notices,
            "summary": summary,
            "answers": [
                {
                    "question": one.question,
                    "text": one.text,
                    "section": headings[one.section] if one.section else None,
                }
                for one in answers
            ],
            "sections": sections,
            "recorded": [part for part in parts if part.run],
            "style": Markup(style),
            "script": Markup(script),
            "script_hash": digest,
            "missing": MISSING,
        }
    )
    return f"{page}\n"


def _joined_files(folders: Sequence[Path], suffix: str) -> str:
    """Return the text of all files of that suffix, folder by folder."""
    files = [file for folder in folders for file in sorted(folder.glob(f"*{suffix}"))]
    return "\n".join(file.read_text("utf-8") for file in files)


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def page_output(output: str, include: Sequence[str], example: str) -> Path:
    """Return the path of a page, after checking that there is something to show.

    Args:
        output: the output setting.
        include: files to show.
        example: an example of a file to include, for the message.

    Raises:
        ConfigError: nothing is included, or the output does not end in ``.html``.
    """
    path = Path(output)
    if not include:
        raise ConfigError(f"missing settings: give report.include=[{example}, …]")
    if path.suffix.lower() not in PAGE_SUFFIXES:
        raise ConfigError(f"output={output}: give a name that ends in .html")
    return path


def write_report(job: Job, draw: Callable[[], str], **facts: Any) -> Path:
    """Write a page and its record, readable by the user alone, unless the page is finished.

    Args:
        job: job of the page.
        draw: function that returns the HTML text.
        facts: further entries of the record.

    Returns:
        Path of the page.

    Raises:
        OutputError: another output exists at the path, or the page cannot be written.
    """
    if not job.is_finished():
        page = draw()
        with job.claimed(processes=False):
            job.publish(lambda path: write_text(path, page, private=True), **facts)
            logger.info("written to %s", job.output)
    return job.output
