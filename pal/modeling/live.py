"""Answering samples that come at any moment, token by token: what chats and servers run on.

A response is the one that :meth:`Responder.answer` gives for the same sample, seed and settings,
whatever else is answered at the time.
"""

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import count, groupby
from typing import Any

import torch

from pal.data.samples import Sample
from pal.decoding.engine import Answer, DecodingRequest, Engine
from pal.decoding.language import LanguageEngine, LanguageRequest
from pal.decoding.noise import sample_keys
from pal.decoding.plan import DecodingPlan, can_contrast
from pal.modeling.encoding import encode_sorted, input_length


@dataclass(frozen=True)
class LiveRequest:
    """A sample to answer, and what is asked of its response.

    Attributes:
        sample: dialogue and persona.
        seed: key of the noise, with the sample's id.
        strategy: id of the strategy; None predicts it.
        alpha: contrast weight of each strategy.
        limit: tokens of the response, at most, where that is fewer than the settings'.
    """

    sample: Sample
    seed: int
    strategy: int | None
    alpha: tuple[float, ...]
    limit: int | None = None


@dataclass(frozen=True)
class Progress:
    """The response of one request, as far as it is known.

    Attributes:
        ticket: number of the request.
        answer: strategy, its probabilities, α, and the tokens so far.
        finish: ``stop`` or ``length`` when that is all of it; None while it grows.
    """

    ticket: int
    answer: Answer
    finish: str | None = None


class LiveResponder:
    """Base of what answers requests that come at any moment. One thread at a time may use it.

    Args:
        responder: of the model.
        plan: how responses are decoded.
        rows: answered at once, at most.
    """

    def __init__(self, responder: Any, plan: DecodingPlan, rows: int):
        self.responder, self.plan, self.rows = responder, plan, rows
        self.tickets = count()

    @property
    def end(self) -> int:
        """The token that ends a response."""
        raise NotImplementedError

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        raise NotImplementedError

    def add(self, request: LiveRequest) -> int:
        """Queue a request and return its ticket."""
        raise NotImplementedError

    def advance(self) -> list[Progress]:
        """Run one step for all that can be answered at once; return what it brought."""
        raise NotImplementedError

    def drop(self, ticket: int) -> None:
        """Take a request out, answered or not; what has ended is no error."""
        raise NotImplementedError

    def decode(self, answer: Answer) -> str:
        """Return the text of an answer's tokens."""
        tokens = answer.tokens
        ended = bool(tokens) and tokens[-1] == self.end
        text: str = self.responder.encoder.decode(tokens[:-1] if ended else tokens)
        return text

    def _key(self, request: LiveRequest) -> int:
        return int(sample_keys(request.seed, [request.sample.id]).item())

    def _progress(self, events: Iterable[Any]) -> list[Progress]:
        return [
            Progress(event.ticket, event.answer, self._finish(event.answer, event.ended))
            for event in events
        ]

    def _finish(self, answer: Answer, ended: bool) -> str | None:
        if not ended:
            return None
        return "stop" if answer.tokens[-1:] == [self.end] else "length"


class SteppingResponder(LiveResponder):
    """Encoder-decoders with a fast decoder: one step for all rows at a time."""

    def __init__(self, responder: Any, plan: DecodingPlan, rows: int):
        super().__init__(responder, plan, rows)
        self.inputs: dict[int, dict[str, list[int]]] = {}
        engine = Engine(
            responder.decoder, plan, rows=rows, contrasts=can_contrast(responder.model.config)
        )
        self.run = engine.open(self._encode)

    def _encode(self, tickets: Sequence[int]) -> Any:
        return encode_sorted(self.responder.packed, [self.inputs[ticket] for ticket in tickets])

    @property
    def end(self) -> int:
        """The token that ends a response."""
        return int(self.responder.model.config.eos_token_id)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return self.run.idle

    def add(self, request: LiveRequest) -> int:
        """Queue a request and return its ticket."""
        ticket = next(self.tickets)
        [inputs] = self.responder.encode([request.sample])
        self.inputs[ticket] = inputs
        self.run.add(
            ticket,
            DecodingRequest(self._key(request), request.strategy, request.alpha, request.limit),
            input_length(inputs),
        )
        return ticket

    def advance(self) -> list[Progress]:
        """Run one step for all that can be answered at once; return what it brought."""
        found = self._progress(self.run.advance())
        for progress in found:
            if progress.finish:
                self.inputs.pop(progress.ticket)
        return found

    def drop(self, ticket: int) -> None:
        """Take a request out, answered or not; what has ended is no error."""
        self.run.drop(ticket)
        self.inputs.pop(ticket, None)


class SteppingLanguageResponder(LiveResponder):
    """Decoder-only models: one step for all rows at a time."""

    def __init__(self, responder: Any, plan: DecodingPlan, rows: int, positions: int = 16384):
        super().__init__(responder, plan, rows)
        encoder = responder.encoder
        self.run = LanguageEngine(
            responder.model, plan, strategies=encoder.strategy_ids, end=encoder.end,
            suppressed=encoder.special, rows=rows, positions=positions,
        ).open()  # fmt: skip

    @property
    def end(self) -> int:
        """The token that ends a response."""
        return int(self.responder.encoder.end)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return self.run.idle

    def add(self, request: LiveRequest) -> int:
        """Queue a request and return its ticket."""
        ticket = next(self.tickets)
        [inputs] = self.responder.encode([request.sample])
        self.run.add(ticket, LanguageRequest(
            self._key(request), inputs["input_ids"], inputs["plain_input_ids"], request.strategy,
            request.alpha, request.limit,
        ))  # fmt: skip
        return ticket

    def advance(self) -> list[Progress]:
        """Run one step for all that can be answered at once; return what it brought."""
        return self._progress(self.run.advance())

    def drop(self, ticket: int) -> None:
        """Take a request out, answered or not; what has ended is no error."""
        self.run.drop(ticket)


class WholeResponder(LiveResponder):
    """Models that the library's ``generate`` decodes: responses come whole, those alike at once."""

    def __init__(self, responder: Any, plan: DecodingPlan, rows: int):
        super().__init__(responder, plan, rows)
        self.waiting: list[tuple[int, LiveRequest]] = []

    @property
    def end(self) -> int:
        """The token that ends a response."""
        return int(self.responder.model.config.eos_token_id)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.waiting

    def add(self, request: LiveRequest) -> int:
        """Queue a request and return its ticket."""
        ticket = next(self.tickets)
        self.waiting.append((ticket, request))
        return ticket

    def drop(self, ticket: int) -> None:
        """Take a request out, answered or not; what has ended is no error."""
        self.waiting = [one for one in self.waiting if one[0] != ticket]

    @torch.inference_mode()
    def advance(self) -> list[Progress]:
        """Answer the requests at the head of the queue that differ in their samples alone."""

        def shared(one: tuple[int, LiveRequest]) -> Any:
            request = one[1]
            return request.seed, request.alpha, request.limit, request.strategy is None

        if not self.waiting:
            return []
        group = list(next(groupby(self.waiting, shared))[1])[: self.rows]
        del self.waiting[: len(group)]
        first = group[0][1]
        options = self.plan.options
        most = min(options.max_new_tokens, first.limit or options.max_new_tokens)
        least: Any = {
            "max_new_tokens": most, "min_new_tokens": min(options.least, most),
        }  # fmt: skip
        responder = copy(self.responder)
        responder.seed = first.seed
        responder.plan = replace(
            self.plan, alpha=first.alpha, options=options.model_copy(update=least)
        )
        samples = [request.sample for _, request in group]
        strategies = None if first.strategy is None else [r.strategy for _, r in group]
        states = responder.encode_states(responder.encode(samples))
        answers = responder.generate_answers(samples, states, responder.plan, strategies)
        return [
            Progress(ticket, answer, self._finish(answer, True))
            for (ticket, _), answer in zip(group, answers, strict=True)
        ]
