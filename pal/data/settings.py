"""Settings: where dialogues come from."""

from typing import Literal

from pal.core.settings import Count, InputPath, Section, Source


class SourceSettings(Section):
    """How dialogues are read.

    Attributes:
        split: ``published`` takes the splits as they are; ``seeded`` joins all and splits 7:2:1 by
            dialogue with ``split_seed`` (the paper's way).
        split_seed: seed of the seeded split.
        cards: persona cards whose description takes the place of the seeker's persona, matched by
            dialogue id.
    """

    split: Literal["published", "seeded"] = "published"
    split_seed: int = 13
    cards: InputPath | None = None


class DataSettings(SourceSettings):
    """Corpora: files, folders, hub ids, or ``bundled:esconv`` for the sample that travels along.

    Attributes:
        train: dialogues (task response) or persona conversations (task persona_extractor).
        validation: the same, for the validation loss; null takes the published split of ``train``
            or, for a single file, cuts it off by the split below.
        max_train_samples: use the first so many training samples only.
        max_validation_samples: likewise.
    """

    train: Source = "thu-coai/esconv"
    validation: Source | None = None
    max_train_samples: Count | None = None
    max_validation_samples: Count | None = None
