"""Rehearsal of a chain of steps: it counts the requests that are not in the cache, sends none.

The requests of a step depend on the answers of earlier steps. A placeholder of the right format and
a typical length replaces an answer that is not in the cache, so counts are exact as far as they do
not depend on the content of answers.
"""

from typing import Any

from pal.llm.asking import CachedModel, Replies
from pal.llm.base import Check, Request
from pal.llm.cache import Cache
from pal.llm.estimate import Volume, describe_volumes, volume_of
from pal.llm.origin import origin_of
from pal.llm.settings import LlmSettings

WORDS = 40  # words of a placeholder text


class Rehearsal(CachedModel):
    """Answers from the cache and with placeholders; it sends and stores nothing.

    Args:
        settings: settings of the model.
        dtype: number format of a local model's weights.

    Attributes:
        stage: name of the next step in the estimate; its own description if empty.
        volumes: volume of the requests that are not in the cache, per step.
    """

    def __init__(self, settings: LlmSettings, dtype: str = "float32"):
        cache = Cache(settings.cache, trust_old_answers=settings.trust_old_answers)
        super().__init__(settings, origin_of(settings, dtype), cache, None)
        self.stage = ""
        self.volumes: list[Volume] = []

    def answer_missing(
        self,
        missing: dict[bytes, Request],
        total: int,
        description: str,
        check: Check | None,
        replies: Replies,
    ) -> None:
        """Record the volume, and put placeholders into ``replies``."""
        self.volumes.append(volume_of(missing.values(), self.stage or description))
        for key, request in missing.items():
            replies[key] = (stand_in(request.schema, key.hex()[:12]), None)

    def describe_all(self) -> str:
        """Return the estimate of all steps as a Markdown table."""
        measured = self.cache.measured(self.origin)
        kept = (
            f"nothing left to ask: the answers are kept in {self._settings.cache}; another "
            "llm.cache=FILE asks again"
        )
        volumes = self.volumes or [Volume(kept, 0, 0, 0)]
        return describe_volumes(volumes, self._settings, measured)


def stand_in(schema: dict[str, Any] | None, name: str = "") -> Any:
    """Return a placeholder of a schema: texts of 40 words, lists of medium length, middle choices.

    Args:
        schema: JSON schema; None for free text.
        name: prefix of every text. Equal answers would make equal requests in the next step, which
            are counted once.
    """
    text = " ".join([name or "word", *["word"] * (WORDS - 1)])
    if schema is None:
        return text
    if "enum" in schema:
        return schema["enum"][len(schema["enum"]) // 2]
    kind = schema.get("type")
    if kind == "object":
        return {key: stand_in(part, name) for key, part in schema.get("properties", {}).items()}
    if kind == "array":
        fewest = schema.get("minItems", 1)
        count = (fewest + schema.get("maxItems", fewest)) // 2
        return [stand_in(schema.get("items"), name) for _ in range(count)]
    return {"boolean": True, "integer": 0, "number": 0.0, "null": None}.get(str(kind), text)
