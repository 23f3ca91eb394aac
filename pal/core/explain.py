"""The help on settings: every key with its type, default and meaning."""

from dataclasses import dataclass
from typing import Any

from pal.core.settings import CommandSettings, Section, fields_of, type_text


@dataclass(frozen=True)
class Row:
    """The help on one key."""

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


def default_text(field: Any) -> str:
    """Return a field's default as a user would type it, or ``required`` if it has none."""
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
    """Return one row for every key of a command, top-level keys first, then section by section.

    Raises:
        KeyError: no docstring explains a key. This is a defect, which a test looks for.
    """
    rows = [
        Row(
            key=key, type=type_text(field), default=default_text(field),
            meaning=meanings(section)[key.rpartition(".")[2]], group=key.rpartition(".")[0],
        )
        for key, field, section in fields_of(cls)
    ]  # fmt: skip
    order = {group: place for place, group in enumerate(dict.fromkeys(row.group for row in rows))}
    return sorted(rows, key=lambda row: order[row.group] if row.group else -1)
