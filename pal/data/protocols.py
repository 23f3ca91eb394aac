"""Protocols: a name each for the dialogues, the split, the samples and the labels of a measurement.

Scores on ESConv compare only where all four agree. Work on it uses several splits and several rules
for which supporter turns are samples, and rarely says which; ``docs/protocols.md`` lists them.
``data.protocol=NAME`` fixes all four, and results carry the name together with what was in fact
read: how many dialogues and samples, and a hash of the dialogues.

A dialogue's identity is a hash of who says what. It is the same in the release's file, on the hub
and in a file with personas, whatever ids these give to the dialogues.

It is long because the registry, what results say of it, and when results may stand side by side are
one promise.
"""

import functools
import hashlib
import json
import logging
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pal.core.errors import ConfigError, DataError
from pal.core.files import read_json
from pal.core.job import counted, record_beside
from pal.core.settings import bundled

if TYPE_CHECKING:
    from pal.data.settings import ReadingSettings

logger = logging.getLogger(__name__)

# Which supporter turns are samples, in words.
RULES = {
    "after_seeker": "supporter turns that follow a seeker turn",
    "not_first": "every supporter turn but a dialogue's first turn",
    "all": "every supporter turn",
}
SampleRule = Literal["after_seeker", "not_first", "all"]

ESCONV_LABELS = "ESConv's eight strategies"
MAPPED_LABELS = "labels of another set, mapped by data.strategy_labels"


@dataclass(frozen=True)
class SplitFacts:
    """What a split of a protocol holds, counted on the published corpus.

    Attributes:
        dialogues: number of dialogues.
        samples: number of samples.
        hash: :func:`hash_dialogues` of its dialogues.
    """

    dialogues: int
    samples: int
    hash: str


@dataclass(frozen=True)
class Protocol:
    """One protocol.

    Attributes:
        name: its name in ``data.protocol``.
        split: ``published``, ``seeded`` or ``file``.
        training: which supporter turns are training samples, a key of ``RULES``.
        evaluation: the same for validation and test.
        source: where it comes from.
        used_by: published work that uses it, as far as it could be checked.
        facts: what its splits hold; empty where the user's own list decides.
        labels: the label set.
    """

    name: str
    split: Literal["published", "seeded", "file"]
    training: SampleRule
    evaluation: SampleRule
    source: str
    used_by: str
    facts: Mapping[str, SplitFacts] = field(default_factory=dict)
    labels: str = ESCONV_LABELS


_HUB = {
    "train": (910, "9e60b4e3aef9ccc7"),
    "validation": (195, "ffefa5e26500338a"),
    "test": (195, "68b3071f1db5b59b"),
}
_SEEDED = {
    "train": (910, "48e62cb76978f2bb"),
    "validation": (260, "78138a1c3af5ebd2"),
    "test": (130, "069268de24177be0"),
}


def _facts(
    parts: Mapping[str, tuple[int, str]], train: int, validation: int, test: int
) -> dict[str, SplitFacts]:
    samples = {"train": train, "validation": validation, "test": test}
    return {name: SplitFacts(size, samples[name], key) for name, (size, key) in parts.items()}


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="hub",
            split="published",
            training="not_first",
            evaluation="after_seeker",
            source="thu-coai/esconv on the Hugging Face hub; sample rules of the code of PAL",
            used_by="this project's default",
            facts=_facts(_HUB, 12271, 2156, 2295),
        ),
        Protocol(
            name="all_turns",
            split="published",
            training="all",
            evaluation="all",
            source="thu-coai/esconv on the hub; every supporter turn of it",
            used_by="EmoDynamiX-v2 (12,759, 2,722 and 2,895 rows)",
            facts=_facts(_HUB, 12759, 2722, 2895),
        ),
        Protocol(
            name="not_first",
            split="published",
            training="not_first",
            evaluation="not_first",
            source="thu-coai/esconv on the hub; all supporter turns with a context",
            used_by="no work whose files could be checked; papers that give 2,801 test samples",
            facts=_facts(_HUB, 12271, 2621, 2801),
        ),
        Protocol(
            name="paper_712",
            split="seeded",
            training="not_first",
            evaluation="after_seeker",
            source="PAL (Cheng et al. 2023), section 4.3: 7:2:1. The paper gives no seed and no "
            "list, so data.split_seed=13 is a choice of this project",
            used_by="PAL gives the proportions; its own dialogues are unknown",
            facts=_facts(_SEEDED, 12349, 2977, 1436),
        ),
        Protocol(
            name="file",
            split="file",
            training="not_first",
            evaluation="after_seeker",
            source="the user's own list of dialogue ids, data.ids",
            used_by="pal audit fix=true writes such lists",
        ),
    )
}


# ----------------------------------------------------------------------------- identity


def dialogue_key(dialogue: Mapping[str, Any]) -> str:
    """Return the identity of a dialogue: 16 hex digits of a hash of who says what.

    Args:
        dialogue: a row of :func:`pal.data.load_esconv`.

    Example:
        >>> dialogue_key({"dialog": [{"speaker": "seeker", "text": "Hi"}]})
        'ea5c3452a5b9d12d'
    """
    turns = [[turn["speaker"], turn["text"]] for turn in dialogue["dialog"]]
    return _short_hash(json.dumps(turns, ensure_ascii=False, separators=(",", ":")))


def hash_dialogues(dialogues: Iterable[Mapping[str, Any]]) -> str:
    """Return a hash of a set of dialogues, whatever their order, ids and personas."""
    return _hash_keys(_keys_of(dialogues))


def _keys_of(dialogues: Iterable[Mapping[str, Any]]) -> "array[int]":
    """Return the keys of dialogues as numbers, eight bytes each."""
    return array("Q", (int(dialogue_key(dialogue), 16) for dialogue in dialogues))


def _hash_keys(keys: "array[int]") -> str:
    digest = hashlib.sha256()
    for number, key in enumerate(np.sort(np.frombuffer(keys, dtype=np.uint64))):
        digest.update(b"%s%016x" % (b"\n" if number else b"", key))
    return digest.hexdigest()[:16]


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


# ----------------------------------------------------------------------------- from settings


def evaluation_rule(how: "ReadingSettings", samples: str = "evaluation") -> SampleRule:
    """Return which supporter turns are answered, from ``data.protocol`` and ``decoding.samples``.

    Args:
        how: how dialogues are read.
        samples: the setting ``decoding.samples``.

    Raises:
        ConfigError: the two settings contradict each other.
    """
    if how.protocol is None:
        return "not_first" if samples == "training" else "after_seeker"
    rule = PROTOCOLS[how.protocol].evaluation
    if samples == "training" and rule != "not_first":
        raise ConfigError(
            f"decoding.samples=training answers {RULES['not_first']}, and data.protocol="
            f"{how.protocol} {RULES[rule]}; leave out decoding.samples, or give "
            "data.protocol=not_first"
        )
    return rule


def training_rule(how: "ReadingSettings") -> SampleRule:
    """Return which supporter turns are training samples."""
    return "not_first" if how.protocol is None else PROTOCOLS[how.protocol].training


def read_id_list(path: str) -> dict[str, list[str]]:
    """Return the dialogue ids of every split in the list of protocol ``file``.

    Args:
        path: a JSON object with a list of ids for each of ``train``, ``validation`` and ``test``;
            other keys are remarks.

    Raises:
        DataError: the file cannot be read or is no such list.
    """
    found = read_json(path)
    lists = {} if not isinstance(found, Mapping) else {k: found[k] for k in _HUB if k in found}
    for split, ids in lists.items():
        if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
            raise DataError(f'{path}: {split!r} must be a list of ids, such as ["train-00000"]')
        twice = next((one for number, one in enumerate(ids) if one in ids[:number]), None) if (
            len(set(ids)) < len(ids)
        ) else None  # fmt: skip
        if twice is not None:
            raise DataError(f"{path}: {split!r} holds the id {twice!r:.80} twice; delete one")
    if not lists:
        raise DataError(
            f'{path}: expected an object such as {{"train": [ids], "test": [ids]}}; `pal audit '
            "fix=true` writes one"
        )
    return lists


def listed_ids(path: str, split: str) -> list[str]:
    """Return the ids of one split of a list; see :func:`read_id_list`.

    Raises:
        DataError: the list has no such split.
    """
    lists = read_id_list(path)
    if not lists.get(split):
        raise DataError(
            f"data.ids={path}: no ids for {split}; it has {', '.join(lists)}; add them, or give "
            "another split"
        )
    return lists[split]


# ----------------------------------------------------------------------------- in results


def stamp_of(
    dialogues: Iterable[Mapping[str, Any]],
    how: "ReadingSettings",
    *,
    samples: int,
    decoding_samples: str = "evaluation",
    seeded: bool = False,
) -> dict[str, Any]:
    """Return what a result says of its protocol.

    Args:
        dialogues: the dialogues that were answered.
        how: how they were read.
        samples: number of samples that were answered.
        decoding_samples: the setting ``decoding.samples``.
        seeded: whether a split was cut off the source by ``data.split_seed``.

    Returns:
        ``name`` (None where no protocol has this split with this rule), ``rule``, ``labels``,
        ``dialogues``, ``samples``, ``hash``, ``split``: the split of the protocol with just
        these dialogues, or None for other dialogues than the protocol's; and ``bundled``: whether
        all of them are of the bundled sample, under whatever name they were given.
    """
    keys = _keys_of(dialogues)
    rule = evaluation_rule(how, decoding_samples)
    name: str | None = how.protocol
    if name is None:
        cut = "seeded" if seeded else "published"
        named = [p.name for p in PROTOCOLS.values() if (p.split, p.evaluation) == (cut, rule)]
        name = named[0] if named else None
    found = _hash_keys(keys)
    facts = PROTOCOLS[name].facts if name else {}
    split = next((part for part, known in facts.items() if known.hash == found), None)
    if how.protocol is not None and facts and split is None:
        logger.warning(
            "data.protocol=%s: these %d dialogues are not a split of that protocol, so the scores "
            "are not comparable with others of that name", how.protocol, len(keys),
        )  # fmt: skip
    return {
        "name": name,
        "rule": rule,
        "labels": MAPPED_LABELS if how.strategy_labels else ESCONV_LABELS,
        "dialogues": len(keys),
        "samples": samples,
        "hash": found,
        "split": split,
        "bundled": bool(keys) and _bundled_keys().issuperset(keys),
    }


@functools.cache
def _bundled_keys() -> frozenset[int]:
    """Return the identities of the bundled dialogues."""
    from pal.data.esconv import load_esconv

    return frozenset(_keys_of(load_esconv(str(bundled("sample", "esconv")), None)))


def describe_stamp(stamp: Mapping[str, Any]) -> str:
    """Return the sentence with which a result states its protocol."""
    name = stamp.get("name")
    whose = (
        f"the protocol's {stamp['split']} dialogues"
        if stamp.get("split")
        else "not a split of ESConv that is known"
    )
    whose = "of the bundled sample" if stamp.get("bundled") else f"{whose}; hash {stamp['hash']}"
    rule = RULES.get(str(stamp.get("rule")), "")
    return (
        f"Data: {counted(stamp['dialogues'], 'dialogue')} ({whose}), "
        f"{counted(stamp['samples'], 'sample')}, chosen as in "
        f"{f'the protocol {name}' if name else 'no protocol that has a name'} ({rule}); "
        f"{stamp['labels']}."
    )


def check_mergeable(
    stamps: Sequence[tuple[str, Mapping[str, Any] | None]], *, same_dialogues: bool = True
) -> None:
    """Refuse to set results of different protocols side by side.

    Results that do not say their protocol, made before results carried one, are let pass.

    Args:
        stamps: (name of the file, its stamp) of every result.
        same_dialogues: whether they must be of the same dialogues and as many samples too; a choice
            made on validation dialogues, or a part of a corpus, need not.

    Raises:
        DataError: two differ; the message names the files and what differs.
    """
    known = [(name, stamp) for name, stamp in stamps if stamp]
    compared = _COMPARED if same_dialogues else _COMPARED[:3]
    for name, stamp in known[1:]:
        first, other = known[0]
        differing = [
            f"{word} {_shown(other.get(key))} and {_shown(stamp.get(key))}"
            for key, word in compared
            if other.get(key) != stamp.get(key)
        ]
        if differing:
            such = f", such as data.protocol={other['name']}" if other.get("name") else ""
            raise DataError(
                f"{first} and {name} are of different protocols ({'; '.join(differing)}), so their "
                "scores are not comparable; make one report each, or score both under "
                f"one data.protocol{such}"
            )


# What must agree, and its name in messages.
_COMPARED = (
    ("name", "protocols"), ("rule", "samples"), ("labels", "labels"),
    ("hash", "dialogues (hash)"), ("samples", "numbers of samples"),
)  # fmt: skip


def check_responses(
    files: Sequence[str], source: str = "", stamp: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """Refuse responses of different protocols in one table, and return the protocol of all.

    Their protocols stand in the records beside them, if anywhere.

    Args:
        files: the files of responses.
        source: the dialogues that they answer, for messages.
        stamp: the protocol with which these dialogues were read; they may be more than were
            answered.

    Raises:
        DataError: two differ; the message names the files and what differs.
    """
    stamps = [(file, stamp_beside(file)) for file in files]
    check_mergeable(stamps)
    found = next(((file, one) for file, one in stamps if one), None)
    if found is None:
        return dict(stamp) if stamp else None
    check_mergeable([found, (source, stamp)], same_dialogues=False)
    return found[1]


def _shown(value: Any) -> str:
    return RULES.get(str(value), "none" if value is None else str(value))


def stamp_beside(path: str | Path) -> dict[str, Any] | None:
    """Return the stamp in the record beside an output, if it has one."""
    stamp = record_beside(path).get("protocol")
    return stamp if isinstance(stamp, dict) and "hash" in stamp else None
