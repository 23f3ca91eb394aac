"""Knowledge about texts, for MISC: what a seeker's last turn and situation imply.

Two forms of files are read. ``pal annotate annotate.knowledge=…`` writes JSON lines, one for every
text: ``{"text": "I lost my job.", "relations": {"xReact": ["sad"], …}}``. The released form is a
folder of parallel line files, ``*WithStrategy_short.tsv``, ``*Comet.txt``, ``*Comet_st.txt`` and
``*Situation.txt``. Both are matched with dialogues by the texts themselves.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pal.core.errors import DataError, suggest
from pal.core.files import read_jsonl
from pal.data.texts import normalise_text

if TYPE_CHECKING:
    from pal.data.samples import Sample

logger = logging.getLogger(__name__)

# COMET's relations in the order of the released files. A situation has those of the speaker alone.
RELATIONS = (
    "xAttr", "xEffect", "xIntent", "xNeed", "xReact", "xWant", "oWant", "oEffect", "oReact",
)  # fmt: skip
SITUATION_RELATIONS = tuple(name for name in RELATIONS if name.startswith("x"))

_END_OF_TAIL = "__EOS__"
_UTTERANCE = re.compile(r"\s*(\d+) ([01]) (\d+)(?: (.*))?", re.DOTALL)
_SAMPLES = "WithStrategy_short.tsv"


@dataclass(frozen=True)
class Knowledge:
    """What is known about a sample, as texts of blocks: ``[xReact] sad``.

    Attributes:
        utterance: on the seeker's last turn.
        situation: on the situation that the seeker described before.
    """

    utterance: tuple[str, ...] = ()
    situation: tuple[str, ...] = ()


@dataclass
class KnowledgeBase:
    """Blocks by text, for turns and for situations.

    Attributes:
        utterances: normalised text of a turn → its blocks.
        situations: likewise of situations.
    """

    utterances: dict[str, tuple[str, ...]] = field(default_factory=dict)
    situations: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, sample: "Sample") -> Knowledge:
        """Return what is known about a sample."""
        return Knowledge(
            self.utterances.get(knowledge_key(last_seeker_text(sample.context)), ()),
            self.situations.get(knowledge_key(sample.situation or ""), ()),
        )


def knowledge_key(text: str) -> str:
    """Return a text as it is looked up: letter case and spaces do not count."""
    return normalise_text(text).casefold()


def last_seeker_text(turns: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of the seeker's last turn; empty without one."""
    said = (turn["text"] for turn in reversed(turns) if turn["speaker"] == "seeker")
    return next(said, "")


def blocks_of(relations: Mapping[str, Sequence[str]], names: Sequence[str]) -> tuple[str, ...]:
    """Return the texts of the blocks of some relations, in the order of the released files."""
    return tuple(f"[{name}] {tail}" for name in names for tail in relations.get(name, ()))


def parse_comet_line(line: str) -> tuple[str, ...]:
    """Return the texts of the blocks of a line of the released files.

    Example:
        >>> parse_comet_line("[xAttr] tired__EOS__[xReact] ignored__EOS__")
        ('[xAttr] tired', '[xReact] ignored')
    """
    return tuple(part.strip() for part in line.split(_END_OF_TAIL) if part.strip())


def read_knowledge(path: str) -> KnowledgeBase:
    """Read a file of knowledge, or a folder in the released form.

    Args:
        path: the setting ``data.knowledge``.

    Raises:
        DataError: nothing there, or a line is not knowledge.
    """
    if Path(path).is_dir():
        return _read_released(Path(path))
    base = KnowledgeBase()
    for line, record in read_jsonl(path):
        where = f"data.knowledge={path}, line {line}"
        relations = _check_record(record, where)
        key = knowledge_key(record["text"])
        base.utterances[key] = blocks_of(relations, RELATIONS)
        base.situations[key] = blocks_of(relations, SITUATION_RELATIONS)
    return base


def _check_record(record: Any, where: str) -> dict[str, list[str]]:
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise DataError(f"{where}: not a record of knowledge; give 'text' and 'relations'")
    relations = record.get("relations")
    if not isinstance(relations, dict):
        raise DataError(f"{where}: 'relations' maps relations to lists of texts; add it")
    for name, tails in relations.items():
        if name not in RELATIONS:
            raise DataError(
                f"{where}: unknown relation {name!r:.40}{suggest(str(name), RELATIONS)} (allowed: "
                f"{', '.join(RELATIONS)})"
            )
        if not isinstance(tails, list) or not all(isinstance(tail, str) for tail in tails):
            raise DataError(f"{where}: {name} is not a list of texts, got {tails!r:.60}")
    return relations


def _read_released(folder: Path) -> KnowledgeBase:
    """Read the released form: four files a split, one line a sample."""
    files = sorted(folder.glob(f"*{_SAMPLES}"))
    if not files:
        raise DataError(
            f"data.knowledge={folder}: no *{_SAMPLES} in it; give the folder of the released "
            "files, or a file that `pal annotate annotate.knowledge=…` wrote"
        )
    base = KnowledgeBase()
    for file in files:
        prefix = file.name.removesuffix(_SAMPLES)
        samples = _lines(file)
        comet, st, situations = (
            _lines(folder / f"{prefix}{name}.txt") for name in ("Comet", "Comet_st", "Situation")
        )
        for name, lines in (("Comet", comet), ("Comet_st", st), ("Situation", situations)):
            if len(lines) != len(samples):
                raise DataError(
                    f"data.knowledge={folder}: {prefix}{name}.txt has {len(lines)} lines and "
                    f"{file.name} {len(samples)}; the files of a split are parallel"
                )
        for number, line in enumerate(samples):
            where = f"{file}, line {number + 1}"
            *context, _ = parse_sample_line(line, where)
            key = knowledge_key(last_seeker_text(context))
            base.utterances.setdefault(key, parse_comet_line(comet[number]))
            key = knowledge_key(situations[number])
            base.situations.setdefault(key, parse_comet_line(st[number]))
    return base


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except FileNotFoundError:
        raise DataError(f"data.knowledge: {path} is missing beside the others; add it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.knowledge: {path} cannot be read ({error}); copy it again") from None


def parse_sample_line(line: str, where: str) -> list[dict[str, Any]]:
    """Return the turns of a line of the released samples, the target last.

    Args:
        line: utterances ``emotion role turn text``, separated by ``EOS``.
        where: file and line, for messages.

    Raises:
        DataError: a part is no utterance.
    """
    turns = []
    for part in re.split(r"\bEOS\b", line):
        found = _UTTERANCE.fullmatch(part)
        if found is None:
            raise DataError(f"{where}: expected 'emotion role turn text', got {part.strip()!r:.60}")
        speaker = "supporter" if found[2] == "1" else "seeker"
        turns.append({"speaker": speaker, "text": (found[4] or "").strip()})
    return turns


def check_known(samples: "Iterable[Sample]", path: str) -> None:
    """Check that something is known about samples; a warning says how many have nothing.

    Args:
        samples: with their knowledge.
        path: the setting ``data.knowledge``.

    Raises:
        DataError: nothing is known about any of them.
    """
    count = turns = situations = 0
    for sample in samples:
        count += 1
        turns += bool(sample.knowledge and sample.knowledge.utterance)
        situations += bool(sample.knowledge and sample.knowledge.situation)
    if count and not turns + situations:
        raise DataError(
            f"data.knowledge={path}: nothing in it about any of the {count} samples; make it of "
            "the same dialogues (`pal annotate annotate.knowledge=…`)"
        )
    if turns < count:
        logger.warning(
            "data.knowledge=%s: nothing on the seeker's last turn of %d of %d samples (on the "
            "situation: of %d)", path, count - turns, count, count - situations,
        )  # fmt: skip
