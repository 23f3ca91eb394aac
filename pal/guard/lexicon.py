"""The lexicon: patterns of words, with a level, a kind, and sentences they must and must not fit.

It needs no model and takes well below a millisecond a turn. The patterns stand in ``lexicon.yaml``,
which says how they are written.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Any

from pal.core.yaml_files import read_yaml, typed_values
from pal.guard.levels import Detection
from pal.guard.normalise import Normaliser, PlainSpelling

# Python's own reader of expressions; without it every pattern is tried on every sentence.
_PARSER: Any = getattr(re, "_parser", None)

LONGEST_NEGATION = 100  # characters before a hit in which its negation is looked for


@dataclass(frozen=True)
class Pattern:
    """One pattern of the lexicon.

    Attributes:
        match: what it fits, compiled.
        needs: texts of which at least one occurs wherever it fits; a quick first look.
        level: level of a sentence that it fits; 0 for despair, which is no concern by itself.
        kind: category of a hit.
        hinted: whether the level holds only where an earlier turn gives cause for concern.
        plain: whether a hit stands even after a negation.
        unless: what a sentence must not hold, compiled.
        hits: examples that it must fit.
        misses: near examples that must give no finding.
    """

    match: re.Pattern[str]
    needs: tuple[str, ...]
    level: int
    kind: str
    hinted: bool = False
    plain: bool = False
    unless: re.Pattern[str] | None = None
    hits: tuple[str, ...] = ()
    misses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Veto:
    """What makes a sentence mean something else: the long past, a film, grief.

    Attributes:
        match: what it fits, compiled.
        unless: what makes the sentence count all the same, compiled.
        kinds: categories whose hits do not count in the sentence.
    """

    match: re.Pattern[str]
    unless: re.Pattern[str] | None
    kinds: frozenset[str]


class Lexicon:
    """Finds what its patterns fit, sentence by sentence.

    Args:
        file: file of the package whose patterns are used; ``lexicon.yaml`` has the parts,
            spellings, negations and vetoes where the file has none of its own. A file with
            ``spelling: plain`` is for other languages: words are read as they are written.
    """

    name = "lexicon"
    quick = True

    def __init__(self, file: str = "lexicon.yaml"):
        tree = read_lexicon_file("lexicon.yaml") | read_lexicon_file(file)
        self.version = sha256((_text("lexicon.yaml") + _text(file)).encode()).hexdigest()[:8]
        parts = {name: f"(?:{text})" for name, text in tree["parts"].items()}
        # A part may be made of parts that stand above it.
        for name in parts:
            parts[name] = _fill(parts[name], parts)
        self.patterns = [_pattern(entry, parts) for entry in tree["patterns"]]
        self._vetoes = [_veto(entry, parts) for entry in tree["vetoes"]]
        before, yes, phrases = (tree["assent"][key] for key in ("before", "yes", "phrases"))
        self._aside = re.compile(rf"(?:{before})(?: (?:{before}))*")
        self._assent = re.compile(
            rf"(?:(?:{before}) )*(?:(?:{yes})(?! (?:please|thanks|thank you)$)(?: .*)?|{phrases})"
        )
        self._negated = re.compile(rf"\b(?:{_fill(tree['negation'], parts)}) ?$")
        written = [entry["match"] for entry in tree["patterns"]] + list(tree["parts"].values())
        self._normaliser: Normaliser | PlainSpelling
        if tree.get("spelling") == "plain":
            self._normaliser = PlainSpelling()
        else:
            self._normaliser = Normaliser(
                words=_words_of(written), spellings=tree["spellings"], real=_real_words()
            )

    def detect(self, texts: Sequence[str]) -> list[Detection]:
        """Return what is found in each text."""
        return [self._detect(text) for text in texts]

    def fits(self, text: str) -> list[Pattern]:
        """Return the patterns that fit a text, vetoes considered."""
        return [
            pattern
            for sentence in self._normaliser.sentences(text)
            for pattern in self._fits(sentence)
        ]

    def says_yes(self, text: str) -> bool:
        """Return whether a text says yes to a question that was asked before it."""
        for sentence in self._normaliser.sentences(text):
            if self._assent.fullmatch(sentence):
                return not sentence.endswith(" ?")
            if not self._aside.fullmatch(sentence):
                return False
        return False

    def _detect(self, text: str) -> Detection:
        by_sentence = [self._fits(part) for part in self._normaliser.sentences(text)]
        found = [pattern for part in by_sentence for pattern in part]
        if not found:
            return Detection()
        sure = [pattern for pattern in found if pattern.level and not pattern.hinted]
        hinted = [pattern for pattern in found if pattern.hinted]
        # Another sentence of the text gives cause as an earlier turn does.
        causes = [any(not pattern.hinted for pattern in part) for part in by_sentence]
        sure += [
            pattern
            for place, part in enumerate(by_sentence)
            for pattern in part
            if pattern.hinted and any(causes[:place] + causes[place + 1 :])
        ]
        return Detection(
            level=max((pattern.level for pattern in sure), default=0),
            categories=frozenset(pattern.kind for pattern in sure),
            hinted_level=max((pattern.level for pattern in hinted), default=0),
            hinted_categories=frozenset(pattern.kind for pattern in hinted),
            despair=any(pattern.level == 0 for pattern in found),
        )

    def _fits(self, sentence: str) -> list[Pattern]:
        found = []
        vetoed: frozenset[str] | None = None
        for pattern in self.patterns:
            if pattern.needs and not any(map(sentence.__contains__, pattern.needs)):
                continue
            if pattern.unless is not None and pattern.unless.search(sentence):
                continue
            for hit in pattern.match.finditer(sentence):
                before = max(0, hit.start() - LONGEST_NEGATION)
                if pattern.plain or not self._negated.search(sentence, before, hit.start()):
                    break
            else:
                continue
            if vetoed is None:
                vetoed = self._vetoed(sentence)
            if pattern.kind not in vetoed:
                found.append(pattern)
        return found

    def _vetoed(self, sentence: str) -> frozenset[str]:
        found = [veto for veto in self._vetoes if veto.match.search(sentence)]
        fitting = [v for v in found if v.unless is None or not v.unless.search(sentence)]
        return frozenset().union(*(veto.kinds for veto in fitting))


@cache
def _text(file: str) -> str:
    return resources.files("pal.guard").joinpath(file).read_text(encoding="utf-8")


@cache
def read_lexicon_file(file: str) -> Any:
    """Return what stands in a file of this folder."""
    return typed_values(read_yaml(_text(file), file))


@cache
def load_lexicon(file: str = "lexicon.yaml") -> Lexicon:
    """Return a lexicon of the package, which is made once."""
    return Lexicon(file)


def _real_words() -> frozenset[str]:
    return frozenset(word for word in _text("real_words.txt").split() if word.isalpha())


def _fill(text: str, parts: Mapping[str, str]) -> str:
    """Replace ``<name>`` by a part and ``<3>`` by up to three words."""

    def part(found: re.Match[str]) -> str:
        name = found.group(1)
        return rf"(?:\w+ ){{0,{name}}}" if name.isdigit() else parts[name]

    return re.sub(r"<(\w+)>", part, text)


def _compile(text: str, parts: Mapping[str, str]) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{_fill(text, parts)})(?!\w)")


def _pattern(entry: Mapping[str, Any], parts: Mapping[str, str]) -> Pattern:
    match = _compile(entry["match"], parts)
    unless = entry.get("unless")
    return Pattern(
        match=match,
        needs=tuple(sorted(_needed(_PARSER.parse(match.pattern) if _PARSER else ()) or ())),
        level=entry["level"],
        kind=entry["kind"],
        hinted=entry.get("hinted", False),
        plain=entry.get("plain", False),
        unless=_compile(unless, parts) if unless else None,
        hits=tuple(entry["hits"]),
        misses=tuple(entry["misses"]),
    )


def _veto(entry: Mapping[str, Any], parts: Mapping[str, str]) -> Veto:
    unless = entry.get("unless")
    return Veto(
        match=_compile(entry["match"], parts),
        unless=_compile(unless, parts) if unless else None,
        kinds=frozenset(entry["kinds"]),
    )


def _needed(tree: Iterable[Any]) -> set[str] | None:
    """Return texts of which one occurs in all that an expression fits, or None if there are none.

    Of several such sets the one whose shortest text is longest.
    """
    best: set[str] | None = None
    run = ""

    def offer(texts: set[str] | None) -> None:
        nonlocal best
        if texts and (best is None or min(map(len, texts)) > min(map(len, best))):
            best = texts

    for kind, value in tree:
        if kind is _PARSER.LITERAL:
            run += chr(value)
            continue
        offer({run} if run else None)
        run = ""
        if kind is _PARSER.SUBPATTERN:
            offer(_needed(value[-1]))
        elif kind is _PARSER.BRANCH:
            sides = [_needed(side) for side in value[1]]
            if all(sides):
                offer(set().union(*(side for side in sides if side)))
        elif kind in (_PARSER.MAX_REPEAT, _PARSER.MIN_REPEAT) and value[0] > 0:
            offer(_needed(value[2]))
    offer({run} if run else None)
    return best


def _words_of(texts: Iterable[str]) -> frozenset[str]:
    """Return the whole words that expressions are written with."""
    found: set[str] = set()
    for text in texts:
        found |= set(re.findall(r"(?<![\w<\\])[a-z]{3,}(?![\w>?*+(\[])", text))
    return frozenset(found)
