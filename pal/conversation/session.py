"""The session that every talking face uses: messages in, guarded replies out.

Python, terminal, server, page and studies all answer through :class:`Session`, which has a guard
or cannot be made. What the guard lets through is what ``pal generate`` writes for the same
dialogue, seed and id.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pal.conversation.inference import PersonaInference
from pal.conversation.messages import Message, read_messages
from pal.conversation.settings import TalkSettings
from pal.core.errors import ConfigError, DataError
from pal.core.job import process_state
from pal.core.registry import trust
from pal.data.samples import build_samples
from pal.data.texts import normalise_text
from pal.decoding.plan import alpha_of, can_contrast, check_decoding, strategies_of
from pal.decoding.settings import DecodingSettings, SamplingOptions
from pal.guard import Guard, GuardSettings, Verdict, load_guard
from pal.modeling.live import LiveRequest, LiveResponder, Progress
from pal.modeling.responder import load_model_and_tokenizer, make_responder
from pal.persona.settings import PersonaSettings

ROWS = 16  # replies that grow at once, unless told otherwise

Finish = Literal["stop", "length", "guard"]


@dataclass(frozen=True)
class ChatReply:
    """What a face shows.

    Attributes:
        text: the response, behind the guard's help where a turn gives cause for concern; or the
            guard's own text.
        strategy: strategy of the response; None where the guard speaks.
        strategy_probs: the model's probabilities of the strategies.
        persona: what was known of the seeker, in sentences.
        alpha: contrast weight of the response.
        finish: ``stop``, ``length`` (cut at its limit) or ``guard`` (the guard speaks).
        prompt_tokens: tokens that the model read.
        tokens: tokens of the response.
        guard: the guard's verdict on the last turn.
    """

    text: str
    strategy: str | None
    strategy_probs: Mapping[str, float] | None
    persona: tuple[str, ...]
    alpha: float | None
    finish: Finish
    prompt_tokens: int
    tokens: int
    guard: Verdict


@dataclass(frozen=True)
class Piece:
    """Part of a reply that is still growing.

    Attributes:
        text: what comes next.
        growing: strategy, probabilities, persona, α and verdict, as soon as they are known.
        reply: the whole, with the last piece. Where ``reply.finish`` is ``guard``, what was shown
            before is taken back.
    """

    text: str
    growing: ChatReply | None = None
    reply: ChatReply | None = None


@dataclass(frozen=True)
class Ask:
    """What is asked of a reply; see :meth:`Session.respond`.

    Attributes:
        messages: the dialogue.
        persona: sentences; None infers them, or has none.
        strategy: name or id; None predicts it.
        alpha: number, one for each strategy, or a mapping of names; None is the model's own.
        seed: key of the noise; None is the session's.
        id: id of the dialogue.
        max_new_tokens: at most so many; None is the session's limit.
        stop: texts that end a reply before them.
        pinned: level that help was on view for before these messages.
        number: which of several replies to the same messages.
        options: how tokens are chosen, in place of the session's.
    """

    messages: Sequence[Message]
    persona: Sequence[str] | None = None
    strategy: str | int | None = None
    alpha: Any = None
    seed: int | None = None
    id: str = "chat"
    max_new_tokens: int | None = None
    stop: Sequence[str] = ()
    pinned: int = 0
    number: int = 0
    options: SamplingOptions | None = None


@dataclass
class Turn:
    """A reply on its way: what is asked, what the guard says, and what was shown so far."""

    ask: Ask
    row: dict[str, Any]
    verdict: Verdict
    request: LiveRequest | None = None  # None where the guard speaks
    prompt_tokens: int = 0
    shown: str = ""
    checked: str = ""
    began: bool = False


class Session:
    """A model that people talk to.

    Args:
        responder: of the model, from :func:`pal.modeling.responder.make_responder`.
        guard: what watches the conversation.
        inference: infers personas; None leaves them to the caller.
        rows: maximum number of replies generated at the same time.

    Attributes:
        model: the model itself.
    """

    def __init__(
        self, responder: Any, guard: Guard, *, inference: PersonaInference | None = None,
        rows: int = ROWS,
    ):  # fmt: skip
        if not isinstance(guard, Guard):
            raise ConfigError("a session needs a guard; load_guard(GuardSettings()) makes one")
        self.responder, self.guard, self.inference, self.rows = responder, guard, inference, rows
        self.model = responder.model
        # The longest first: some of them end as others do.
        self._helps = sorted(map(normalise_text, guard.helps), key=len, reverse=True)
        self.lock = threading.RLock()

    def encode(self, samples: Sequence[Any]) -> Any:
        """Return the inputs of samples; see ``Responder.encode``."""
        return self.responder.encode(samples)

    def answer(self, samples: Sequence[Any], encoded: Any, **limits: Any) -> Any:
        """Return a record a sample, for jobs and not for talking; see ``Responder.answer``."""
        return self.responder.answer(samples, encoded, **limits)

    @property
    def strategies(self) -> tuple[str, ...]:
        """Names of the model's strategies."""
        return tuple(self.responder.plan.strategies.names)

    @property
    def standing_help(self) -> str | None:
        """Help that a face can keep on view whatever is said; None without a guard."""
        return self.guard.standing_help

    @property
    def options(self) -> SamplingOptions:
        """How tokens are chosen."""
        return SamplingOptions(
            **{
                key: getattr(self.responder.plan.options, key)
                for key in SamplingOptions.model_fields
            }
        )

    # ------------------------------------------------------------------------- for one caller

    def respond(
        self,
        messages: Sequence[Any],
        persona: Sequence[Any] | None = None,
        strategy: str | int | None = None,
        alpha: Any = None,
        seed: int | None = None,
        *,
        id: str = "chat",
        max_new_tokens: int | None = None,
        stop: Sequence[str] = (),
        pinned: int = 0,
        stream: bool = False,
    ) -> Any:
        """Answer the last message of a dialogue, or of each of several.

        Args:
            messages: ``{"role": "user", "content": …}`` and ``assistant``, or ``seeker`` and
                ``supporter``, oldest first; or a list of such dialogues.
            persona: what is known of the seeker, in sentences (one such list a dialogue). None
                infers it where the session has an extractor, and has none otherwise.
            strategy: name or id of the strategy; None predicts it.
            alpha: contrast weight: a number, one for each strategy, or a mapping of names; None is
                the model's own.
            seed: key of the noise that tokens are drawn with; None is the session's.
            id: id of the dialogue; it keys the noise together with the number of turns, as in
                ``pal generate``.
            max_new_tokens: longest reply, in tokens, where that is shorter than the session's.
            stop: texts that end a reply before them.
            pinned: level that help was on view for before, from an earlier chat's
                ``reply.guard.pinned``.
            stream: yield pieces, the last of which holds the whole reply; for one dialogue.

        Returns:
            A :class:`ChatReply`, a list of them, or an iterator of :class:`Piece`.

        Raises:
            DataError: a message cannot be used.
            ConfigError: strategy, α or a limit that the model does not take.

        Example:
            >>> chat = pal.load("runs/pal")
            >>> reply = chat.respond([{"role": "user", "content": "I lost my job last week."}])
            >>> reply.strategy, reply.text
            ('Question', 'what do you do for a living?')
        """
        several = _is_several(messages)
        if several and stream:
            raise ConfigError("stream=True answers one dialogue; give its messages")
        dialogues = list(messages) if several else [messages]
        known: Sequence[Any] = [persona]
        if several:
            known = [None] * len(dialogues) if persona is None else list(persona)
            if len(known) != len(dialogues):
                raise DataError(
                    f"persona: got {len(known)} for {len(dialogues)} dialogues; give one list each"
                )
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        asks = [
            Ask(one, sentences, strategy, alpha, seed, id, max_new_tokens, stops, pinned)
            for one, sentences in zip(dialogues, known, strict=True)
        ]
        if stream:
            return self._stream(asks[0])
        replies = self.answer_all(asks)
        return replies if several else replies[0]

    def answer_all(self, asks: Sequence[Ask]) -> list[ChatReply]:
        """Answer several dialogues at once, each with an id and a pinned level of its own.

        Raises:
            DataError: a message cannot be used.
            ConfigError: strategy, α or a limit that the model does not take.
        """
        turns = self.prepare(asks)
        replies: dict[int, ChatReply] = {}
        live = self.live()
        open_turns: dict[int, int] = {}
        for number, turn in enumerate(turns):
            if turn.request is None:
                replies[number] = self.guarded_reply(turn)
            else:
                open_turns[live.add(turn.request)] = number
        while not live.idle:
            for progress in self.advance(live):
                number = open_turns[progress.ticket]
                if number in replies:
                    continue
                turn = turns[number]
                if progress.finish is None and not turn.ask.stop:
                    continue
                piece = self.take(turn, live, progress)
                if piece.reply is not None:
                    replies[number] = piece.reply
                    if progress.finish is None:
                        live.drop(progress.ticket)
        return [replies[number] for number in range(len(turns))]

    def _stream(self, ask: Ask) -> Iterator[Piece]:
        [turn] = self.prepare([ask])
        if turn.request is None:
            reply = self.guarded_reply(turn)
            yield Piece(reply.text, reply, reply)
            return
        live = self.live()
        ticket = live.add(turn.request)
        while True:
            for progress in self.advance(live):
                piece = self.take(turn, live, progress)
                if piece.text or piece.growing or piece.reply:
                    yield piece
                if piece.reply is not None:
                    live.drop(ticket)
                    return

    # ------------------------------------------------------------------------- for servers

    def read(self, ask: Ask) -> dict[str, Any]:
        """Return the dialogue of what is asked, checked.

        Raises:
            DataError: a message cannot be used.
            ConfigError: strategy, α or a limit that the model does not take.
        """
        self._requested(ask)
        return read_messages(ask.messages, name=ask.id, persona=ask.persona)

    def prepare(self, asks: Sequence[Ask]) -> list[Turn]:
        """Read what is asked, let the guard see it, and infer the personas.

        Raises:
            DataError: a message cannot be used.
            ConfigError: strategy, α or a limit that the model does not take.
        """
        turns = []
        for ask, row in [(ask, self.read(ask)) for ask in asks]:
            said = [turn["text"] for turn in row["dialog"] if turn["speaker"] == "seeker"]
            # Notes that come with a request may be the seeker's words, as a situation is.
            notes = ". ".join(row["persona"]) if ask.persona else None
            verdict = self.guard.review(said, notes, pinned=ask.pinned)
            turns.append(Turn(ask, _without_help(row, self._helps), verdict))
        with self.lock:
            if self.inference is not None:
                open_turns = [
                    turn for turn in turns
                    if turn.ask.persona is None and turn.verdict.action.startswith("reply")
                ]  # fmt: skip
                found = self.inference.annotate([turn.row for turn in open_turns])
                for turn, row in zip(open_turns, found, strict=True):
                    turn.row = row
            for turn in turns:
                if turn.verdict.action.startswith("reply"):
                    self._make_request(turn)
        return turns

    def live(self, options: SamplingOptions | None = None) -> LiveResponder:
        """Return what answers requests; see :meth:`pal.modeling.responder.Responder.live`."""
        with self.lock:
            live: LiveResponder = self.responder.live(self.rows, options)
            return live

    def advance(self, live: LiveResponder) -> list[Progress]:
        """Run one step of what answers requests, alone on the model."""
        with self.lock:
            return live.advance()

    def take(self, turn: Turn, live: LiveResponder, progress: Progress) -> Piece:
        """Return what a step adds to a reply, as far as the guard lets it be shown.

        A word is shown when it is complete and the guard has seen all before it. With a piece that
        has a ``reply`` all is said; the request is to be dropped if it has not ended by itself.
        """
        text = live.decode(progress.answer)
        finish: Finish | None = "stop" if progress.finish == "stop" else None
        finish = "length" if progress.finish == "length" else finish
        ends = [place for mark in turn.ask.stop if (place := text.find(mark)) >= 0]
        if ends:
            text, finish = text[: min(ends)].rstrip(), "stop"
        stable = text
        if finish is None:
            held = max((len(mark) - 1 for mark in turn.ask.stop), default=0)
            stable = text[: max(0, len(text) - held)]
            stable = stable[: max(stable.rfind(" "), stable.rfind("\n"), 0)]
        if stable != turn.checked or finish:
            other = self.guard.check_reply(stable, turn.verdict)
            if other is not None:
                reply = self.guarded_reply(turn, other)
                return Piece(f"\n\n{reply.text}" if turn.shown else reply.text, reply, reply)
            turn.checked = stable
        growing = None
        if not turn.began:
            turn.began, growing = True, self._reply(turn, progress, "", "length")
        whole = _behind_help(turn.verdict, stable)
        new = whole[len(turn.shown) :] if whole.startswith(turn.shown) else ""
        turn.shown += new
        if finish is None:
            return Piece(new, growing)
        return Piece(new, growing, self._reply(turn, progress, whole, finish))

    def guarded_reply(self, turn: Turn, text: str | None = None) -> ChatReply:
        """Return the reply in which the guard speaks.

        Args:
            turn: the turn.
            text: in place of a generated reply that may not be shown; None says what the verdict
                on the seeker's turn says.
        """
        said = text if text is not None else turn.verdict.text
        parts = [part for part in (said, turn.verdict.help) if part]
        return ChatReply(
            text="\n\n".join(dict.fromkeys(parts)), strategy=None, strategy_probs=None,
            persona=tuple(turn.row["persona"]), alpha=None, finish="guard",
            prompt_tokens=turn.prompt_tokens, tokens=0, guard=turn.verdict,
        )  # fmt: skip

    def _reply(self, turn: Turn, progress: Progress, text: str, finish: Finish) -> ChatReply:
        assert turn.request is not None
        answer = progress.answer
        probs = zip(self.strategies, answer.strategy_probs, strict=True)
        ended = progress.finish == "stop"
        return ChatReply(
            text=text, strategy=self.strategies[answer.strategy],
            strategy_probs={name: round(p, 6) for name, p in probs},
            persona=turn.request.sample.persona, alpha=round(answer.alpha, 6), finish=finish,
            prompt_tokens=turn.prompt_tokens, tokens=len(answer.tokens) - ended,
            guard=turn.verdict,
        )  # fmt: skip

    def _requested(self, ask: Ask) -> tuple[int | None, tuple[float, ...]]:
        """Return strategy and α of a request.

        Raises:
            ConfigError: the model does not take them.
        """
        plan = self.responder.plan
        if plan.strategy_from == "gold":
            raise ConfigError("decoding.strategy=gold needs dialogues that have one; give a name")
        strategy, alpha = plan.given, plan.alpha
        try:
            if ask.strategy is not None:
                [strategy] = strategies_of(ask.strategy, strategies=plan.strategies)
        except ValueError as error:
            raise ConfigError(f"strategy: {error}") from None
        try:
            if ask.alpha is not None:
                alpha = alpha_of(ask.alpha, own=plan.alpha, strategies=plan.strategies)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"alpha: {error}") from None
        if any(alpha) and not can_contrast(self.model.config):
            raise ConfigError(
                "alpha contrasts with and without persona, and this model's persona_mode is "
                f"{self.model.config.persona_mode!r}; leave it out"
            )
        if ask.max_new_tokens is not None and ask.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens={ask.max_new_tokens}: give 1 or more")
        return strategy, alpha

    def _make_request(self, turn: Turn) -> None:
        ask = turn.ask
        strategy, alpha = self._requested(ask)
        [sample] = build_samples([turn.row], "evaluation")
        if ask.number:
            sample = replace(sample, id=f"{sample.id}#{ask.number}")
        seed = self.responder.seed if ask.seed is None else ask.seed
        turn.request = LiveRequest(sample, seed, strategy, alpha, ask.max_new_tokens)
        [inputs] = self.responder.encode([sample])
        turn.prompt_tokens = len(inputs["input_ids"]) + len(inputs.get("persona_input_ids", ()))


def _without_help(row: dict[str, Any], helps: Sequence[str]) -> dict[str, Any]:
    """Return a dialogue whose replies are what the model said, without help shown around them.

    Clients send back what they showed; the model would take the help for its own words. What is
    shown changes from turn to turn, so all that the guard can show is looked for.
    """

    def said(turn: dict[str, Any]) -> dict[str, Any]:
        text = turn["text"]
        for shown in helps if turn["speaker"] == "supporter" else ():
            text = text.removeprefix(f"{shown} ").removesuffix(f" {shown}")
        return {**turn, "text": text}

    return {**row, "dialog": [said(turn) for turn in row["dialog"]]}


def _behind_help(verdict: Verdict, text: str) -> str:
    """Return a response behind the help that goes with it, which so is never cut off."""
    return f"{verdict.help}\n\n{text}" if verdict.help else text


def _is_several(messages: Any) -> bool:
    """Whether messages are a list of dialogues."""
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        return False
    return bool(messages) and all(
        isinstance(one, Sequence) and not isinstance(one, str | bytes) for one in messages
    )


def load(
    source: str,
    *,
    extractor: str | None = None,
    guard: Guard | GuardSettings | None = None,
    decoding: DecodingSettings | None = None,
    annotate: PersonaSettings | None = None,
    seed: int = 42,
    dtype: str = "float32",
    rows: int = ROWS,
) -> Session:
    """Load a trained response model of any family, ready to talk on the best device there is.

    Args:
        source: folder or hub id.
        extractor: folder or hub id of a persona extractor. With one, the persona is inferred turn
            by turn, as in PESConv.
        guard: what watches the conversation, or its settings; English, no country by default.
        decoding: how responses are decoded; the model's own way by default.
        annotate: how personas are inferred.
        seed: key of the noise that tokens are drawn with.
        dtype: number format of the weights.
        rows: maximum number of replies generated at the same time.

    Raises:
        PalError: model, extractor, guard or settings cannot be used.

    Example:
        >>> chat = pal.load("runs/pal", extractor="runs/extractor")
        >>> chat.respond([{"role": "user", "content": "My dog died."}]).text
        'i am so sorry to hear that.'
    """
    decoding = decoding or DecodingSettings()
    check_decoding(decoding)  # before minutes of loading
    watching = guard if isinstance(guard, Guard) else load_guard(guard or GuardSettings())
    model, tokenizer = load_model_and_tokenizer(source, dtype)
    model.to(process_state().device)
    responder = make_responder(model, tokenizer, decoding, seed)
    inference = None
    if extractor is not None:
        inference = PersonaInference.load(extractor, annotate or PersonaSettings(), dtype)
    return Session(responder, watching, inference=inference, rows=rows)


def open_session(settings: TalkSettings, *, rows: int = ROWS, shows_help: bool = True) -> Session:
    """Load what a command talks with; see :func:`load`.

    Args:
        settings: of the command.
        rows: maximum number of replies generated at the same time.
        shows_help: whether people are shown the guard's help.

    Raises:
        PalError: model, extractor, guard or settings cannot be used.
    """
    (source,) = settings.require("model")
    trust(*settings.trusted_code)
    return load(
        source, extractor=settings.extractor,
        guard=load_guard(settings.guard, shows_help=shows_help), decoding=settings.decoding,
        annotate=settings.annotate, seed=settings.seed, dtype=settings.dtype, rows=rows,
    )  # fmt: skip
