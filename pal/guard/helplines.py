"""Emergency numbers and helplines by country, from a file and as they are dialled.

A country that the file does not have gets no number at all, and never another country's.
"""

import datetime
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from pathlib import Path

from pydantic import Field, ValidationError

from pal.core.errors import ConfigError, in_words
from pal.core.settings import Section
from pal.core.yaml_files import read_yaml, typed_values

logger = logging.getLogger(__name__)

# Days after which an entry has to be checked again.
VALID_DAYS = 366


class Emergency(Section):
    """An emergency number, and where it is published."""

    number: str = Field(min_length=2)
    source: str = Field(min_length=8)
    verified_at: datetime.date | None = None


class Helpline(Section):
    """A helpline: what to call, what to text, and where it is published."""

    name: str = Field(min_length=1)
    call: str | None = None
    text: str | None = None
    source: str = Field(min_length=8)
    verified_at: datetime.date | None = None


class CountryEntry(Section):
    """Emergency number and helplines of one country."""

    emergency: Emergency
    lines: list[Helpline] = []


class Directory(Section):
    """An international directory of helplines, which is linked."""

    name: str
    url: str


class HelplineFile(Section):
    """A whole file of helplines."""

    directory: Directory
    countries: dict[str, CountryEntry]


@dataclass(frozen=True)
class Country:
    """What is shown in one country, or where the country is not known.

    Attributes:
        code: two letters, or None.
        emergency: the emergency number, or None where it is not known.
        lines: the helplines.
        directory_url: link to a directory of helplines.
        version: changes with the contents.
    """

    code: str | None
    emergency: str | None
    lines: tuple[Helpline, ...]
    directory_url: str
    version: str

    def numbers(self) -> Iterator[str]:
        """Yield the digits of every number."""
        for text in (
            self.emergency,
            *(part for line in self.lines for part in (line.call, line.text)),
        ):
            digits = "".join(letter for letter in text or "" if letter.isdigit())
            if digits:
                yield digits


class Helplines:
    """The helplines of all countries of a file."""

    def __init__(self, file: HelplineFile, name: str, version: str):
        self.file = file
        self._name = name
        self._version = version

    def country(self, code: str | None, *, tell: bool = True) -> Country:
        """Return what is shown for a country; for none, or one that is missing, no number.

        Args:
            code: two letters.
            tell: whether the log says what is missing.
        """
        level = logging.WARNING if tell else logging.DEBUG
        entry = self.file.countries.get(code or "")
        url = self.file.directory.url
        if entry is None:
            known = ", ".join(sorted(self.file.countries))
            if code is None:
                logger.log(
                    level,
                    "guard.country is not set: help shows no number, only %s; set one of %s, or "
                    "add yours to a file of your own (guard.helplines)", url, known,
                )  # fmt: skip
            else:
                hint = "; the United Kingdom is GB" if code == "UK" else ""
                logger.log(
                    level,
                    "guard.country=%s: %s has no entry for it, so help shows no number, only %s "
                    "(it has %s%s)", code, self._name, url, known, hint,
                )  # fmt: skip
            return Country(code, None, (), url, self._version)
        unchecked = [line.name for line in entry.lines if line.verified_at is None]
        if entry.emergency.verified_at is None:
            unchecked.insert(0, entry.emergency.number)
        if unchecked:
            logger.log(
                level,
                "guard: nobody has checked these entries of %s at their source yet: %s; check them "
                "before others use this", self._name, ", ".join(unchecked),
            )  # fmt: skip
        return Country(code, entry.emergency.number, tuple(entry.lines), url, self._version)

    def overdue(self, today: datetime.date) -> list[str]:
        """Return the entries that were checked more than twelve months ago."""
        return [
            f"{code}: {name}"
            for code, entry in self.file.countries.items()
            for name, day in [
                (entry.emergency.number, entry.emergency.verified_at),
                *((line.name, line.verified_at) for line in entry.lines),
            ]
            if day is not None and (today - day).days > VALID_DAYS
        ]


def load_helplines(path: str | None = None) -> Helplines:
    """Read helplines from a file, or the bundled ones.

    Raises:
        ConfigError: the file cannot be read, or an entry is malformed.
    """
    name, text = read_package_yaml("helplines.yaml", path)
    tree = typed_values(read_yaml(text, name))
    try:
        file = HelplineFile.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{name}: {first_mistake(error)}") from None
    for code, entry in file.countries.items():
        if not (len(code) == 2 and code.isalpha() and code.isupper()):
            raise ConfigError(
                f"{name}: countries.{code:.20}: expected two capital letters such as GB"
            )
        for line in entry.lines:
            if not (line.call or line.text):
                raise ConfigError(f"{name}: countries.{code}: {line.name}: give call or text")
    return Helplines(file, name, sha256(text.encode()).hexdigest()[:8])


def read_package_yaml(bundled: str, path: str | None) -> tuple[str, str]:
    """Return the name and the text of a user's file, or of the package's own.

    Raises:
        ConfigError: the file cannot be read.
    """
    if path is None:
        return bundled, resources.files("pal.guard").joinpath(bundled).read_text(encoding="utf-8")
    try:
        return path, Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None


def first_mistake(error: ValidationError) -> str:
    """Return the first mistake that a check found, with its key."""
    detail = error.errors()[0]
    place = ".".join(map(str, detail["loc"]))
    return f"{place or 'the file'}: {in_words(detail):.150}"
