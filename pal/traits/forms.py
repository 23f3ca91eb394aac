"""JSON schemas of the answers in the steps of the trait studies."""

from collections.abc import Mapping, Sequence
from typing import Any

from pal.llm.base import Request
from pal.traits.inventories import SCALE

AGES = ("teenage", "young", "middle-aged", "old", "unknown")
GENDERS = ("male", "female", "unknown")
CRITERIA = ("emotions", "events", "background", "cause_and_consequence", "specific")
TEXT = {"type": "string"}


def object_schema(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of an object that has exactly these properties."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


PERSON = {
    "age": {"type": "string", "enum": list(AGES)},
    "gender": {"type": "string", "enum": list(GENDERS)},
    "occupation": TEXT,
    "description": TEXT,
}
CARD = object_schema({**PERSON, "problem": TEXT})
EXPANDED = object_schema(PERSON)
VERDICT = object_schema(
    {
        **{name: {"type": "boolean"} for name in CRITERIA},
        "keep": {"type": "boolean"},
        "reasons": {"type": "array", "items": TEXT},
    }
)
# Listed one by one: not every server enforces a smallest and a largest number.
ANSWER = object_schema({"answer": {"type": "integer", "enum": list(SCALE)}})


def dialog_schema(turns: Sequence[int], strategies: Sequence[str]) -> dict[str, Any]:
    """Return the schema of a dialogue of (fewest, most) turns, two an exchange.

    Exchanges make the alternation of speakers, their number and the supporter's strategy part of
    the form, which a server that enforces the schema cannot miss.

    Args:
        turns: fewest and most.
        strategies: names to choose from.
    """
    exchange = object_schema(
        {"seeker": TEXT, "strategy": {"type": "string", "enum": [*strategies]}, "supporter": TEXT}
    )
    fewest = -(-turns[0] // 2)
    most = max(fewest, turns[1] // 2)
    return object_schema(
        {"dialog": {"type": "array", "items": exchange, "minItems": fewest, "maxItems": most}}
    )


def check_texts(_: Request, value: Any) -> str | None:
    """Return which text of an answer is empty, or None."""
    empty = [key for key, text in value.items() if isinstance(text, str) and not text.strip()]
    return f"empty {', '.join(empty)}" if empty else None


def check_dialog(_: Request, value: Any) -> str | None:
    """Return what is wrong with exchanges that have the form of :func:`dialog_schema`, or None."""
    for index, exchange in enumerate(value["dialog"]):
        for speaker in ("seeker", "supporter"):
            if not exchange[speaker].strip():
                return f"exchange {index}: no text of the {speaker}"
    return None
