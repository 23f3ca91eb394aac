"""Settings of the data: the sources of dialogues, and how they are read."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pal.core.errors import PalError
from pal.core.settings import Count, InputPath, Section, Seed, Source
from pal.data.protocols import PROTOCOLS
from pal.data.strategies import canonical_strategy


class ColumnSettings(Section):
    """Columns of a table (CSV, TSV, parquet) with one row per turn.

    Attributes:
        dialogue: column of the dialogue's id; null finds dialogue_id, conversation_id and similar.
        speaker: column of the speaker; null finds speaker or role.
        text: column of the utterance; null finds text, utterance, content or message.
        strategy: column of a supporter turn's strategy; null finds strategy, if present.
        persona: column of the persona known at the turn; null finds persona, if present.
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
        protocol: named combination of split, samples and labels, so that scores are comparable:
            hub, all_turns, not_first, paper_712, or file for your own ids (docs/protocols.md). Null
            uses split and decoding.samples, whose defaults are those of hub.
        ids: file of dialogue ids for the protocol file: a JSON object with lists of ids under
            train, validation and test, as pal audit fix=true writes it.
        split: published uses the splits as they are; seeded joins them and splits 7:2:1 by dialogue
            with split_seed, as in the paper.
        split_seed: seed of the seeded split.
        reader: file format, a name in ``pal.data.corpora`` or their_package.module:Class; null
            recognises the format.
        columns: names of a table's columns.
        strategy_labels: mapping from the labels of another strategy set to the eight strategies, or
            to null where none fits: {Greetings: Others}.
    """

    protocol: Literal["hub", "all_turns", "not_first", "paper_712", "file"] | None = None
    ids: InputPath | None = None
    split: Literal["published", "seeded"] = "published"
    split_seed: Seed = 13
    reader: str | None = None
    columns: ColumnSettings = ColumnSettings()
    strategy_labels: Annotated[dict[str, str | None], AfterValidator(_canonical_labels)] = {}

    @model_validator(mode="after")
    def _follow_protocol(self) -> Self:
        """Set the split that the protocol has, and refuse another one beside it."""
        if self.ids is not None and self.protocol is None:
            self.protocol = "file"
        if (self.ids is not None) != (self.protocol == "file"):
            raise ValueError(
                "ids: it is the list of data.protocol=file; give both, or data.ids=… alone"
            )
        if self.protocol is None:
            return self
        seeded = PROTOCOLS[self.protocol].split == "seeded"
        split: Literal["published", "seeded"] = "seeded" if seeded else "published"
        if "split" in self.model_fields_set and self.split != split:
            raise ValueError(
                f"split: data.protocol={self.protocol} has a split of its own; leave data.split out"
            )
        self.split = split
        return self


class SourceSettings(ReadingSettings):
    """How dialogues are read, and the sources of their personas and of knowledge about them.

    Attributes:
        cards: file of persona cards whose description replaces the seeker's persona, matched by
            dialogue id. A card is based on the whole dialogue, so scores with cards are not
            comparable with scores without.
        knowledge: commonsense knowledge about turns and situations, for MISC: a file that pal
            annotate annotate.knowledge=… wrote, or the folder of MISC's released files.
    """

    cards: InputPath | None = None
    knowledge: InputPath | None = None


class DataSettings(SourceSettings):
    """Corpora: files, folders, hub ids, or ``bundled:esconv`` for the bundled sample.

    Attributes:
        train: dialogues (task response) or persona conversations (task persona_extractor).
        validation: validation dialogues or conversations. Null uses the published validation split
            of train or, for a single file, a part of it by the split settings.
        more: further dialogues to train on, all of them: your own beside a corpus, for example. The
            persona extractor learns from those with personas, as from the seeker's side of a
            conversation. Null adds none.
        leave_out_harmful: do not train on the four harmful supporter turns of ESConv (they agree
            with the wish to die, ask about means, or give a number that is out of use).
        max_train_samples: use only this many training samples, the first ones.
        max_validation_samples: use only this many validation samples, the first ones.
    """

    train: Source = "thu-coai/esconv"
    validation: Source | None = None
    more: Source | None = None
    leave_out_harmful: bool = True
    max_train_samples: Count | None = None
    max_validation_samples: Count | None = None


class AuditDataSettings(ReadingSettings):
    """The splits that are compared: files, folders, hub ids, or files of samples of other projects.

    Attributes:
        train: training dialogues; a folder or hub id includes its validation and test splits.
        validation: validation dialogues.
        test: test dialogues.
    """

    train: Source | None = None
    validation: Source | None = None
    test: Source | None = None


class AuditOptions(Section):
    """What counts as a duplicate.

    Attributes:
        min_words: turns with fewer words are ordinary phrases, which are counted separately.
        near_words: texts with fewer words are never near duplicates, since stock phrases resemble
            each other.
        near: minimum share of word pairs (runs of two words) that near duplicates have in common.
        near_dialogues: the same for whole dialogues and runs of three words.
        examples: maximum number of examples shown of each kind.
    """

    min_words: int = Field(15, ge=1, le=1000)
    near_words: int = Field(20, ge=2, le=1000)
    near: float = Field(0.6, gt=0.3, le=1)
    near_dialogues: float = Field(0.5, gt=0.3, le=1)
    examples: int = Field(5, ge=0, le=1000)
