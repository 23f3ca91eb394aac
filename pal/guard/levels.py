"""What the guard finds and what follows from it. No value here holds any text of the user."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

NONE, CONCERN, CRISIS, EMERGENCY = 0, 1, 2, 3

Status = Literal["ok", "unavailable", "off"]
Action = Literal["reply", "reply_with_help", "fixed", "help_only"]


@dataclass(frozen=True, slots=True)
class Detection:
    """What one detector finds in one text.

    Attributes:
        level: 0 none, 1 concern, 2 crisis, 3 emergency.
        categories: kinds of what was found, such as ``ideation_passive``.
        hinted_level: level that holds only where an earlier turn gives cause for concern:
            "I have made my decision" says little alone.
        hinted_categories: kinds of that.
        despair: whether the text gives such cause, though it is no concern by itself.
    """

    level: int = NONE
    categories: frozenset[str] = frozenset()
    hinted_level: int = NONE
    hinted_categories: frozenset[str] = frozenset()
    despair: bool = False


class Detector(Protocol):
    """Finds signs in texts. A detector can raise the level and never lower it.

    Attributes:
        name: a short name that results carry.
        version: changes whenever a result can.
        quick: whether a text takes well below a millisecond, so that whole histories are read.
    """

    name: str
    version: str
    quick: bool

    def detect(self, texts: Sequence[str]) -> Sequence[Detection]:
        """Return one detection a text."""
        ...


@dataclass(frozen=True, slots=True)
class Assessment:
    """The state of a conversation after its last turn.

    Attributes:
        level: 0 none, 1 concern (passive or indirect wording, or somebody else at risk), 2 crisis
            (active thoughts of suicide, self-harm), 3 emergency (a plan, means, under way).
        categories: kinds of what was found, sorted.
        detectors: names of the detectors that found the level, sorted.
        status: ``unavailable`` where a detector failed or the text cannot be read; ``level`` is
            then what the others found, and no sign that all is well.
        guard_version: version of lexicon, texts and models together.
    """

    level: int
    categories: tuple[str, ...]
    detectors: tuple[str, ...]
    status: Status
    guard_version: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a talking face does with a turn.

    Attributes:
        level: level of this turn in itself; see :class:`Assessment`.
        pinned: level that help stays on view for after this turn; 0 if for none.
        status: ``ok``, ``unavailable`` or ``off``.
        action: ``reply``: generate. ``reply_with_help``: generate, and show ``help``. ``fixed``:
            show ``text`` and ``help``, generate nothing. ``help_only``: the guard could not read
            the turn; show ``text`` and ``help``, generate nothing.
        text: the fixed reply in place of a generated one.
        help: line or lines to keep on view.
        categories: kinds of what was found, sorted.
    """

    level: int
    pinned: int
    status: Status
    action: Action
    text: str | None
    help: str | None
    categories: tuple[str, ...]
