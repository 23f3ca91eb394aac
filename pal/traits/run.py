"""The three research questions in one go, from corpora to the page.

Every stage lies in ``output_dir`` under a name that holds a hash of all that decides it, so what is
done is never done again and an interrupted run goes on where it stopped. ``overwrite=true`` makes
every stage anew; the model is then asked only what its cache does not hold.
"""

import logging
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

from pal.benchmark.stages import source_fingerprint
from pal.core.errors import ConfigError
from pal.core.files import fingerprint, read_jsonl, write_jsonl
from pal.core.schema import Settings
from pal.traits.cards import cards, describe, expand, filter_cards
from pal.traits.consistency import compare
from pal.traits.correlations import correlate
from pal.traits.dialogue_statistics import stats
from pal.traits.inventories import load_inventory
from pal.traits.measure import measure
from pal.traits.report import report
from pal.traits.steps import failures_path, prompt
from pal.traits.strategies import strategies
from pal.traits.synthesis import continue_dialogues, synthesize

logger = logging.getLogger(__name__)

Command = Callable[[Settings], str]
PROMPTS = ("cards", "filter", "describe", "measure", "expand", "synthesize", "continue")


class Stages:
    """Runs commands into files named after what decides them.

    Args:
        settings: of the whole run.
    """

    def __init__(self, settings: Settings):
        self.settings, self.root = settings, Path(settings.output_dir)
        self.records: list[Path] = []  # what the page takes case studies and reasons from
        self.measurements: dict[str, Path] = {}
        source_fingerprint.cache_clear()
        llm = settings.llm
        self.common = [
            settings.seed, settings.split, settings.limit, settings.data.model_dump(),
            settings.traits.model_dump(exclude={"corpora", "personas"}),
            settings.statistics.model_dump(), llm.backend, llm.base_url, llm.model, llm.body,
            [astuple(prompt(name)) for name in PROMPTS],
            [load_inventory(name).model_dump(mode="json") for name in settings.traits.inventories],
        ]  # fmt: skip

    def run(
        self,
        name: str,
        command: Command,
        source: str | Path,
        suffix: str = ".jsonl",
        **traits: Any,
    ) -> Path:
        """Run one command on a file unless its output is there; return the output.

        Args:
            name: the stage's.
            command: what to run.
            source: its ``input``; a path is an earlier stage's output, which has no splits.
            suffix: of the output.
            traits: settings of ``traits`` for this stage; paths among them count by content.
        """
        facts = {key: source_fingerprint(str(value)) if isinstance(value, Path) else value
                 for key, value in traits.items()}  # fmt: skip
        key = fingerprint([name, self.common, source_fingerprint(str(source)), facts])[:12]
        output = self.root / f"{name}-{key}{suffix}"
        done = output.exists() and not self.settings.overwrite
        logger.info("[%s]%s", name, " done already" if done else "")
        if not done:
            given = {k: str(v) if isinstance(v, Path) else v for k, v in traits.items()}
            settings = self.settings.model_copy(
                update={
                    "input": str(source), "output": str(output), "overwrite": True,
                    "split": self.settings.split if isinstance(source, str) else None,
                    "traits": self.settings.traits.model_copy(update=given),
                }
            )  # fmt: skip
            text = command(settings)
            if suffix == ".jsonl":  # what was asked, and what failed; the page shows the rest
                logger.info("%s", text)
        return output

    def measured(self, name: str, source: str | Path, *, filtered: bool, **traits: Any) -> Path:
        """Return measurements of cards of the texts in a file."""
        made = self.run(f"{name}-cards", cards, source, **traits)
        if filtered:
            made = self.run(f"{name}-filter", filter_cards, made)
        return self.measured_cards(name, made)

    def measured_cards(self, name: str, made: Path) -> Path:
        """Return measurements of cards, after giving them trait sentences."""
        described = self.run(f"{name}-describe", describe, made)
        output = self.run(f"{name}-measure", measure, described)
        self.records += [described, output]
        return output

    def correlations(self) -> list[Path]:
        """Answer the first question; keep the measurements for the third."""
        self.measurements = {
            name: self.measured(
                name, corpus.input, filtered=True, dataset=name, text_column=corpus.text_column
            )
            for name, corpus in self.settings.traits.corpora.items()
        }
        if not self.measurements:
            return []
        together = self.joined("measurements", list(self.measurements.values()))
        return [self.run("correlations", correlate, together, ".json")]

    def consistency(self, personas: str) -> list[Path]:
        """Answer the second question, with the ablation."""
        cards_of_personas = self.run("personas-expand", expand, personas, dataset="personas")
        before = self.measured_cards("personas", cards_of_personas)
        after, without = (
            self.measured(name, self.talks(f"{name}-synthesize", synthesize, cards_of_personas,
                                           without_persona=bare),
                          filtered=False, dataset="personas", text_column=None)
            for name, bare in (("persona", False), ("without_persona", True))
        )  # fmt: skip
        return [self.run("consistency", compare, after, ".json", before=before, without=without)]

    def strategies(self) -> list[Path]:
        """Answer the third question for the corpora that are dialogues."""
        made = [
            self.talks(f"{name}-continue", continue_dialogues, corpus.input, dataset=name,
                       measurements=self.measurements[name])
            for name, corpus in self.settings.traits.corpora.items()
            if corpus.text_column is None
        ]  # fmt: skip
        if not made:
            return []
        together = self.joined("talks", made)
        return [
            self.run("strategies", strategies, together, ".json"),
            self.run("statistics", stats, together, ".json"),
        ]

    def talks(self, name: str, command: Command, source: str | Path, **traits: Any) -> Path:
        """Return dialogues that a command wrote, and remember them for the page."""
        output = self.run(name, command, source, **traits)
        self.records.append(output)
        return output

    def joined(self, name: str, files: list[Path]) -> Path:
        """Return one JSONL file of several, with what they list as failed apart."""
        parts = [part for file in files for part in (file, failures_path(file)) if part.exists()]
        key = fingerprint([source_fingerprint(str(part)) for part in parts])[:12]
        output = self.root / f"{name}-{key}.jsonl"
        if not output.exists():
            write_jsonl(output, (row for part in parts for _, row in read_jsonl(part)))
        return output


def run(settings: Settings) -> str:
    """Answer the three questions for the corpora and personas of ``traits``.

    1. Do traits inferred from personas correlate as theory has it? (``traits.corpora``)
    2. Do dialogues keep the traits they were written from, and what without? (``traits.personas``)
    3. Do traits change the supporter's strategies? (those of ``traits.corpora`` that are dialogues)

    Returns:
        Which files it made, as Markdown.

    Raises:
        PalError: settings, data, model or output cannot be used.
    """
    chosen = settings.traits
    if not chosen.corpora and chosen.personas is None:
        raise ConfigError("nothing to run: give traits.corpora and/or traits.personas")
    if chosen.personas is not None and not Path(chosen.personas).is_file():
        raise ConfigError(f"traits.personas={chosen.personas}: no such file; check the path")
    stages = Stages(settings)
    results = stages.correlations()
    if chosen.personas is not None:
        results += stages.consistency(chosen.personas)
    results += stages.strategies()
    page = Path(settings.output_dir) / "report.html"
    include = [str(path) for path in [*results, *stages.records] if path.stat().st_size]
    report(
        settings.model_copy(
            update={
                "output": str(page),
                "overwrite": True,
                "report": settings.report.model_copy(update={"include": include}),
            }
        )
    )
    return "\n".join(["| result |", "| --- |", *(f"| {path} |" for path in [*results, page])])
