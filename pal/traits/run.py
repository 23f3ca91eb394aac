"""A complete study of the three research questions, from corpora to the page.

The output of every stage lies in ``output_dir`` under a name with a hash of everything that affects
it, so a finished stage is never repeated and an interrupted run continues where it stopped.
``overwrite=true`` runs every stage again; requests in the cache are then not sent again.
"""

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pal.core.errors import ConfigError, DataError, PlannedStop
from pal.core.files import fingerprint, no_such, read_jsonl, write_jsonl
from pal.core.job import Job, decisive, version_of
from pal.core.settings import CommandSettings, Count, InputPath, OutputPath, Seed
from pal.data.settings import ReadingSettings
from pal.llm.settings import LlmSettings
from pal.report.settings import PageSettings
from pal.stats.settings import StatisticsSettings
from pal.traits.cards import (
    CardsSettings,
    DescribeSettings,
    ExpandSettings,
    FilterSettings,
    cards,
    describe_traits,
    expand,
    filter_cards,
)
from pal.traits.consistency import CompareSettings, compare_measurements
from pal.traits.correlations import CorrelateSettings, correlate
from pal.traits.dialogue_statistics import StatsSettings, stats
from pal.traits.measure import MeasureSettings, measure
from pal.traits.readers import is_usable, read_cards
from pal.traits.settings import StepSettings, StudySettings
from pal.traits.strategies import StrategiesSettings, strategies
from pal.traits.synthesis import (
    ContinueSettings,
    SynthesizeSettings,
    continue_dialogues,
    synthesize,
)

if TYPE_CHECKING:
    from pal.llm.rehearsal import Rehearsal

logger = logging.getLogger(__name__)

STEPS: Mapping[str, tuple[Any, Callable[[Any], str]]] = {
    "cards": (CardsSettings, cards),
    "filter": (FilterSettings, filter_cards),
    "describe": (DescribeSettings, describe_traits),
    "measure": (MeasureSettings, measure),
    "expand": (ExpandSettings, expand),
    "synthesize": (SynthesizeSettings, synthesize),
    "continue": (ContinueSettings, continue_dialogues),
    "correlate": (CorrelateSettings, correlate),
    "compare": (CompareSettings, compare_measurements),
    "strategies": (StrategiesSettings, strategies),
    "stats": (StatsSettings, stats),
}
PROMPTS = ("cards", "filter", "describe", "measure", "expand", "synthesize", "continue")


class RunTraitsSettings(CommandSettings):
    """Answer the paper's three questions for corpora and personas.

    Attributes:
        output_dir: folder of all stages; the page in it, report.html, is that of the last run.
        overwrite: make every stage again.
        seed: random seed of the model's sampling.
        split: split to read from each corpus.
        limit: use at most this many dialogues, posts or personas of each corpus.
        dtype: number format of a local language model's weights.
    """

    examples = (
        "pal traits run 'traits.corpora={esconv: {input: bundled:esconv}}' split=test "
        "output_dir=runs/traits llm.base_url=http://localhost:8000/v1 llm.model=qwen",
        "pal traits run traits.personas=personas.jsonl output_dir=runs/traits "
        "llm.estimate_only=true llm.model=…",
    )

    output_dir: OutputPath = "runs/traits"
    overwrite: bool = False
    seed: Seed = 42
    split: Literal["train", "validation", "test"] | None = None
    limit: Count | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    data: ReadingSettings = ReadingSettings()
    llm: LlmSettings = LlmSettings()
    traits: StudySettings = StudySettings()
    statistics: StatisticsSettings = StatisticsSettings()
    report: PageSettings = PageSettings()


class JoinSettings(StepSettings):
    """Join files of records; no command of its own.

    Attributes:
        input: files, in the order of the output.
    """

    input: list[InputPath]


def run_traits(settings: RunTraitsSettings) -> str:
    """Answer the three questions for the corpora and personas of ``traits``.

    1. Do traits inferred from personas correlate as theory has it? (``traits.corpora``)
    2. Do dialogues keep the traits they were written from, and what without? (``traits.personas``)
    3. Do traits change the supporter's strategies? (those of ``traits.corpora`` that are dialogues)

    Returns:
        Which files it made, as Markdown.

    Raises:
        PlannedStop: ``llm.estimate_only`` is set; the message estimates every stage.
        PalError: settings, data, model or output cannot be used.
    """
    settings = RunTraitsSettings.of(settings)
    chosen = settings.traits
    if not chosen.corpora and chosen.personas is None:
        raise ConfigError(
            "nothing to run: give traits.corpora, such as 'traits.corpora={esconv: {input: "
            "bundled:esconv}}', or traits.personas=FILE, or both"
        )
    if chosen.personas is not None and not Path(chosen.personas).is_file():
        raise ConfigError(f"traits.personas={chosen.personas}: {no_such(chosen.personas)}")
    if settings.llm.estimate_only:
        raise PlannedStop(_estimate(settings))
    stages = StudyStages(settings, Path(settings.output_dir))
    results = stages.compute(stages.ask())
    page = Path(settings.output_dir) / "report.html"
    include = [str(path) for path in [*results, *stages.records] if path.stat().st_size]
    from pal.traits.report import TraitReportSettings, report_traits

    report_traits(
        TraitReportSettings.of(settings).model_copy(
            update={
                "output": str(page), "overwrite": True,
                "report": settings.report.model_copy(update={"include": include}),
            }
        )
    )  # fmt: skip
    return "\n".join(["| result |", "| --- |", *(f"| {path} |" for path in [*results, page])])


def _estimate(settings: RunTraitsSettings) -> str:
    """Rehearse all stages that use a model, with placeholders for answers not in the cache."""
    from pal.llm.rehearsal import Rehearsal
    from pal.traits.steps import asked_instead

    rehearsal = Rehearsal(settings.llm, settings.dtype)
    with tempfile.TemporaryDirectory(prefix="pal-estimate-") as folder, asked_instead(rehearsal):
        stages = StudyStages(settings, Path(folder), rehearsal)
        stages.ask()
    return rehearsal.describe_all()


@dataclass(frozen=True)
class StudyResult:
    """A result to compute from the outputs of models.

    Attributes:
        name: the stage's.
        step: which of :data:`STEPS`.
        source: its ``input``.
        traits: settings of ``traits`` for it.
    """

    name: str
    step: str
    source: Path
    traits: Mapping[str, Any] = field(default_factory=dict)


class StudyStages:
    """Runs steps into files named after what decides them.

    Args:
        settings: of the whole run.
        root: folder of the files.
        rehearsal: the stand-in that the stages ask, to estimate.

    Attributes:
        records: files of cards, measurements and dialogues, for the page.
        measurements: file of measurements of each corpus.
        judged: file of the cards of each corpus, with what the filter says of them.
    """

    def __init__(
        self, settings: RunTraitsSettings, root: Path, rehearsal: "Rehearsal | None" = None
    ):
        from pal.llm.facts import model_facts, wording_of
        from pal.traits.steps import load_trait_prompt

        self.settings, self.root, self.rehearsal = settings, root, rehearsal
        self.records: list[Path] = []
        self.measurements: dict[str, Path] = {}
        self.judged: dict[str, Path] = {}
        self._common = [
            version_of("pal-esc"),
            wording_of([load_trait_prompt(name) for name in PROMPTS]),
            model_facts(settings.llm),
        ]

    def run(
        self, name: str, step: str, source: str | Path, suffix: str = ".jsonl", **traits: Any
    ) -> Path:
        """Run one step on a file unless its output is there; return the output.

        Args:
            name: the stage's.
            step: which of :data:`STEPS`.
            source: its ``input``; a path is an earlier stage's output, which has no splits.
            suffix: of the output.
            traits: settings of ``traits`` for this stage.
        """
        cls, function = STEPS[step]
        settings = cls.of(self.settings)
        update: dict[str, Any] = {"input": str(source)}
        if isinstance(source, Path) and "split" in cls.model_fields:
            update["split"] = None
        given = {key: str(v) if isinstance(v, Path) else v for key, v in traits.items()}
        if given:
            update["traits"] = settings.traits.model_copy(update=given)
        settings = settings.model_copy(update=update)
        key = fingerprint([name, decisive(settings), self._common])[:12]
        output = self.root / f"{name}-{key}{suffix}"
        if self.rehearsal is not None:
            self.rehearsal.stage = name
        elif output.exists() and not self.settings.overwrite:
            logger.info("[%s] done already", name)
        else:
            logger.info("[%s]", name)
        text = function(settings.model_copy(update={"output": str(output)}))
        if suffix == ".jsonl" and self.rehearsal is None:
            logger.info("%s", text)  # what was asked, and what failed; the page shows the rest
        return output

    def measure(self, name: str, source: str | Path, *, filtered: bool, **traits: Any) -> Path:
        """Return measurements of cards of the texts in a file."""
        made = self.run(f"{name}-cards", "cards", source, **traits)
        if filtered:
            made = self.run(f"{name}-filter", "filter", made)
            self._refuse_none_left(name, made)
            self.judged[name] = made
        return self.measure_cards(name, made)

    def _refuse_none_left(self, name: str, cards: Path) -> None:
        if self.rehearsal is not None:  # nobody is asked, so nothing can be kept
            return
        found = read_cards(cards)
        if not any(map(is_usable, found)):
            raise DataError(
                f"{cards}: of {len(found)} cards of {name} none was made and kept by the filter, "
                "so there is nothing to measure; give more dialogues (limit=), a model that "
                "follows the prompts, or another corpus (traits.corpora)"
            )

    def measure_cards(self, name: str, made: Path) -> Path:
        """Return measurements of cards, after giving them trait sentences."""
        described = self.run(f"{name}-describe", "describe", made)
        output = self.run(f"{name}-measure", "measure", described)
        self.records += [described, output]
        return output

    def ask(self) -> list[StudyResult]:
        """Make all that a model is asked for; return the results to compute from it.

        The personas come first: a file that cannot be read is then found before the corpora's
        questions are asked, which cost.
        """
        source = self.settings.traits.personas
        grown = source and self.run("personas-expand", "expand", source, dataset="personas")
        return [
            *self.measure_corpora(),
            *(self.measure_personas(grown) if grown else ()),
            *self.write_talks(),
        ]

    def measure_corpora(self) -> list[StudyResult]:
        """Measure what the first question needs, and keep it for the third."""
        self.measurements = {
            name: self.measure(
                name, corpus.input, filtered=True, dataset=name, text_column=corpus.text_column
            )
            for name, corpus in self.settings.traits.corpora.items()
        }
        if not self.measurements:
            return []
        together = self.join("measurements", list(self.measurements.values()))
        return [StudyResult("correlations", "correlate", together)]

    def measure_personas(self, grown: Path) -> list[StudyResult]:
        """Measure what the second question needs, with the ablation.

        Args:
            grown: the cards of the personas.
        """
        before = self.measure_cards("personas", grown)
        after, without = (
            self.measure(
                name,
                self.write(f"{name}-synthesize", "synthesize", grown, without_persona=bare),
                filtered=False, dataset="personas",
            )
            for name, bare in (("persona", False), ("without_persona", True))
        )  # fmt: skip
        return [
            StudyResult("consistency", "compare", after, {"before": before, "without": without})
        ]

    def write_talks(self) -> list[StudyResult]:
        """Write what the third question needs, for the corpora that are dialogues.

        The cards tell whom the filter dropped. They are those without trait sentences, so the
        model is given scores alone.
        """
        made = [
            self.write(
                f"{name}-continue", "continue", corpus.input, dataset=name,
                measurements=self.measurements[name], cards=self.judged[name],
            )
            for name, corpus in self.settings.traits.corpora.items()
            if corpus.text_column is None
        ]  # fmt: skip
        if not made:
            return []
        together = self.join("talks", made)
        return [
            StudyResult("strategies", "strategies", together),
            StudyResult("statistics", "stats", together),
        ]

    def compute(self, results: Sequence[StudyResult]) -> list[Path]:
        """Compute results; no model is asked."""
        return [self.run(one.name, one.step, one.source, ".json", **one.traits) for one in results]

    def write(self, name: str, step: str, source: str | Path, **traits: Any) -> Path:
        """Return dialogues that a step wrote, and remember them for the page."""
        output = self.run(name, step, source, **traits)
        self.records.append(output)
        return output

    def join(self, name: str, files: Sequence[Path]) -> Path:
        """Return one JSONL file of several, with what they list as failed apart."""
        from pal.traits.steps import failures_path

        parts = [part for file in files for part in (file, failures_path(file)) if part.exists()]
        settings = JoinSettings(
            input=[str(part) for part in parts], overwrite=self.settings.overwrite
        )
        key = fingerprint([name, decisive(settings), self._common])[:12]
        output = self.root / f"{name}-{key}.jsonl"
        job = Job("traits join", settings, output, versions=())
        if not job.is_finished():
            lines = (row for part in parts if part.stat().st_size for _, row in read_jsonl(part))
            with job.claimed(processes=False):
                job.publish(lambda path: write_jsonl(path, lines))
        return output
