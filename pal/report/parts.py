"""The files that a page shows: each names its ``kind`` and is validated.

A page is never made from an incomplete file. Numbers that are absent or null in a file are shown as
missing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pal.core.errors import DataError, in_words, suggest
from pal.core.files import read_json

PART_FORMAT = 1  # format version of all kinds

Number = float | None


class PartModel(BaseModel):
    """A value inside a part: numbers are finite or null; unknown keys are accepted."""

    model_config = ConfigDict(allow_inf_nan=False, coerce_numbers_to_str=True)


class Part(PartModel):
    """Base class of all kinds.

    Attributes:
        kind: name of the kind.
        title: heading of its section.
        notices: warnings for the reader.
        protocol: what was measured on: dialogues, samples and labels; None where nothing says it.
        run: record of the run that made the file.
    """

    kind: str
    title: str | None = None
    notices: list[str] = Field(default_factory=list)
    protocol: dict[str, Any] | None = None
    run: dict[str, Any] = Field(default_factory=dict)


class ShownTurn(PartModel):
    """One utterance."""

    speaker: Literal["seeker", "supporter"]
    text: str
    strategy: str | None = None


def read_part(path: str | Path, kinds: Mapping[str, type[Part]]) -> Part:
    """Read one file of any of these kinds.

    Raises:
        DataError: the file is missing, not JSON, or not valid for its kind (see
            :func:`check_part`).
    """
    return check_part(read_json(path), str(path), kinds)


def check_part(value: Any, where: str, kinds: Mapping[str, type[Part]]) -> Part:
    """Validate one part and return it as an object of its kind.

    Args:
        value: contents of the JSON file.
        where: name of the file in messages.
        kinds: classes of the kinds, by name.

    Raises:
        DataError: the kind or format is unknown, or a field has the wrong type; the message names
            the first.
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
            f"{where}: {place}: {in_words(first)}"
            f"{got if first['loc'] else ''}; write the {kind} again with this version"
        ) from None


def _shorten(value: Any) -> str:
    """Return a value shortened to one line for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
