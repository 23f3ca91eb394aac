"""Inventories: statements that measure dimensions, read from YAML and checked whole.

Two are bundled, ``hexaco`` and ``csi``, with originally written items on the dimensions of those
names: 8 items a dimension, two a theme, half of them reverse-keyed; 4 of the 8, one a theme and two
reverse-keyed, are the short form. A user's file of the same schema is read the same way. Where its
licence forbids copying (``redistributable: false``), results name its items by id and hash.
"""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from pal.core.errors import DataError, first_line, in_words, suggest
from pal.core.files import fingerprint, read_text

FOLDER = Path(__file__).parent / "inventories"
SCALE = (1, 2, 3, 4, 5)

Form = Literal["full", "short"]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Dimension(_Part):
    """A dimension.

    Attributes:
        name: its full name.
        definition: one sentence for the model that writes trait sentences.
    """

    name: Text
    definition: Text


class Item(_Part):
    """A statement to agree or disagree with.

    Attributes:
        id: its name in answers.
        order: its place in the questionnaire.
        text: the statement.
        dimension: what it measures.
        facet: its theme.
        keyed: 1, or −1 where agreement means less of the dimension.
        form: said of oneself (``self``) or of another person (``observer``).
        short: part of the short form.
    """

    id: Text
    order: int
    text: Text
    dimension: Text
    facet: Text
    keyed: Literal[1, -1]
    form: Literal["self", "observer"] = "self"
    short: bool = False


class Tie(_Part):
    """What theory ties a dimension to.

    Attributes:
        inventory: the other inventory's name.
        dimension: its dimension.
        sign: of the expected correlation.
    """

    inventory: Text
    dimension: Text
    sign: Literal[1, -1]


class Inventory(_Part):
    """An inventory.

    Attributes:
        name: names it in results.
        version: of its wording; results name it.
        licence: of its items.
        redistributable: whether results may hold the items' texts.
        source: where the items come from.
        scale: labels of the answers 1 to 5, from strong disagreement to strong agreement.
        aggregation: how items make a dimension; the mean is the only way.
        dimensions: by id.
        theory: ties to another inventory's dimensions, by dimension.
        items: in the questionnaire's order.
    """

    name: Text
    version: Text
    licence: Text
    redistributable: bool
    source: Text
    scale: dict[int, Text]
    aggregation: Literal["mean"]
    dimensions: dict[str, Dimension] = Field(min_length=1)
    theory: dict[str, Tie] = Field(default_factory=dict)
    items: tuple[Item, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> "Inventory":
        found = []
        if tuple(sorted(self.scale)) != SCALE:
            found.append(f"scale: got labels for {sorted(self.scale)}; give one for each of 1 to 5")
        for what in ("id", "order"):
            counts = Counter(getattr(item, what) for item in self.items)
            twice = [value for value, count in counts.items() if count > 1]
            found += [f"items: the {what} {value!r} is used twice" for value in twice]
        for item in self.items:
            if item.dimension not in self.dimensions:
                hint = suggest(item.dimension, self.dimensions)
                allowed = ", ".join(self.dimensions)
                found.append(
                    f"item {item.id!r}: unknown dimension {item.dimension!r}{hint} "
                    f"(allowed: {allowed})"
                )
        for name in self.dimensions:
            if name not in {item.dimension for item in self.items}:
                found.append(f"dimension {name!r}: no item measures it")
        found += [
            f"theory: unknown dimension {name!r}"
            for name in self.theory
            if name not in self.dimensions
        ]
        if found:
            raise ValueError("; ".join(found))
        return self

    def items_of(self, form: Form) -> tuple[Item, ...]:
        """Return the items of a form, in the questionnaire's order.

        Raises:
            DataError: a dimension has no item in the short form.
        """
        chosen = tuple(item for item in self.items if form == "full" or item.short)
        left = set(self.dimensions) - {item.dimension for item in chosen}
        if left:
            raise DataError(
                f"inventory {self.name!r}: no short form of {', '.join(sorted(left))}; mark items "
                "with short: true, or give traits.form=full"
            )
        return chosen

    def shown_items(self) -> dict[str, str]:
        """Return each item's text for results, or its hash where the text may not be copied."""
        return {
            item.id: item.text if self.redistributable else fingerprint(item.text)
            for item in self.items
        }


def load_inventory(source: str | Path) -> Inventory:
    """Read an inventory.

    Args:
        source: the name of a bundled one (``hexaco``, ``csi``), or a YAML file.

    Raises:
        DataError: no such inventory, or mistakes in the file; the message names all of them.
    """
    path = FOLDER / f"{source}.yaml"
    if not path.exists():
        path = Path(source)
        if path.suffix not in (".yaml", ".yml"):
            names = sorted(file.stem for file in FOLDER.glob("*.yaml"))
            hint = suggest(str(source), names)
            raise DataError(
                f"no inventory {str(source)!r}{hint} (bundled: {', '.join(names)}; or give the "
                "path of a .yaml file)"
            )
    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not valid YAML ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: not an inventory; give a header and items, as the bundled ones")
    try:
        inventory = Inventory.model_validate(content)
    except ValidationError as error:
        found = "; ".join(_explain(one, content) for one in error.errors())
        raise DataError(f"{path}: {found}") from None
    ordered = tuple(sorted(inventory.items, key=lambda item: item.order))
    return inventory.model_copy(update={"items": ordered})


def _explain(error: Any, content: dict[str, Any]) -> str:
    """One mistake, with the item's id where the file gives one."""
    place = list(error["loc"])
    if len(place) > 1 and place[0] == "items" and isinstance(place[1], int):
        item = content["items"][place[1]]
        name = item.get("id", f"number {place[1] + 1}") if isinstance(item, dict) else place[1] + 1
        place[:2] = [f"item {name!r}"]
    message = in_words(error)
    got = "" if error["type"] in ("missing", "value_error") else f", got {error['input']!r:.60}"
    return f"{'.'.join(map(str, place))}: {message}{got}" if place else message
