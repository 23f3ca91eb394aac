"""What knowledge is asked about, and how answers become a file of it."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from pal.data.knowledge import RELATIONS

Relations = dict[str, list[str]]
NOTHING = ("", "none")  # tails that say nothing


def knowledge_queries(dialogues: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the texts that MISC reads knowledge about, each once, in order.

    They are the situations, and the seeker turns that are the last before a supporter turn or
    before a request; no context ends its seeker's part with another.

    Args:
        dialogues: rows of :func:`pal.data.load_esconv`.
    """
    texts: list[str] = []
    for dialogue in dialogues:
        texts.append(dialogue.get("situation") or "")
        closed = [*dialogue["dialog"], {"speaker": "supporter"}]
        texts += [
            turn["text"] for turn, after in pairwise(closed)
            if turn["speaker"] == "seeker" and after["speaker"] == "supporter"
        ]  # fmt: skip
    return [text for text in dict.fromkeys(texts) if text.strip()]


def clean_tails(tails: Iterable[str], most: int) -> list[str]:
    """Return tails in small letters, without empty ones, ``none`` and doubles.

    Args:
        tails: the best first.
        most: how many are kept, at most.

    Example:
        >>> clean_tails([" Sad.", "none", "sad", "to rest"], 5)
        ['sad', 'to rest']
    """
    plain = (" ".join(tail.lower().split()).strip(" .") for tail in tails)
    return list(dict.fromkeys(tail for tail in plain if tail not in NOTHING))[:most]


def knowledge_records(texts: Sequence[str], found: Mapping[str, Relations]) -> list[dict[str, Any]]:
    """Return the lines of a file of knowledge.

    Args:
        texts: from :func:`knowledge_queries`.
        found: text → relation → tails.
    """
    return [
        {"text": text, "relations": {name: found[text].get(name, []) for name in RELATIONS}}
        for text in texts
    ]
