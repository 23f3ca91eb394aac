"""What is said of responses that are made in batches: no guard watches these, so it counts."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pal.core.job import counted
from pal.guard.levels import CRISIS
from pal.guard.lexicon import load_lexicon

logger = logging.getLogger(__name__)


def count_crises(contexts: Iterable[Sequence[Mapping[str, Any]]]) -> int:
    """Return in how many contexts the seeker's last turn reads as a crisis, by the lexicon alone.

    Args:
        contexts: turns with ``speaker`` and ``text``, oldest first.

    Example:
        >>> count_crises([[{"speaker": "seeker", "text": "I want to kill myself."}], []])
        1
    """
    said = (
        next((turn["text"] for turn in reversed(turns) if turn["speaker"] == "seeker"), "")
        for turns in contexts
    )
    return sum(found.level >= CRISIS for found in load_lexicon().detect(list(said)))


def warn_of_crises(count: int, path: Any) -> None:
    """Log that responses to people in a crisis were generated as any other; nothing for none.

    Args:
        count: of :func:`count_crises`.
        path: file of the responses.
    """
    if count:
        logger.warning(
            "%s of %s to a turn that reads as a crisis (suicide, self-harm), written without the "
            "guard: let a person read them before anybody else does (docs/guard.md)",
            counted(count, "response"), path,
        )  # fmt: skip
