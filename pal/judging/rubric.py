"""Rubrics: fixed files of questions to a judge, in this package or one's own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from pal.core.errors import DataError, first_line
from pal.core.files import read_text
from pal.human_eval.sheets import Question
from pal.judging.settings import rubric_path

ANSWERS = ("A", "B", "Tie")

# What is judged: a response in its context, or a whole dialogue.
Kind = Literal["response", "dialogue"]


@dataclass(frozen=True)
class Rubric:
    """Questions to a judge.

    Attributes:
        name: name of its file.
        version: version of the wording.
        source: where the questions are from.
        kind: ``pairs`` or ``ratings``.
        questions: the wording of each question, name → kind of what is judged → text.
        lowest: lowest rating.
        highest: highest rating.
        levels: what each rating means.
    """

    name: str
    version: int
    source: str
    kind: str
    questions: Mapping[str, Mapping[str, str]]
    lowest: int = 0
    highest: int = 0
    levels: Mapping[int, str] = field(default_factory=dict)

    def ask(self, kind: Kind) -> list[Question]:
        """Return the questions as they are put about responses, or about whole dialogues."""
        return [Question(name, texts[kind]) for name, texts in self.questions.items()]

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of an answer."""
        one: dict[str, Any] = {"type": "string", "enum": list(ANSWERS)}
        if self.kind == "ratings":
            one = {"type": "integer", "enum": list(range(self.lowest, self.highest + 1))}
        return {
            "type": "object",
            "properties": {name: dict(one) for name in self.questions},
            "required": list(self.questions),
            "additionalProperties": False,
        }

    def describe(self) -> dict[str, Any]:
        """Return what results say about the rubric."""
        return {"name": self.name, "version": self.version, "source": self.source}


def load_rubric(name: str, kind: str) -> Rubric:
    """Read a rubric.

    Args:
        name: a bundled one, or the path of a YAML file.
        kind: ``pairs`` or ``ratings``.

    Raises:
        DataError: it cannot be read, is of the other kind, or a part of it is missing or wrong.
    """
    path = Path(rubric_path(name))
    try:
        tree = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not valid YAML ({first_line(error)})") from None
    if not isinstance(tree, dict) or tree.get("kind") != kind:
        found = tree.get("kind") if isinstance(tree, dict) else None
        raise DataError(f"{path}: expected a rubric with kind: {kind}, got {found!r:.40}")
    questions: dict[str, Mapping[str, str]] = {}
    listed = tree.get("questions")
    for number, one in enumerate(listed if isinstance(listed, list) else []):
        keys = ("name", "response", "dialogue")
        if not isinstance(one, dict) or not all(isinstance(one.get(key), str) for key in keys):
            raise DataError(f"{path}, question {number}: expected the texts {', '.join(keys)}")
        if one["name"] in questions:
            raise DataError(f"{path}: the question {one['name']!r:.40} occurs twice")
        questions[one["name"]] = {key: one[key] for key in keys[1:]}
    if not questions:
        raise DataError(f"{path}: no questions; give a list of name, response and dialogue")
    rubric = Rubric(
        path.stem, tree.get("version", 1), str(tree.get("source", "")), kind, questions,
        tree.get("lowest", 0), tree.get("highest", 0), tree.get("levels") or {},
    )  # fmt: skip
    whole = all(type(value) is int for value in (rubric.lowest, rubric.highest))
    if kind == "ratings" and not (whole and rubric.lowest < rubric.highest):
        raise DataError(f"{path}: expected whole numbers lowest and highest, the lower first")
    return rubric
