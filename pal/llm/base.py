"""The interface of language models: requests and outcomes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pal.core.errors import PalError

REJECTED = "rejected by the server"  # begins the reason of a request that the server does not take
GIVEN_UP = "gave up"  # begins a reason that may pass: the request can be sent again
REPEAT = "overwrite=true repeats the requests that were given up; existing answers are kept"


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a model.

    Attributes:
        id: the caller's name for the request, unique within a call; not part of the cache key.
        messages: (role, text) pairs. Text that many requests share comes first, since servers
            reuse a common prefix.
        schema: JSON schema of the answer; None for free text.
        schema_name: name of the schema, of letters, digits, ``_`` and ``-``; not part of the cache
            key.
        max_tokens: maximum length of the answer, in tokens.
        temperature: sampling temperature; 0 for the most probable answer.
        seed: seed of the server's sampling; None leaves it to the server.
    """

    id: str
    messages: tuple[tuple[str, str], ...]
    schema: dict[str, Any] | None = None
    schema_name: str = "answer"
    max_tokens: int = 512
    temperature: float = 0.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a request.

    Attributes:
        id: id of the request.
        value: the parsed JSON (with a schema) or the text; None if there is no answer.
        reason: None if answered; otherwise the reason: ``refused``, ``malformed: …``,
            ``gave up after N attempts: …``.
    """

    id: str
    value: Any
    reason: str | None


def refuse_silence(outcomes: Sequence[Outcome], what: str) -> None:
    """Refuse to make a result of requests that were all given up or rejected.

    Without answers the result would hold nothing, yet count as finished.

    Args:
        outcomes: those of a whole step.
        what: the step, for the message.

    Raises:
        PalError: there are outcomes, and all were given up or rejected.
    """
    silent = (GIVEN_UP, REJECTED)
    reasons = [one.reason for one in outcomes if one.reason and one.reason.startswith(silent)]
    if reasons and len(reasons) == len(outcomes):
        raise PalError(
            f"{what}: none of {len(outcomes)} requests got an answer, the last: {reasons[-1]}; "
            "nothing is written, run the same command again once the server works again"
        )


def how_to_repeat(unanswered: Sequence[Mapping[str, Any]]) -> str:
    """Return the end of a message about requests without an answer: how to send them again.

    Args:
        unanswered: what has no answer, each with its ``reason``.
    """
    passing = any(one["reason"].startswith(GIVEN_UP) for one in unanswered)
    return f"; {REPEAT}" if passing else ""


Check = Callable[[Request, Any], str | None]


class LanguageModel(Protocol):
    """Anything that answers requests.

    Attributes:
        name: name of the model, for records.
    """

    name: str

    def describe(self) -> dict[str, Any]:
        """Return the facts about the model for the record of a run."""
        ...

    def ask(
        self, requests: Sequence[Request], *, description: str, check: Check | None = None
    ) -> list[Outcome]:
        """Answer requests, in their order; requests in the cache are not sent again.

        Args:
            requests: the questions.
            description: label of the progress bar.
            check: function that returns why a well-formed value is not acceptable (such as a wrong
                count), or None.
        """
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """The result of a backend for one request.

    Attributes:
        value: the answer, or None with a ``reason``.
        reason: why there is no answer.
        final: whether a further attempt would not help, so that the reply is stored.
        output_mode: how the format of the answer was requested (see
            :data:`pal.llm.settings.OUTPUT_MODES`).
        seconds: time from request to answer, in seconds.
        tokens_in: tokens of the prompt as the server counts them; None if it does not.
        tokens_out: tokens of the answer.
    """

    value: Any
    reason: str | None = None
    final: bool = True
    output_mode: str | None = None
    seconds: float | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """What earlier requests showed about an endpoint.

    Attributes:
        output_mode: how it gives structured answers; None if not known yet.
        system_role: whether it accepts a system message; otherwise that text is put before the
            first user turn.
    """

    output_mode: str | None = None
    system_role: bool = True


class Backend(Protocol):
    """A backend that answers requests that are not in the cache."""

    facts: EndpointFacts

    def answer(
        self,
        requests: dict[bytes, Request],
        check: Check | None,
        done: Callable[[bytes, Reply], None],
    ) -> None:
        """Answer every request and call ``done`` with its key and reply as soon as it arrives."""
        ...
