"""``pal audit``: duplicates between the splits of a corpus, and within them.

The report is a JSON file with a Markdown table beside it. With ``fix=true`` comes a list of the
dialogues that share nothing with a later split, which ``data.ids`` reads.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pal.commands.common import WriterSettings, beside
from pal.core.errors import ConfigError
from pal.core.job import Job, refuse_several_processes
from pal.data.settings import AuditDataSettings, AuditOptions

logger = logging.getLogger(__name__)

AUDITING = ("datasketch", "numpy")


class AuditSettings(WriterSettings):
    """Find dialogues, situations, turns and targets that stand in two splits, or twice in one.

    Attributes:
        data: the splits, in any layout; also files of samples of other projects, such as MISC's.
        audit: what counts as a duplicate.
        output: JSON file of the report, with examples; a table is written beside it as .md.
        fix: also write, beside output as .ids.json, the ids of the dialogues that share nothing
            with a later split (train < validation < test) and are no duplicates; data.ids reads
            them.
    """

    examples = (
        "pal audit data.train=thu-coai/esconv output=runs/audit.json",
        "pal audit data.train=train.txt data.test=test.txt output=runs/audit.json fix=true",
    )

    data: AuditDataSettings = AuditDataSettings()
    audit: AuditOptions = AuditOptions()
    fix: bool = False


def audit(settings: AuditSettings) -> str:
    """Compare the splits of ``data``, write the report to ``output``, and return its table.

    Raises:
        PalError: a source or the output cannot be used.
    """
    settings = AuditSettings.of(settings)
    refuse_several_processes("audit")
    if settings.fix and not settings.output:
        raise ConfigError("fix=true writes its list beside the report; give output=….json")
    if settings.output and not settings.output.endswith(".json"):
        raise ConfigError(
            f"output={settings.output}: give a .json name; the table goes beside it as .md"
        )
    from pal.core.files import write_json, write_text
    from pal.data.audit import audit_sources, audited_sources

    job = table = ids = None
    if settings.output:
        job = Job("audit", settings, settings.output, versions=AUDITING)
        table = beside(job, ".md")
        ids = beside(job, ".ids.json") if settings.fix else None
        if job.is_finished() and table.exists() and (ids is None or ids.exists()):
            return table.read_text(encoding="utf-8").rstrip()
    found, report = audit_sources(audited_sources(settings.data), settings.data, settings.audit)
    kept = found.clean_ids() if settings.fix else None
    text = audit_table(report, kept)
    if job is not None and table is not None:
        with job.claimed(processes=False):

            def write(path: Path) -> None:
                write_text(path.with_suffix(".md"), text + "\n", private=True)
                if kept is not None:
                    remark = "dialogues that share nothing with a later split"
                    write_json(path.with_suffix(".ids.json"), {"about": remark, **kept})
                write_json(path, report, private=True)

            job.publish(write)
        logger.info("the report is in %s, its table in %s", job.output, table)
    return text


def audit_table(report: Mapping[str, Any], kept: Mapping[str, list[str]] | None = None) -> str:
    """Return a report as Markdown.

    Args:
        report: the result of :meth:`pal.data.audit.CorpusAudit.report`.
        kept: the clean list, if one was made.
    """
    lines = [
        "| split | source | contents | turns | samples |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for name, split in report["splits"].items():
        holds = f"{split['dialogues']:,} {split['holds']}"
        lines.append(
            f"| {name} | {split['source']} | {holds} | {split['turns']:,} | {split['samples']:,} |"
        )
    for title, key in (("Between splits", "between"), ("Within a split", "within")):
        rows = report[key]
        if not rows:
            continue
        lines += ["", f"{title}:", ""]
        lines += [
            "| what | of | found in | compared | exact | normalised | near | share |",
            "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        lines += [
            f"| {row['level']} | {row['of']} | {row['in']} | {row['items']:,} | {row['exact']:,} | "
            f"{row['normalised']:,} | {row['near']:,} | {100 * row['share']:.2f} % |"
            for row in rows
        ]
    if report["affected"]:
        lines += ["", "Samples that share something with another split:", ""]
        lines += [
            "| of | found in | samples | affected | share | by dialogue | by situation | by target "
            "| by context |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
    for row in report["affected"]:
        by = " | ".join(f"{row['by'][level]:,}" for level in
                        ("dialogues", "situations", "targets", "context"))  # fmt: skip
        lines.append(
            f"| {row['of']} | {row['in']} | {row['samples']:,} | {row['affected']:,} | "
            f"{100 * row['share']:.2f} % | {by} |"
        )
    lines += _example_lines(report)
    options = report["options"]
    lines += [
        "",
        "Exact: the same text. Normalised: the same letters and digits. Near: two texts of "
        f"{options['near_words']} words or more which have {_percent(options['near'])} of their "
        "pairs of neighbouring words in common, or two dialogues which have "
        f"{_percent(options['near_dialogues'])} of their runs of three words in common. An item "
        "counts once. A target is looked for among all turns of the other split.",
        "",
        f"Turns and targets of fewer than {options['min_words']} words are ordinary phrases, which "
        "the tables leave out"
        + "".join(
            f"; of {row['ordinary']['items']:,} such targets of {row['of']}, "
            f"{row['ordinary']['shared']:,} also occur in {row['in']}"
            for row in report["between"] if row.get("ordinary") and row["level"] == "targets"
        )
        + ".",
    ]  # fmt: skip
    if kept is not None:
        numbers = [
            f"{name} {len(ids):,} of {report['splits'][name]['dialogues']:,}"
            for name, ids in kept.items()
        ]
        lines += [
            "",
            "The clean list, for data.ids, has the dialogues that share nothing with a later "
            f"split and repeat none of their own split: {', '.join(numbers)}.",
        ]
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:g} % or more"


def _example_lines(report: Mapping[str, Any]) -> list[str]:
    lines = []
    for row in [*report["between"], *report["within"]]:
        for example in row["examples"]:
            share = "" if example["kind"] != "near" else f" ({example['similarity']:.2f})"
            text = f": {example['text']}" if example.get("text") else ""
            lines.append(
                f"- {row['level']}, {example['kind']}{share}: {example['id']} stands in "
                f"{row['in']} as {example['other']}{text}"
            )
    return ["", "Examples:", "", *lines] if lines else []
