"""The fixed texts that are shown in place of generated ones, and the lines of help."""

from collections.abc import Collection
from hashlib import sha256
from typing import Annotated

from pydantic import Field, PrivateAttr, ValidationError

from pal.core.errors import ConfigError
from pal.core.settings import Section
from pal.core.yaml_files import read_yaml, typed_values
from pal.guard.helplines import Country, first_mistake, read_package_yaml
from pal.guard.levels import EMERGENCY

Text = Annotated[str, Field(min_length=1)]
Variants = Annotated[list[Text], Field(min_length=1)]


class GuardTexts(Section):
    """All fixed texts of one language; ``texts.yaml`` says what each is for."""

    language: Text
    crisis: Variants
    emergency: Variants
    helpers: Variants
    helpers_emergency: Variants
    unavailable: Text
    replaced: Text
    replaced_with_help: Text
    help: Text
    help_standing: Text
    help_helpers: Text
    help_other_language: Text
    in_danger: Text
    local_emergency: Text
    call: Text
    text: Text
    call_or_text: Text
    directory: Text
    _version: str = PrivateAttr("")

    @property
    def version(self) -> str:
        """A short text that changes with the texts."""
        return self._version

    def fixed(self, level: int, *, helpers: bool, nth: int, country: Country) -> str:
        """Return the fixed reply of a level.

        Args:
            level: 1 to 3.
            helpers: whether somebody else is at risk.
            nth: number of fixed replies just before this one, which says which variant.
            country: whose emergency number is named.
        """
        if helpers:
            variants = self.helpers_emergency if level >= EMERGENCY else self.helpers
        else:
            variants = self.emergency if level >= EMERGENCY else self.crisis
        return self._filled(variants[nth % len(variants)], country)

    def help_lines(
        self, country: Country, kinds: Collection[str], *, helpers: bool, asked: bool
    ) -> str:
        """Return the lines of help of a country, one below the other.

        Args:
            country: whose numbers.
            kinds: what was found in the last turns.
            helpers: whether somebody else is at risk.
            asked: whether a fixed text stands above, which asks: nobody is asked twice.
        """
        lines = [self._filled(self.in_danger, country)]
        if "other_language" in kinds:
            lines.insert(0, self.help_other_language)
        elif helpers:
            lines.insert(0, self.help_helpers)
        elif not asked:
            lines.insert(0, self.help)
        return "\n".join([*lines, *self._numbers(country)])

    def standing_lines(self, country: Country) -> str:
        """Return the lines of help that are shown whatever is said, one below the other.

        Args:
            country: whose numbers.
        """
        first = [self.help_standing, self._filled(self.in_danger, country)]
        return "\n".join([*first, *self._numbers(country)])

    def first_lines(self, country: Country) -> tuple[str, str]:
        """Return the lines of help that stay on view where there is room for two alone.

        They are the emergency number, and the first helpline or, without one, the directory.

        Args:
            country: whose numbers.
        """
        return self._filled(self.in_danger, country), self._numbers(country)[0]

    def _numbers(self, country: Country) -> list[str]:
        lines = []
        for line in country.lines:
            if line.call and line.call == line.text:
                lines.append(_put(self.call_or_text, name=line.name, number=line.call))
                continue
            if line.call:
                lines.append(_put(self.call, name=line.name, number=line.call))
            if line.text:
                lines.append(_put(self.text, name=line.name, number=line.text))
        return [*lines, _put(self.directory, url=country.directory_url)]

    def _filled(self, text: str, country: Country) -> str:
        return _put(text, emergency=country.emergency or self.local_emergency)


def load_texts(path: str | None = None) -> GuardTexts:
    """Read the texts from a file, or the bundled English ones.

    Raises:
        ConfigError: the file cannot be read, or a text is missing.
    """
    name, text = read_package_yaml("texts.yaml", path)
    try:
        texts = GuardTexts.model_validate(typed_values(read_yaml(text, name)))
    except ValidationError as error:
        raise ConfigError(f"{name}: {first_mistake(error)}") from None
    texts._version = sha256(text.encode()).hexdigest()[:8]
    return texts


def _put(text: str, **values: str) -> str:
    """Return a text with its placeholders filled; braces of any other kind stay."""
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text
