"""Reading YAML for settings: scalars keep their written text until their type is known.

Numbers, truth values and null follow YAML 1.2, so that ``0042``, ``12:30``, ``yes`` and dates stay
text where text is expected. Tags and repeated keys are refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pal.core.errors import ConfigError, suggest
from pal.core.settings import bundled, expand_home

LARGEST_FILE = 100_000  # values in a settings file


class Plain(str):
    """An unquoted scalar as it was written; the setting it is given for decides its type."""

    __slots__ = ()


class _Loader(yaml.SafeLoader):
    """Reads the structure of YAML; scalars stay the text that was written."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        implicit = {"str": "scalar", "map": "mapping", "seq": "sequence"}
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if implicit.get(kind) != node.id:
            raise yaml.constructor.ConstructorError(
                None, None, f"the tag !{kind} is not supported", node.start_mark
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
                    None, None, f"the key {key.value!r} occurs twice", key.start_mark
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


def typed_values(tree: Any) -> Any:
    """Convert every unquoted scalar of a tree to the type that its text has."""
    if isinstance(tree, Plain):
        return plain_value(tree)
    if isinstance(tree, Mapping):
        return {str(key): typed_values(value) for key, value in tree.items()}
    return [typed_values(value) for value in tree] if isinstance(tree, list) else tree


def _count_nodes(tree: Any) -> None:
    """Refuse a tree that anchors make endless, or larger than any settings.

    Raises:
        YAMLError: the tree holds more than :data:`LARGEST_FILE` values.
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
    """Parse YAML, with its unquoted scalars as :class:`Plain` text.

    Raises:
        ConfigError: the text is not valid YAML; the message names ``source`` and line.
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
        # errors that PyYAML raises on odd keys, odd escapes and deep nesting
        raise ConfigError(f"{source}: not valid YAML ({type(error).__name__})") from None


def find_config(name: str) -> Path:
    """Find a settings file: a path, or the name of a bundled one such as ``small``.

    Raises:
        ConfigError: the name is neither; the message lists the bundled names.
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
    """Return the tree of a YAML file or bundled name, or an empty tree for None.

    Raises:
        ConfigError: the file is missing or is not valid YAML.
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
    """Return ``base`` overridden by the nested mapping ``top``; None in ``top`` wins as well."""
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged
