"""A conversation with a session: what was said, what is asked of replies, what is saved of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pal.conversation.messages import Message
from pal.conversation.session import Ask, ChatReply, Piece, Session
from pal.core.errors import ConfigError, DataError
from pal.data.texts import normalise_text
from pal.decoding.plan import can_contrast
from pal.guard.guard import MAX_CHARACTERS
from pal.guard.levels import CRISIS, NONE, Verdict
from pal.guard.normalise import has_surrogate

NAME = "chat"  # id of the dialogue; with seed and turn it keys the noise, as in `pal generate`


@dataclass
class Line:
    """One turn of a conversation.

    Attributes:
        role: ``user`` or ``assistant``.
        text: what was said; of a reply without the guard's help.
        strategy: strategy of a reply; None where the guard spoke.
        persona: what was known of the seeker for the reply to this turn.
        given: whether that was the user's own, not inferred.
        cut: whether the reply was stopped before its end.
    """

    role: str
    text: str
    strategy: str | None = None
    persona: tuple[str, ...] = ()
    given: bool = False
    cut: bool = False


class Conversation:
    """A conversation that can be changed while it goes on.

    Args:
        session: what answers.
        persona: what is known of the seeker; empty leaves it to the session's extractor.
        compare: whether replies with α = 0 are wanted too.

    Attributes:
        lines: the turns, oldest first.
        persona: sentences in place of inferred ones; None infers them, or has none.
        strategy: strategy of replies; None predicts it.
        alpha: contrast weight of replies, as :meth:`Session.respond` takes it.
        seed: key of the noise.
        verdict: the guard's on what was said last; None before.

    Raises:
        ConfigError: the model takes no persona, or has no contrast to compare.
    """

    def __init__(self, session: Session, *, persona: list[str], compare: bool = False):
        self.session = session
        self.lines: list[Line] = []
        self.persona: list[str] | None = None
        self.strategy: str | None = None
        self.alpha: Any = None
        self.seed: int = session.responder.seed
        self.verdict: Verdict | None = None
        self.compare = False
        self._attempt = 0
        self._pinned_before = 0
        self._persona_at_first = tuple(persona)
        self.know([*self._persona_at_first] or None)
        self.set_compare(compare)

    @property
    def help(self) -> str | None:
        """The guard's help that is to stay on view."""
        return self.verdict.help if self.verdict is not None else None

    @property
    def pinned(self) -> int:
        """Level that help is on view for."""
        return self.verdict.pinned if self.verdict is not None else NONE

    @property
    def infers(self) -> bool:
        """Whether personas are inferred from what is said."""
        return self.session.inference is not None and self.persona is None

    @property
    def known(self) -> list[str]:
        """What is known of the seeker now."""
        if self.persona is not None:
            return self.persona
        found = (one.persona for one in reversed(self.lines) if one.persona and not one.given)
        return list(next(found, ()))

    def know(self, persona: list[str] | None) -> None:
        """Take sentences in place of inferred ones; None infers again.

        Raises:
            ConfigError: the model takes no persona.
        """
        if persona and self.session.model.config.persona_mode == "none":
            raise ConfigError("this model answers without a persona (persona_mode: none)")
        self.persona = persona

    def set_compare(self, wanted: bool) -> None:
        """Turn replies with α = 0 on or off.

        Raises:
            ConfigError: the model's α is 0 whatever is asked.
        """
        if wanted and not can_contrast(self.session.model.config):
            raise ConfigError(
                "compare: this model has no contrast with and without persona, so α = 0 changes "
                "nothing; leave it out"
            )
        self.compare = wanted

    def check(self, **asked: Any) -> None:
        """Check a strategy or α before it is used.

        Raises:
            ConfigError: the model does not take it.
        """
        self.session.read(Ask([{"role": "user", "content": "hello"}], **asked))

    def say(self, text: str) -> None:
        """Add what the seeker says."""
        self.lines.append(Line("user", text))
        self._attempt = 0

    def answer(self, *, plain: bool = False) -> Iterator[Piece]:
        """Yield the reply to what was said last, as it grows.

        Args:
            plain: with α = 0, as the reply that the other is compared with.

        Raises:
            DataError: a turn cannot be used.
            ConfigError: strategy or α that the model does not take.
        """
        pieces: Iterator[Piece] = self.session.respond(
            self._messages(), self.persona, self.strategy, 0.0 if plain else self.alpha,
            self.seed + self._attempt, id=NAME, pinned=self._pinned_before, stream=True,
        )  # fmt: skip
        for piece in pieces:
            for known in (piece.growing, piece.reply):
                if known is not None:
                    self.verdict = known.guard
            yield piece

    def keep(self, reply: ChatReply, text: str, *, cut: bool = False) -> None:
        """Add a reply; what cannot be read again is taken out with the turn it answers.

        Args:
            reply: the reply, or what is known of one that was cut.
            text: its text without the guard's help.
            cut: whether it was stopped before its end.
        """
        place = max(n for n, one in enumerate(self.lines) if one.role == "user")
        asked = self.lines[place]
        if has_surrogate(asked.text) or len(asked.text) > MAX_CHARACTERS:
            self.drop_turn()
            return
        if cut and not normalise_text(text) and place + 1 < len(self.lines):
            return
        asked.persona, asked.given = reply.persona, self.persona is not None
        del self.lines[place + 1 :]  # the reply that this one was asked for in place of
        if normalise_text(text):
            self.lines.append(Line("assistant", text, reply.strategy, cut=cut))

    def drop_turn(self) -> None:
        """Take the last turn of the seeker back, with what answered it.

        Raises:
            DataError: nothing was said.
        """
        asked = [place for place, one in enumerate(self.lines) if one.role == "user"]
        if not asked:
            raise DataError("nothing was said yet")
        del self.lines[asked[-1] :]
        if self.pinned >= CRISIS:  # what was said once keeps the help on view
            self._pinned_before = max(self._pinned_before, self.pinned)

    def retry(self) -> None:
        """Have the next answer be another one to what was said last; it takes the reply's place.

        Until there is one, the reply stays.

        Raises:
            DataError: nothing was said.
        """
        if not self.lines:
            raise DataError("nothing was said yet")
        self._attempt += 1

    def begin_again(self) -> None:
        """Start a new conversation with the persona, strategy and α that the first began with.

        What was said of one person is not said of the next. Help stays on view.
        """
        self.lines = []
        self.know([*self._persona_at_first] or None)
        self.strategy = self.alpha = None
        self._attempt = 0
        self._pinned_before = self.pinned

    def record(self) -> dict[str, Any]:
        """Return the conversation as a dialogue that the commands read.

        Raises:
            DataError: nothing was said.
        """
        if not self.lines:
            raise DataError("nothing was said yet")
        dialog: list[dict[str, Any]] = []
        for one in self.lines:
            if one.role == "user":
                turn: dict[str, Any] = {"speaker": "seeker", "text": one.text}
                turn["persona"] = list(one.persona)
            else:
                turn = {"speaker": "supporter", "text": one.text, "strategy": one.strategy}
            dialog.append({**turn, "cut": True} if one.cut else turn)
        answered = any(one.role == "assistant" for one in self.lines)
        return {"id": NAME, "dialog": dialog, "persona": self.known, "request": not answered}

    def _messages(self) -> list[Message]:
        """Return what was said up to the last turn of the seeker."""
        asked = [place for place, one in enumerate(self.lines) if one.role == "user"]
        return [
            {"role": one.role, "content": one.text, "strategy": one.strategy}
            for one in self.lines[: asked[-1] + 1]
        ]
