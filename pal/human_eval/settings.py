"""Settings: who is compared by people."""

from pydantic import Field

from pal.core.settings import Section


class HumanEvalSettings(Section):
    """Blinded comparison of two or more systems by people.

    Attributes:
        systems: responses to compare, name → file; whole dialogues where ``input`` is not given.
        pairs: which systems meet, as ``[a, b]`` pairs; the first against each other one when None.
        items: samples a pair.
        seed: of the choice of samples, of their order and of which side a system is on; keep it
            from raters.
        answers: filled-in sheets that ``score`` reads (files or folders).
    """

    systems: dict[str, str] = Field(default_factory=dict)
    pairs: list[tuple[str, str]] | None = None
    items: int = Field(50, gt=0)
    seed: int = 0
    answers: list[str] = Field(default_factory=list)
