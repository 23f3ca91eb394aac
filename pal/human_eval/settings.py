"""Settings: who is compared by people, and what they answered."""

from pydantic import Field

from pal.core.settings import InputPath, Section


class HumanEvalSettings(Section):
    """Blinded comparison of two or more systems by people.

    Attributes:
        systems: responses to compare, name → file; whole dialogues where ``input`` is not given.
        pairs: which systems meet, as ``[a, b]`` pairs; the first against each other one when null.
        items: samples a pair.
        seed: of the choice of samples, of their order and of which side a system is on; keep it
            from raters.
    """

    systems: dict[str, InputPath] = Field(default_factory=dict)
    pairs: list[tuple[str, str]] | None = None
    items: int = Field(50, gt=0)
    seed: int = 0


class HumanAnswerSettings(Section):
    """What raters handed in.

    Attributes:
        answers: filled-in sheets (files or folders).
    """

    answers: list[InputPath] = Field(default_factory=list)
