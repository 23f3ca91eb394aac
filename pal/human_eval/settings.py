"""Settings of the human evaluation."""

from pydantic import Field

from pal.core.settings import InputPath, Section, Seed


class HumanEvalSettings(Section):
    """Blinded comparison of two or more systems by people.

    Attributes:
        systems: responses to compare, name → file; whole dialogues if ``input`` is not given.
        pairs: pairs of systems to compare, [a, b]; null compares the first system with each of the
            others.
        items: number of samples per pair.
        seed: random seed for the choice and order of samples and for the sides of the systems; keep
            it secret from raters.
    """

    systems: dict[str, InputPath] = Field(
        default_factory=dict, examples=["{pal: a.jsonl, joint: b.jsonl}"]
    )
    pairs: list[tuple[str, str]] | None = Field(None, examples=["[[pal, joint]]"])
    items: int = Field(50, gt=0)
    seed: Seed = 0


class HumanAnswerSettings(Section):
    """Answers of the raters.

    Attributes:
        answers: filled-in sheets (files or folders).
    """

    answers: list[InputPath] = Field(default_factory=list)


class PersonaSheetSettings(Section):
    """Judgement of inferred personas by people.

    Attributes:
        items: number of samples, from as many different dialogues as possible.
        seed: random seed for the choice and order of samples; keep it secret from raters.
    """

    items: int = Field(100, gt=0)
    seed: Seed = 0
