"""The report: one HTML file that shows results, analyses, α, human evaluation and case studies.

    pal report report.include='[runs/results.json, runs/cases.json]' output=runs/report.html

The page holds all it needs and loads nothing: it opens from disk, and a policy in its head forbids
every request and every script but its own. All texts reach it escaped, as they are.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pal.errors import ConfigError
from pal.evaluation.report.page import render
from pal.evaluation.report.parts import Cases, Part, check_part, read_part
from pal.jobs import is_finished, record_path
from pal.records import file_fingerprint, output_lock, write_text
from pal.runs import identity_of, write_run
from pal.settings import Settings

__all__ = ["report", "write_page"]

SUFFIXES = (".html", ".htm")


def report(settings: Settings) -> Path:
    """Write the page of the files in ``report.include`` to ``output``; returns its path.

    Raises:
        PalError: no files are given, one of them cannot be read or is of no known kind, or the
            output cannot be written.
    """
    output = Path(settings.require("output")[0])
    include = settings.report.include
    if not include:
        raise ConfigError("missing settings: give report.include=[results.json, …]")
    if output.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"output={output}: give a name that ends in .html")
    parts = [read_part(path) for path in include]
    files = [file_fingerprint(Path(path)) for path in include]
    identity = identity_of(settings, "report", files=files)
    if is_finished(output, identity, overwrite=settings.overwrite):
        return output
    for part in parts:
        if isinstance(part, Cases):
            part.cases = _spread(part.cases, settings.report.cases)
    title = next((part.title for part in parts if part.title), "PAL: report")
    with output_lock(output):
        output.unlink(missing_ok=True)  # the record first: a kill between the two is harmless
        write_run(record_path(output), settings, "report", identity)
        write_text(output, render(parts, title))
    return output


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
