"""The report: one HTML file that shows results, analyses, α, human evaluation and case studies.

    pal report report.include='[runs/results.json, runs/cases.json]' output=runs/report.html

The page holds all it needs and loads nothing: it opens from disk, and a policy in its head forbids
every request and every script but its own. All texts reach it escaped, as they are.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pal.core.errors import ConfigError
from pal.benchmark.report.page import render
from pal.benchmark.report.parts import Cases, Part, check_part, read_part
from pal.core.job import is_finished, record_path
from pal.core.files import file_fingerprint, output_lock, write_text
from pal.core.runs import identity_of, write_run
from pal.core.schema import Settings

__all__ = ["report", "report_output", "write_page", "write_report"]

SUFFIXES = (".html", ".htm")


def report(settings: Settings) -> Path:
    """Write the page of the files in ``report.include`` to ``output``; returns its path.

    Raises:
        PalError: no files are given, one of them cannot be read or is of no known kind, or the
            output cannot be written.
    """
    output = report_output(settings, "results.json")
    parts = [read_part(path) for path in settings.report.include]
    for part in parts:
        if isinstance(part, Cases):
            part.cases = _spread(part.cases, settings.report.cases)
    title = next((part.title for part in parts if part.title), "PAL: report")
    write_report(settings, "report", lambda: render(parts, title))
    return output


def report_output(settings: Settings, example: str) -> Path:
    """Return where a report goes, once it is clear that there is something to show.

    Args:
        settings: with ``output`` and ``report.include``.
        example: a file to include, for the message.

    Raises:
        ConfigError: nothing is included, or the output is no name of a page.
    """
    output = Path(settings.require("output")[0])
    if not settings.report.include:
        raise ConfigError(f"missing settings: give report.include=[{example}, …]")
    if output.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"output={output}: give a name that ends in .html")
    return output


def write_report(settings: Settings, command: str, draw: Callable[[], str]) -> None:
    """Write a page and its record, unless the page is finished.

    Args:
        settings: with ``output`` and ``report.include``, both checked and read.
        command: that writes.
        draw: gives the page.
    """
    output = Path(settings.require("output")[0])
    files = [file_fingerprint(Path(path)) for path in settings.report.include]
    identity = identity_of(settings, "report", command=command, files=files)
    if is_finished(output, identity, overwrite=settings.overwrite):
        return
    page = draw()
    with output_lock(output):
        output.unlink(missing_ok=True)  # the record first: a kill between the two is harmless
        write_run(record_path(output), settings, command, identity)
        write_text(output, page)


def write_page(path: str | Path, parts: Sequence[dict[str, Any]], *, title: str) -> Path:
    """Write the page of these parts, each what one JSON file holds.

    Args:
        path: the HTML file.
        parts: objects of any kinds, any number, in any order.
        title: heading of the page.

    Raises:
        PalError: a part is not what its kind should be, or the file cannot be written.
    """
    checked: list[Part] = []
    for number, part in enumerate(parts, start=1):
        checked.append(check_part(part, f"part {number} of the report"))
    write_text(path, render(checked, title))
    return Path(path)


def _spread(items: list[Any], limit: int) -> list[Any]:
    """Return at most ``limit`` items, evenly spread."""
    count = min(limit, len(items))
    return [items[index * len(items) // count] for index in range(count)]
