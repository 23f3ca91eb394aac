"""Choice of the dialogues for training, validation and test."""

import logging
from functools import cached_property
from typing import Any, Literal

from pal.core.errors import ConfigError, DataError
from pal.data.esconv import load_esconv, split_dialogues
from pal.data.protocols import listed_ids
from pal.data.settings import ReadingSettings
from pal.data.sources import has_splits, split_of_name

logger = logging.getLogger(__name__)


def load_split(
    source: Any,
    split: str | None,
    *,
    how: ReadingSettings | None = None,
    mode: Literal["published", "seeded"] = "published",
    seed: int = 13,
    requests: bool = False,
    by_name: bool = False,
) -> Any:
    """Load one split of a corpus as a ``datasets.Dataset``.

    Mode ``published`` uses the splits of a folder, hub id or ``DatasetDict``. Any other source has
    no splits and is split as in mode ``seeded`` (7:2:1 by dialogue, PAL paper, section 4.3).

    Args:
        source: see :func:`pal.load_esconv`.
        split: ``train``, ``validation``, ``test``, or None for all dialogues.
        how: section of settings that gives mode and seed, and how files are read.
        mode: ``published`` or ``seeded``.
        seed: seed of the seeded split.
        requests: accept requests for the next turn, and turns without strategy.
        by_name: whether a file named after the split, such as ``train.jsonl``, is that whole
            split. Training does not use it, since it splits a validation part off the file.

    Raises:
        DataError: the source is missing, or a record cannot be used.
        ConfigError: ``how.protocol`` has published splits, and the source has none.
    """
    how = how or ReadingSettings(split=mode, split_seed=seed)
    return CorpusSplits(source, how, requests=requests, by_name=by_name).load(split)


class CorpusSplits:
    """The splits of one corpus; those that are cut from the same dialogues are read once.

    Args:
        source: see :func:`load_split`, as for the others.
        how: as there.
        requests: as there.
        by_name: as there.

    Example:
        >>> corpus = CorpusSplits("mine.jsonl", ReadingSettings(split="seeded"))
        >>> train, validation = corpus.load("train"), corpus.load("validation")
    """

    def __init__(
        self, source: Any, how: ReadingSettings, *, requests: bool = False, by_name: bool = False
    ):
        self.source, self.how, self.by_name = source, how, by_name
        self._given: dict[str, Any] = {
            "requests": requests,
            "reader": how.reader,
            "columns": how.columns.model_dump(),
            "strategy_labels": how.strategy_labels,
        }

    def load(self, split: str | None) -> Any:
        """Load one split as a ``datasets.Dataset``; see :func:`load_split`.

        Raises:
            DataError: the source is missing, or a record cannot be used.
            ConfigError: the protocol has published splits, and the source has none.
        """
        how, source = self.how, self.source
        if split is not None and how.protocol == "file" and how.ids is not None:
            return _listed(self._whole, how.ids, split, source)
        if split is None or (how.split == "published" and has_splits(source)):
            return load_esconv(source, split, **self._given)
        if self.by_name and how.split == "published" and split_of_name(source) == split:
            logger.info(
                "%s is read whole, because its name says that it is the %s split", source, split
            )
            return load_esconv(source, **self._given)
        if how.protocol is not None and how.split == "published":
            raise ConfigError(
                f"data.protocol={how.protocol} has published splits, and {source} has none; give "
                f"the folder with train, validation and test, the hub id, or a file named "
                f"{split}.jsonl"
            )
        return self._cut[split]

    @cached_property
    def _whole(self) -> Any:
        return load_esconv(self.source, **self._given)

    @cached_property
    def _cut(self) -> dict[str, Any]:
        return split_dialogues(self._whole, seed=self.how.split_seed)


def is_cut_off(
    source: Any, split: str | None, how: ReadingSettings, *, by_name: bool = False
) -> bool:
    """Return whether :func:`load_split` splits the source by ``data.split_seed``."""
    if split is None or how.protocol == "file":
        return False
    if how.split == "seeded":
        return True
    return not has_splits(source) and not (by_name and split_of_name(source) == split)


def _listed(dataset: Any, ids: str, split: str, source: Any) -> Any:
    """Return the dialogues that a list names, in the order of the source."""
    wanted = listed_ids(ids, split)
    places = {name: number for number, name in enumerate(dataset["id"])}
    missing = [name for name in wanted if name not in places]
    if missing:
        raise DataError(
            f"data.ids={ids}: {len(missing)} of the {len(wanted)} ids for {split} are not in "
            f"{source} ({missing[0]!r:.60} …; it has {next(iter(places))!r:.60} …); give the "
            "dialogues that the list was made from"
        )
    return dataset.select(sorted(places[name] for name in wanted))
