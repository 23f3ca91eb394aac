"""The trait report: one HTML file of what the trait commands wrote.

    pal traits report output=runs/traits.html report.include=[correlate.json, cards.jsonl]

JSON files are the documents of ``correlate``, ``compare``, ``strategies`` and ``stats``; JSONL
files are cards, measurements and dialogues, for case studies and for what is unanswered. The page
holds all it needs, loads nothing, and shows texts escaped, as they are.
"""

from pathlib import Path

from pal.benchmark.report import report_output, write_report
from pal.benchmark.report.page import lay_out
from pal.benchmark.report.parts import read_part
from pal.core.schema import Settings
from pal.traits.report.parts import KINDS
from pal.traits.report.records import read_records
from pal.traits.report.sections import build_sections, facts_of

__all__ = ["report"]

TITLE = "Traits of personas in emotional support"


def report(settings: Settings) -> str:
    """Write the page of the files in ``report.include`` to ``output``; returns what was written.

    Raises:
        PalError: no files are given, one of them cannot be read or is of no known kind, or the
            output cannot be written.
    """
    output = report_output(settings, "correlate.json, cards.jsonl")
    lines = [path for path in settings.report.include if path.endswith(".jsonl")]
    documents = [path for path in settings.report.include if path not in lines]
    parts = [read_part(path, KINDS) for path in documents]
    records = read_records(lines)

    def draw() -> str:
        names = [Path(path).name for path in documents]
        return lay_out(
            next((part.title for part in parts if part.title), TITLE),
            build_sections(parts, names, records, settings.report.cases), parts,
            facts=facts_of(parts, records), templates=[Path(__file__).parent / "templates"],
        )  # fmt: skip

    write_report(settings, "traits report", draw)
    return f"written to {output}"
