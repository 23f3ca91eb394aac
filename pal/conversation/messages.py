"""Chat messages as people and servers write them, turned into a dialogue of the project."""

from collections.abc import Mapping, Sequence
from typing import Any

from pal.core.errors import DataError
from pal.data.records import parse_dialogue

# What chat formats call the two, and what the corpora do.
ROLES = {"user": "seeker", "assistant": "supporter", "seeker": "seeker", "supporter": "supporter"}

Message = Mapping[str, Any]


def read_messages(
    messages: Sequence[Message],
    *,
    name: str = "chat",
    persona: Sequence[str] | None = None,
    where: str = "messages",
) -> dict[str, Any]:
    """Return the dialogue that ends with messages, checked and normalised as one of a file is.

    Args:
        messages: ``{"role": …, "content": …}``, oldest first; an assistant's may hold ``strategy``.
        name: id of the dialogue.
        persona: what is known of the seeker, in sentences.
        where: what the messages are called in errors.

    Returns:
        A row as :func:`pal.load_esconv` has them, a request for the next turn.

    Raises:
        DataError: a message cannot be used; the error names it, and never quotes it.

    Example:
        >>> read_messages([{"role": "user", "content": "I lost my job."}])["dialog"][0]["speaker"]
        'seeker'
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise DataError(
            f"{where}: expected a list of messages such as "
            '[{"role": "user", "content": "I lost my job."}]'
        )
    turns = [_read_turn(one, f"{where}[{number}]") for number, one in enumerate(messages)]
    if not any(turn["speaker"] == "seeker" for turn in turns):
        raise DataError(f"{where}: no user message; give at least one")
    known = [persona] if isinstance(persona, str) else list(persona or [])
    if not all(isinstance(sentence, str) for sentence in known):
        raise DataError("persona: expected a list of sentences")
    record = {"dialog": turns, "persona": known, "request": True}
    return parse_dialogue(record, name, where, requests=True)


def _read_turn(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise DataError(f'{where}: expected an object with "role" and "content"')
    missing = [key for key in ("role", "content") if key not in message]
    if missing:
        # what is no name of a key may be what somebody said
        names = [key for key in message if isinstance(key, str) and key.isidentifier()]
        shown = ", ".join(f"{key!r:.40}" for key in names)[:200] or "none"
        raise DataError(f"{where}: missing key {missing[0]!r}; it has {shown}")
    role, content = message.get("role"), _text(message.get("content"))
    if role in ("system", "developer"):
        raise DataError(
            f"{where}: these models take no system message; leave it out, and give what is known "
            "of the seeker as persona"
        )
    if not isinstance(role, str) or role not in ROLES:
        raise DataError(f"{where}: role must be one of {', '.join(ROLES)}")
    if content is None or not content.strip():
        raise DataError(f"{where}: content must be non-empty text")
    strategy = message.get("strategy") if ROLES[role] == "supporter" else None
    return {"speaker": ROLES[role], "text": content, "strategy": strategy}


def _text(content: Any) -> str | None:
    """Return the text of a message: a string, or parts of type ``text``."""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        texts = [
            part.get("text")
            for part in content
            if isinstance(part, Mapping) and part.get("type") == "text"
        ]
        if len(texts) == len(content) and all(isinstance(text, str) for text in texts):
            return "\n".join(map(str, texts))
    return None
