"""Reading settings: a YAML file and ``key=value`` overrides into one checked schema.

A YAML may hold a block named after a task (``persona_extractor:``); its keys take the place of
the top-level ones when that task runs. Overrides come last. All mistakes are told at once.
"""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from pal.errors import ConfigError, suggest
from pal.settings import TASKS, Section, Settings, bundled


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


def read_config(config: str | None) -> dict[str, Any]:
    """Read the tree of a YAML file or bundled name; an empty one for None.

    Raises:
        ConfigError: no such file, or no valid YAML.
    """
    return _read_yaml(find_config(config)) if config else {}


def load_settings(
    config: str | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    *,
    fixed: Mapping[str, Any] | None = None,
    check_training: bool = False,
) -> Settings:
    """Read settings from a file, overrides and values a command fixes, in that order.

    Args:
        config: a YAML file, a bundled name, or what :func:`read_config` read; defaults alone when
            None.
        overrides: ``dotted.key=value`` items; values are read as YAML.
        fixed: nested values that win over both.
        check_training: check names and types of the ``training`` options (imports transformers).

    Raises:
        ConfigError: every mistake of file and overrides, in one line.
    """
    mistakes: list[str] = []
    tree = dict(config) if isinstance(config, Mapping) else read_config(config)
    given = _parse_overrides(overrides, mistakes)
    task = str((fixed or {}).get("task") or given.get("task") or tree.get("task") or TASKS[0])
    for layer in (tree, given):
        blocks = {name: layer.pop(name) for name in TASKS if isinstance(layer.get(name), dict)}
        layer.update(merge(layer, blocks.get(task, {})))
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
        source = config if isinstance(config, str) else "settings"
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
    # pydantic puts the alternatives of a key that takes several types into its place
    alternatives = ("float", "list[float]", "constrained-int", "literal[")
    location = [part for part in map(str, detail["loc"]) if not part.startswith(alternatives)]
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
        given, value = value, "no" if value is False and "strategy" in key else value
        try:  # YAML reads a bare ``no`` as false
            valid = TypeAdapter(options[key]).validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            mistakes.append(f"training.{key}: {message[0].lower()}{message[1:]}, got {given!r}")
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
