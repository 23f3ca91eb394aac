"""Settings of the benchmark, the search for α and the analysis."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from pal.cluster.settings import ClusterResources
from pal.core.settings import INERT, Count, InputPath, ModelPlace, Name, Section, Seed, Source


def _distinct(values: list[int]) -> list[int]:
    if len(set(values)) < len(values):
        raise ValueError("should hold each value once")
    return values


# ``train``, or the folder of an extractor.
ExtractorChoice = Annotated[
    Source,
    ModelPlace(
        "give train, or the folder that task=persona_extractor wrote", own=True, loaded=True,
        words=("train",),
    ),
]  # fmt: skip

# Stages by what they ask a cluster for: the command of that name, token losses, or the scores.
StageKind = Literal["train", "annotate", "generate", "losses", "answer", "score"]
ResourceKind = Literal["train", "annotate", "generate", "losses", "answer", "score", "all"]


class BenchmarkSettings(Section):
    """The benchmark, which trains, runs and scores every system with every seed.

    Attributes:
        systems: systems to compare, by their names in the table of systems (docs/benchmark.md) or
            in overrides.
        seeds: seeds; every system is trained, run and scored once per seed.
        checkpoint: epoch whose checkpoint generates responses: lowest_loss (as in the paper), last,
            or a number.
        keep_checkpoints: keep every epoch's checkpoint with its training state. Otherwise a
            checkpoint is removed as soon as no rule can choose it, and only the weights of the
            chosen epoch, of the lowest loss and of the last epoch are kept.
        extractor: null if the dialogues already have personas; train to train the extractor of the
            YAML's persona_extractor block and annotate them; otherwise a trained extractor.
        overrides: settings of individual systems, nested as in the YAML: {prompt: {training: …}}.
        outside: responses of systems from elsewhere, name → file: records with ids in any order, or
            one response per line in the order of the test samples.
        executor: where stages run: ``local`` (this machine), ``ray`` (the cluster that RAY_ADDRESS
            names) or ``slurm``.
        workers: number of stages that run at the same time; null means one on this machine, and as
            many as a cluster accepts.
        resources: resources to request from a cluster for a stage, by kind (train, annotate,
            generate, losses, answer, score; all for the rest): {train: {gpus: 0.5, cpus: 4,
            memory_gb: 16}}.
        slurm: options of Slurm jobs: ``{partition: gpu, timeout_min: 720}``.
    """

    systems: list[Name] = ["joint", "prompt", "pal_alpha_0", "pal"]
    seeds: Annotated[list[Seed], AfterValidator(_distinct)] = Field([13, 42, 87], min_length=1)
    checkpoint: Literal["lowest_loss", "last"] | Annotated[int, Field(gt=0)] = "lowest_loss"
    keep_checkpoints: Annotated[bool, INERT] = False
    extractor: ExtractorChoice | None = None
    overrides: dict[str, dict[str, Any]] = Field(default_factory=dict)
    outside: dict[Name, InputPath] = Field(default_factory=dict)
    executor: Annotated[Literal["local", "ray", "slurm"], INERT] = "local"
    workers: Annotated[Count | None, INERT] = None
    resources: Annotated[dict[ResourceKind, ClusterResources], INERT] = Field(default_factory=dict)
    slurm: Annotated[dict[str, Any], INERT] = Field(default_factory=dict)


class AlphaSearchSettings(Section):
    """Choice of the contrast weight α of each strategy.

    Attributes:
        sampler: ``tpe`` (all objectives at once) or ``cmaes`` (on their mean relative gain over
            α = 0).
        objectives: metric keys of responses, such as ``bleu_2``.
        trials: number of α vectors to try.
        highest: maximum α.
        step: step size of α; responses are generated once per step, for any number of trials.
    """

    sampler: Literal["tpe", "cmaes"] = "tpe"
    objectives: list[str] = Field(["bleu_2", "distinct_2", "cos_sim"], min_length=1)
    trials: int = Field(200, gt=0)
    highest: float = Field(1.5, gt=0)
    step: float = Field(0.125, gt=0)


class AnalysisSettings(Section):
    """Analysis of a corpus and of responses.

    Attributes:
        systems: responses to analyse, name → file.
        word_vectors: text file of word vectors (fastText's .vec format) for Figure 5 of the paper,
            used instead of ``metrics.embedder`` (also for cos_sim by strategy).
    """

    systems: dict[str, InputPath] = Field(default_factory=dict)
    word_vectors: InputPath | None = None
