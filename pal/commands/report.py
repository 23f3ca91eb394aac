"""``pal report``: one HTML page of results, scores, analyses, α, judgements and case studies."""

from pathlib import Path

from pal.commands.common import WriterSettings
from pal.core.job import Job
from pal.report.settings import PageSettings


class ReportSettings(WriterSettings):
    """Write one HTML page from the outputs of other commands.

    Attributes:
        report: contents of the page.
    """

    examples = (
        "pal report report.include='[runs/results.json, runs/cases.json]' output=runs/report.html",
        "pal report report.include=runs/results.json report.cases=0 output=runs/numbers.html",
    )

    report: PageSettings = PageSettings()


def report(settings: ReportSettings) -> Path:
    """Write the page of the files in ``report.include`` to ``output`` and return its path.

    Raises:
        PalError: no files are given, one of them cannot be read or is of no known kind, or the
            output cannot be written.
    """
    settings = ReportSettings.of(settings)
    (output,) = settings.require("output")
    include = settings.report.include
    from pal.benchmark.report.page import check_protocols, render_page, spread_cases
    from pal.benchmark.report.parts import KINDS, Cases
    from pal.report.page import page_output, write_report
    from pal.report.parts import read_part

    path = page_output(output, include, "results.json")
    parts = [read_part(file, KINDS) for file in include]
    check_protocols([(file, part.model_dump()) for file, part in zip(include, parts, strict=True)])
    for part in parts:
        if isinstance(part, Cases):
            part.cases = spread_cases(part.cases, settings.report.cases)
    title = next((part.title for part in parts if part.title), "PAL: report")
    job = Job("report", settings, path, versions=())
    protocol = next((part.protocol for part in parts if part.protocol), None)
    return write_report(job, lambda: render_page(parts, title), protocol=protocol)
