"""Settings: sections of typed fields, read from YAML and ``key=value`` overrides.

A room defines the section of its own settings; a command's settings class composes the sections it
uses. Every key is explained in the ``Attributes`` part of its section's docstring, from which help
is made. Markers in a field's type say what the field means for the identity of a result.

Example:
    >>> class CopySettings(CommandSettings):
    ...     '''Copy a file.
    ...
    ...     Attributes:
    ...         input: the file.
    ...     '''
    ...     input: InputPath
    >>> read_settings(CopySettings, None, ["input=0042"]).input
    '0042'
"""

import difflib
import importlib
import logging
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

import yaml
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

logger = logging.getLogger(__name__)

# ----------------------------------------------------------------------------- fields


@dataclass(frozen=True)
class Inert:
    """Marks a field that cannot change a result: where it goes, how fast it comes."""


@dataclass(frozen=True)
class Contents:
    """Marks a field that names files, folders or hub ids; their contents decide a result.

    Attributes:
        find: returns the path of what a name stands for; the name itself is one when None.
    """

    find: Callable[[str], str] | None = None


@dataclass(frozen=True)
class KeysFrom:
    """Marks an open group of keys; ``module:function`` returns the names that it may hold."""

    function: str

    def names(self) -> list[str]:
        """Return the names; the module is imported only now."""
        module, _, name = self.function.partition(":")
        return list(getattr(importlib.import_module(module), name)())


@dataclass(frozen=True)
class Unshown:
    """Marks a field whose value no message quotes: people paste keys into it."""


INERT = Inert()


def bundled(*parts: str) -> Path:
    """Return a file or folder that travels with the package: ``configs`` or ``sample``."""
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
    """Turn ``bundled:esconv`` into the path of that part of the bundled corpus; expand ``~``."""
    name = source.removeprefix("bundled:")
    return expand_home(source) if name == source else str(bundled("sample", *name.split("/")))


# A file or folder that is read; its contents are part of a result's identity.
InputPath = Annotated[str, AfterValidator(expand_home), Contents()]

# A file, a folder or a hub id; ``bundled:PART`` is a part of the corpus that travels along.
Source = Annotated[str, AfterValidator(resolve_source), Contents()]

# A file or folder that is written.
OutputPath = Annotated[str, AfterValidator(expand_home), INERT]

# Of a system or a condition; it becomes part of file names.
Name = Annotated[str, Field(pattern=r"^[\w.-]+$")]

# How many of something; far above any use, and below what overflows.
Count = Annotated[int, Field(gt=0, le=2**31 - 1)]


class Section(BaseModel):
    """A group of settings; unknown keys are refused.

    ``renamed`` maps keys as they were called earlier to their names of today; both are read.
    """

    renamed: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(
        extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False, validate_default=False
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_odd_values(cls, values: Any) -> Any:
        """Refuse truth for a number, though Python counts with it, and half characters."""
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

    The class attributes are for its help: ``examples`` are two command lines, ``positional`` is a
    key that may be given without its name, ``takes_blocks`` says whether overrides may name a
    task's block, ``default_config`` is the bundled file that is read where none is given.
    """

    examples: ClassVar[tuple[str, ...]] = ()
    positional: ClassVar[str] = ""
    takes_blocks: ClassVar[bool] = False
    default_config: ClassVar[str | None] = None
    _task_trees: dict[str, dict[str, Any]] = PrivateAttr(default_factory=dict)

    @classmethod
    def of(cls, settings: Any) -> Self:
        """Return settings of this very class, from another command's that has its keys.

        Raises:
            ConfigError: values that go together for others, but not for this command.
        """
        if isinstance(settings, cls):
            return settings
        given = _given_values(settings)
        try:
            made = cls.model_validate(_known_part(given, cls))
        except ValidationError as error:
            reader = Reader(cls)
            found = [reader.explain_mistake(detail) for detail in error.errors()]
            raise ConfigError("; ".join(found)) from None
        made._task_trees = settings._task_trees
        return made

    def tree_of(self, task: str) -> dict[str, Any]:
        """Return the tree that the settings of another command are made from.

        A command that runs others reads theirs from it: it is what this command's settings were
        read from, file and overrides, with the block of ``task`` laid over the rest.

        Example:
            >>> tree = settings.tree_of("persona_extractor")
            >>> load_settings("train", tree, fixed={"task": "persona_extractor"})
        """
        found = self._task_trees.get(task)
        return _given_values(self) if found is None else found

    def require(self, *names: str) -> list[Any]:
        """Return these top-level settings, which must be given.

        Raises:
            ConfigError: one or more are missing; all are named.
        """
        missing = [name for name in names if getattr(self, name) is None]
        if missing:
            raise ConfigError(f"missing settings: give {' '.join(f'{m}=…' for m in missing)}")
        return [getattr(self, name) for name in names]


def _has_surrogate(value: Any) -> bool:
    """Whether a text, or one inside, holds half a character, as undecodable arguments do."""
    if isinstance(value, Mapping):
        return any(_has_surrogate(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple):
        return any(map(_has_surrogate, value))
    return isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value)


def _quoted(text: str) -> str:
    """Return a text of the user's as a message shows it."""
    return ascii(text)[:80] if _has_surrogate(text) else repr(text)[:80]


def _admits(annotation: Any, wanted: type) -> bool:
    """Whether a type is, or among its alternatives has, ``wanted`` or Any."""
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
    """Return the section class of a field's type; None where it is a value."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def marks_of(field: Any) -> list[Any]:
    """Return the markers of a field, those inside of its type's alternatives too."""
    found = list(field.metadata)

    def walk(annotation: Any) -> None:
        for part in get_args(annotation):
            if get_origin(annotation) is Annotated:
                found.extend(get_args(annotation)[1:])
            walk(part)

    walk(field.annotation)
    return found


def fields_of(cls: type[Section], prefix: str = "") -> Iterator[tuple[str, Any, type[Section]]]:
    """Yield (dotted key, field, its section) of every value in a section and those below it."""
    for name, field in cls.model_fields.items():
        below = section_of(field.annotation)
        if below is None:
            yield prefix + name, field, cls
        else:
            yield from fields_of(below, f"{prefix}{name}.")


def renames_of(cls: type[Section], prefix: str = "") -> dict[str, str]:
    """Return the dotted keys of earlier days, those of sections below too, with today's."""
    found = {f"{prefix}{old}": f"{prefix}{new}" for old, new in cls.renamed.items()}
    for name, field in cls.model_fields.items():
        below = section_of(field.annotation)
        if below is not None:
            found |= renames_of(below, f"{prefix}{name}.")
    return found


def _given_values(settings: Section) -> dict[str, Any]:
    """Return the tree of what was given or set since, not of what stands at its default.

    What was set in a section counts, also where the section itself came by default.
    """
    dumped, found = settings.model_dump(), {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        inside = _given_values(value) if isinstance(value, Section) else {}
        if inside or name in settings.model_fields_set:
            found[name] = inside if isinstance(value, Section) else dumped[name]
    return found


def _known_part(tree: Mapping[str, Any], cls: type[Section]) -> dict[str, Any]:
    """Return what of a tree a class has keys for."""
    known = {}
    for key, value in tree.items():
        field = cls.model_fields.get(str(key))
        if field is None:
            continue
        below = section_of(field.annotation)
        if below is not None and isinstance(value, Mapping):
            value = _known_part(value, below)
        known[key] = value
    return known


# ----------------------------------------------------------------------------- reading


LARGEST_FILE = 100_000  # values in a settings file


class Plain(str):
    """An unquoted scalar as it was written; its type is that of the setting it is given for."""

    __slots__ = ()


class _Loader(yaml.SafeLoader):
    """Reads YAML's structure; scalars stay the text that was written."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        implicit = {"str": "scalar", "map": "mapping", "seq": "sequence"}
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if implicit.get(kind) != node.id:
            raise yaml.constructor.ConstructorError(
                None, None, f"the tag !{kind} is not read here", node.start_mark
            )
        return super().construct_object(node, deep)

    def construct_scalar(self, node: Any) -> Any:
        text = super().construct_scalar(node)
        return Plain(text) if node.style is None else text

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}
_Loader.add_constructor(
    "tag:yaml.org,2002:str",
    lambda loader, node: loader.construct_scalar(node),  # type: ignore[arg-type]
)


def plain_value(text: str) -> Any:
    """Return the value of an unquoted scalar by YAML 1.2's core rules: null, truth, numbers."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            value = number(text)
        except ValueError:
            continue
        if "_" not in text and text.strip() == text and value not in (float("inf"), float("-inf")):
            return value if value == value else str(text)
    return str(text)


def _values(tree: Any) -> Any:
    """Give every unquoted scalar of a tree the type that its text has."""
    if isinstance(tree, Plain):
        return plain_value(tree)
    if isinstance(tree, Mapping):
        return {str(key): _values(value) for key, value in tree.items()}
    return [_values(value) for value in tree] if isinstance(tree, list) else tree


def _count_nodes(tree: Any) -> None:
    """Refuse what anchors make endless, or larger than any settings are.

    Raises:
        YAMLError: it is.
    """
    waiting, count = [tree], 0
    while waiting:
        node = waiting.pop()
        count += 1
        if count + len(waiting) > LARGEST_FILE:
            raise yaml.constructor.ConstructorError(
                None, None, f"more than {LARGEST_FILE} values, perhaps by an anchor inside itself"
            )
        if isinstance(node, list | dict):
            waiting += node.values() if isinstance(node, dict) else node


def read_yaml(text: str, source: str) -> Any:
    """Read YAML with its unquoted scalars as :class:`Plain` text.

    Raises:
        ConfigError: not valid YAML; ``source`` and line are named.
    """
    try:
        tree = yaml.load(text, _Loader)
        _count_nodes(tree)
        return tree
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "unreadable"
        raise ConfigError(f"{source}{where}: not valid YAML ({problem})") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        # what PyYAML leaves uncaught of odd keys, odd escapes and deep nesting
        raise ConfigError(f"{source}: not valid YAML ({type(error).__name__})") from None


def find_config(name: str) -> Path:
    """Find a settings file: a path, or the name of a bundled one such as ``small``.

    Raises:
        ConfigError: neither; the message lists the bundled names.
    """
    try:
        path = Path(expand_home(name))
        if path.is_file():
            return path
    except (OSError, ValueError):  # too long, or a NUL in it
        path = Path("config")
    names = sorted(p.stem for p in bundled("configs").glob("*.yaml"))
    if name in names:
        return bundled("configs", f"{name}.yaml")
    raise ConfigError(
        f"{name:.80}: no such settings file{suggest(name, names)} (bundled: {', '.join(names)})"
    )


def read_config(config: str | None) -> dict[str, Any]:
    """Read the tree of a YAML file or bundled name; an empty one for None.

    Raises:
        ConfigError: no such file, or no valid YAML.
    """
    if config is None:
        return {}
    path = find_config(config)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    tree = read_yaml(text, str(path))
    if tree is None or tree == "":
        return {}
    if not isinstance(tree, dict):
        kind = {"Plain": "text", "list": "a list"}.get(type(tree).__name__, type(tree).__name__)
        raise ConfigError(f"{path}: expected 'key: value' lines, got {kind}")
    return tree


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested mapping ``top`` over ``base``; None in ``top`` wins like any value."""
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


class Reader:
    """Reads the settings of one command, knowing those of all others.

    Args:
        cls: the command's settings class.
        command: its name, for messages.
        others: settings class of every command, by name: a YAML may hold their keys too.
        blocks: names of blocks in a YAML; the one that ``task`` names is laid over the rest.
    """

    def __init__(
        self,
        cls: type[CommandSettings],
        command: str = "",
        others: Mapping[str, type[CommandSettings]] | None = None,
        blocks: Sequence[str] = (),
    ):
        self.cls, self.command, self.blocks = cls, command, tuple(blocks)
        self.others = dict(others or {})
        self.mistakes: list[str] = []

    def read(
        self,
        config: str | Mapping[str, Any] | None = None,
        overrides: Sequence[str] = (),
        fixed: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return settings from a file, overrides and values that win over both, in that order.

        Args:
            config: a YAML file, a bundled name, or what :func:`read_config` read; None for the
                defaults alone.
            overrides: ``dotted.key=value`` items.
            fixed: nested values.

        Raises:
            ConfigError: every mistake of file and overrides, in one line.
        """
        self.mistakes = []
        if isinstance(config, Mapping):
            tree = dict(config)
        else:
            tree = read_config(self.cls.default_config if config is None else config)
        renames: dict[str, str] = {}
        for cls in self._classes().values():
            renames |= renames_of(cls)
        tree = _renamed(tree, renames, self.blocks)
        overrides = [_renamed_override(item, renames, self.blocks) for item in overrides]
        self._check_keys(tree)
        given: dict[str, Any] = {}
        for item in overrides:
            self._lay_override(given, item)
        task = str((fixed or {}).get("task") or given.get("task") or tree.get("task") or "")
        task = task or (self.blocks[0] if self.blocks else "")
        whole = self._lay_block(tree, given, task, fixed)
        settings = None
        try:
            settings = self.cls.model_validate(self._shape(_known_part(whole, self.cls), self.cls))
        except ValidationError as error:
            self.mistakes += [self.explain_mistake(detail) for detail in error.errors()]
        if self.mistakes or settings is None:
            source = config if isinstance(config, str) else "settings"
            count = "" if len(self.mistakes) == 1 else f"{len(self.mistakes)} mistakes: "
            raise ConfigError(f"{source}: {count}{'; '.join(self.mistakes)}")
        if self.cls.takes_blocks:
            settings._task_trees = {
                name: self._lay_block(tree, given, name, fixed) for name in self.blocks
            }
        return settings

    def _lay_block(
        self, tree: Mapping[str, Any], given: Mapping[str, Any], task: str,
        fixed: Mapping[str, Any] | None,
    ) -> dict[str, Any]:  # fmt: skip
        """Return the layers, one over the other, each with the block of a task over its own."""
        whole: dict[str, Any] = {}
        for layer in (tree, given):
            rest = {k: v for k, v in layer.items() if k not in self.blocks or not _is_tree(v)}
            block = layer.get(task, {}) if task in self.blocks else {}
            whole = merge(whole, merge(rest, block if isinstance(block, Mapping) else {}))
        return merge(whole, fixed or {})

    # -- keys

    def _classes(self) -> dict[str, type[CommandSettings]]:
        return {self.command: self.cls, **self.others}

    def _check_keys(self, tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> None:
        """Refuse keys of a YAML that no command has."""
        for key, value in tree.items():
            here = (*path, str(key))
            if len(here) == 1 and here[0] in self.blocks:
                if _is_tree(value):
                    self._check_keys(value)
                continue
            found = [_find(cls, here) for cls in self._classes().values()]
            if not any(found):
                self.mistakes.append(f"unknown key {_quoted('.'.join(here))}{self._hint(here)}")
            elif _is_tree(value) and not any(isinstance(one, str) for one in found):
                self._check_keys(value, here)

    def _hint(self, path: tuple[str, ...]) -> str:
        """Return '; did you mean …?' for a key that nobody has, or an empty string."""
        keys: dict[str, str] = {}
        for cls in reversed(self._classes().values()):
            for key, field, _ in fields_of(cls):
                keys[key] = key
                if len(path) == 1:  # perhaps a key of some section, without the section's name
                    keys.setdefault(key.rpartition(".")[2], key)
                for mark in marks_of(field):
                    if isinstance(mark, KeysFrom) and cls is self.cls:
                        keys |= {f"{key}.{name}": f"{key}.{name}" for name in mark.names()}
                        if len(path) == 1:
                            keys = {name: f"{key}.{name}" for name in mark.names()} | keys
        close = difflib.get_close_matches(".".join(path), list(keys), n=1, cutoff=0.6)
        return f"; did you mean {keys[close[0]]!r}?" if close else ""

    def _lay_override(self, given: dict[str, Any], item: str) -> None:
        key, equals, text = item.partition("=")
        path = tuple(key.split("."))
        if not equals or not all(path):
            self.mistakes.append(f"{_quoted(item)} is not of the form key=value")
            return
        inside = path[1:] if path[0] in self.blocks and self.cls.takes_blocks else path
        field = _find(self.cls, inside) if inside else None
        if field is None:
            owners = [n for n, cls in self.others.items() if cls is not self.cls
                      and _find(cls, path[1:] if path[0] in self.blocks else path)]  # fmt: skip
            if owners:
                self.mistakes.append(
                    f"{_quoted(key)} is a setting of {_listed_names(owners)}, not of "
                    f"{self.command}; leave it out"
                )
            else:
                self.mistakes.append(f"unknown key {_quoted(key)}{self._hint(path)}")
            return
        try:
            value = self._override_value(field, text)
        except ConfigError as error:
            self.mistakes.append(str(error))
            return
        node = given
        for part in path[:-1]:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                self.mistakes.append(f"{key}: {part!r} was given a value of its own before")
                return
        both = _is_tree(value) and _is_tree(node.get(path[-1]))
        node[path[-1]] = merge(node[path[-1]], value) if both else value

    def _override_value(self, field: Any, text: str) -> Any:
        """Return an override's text as the tree that a YAML would hold there."""
        wants_text = not isinstance(field, str | type) and _is_text(field.annotation)
        if wants_text or text[:1] not in ("[", "{", '"', "'"):
            return Plain(text)
        return read_yaml(text, text if len(text) < 60 else text[:57] + "…")

    # -- values

    def _shape(self, tree: Mapping[str, Any], cls: type[Section]) -> dict[str, Any]:
        """Give the scalars of a tree the forms that the fields of a class take."""
        shaped: dict[str, Any] = {}
        for key, value in tree.items():
            field = cls.model_fields[key]
            below = section_of(field.annotation)
            if below is not None and _is_tree(value):
                shaped[key] = self._shape(value, below)
            elif below is not None and isinstance(value, Plain) and plain_value(value) is None:
                shaped[key] = {}
            else:
                shaped[key] = _shape_value(value, field.annotation)
        return shaped

    def explain_mistake(self, detail: Any) -> str:
        """Return what pydantic found wrong with these settings, in words."""
        # pydantic puts the alternatives of a key that takes several types into its place
        names: list[str] = []
        cls: Any = self.cls
        for part in detail["loc"]:
            field = cls.model_fields.get(str(part)) if cls else None
            if field is None and not isinstance(part, int):
                if names and not _has_keys(self.cls, names):
                    break
                names.append(str(part))
                continue
            names.append(str(part))
            cls = section_of(field.annotation) if field else None
        key = ".".join(names)
        if detail["type"] == "extra_forbidden":
            return f"unknown key {_quoted(key)}{self._hint(tuple(names))}"
        if detail["type"] == "missing":
            return f"{key}: missing; give {key}=…"
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "value_error" and not key:
            return message
        if detail["type"] == "value_error" and message.split(":")[0] in getattr(
            cls, "model_fields", {}
        ):
            return f"{key}.{message}"
        field = _find(self.cls, names)
        if not isinstance(field, str | type | None) and any(
            isinstance(mark, Unshown) for mark in marks_of(field)
        ):
            return f"{key}: {message[0].lower()}{message[1:]} (what was given is not shown)"
        value = detail["input"]
        shown = repr(str(value) if isinstance(value, Plain) else value)
        shown = shown if len(shown) <= 80 else shown[:77] + "…"
        return f"{key}: {message[0].lower()}{message[1:]}, got {shown}"


def read_settings(
    cls: type[CommandSettings],
    config: str | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    *,
    fixed: Mapping[str, Any] | None = None,
) -> Any:
    """Read the settings of one class alone; see :class:`Reader`."""
    return Reader(cls).read(config, overrides, fixed)


def _renamed(
    tree: Mapping[str, Any], renames: Mapping[str, str], blocks: Sequence[str], prefix: str = ""
) -> dict[str, Any]:
    """Return a tree whose keys have the names of today, those inside of blocks too."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        inside = "" if not prefix and str(key) in blocks else f"{prefix}{key}."
        if _is_tree(value):
            value = _renamed(value, renames, blocks, inside)
        name = _name_of_today(f"{prefix}{key}", renames).removeprefix(prefix)
        if name in tree and name != str(key):
            raise ConfigError(f"{prefix}{key} and {prefix}{name} are the same setting; give one")
        found[name] = value
    return found


def _renamed_override(item: str, renames: Mapping[str, str], blocks: Sequence[str]) -> str:
    key, equals, text = item.partition("=")
    head, dot, rest = key.partition(".")
    block, key = (head + dot, rest) if head in blocks and dot else ("", key)
    return f"{block}{_name_of_today(key, renames)}{equals}{text}"


def _name_of_today(key: str, renames: Mapping[str, str]) -> str:
    if key not in renames:
        return key
    logger.warning("%s is called %s now; the earlier name is still read", key, renames[key])
    return renames[key]


def _is_tree(value: Any) -> bool:
    return isinstance(value, Mapping)


def _listed_names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _find(cls: type[Section], path: Sequence[str]) -> Any:
    """Return the field of a key, its section's class, ``'open'`` inside of a mapping, or None."""
    here: Any = cls
    for position, part in enumerate(path):
        field = here.model_fields.get(part)
        if field is None:
            return None
        below = section_of(field.annotation)
        if below is None:
            if position == len(path) - 1:
                return field
            return "open" if _is_mapping(field.annotation) else None
        here = below
    return here


def _has_keys(cls: type[Section], names: Sequence[str]) -> bool:
    """Whether a key names a mapping, whose own keys belong into a message."""
    field = _find(cls, names[:1]) if len(names) == 1 else _find(cls, names)
    return field == "open" or (field is not None and not isinstance(field, str | type)
                               and _is_mapping(field.annotation))  # fmt: skip


def _is_mapping(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _is_mapping(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return any(_is_mapping(part) for part in get_args(annotation))
    return annotation is dict or origin is dict or annotation is Any


def _is_text(annotation: Any) -> bool:
    """Whether a type takes text alone, or nothing: what is typed is then never read as YAML."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _is_text(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        return all(_is_text(part) for part in parts)
    if origin is Literal:
        return all(isinstance(value, str) for value in get_args(annotation))
    return annotation is str


def _parts(annotation: Any) -> list[Any]:
    """Return the alternatives of a type, without markers."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _parts(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [part for one in get_args(annotation) for part in _parts(one)]
    return [annotation]


def _shape_value(value: Any, annotation: Any) -> Any:
    """Give a value, as written, the form that a type takes; pydantic checks the rest."""
    parts = _parts(annotation)
    lists = [p for p in parts if get_origin(p) in (list, tuple)]
    maps = [p for p in parts if get_origin(p) is dict]
    if isinstance(value, Plain):
        if type(None) in parts and plain_value(value) is None:
            return None
        if Any in parts:
            return plain_value(value)
        if lists and len([p for p in parts if p is not type(None)]) == 1:
            items = [] if value == "" else [Plain(item.strip()) for item in value.split(",")]
            return _shape_value(items, lists[0])
        if len(parts) > 1 and not _is_text(annotation):
            return plain_value(value)
        return str(value)
    if isinstance(value, list):
        if Any in parts or not lists:
            return _values(value)
        inner = [arg for arg in get_args(lists[0]) if arg is not ...]
        return [
            _shape_value(item, inner[min(index, len(inner) - 1)] if inner else Any)
            for index, item in enumerate(value)
        ]
    if isinstance(value, Mapping):
        if not maps or Any in parts:
            return _values(value)
        inside = get_args(maps[0])[1]
        shaped = {}
        for key, item in value.items():
            if isinstance(item, Plain) and item == "" and ":" in str(key) and _is_text(inside):
                key, _, item = str(key).partition(":")  # {name:file}, as people write it
            section = section_of(inside)
            if section is not None and isinstance(item, Mapping):
                known = section.model_fields
                shaped[str(key)] = {
                    str(k): _shape_value(v, known[k].annotation) if k in known else _values(v)
                    for k, v in item.items()
                }
            else:
                shaped[str(key)] = _shape_value(item, inside)
        return shaped
    return value


# ----------------------------------------------------------------------------- explaining


@dataclass(frozen=True)
class Row:
    """What help says of one key."""

    key: str
    type: str
    default: str
    meaning: str
    group: str


def meanings(cls: type[Section]) -> dict[str, str]:
    """Return the meaning of every field, from the ``Attributes`` of the class and its bases."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        lines = (one.__doc__ or "").split("\n") if issubclass(one, Section) else []
        inside, name, indent = False, "", 0
        for line in lines:
            text = line.strip()
            depth = len(line) - len(line.lstrip())
            if text in ("Attributes:", "Args:"):
                inside, indent, name = True, depth, ""
            elif inside and text and depth <= indent:
                inside = False
            elif inside and text:
                head, colon, rest = text.partition(": ")
                if depth == indent + 4 and colon and head.isidentifier():
                    name = head
                    found[name] = rest
                elif name:
                    found[name] += f" {text}"
    return {name: " ".join(text.split()).replace("``", "") for name, text in found.items()}


def type_text(field: Any) -> str:
    """Return a field's type in words, bounds included."""
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


def default_text(field: Any) -> str:
    """Return a field's default as one would type it; ``required`` where there is none."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(str, value))}]"
    return "{}" if value == {} else str(value) or '""'


def explain(cls: type[CommandSettings]) -> list[Row]:
    """Return one row for every key of a command, top-level keys first.

    Raises:
        KeyError: a key that no docstring explains; a defect, which a test looks for.
    """
    rows = [
        Row(
            key=key, type=type_text(field), default=default_text(field),
            meaning=meanings(section)[key.rpartition(".")[2]], group=key.rpartition(".")[0],
        )
        for key, field, section in fields_of(cls)
    ]  # fmt: skip
    return sorted(rows, key=lambda row: row.group != "")


def flatten(values: Mapping[str, Any], cls: type[Section]) -> Iterable[tuple[str, Any, Any]]:
    """Yield (dotted key, value, field) of every value of dumped settings."""
    for name, field in cls.model_fields.items():
        below = section_of(field.annotation)
        if below is None:
            yield name, values[name], field
        else:
            for key, value, inner in flatten(values[name], below):
                yield f"{name}.{key}", value, inner
