"""Samples: the supporter turns of a dialogue that are targets, each with its context.

Two rules follow the authors' code: training uses every supporter turn except a dialogue's first
turn and those that are marked as left out, evaluation only those that follow a seeker turn. Other
protocols have other rules, see :mod:`pal.data.protocols`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pal.core.errors import ConfigError, DataError
from pal.data.cards import give_cards
from pal.data.harm import LEFT_OUT
from pal.data.knowledge import Knowledge, give_knowledge
from pal.data.protocols import RULES, SampleRule, evaluation_rule, stamp_of
from pal.data.settings import SourceSettings
from pal.data.splits import is_cut_off, load_split


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
    samples = []
    for dialogue in dialogues:
        dialog = dialogue["dialog"]
        if dialogue["request"]:
            turns = [len(dialog)]
        else:
            turns = [
                turn
                for turn in range(rule != "all", len(dialog))
                if dialog[turn]["speaker"] == "supporter"
                and (rule != "after_seeker" or dialog[turn - 1]["speaker"] == "seeker")
                and not (rule != "after_seeker" and dialog[turn].get(LEFT_OUT))
            ]
        for turn in turns:
            target = {} if dialogue["request"] else dialog[turn]
            samples.append(
                Sample(
                    id=f"{dialogue['id']}/{turn}",
                    dialogue_id=dialogue["id"],
                    turn=turn,
                    context=tuple(dialog[:turn]),
                    persona=tuple(dialog[turn - 1]["persona"]) if turn else (),
                    strategy=target.get("strategy"),
                    response=target.get("text"),
                    situation=dialogue.get("situation"),
                )
            )
    return samples


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
    dialogues = list(load_split(source, split, how=how, requests=True, by_name=True))
    samples = build_samples(give_cards(dialogues, how.cards), which)[:limit]
    samples = give_knowledge(samples, how.knowledge)
    if not samples:
        raise DataError(
            f"{source}: no turn to answer; samples are {RULES[which]} (data.protocol, "
            "decoding.samples), and it has none"
        )
    if limit is not None:
        answered = {sample.dialogue_id for sample in samples}
        dialogues = [dialogue for dialogue in dialogues if dialogue["id"] in answered]
    seeded = is_cut_off(source, split, how, by_name=True)
    stamp = stamp_of(dialogues, how, samples=len(samples), decoding_samples=rule, seeded=seeded)
    return samples, stamp
