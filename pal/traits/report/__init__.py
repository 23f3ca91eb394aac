"""The trait report: one HTML file of what the trait commands wrote.

    pal traits report output=runs/traits.html report.include=[correlate.json, cards.jsonl]

JSON files are the documents of ``correlate``, ``compare``, ``strategies`` and ``stats``; JSONL
files are cards, measurements and dialogues, for case studies and for what is unanswered. The page
holds all it needs, loads nothing, and shows texts escaped, as they are.
"""

from pathlib import Path

from pal.errors import ConfigError
from pal.evaluation.report import SUFFIXES
from pal.evaluation.report.page import lay_out
from pal.evaluation.report.parts import read_part
from pal.jobs import is_finished, record_path
from pal.records import file_fingerprint, output_lock, write_text
from pal.runs import identity_of, write_run
from pal.settings import Settings
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
    output = Path(settings.require("output")[0])
    include = settings.report.include
    if not include:
        raise ConfigError("missing settings: give report.include=[correlate.json, cards.jsonl, …]")
    if output.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"output={output}: give a name that ends in .html")
    lines = [path for path in include if path.endswith(".jsonl")]
    documents = [path for path in include if path not in lines]
    parts = [read_part(path, KINDS) for path in documents]
    records = read_records(lines)
    files = [file_fingerprint(Path(path)) for path in include]
    identity = identity_of(settings, "report", command="traits report", files=files)
    if not is_finished(output, identity, overwrite=settings.overwrite):
        names = [Path(path).name for path in documents]
        sections = build_sections(parts, names, records, settings.report.cases)
        title = next((part.title for part in parts if part.title), TITLE)
        page = lay_out(
            title, sections, parts, facts=facts_of(parts, records),
            templates=[Path(__file__).parent / "templates"],
        )  # fmt: skip
        with output_lock(output):
            output.unlink(missing_ok=True)  # the record first: a kill between is harmless
            write_run(record_path(output), settings, "traits report", identity)
            write_text(output, page)
    return f"written to {output}"
