"""Reading settings: a YAML file and ``key=value`` overrides into the settings of one command.

It is long for its messages: a key that is unknown, renamed, another command's, or of a wrong type
is answered with what was meant.

Example:
    >>> Reader(CopySettings).read(None, ["input=0042"]).input
    '0042'
"""

import logging
import re
import shlex
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError

from pal.core.errors import ConfigError, in_words, near_names
from pal.core.settings import (
    CommandSettings,
    KeysFrom,
    Section,
    Unshown,
    fields_of,
    known_part,
    marks_of,
    quoted,
    renames_of,
    section_of,
)
from pal.core.yaml_files import Plain, merge, plain_value, read_config, read_yaml, typed_values

logger = logging.getLogger(__name__)

MANY = 4  # commands that share a key; more are counted


class Reader:
    """Reads the settings of one command, knowing those of all others.

    Args:
        cls: the command's settings class.
        command: its name, for messages.
        others: settings class of every command, by name; a YAML may hold their keys too.
        blocks: names of blocks in a YAML; the block that ``task`` names overrides the rest.
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
        """Return settings from a file, overrides and fixed values; later ones win.

        Args:
            config: a YAML file, a bundled name, or the result of :func:`read_config`; None for
                the defaults alone.
            overrides: ``dotted.key=value`` items.
            fixed: nested values that win over file and overrides.

        Raises:
            ConfigError: file or overrides hold mistakes; one line names them all.
        """
        self.mistakes = []
        if isinstance(config, Mapping):
            tree = dict(config)
        else:
            tree = read_config(self.cls.choose_config() if config is None else config)
        renames: dict[str, str] = {}
        for cls in self._classes().values():
            renames |= renames_of(cls)
        tree = _renamed(tree, renames, self.blocks)
        overrides = [_renamed_override(item, renames, self.blocks) for item in overrides]
        self._check_keys(tree)
        of_file = bool(self.mistakes)
        given: dict[str, Any] = {}
        for item in overrides:
            self._lay_override(given, item)
        task = str((fixed or {}).get("task") or given.get("task") or tree.get("task") or "")
        task = task or (self.blocks[0] if self.blocks else "")
        whole = self._lay_block(tree, given, task, fixed)
        settings = None
        try:
            settings = self.cls.model_validate(self._shape(known_part(whole, self.cls), self.cls))
        except ValidationError as error:
            details = one_a_key(error.errors())
            for detail in details:  # a check of several values has a line each
                self.mistakes += self.explain_mistake(detail).split("\n")
            of_file |= any(not _holds(given, detail["loc"]) for detail in details)
        if self.mistakes or settings is None:
            source = config if isinstance(config, str) and of_file else "settings"
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
        """Return the merged layers; in each, the block of the task overrides its other keys."""
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
                self.mistakes.append(f"unknown key {quoted('.'.join(here))}{self._hint(here)}")
            elif _is_tree(value) and not any(isinstance(one, str) for one in found):
                self._check_keys(value, here)

    def _hint(self, path: tuple[str, ...]) -> str:
        """Return '; did you mean …?' for an unknown key, or an empty string."""
        keys: dict[str, str] = {}
        for cls in reversed(self._classes().values()):
            fields = list(fields_of(cls))
            if len(path) == 1:  # perhaps a key of some section, without the section's name
                keys |= {key.rpartition(".")[2]: key for key, _, _ in reversed(fields)}
            keys |= {key: key for key, _, _ in fields}
            for key, field, _ in fields:
                keys |= _keys_of_named(key, field.annotation, path)
                for mark in marks_of(field):
                    if isinstance(mark, KeysFrom) and cls is self.cls:
                        keys |= {f"{key}.{name}": f"{key}.{name}" for name in mark.names()}
                        if len(path) == 1:
                            keys = {name: f"{key}.{name}" for name in mark.names()} | keys
        for found in (keys[one] for one in near_names(".".join(path), keys, 5)):
            # a section in common makes long keys alike
            if near_names(path[-1], [found.rpartition(".")[2]]):
                return f"; did you mean {found!r}?"
        section = ".".join(path[:-1])  # data.seed, for data.split_seed
        for key in keys.values() if section else ():
            if key.startswith(f"{section}.") and key.endswith(f"_{path[-1]}"):
                return f"; did you mean {key!r}?"
        return ""

    def _own_key(self, path: Sequence[str]) -> str:
        """Return what to do about another command's key: the command's own of that name, if any.

        A key may be named after the other's section: ``extractor`` for ``persona_extractor.model``.
        """
        section = path[0].rpartition("_")[2] if len(path) > 1 else None
        own = [key for key, _, _ in fields_of(self.cls) if key == section] or [
            key for key in keys_ending_in(self.cls, path[-1])
            if len(path) in (1, key.count(".") + 1)
        ]  # fmt: skip
        return f"did you mean {own[0]!r}?" if len(own) == 1 else "leave it out"

    def _lay_override(self, given: dict[str, Any], item: str) -> None:
        key, equals, text = item.partition("=")
        path = tuple(key.split("."))
        if not equals or not all(path):
            self.mistakes.append(f"{quoted(item)} is not of the form key=value{quote_hint(item)}")
            return
        inside = path[1:] if path[0] in self.blocks and self.cls.takes_blocks else path
        field = _find(self.cls, inside) if inside else None
        if field is None:
            owners = [n for n, cls in self.others.items() if cls is not self.cls
                      and _find(cls, path[1:] if path[0] in self.blocks else path)]  # fmt: skip
            if owners:
                head = self.command.split()[0]
                family = [name for name in owners if name.split()[0] == head][:2]  # the likeliest
                owners = [*family, *(name for name in owners if name not in family)]
                self.mistakes.append(
                    f"{quoted(key)} is a setting of {_listed_names(owners)}, not of "
                    f"{self.command}; {self._own_key(path)}"
                )
            else:
                self.mistakes.append(f"unknown key {quoted(key)}{self._hint(path)}")
            return
        try:
            value = self._override_value(field, text)
        except ConfigError as error:
            self.mistakes.append(str(error))
            return
        if isinstance(field, type) and _is_tree(value):
            self._check_inside(inside, value)
        node = given
        for part in path[:-1]:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                self.mistakes.append(f"{key}: {part!r} already has a value of its own")
                return
        both = _is_tree(value) and _is_tree(node.get(path[-1]))
        node[path[-1]] = merge(node[path[-1]], value) if both else value

    def _check_inside(self, path: Sequence[str], tree: Mapping[str, Any]) -> None:
        """Refuse keys within a value, ``data.columns={…}``, that its section does not have."""
        for key, value in tree.items():
            here = (*path, str(key))
            field = _find(self.cls, here)
            if field is None:
                self.mistakes.append(f"unknown key {quoted('.'.join(here))}{self._hint(here)}")
            elif isinstance(field, type) and _is_tree(value):
                self._check_inside(here, value)

    def _override_value(self, field: Any, text: str) -> Any:
        """Return an override's text as the tree that a YAML would hold in its place."""
        wants_text = not isinstance(field, str | type) and _is_text(field.annotation)
        if wants_text or text[:1] not in ("[", "{", '"', "'"):
            return Plain(text)
        return read_yaml(text, text if len(text) < 60 else text[:57] + "…")

    # -- values

    def _shape(self, tree: Mapping[str, Any], cls: type[Section]) -> dict[str, Any]:
        """Convert the scalars of a tree to the forms that the fields of a class accept."""
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
        """Return a mistake that pydantic found in these settings, in words."""
        # pydantic adds the alternatives of a key that accepts several types to its location
        names: list[str] = []
        listed = None  # number of names before the first item of a list
        cls: Any = self.cls
        place = detail["loc"]
        place = place[:-2] if place[-1:] == ("[key]",) else place  # a name that cannot be one
        for part in place:
            field = cls.model_fields.get(str(part)) if cls else None
            if field is None and not isinstance(part, int):
                if names and not _has_keys(self.cls, names):
                    break
                names.append(str(part))
                continue
            if listed is None and isinstance(part, int):
                listed = len(names)
            names.append(str(part))
            cls = section_of(field.annotation) if field else None
        key = ".".join(names)
        if detail["type"] == "extra_forbidden":
            return f"unknown key {quoted(key)}{self._hint(tuple(names))}"
        if detail["type"] == "missing" and listed is None:
            return f"{key}: missing; give {key}=…"
        message = in_words(detail)
        if detail["type"] == "missing" and isinstance(place[-1], int):  # of a list of fixed length
            key, message = key.rpartition(".")[0], "too few items"
        if detail["type"] == "value_error" and (not key or f"{key}." in message.split(":")[0]):
            return message
        if detail["type"] == "value_error" and message.split(":")[0] in getattr(
            cls, "model_fields", {}
        ):
            return f"{key}.{message}"
        field = _find(self.cls, names[:listed])
        if not isinstance(field, str | type | None) and any(
            isinstance(mark, Unshown) for mark in marks_of(field)
        ):
            return f"{key}: {message} (what was given is not shown)"
        value = detail["input"]
        shown = repr(str(value) if isinstance(value, Plain) else value)
        shown = shown if len(shown) <= 80 else shown[:77] + "…"
        given = [
            shlex.quote(f"{'.'.join(names[:listed])}={example}")
            for example in getattr(field, "examples", None) or ()
        ]
        hint = f"; for example {' or '.join(given)}" if given else ""
        return f"{key}: {message}, got {shown}{hint}"


# What pydantic puts into the place of a mistake for each type that a key takes.
_ALTERNATIVE = re.compile(
    r"constrained-\w+|(literal|list|dict|tuple|set)\[.*\]|int|float|str|bool|none"
)


def quote_hint(word: str) -> str:
    """Return what to say of a word that looks like a part of a value that the shell took apart."""
    if word.strip("{}[],:") == word:
        return ""
    return (
        "; a value with spaces needs quotes in the shell: 'data.columns={speaker: who, text: said}'"
    )


def one_a_key(details: Sequence[Any]) -> list[Any]:
    """Keep one mistake per key that accepts several types, where none of them fits.

    It is the most deeply nested one: a mapping with a mistake in it was meant as a mapping. Of a
    list whose items are too short, the first such item stands for all.
    """
    found: dict[tuple[Any, ...], Any] = {}
    for detail in details:
        place = detail["loc"]
        cut = next(
            (i for i, part in enumerate(place) if i and _ALTERNATIVE.fullmatch(str(part))), None
        )
        if cut is None:
            number = next((i for i, part in enumerate(place) if isinstance(part, int)), 0)
            if detail["type"] == "missing" and number:
                found.setdefault(("missing", *place[:number]), detail)
            else:
                found[(len(found), *place)] = detail
            continue
        detail = {**detail, "loc": (*place[:cut], *place[cut + 1 :])}
        kept = found.get(place[:cut])
        if kept is not None and len(kept["loc"]) == len(detail["loc"]) == cut:  # another type
            if detail["type"] != "none_required":
                first, other = (
                    one["msg"].removeprefix("Input should be ").partition(", unable to")[0]
                    for one in (kept, detail)
                )
                msg = f"Input should be {first}, or {other}"
                found[place[:cut]] = {**kept, "msg": msg}
            continue
        if kept is None or len(detail["loc"]) > len(kept["loc"]):
            found[place[:cut]] = detail
    return list(found.values())


def keys_ending_in(cls: type[CommandSettings], name: str) -> list[str]:
    """Return the dotted keys of a class whose last part is a name, those of few parts first.

    Where there is none, the one is returned that the class has for the ``input`` or ``output`` of
    most commands.

    Args:
        cls: the settings class of a command.
        name: the last part.

    Example:
        >>> from pal.commands.serve import ServeSettings
        >>> keys_ending_in(ServeSettings, "port")
        ['serve.port']
    """
    keys = [key for key, _, _ in fields_of(cls)]
    usual = {"input": "data.train", "output": "output_dir"}.get(name)
    found = [key for key in keys if key.rpartition(".")[2] == name]
    if not found and usual in keys:
        return [usual]
    if found:
        return sorted(found, key=lambda key: key.count("."))
    groups = [(key, mark) for key, field, _ in fields_of(cls) for mark in marks_of(field)]
    return [
        f"{key}.{name}"
        for key, mark in groups
        if isinstance(mark, KeysFrom) and name in mark.names()
    ]


def _renamed(
    tree: Mapping[str, Any], renames: Mapping[str, str], blocks: Sequence[str], prefix: str = ""
) -> dict[str, Any]:
    """Return a tree whose keys have their current names, also inside blocks."""
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
    logger.warning("%s is now called %s; the earlier name is still read", key, renames[key])
    return renames[key]


def _holds(tree: Any, place: Sequence[Any]) -> bool:
    """Return whether a tree holds what lies at a place, or the start of the way there."""
    for part in place:
        if not _is_tree(tree):
            return True
        if part not in tree:
            return False
        tree = tree[part]
    return True


def _is_tree(value: Any) -> bool:
    return isinstance(value, Mapping)


def _listed_names(names: Sequence[str]) -> str:
    if len(names) > MANY:
        names = [*names[:MANY], f"{len(names) - MANY} other commands"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _keys_of_named(key: str, annotation: Any, path: Sequence[str]) -> dict[str, str]:
    """Return the keys below a name, of a key whose values are sections by name."""
    parts = key.split(".")
    of = get_args(annotation) if get_origin(annotation) is dict else ()
    below = section_of(of[1]) if of else None
    if below is None or list(path[: len(parts)]) != parts or len(path) <= len(parts) + 1:
        return {}
    head = ".".join(path[: len(parts) + 1])
    return {f"{head}.{name}": f"{head}.{name}" for name, _, _ in fields_of(below)}


def _find(cls: type[Section], path: Sequence[str]) -> Any:
    """Return a key's field, its section's class, ``'open'`` inside a mapping, or None."""
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
    """Return whether a key names a mapping, whose own keys belong in a message."""
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
    """Return whether a type accepts only text or nothing, which is then never read as YAML."""
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
    """Convert a value, as written, to the form that a type accepts; pydantic checks the rest."""
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
            return typed_values(value)
        inner = [arg for arg in get_args(lists[0]) if arg is not ...]
        return [
            _shape_value(item, inner[min(index, len(inner) - 1)] if inner else Any)
            for index, item in enumerate(value)
        ]
    if isinstance(value, Mapping):
        if not maps or Any in parts:
            return typed_values(value)
        inside = get_args(maps[0])[1]
        shaped = {}
        for key, item in value.items():
            if isinstance(item, Plain) and item == "" and ":" in str(key) and _is_text(inside):
                key, _, item = str(key).partition(":")  # {name:file}, as people write it
            section = section_of(inside)
            if section is not None and isinstance(item, Mapping):
                known = section.model_fields
                shaped[str(key)] = {
                    str(k): _shape_value(v, known[k].annotation) if k in known else typed_values(v)
                    for k, v in item.items()
                }
            else:
                shaped[str(key)] = _shape_value(item, inside)
        return shaped
    return value
