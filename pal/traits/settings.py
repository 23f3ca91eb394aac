"""Settings: what the trait wing asks."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pal.core.settings import Name, Section, Source


def _range(values: tuple[int, int]) -> tuple[int, int]:
    if not 2 <= values[0] <= values[1]:
        raise ValueError("should be two numbers from 2 on, the smaller first")
    return values


class CorpusSettings(Section):
    """One corpus of ``pal traits run``.

    Attributes:
        input: dialogues (file, folder, hub id, ``bundled:esconv``) or a file of posts.
        text_column: column of a post's text; None: the input holds dialogues.
    """

    input: Source
    text_column: str | None = None


class TraitsSettings(Section):
    """Personality and communication style of personas, as a language model sees them.

    Attributes:
        inventories: which to fill in, bundled names or paths of YAML files.
        form: ``full``, or ``short`` for the items marked so.
        dataset: label of the records; the name of the input when None.
        text_column: column (CSV) or key (JSONL) of a post's text; None: the input holds dialogues.
        use_traits: show ``measure`` a card's trait sentences beside its description, if it has any.
        conditions: which traits of the seeker ``continue`` tells the model.
        without_persona: ``synthesize`` as many dialogues as there are cards, but from no persona.
        days: between the dialogue and its continuation.
        turns: (fewest, most) turns of a written dialogue, which ends with the supporter.
        temperature: of written descriptions and dialogues; judgements are made at 0.
        cards: cards that go with the dialogues to continue, matched by id.
        measurements: measurements that go with them.
        before: measurements that ``compare`` sets beside those of ``input``.
        without: measurements of dialogues without persona, for ``compare``'s concentration.
        dialogues: dialogues or predictions that ``strategies`` and ``stats`` read instead of
            ``input``, condition → file.
        corpora: name → corpus of ``run``.
        personas: one-line personas of ``run``, text or JSONL.
    """

    inventories: list[str] = Field(["hexaco", "csi"], min_length=1)
    form: Literal["full", "short"] = "full"
    dataset: Name | None = None
    text_column: str | None = None
    use_traits: bool = True
    conditions: list[Literal["none", "hexaco", "csi", "both"]] = Field(
        ["none", "hexaco", "csi", "both"], min_length=1
    )
    without_persona: bool = False
    days: int = Field(3, gt=0)
    turns: Annotated[tuple[int, int], AfterValidator(_range)] = (6, 60)
    temperature: float = Field(0.7, ge=0)
    cards: str | None = None
    measurements: str | None = None
    before: str | None = None
    without: str | None = None
    dialogues: dict[Name, str] = Field(default_factory=dict)
    corpora: dict[Name, CorpusSettings] = Field(default_factory=dict)
    personas: str | None = None
