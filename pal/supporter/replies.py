"""Requests for the supporter's next turn, and what a language model answers to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pal.core.errors import PalError
from pal.core.files import fingerprint
from pal.data.strategies import DEFINITIONS, STRATEGIES
from pal.data.texts import normalise_text
from pal.llm.base import GIVEN_UP, LanguageModel, Outcome, Request
from pal.llm.prompts import Prompt, load_prompt
from pal.llm.structured import parse
from pal.supporter.settings import SupporterSettings

# Answers with a strategy: the model writes the keys in this order, so the response follows from it.
STRATEGY_THEN_RESPONSE = {
    "type": "object",
    "properties": {
        "strategy": {"type": "string", "enum": list(STRATEGIES)},
        "response": {"type": "string"},
    },
    "required": ["strategy", "response"],
    "additionalProperties": False,
}

EMPTY = "the response is empty"


@dataclass(frozen=True, slots=True)
class Situation:
    """A dialogue that waits for the supporter's next turn.

    Attributes:
        id: unique name; with the seed it keys the server's sampling.
        turns: the turns so far, with ``speaker`` and ``text``.
        persona: what is known of the seeker, in sentences.
    """

    id: str
    turns: Sequence[Mapping[str, Any]]
    persona: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class SupporterReply:
    """What a model answered.

    Attributes:
        text: the response; empty if there is none.
        strategy: the strategy that the model chose; None if it was not asked for one.
        failed: why there is no response.
    """

    text: str
    strategy: str | None
    failed: str | None


def load_supporter_prompt() -> Prompt:
    """Return the prompt of a supporter's turn."""
    return load_prompt(Path(__file__).parent / "prompts", "supporter")


def transcribe(turns: Sequence[Mapping[str, Any]]) -> str:
    """Return turns as lines ``Seeker: …`` and ``Supporter: …``; no text can start a line itself."""
    return "\n".join(
        f"{turn['speaker'].capitalize()}: {normalise_text(turn['text'])}" for turn in turns
    )


def seed_of(seed: int, *key: str) -> int:
    """Return the sampling seed of one request, which follows from its key alone."""
    return int(fingerprint([seed, *key])[:7], 16)


def supporter_messages(one: Situation, how: SupporterSettings) -> tuple[tuple[str, str], ...]:
    """Return the (role, text) pairs, system and user, that ask for the supporter's next turn."""
    return load_supporter_prompt().fill(
        strategies=DEFINITIONS if how.strategy_first else None,
        persona=[normalise_text(text) for text in one.persona] if how.persona else None,
        dialogue=transcribe(one.turns),
    )


def ask_supporter(
    model: LanguageModel,
    situations: Sequence[Situation],
    how: SupporterSettings,
    *,
    seed: int,
    description: str = "supporter",
) -> list[SupporterReply]:
    """Ask a language model for the supporter's next turn of every dialogue.

    Args:
        model: the language model.
        situations: the dialogues; their ids are unique.
        how: persona, strategy, temperature and length.
        seed: key of the server's sampling, used where the temperature is not 0.
        description: label of the progress bar.

    Raises:
        PalError: the model cannot be used, or a request brought no answer for a passing reason, so
            that the same command can be run again.
    """
    schema = _schema(how)
    requests = [
        Request(
            id=one.id, schema=schema, schema_name="turn", max_tokens=how.max_tokens,
            temperature=how.temperature,
            seed=seed_of(seed, one.id) if how.temperature else None,
            messages=supporter_messages(one, how),
        )
        for one in situations
    ]  # fmt: skip
    outcomes = model.ask(requests, description=description, check=_check)
    refuse_unanswered(outcomes, description)
    return [_reply(outcome, how) for outcome in outcomes]


def refuse_unanswered(outcomes: Sequence[Outcome], what: str) -> None:
    """Refuse to go on where requests got no answer for a reason that may pass.

    Raises:
        PalError: some did.
    """
    open_ones = [one for one in outcomes if one.reason and one.reason.startswith(GIVEN_UP)]
    if open_ones:
        raise PalError(
            f"{what}: {len(open_ones)} of {len(outcomes)} requests got no answer "
            f"({open_ones[0].reason}); the other answers are kept, run the same command again"
        )


def read_reply(text: str, how: SupporterSettings) -> SupporterReply:
    """Return what a model's whole answer says, by the rules of :func:`ask_supporter`.

    For programs that ask a model themselves. An answer that is not what was asked for is an empty
    response, with the reason.
    """
    value, reason = parse(text, _schema(how))
    if reason is None:
        said = value["response"] if how.strategy_first else value
        reason = None if normalise_text(said) else EMPTY
    return _reply(Outcome("", value, reason), how)


def prediction_record(
    reply: SupporterReply,
    *,
    id: str,
    persona: Sequence[str],
    reference: str | None,
    reference_strategy: str | None,
) -> dict[str, Any]:
    """Return the record of a prediction file that a reply gives, with the gold it answers to."""
    chosen = {"strategy": reply.strategy, "strategy_from": "model"}
    return {
        "id": id,
        "response": reply.text,
        **(chosen if reply.strategy else {}),
        "persona": list(persona),
        "reference": reference,
        "reference_strategy": reference_strategy,
        **({"failed": reply.failed} if reply.failed else {}),
    }


def _schema(how: SupporterSettings) -> dict[str, Any] | None:
    return STRATEGY_THEN_RESPONSE if how.strategy_first else None


def _check(request: Request, value: Any) -> str | None:
    text = value if request.schema is None else value["response"]
    return None if normalise_text(text) else EMPTY


def _reply(outcome: Outcome, how: SupporterSettings) -> SupporterReply:
    if outcome.reason:
        return SupporterReply("", "Others" if how.strategy_first else None, outcome.reason)
    if not how.strategy_first:
        return SupporterReply(normalise_text(outcome.value), None, None)
    return SupporterReply(
        normalise_text(outcome.value["response"]), outcome.value["strategy"], None
    )
