"""The files that a page is made of: each says what it is by its ``kind``, and is checked.

A page is never made from half a file. Numbers that a file leaves out, or gives as null, are shown
as missing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pal.core.errors import DataError, suggest
from pal.core.files import read_json

PART_FORMAT = 1  # of all kinds

Number = float | None


class PartModel(BaseModel):
    """Something inside of a part: numbers are finite or null; keys that no page shows pass."""

    model_config = ConfigDict(allow_inf_nan=False, coerce_numbers_to_str=True)


class Part(PartModel):
    """What all kinds have.

    Attributes:
        kind: which kind it is.
        title: what its section is called.
        notices: what a reader must know first.
        run: the record of the run that made it.
    """

    kind: str
    title: str | None = None
    notices: list[str] = Field(default_factory=list)
    run: dict[str, Any] = Field(default_factory=dict)


class ShownTurn(PartModel):
    """One utterance."""

    speaker: Literal["seeker", "supporter"]
    text: str
    strategy: str | None = None


def read_part(path: str | Path, kinds: Mapping[str, type[Part]]) -> Part:
    """Read one file of any of these kinds.

    Raises:
        DataError: missing, not JSON, or not what its kind should be (see :func:`check_part`).
    """
    return check_part(read_json(path), str(path), kinds)


def check_part(value: Any, where: str, kinds: Mapping[str, type[Part]]) -> Part:
    """Check one part and return it in its kind's form.

    Args:
        value: what the JSON file holds.
        where: what messages call it.
        kinds: the forms, by name.

    Raises:
        DataError: another kind or format, or a field of the wrong type; one line names the first.
    """
    kind = str(value.get("kind")) if isinstance(value, Mapping) else ""
    if not isinstance(value, Mapping) or kind not in kinds:
        got = (
            f"kind {value.get('kind')!r:.60}"
            if isinstance(value, Mapping)
            else f"a {type(value).__name__}"
        )
        raise DataError(
            f"{where}: expected an object of kind {', '.join(kinds)}, got {got}"
            f"{suggest(kind, kinds)}; give what a command of this report wrote"
        )
    if value.get("format") != PART_FORMAT:
        raise DataError(
            f"{where}: {kind} of format {value.get('format')!r:.60}, but only format {PART_FORMAT} "
            "can be read; write it again with this version"
        )
    try:
        return kinds[kind].model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or kind
        got = "" if first["type"] == "missing" else f", got {_shorten(first['input'])}"
        raise DataError(
            f"{where}: {place}: {first['msg'].removeprefix('Value error, ')}"
            f"{got if first['loc'] else ''}; write the {kind} again with this version"
        ) from None


def _shorten(value: Any) -> str:
    """Return a value for a message: one line, and no whole dialogue."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
