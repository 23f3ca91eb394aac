"""The trait report: one HTML file of what the trait commands wrote.

    pal traits report output=runs/traits.html report.include=[correlate.json, cards.jsonl]

JSON files are the documents of ``correlate``, ``compare``, ``strategies`` and ``stats``; JSONL
files are cards, measurements and dialogues, for case studies and for what is unanswered. The page
opens with the paper's three questions and what these files answer. It holds all it needs, loads
nothing, and shows texts escaped, as they are.
"""

from pathlib import Path

from pal.report.settings import PageSettings
from pal.traits.settings import StepSettings

__all__ = ["TraitReportSettings", "report_traits"]

TITLE = "Traits of personas in emotional support"


class TraitReportSettings(StepSettings):
    """Write the wing's page."""

    examples = (
        "pal traits report output=traits.html report.include=correlations.json,talks.jsonl",
        "pal traits report output=traits.html report.include=strategies.json report.cases=0",
    )

    report: PageSettings = PageSettings()


def report_traits(settings: TraitReportSettings) -> Path:
    """Write the page of the files in ``report.include`` to ``output`` and return its path.

    Raises:
        PalError: no files are given, one of them cannot be read or is of no known kind, or the
            output cannot be written.
    """
    settings = TraitReportSettings.of(settings)
    (target,) = settings.require("output")
    from pal.core.files import source_fingerprint
    from pal.core.job import Job, record_path
    from pal.report.page import lay_out, page_output, write_report
    from pal.report.parts import read_part
    from pal.traits.report.answers import answer_questions
    from pal.traits.report.parts import KINDS
    from pal.traits.report.records import read_records
    from pal.traits.report.sections import NAMES, build_sections, facts_of
    from pal.traits.steps import failures_path

    page_output(target, settings.report.include, "correlate.json, cards.jsonl")
    lines = [path for path in settings.report.include if path.endswith(".jsonl")]
    documents = [path for path in settings.report.include if path not in lines]
    parts = [read_part(path, KINDS) for path in documents]
    records = read_records(lines)
    names = [Path(path).name for path in documents]

    def draw() -> str:
        sections = build_sections(parts, names, records, settings.report.cases)
        return lay_out(
            next((part.title for part in parts if part.title), TITLE), sections, parts,
            facts=facts_of(parts, records), context={"name_of": NAMES},
            answers=answer_questions(parts, [section.ident for section in sections]),
            templates=[Path(__file__).parent / "templates"],
        )  # fmt: skip

    # What lies beside the files is shown too.
    beside = [path for name in lines for path in (failures_path(name), record_path(name))]
    facts = {
        "names": [Path(path).name for path in settings.report.include],
        "beside": [source_fingerprint(path) for path in beside if path.exists()],
    }
    job = Job("traits report", settings, target, versions=(), facts=facts)
    return write_report(job, draw)
