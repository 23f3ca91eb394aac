"""Personas inferred by a language model, one prefix of a dialogue a question."""

from collections.abc import Sequence
from pathlib import Path

from pal.llm.base import LanguageModel, Outcome, Request
from pal.llm.prompts import Prompt, load_prompt

# The form of an answer.
SENTENCES = {
    "type": "object",
    "properties": {"sentences": {"type": "array", "items": {"type": "string"}}},
    "required": ["sentences"],
    "additionalProperties": False,
}


def load_persona_prompt() -> Prompt:
    """Load the prompt that asks for persona sentences."""
    return load_prompt(Path(__file__).parent / "prompts", "persona")


def infer_personas(
    prefixes: Sequence[tuple[str, ...]], model: LanguageModel
) -> dict[tuple[str, ...], Outcome]:
    """Return what a model infers from each prefix: ``{"sentences": […]}``, or why nothing.

    Args:
        prefixes: what the seeker has said so far, turn by turn.
        model: asks and remembers.

    Raises:
        PalError: the model cannot be asked.
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
