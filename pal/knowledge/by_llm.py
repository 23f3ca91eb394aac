"""Knowledge by a language model, one request for all relations of a text."""

from collections.abc import Sequence
from pathlib import Path

from pal.data.knowledge import RELATIONS
from pal.llm.base import LanguageModel, Outcome, Request
from pal.llm.prompts import Prompt, load_prompt

# The schema of an answer: a list of short texts for every relation.
KNOWLEDGE = {
    "type": "object",
    "properties": {
        name: {"type": "array", "items": {"type": "string"}} for name in RELATIONS
    },
    "required": list(RELATIONS),
    "additionalProperties": False,
}  # fmt: skip


def load_knowledge_prompt() -> Prompt:
    """Return the prompt for knowledge."""
    return load_prompt(Path(__file__).parent / "prompts", "knowledge")


def infer_knowledge(texts: Sequence[str], model: LanguageModel, *, tails: int) -> list[Outcome]:
    """Return the outcome of each text: relation → tails, or the reason for none.

    Args:
        texts: what seekers said or wrote.
        model: the language model.
        tails: of a relation, at most.

    Raises:
        PalError: the model cannot be used.
    """
    prompt = load_knowledge_prompt()
    requests = [
        Request(
            id=str(index), schema=KNOWLEDGE, schema_name="knowledge",
            messages=prompt.fill(text=text, tails=tails),
        )
        for index, text in enumerate(texts)
    ]  # fmt: skip
    return model.ask(requests, description="annotate")
