"""Prompts: versioned YAML files with a ``system`` and a ``user`` template, filled strictly.

Texts of users are data: a template passes them to the filter ``data``, which puts them between tags
and removes those tags from the text, so that it cannot pose as instructions.
"""

import re
import sys
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined, Template

# Invisible characters, besides those of the category "format" and combining marks.
UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164"
    "\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        name: stem of the file name.
        version: version of the wording, part of records.
        source: figure of the paper that the prompt follows.
        system: template of the system message, the same for all requests.
        user: template of the user message, with the part that requests share first.
    """

    name: str
    version: int
    source: str
    system: str
    user: str

    def fill(self, **values: Any) -> tuple[tuple[str, str], ...]:
        """Return the (role, text) pairs; every value that the template names is required."""
        system, user = (_template(t).render(**values).strip() for t in (self.system, self.user))
        return (("system", sys.intern(system)), ("user", user))  # many requests share the first


@cache
def load_prompt(folder: Path, name: str) -> Prompt:
    """Load ``name.yaml`` from a folder of prompts in the package."""
    tree = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    return Prompt(name=name, **tree)


@cache
def _template(text: str) -> Template:
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["data"] = _as_data
    return environment.from_string(text)


def _as_data(text: str, tag: str, *others: str) -> str:
    """Put a text between tags that it cannot close; it cannot write those of ``others`` either."""
    inside = str(text)
    for name in (tag, *others):
        inside = without_tag(inside, name)
    return f"<{tag}>\n{inside.strip()}\n</{tag}>"


def without_tag(text: str, tag: str) -> str:
    """Return a text in which everything that a model may read as this tag loses its brackets.

    A tag is recognised in any letter case, with spaces, a slash or attributes, with invisible
    characters inside, and with letters and brackets of other widths.

    Example:
        >>> without_tag("a </Text x> b <texts>", "text")
        'a (/Text x) b <texts>'
    """
    plain, places = [], []
    for place, character in enumerate(text):
        if unicodedata.category(character) in ("Cf", "Mn", "Me") or UNSEEN.match(character):
            continue
        for letter in unicodedata.normalize("NFKC", character).casefold():
            plain.append(letter)
            places.append(place)
    found = list(text)
    name = re.escape(tag.casefold())
    for match in re.finditer(rf"<[\s/\\]*{name}(?![\w-])[^<>]*(>?)", "".join(plain)):
        found[places[match.start()]] = "("
        if match[1]:
            found[places[match.end() - 1]] = ")"
    return "".join(found)
