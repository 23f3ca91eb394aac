"""What the rooms above know of a language model: requests in, outcomes out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model.

    Attributes:
        id: the caller's name of it, unique within a call; not part of the cache key.
        messages: (role, text) pairs; what many requests share comes first: servers reuse it.
        schema: JSON schema of the answer; None for free text.
        schema_name: its name, of letters, digits, ``_`` and ``-``; not part of the cache key.
        max_tokens: longest answer, tokens.
        temperature: 0 for the likeliest answer.
        seed: of the server's sampling; None leaves it to the server.
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
    """What came of a request.

    Attributes:
        id: of the request.
        value: the parsed JSON (with a schema) or the text; None when there is no answer.
        reason: None when answered; else why not: ``refused``, ``malformed: …``,
            ``gave up after N attempts: …``.
    """

    id: str
    value: Any
    reason: str | None


Check = Callable[[Request, Any], str | None]


class LanguageModel(Protocol):
    """Anything that answers requests.

    Attributes:
        name: the model's, for records.
    """

    name: str

    def describe(self) -> dict[str, Any]:
        """Return what a record of a run says of the model."""
        ...

    def ask(
        self, requests: Sequence[Request], *, description: str, check: Check | None = None
    ) -> list[Outcome]:
        """Answer requests, in their order; what the cache holds is not asked again.

        Args:
            requests: the questions.
            description: what the progress bar says.
            check: returns why a well-formed value is not acceptable (a wrong count, …), or None.
        """
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """What a backend found out about one request.

    Attributes:
        value: the answer; None with a ``reason``.
        reason: why there is none.
        final: asking again would bring nothing else, so it is stored.
        output_mode: how the answer's form was asked for (see
            :data:`pal.llm.settings.OUTPUT_MODES`).
        seconds: from request to answer.
        tokens_in: of the prompt, as the server counts; None where it does not.
        tokens_out: of the answer.
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
    """What was found out about an endpoint, once and for all.

    Attributes:
        output_mode: how it gives answers of a given form; None before that is known.
        system_role: whether it takes a system message; otherwise that text goes before the first
            user turn.
    """

    output_mode: str | None = None
    system_role: bool = True


class Backend(Protocol):
    """What answers requests that no cache holds."""

    facts: EndpointFacts

    def answer(
        self,
        requests: dict[bytes, Request],
        check: Check | None,
        done: Callable[[bytes, Reply], None],
    ) -> None:
        """Answer every request and call ``done`` with its key and reply as soon as it is there."""
        ...
