"""Settings: where dialogues come from, and how they are read."""

from typing import Annotated, Literal

from pydantic import AfterValidator

from pal.core.errors import PalError
from pal.core.settings import Count, InputPath, Section, Source
from pal.data.strategies import canonical_strategy


class ColumnSettings(Section):
    """Columns of a table (CSV, TSV, parquet) that has one row a turn.

    Attributes:
        dialogue: the dialogue's id; null takes dialogue_id, conversation_id and their like.
        speaker: who speaks; null takes speaker or role.
        text: what is said; null takes text, utterance, content or message.
        strategy: the strategy of a supporter's turn; null takes strategy, where it is there.
        persona: what is known of the seeker then; null takes persona, where it is there.
    """

    dialogue: str | None = None
    speaker: str | None = None
    text: str | None = None
    strategy: str | None = None
    persona: str | None = None


def _canonical_labels(labels: dict[str, str | None]) -> dict[str, str | None]:
    try:
        return {
            label: None if name is None else canonical_strategy(name)
            for label, name in labels.items()
        }
    except PalError as error:
        raise ValueError(str(error)) from None


class ReadingSettings(Section):
    """How dialogues are read.

    Attributes:
        split: ``published`` takes the splits as they are; ``seeded`` joins all and splits 7:2:1 by
            dialogue with ``split_seed`` (the paper's way).
        split_seed: seed of the seeded split.
        reader: form of the files, a name in ``pal.data.corpora`` or their_package.module:Class;
            null recognises it.
        columns: names of a table's columns.
        strategy_labels: labels of another strategy set, each with one of ours, or null where none
            fits: ``{Greetings: Others}``.
    """

    split: Literal["published", "seeded"] = "published"
    split_seed: int = 13
    reader: str | None = None
    columns: ColumnSettings = ColumnSettings()
    strategy_labels: Annotated[dict[str, str | None], AfterValidator(_canonical_labels)] = {}


class SourceSettings(ReadingSettings):
    """How dialogues are read, and where their personas come from.

    Attributes:
        cards: persona cards whose description takes the place of the seeker's persona, matched by
            dialogue id. A card knows the whole dialogue, so scores with cards are not comparable.
    """

    cards: InputPath | None = None


class DataSettings(SourceSettings):
    """Corpora: files, folders, hub ids, or ``bundled:esconv`` for the sample that travels along.

    Attributes:
        train: dialogues (task response) or persona conversations (task persona_extractor).
        validation: the same, for the validation loss; null takes the published split of ``train``
            or, for a single file, cuts it off by the split below.
        max_train_samples: use the first so many training samples only.
        max_validation_samples: use the first so many validation samples only.
    """

    train: Source = "thu-coai/esconv"
    validation: Source | None = None
    max_train_samples: Count | None = None
    max_validation_samples: Count | None = None
