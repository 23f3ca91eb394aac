"""The benchmark: every system with every seed, from dialogues to the paper's table.

Each stage lies under a name that holds a hash of all that decides it (settings and contents of
files), so what is done is never done again, whichever systems and seeds are asked for, and an
interrupted benchmark goes on where it stopped. Several machines may share the work: start each
with seeds of its own on one shared folder, then all seeds anywhere.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pal.benchmark.systems import System, choose_systems
from pal.core.config import load_settings, merge, read_config
from pal.core.errors import ConfigError
from pal.core.files import file_fingerprint, fingerprint, read_json, write_json
from pal.core.schema import DecodingSettings, Settings
from pal.data.strategies import STRATEGIES, canonical_strategy
from pal.metrics import find_metric

logger = logging.getLogger(__name__)

# Of data and of models; other files of a folder decide nothing.
SUFFIXES = (".json", ".jsonl", ".txt", ".csv", ".parquet", ".safetensors", ".bin", ".model")


@dataclass
class Run:
    """One system with one seed.

    Attributes:
        system: its name.
        seed: of training, data order and sampling; None for outputs from elsewhere.
        model: folder of the training run.
        checkpoint: the epoch's folder in it that answers.
        epoch: that epoch.
        validation_nll: its validation loss, nats a token.
        predictions: its responses.
        losses: its token losses on the gold responses.
    """

    system: str
    seed: int | None
    predictions: Path
    model: Path | None = None
    checkpoint: Path | None = None
    epoch: float | None = None
    validation_nll: float | None = None
    losses: Path | None = None


class Benchmark:
    """The stages of one benchmark, each skipped where its output lies.

    Args:
        config: YAML file or bundled name.
        overrides: ``key=value`` items.

    Raises:
        ConfigError: settings that cannot be used, of any system; told before any work.
    """

    def __init__(self, config: str | None, overrides: Sequence[str] = ()):
        load_settings(config, overrides, check_training=True)  # its messages name the file
        self.tree, self.overrides = read_config(config), overrides  # read once for all stages
        self.base = self.settings(task=None)
        self.root = Path(self.base.output_dir)
        self.systems = choose_systems(self.base.reproduce)
        self.check()
        source_fingerprint.cache_clear()
        seeds = self.base.reproduce.seeds
        # extractor and annotation; for each run training, responses and losses; the table
        self.total = 2 * bool(self.base.reproduce.extractor) + 3 * len(seeds) * len(self.systems)
        self.stage = 0

    def check(self) -> None:
        """Find the mistakes that would show only after hours.

        Raises:
            ConfigError: of them all, the first.
        """
        base = self.base
        for name in base.metrics.names or ():
            find_metric(name)
        named = {**base.reproduce.outside, **{path: path for path in base.report.include}}
        for path in named.values():
            if not Path(path).is_file():
                raise ConfigError(f"{path}: no such file (reproduce.outside, report.include)")
        whole = Path(base.data.train).is_file() or base.data.split == "seeded"
        if base.data.validation and base.input is None and whole:
            raise ConfigError(
                "data.validation with a data.train of one file leaves no test dialogues; give "
                "them as input=… too, or leave data.validation out"
            )
        if base.reproduce.extractor and (base.data.validation or base.input):
            raise ConfigError(
                "reproduce.extractor gives personas to data.train and its splits only; annotate "
                "data.validation and input first (pal annotate), or leave them out"
            )
        for label, system in self.systems.items():
            settings = self.settings(system.settings)
            check_decoding(settings.decoding)
            if settings.training.get("save_total_limit") is not None:
                raise ConfigError(
                    "training.save_total_limit: the benchmark chooses among all epochs; leave it "
                    "out"
                )
            epochs, chosen = settings.training.get("num_train_epochs", 3), base.reproduce.checkpoint
            if isinstance(chosen, int) and chosen > epochs:
                raise ConfigError(f"reproduce.checkpoint={chosen}: {label} trains {epochs} epochs")
        if base.reproduce.extractor == "train":
            theirs = self.settings(task="persona_extractor").data.train
            if theirs == base.data.train:
                raise ConfigError(
                    "reproduce.extractor=train: give the persona conversations as "
                    "persona_extractor.data.train=…"
                )

    def settings(self, *fixed: Mapping[str, Any], task: str | None = "response") -> Settings:
        """Return the benchmark's settings with these laid over them, in turn."""
        tree: dict[str, Any] = {"task": task} if task else {}
        for one in fixed:
            tree = merge(tree, one)
        return load_settings(self.tree, self.overrides, fixed=tree, check_training=True)

    def announce(self, what: str, done: bool) -> None:
        """Tell which stage begins."""
        self.stage += 1
        state = ", done already" if done else ""
        logger.info("[%d/%d] %s%s", self.stage, self.total, what, state)

    def prepare_dialogues(self) -> str:
        """Return the dialogues with personas, made by an extractor where one is asked for."""
        wanted = self.base.reproduce.extractor
        source = self.base.data.train
        if wanted is None:
            return source
        if wanted == "train":
            settings = self.settings(task="persona_extractor")
            folder = self.root / "models" / f"extractor-{training_identity(settings)[:12]}"
            self.announce("train the persona extractor", (folder / "run.json").exists())
            if not (folder / "run.json").exists():
                from pal.training.trainer import train

                train(
                    self.settings(
                        {"output_dir": str(folder), "overwrite": False}, task="persona_extractor"
                    )
                )
            wanted = str(folder)
        else:
            self.announce(f"persona extractor {wanted}", True)
        base = self.base
        facts = [
            source_fingerprint(wanted), source_fingerprint(source),
            base.model_dump(include={"annotate", "dtype", "batch_tokens", "batch_rows"}),
            base.data.split,
        ]  # fmt: skip
        pesconv = self.root / f"pesconv-{fingerprint(facts)[:12]}"
        whole = base.data.split == "seeded" or Path(source).is_file()
        splits = [None] if whole else ["train", "validation", "test"]
        targets = [pesconv / f"{split or 'all'}.jsonl" for split in splits]
        done = all(target.exists() for target in targets)
        self.announce("annotate the dialogues with personas", done)
        if not done:
            from pal.commands.annotate import annotate

            for split, target in zip(splits, targets, strict=True):
                made = {"model": wanted, "input": source, "split": split, "output": str(target)}
                annotate(self.settings(made, {"limit": None, "overwrite": False}))
        return str(targets[0] if whole else pesconv)

    def run(self, name: str, system: System, seed: int, dialogues: str) -> Run:
        """Train, choose the checkpoint, answer the test dialogues and measure token losses."""
        data = {"data": {"train": dialogues}, "seed": seed, "overwrite": False}
        settings = self.settings(system.settings, data)
        trained = training_identity(settings)
        what = settings.architecture
        slug = f"{what.persona_mode}-{what.fusion}" if what.persona_mode == "fusion" else (
            what.persona_mode
        )  # fmt: skip
        slug = "".join(c if c.isalnum() or c in "-_" else "-" for c in slug)
        model = self.root / "models" / f"{slug}-seed{seed}-{trained[:12]}"
        label = f"{system.label}, seed {seed}"
        done = (model / "run.json").exists()
        self.announce(f"{label}: train", done)
        if not done:
            from pal.training.trainer import train

            train(self.settings(system.settings, data, {"output_dir": str(model)}))
        checkpoint, epoch, nll = choose_checkpoint(model, self.base.reproduce.checkpoint)

        made = {"model": str(checkpoint), **self.test_input(dialogues)}
        settings = self.settings(system.settings, data, made)
        # What of the settings decides a response, besides the model and the decoding.
        inputs: list[Any] = [trained, checkpoint.name, source_fingerprint(str(made["input"]))]
        inputs += [
            settings.model_dump(include={"dtype", "batch_tokens", "batch_rows", "limit", "split"}),
            settings.data.model_dump(include={"split", "split_seed"}),
            settings.decoding.samples,
        ]
        key = fingerprint([*inputs, seed, settings.decoding.model_dump()])[:12]
        responses = self.root / "responses" / f"{name}-seed{seed}-{key}.jsonl"
        self.announce(f"{label}: answer with {checkpoint.name}", responses.exists())
        if not responses.exists():
            from pal.commands.generate import generate

            generate(self.settings(system.settings, data, made, {"output": str(responses)}))
        losses = self.root / "losses" / f"{slug}-seed{seed}-{fingerprint(inputs)[:12]}.json"
        self.announce(f"{label}: token losses", losses.exists())
        if not losses.exists():
            from pal.commands.evaluate import token_losses

            found = token_losses(settings)
            write_json(losses, {k: v.tolist() if hasattr(v, "tolist") else v
                                for k, v in found.items()})  # fmt: skip
        return Run(name, seed, responses, model, checkpoint, epoch, nll, losses)

    def test_input(self, dialogues: str) -> dict[str, Any]:
        """Return which dialogues are answered: ``input``, or the test split of the corpus."""
        source = self.base.input
        if source is not None:
            split = self.base.split or (None if Path(source).is_file() else "test")
            return {"input": source, "split": split}
        return {"input": dialogues, "split": "test"}


def reproduce(config: str | None, overrides: Sequence[str] = ()) -> str:
    """Run the benchmark into ``output_dir`` and return its table.

    Writes ``results.json``, ``cases.json``, ``analysis.json``, ``table.md`` and ``report.html``
    beside the stages' own outputs.

    Raises:
        PalError: settings, data or output cannot be used.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError(
            "reproduce runs in one process; start it without torchrun or accelerate, several times "
            "with different reproduce.seeds on one output_dir if you like"
        )
    benchmark = Benchmark(config, overrides)
    dialogues = benchmark.prepare_dialogues()
    runs = [
        benchmark.run(name, system, seed, dialogues)
        for seed in benchmark.base.reproduce.seeds
        for name, system in benchmark.systems.items()
    ]
    from pal.benchmark.results import write_results

    settings = benchmark.settings({"data": {"train": dialogues}}, benchmark.test_input(dialogues))
    return write_results(settings, benchmark.systems, runs, benchmark.root)


def check_decoding(decoding: DecodingSettings) -> None:
    """Find what generation would refuse.

    Raises:
        PalError: an unknown strategy, or as many α as there are not.
    """
    if decoding.strategy not in ("argmax", "sample", "gold"):
        canonical_strategy(decoding.strategy)
    if isinstance(decoding.alpha, list) and len(decoding.alpha) != len(STRATEGIES):
        raise ConfigError(
            f"decoding.alpha: expected a number or {len(STRATEGIES)} of them, got "
            f"{len(decoding.alpha)}"
        )


def training_identity(settings: Settings) -> str:
    """Hash all that decides a training run: settings, corpora, and a local base model's files."""
    chosen = settings.architecture
    return fingerprint(
        [
            settings.model_dump(include={"task", "seed", "architecture", "training",
                                         "early_stopping_patience"}),
            settings.data.model_dump(exclude={"train", "validation"})
            if settings.task == "response"
            else settings.data.model_dump(include={"max_train_samples", "max_validation_samples"}),
            [source and source_fingerprint(source)
             for source in (settings.data.train, settings.data.validation, settings.data.cards,
                            chosen.tokenizer)],
            source_fingerprint(chosen.base) if chosen.from_scratch is None else None,
        ]
    )  # fmt: skip


@cache
def source_fingerprint(source: str) -> str:
    """Hash the contents of a file, of a folder's data files or of a model's; else the hub id."""
    path = Path(source)
    if path.is_file():
        return file_fingerprint(path)
    if not path.is_dir():
        return source
    if (path / "run.json").exists():  # a trained model: its record names all it is made of
        return str(read_json(path / "run.json").get("identity"))
    files = [
        file for file in sorted(path.iterdir())
        if file.suffix in SUFFIXES and not file.name.endswith(".run.json")
    ]  # fmt: skip
    return fingerprint([[file.name, file_fingerprint(file)] for file in files])


def choose_checkpoint(model: Path, rule: str | int) -> tuple[Path, float, float]:
    """Return the epoch's checkpoint that a rule chooses, its epoch and its validation loss.

    Args:
        model: folder of a training run.
        rule: ``lowest_loss``, ``last``, or an epoch's number.

    Raises:
        ConfigError: no such epoch, or its checkpoint is gone.
    """
    found = [entry for entry in read_json(model / "training_log.json") if "eval_nll" in entry]
    if not found:
        raise ConfigError(
            f"{model}: no validation loss was logged; leave out training.eval_strategy"
        )
    if rule == "lowest_loss":
        chosen = min(found, key=lambda entry: (entry["eval_nll"], entry["step"]))
    elif rule == "last":
        chosen = found[-1]
    else:
        chosen = min(found, key=lambda entry: abs(entry["epoch"] - float(rule)))
        if abs(chosen["epoch"] - float(rule)) > 0.5:
            raise ConfigError(
                f"reproduce.checkpoint={rule}: {model} has epochs 1 to {round(found[-1]['epoch'])}"
            )
    folder = model / f"checkpoint-{chosen['step']}"
    if not (folder / "model.safetensors").exists():
        raise ConfigError(
            f"{folder}: the checkpoint that reproduce.checkpoint={rule} chooses is not there; "
            "save one every epoch, or delete the folder above to train anew"
        )
    return folder, float(chosen["epoch"]), float(chosen["eval_nll"])
