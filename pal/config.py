"""Settings: one schema for every command, read from a YAML file and ``key=value`` overrides.

A YAML may hold a block named after a task (``persona_extractor:``); its keys take the place of
the top-level ones when that task runs. Overrides come last. All mistakes are told at once.
"""

import dataclasses
import difflib
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from pal.errors import ConfigError, suggest
from pal.records import fingerprint, write_json

TASKS = ("response", "persona_extractor")


class Section(BaseModel):
    """A group of settings; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)


class DataSettings(Section):
    """Corpora: files, folders or hub ids.

    Attributes:
        train: dialogues (task response) or persona conversations (task persona_extractor).
        validation: the same, for the validation loss; None takes the published split of ``train``
            or, for a single file, cuts it off by the split below.
        split: ``published`` takes the splits as they are; ``seeded`` joins all and splits 7:2:1 by
            dialogue with ``split_seed`` (the paper's way).
        split_seed: seed of the seeded split.
        max_train_samples: use the first so many training samples only.
        max_validation_samples: likewise.
    """

    train: str = "thu-coai/esconv"
    validation: str | None = None
    split: Literal["published", "seeded"] = "published"
    split_seed: int = 13
    max_train_samples: int | None = Field(None, gt=0)
    max_validation_samples: int | None = Field(None, gt=0)


class ArchitectureSettings(Section):
    """What training starts from, and how text enters.

    Attributes:
        base: hub id or folder of the pretrained model to start from.
        tokenizer: hub id or folder; ``base`` by default; with ``from_scratch`` and no tokenizer one
            is trained on the training texts.
        vocab_size: entries of a tokenizer trained on the spot.
        from_scratch: sizes of a model with random weights (keys of its configuration); the
            pretrained weights of ``base`` when None.
        persona_mode: ``fusion`` (PAL), ``prompt`` (Hard Prompt) or ``none`` (Blenderbot-Joint).
        fusion: ``masked``, ``reference`` or ``their_package.module:Class``.
        template: ``clean`` or ``authors``.
        max_context_tokens: encoder tokens of the dialogue, or of the extractor's input.
        max_persona_tokens: encoder tokens of the persona.
        max_target_tokens: target tokens.
    """

    base: str = "facebook/blenderbot_small-90M"
    tokenizer: str | None = None
    vocab_size: int = Field(8000, gt=300)
    from_scratch: dict[str, Any] | None = None
    persona_mode: Literal["fusion", "prompt", "none"] = "fusion"
    fusion: str = "masked"
    template: Literal["clean", "authors"] = "clean"
    max_context_tokens: int = Field(512, gt=8)
    max_persona_tokens: int = Field(160, gt=1)
    max_target_tokens: int = Field(128, gt=1)


class AnnotateSettings(Section):
    """Persona annotation.

    Attributes:
        start: first annotated seeker turn: ``third_utterance`` of the conversation (the paper's
            Table 1) or the seeker's own third turn, ``third_seeker_turn`` (the released data).
        layout: ``pesconv`` (persona known at every turn) or ``released`` (ESConv.json's form).
        num_beams: beam width (10 in the released code).
        max_new_tokens: longest output.
    """

    start: Literal["third_utterance", "third_seeker_turn"] = "third_utterance"
    layout: Literal["pesconv", "released"] = "pesconv"
    num_beams: int = Field(10, gt=0)
    max_new_tokens: int = Field(128, gt=0)


class DecodingSettings(Section):
    """Response generation (PAL paper, section 3.4 and appendix D).

    Attributes:
        strategy: ``argmax``, ``sample``, ``gold`` or the name of one strategy for all.
        alpha: contrast weight for all strategies, or eight of them; the model's when None.
        strategy_alpha: contrast weight of the strategy step; the model's when None.
        samples: which supporter turns are answered: ``evaluation`` (those after a seeker turn) or
            ``training`` (all but a dialogue's first turn).
    """

    strategy: str = "argmax"
    alpha: float | list[float] | None = None
    strategy_alpha: float | None = None
    samples: Literal["evaluation", "training"] = "evaluation"
    do_sample: bool = True
    temperature: float = Field(0.5, gt=0)
    top_k: int = Field(10, ge=0)
    top_p: float = Field(0.9, gt=0, le=1)
    repetition_penalty: float = Field(1.03, gt=0)
    num_beams: int = Field(1, gt=0)
    min_new_tokens: int = Field(10, ge=0)
    max_new_tokens: int = Field(50, gt=0)


class MetricSettings(Section):
    """Scores.

    Attributes:
        names: metric families to compute; all that the inputs allow when None.
        variant: ``correct``, or ``authors`` for what the released scripts compute.
        embedder: sentence encoder of cos_sim, a hub id or folder; None leaves cos_sim out.
    """

    names: list[str] | None = None
    variant: Literal["correct", "authors"] = "correct"
    embedder: str | None = "princeton-nlp/sup-simcse-bert-base-uncased"


class Settings(Section):
    """All settings of all commands; each command reads those it needs.

    Attributes:
        task: what ``train`` trains.
        seed: seed of initial weights, data order and sampling.
        output_dir: folder that ``train`` and ``quickstart`` write.
        overwrite: replace an existing output.
        model: folder or hub id of a trained model (annotate, generate, eval).
        input: dialogues to annotate, to answer or to compute perplexity on.
        split: which split of a folder or hub id ``input`` means.
        output: file that annotate, generate or eval writes.
        predictions: generated responses that ``eval`` scores.
        limit: stop after so many dialogues (annotate) or samples (generate, eval).
        batch_tokens: encoder positions a batch holds at most (annotate, generate, eval).
        batch_rows: rows a batch holds at most.
        dtype: number format of annotate, generate and eval.
        early_stopping_patience: evaluations without improvement before training stops.
        training: options of transformers' ``Seq2SeqTrainingArguments``, by their own names.
    """

    task: Literal["response", "persona_extractor"] = "response"
    seed: int = 42
    output_dir: str = "runs/pal"
    overwrite: bool = False
    model: str | None = None
    input: str | None = None
    split: Literal["train", "validation", "test"] | None = None
    output: str | None = None
    predictions: str | None = None
    limit: int | None = Field(None, gt=0)
    batch_tokens: int = Field(16384, gt=0)
    batch_rows: int = Field(64, gt=0)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    early_stopping_patience: int | None = Field(None, gt=0)
    data: DataSettings = DataSettings()
    architecture: ArchitectureSettings = ArchitectureSettings()
    training: dict[str, Any] = Field(default_factory=dict)
    annotate: AnnotateSettings = AnnotateSettings()
    decoding: DecodingSettings = DecodingSettings()
    metrics: MetricSettings = MetricSettings()

    def require(self, *names: str) -> list[str]:
        """Return these top-level settings, which must be given.

        Raises:
            ConfigError: one or more are missing; all are named.
        """
        missing = [name for name in names if getattr(self, name) is None]
        if missing:
            raise ConfigError(f"missing settings: give {' '.join(f'{m}=…' for m in missing)}")
        return [getattr(self, name) for name in names]


def bundled(*parts: str) -> Path:
    """Return a file or folder that travels with the package: ``configs`` or ``sample``."""
    root = Path(str(resources.files("pal")))
    if (root / "_bundled").is_dir():
        return root.joinpath("_bundled", *parts)
    source = {"configs": root.parent / "configs", "sample": root.parent / "data" / "sample"}
    return source[parts[0]].joinpath(*parts[1:])


def find_config(name: str) -> Path:
    """Find a settings file: a path, or the name of a bundled one such as ``small``.

    Raises:
        ConfigError: neither; the message lists the bundled names.
    """
    path = Path(name)
    if path.is_file():
        return path
    packaged = bundled("configs", f"{name}.yaml")
    if packaged.is_file():
        return packaged
    names = sorted(p.stem for p in bundled("configs").glob("*.yaml"))
    raise ConfigError(
        f"{name}: no such settings file{suggest(name, names)} (bundled: {', '.join(names)})"
    )


def load_settings(
    config: str | None = None,
    overrides: Sequence[str] = (),
    *,
    fixed: Mapping[str, Any] | None = None,
    check_training: bool = False,
) -> Settings:
    """Read settings from a file, overrides and values a command fixes, in that order.

    Args:
        config: a YAML file or a bundled name; defaults alone when None.
        overrides: ``dotted.key=value`` items; values are read as YAML.
        fixed: nested values that win over both.
        check_training: check names and types of the ``training`` options (imports transformers).

    Raises:
        ConfigError: every mistake of file and overrides, in one line.
    """
    mistakes: list[str] = []
    tree = _read_yaml(find_config(config)) if config else {}
    given = _parse_overrides(overrides, mistakes)
    task = str((fixed or {}).get("task") or given.get("task") or tree.get("task") or TASKS[0])
    blocks = {name: tree.pop(name) for name in TASKS if isinstance(tree.get(name), dict)}
    tree = merge(tree, blocks.get(task, {}))
    tree = merge(merge(tree, given), fixed or {})
    options = _training_options() if check_training and tree.get("training") else {}
    settings = None
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        options = options or (_training_options() if check_training else {})
        mistakes += [_explain(detail, list(options)) for detail in error.errors()]
    if check_training and isinstance(tree.get("training", {}), dict):
        training = _check_training(tree.get("training", {}), options, mistakes)
        if settings is not None:
            settings.training = training
    if mistakes or settings is None:
        source = config or "settings"
        count = "" if len(mistakes) == 1 else f"{len(mistakes)} mistakes: "
        raise ConfigError(f"{source}: {count}{'; '.join(mistakes)}")
    return settings


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested mapping ``top`` over ``base``; None in ``top`` wins like any value."""
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(
            f"{path}{where}: not valid YAML ({getattr(error, 'problem', None) or error})"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected 'key: value' lines, got {type(tree).__name__}")
    return tree


def _parse_overrides(items: Sequence[str], mistakes: list[str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key:
            mistakes.append(f"{item!r} is not of the form key=value")
            continue
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        for part in reversed(key.split(".")):
            value = {part: value}
        tree = merge(tree, value)
    return tree


def _fields(model: Any, path: Sequence[str]) -> list[str]:
    for part in path:
        model = model.model_fields[part].annotation
    return list(model.model_fields)


def _explain(detail: Mapping[str, Any], training: Sequence[str]) -> str:
    location = [str(part) for part in detail["loc"] if part not in ("float", "list[float]")]
    key = ".".join(location)
    if detail["type"] != "extra_forbidden":
        return f"{key}: {detail['msg'][0].lower()}{detail['msg'][1:]}, got {detail['input']!r}"
    section = ".".join(location[:-1])
    allowed = {name: f"{section}.{name}" for name in _fields(Settings, location[:-1])}
    if not section:  # perhaps a key of some section, given without the section's name
        nested = {n: f"{s}.{n}" for s in _sections() for n in _fields(Settings, [s])}
        allowed = {
            **nested, **{name: f"training.{name}" for name in training},
            **{name: name for name in Settings.model_fields},
        }  # fmt: skip
    close = difflib.get_close_matches(location[-1], list(allowed), n=1, cutoff=0.6)
    hint = f"; did you mean {allowed[close[0]]!r}?" if close else ""
    return f"unknown key {key!r}{hint}"


def _sections() -> list[str]:
    return [
        name
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    ]


def _training_options() -> dict[str, Any]:
    """The options of transformers' training arguments: name → type."""
    from transformers import Seq2SeqTrainingArguments

    hints = get_type_hints(Seq2SeqTrainingArguments)
    return {f.name: hints[f.name] for f in dataclasses.fields(Seq2SeqTrainingArguments) if f.init}


def _check_training(
    training: Mapping[str, Any], options: Mapping[str, Any], mistakes: list[str]
) -> dict[str, Any]:
    """Return the training options with numbers for YAML's strings (``1e-5`` is one)."""
    checked = dict(training)
    for key, value in training.items():
        if key in RESERVED:
            mistakes.append(f"training.{key}: {RESERVED[key]}")
            continue
        if key not in options:
            close = difflib.get_close_matches(str(key), list(options), n=1)
            hint = f"; did you mean 'training.{close[0]}'?" if close else ""
            mistakes.append(f"unknown key 'training.{key}'{hint}")
            continue
        try:
            valid = TypeAdapter(options[key]).validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            mistakes.append(f"training.{key}: {message[0].lower()}{message[1:]}, got {value!r}")
            continue
        except PydanticSchemaGenerationError:
            continue  # a type only transformers itself can judge
        if isinstance(value, str):
            checked[key] = valid
    return checked


# Training options that have no effect here, and what to do instead.
RESERVED = {
    "output_dir": "give the top-level setting 'output_dir' instead",
    "seed": "give the top-level setting 'seed' instead",
    "data_seed": "give the top-level setting 'seed' instead",
    "resume_from_checkpoint": "a run resumes by itself; leave it out",
    "predict_with_generate": "validation computes losses only; leave it out and use `pal generate`",
    "label_smoothing_factor": "the loss is the paper's equation 5, without smoothing; leave it out",
}

SECRET = ("token", "key", "password", "secret")
PACKAGES = (
    "pal-esc", "torch", "transformers", "tokenizers", "datasets", "accelerate",
    "sentence-transformers", "evaluate", "nltk", "numpy", "rapidfuzz",
)  # fmt: skip


def describe_run(settings: Settings, command: str, identity: str, **facts: Any) -> dict[str, Any]:
    """Return what made an output: resolved settings, versions, git commit, machine, seed."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    resolved = settings.model_dump()
    resolved["training"] = {
        key: None if key.endswith(SECRET) else value for key, value in settings.training.items()
    }
    return {
        "identity": identity,
        "command": command,
        "seed": settings.seed,
        "settings": resolved,
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git_commit": _git_commit(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **facts,
    }


def write_run(path: str | Path, settings: Settings, command: str, identity: str, **facts: Any):
    """Write the record of a run beside its output (see :func:`describe_run`)."""
    write_json(path, describe_run(settings, command, identity, **facts))


def identity_of(settings: Settings, *names: str, **more: Any) -> str:
    """Hash the named settings and further facts (input and weight hashes)."""
    return fingerprint([{name: settings.model_dump()[name] for name in names}, more])


def _git_commit() -> str | None:
    """The commit of the source tree the package runs from; None for an installed package."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"],
            capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
