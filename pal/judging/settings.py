"""Settings of language models as judges."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from pal.core.files import kind_of
from pal.core.settings import Contents, Count, InputPath, Name, Section, Seed, Unshown, expand_home

RUBRICS = Path(__file__).parent / "rubrics"


def rubric_path(name: str) -> str:
    """Return the file of a bundled rubric; what is no bundled name is a path itself."""
    bundled = RUBRICS / f"{name}.yaml"
    return str(bundled) if kind_of(bundled) == "file" else name


# A bundled rubric, or the path of a YAML file.
RubricName = Annotated[str, AfterValidator(expand_home), Contents(find=rubric_path)]


class JudgingSettings(Section):
    """Who judges what.

    Attributes:
        systems: responses to judge, name → file; whole dialogues if ``input`` is not given.
        judges: several judges, name → settings that differ from llm, such as {model: …}; when
            empty, the model in llm is the only judge.
        items: number of samples (for each pair, where pairs are compared).
        seed: random seed for the choice of samples.
        max_tokens: maximum length of an answer, in tokens.
    """

    systems: dict[Name, InputPath] = Field(
        default_factory=dict, examples=["{pal: a.jsonl, joint: b.jsonl}"]
    )
    judges: Annotated[dict[Name, dict[str, Any]], Unshown()] = Field(default_factory=dict)
    items: int = Field(50, gt=0)
    seed: Seed = 0
    max_tokens: Count = 400


class PairJudgingSettings(JudgingSettings):
    """Comparison of two systems at a time.

    Attributes:
        rubric: the questions: ``pal_table4`` or the path of a YAML file.
        pairs: pairs of systems to compare, [a, b]; null compares the first system with each of the
            others.
    """

    rubric: RubricName = "pal_table4"
    pairs: list[tuple[str, str]] | None = Field(None, examples=["[[pal, joint]]"])


class RatingSettings(JudgingSettings):
    """Ratings of single systems.

    Attributes:
        rubric: the questions: ``esc_eval`` or the path of a YAML file.
    """

    rubric: RubricName = "esc_eval"
