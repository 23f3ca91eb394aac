"""Duplicates between the splits of a corpus, and within them.

Four levels are compared: whole dialogues, situations, turns, and targets (the turns that are
samples) with all turns of the other split, since a target that stands in a training context was
read in training. On each there are three kinds: ``exact`` (the same characters), ``normalised``
(the same letters and digits) and ``near`` (most runs of words in common). An item counts once,
under the first kind that it is of.

A turn of few words, such as "Hi, how can I help you today?", is said in many dialogues. Turns and
targets of fewer than ``min_words`` words are ordinary: they are counted apart and are no
duplicates. So it is with similar texts: only those of ``near_words`` words and more are near
duplicates.

It is long because one pass over a corpus must do: texts are read once, turned into numbers and
forgotten, so that a corpus of a hundred thousand dialogues fits into memory.
"""

import logging
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from pal.core.errors import ConfigError, DataError
from pal.core.files import COMPRESSED, kind_of
from pal.data.corpora import CorpusFile
from pal.data.near import NearIndex, Shingles, shared_share, split_words
from pal.data.protocols import SampleRule, evaluation_rule, read_id_list, training_rule
from pal.data.records import read_spoken
from pal.data.settings import AuditDataSettings, AuditOptions, ReadingSettings
from pal.data.sources import SPLITS, default_name, has_split, has_splits, read_entries
from pal.data.spilled import SeenKeys, SpilledTexts, iterate_rows
from pal.data.splits import CorpusSplits, is_cut_off
from pal.data.windows import find_window_form, read_windows

logger = logging.getLogger(__name__)

LEVELS = ("dialogues", "situations", "turns", "targets")
KINDS = ("exact", "normalised", "near")
NO, EXACT, NORMALISED, NEAR = range(4)

TEXT_SHINGLE, DIALOGUE_SHINGLE = 2, 3  # words in a run
EXCERPT = 120  # characters of an example
WAITING = 1 << 12  # texts that are looked up at once

# (id, situation, turns) of a dialogue or a window; a turn is (speaker, text).
Spoken = tuple[str, str | None, Sequence[tuple[str, str]]]


@dataclass
class AuditedSplit:
    """One split as it was read.

    Attributes:
        name: ``train``, ``validation`` or ``test``.
        source: file, folder or hub id.
        windows: whether the source holds samples without dialogues.
        ids: id of every dialogue or window.
        first: number of its first dialogue among those of all splits.
        samples: number of its samples.
        turns: number of its turns.
    """

    name: str
    source: str
    windows: bool = False
    ids: SpilledTexts = field(default_factory=SpilledTexts)
    first: int = 0
    samples: int = 0
    turns: int = 0


@dataclass
class Relation:
    """The items of one split that stand in another, on one level, as columns.

    Attributes:
        items: numbers of the items.
        kinds: kind of each: 0 for none, then as in ``KINDS``.
        partners: number of an item that it is a duplicate of, -1 for none.
        similarities: of near duplicates.
    """

    items: np.ndarray
    kinds: np.ndarray
    partners: np.ndarray
    similarities: np.ndarray


class TextColumns:
    """Texts as columns of numbers: what they are, whose they are, and which are alike.

    Args:
        min_words: shortest text that counts.
        near_words: shortest text that is compared with similar ones.
        near: lowest similarity of near duplicates.
    """

    split: np.ndarray
    dialogue: np.ndarray
    place: np.ndarray
    words: np.ndarray
    target: np.ndarray
    exact: np.ndarray
    plain: np.ndarray

    def __init__(self, *, min_words: int, near_words: int, near: float):
        self.min_words, self.near_words, self.near = min_words, near_words, near
        self._columns = {name: array(kind) for name, kind in
                         {"split": "b", "dialogue": "i", "place": "i", "words": "i",
                          "target": "b", "exact": "q", "plain": "q"}.items()}  # fmt: skip
        self._add = [self._columns[name].append for name in self._columns]
        self._shingles = Shingles(TEXT_SHINGLE)
        self._index = NearIndex(rows=5, bands=24)
        self._waiting: list[tuple[int, int, list[str]]] = []  # row, hash and words of the last
        self._seen = SeenKeys()
        self._unique = array("q")  # first row of every distinct text that counts
        self._compared = array("q")  # those among them that have a sketch
        self._texts = SpilledTexts()

    def add(
        self, text: str, words: list[str], *, split: int, dialogue: int, place: int, target: bool
    ) -> None:
        """Add one text; rows are numbered in the order in which they come.

        The hashes are Python's own, which differ between runs, and no result depends on them.
        """
        plain = hash("".join(words))
        values = (split, dialogue, place, len(words), target, hash(text), plain)
        for add, value in zip(self._add, values, strict=True):
            add(value)
        if len(words) >= self.min_words:
            self._waiting.append((len(self._columns["plain"]) - 1, plain, words))
            if len(self._waiting) == WAITING:
                self._number()

    def _number(self) -> None:
        """Number those of the texts that wait which have not come before."""
        plain = np.array([one[1] for one in self._waiting], dtype=np.int64)
        first = np.sort(np.unique(plain, return_index=True)[1])
        new = first[~self._seen.among(plain[first])]
        self._seen.add(plain[new])
        for place in new.tolist():
            row, _, words = self._waiting[place]
            if len(words) >= self.near_words:
                self._compared.append(len(self._unique))
                self._index.add(self._shingles.of(words))
            self._unique.append(row)
            self._texts.append(" ".join(words))
        self._waiting = []

    def close(self) -> None:
        """Make the columns arrays, and compare what is alike."""
        self._number()
        self._add = []
        self._seen = SeenKeys()
        for name, column in self._columns.items():
            setattr(self, name, np.asarray(column))  # the same memory
        self._columns = {}
        self.unique = np.asarray(self._unique)
        self.long = self.words >= self.min_words
        keys = self.plain[self.unique]
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        rows = np.arange(len(self.plain), dtype=np.int32)
        self.text_of = np.full(len(rows), -1, dtype=np.int32)  # among the distinct that count
        if len(keys):
            self.text_of[self.long] = order[np.searchsorted(keys, self.plain[self.long])]
        # First row of every one of them in every split; -1 where it does not stand.
        self.first_row = np.full((len(keys), len(SPLITS)), -1, dtype=np.int32)
        known = rows[self.long][::-1]
        self.first_row[self.text_of[known], self.split[known]] = known
        self.links = self._find_links()

    def _find_links(self) -> dict[int, list[tuple[int, float]]]:
        """Return the similar texts of every distinct text, with their similarity."""
        links: dict[int, list[tuple[int, float]]] = {}
        compared = np.array(self._compared, dtype=np.int64)
        if len(compared) < 2:
            return links
        for one, other in compared[self._index.pairs()].tolist():
            share = shared_share(self._words(one), self._words(other), TEXT_SHINGLE)
            if share >= self.near:
                links.setdefault(one, []).append((other, share))
                links.setdefault(other, []).append((one, share))
        return links

    def _words(self, number: int) -> list[str]:
        return self.excerpt(number, None).split()

    def excerpt(self, number: int, size: int | None = EXCERPT) -> str:
        """Return the beginning of a distinct text."""
        return self._texts[number][:size]

    def select(self, split: int, *, targets: bool = False) -> np.ndarray:
        """Return the rows of a split that count."""
        wanted = (self.split == split) & self.long
        return np.flatnonzero(wanted & (self.target == 1) if targets else wanted)

    def relate(self, items: np.ndarray, others: np.ndarray, *, within: bool = False) -> Relation:
        """Return which of ``items`` stand among ``others``.

        Args:
            items: rows.
            others: rows of one split.
            within: whether both are of one split: an item is then the duplicate of an earlier one
                of another dialogue.
        """
        kinds = np.zeros(len(items), dtype=np.int8)
        partners = np.full(len(items), -1)
        similarities = np.ones(len(items))
        for kind, column in ((EXACT, self.exact), (NORMALISED, self.plain)):
            found = _first_of(column[items], column[others], others)
            good = (found >= 0) & (kinds == NO)
            if within:
                good &= (found < items) & (self.dialogue[found] != self.dialogue[items])
            kinds[good], partners[good] = kind, found[good]
        if len(others) and self.links:
            self._relate_near(items, others, kinds, partners, similarities, within)
        return Relation(items, kinds, partners, similarities)

    def _relate_near(
        self, items: np.ndarray, others: np.ndarray, kinds: np.ndarray, partners: np.ndarray,
        similarities: np.ndarray, within: bool,
    ) -> None:  # fmt: skip
        split = int(self.split[others[0]])
        allowed = np.zeros(len(self.plain), dtype=bool)
        allowed[others] = True
        linked = np.zeros(len(self.unique) + 1, dtype=bool)  # the last is for texts without number
        linked[list(self.links)] = True
        for place in np.flatnonzero((kinds == NO) & linked[self.text_of[items]]):
            item = items[place]
            for other, share in self.links[int(self.text_of[item])]:
                row = self.first_row[other, split]
                if row < 0 or not allowed[row]:
                    continue
                if within and (row >= item or self.dialogue[row] == self.dialogue[item]):
                    continue
                if kinds[place] == NO or share > similarities[place]:
                    kinds[place], partners[place], similarities[place] = NEAR, row, share


def _first_of(wanted: np.ndarray, hashes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the first of ``rows`` with each wanted hash, -1 where there is none."""
    keys, first = np.unique(hashes, return_index=True)
    if not len(keys):
        return np.full(len(wanted), -1)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, rows[first[places]], -1)


class DialogueColumns:
    """Whole dialogues as columns; see :class:`TextColumns`, whose methods it has.

    Args:
        near: lowest similarity of near duplicates.
    """

    def __init__(self, *, near: float):
        self.near = near
        self._split, self._exact, self._plain = array("b"), array("q"), array("q")
        self._shingles = Shingles(DIALOGUE_SHINGLE)
        self._index = NearIndex(rows=4, bands=30, keeps_sketches=True)

    def add(self, split: int, texts: Sequence[str], words: Sequence[list[str]]) -> None:
        """Add one dialogue."""
        joined = [word for turn in words for word in turn]
        self._split.append(split)
        self._exact.append(hash("\n".join(texts)))
        self._plain.append(hash("\n".join("".join(turn) for turn in words)))
        self._index.add(self._shingles.of(joined or [""]))

    def close(self) -> None:
        """Make the columns arrays, and compare what is alike."""
        columns = (self._split, self._exact, self._plain)
        self.split, self.exact, self.plain = map(np.asarray, columns)
        pairs = self._index.pairs()
        shares = self._index.similarities(pairs)
        self.links: dict[int, list[tuple[int, float]]] = {}
        for (one, other), share in zip(pairs.tolist(), shares.tolist(), strict=True):
            if share >= self.near:
                self.links.setdefault(one, []).append((other, share))
                self.links.setdefault(other, []).append((one, share))

    def relate(self, items: np.ndarray, others: np.ndarray, *, within: bool = False) -> Relation:
        """Return which of ``items`` stand among ``others``; see :meth:`TextColumns.relate`."""
        kinds = np.zeros(len(items), dtype=np.int8)
        partners, similarities = np.full(len(items), -1), np.ones(len(items))
        for kind, column in ((EXACT, self.exact), (NORMALISED, self.plain)):
            found = _first_of(column[items], column[others], others)
            good = (found >= 0) & (kinds == NO) & ((found < items) if within else True)
            kinds[good], partners[good] = kind, found[good]
        allowed = np.zeros(len(self.plain), dtype=bool)
        allowed[others] = True
        for place, item in enumerate(items.tolist()):
            if kinds[place] != NO:
                continue
            for other, share in self.links.get(item, ()):
                if not allowed[other] or (within and other >= item):
                    continue
                if kinds[place] == NO or share > similarities[place]:
                    kinds[place], partners[place], similarities[place] = NEAR, other, share
        return Relation(items, kinds, partners, similarities)


class CorpusAudit:
    """Reads splits and compares them.

    Args:
        options: what counts as a duplicate.

    Example:
        >>> audit = CorpusAudit(AuditOptions())
        >>> audit.read("train", "train.jsonl", dialogues, rule="not_first")
        >>> audit.read("test", "test.jsonl", others, rule="after_seeker")
        >>> audit.report()["between"]
    """

    def __init__(self, options: AuditOptions):
        self.options = options
        self.splits: dict[str, AuditedSplit] = {}
        words, near = options.near_words, options.near
        self.turns = TextColumns(min_words=options.min_words, near_words=words, near=near)
        self.situations = TextColumns(min_words=1, near_words=words, near=near)
        self.dialogues = DialogueColumns(near=options.near_dialogues)
        self._closed = False

    def read(
        self, name: str, source: str, spoken: Iterable[Spoken], *, rule: SampleRule,
        windows: bool = False,
    ) -> None:  # fmt: skip
        """Read one split.

        Args:
            name: ``train``, ``validation`` or ``test``.
            source: where it comes from, for the report.
            spoken: its dialogues or windows.
            rule: which supporter turns are samples; of a window, it is always the last turn.
            windows: whether they are windows.

        Raises:
            DataError: there are none.
        """
        number = SPLITS.index(name)
        first = sum(len(split.ids) for split in self.splits.values())
        split = AuditedSplit(name, source, windows, first=first)
        for ident, situation, turns in spoken:
            dialogue = first + len(split.ids)
            split.ids.append(ident)
            words = [split_words(text) for _, text in turns]
            last = len(turns) - 1
            for place, (speaker, text) in enumerate(turns):
                if windows:
                    target = place == last
                else:
                    target = (
                        speaker == "supporter"
                        and (place > 0 or rule == "all")
                        and (rule != "after_seeker" or turns[place - 1][0] == "seeker")
                    )
                split.samples += target
                self.turns.add(
                    text, words[place], split=number, dialogue=dialogue, place=place, target=target
                )
            split.turns += len(turns)
            self.dialogues.add(number, [text for _, text in turns], words)
            if situation:
                self.situations.add(
                    situation, split_words(situation), split=number, dialogue=dialogue, place=0,
                    target=False,
                )  # fmt: skip
        if not split.ids:
            raise DataError(f"{source}: no dialogues; give a file with at least one")
        self.splits[name] = split
        logger.info("%s: %d %s read from %s", name, len(split.ids), _unit(split), source)

    # -- comparison

    def report(self, rules: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return what was found, as a document of kind ``audit``.

        Args:
            rules: which turns of each split are samples, for the report.
        """
        self._close()
        names = [name for name in SPLITS if name in self.splits]
        pairs = list(combinations(names, 2))
        document: dict[str, Any] = {
            "kind": "audit",
            "format": 1,
            "title": f"Duplicates between {', '.join(names)}",
            "options": self.options.model_dump(),
            "splits": {name: self._describe(self.splits[name], rules or {}) for name in names},
            "between": [],
            "within": [],
            "affected": [],
        }
        for earlier, later in pairs:
            relations = {level: self._between(level, later, earlier) for level in LEVELS}
            document["between"] += [
                self._count(level, relation, later, earlier)
                for level, relation in relations.items()
            ]
            document["affected"].append(self._affected(relations, later, earlier))
        for name in names:
            document["within"] += [
                self._count(level, relation, name, name)
                for level in LEVELS
                if (relation := self._within(level, name)) is not None
            ]
        return document

    def clean_ids(self) -> dict[str, list[str]]:
        """Return the ids of every split without dialogues that share anything with a later split.

        The test split is kept whole, but for dialogues that stand in it twice.

        Raises:
            ConfigError: a split holds windows, which no dialogue can be dropped from.
        """
        self._close()
        held = [split.source for split in self.splits.values() if split.windows]
        if held:
            raise ConfigError(
                f"fix=true: {held[0]} holds windows of turns and names no dialogue, so no list of "
                "dialogues can be made; give the corpus they were cut from, such as "
                "thu-coai/esconv"
            )
        names = [name for name in SPLITS if name in self.splits]
        kept = {}
        for place, name in enumerate(names):
            split = self.splits[name]
            dropped = np.zeros(split.first + len(split.ids), dtype=bool)
            repeated = self._within("dialogues", name)
            if repeated is not None:
                dropped[repeated.items[repeated.kinds > NO]] = True
            for later in names[place + 1 :]:
                for level in ("dialogues", "situations", "turns"):
                    relation = self._between(level, name, later)
                    found = relation.items[relation.kinds > NO]
                    dropped[self._dialogues_of(level, found)] = True
            kept[name] = [
                ident for n, ident in enumerate(split.ids) if not dropped[split.first + n]
            ]
            if not kept[name]:
                raise DataError(
                    f"fix=true: every dialogue of {name} shares something with a later split, so "
                    "nothing would be left; make another split"
                )
        return kept

    def _close(self) -> None:
        if not self._closed:
            for columns in (self.turns, self.situations, self.dialogues):
                columns.close()
            self._closed = True

    def _columns(self, level: str) -> Any:
        return {"dialogues": self.dialogues, "situations": self.situations}.get(level, self.turns)

    def _dialogues_of(self, level: str, items: np.ndarray) -> np.ndarray:
        return items if level == "dialogues" else self._columns(level).dialogue[items]

    def _items(self, level: str, name: str) -> np.ndarray:
        """Return the rows of a split that are compared on a level."""
        if level == "dialogues":
            split = self.splits[name]
            return np.arange(split.first, split.first + len(split.ids))
        columns: TextColumns = self._columns(level)
        return columns.select(SPLITS.index(name), targets=level == "targets")

    def _between(self, level: str, name: str, other: str) -> Relation:
        others = self._items("turns" if level == "targets" else level, other)
        relation: Relation = self._columns(level).relate(self._items(level, name), others)
        return relation

    def _within(self, level: str, name: str) -> Relation | None:
        """Return repetitions in a split; windows of one dialogue repeat turns by their nature."""
        windows = self.splits[name].windows
        if windows and level != "targets":
            return None
        items = self._items(level, name)
        others = self._items("turns" if level == "targets" and not windows else level, name)
        relation: Relation = self._columns(level).relate(items, others, within=True)
        return relation

    # -- the document

    def _describe(self, split: AuditedSplit, rules: Mapping[str, str]) -> dict[str, Any]:
        number = SPLITS.index(split.name)
        return {
            "source": split.source,
            "holds": _unit(split),
            "dialogues": len(split.ids),
            "turns": split.turns,
            "samples": split.samples,
            "situations": int((self.situations.split == number).sum()),
            "rule": "last turn of a window" if split.windows else rules.get(split.name),
        }

    def _count(self, level: str, relation: Relation, name: str, other: str) -> dict[str, Any]:
        counts = np.bincount(relation.kinds, minlength=4)
        total = int(counts[1:].sum())
        found = {
            "level": level,
            "of": name,
            "in": other,
            "items": len(relation.items),
            **{kind: int(counts[n]) for n, kind in enumerate(KINDS, start=1)},
            "duplicates": total,
            "share": total / len(relation.items) if len(relation.items) else 0.0,
            "examples": self._examples(level, relation),
        }
        if level in ("turns", "targets") and name != other:
            found["ordinary"] = self._ordinary(level, name, other)
        return found

    def _ordinary(self, level: str, name: str, other: str) -> dict[str, int]:
        """Count the short turns of a split, and how many of them stand in another split too."""
        turns = self.turns
        short = (turns.split == SPLITS.index(name)) & ~turns.long
        if level == "targets":
            short = short & (turns.target == 1)
        theirs = turns.plain[(turns.split == SPLITS.index(other)) & ~turns.long]
        return {
            "items": int(short.sum()),
            "shared": int(np.isin(turns.plain[short], theirs).sum()),
        }

    def _examples(self, level: str, relation: Relation) -> list[dict[str, Any]]:
        """Return the first examples of every kind."""
        shown = []
        for kind, word in enumerate(KINDS, start=1):
            for place in np.flatnonzero(relation.kinds == kind)[: self.options.examples]:
                item, partner = int(relation.items[place]), int(relation.partners[place])
                example = {
                    "kind": word,
                    "id": self._name(level, item),
                    "other": self._name(level, partner),
                    "similarity": round(float(relation.similarities[place]), 3),
                }
                columns = self._columns(level)
                if level != "dialogues" and (text := int(columns.text_of[item])) >= 0:
                    example["text"] = columns.excerpt(text)
                shown.append(example)
        return shown

    def _name(self, level: str, item: int) -> str:
        """Return the id of a dialogue, and of a turn the id that its sample would have."""
        dialogue = int(self._dialogues_of(level, np.array([item]))[0])
        split = next(s for s in self.splits.values() if 0 <= dialogue - s.first < len(s.ids))
        ident = split.ids[dialogue - split.first]
        if level in ("turns", "targets"):
            return f"{ident}/{int(self.turns.place[item])}"
        return ident

    def _affected(self, relations: Mapping[str, Relation], name: str, other: str) -> dict[str, Any]:
        """Count the samples of a split that a model may know from another, and by what."""
        turns = self.turns
        rows = np.flatnonzero((turns.split == SPLITS.index(name)) & (turns.target == 1))
        everyone = sum(len(split.ids) for split in self.splits.values())
        marked = {}
        for level in ("dialogues", "situations"):
            whose = np.zeros(everyone, dtype=bool)
            relation = relations[level]
            whose[self._dialogues_of(level, relation.items[relation.kinds > NO])] = True
            marked[level] = whose[turns.dialogue[rows]]
        same = np.zeros(len(turns.plain), dtype=bool)
        same[relations["targets"].items[relations["targets"].kinds > NO]] = True
        marked["targets"] = same[rows]
        earliest = np.full(everyone, np.iinfo(np.int32).max)
        found = relations["turns"].items[relations["turns"].kinds > NO]
        np.minimum.at(earliest, turns.dialogue[found], turns.place[found])
        marked["context"] = earliest[turns.dialogue[rows]] < turns.place[rows]
        union = np.logical_or.reduce(list(marked.values()))
        return {
            "of": name,
            "in": other,
            "samples": len(rows),
            "affected": int(union.sum()),
            "share": float(union.mean()) if len(rows) else 0.0,
            "by": {level: int(found.sum()) for level, found in marked.items()},
        }


def _unit(split: AuditedSplit) -> str:
    return "windows" if split.windows else "dialogues"


def describe_audit(report: Mapping[str, Any]) -> str:
    """Return the sentence with which a result states the audit of its corpus."""
    parts = []
    for found in report["affected"]:
        if found["of"] != "test":
            continue
        by = ", ".join(f"{level} {n:,}" for level, n in found["by"].items() if n)
        parts.append(
            f"{found['affected']:,} of {found['samples']:,} test samples "
            f"({100 * found['share']:.2f} %) share something with {found['in']}"
            + (f" (by {by})" if by else "")
        )
    return f"Audit for duplicates: {'; '.join(parts) or 'no test split to compare'}."


def summarise_audit(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of a report, without the texts and ids of its examples."""
    bare = {key: value for key, value in report.items() if key not in ("between", "within")}
    for key in ("between", "within"):
        bare[key] = [
            {name: value for name, value in found.items() if name != "examples"}
            for found in report[key]
        ]
    return bare


# ----------------------------------------------------------------------------- reading


def audit_sources(
    sources: Mapping[str, tuple[str, str | None]], data: ReadingSettings, options: AuditOptions
) -> tuple[CorpusAudit, dict[str, Any]]:
    """Read the splits of a corpus and compare them.

    Args:
        sources: name of the split → (file, folder or hub id; split of it, or None for all of it).
        data: how dialogues are read, and their protocol.
        options: what counts as a duplicate.

    Returns:
        The audit, and its report.

    Raises:
        PalError: a source cannot be read.
    """
    audit = CorpusAudit(options)
    rules: dict[str, str] = {}
    corpora: dict[str, CorpusSplits] = {}
    for name, (source, split) in sources.items():
        rule = training_rule(data) if name == "train" else evaluation_rule(data)
        corpus = corpora.setdefault(source, CorpusSplits(source, data, requests=True, by_name=True))
        spoken, windows = read_spoken_split(corpus, split)
        audit.read(name, source, spoken, rule=rule, windows=windows)
        rules[name] = rule
    if len(sources) == 1:  # said of what could be read
        ((source, _),) = sources.values()
        logger.warning(
            "%s: only duplicates within it are searched for; data.test=… compares it with another "
            "split, and data.protocol=paper_712 splits it", source,
        )  # fmt: skip
    return audit, audit.report(rules)


def audited_sources(data: AuditDataSettings) -> dict[str, tuple[str, str | None]]:
    """Return source and split of every split that the settings name.

    A split without a source of its own is that of ``data.train``, if that has splits.

    Raises:
        ConfigError: no source is given.
    """
    if data.train is None:
        raise ConfigError("missing settings: give data.train=…, and data.test=… where it is a file")
    whole = data.test is not None or data.validation is not None
    listed = read_id_list(data.ids) if data.ids is not None else None
    cut = data.split == "seeded" and not whole
    found: dict[str, tuple[str, str | None]] = {}
    for name in SPLITS:
        source = getattr(data, name) or (None if whole else data.train)
        if source is None or (listed is not None and name not in listed):
            continue
        if listed is not None or cut or has_splits(source):
            if name == "train" or has_split(source, name):
                found[name] = (source, name)
        elif getattr(data, name) is not None:
            found[name] = (source, None)
    return found


def read_spoken_split(corpus: CorpusSplits, split: str | None) -> tuple[Iterator[Spoken], bool]:
    """Return the dialogues or windows of one split, and whether they are windows.

    Where the split is the source's own, dialogues are read one at a time, whatever their labels.

    Args:
        corpus: file, folder or hub id, and how dialogues are read.
        split: split of the source; None for all of it.

    Raises:
        DataError: the source cannot be read.
    """
    source, how = corpus.source, corpus.how
    cut = is_cut_off(source, split, how, by_name=True)
    if split is not None and (cut or how.protocol == "file"):
        return map(_spoken_row, iterate_rows(corpus.load(split))), False
    split = split if has_splits(source) else None
    if how.reader is None and kind_of(source) == "file":
        ending = source.lower()
        for compressed in COMPRESSED:
            ending = ending.removesuffix(compressed)
        file = CorpusFile(source, f".{ending.rpartition('.')[2]}")
        form = find_window_form(file)
        if form is not None:
            name = default_name(Path(source))
            numbered = enumerate(read_windows(file, form))
            return ((f"{name}-{n:05d}", *window) for n, window in numbered), True
    return _spoken_entries(source, split, how), False


def _spoken_row(row: Mapping[str, Any]) -> Spoken:
    return row["id"], row["situation"], [(turn["speaker"], turn["text"]) for turn in row["dialog"]]


def _spoken_entries(source: str, split: str | None, how: ReadingSettings) -> Iterator[Spoken]:
    columns = how.columns.model_dump()
    for where, default, record in read_entries(source, split, reader=how.reader, columns=columns):
        ident, situation, turns = read_spoken(record, where)
        yield ident or default, situation, turns
