"""What is said of responses that are made in batches: no guard watches these, so it counts."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pal.core.job import counted
from pal.guard.levels import CONCERN, CRISIS
from pal.guard.lexicon import load_lexicon

logger = logging.getLogger(__name__)


def count_levels(contexts: Iterable[Sequence[Mapping[str, Any]]]) -> Counter[int]:
    """Return in how many contexts the seeker's last turn is of each level, by the lexicon alone.

    Args:
        contexts: turns with ``speaker`` and ``text``, oldest first.

    Returns:
        Number of contexts by level, 0 to 3 (:mod:`pal.guard.levels`).

    Example:
        >>> count_levels([[{"speaker": "seeker", "text": "I want to kill myself."}], []])
        Counter({2: 1, 0: 1})
    """
    said = (
        next((turn["text"] for turn in reversed(turns) if turn["speaker"] == "seeker"), "")
        for turns in contexts
    )
    return Counter(found.level for found in load_lexicon().detect(list(said)))


def warn_of_crises(levels: Mapping[int, int], path: Any) -> None:
    """Log that responses to people in need of help were generated as any other; nothing for none.

    Args:
        levels: of :func:`count_levels`.
        path: file of the responses.
    """
    crises = sum(count for level, count in levels.items() if level >= CRISIS)
    concerns = levels.get(CONCERN, 0)
    if crises:
        logger.warning(
            "%s of %s to a turn that reads as a crisis (suicide, self-harm), written without the "
            "guard: let a person read them before anybody else does (docs/guard.md)",
            counted(crises, "response"), path,
        )  # fmt: skip
    if concerns:
        logger.warning(
            "%s of %s to a turn that gives cause for concern (passive or indirect wording, or "
            "somebody else at risk), written without the guard, which would show help "
            "(docs/guard.md)",
            counted(concerns, "response"), path,
        )  # fmt: skip
