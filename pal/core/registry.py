"""Registries: a table of names whose entries are imported when they are first used.

Every table that people extend (fusions, templates, backbones, metrics, corpora, systems) is one of
these. Inside the package an extension is one file and one line in its table; outside, a user's own
YAML names ``their_package.module:Class``.

Example:
    >>> FUSIONS = Registry("fusion", {"masked": "pal.modeling.fusion:CoAttentionFusion"})
    >>> FUSIONS["masked"]
    <class 'pal.modeling.fusion.CoAttentionFusion'>
"""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from pal.core.errors import ConfigError, suggest

# Names from outside the package that the user gave to this process, by settings or by a call.
_trusted: set[str] = set()


def trust(*names: str) -> None:
    """Allow checkpoints to name these classes from outside the package.

    Args:
        names: ``their_package.module:Class``.

    Example:
        >>> trust("my_lab.fusion:GatedFusion")
    """
    _trusted.update(names)


def trusted_names() -> tuple[str, ...]:
    """Return the classes that this process trusts, for another process that does its work."""
    return tuple(sorted(_trusted))


class Registry(Mapping[str, Any]):
    """A table of names and their entries, each ``module:attribute`` or the object itself.

    Args:
        kind: what an entry is, for messages: ``fusion``.
        entries: name → ``module:attribute``, or the object.
        open: whether ``their_package.module:Class`` is accepted too.
        classes: whether an outside entry must be a class, so that nothing else is ever called.
    """

    def __init__(
        self, kind: str, entries: Mapping[str, Any], *, open: bool = True, classes: bool = False
    ):
        self.kind, self.open, self.classes = kind, open, classes
        self._entries = dict(entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, name: str) -> Any:
        entry = self._entries[name]
        if isinstance(entry, str):
            entry = self._entries[name] = load_entry(self.kind, name, entry)
        return entry

    def find(self, name: str, *, trusted: bool = True) -> Any:
        """Return the entry of a name, or the object that an outside name refers to.

        Args:
            name: a key, or ``their_package.module:Class``.
            trusted: the name comes from the user's own settings. One from a checkpoint's
                configuration does not, and imports nothing from outside the package unless the user
                gave the same name to this process (:func:`trust`).

        Raises:
            ConfigError: the name is unknown, or the outside object cannot be imported or is not a
                class.
        """
        if name in self._entries:
            return self[name]
        if ":" in str(name) and self.open:
            if not (trusted or name in _trusted):
                raise ConfigError(
                    f"{self.kind} {name!r} is code from outside this package, named by a "
                    f"checkpoint; give trusted_code={name} if you trust it (in Python: "
                    f"pal.core.registry.trust({name!r}))"
                )
            trust(name)
            try:
                found = _load(name)
            except Exception as error:  # whatever a user's module raises when it is imported
                raise ConfigError(
                    f"{self.kind} {name!r} cannot be imported: {type(error).__name__}: {error}"
                ) from error
            if self.classes and not isinstance(found, type):
                raise ConfigError(
                    f"{self.kind} {name!r} is not a class but a {type(found).__name__}; give "
                    "their_package.module:Class"
                )
            return found
        more = ", or their_package.module:Class" if self.open else ""
        raise ConfigError(
            f"unknown {self.kind} {name!r}{suggest(str(name), self._entries)} "
            f"(allowed: {', '.join(self._entries)}{more})"
        )


def load_entry(kind: str, name: str, place: str) -> Any:
    """Import what a line of a table names.

    Args:
        kind: what the entry is, for messages.
        name: its name in the table.
        place: ``module:attribute``.

    Raises:
        ConfigError: there is no such module, or nothing of that name in it.
    """
    module, _, attribute = place.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # something that the module imports is missing, not the module
        raise ConfigError(
            f"{kind} {name!r}: its line in the table says {place!r}, but there is no module "
            f"{error.name}; correct the line or add the file"
        ) from error
    if not hasattr(found, attribute):
        raise ConfigError(
            f"{kind} {name!r}: its line in the table says {place!r}, but {module} has no "
            f"{attribute}; correct the line or the name in the file"
        )
    return getattr(found, attribute)


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
