"""Many conversations on one model: replies that grow side by side in one thread.

What waits comes in as soon as a row is free, so nobody waits for the end of a batch.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from pal.conversation.session import Ask, Piece, Session, Turn
from pal.core.errors import PalError
from pal.modeling.live import LiveResponder, Progress

logger = logging.getLogger(__name__)

TOGETHER = 8  # requests read at once, lest replies under way wait long for their next word


class BusyError(PalError):
    """As many requests wait as may, or the server is shutting down."""


# Called in the thread of the batcher with every piece, or with what went wrong.
Deliver = Callable[[Piece | Exception], None]


@dataclass(eq=False)
class Handle:
    """A request on its way.

    Attributes:
        ask: what is asked.
        deliver: who gets the pieces.
        stream: whether a reply is delivered as it grows, or whole.
        cancelled: whether nobody waits for it any more.
    """

    ask: Ask
    deliver: Deliver
    stream: bool = True
    cancelled: bool = False


@dataclass(eq=False)
class _Open:
    """A reply that grows: its request, its turn, and where it is answered."""

    handle: Handle
    turn: Turn
    live: LiveResponder
    ticket: int


class Batcher:
    """Answers requests of many threads with one session, in a thread of its own.

    Args:
        session: model and guard.
        queue: requests that wait for a free row, at most.

    Example:
        >>> batcher = Batcher(pal.load("runs/pal"), queue=64)
        >>> batcher.submit(Ask([{"role": "user", "content": "hi"}]), print)
        >>> batcher.close()
    """

    def __init__(self, session: Session, *, queue: int):
        self.session, self.queue = session, queue
        self._waiting: deque[Handle] = deque()
        self._open: dict[tuple[int, int], _Open] = {}
        self._lives: dict[str, LiveResponder] = {}
        self._news = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a free row."""
        return len(self._waiting)

    @property
    def active(self) -> int:
        """Number of replies that grow."""
        return len(self._open)

    @property
    def alive(self) -> bool:
        """Whether requests are answered."""
        return self._thread.is_alive() and not self._closing

    def submit(self, ask: Ask, deliver: Deliver) -> Handle:
        """Queue a request; pieces come to ``deliver`` until one has a reply, or an exception.

        Raises:
            BusyError: the queue is full, or the batcher closes.
            DataError: a message cannot be used.
            ConfigError: strategy, α or a limit that the model does not take.
        """
        return self.submit_all([ask], lambda _, piece: deliver(piece))[0]

    def submit_all(
        self, asks: Sequence[Ask], deliver: Callable[[int, Piece | Exception], None], *,
        stream: bool = True,
    ) -> list[Handle]:  # fmt: skip
        """Queue requests, all or none; ``deliver`` is told which one a piece is of.

        Args:
            asks: what is asked.
            deliver: gets the place of a request, and a piece of its reply or what went wrong.
            stream: whether replies are delivered as they grow, or whole.
        """
        for ask in asks:
            self.session.read(ask)
        handles = [Handle(ask, partial(deliver, number), stream) for number, ask in enumerate(asks)]
        with self._news:
            if self._closing:
                raise BusyError("the server is shutting down; try again later")
            if len(self._waiting) + len(handles) > self.queue:
                raise BusyError(
                    f"{len(self._waiting)} requests are already waiting; try again later"
                )
            self._waiting.extend(handles)
            self._news.notify()
        return handles

    def cancel(self, handle: Handle) -> None:
        """Take a request out; its row is free for another."""
        with self._news:
            handle.cancelled = True
            if handle in self._waiting:
                self._waiting.remove(handle)
            self._news.notify()

    def close(self) -> None:
        """Answer what has been taken in, then end the thread."""
        with self._news:
            self._closing = True
            self._news.notify()
        self._thread.join()

    # ------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        while True:
            with self._news:
                while not self._waiting and not self._open and not self._closing:
                    self._news.wait()
                if self._closing and not self._waiting and not self._open:
                    return
                room = min(TOGETHER, self.session.rows - len(self._open))
                new = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
            new = [handle for handle in new if not handle.cancelled]
            if new:
                self._begin(new)
            self._drop_cancelled()
            self._step()

    def _begin(self, handles: Sequence[Handle]) -> None:
        """Read requests and give them to the model."""
        for handle, turn in self._prepared(handles):
            if turn.request is None:
                reply = self.session.guarded_reply(turn)
                handle.deliver(Piece(reply.text, reply, reply))
                continue
            options = turn.ask.options
            key = "" if options is None else options.model_dump_json()
            fault = None
            try:
                if key not in self._lives:
                    self._lives[key] = self.session.live(options)
                live = self._lives[key]
                ticket = live.add(turn.request)
                self._open[id(live), ticket] = _Open(handle, turn, live, ticket)
            except Exception as error:
                fault = error
            if fault is not None:
                self._fail(handle, fault)

    def _prepared(self, handles: Sequence[Handle]) -> list[tuple[Handle, Turn]]:
        """Return the turns of requests; one that fails takes no other with it."""
        try:
            turns = self.session.prepare([handle.ask for handle in handles])
            return list(zip(handles, turns, strict=True))
        except Exception as error:
            fault = error
        if len(handles) > 1:
            return [pair for handle in handles for pair in self._prepared([handle])]
        self._fail(handles[0], fault)
        return []

    def _drop_cancelled(self) -> None:
        for key, one in list(self._open.items()):
            if one.handle.cancelled:
                one.live.drop(one.ticket)
                del self._open[key]

    def _step(self) -> None:
        """Let all replies grow by a token."""
        for key, live in list(self._lives.items()):
            fault = None
            try:
                for progress in self.session.advance(live):
                    self._take(live, progress)
                if live.idle and key:
                    del self._lives[key]  # its memory
            except Exception as error:
                fault = error
            if fault is not None:
                del self._lives[key]
                for place, one in list(self._open.items()):
                    if one.live is live:
                        del self._open[place]
                        self._fail(one.handle, fault)

    def _take(self, live: LiveResponder, progress: Progress) -> None:
        place = (id(live), progress.ticket)
        one = self._open.get(place)
        if one is None:
            return
        if not one.handle.stream and progress.finish is None and not one.turn.ask.stop:
            return
        piece = self.session.take(one.turn, live, progress)
        if piece.reply is not None:
            live.drop(one.ticket)
            del self._open[place]
        if piece.text or piece.growing or piece.reply:
            one.handle.deliver(piece)

    def _fail(self, handle: Handle, error: Exception) -> None:
        """Tell who waits; a message may hold texts, so the log has the kind of error alone.

        It is called when the error is handled: a log that cannot be written shows what is not.
        """
        logger.error("a reply failed: %s", type(error).__name__)
        known = error if isinstance(error, PalError) else PalError(_kind(error))
        handle.deliver(known)


def _kind(error: Exception) -> str:
    if "out of memory" in str(error).lower():
        return "out of memory; lower serve.rows"
    return f"the model failed ({type(error).__name__})"
