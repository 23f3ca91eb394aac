"""The names that the trait report gives to inventories, dimensions and conditions."""

from collections.abc import Mapping
from functools import cache

from pal.core.errors import DataError
from pal.report.words import WORDS
from pal.traits.inventories import load_inventory

INVENTORIES = {
    "hexaco": "HEXACO Personality Inventory",
    "csi": "Communication Styles Inventory (CSI)",
}
SHORT = {"hexaco": "HEXACO", "csi": "CSI"}
CONDITIONS = {
    "none": "without traits",
    "hexaco": "HEXACO traits",
    "csi": "CSI traits",
    "both": "HEXACO and CSI traits",
    "persona": WORDS["with_persona"],
    "without_persona": WORDS["without_persona"],
    "with": "with traits",
    "without": "without traits",
}
BASELINES = ("none", "without_persona", "without")  # conditions that others are compared with


def inventory_name(key: str) -> str:
    """Return the full name of an inventory; one's own is called by its own name."""
    return INVENTORIES.get(key, key)


def short_name(key: str) -> str:
    """Return an inventory's name where there is little room."""
    return SHORT.get(key, key)


def condition_name(key: str) -> str:
    """Return what a condition is called.

    Example:
        >>> condition_name("none")
        'without traits'
    """
    return CONDITIONS.get(key, key.replace("_", " "))


def dimension_name(inventory: str, key: str, known: Mapping[str, str] | None = None) -> str:
    """Return the name of a dimension, as people write it.

    Args:
        inventory: name of its inventory.
        key: its code, such as ``X``.
        known: names by code, where a document holds them; those of a bundled inventory otherwise.

    Example:
        >>> dimension_name("hexaco", "H")
        'Honesty-Humility'
    """
    return spoken((known or _bundled(inventory)).get(key, key), inventory)


def spoken(name: str, inventory: str) -> str:
    """Return a dimension's name without underscores and without its inventory's mark.

    Example:
        >>> spoken("emotionality_csi", "csi")
        'Emotionality'
    """
    if name == "honesty_humility":
        return "Honesty-Humility"
    words = name.removesuffix(f"_{inventory}").replace("_", " ")
    return words[:1].upper() + words[1:]


@cache
def _bundled(inventory: str) -> Mapping[str, str]:
    if inventory not in INVENTORIES:
        return {}
    try:
        return {key: one.name for key, one in load_inventory(inventory).dimensions.items()}
    except DataError:
        return {}
