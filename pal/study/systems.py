"""The systems that raters talk with: each a session, which has a guard or does not load."""

import queue
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pal.core.errors import ConfigError, DataError, PalError, first_line
from pal.core.files import source_fingerprint

if TYPE_CHECKING:
    from pal.conversation.session import ChatReply, Piece
    from pal.guard import Guard

Messages = Sequence[Mapping[str, Any]]


class Supporter(Protocol):
    """Answers raters. Whatever it is, the reply is what the guard lets through."""

    def respond(self, messages: Messages, *, id: str, pinned: int) -> "ChatReply":
        """Return the reply to a conversation; it blocks, and is called from several threads.

        Args:
            messages: ``{"role": …, "content": …}``, oldest first.
            id: id of the conversation, which keys the noise.
            pinned: level that help was on view for before this conversation.
        """
        ...


class SessionSupporter:
    """A session whose replies to several raters grow side by side.

    Args:
        session: model and guard.
        timeout: seconds after which a reply is given up.
    """

    def __init__(self, session: Any, *, timeout: float):
        from pal.conversation.batching import Batcher

        self.batcher, self.timeout = Batcher(session, queue=4096), timeout
        self.guard: Guard = session.guard

    def respond(self, messages: Messages, *, id: str, pinned: int) -> "ChatReply":
        """Return the reply; see :class:`Supporter`.

        Raises:
            PalError: the model failed, or took too long.
        """
        from pal.conversation.session import Ask

        pieces: queue.SimpleQueue[Piece | Exception] = queue.SimpleQueue()
        ask = Ask(messages, id=id, pinned=pinned)
        [handle] = self.batcher.submit_all([ask], lambda _, one: pieces.put(one), stream=False)
        try:
            while True:
                piece = pieces.get(timeout=self.timeout)
                if isinstance(piece, Exception):
                    raise piece
                if piece.reply is not None:
                    return piece.reply
        except queue.Empty:
            raise PalError(f"no reply within {self.timeout:g} seconds") from None
        finally:
            self.batcher.cancel(handle)

    def close(self) -> None:
        """End its thread."""
        self.batcher.close()


def recorded(cls: Any, values: Any) -> Any:
    """Return settings that a study's file holds.

    Raises:
        DataError: they are no such settings.
    """
    try:
        return cls.model_validate(values)
    except ValueError as error:  # pydantic's own is one
        raise DataError(
            f"the study's configuration is damaged or of another version ({first_line(error)}); "
            "put back a whole copy, or create a new study"
        ) from None


def load_supporters(
    config: Mapping[str, Any], *, rows: int, timeout: float
) -> dict[str, SessionSupporter]:
    """Load the systems of a study.

    Args:
        config: of the study's file.
        rows: replies of a system that grow at once, at most.
        timeout: seconds after which a reply is given up.

    Raises:
        PalError: a model or the guard cannot be used, or a model is another than at the start.
    """
    from pal.conversation.session import load
    from pal.core.registry import trust
    from pal.guard import GuardSettings, load_guard
    from pal.persona.settings import PersonaSettings
    from pal.study.settings import StudiedSystem

    lacking = [key for key in ("trusted_code", "annotate", "fingerprints") if key not in config]
    if lacking:
        raise DataError(f"the study's configuration has no {lacking[0]}; put back a whole copy")
    trust(*config["trusted_code"])
    guard = load_guard(recorded(GuardSettings, config["guard"]))  # one for all
    annotate = recorded(PersonaSettings, config["annotate"])
    found = {}
    for name, given in config["systems"].items():
        system = recorded(StudiedSystem, given)
        if fingerprints_of(system) != config["fingerprints"].get(name):
            raise ConfigError(
                f"study.systems.{name}: model or extractor is not what it was when the study was "
                "created; put it back, or create a new study"
            )
        session = load(
            system.model, extractor=system.extractor, guard=guard, decoding=system.decoding,
            annotate=annotate, seed=config["seed"], dtype=config["dtype"], rows=rows,
        )  # fmt: skip
        found[name] = SessionSupporter(session, timeout=timeout)
    return found


def fingerprints_of(system: Any) -> list[str]:
    """Return what a system's weights are recognised by."""
    sources = [system.model, *([system.extractor] if system.extractor else [])]
    return [source_fingerprint(source) for source in sources]
