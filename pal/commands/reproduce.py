"""``pal reproduce``: train and score every system with every seed, up to the paper's table.

Each stage is the command of its name, under a folder or file named by all that decides it:
settings, contents of files, versions. So what is done is never done again, whichever systems and
seeds are asked for, and an interrupted benchmark continues where it stopped. Stages run one after
another, side by side, or on a cluster (:mod:`pal.benchmark.executors`).

It is long because it names the settings and the place of every stage; what a stage computes is
elsewhere.
"""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pal.benchmark.settings import BenchmarkSettings
from pal.commands.audit import AUDITING
from pal.commands.common import (
    DialogueSettings,
    InferenceSettings,
    ResponseModelSettings,
    check_models,
    check_score_models,
)
from pal.commands.train import check_extractor_training
from pal.core.errors import CheckpointError, ConfigError
from pal.core.job import (
    COMPUTING,
    SCORING,
    Job,
    record_beside,
    record_path,
    refuse_several_processes,
)
from pal.core.registry import trust
from pal.core.runtime import configure_runtime
from pal.core.settings import OutputPath
from pal.core.tracking import TrackingSettings
from pal.core.yaml_files import merge
from pal.data.settings import DataSettings
from pal.decoding.plan import check_decoding, check_kind
from pal.decoding.settings import DecodingSettings, SampleSettings
from pal.llm.settings import LlmSettings
from pal.metrics.settings import MetricSettings
from pal.persona.settings import ExtractionSettings
from pal.report.settings import PageSettings
from pal.stats.settings import StatisticsSettings
from pal.supporter.settings import SupporterSettings
from pal.training.settings import TrainingSettings

if TYPE_CHECKING:
    from pal.benchmark.executors.schedule import StageRun
    from pal.benchmark.executors.tasks import StageTask
    from pal.benchmark.stages import FinishedRun
    from pal.benchmark.systems import System
    from pal.metrics.vectors import StoredEmbedder

logger = logging.getLogger(__name__)

# Why a language model that is asked has no perplexity and no probabilities of strategies.
NO_LOSSES = "a prompted language model gives no probabilities for the gold responses"
NO_CHANCES = "a prompted language model states its strategy, but gives no probabilities"
NO_STRATEGIES = "the model was asked for a response alone; supporter.strategy_first=true asks both"


class ReproduceSettings(TrainingSettings, DialogueSettings, InferenceSettings):
    """Train, run and score every system with every seed: the paper's table.

    Attributes:
        output_dir: folder of all outputs; tables and page in it are those of the last run.
        input: dialogues to generate responses for; the test split of data.train when null.
        limit: use at most this many test samples.
        seed: seed of the persona extractor's training; the systems use ``reproduce.seeds``.
        data: the corpora.
        annotate: how ``reproduce.extractor`` infers personas.
        decoding: how responses are decoded.
        metrics: which scores are computed.
        statistics: intervals and tests.
        reproduce: systems, seeds, and the checkpoint that answers.
        llm: the language model of the systems that are asked and not trained.
        supporter: how these systems are asked.
        report: what the page shows.
        tracking: experiment tracking of the scores.
    """

    examples = (
        "pal reproduce --config reproduce_sample",
        "pal reproduce --config reproduce data.train=runs/pesconv reproduce.seeds=13,42",
    )
    takes_blocks = True

    output_dir: OutputPath = "runs/reproduce"
    data: DataSettings = DataSettings()
    annotate: ExtractionSettings = ExtractionSettings()
    decoding: DecodingSettings = DecodingSettings()
    metrics: MetricSettings = MetricSettings()
    statistics: StatisticsSettings = StatisticsSettings()
    reproduce: BenchmarkSettings = BenchmarkSettings()
    llm: LlmSettings = LlmSettings()
    supporter: SupporterSettings = SupporterSettings()
    report: PageSettings = PageSettings()
    tracking: TrackingSettings = TrackingSettings()


class LossSettings(ResponseModelSettings, DialogueSettings):
    """The settings that affect the token losses of a model on gold responses.

    Attributes:
        decoding: which turns are samples.
    """

    decoding: SampleSettings = SampleSettings()


class CorpusAuditSettings(DialogueSettings):
    """The settings that affect the audit of a benchmark's corpus.

    Attributes:
        data: the corpora.
    """

    data: DataSettings = DataSettings()


def reproduce(settings: ReproduceSettings) -> str:
    """Run the benchmark into ``output_dir`` and return its table.

    First the corpus is audited for duplicates between its splits. Writes ``audit.json``,
    ``results.json``, ``cases.json``, ``analysis.json``, ``table.md`` and ``report.html`` beside the
    stages' own outputs.

    Raises:
        PalError: settings, data or output cannot be used.
    """
    settings = ReproduceSettings.of(settings)
    configure_runtime()
    refuse_several_processes("reproduce")
    from pal.benchmark.executors import check_executor, make_schedule, stages_in_turn
    from pal.benchmark.executors.schedule import do_in_turn
    from pal.benchmark.systems import choose_systems

    chosen = settings.reproduce
    systems = choose_systems(chosen, knowledge=settings.data.knowledge)
    check_executor(chosen)
    check_plan(settings, systems)
    if stages_in_turn(chosen):
        audit = audit_splits(settings)
        stages = Stages(settings, systems)
        (dialogues,) = do_in_turn([stages.prepare_dialogues()], stages.announce)
        runs = do_in_turn(stages.runs(dialogues), stages.announce)
        return score_runs(settings, systems, runs, dialogues, audit)
    stages = Stages(settings, systems)
    with make_schedule(chosen, stages.root, stages.planned(), stages.keys()) as schedule:
        audit = audit_splits(settings)
        (dialogues,) = schedule.run([stages.prepare_dialogues()])
        runs = schedule.run(stages.runs(dialogues))
        (table,) = schedule.run([stages.score(systems, runs, dialogues, audit)])
    return table


def audit_splits(settings: ReproduceSettings) -> dict[str, Any]:
    """Return the audit of the dialogues that are learnt from and answered, and write it.

    It is done once: ``audit.json`` of the same settings and dialogues is read.
    """
    from pal.core.files import read_json, write_json
    from pal.data.audit import audit_sources, describe_audit
    from pal.data.settings import AuditOptions
    from pal.data.sources import has_splits

    data, given = settings.data, test_input(settings, settings.data.train)
    listed = data.protocol == "file"
    undivided = data.validation is not None and not has_splits(data.train) and not listed
    own = data.validation or data.train
    sources = {
        "train": (data.train, None if undivided else "train"),
        "validation": (own, "validation" if own == data.train or listed or has_splits(own)
                       else None),
        "test": (given["input"], given["split"]),
    }  # fmt: skip
    chosen = CorpusAuditSettings.of(settings)
    job = Job("audit", chosen, Path(settings.output_dir) / "audit.json", versions=AUDITING)
    if job.output.exists() and record_beside(job.output).get("identity") == job.identity:
        report = read_json(job.output)
    else:
        logger.info("audit of the corpus")
        _, report = audit_sources(sources, data, AuditOptions())
        with job.claimed(processes=False):
            job.publish(lambda path: write_json(path, report, private=True))
    logger.info("%s", describe_audit(report))
    return dict(report)


# ----------------------------------------------------------------------------- plan


def stage_settings(
    settings: ReproduceSettings,
    command: str,
    *fixed: Mapping[str, Any],
    task: str = "response",
    system: "System | None" = None,
) -> Any:
    """Return the settings of a stage's command, from this command's file and overrides.

    Args:
        settings: settings of the benchmark.
        command: command of the stage.
        fixed: values of the stage; later ones override earlier ones.
        task: task whose block of the YAML applies.
        system: system whose own settings apply.

    Raises:
        ConfigError: the command cannot use them.
    """
    from pal.commands import load_settings

    tree, values = settings.tree_of(task), {"task": task} if command == "train" else {}
    for one in fixed:
        values = merge(values, one)
    whole = merge(_make_room(tree, system.settings), system.settings) if system else tree
    reads = system is not None and system.knowledge
    if not reads and (whole.get("data") or {}).get("knowledge"):
        whole = {**whole, "data": {**whole["data"], "knowledge": None}}
    return load_settings(command, whole, fixed={"overwrite": False} | values)


def _make_room(tree: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return settings without sizes of random weights, where a system's own are of another type."""
    chosen = tree.get("architecture") or {}
    sizes, others = ((part or {}).get("from_scratch") for part in (own.get("architecture"), chosen))
    if not isinstance(sizes, Mapping) or not isinstance(others, Mapping):
        return tree
    if sizes.get("model_type") in (None, others.get("model_type")):
        return tree
    return {**tree, "architecture": {**chosen, "from_scratch": None}}


def check_plan(settings: ReproduceSettings, systems: "Mapping[str, System]") -> None:
    """Check for mistakes that would otherwise appear only after hours.

    Raises:
        PalError: there is a mistake; the message names the first.
    """
    from pal.core.files import no_such
    from pal.metrics import find_metric

    chosen, data = settings.reproduce, settings.data
    for name in settings.metrics.names or ():
        find_metric(name)
    check_score_models(settings.metrics)
    named = "check reproduce.outside and report.include"
    for path in [*chosen.outside.values(), *settings.report.include]:
        if not Path(path).is_file():
            raise ConfigError(f"{path}: {no_such(path, remedy=named)}")
    listed = data.protocol == "file"
    whole = not listed and (Path(data.train).is_file() or data.split == "seeded")
    if data.validation and settings.input is None and whole:
        raise ConfigError(
            "data.validation with a data.train of one file leaves no test dialogues; give "
            "them as input=… too, or leave data.validation out"
        )
    if chosen.extractor and (data.validation or settings.input):
        raise ConfigError(
            "reproduce.extractor gives personas to data.train and its splits only; annotate "
            "data.validation and input first (pal annotate), or leave them out"
        )
    for name, system in systems.items():
        if system.asked:
            check_asked(settings, name, system)
            continue
        try:
            trained = stage_settings(settings, "train", system=system)
            answers = stage_settings(settings, "generate", system=system)
            check_models(trained)
        except (CheckpointError, ConfigError) as error:
            if name not in chosen.overrides:
                raise
            raise type(error)(f"reproduce.overrides.{name}: {error}") from None
        check_decoding(answers.decoding)
        check_family(
            name, system, trained.architecture, answers.decoding,
            knowledge=trained.data.knowledge is not None,
        )  # fmt: skip
        # Its checkpoints may name them too, as the settings here do.
        model = trained.architecture
        trust(model.fusion, model.template or "", model.backbone or "")
        if trained.training.get("save_total_limit") is not None:
            raise ConfigError(
                "training.save_total_limit: the benchmark chooses among all epochs; leave it out"
            )
        epochs, rule = trained.training.get("num_train_epochs", 3), chosen.checkpoint
        if isinstance(rule, int) and rule > epochs:
            raise ConfigError(f"reproduce.checkpoint={rule}: {name} trains {epochs} epochs")
    if chosen.extractor == "train":
        trained_extractor = stage_settings(settings, "train", task="persona_extractor")
        if trained_extractor.data.train == data.train:
            raise ConfigError(
                "reproduce.extractor=train: give the persona conversations as "
                "persona_extractor.data.train=…"
            )
        check_extractor_training(trained_extractor)
    elif chosen.extractor:
        from pal.persona.extractor import read_extractor

        read_extractor(chosen.extractor, f"reproduce.extractor={chosen.extractor}")


def check_asked(settings: ReproduceSettings, name: str, system: "System") -> None:
    """Refuse a system that is asked where no model is named, or its key is missing.

    Raises:
        PalError: it cannot be asked.
    """
    from pal.llm.endpoint import find_key
    from pal.llm.origin import check_local_model, origin_of

    try:
        answers = stage_settings(settings, "answer", system=system)
        origin_of(answers.llm, answers.dtype)
        if not (Path(answers.llm.cache).exists() or answers.llm.batch_import):
            check_local_model(answers.llm)  # nothing can hold its answers
        if answers.llm.backend == "openai":
            find_key(answers.llm)
        if answers.llm.estimate_only or answers.llm.batch_export:
            raise ConfigError(
                "llm.estimate_only and llm.batch_export are for `pal answer`, which the benchmark "
                "runs for this system"
            )
    except (CheckpointError, ConfigError) as error:
        raise type(error)(
            f"reproduce.systems: {name}: {error} (for one system: reproduce.overrides.{name})"
        ) from None


def check_family(
    name: str,
    system: "System",
    architecture: Any,
    decoding: DecodingSettings,
    *,
    knowledge: bool = False,
) -> None:
    """Refuse a system that is of another kind than its base, or than a setting is for.

    Raises:
        PalError: it is, or the base cannot be read.
    """
    from pal.modeling.checkpoint import find_backbone
    from pal.training.preparation import check_base, is_language_base

    if is_language_base("response", architecture) == system.decoder_only:
        try:
            check_base("response", architecture)
            check_kind(decoding, language=system.decoder_only)
            if not system.decoder_only:
                chosen = architecture
                family = find_backbone(chosen.base, chosen.from_scratch, chosen.backbone)
                family.check_decoding(decoding)
                family.own_entries(chosen, knowledge=knowledge)
        except ConfigError as error:
            raise ConfigError(
                f"reproduce.systems: {name}: {error} (for one system: reproduce.overrides.{name})"
            ) from None
        return
    base, own = architecture.base, "base: …"
    if architecture.from_scratch is not None:
        base, own = "the model from scratch", "from_scratch: {model_type: …}"
    wanted = "a decoder-only" if system.decoder_only else "an encoder-decoder"
    found = "an encoder-decoder" if system.decoder_only else "decoder-only"
    raise ConfigError(
        f"reproduce.systems: {name} needs {wanted} model, and {base} is {found}; give it one of "
        f"its own, reproduce.overrides={{{name}: {{architecture: {{{own}}}}}}}, or leave it out"
    )


# ----------------------------------------------------------------------------- stages


class Stages:
    """The stages before the table; a stage whose output exists is skipped.

    Args:
        settings: settings of the benchmark.
        systems: systems to train, by name.
    """

    def __init__(self, settings: ReproduceSettings, systems: "Mapping[str, System]"):
        self.settings, self.root = settings, Path(settings.output_dir)
        chosen = settings.reproduce
        self.plan: list[tuple[str, System, int]] = [
            (name, system, seed)
            for seed in chosen.seeds
            for name, system in systems.items()
            # The most probable answer is the same for all seeds.
            if seed == chosen.seeds[0] or not system.asked or self._is_sampled(system)
        ]
        # extractor and annotation; for each run training, responses and losses
        works = sum(1 if system.asked else 3 for _, system, _ in self.plan)
        self.total = 2 * bool(chosen.extractor) + works
        self.begun = 0

    def planned(self) -> dict[str, int]:
        """Return how many stages of each kind there are, those done already included."""
        trained = sum(not system.asked for _, system, _ in self.plan)
        splits = (1 if self._is_whole() else 3) if self.settings.reproduce.extractor else 0
        return {
            "train": trained + (self.settings.reproduce.extractor == "train"),
            "annotate": splits, "generate": trained, "losses": trained,
            "answer": len(self.plan) - trained, "score": 1,
        }  # fmt: skip

    def keys(self) -> list[str]:
        """Return the variables of the environment with keys of endpoints that are asked."""
        from pal.llm.endpoint import OPENAI_KEY

        asked = {name: system for name, system, _ in self.plan if system.asked}
        found = [stage_settings(self.settings, "answer", system=one) for one in asked.values()]
        return [one.llm.api_key_env or OPENAI_KEY for one in found]

    def _is_whole(self) -> bool:
        """Return whether ``data.train`` is annotated as one file, not split by split."""
        data = self.settings.data
        return data.protocol == "file" or data.split == "seeded" or Path(data.train).is_file()

    def _is_sampled(self, system: "System") -> bool:
        how = stage_settings(self.settings, "answer", system=system).supporter
        return bool(how.temperature > 0)

    def announce(self, what: str, done: bool) -> None:
        """Log the start of a stage."""
        self.begun += 1
        state = ", already done" if done else ""
        logger.info("[%d/%d] %s%s", self.begun, self.total, what, state)

    def runs(self, dialogues: str) -> "list[StageRun[FinishedRun]]":
        """Return the runs of the plan, for a schedule."""
        return [
            self.ask(name, system, seed, dialogues) if system.asked
            else self.run(name, system, seed, dialogues)
            for name, system, seed in self.plan
        ]  # fmt: skip

    def prepare_dialogues(self) -> "StageRun[str]":
        """Return the dialogues with personas; an extractor infers them if one is set."""
        wanted, data = self.settings.reproduce.extractor, self.settings.data
        if wanted is None:
            return data.train
        from pal.benchmark.executors.tasks import StageTask
        from pal.benchmark.stages import stage_name

        if wanted == "train":
            wanted = yield from self.train_extractor()
        else:
            self.announce(f"persona extractor {wanted}", True)
        whole = self._is_whole()
        made = {
            "model": wanted, "input": data.train, "limit": None,
            "annotate": {"extractor": "bart", "layout": "pesconv"},
        }  # fmt: skip
        splits = [None] if whole else ["train", "validation", "test"]
        todo = {
            split or "all": stage_settings(self.settings, "annotate", made, {"split": split})
            for split in splits
        }
        folder = self.root / f"pesconv-{stage_name('annotate', next(iter(todo.values())))}"
        targets = {split: folder / f"{split}.jsonl" for split in todo}
        yield [
            StageTask(
                "annotate", "annotate the dialogues with personas",
                "pal.commands.annotate:annotate",
                (one.model_copy(update={"output": str(targets[split])}),), targets[split],
            )
            for split, one in todo.items()
        ]  # fmt: skip
        return str(targets["all"] if whole else folder)

    def train_extractor(self) -> "StageRun[str]":
        """Train the persona extractor of the YAML's block and return its folder."""
        from pal.benchmark.stages import no_steps, remove_checkpoints, stage_name

        settings = stage_settings(self.settings, "train", task="persona_extractor")
        folder = self.root / "models" / f"extractor-{stage_name('train', settings)}"
        kept = self.settings.reproduce.keep_checkpoints
        # The model that annotates lies beside the checkpoints.
        choosable = None if kept else no_steps
        yield [_training("train the persona extractor", settings, folder, choosable)]
        if not kept:
            remove_checkpoints(folder)
        return str(folder)

    def ask(
        self, name: str, system: "System", seed: int, dialogues: str
    ) -> "StageRun[FinishedRun]":
        """Ask a language model for the responses to the test dialogues."""
        from pal.benchmark.executors.tasks import StageTask
        from pal.benchmark.stages import FinishedRun
        from pal.llm.facts import asking_job
        from pal.supporter.replies import load_supporter_prompt

        sampled = self._is_sampled(system)
        data = {"data": {"train": dialogues}, "seed": seed if sampled else 0}
        settings = stage_settings(
            self.settings, "answer", data, test_input(self.settings, dialogues), system=system
        )
        part, prompts = f"{name}-seed{seed}" if sampled else name, [load_supporter_prompt()]
        job = asking_job("answer", settings, "stage", models=[settings.llm], prompts=prompts)
        responses = self.root / "responses" / f"{part}-{job.identity[:12]}.jsonl"
        yield [
            StageTask(
                "answer", f"{system.label}{f', seed {seed}' if sampled else ''}: ask",
                "pal.commands.answer:answer",
                (settings.model_copy(update={"output": str(responses)}),), responses,
                on_gpu=settings.llm.backend == "transformers",
            )
        ]  # fmt: skip
        unknown = dict.fromkeys(("token_nll", "token_count"), NO_LOSSES)
        unknown |= dict.fromkeys(("strategy_nll", "strategy_count", "strategy_probs"), NO_CHANCES)
        if not settings.supporter.strategy_first:
            unknown["predicted_strategies"] = NO_STRATEGIES
        return FinishedRun(name, seed if sampled else None, responses, reasons=unknown)

    def run(
        self, name: str, system: "System", seed: int, dialogues: str
    ) -> "StageRun[FinishedRun]":
        """Train, choose the checkpoint, answer the test dialogues and measure token losses."""
        from pal.benchmark.executors.tasks import StageTask
        from pal.benchmark.stages import (
            FinishedRun,
            choosable_checkpoints,
            choosable_steps,
            choose_checkpoint,
            remove_checkpoints,
            stage_name,
        )

        label, chosen = f"{system.label}, seed {seed}", self.settings.reproduce
        data = {"data": {"train": dialogues}, "seed": seed}
        settings = stage_settings(self.settings, "train", data, system=system)
        kind = _slug(settings.architecture, system)
        model = self.root / "models" / f"{kind}-seed{seed}-{stage_name('train', settings)}"
        every = chosen.keep_checkpoints
        choosable = None if every else partial(choosable_steps, rule=chosen.checkpoint)
        yield [_training(f"{label}: train", settings, model, choosable)]
        checkpoint, epoch, nll = choose_checkpoint(model, chosen.checkpoint)
        if not chosen.keep_checkpoints:
            freed = remove_checkpoints(model, choosable_checkpoints(model, chosen.checkpoint))
            if freed:
                logger.info("%s: %.0f MB of checkpoints removed", model, freed / 1e6)

        made = {"model": str(checkpoint), **test_input(self.settings, dialogues)}
        settings = stage_settings(self.settings, "generate", data, made, system=system)
        key = stage_name("generate", settings)
        responses = self.root / "responses" / f"{name}-seed{seed}-{key}.jsonl"
        answers = settings.model_copy(update={"output": str(responses)})
        measured = LossSettings.of(settings)
        key = stage_name("token losses", measured)
        losses = self.root / "losses" / f"{kind}-seed{seed}-{key}.json"
        yield [
            StageTask(
                "generate", f"{label}: answer with {checkpoint.name}",
                "pal.commands.generate:generate", (answers,), responses,
            ),
            StageTask(
                "losses", f"{label}: token losses", "pal.commands.reproduce:measure_losses",
                (measured, losses), losses,
            ),
        ]  # fmt: skip
        return FinishedRun(name, seed, responses, model, checkpoint, epoch, nll, losses)

    def score(
        self, systems: "Mapping[str, System]", runs: "list[FinishedRun]", dialogues: str,
        audit: Mapping[str, Any],
    ) -> "StageRun[str]":  # fmt: skip
        """Score all runs where the executor says, and return the table."""
        from pal.benchmark.executors.tasks import StageTask

        job = score_job(self.settings, systems, runs, dialogues)
        table = finished_table(job)
        if table is None:
            arguments = (self.settings, systems, runs, dialogues, audit)
            yield [
                StageTask(
                    "score", "scores and table", "pal.commands.reproduce:score_runs", arguments,
                    job.output, identity=job.identity, on_gpu=False,
                )
            ]  # fmt: skip
            table = (self.root / "table.md").read_text(encoding="utf-8").rstrip()
        return table


def _training(label: str, settings: Any, folder: Path, choosable: Any) -> "StageTask":
    from pal.benchmark.executors.tasks import StageTask

    chosen = settings.model_copy(update={"output_dir": str(folder)})
    return StageTask(
        "train", label, "pal.commands.train:train", (chosen,), folder,
        options={"choosable": choosable},
    )  # fmt: skip


def _slug(architecture: Any, system: "System") -> str:
    """Return what a trained model is, as part of a file name."""
    if system.decoder_only:
        slug = f"lm-{architecture.persona_mode or 'prompt'}"
    else:
        from pal.modeling.checkpoint import find_backbone

        chosen = architecture
        slug = find_backbone(chosen.base, chosen.from_scratch, chosen.backbone).slug(chosen)
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in slug)


def test_input(settings: ReproduceSettings, dialogues: str) -> dict[str, Any]:
    """Return the settings of the answered dialogues: ``input``, or the corpus's test split."""
    source = settings.input
    if source is not None:
        return {
            "input": source,
            "split": settings.split or (None if Path(source).is_file() else "test"),
        }
    return {"input": dialogues, "split": "test"}


def measure_losses(settings: LossSettings, output: Path) -> None:
    """Write the token losses of a model on the gold responses of ``input``."""
    from pal.core.files import write_json
    from pal.data.samples import load_samples
    from pal.modeling.losses import token_losses
    from pal.modeling.responder import load_model_and_tokenizer

    source, given = settings.require("model", "input")
    samples = load_samples(
        given, settings.split, settings.data, rule=settings.decoding.samples, limit=settings.limit
    )
    model, tokenizer = load_model_and_tokenizer(source, settings.dtype)
    job = Job("token losses", settings, output)
    with job.claimed(processes=False):
        losses = token_losses(
            model, tokenizer, samples,
            batch_tokens=settings.batch_tokens, batch_rows=settings.batch_rows,
        )  # fmt: skip
        plain = {
            key: value.tolist() if hasattr(value, "tolist") else value
            for key, value in losses.items()
        }
        job.publish(lambda path: write_json(path, plain))


# ----------------------------------------------------------------------------- the table


def score_job(
    settings: ReproduceSettings,
    systems: "Mapping[str, System]",
    runs: "list[FinishedRun]",
    dialogues: str,
) -> Job:
    """Return the job of the results; see :func:`score_runs`."""
    from dataclasses import asdict

    from pal.core.files import file_fingerprint
    from pal.metrics import metric_versions

    everything, tracking = all_runs(settings, runs), settings.tracking
    files = [path for run in everything for path in (run.predictions, run.losses) if path]
    return Job(
        "reproduce", _on_dialogues(settings, dialogues), Path(settings.output_dir) / "results.json",
        versions=(*COMPUTING, *SCORING),
        facts={
            "runs": [[run.system, run.seed] for run in everything],
            "outputs of runs": [file_fingerprint(path) for path in files],
            "systems": [asdict(system) for system in systems.values()],
            "metrics": metric_versions(settings.metrics.names),
            "tracking": tracking.model_dump() if tracking.wandb else None,
        },
    )  # fmt: skip


def all_runs(settings: ReproduceSettings, runs: "list[FinishedRun]") -> "list[FinishedRun]":
    """Return the runs, and after them the outside systems."""
    from pal.benchmark.stages import FinishedRun

    outside = settings.reproduce.outside.items()
    return [*runs, *(FinishedRun(name, None, Path(path)) for name, path in outside)]


def _on_dialogues(settings: ReproduceSettings, dialogues: str) -> ReproduceSettings:
    data = settings.data.model_copy(update={"train": dialogues})
    return settings.model_copy(update={**test_input(settings, dialogues), "data": data})


def finished_table(job: Job) -> str | None:
    """Return the table that this very job wrote, or None if it did not, or not all."""
    root = job.output.parent
    table = root / "table.md"
    written = (job.output, record_path(job.output), table, root / "analysis.json",
               root / "report.html")  # fmt: skip
    if all(path.exists() for path in written) and (
        record_beside(job.output).get("identity") == job.identity
    ):
        logger.info("%s is up to date", job.output)
        return table.read_text(encoding="utf-8").rstrip()
    return None


def score_runs(
    settings: ReproduceSettings,
    systems: "Mapping[str, System]",
    runs: "list[FinishedRun]",
    dialogues: str,
    audit: Mapping[str, Any],
) -> str:
    """Score all runs and outside systems, and write the results unless they are up to date.

    Args:
        settings: settings of the benchmark.
        systems: systems trained here, by name.
        runs: finished runs.
        dialogues: the dialogues with personas.
        audit: the audit of the corpus.
    """
    from pal.benchmark.results import ScoredRuns, write_results
    from pal.core.tracking import track
    from pal.data.cards import cards_note, give_cards
    from pal.data.protocols import check_responses
    from pal.data.samples import load_stamped_samples
    from pal.data.splits import load_split
    from pal.metrics.models import load_score_models

    root, chosen = Path(settings.output_dir), settings.reproduce
    given, tracking = test_input(settings, dialogues), settings.tracking
    everything = all_runs(settings, runs)
    sources = [source for source in (settings.data.train, settings.input) if source]
    job = score_job(settings, systems, runs, dialogues)
    settings = _on_dialogues(settings, dialogues)
    table = finished_table(job)
    if table is not None:
        return table

    with job.claimed(processes=False):
        samples, stamp = load_stamped_samples(
            given["input"], given["split"], settings.data, rule=settings.decoding.samples,
            limit=settings.limit,
        )  # fmt: skip
        check_responses(list(chosen.outside.values()), given["input"], stamp)
        embedder, reasons = load_vectors(settings, root)
        models, more = load_score_models(
            settings.metrics.names, present=("responses", "references", "personas"),
            **settings.metrics.model_dump(include={"bertscore", "bertscore_layer", "nli"}),
        )  # fmt: skip
        scored = ScoredRuns(everything, samples, settings.metrics, embedder, reasons | more, models)
        how = settings.data
        found = load_split(given["input"], given["split"], how=how, requests=True, by_name=True)
        text = write_results(
            job, scored, systems, list(give_cards(found, how.cards)),
            statistics=settings.statistics, rule=chosen.checkpoint, sources=sources,
            embedder_name=settings.metrics.embedder or "", cases=settings.report.cases,
            include=settings.report.include, facts=cards_note(how.cards), protocol=stamp,
            audit=audit,
        )  # fmt: skip
    for run, report, records in zip(everything, scored.reports, scored.records, strict=True):
        seed = "" if run.seed is None else f"-seed{run.seed}"
        track(tracking, run.system + seed, report.values, records, settings=settings.model_dump())
    return text


def load_vectors(
    settings: ReproduceSettings, root: Path
) -> "tuple[StoredEmbedder | None, dict[str, str]]":
    """Return the sentence encoder with its stored vectors, and reasons if there is none."""
    from pal.metrics import choose_metrics
    from pal.metrics.similarity import load_if_possible
    from pal.metrics.vectors import StoredEmbedder

    name = settings.metrics.embedder
    wanted = any("embedder" in metric.needs for metric, _ in choose_metrics(settings.metrics.names))
    if name is None or not wanted:
        return None, {"embedder": "metrics.embedder is null"} if name is None else {}
    stored = StoredEmbedder(name, root / "vectors.sqlite")
    if "embedder" in settings.metrics.model_fields_set:
        return stored, {}
    embedder, reason = load_if_possible(stored.load, name, chosen=False)
    return embedder, {"embedder": reason} if reason else {}
