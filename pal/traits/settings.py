"""Settings of the trait studies. A step composes the sections of the keys that it uses."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pal.core.files import kind_of
from pal.core.settings import (
    CommandSettings,
    Contents,
    Count,
    InputPath,
    Name,
    OutputPath,
    Section,
    Source,
    expand_home,
)
from pal.data.settings import ReadingSettings
from pal.llm.settings import LlmSettings
from pal.stats.settings import StatisticsSettings

Condition = Literal["none", "hexaco", "csi", "both"]

INVENTORIES = Path(__file__).parent / "inventories"


def inventory_path(name: str) -> str:
    """Return the file of a bundled inventory; what is no bundled name is a path itself."""
    bundled = INVENTORIES / f"{name}.yaml"
    return str(bundled) if kind_of(bundled) == "file" else name


# A bundled inventory, or the path of a YAML file.
InventoryName = Annotated[str, AfterValidator(expand_home), Contents(find=inventory_path)]


def _range(values: tuple[int, int]) -> tuple[int, int]:
    if not 2 <= values[0] <= values[1]:
        raise ValueError("should be two numbers from 2 on, the smaller first")
    return values


# ----------------------------------------------------------------------------- the keys of traits


class InventorySettings(Section):
    """Inventories.

    Attributes:
        inventories: inventories to fill in or read, bundled names or paths of YAML files.
    """

    inventories: list[InventoryName] = Field(["hexaco", "csi"], min_length=1)


class SentenceSettings(Section):
    """Trait sentences.

    Attributes:
        use_traits: show the model a card's trait sentences beside its description, if it has any.
    """

    use_traits: bool = True


class MeasuringSettings(InventorySettings, SentenceSettings):
    """How cards are measured.

    Attributes:
        form: full, or short for only the items marked as short.
    """

    form: Literal["full", "short"] = "full"


class LabelSettings(Section):
    """How records are labelled.

    Attributes:
        dataset: dataset label of the records; the name of the input when null.
    """

    dataset: Name | None = None


class PersonTextSettings(LabelSettings):
    """Texts about people.

    Attributes:
        text_column: column (CSV) or key (JSONL) with the text of a post; null where the input holds
            dialogues.
        prefix_turns: read only this many turns of each dialogue, the first ones, so that a card
            says no more than was known then; null reads all turns.
    """

    text_column: str | None = None
    prefix_turns: Count | None = None


class TemperatureSettings(Section):
    """Writing.

    Attributes:
        temperature: sampling temperature of descriptions and dialogues; judgements use 0.
    """

    temperature: float = Field(0.7, ge=0)


class ExpansionSettings(LabelSettings, TemperatureSettings):
    """Cards expanded from one line."""


class TalkWritingSettings(TemperatureSettings):
    """Written dialogues.

    Attributes:
        turns: (minimum, maximum) number of turns of a written dialogue, which ends with the
            supporter.
    """

    turns: Annotated[tuple[int, int], AfterValidator(_range)] = Field((6, 60), examples=["[6, 60]"])


class SynthesisSettings(TalkWritingSettings, SentenceSettings):
    """Dialogues from cards.

    Attributes:
        without_persona: write as many dialogues as there are cards, but without giving a persona.
    """

    without_persona: bool = False


class ConditionSettings(TalkWritingSettings, InventorySettings):
    """Dialogues days after others.

    Attributes:
        conditions: which traits of the seeker are given to the model.
        days: number of days between the dialogue and its continuation.
    """

    conditions: list[Condition] = Field(["none", "hexaco", "csi", "both"], min_length=1)
    days: int = Field(3, gt=0)


class ContinuationSettings(ConditionSettings, LabelSettings):
    """What is known of the seekers.

    Attributes:
        cards: cards of the dialogues to continue, matched by id.
        measurements: measurements of those cards.
    """

    cards: InputPath | None = None
    measurements: InputPath | None = None


class ComparisonSettings(InventorySettings):
    """What measurements are compared with.

    Attributes:
        before: measurements of the same cards before a dialogue was written from them.
        without: measurements of dialogues written without a persona, to compare how much seekers
            vary.
    """

    before: InputPath | None = None
    without: InputPath | None = None


class TalkFileSettings(Section):
    """Dialogues by condition.

    Attributes:
        dialogues: dialogues or predictions to read instead of ``input``, condition → file.
    """

    dialogues: dict[Name, InputPath] = Field(default_factory=dict)


class StudiedCorpus(Section):
    """One corpus of a study.

    Attributes:
        input: dialogues (file, folder, hub id, ``bundled:esconv``) or a file of posts.
        text_column: column of a post's text; null: the input holds dialogues.
    """

    input: Source
    text_column: str | None = None


class StudySettings(ConditionSettings, MeasuringSettings):
    """What a whole study reads.

    Attributes:
        corpora: name → corpus (``input``, and ``text_column`` for posts).
        personas: one-line personas, text or JSONL.
    """

    corpora: dict[Name, StudiedCorpus] = Field(default_factory=dict)
    personas: InputPath | None = None


# ----------------------------------------------------------------------------- what steps share


class StepSettings(CommandSettings):
    """A step that writes one output.

    Attributes:
        output: file that the step writes.
        overwrite: replace an existing output.
    """

    output: OutputPath | None = None
    overwrite: bool = False


class AskingSettings(StepSettings):
    """A step that asks a language model.

    Attributes:
        limit: use at most this many texts, cards or dialogues.
        dtype: number format of a local language model's weights.
    """

    limit: Count | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    llm: LlmSettings = LlmSettings()


class CardFileSettings(AskingSettings):
    """A step that asks about the cards of a file.

    Attributes:
        input: cards, as an earlier step wrote them.
    """

    input: InputPath | None = None


class CorpusStepSettings(AskingSettings):
    """A step that asks about dialogues.

    Attributes:
        input: dialogues: a file, a folder, a hub id, or ``bundled:esconv``.
        split: split to read, where input is a folder or hub id with splits.
    """

    input: Source | None = None
    split: Literal["train", "validation", "test"] | None = None
    data: ReadingSettings = ReadingSettings()


class TalkStepSettings(StepSettings):
    """A step that counts in dialogues by condition.

    Attributes:
        input: dialogues or predictions: a file, a folder, a hub id, or ``bundled:esconv``.
        split: split to read, where input is a folder or hub id with splits.
    """

    input: Source | None = None
    split: Literal["train", "validation", "test"] | None = None
    data: ReadingSettings = ReadingSettings()
    traits: TalkFileSettings = TalkFileSettings()
    statistics: StatisticsSettings = StatisticsSettings()
