"""Prompts: versioned YAML files with a ``system`` and a ``user`` template, filled strictly.

Texts of users are data: a template hands them to the filter ``data``, which puts them between tags
and takes those tags out of the text, so that it cannot pose as instructions that follow it.
"""

import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined, Template


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        name: the file's stem.
        version: raised with every change of the wording; it is part of records.
        source: the figure it follows.
        system: template of the system message, the same for all requests.
        user: template of the user message, what requests share first.
    """

    name: str
    version: int
    source: str
    system: str
    user: str

    def fill(self, **values: Any) -> tuple[tuple[str, str], ...]:
        """Return the (role, text) pairs; a value that the template names must be given."""
        system, user = (_template(t).render(**values).strip() for t in (self.system, self.user))
        return (("system", sys.intern(system)), ("user", user))  # many requests share the first


@cache
def load_prompt(folder: Path, name: str) -> Prompt:
    """Load ``name.yaml`` of a folder of prompts that travels with the package."""
    tree = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    return Prompt(name=name, **tree)


@cache
def _template(text: str) -> Template:
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["data"] = _as_data
    return environment.from_string(text)


def _as_data(text: str, tag: str) -> str:
    """Put a text between tags; the same tags within it lose their brackets."""
    inner = re.sub(rf"<(\s*/?\s*{tag}\s*)>", r"(\1)", str(text), flags=re.IGNORECASE)
    return f"<{tag}>\n{inner.strip()}\n</{tag}>"
