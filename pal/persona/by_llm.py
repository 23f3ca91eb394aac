"""Persona inference by a language model, one request per dialogue prefix."""

from collections.abc import Sequence
from pathlib import Path

from pal.llm.base import LanguageModel, Outcome, Request
from pal.llm.prompts import Prompt, load_prompt

# The schema of an answer.
SENTENCES = {
    "type": "object",
    "properties": {"sentences": {"type": "array", "items": {"type": "string"}}},
    "required": ["sentences"],
    "additionalProperties": False,
}


def load_persona_prompt() -> Prompt:
    """Return the prompt for persona sentences."""
    return load_prompt(Path(__file__).parent / "prompts", "persona")


def infer_personas(
    prefixes: Sequence[tuple[str, ...]], model: LanguageModel
) -> dict[tuple[str, ...], Outcome]:
    """Return the outcome of each prefix: ``{"sentences": […]}``, or the reason for none.

    Args:
        prefixes: the seeker's utterances up to a turn.
        model: the language model.

    Raises:
        PalError: the model cannot be used.
    """
    prompt = load_persona_prompt()
    requests = [
        Request(
            id=str(index), schema=SENTENCES, schema_name="persona",
            messages=prompt.fill(utterances=prefix),
        )
        for index, prefix in enumerate(prefixes)
    ]  # fmt: skip
    outcomes = model.ask(requests, description="annotate")
    return dict(zip(prefixes, outcomes, strict=True))
