"""Samples: the supporter turns of a dialogue that are targets, each with its context.

Two rules follow the authors' code: training uses every supporter turn except a dialogue's first
turn and those that are marked as left out, evaluation only those that follow a seeker turn. Other
protocols have other rules, see :mod:`pal.data.protocols`.
"""

import logging
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, overload

import numpy as np

from pal.core.errors import ConfigError, DataError
from pal.core.job import counted
from pal.data.dialogues import Dialogues
from pal.data.harm import LEFT_OUT
from pal.data.knowledge import Knowledge, KnowledgeBase, check_known, read_knowledge
from pal.data.protocols import RULES, SampleRule, evaluation_rule, stamp_of
from pal.data.records import MARK_AS_REQUEST
from pal.data.settings import SourceSettings
from pal.data.sources import has_splits
from pal.data.spilled import in_parts
from pal.data.splits import is_cut_off, load_split

logger = logging.getLogger(__name__)

BLOCK = 100  # dialogues whose samples are made at once


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn to predict; samples of a dialogue share its turn objects.

    Attributes:
        id: ``{dialogue id}/{turn}``.
        dialogue_id: id of the dialogue.
        turn: index of the target turn; the number of turns for a request.
        context: the turns before it.
        persona: persona sentences known before the target turn.
        strategy: strategy of the target; None for a request, or if it is not known.
        response: text of the target; None for a request.
        situation: what the seeker wrote before the dialogue; None if it is not known.
        knowledge: what MISC reads; None unless it was given.
    """

    id: str
    dialogue_id: str
    turn: int
    context: tuple[Mapping[str, Any], ...]
    persona: tuple[str, ...]
    strategy: str | None
    response: str | None
    situation: str | None = None
    knowledge: Knowledge | None = None


# The names of two rules in settings.
_NAMED = {"training": "not_first", "evaluation": "after_seeker"}


def build_samples(
    dialogues: Iterable[Mapping[str, Any]], rule: Literal["training", "evaluation"] | SampleRule
) -> list[Sample]:
    """Return the samples of dialogues, in order; a request gives one, the turn after its last.

    Args:
        dialogues: rows of :func:`pal.data.load_esconv`.
        rule: ``training`` or ``evaluation``, as the module describes, or a key of
            :data:`pal.data.protocols.RULES`.
    """
    rule = _NAMED.get(rule, rule)  # type: ignore[assignment]
    return [sample for dialogue in dialogues for sample in _samples_of(dialogue, rule)]


def _samples_of(dialogue: Mapping[str, Any], rule: str) -> Iterator[Sample]:
    dialog = dialogue["dialog"]
    for turn in _target_turns(dialogue, rule):
        target = {} if dialogue["request"] else dialog[turn]
        yield Sample(
            id=f"{dialogue['id']}/{turn}",
            dialogue_id=dialogue["id"],
            turn=turn,
            context=tuple(dialog[:turn]),
            persona=tuple(dialog[turn - 1]["persona"]) if turn else (),
            strategy=target.get("strategy"),
            response=target.get("text"),
            situation=dialogue.get("situation"),
        )


def _target_turns(dialogue: Mapping[str, Any], rule: str) -> list[int]:
    dialog = dialogue["dialog"]
    if dialogue["request"]:
        return [len(dialog)]
    return [
        turn
        for turn in range(rule != "all", len(dialog))
        if dialog[turn]["speaker"] == "supporter"
        and (rule != "after_seeker" or dialog[turn - 1]["speaker"] == "seeker")
        and not (rule != "after_seeker" and dialog[turn].get(LEFT_OUT))
    ]


class CorpusSamples(Sequence[Sample]):
    """The samples of a corpus that may be larger than memory, made again when they are asked for.

    It holds four bytes a dialogue, and the samples of the dialogues that were asked for last.
    Asking in order costs least.

    Args:
        dialogues: rows of :func:`pal.data.load_esconv`; they are read several times.
        rule: see :func:`build_samples`.
        limit: maximum number of samples.
        knowledge: the setting ``data.knowledge``.

    Attributes:
        unanswered: number of the dialogues read that end with the seeker and are no requests, so
            that nothing answers their last turn.

    Raises:
        DataError: the knowledge cannot be read, or is of other dialogues.

    Example:
        >>> samples = CorpusSamples(Dialogues(load_esconv("mine.jsonl")), "evaluation")
        >>> for part in samples.parts(10_000): ...
    """

    def __init__(
        self,
        dialogues: Dialogues,
        rule: Literal["training", "evaluation"] | SampleRule,
        *,
        limit: int | None = None,
        knowledge: str | None = None,
    ):
        self.dialogues, self.limit = dialogues, limit
        self.rule = _NAMED.get(rule, rule)
        ends = array("q")
        count = self.unanswered = 0
        for dialogue in dialogues:
            if limit is not None and count >= limit:
                break
            count += len(_target_turns(dialogue, self.rule))
            ends_with = dialogue["dialog"][-1]["speaker"]
            self.unanswered += ends_with == "seeker" and not dialogue["request"]
            ends.append(count if limit is None else min(count, limit))
        self._ends = np.array(ends, dtype=np.int64)
        self._held: tuple[int, list[Sample]] = (0, [])  # number of the first, and they
        self._base: KnowledgeBase | None = None
        if knowledge is not None:
            self._base = read_knowledge(knowledge)
            check_known(self, knowledge)

    @property
    def answered(self) -> Iterator[Mapping[str, Any]]:
        """The dialogues that were read for them: with a limit, only those that have a sample."""
        begin = 0
        for dialogue, end in zip(self.dialogues, self._ends, strict=False):
            if self.limit is None or end > begin:
                yield dialogue
            begin = end

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        place = index % len(self)
        first, held = self._held
        if not first <= place < first + len(held):
            dialogue = int(np.searchsorted(self._ends, place, side="right"))
            block = dialogue // BLOCK * BLOCK
            first = int(self._ends[block - 1]) if block else 0
            last = int(self._ends[min(block + BLOCK, len(self._ends)) - 1])
            held = list(islice(self._made(self.dialogues.block(block, BLOCK)), last - first))
            self._held = first, held
        return held[place - first]

    def __iter__(self) -> Iterator[Sample]:
        return islice(self._made(self.dialogues), len(self))

    def parts(self, size: int) -> Iterator[list[Sample]]:
        """Yield the samples in lists of ``size``; one list is held at a time."""
        return in_parts(self, size)

    def _made(self, dialogues: Iterable[Mapping[str, Any]]) -> Iterator[Sample]:
        made = (sample for one in dialogues for sample in _samples_of(one, self.rule))
        if self._base is None:
            return made
        base = self._base
        return (replace(sample, knowledge=base.of(sample)) for sample in made)


def load_samples(
    source: str,
    split: str | None,
    how: SourceSettings,
    *,
    rule: Literal["training", "evaluation"] = "evaluation",
    limit: int | None = None,
) -> list[Sample]:
    """Read dialogues and return their samples; see :func:`load_stamped_samples`."""
    return load_stamped_samples(source, split, how, rule=rule, limit=limit)[0]


def load_stamped_samples(
    source: str,
    split: str | None,
    how: SourceSettings,
    *,
    rule: Literal["training", "evaluation"] = "evaluation",
    limit: int | None = None,
) -> tuple[list[Sample], dict[str, Any]]:
    """Read dialogues and return their samples in memory; see :func:`open_samples`."""
    samples, stamp = open_samples(source, split, how, rule=rule, limit=limit)
    return list(samples), stamp


def open_samples(
    source: str,
    split: str | None,
    how: SourceSettings,
    *,
    rule: Literal["training", "evaluation"] = "evaluation",
    limit: int | None = None,
) -> tuple[CorpusSamples, dict[str, Any]]:
    """Read dialogues and return their samples, and what a result says of its protocol.

    Args:
        source: file, folder or hub id.
        split: split of the source; None for all dialogues.
        how: how files are read and splits made, cards in place of personas, and knowledge.
        rule: the setting ``decoding.samples``; ``evaluation`` means the rule of ``how.protocol``.
        limit: maximum number of samples.

    Returns:
        The samples, and the result of :func:`pal.data.protocols.stamp_of`.

    Raises:
        ConfigError: ``rule`` contradicts the protocol, or its list needs a split.
        DataError: the source cannot be read, or holds no turn to answer.
    """
    which = evaluation_rule(how, rule)
    if how.protocol == "file" and split is None:
        raise ConfigError("data.protocol=file: give split=… too, the part of the list that is read")
    dialogues = Dialogues(
        load_split(source, split, how=how, requests=True, by_name=True), cards=how.cards
    )
    samples = CorpusSamples(dialogues, which, limit=limit, knowledge=how.knowledge)
    if not samples:
        remedy = f"; for the next turn, give a record {MARK_AS_REQUEST}"
        raise DataError(
            f"{source}: no turn to answer; samples are {RULES[which]} (data.protocol, "
            f"decoding.samples), and it has none{remedy if samples.unanswered else ''}"
        )
    seeded = is_cut_off(source, split, how, by_name=True)
    stamp = stamp_of(
        samples.answered, how, samples=len(samples), decoding_samples=rule, seeded=seeded
    )
    return samples, stamp


def warn_of_unanswered(samples: CorpusSamples, source: str, split: str | None) -> None:
    """Warn, where a file is to be answered, of dialogues whose last turn is not.

    Many dialogues of a corpus end with the seeker. Where a split of one is answered to be compared
    with its supporters, nothing is missing, and nothing is said.

    Args:
        samples: what is answered.
        source: file, folder or hub id that they were read from.
        split: the setting; None for all dialogues.
    """
    if samples.unanswered and split is None and not has_splits(source):
        logger.warning(
            "%s: the last turn of %s is the seeker's and is not answered; to have it answered, "
            "give the record %s",
            source, counted(samples.unanswered, "dialogue"), MARK_AS_REQUEST,
        )  # fmt: skip
