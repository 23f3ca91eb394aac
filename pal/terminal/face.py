"""The two ways to talk with a model without a browser: in a terminal, and over a pipe."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, TextIO

from pal.conversation.session import ChatReply, Piece
from pal.core.errors import DataError, PalError, first_line
from pal.data.texts import normalise_text
from pal.terminal.conversation import Conversation
from pal.terminal.screen import Screen, encodable, read_as_text
from pal.terminal.slash import completions, run_slash

NOTICE = "This is a computer program, not a person, and not a crisis service."
GUARD_OFF = (
    "THE GUARD IS OFF (guard.off=true): nothing checks for signs of suicide or self-harm, and no "
    "help is shown."
)
EVERY = 3 * 60 * 60  # seconds after which people are told again
ENDED = "the chat has ended; nothing was stored"
PROMPT = "you> "


class Notice:
    """Says what people talk to, at the start and every three hours.

    Args:
        conversation: whose guard may be off.
        clock: seconds that pass.
    """

    def __init__(self, conversation: Conversation, clock: Callable[[], float] = time.monotonic):
        self._off = conversation.session.guard.off
        self._clock = clock
        self._told: float | None = None

    def due(self) -> str | None:
        """Return what is to be said now, if anything is."""
        now = self._clock()
        if self._told is not None and now - self._told < EVERY:
            return None
        self._told = now
        return f"{NOTICE}\n{GUARD_OFF}" if self._off else NOTICE


class Growing:
    """A reply as it comes, without the guard's help, which is shown apart.

    Attributes:
        begun: strategy, persona, α and verdict, once they are known.
        reply: the whole, once it is there.
        text: the text so far; of a whole reply in which the guard speaks its own.
    """

    def __init__(self) -> None:
        self.begun: ChatReply | None = None
        self.reply: ChatReply | None = None
        self.text = ""
        self._raw = ""

    @property
    def taken_back(self) -> bool:
        """Whether the guard speaks."""
        return self.reply is not None and self.reply.finish == "guard"

    def take(self, piece: Piece) -> str:
        """Take the next piece and return what is new of the text; the guard's comes whole."""
        self.begun = self.begun or piece.growing or piece.reply
        self.reply = piece.reply
        if self.taken_back:
            assert piece.reply is not None
            text, helped = piece.reply.text, piece.reply.guard.help
            self.text = text.removesuffix(f"\n\n{helped}") if helped else text
            return self.text
        assert self.begun is not None
        self._raw += piece.text
        helped = self.begun.guard.help
        skip = len(f"{helped}\n\n") if helped else 0
        new = self._raw[skip + len(self.text) :]
        self.text += new
        return new


# ------------------------------------------------------------------------------ in a terminal


class Terminal:
    """A chat in a terminal.

    Args:
        conversation: what is talked about.
        screen: what is written to.
        read: returns the next line; raises EOFError at the end.
        clock: seconds that pass.
    """

    def __init__(
        self, conversation: Conversation, screen: Screen, read: Callable[[], str], *,
        clock: Callable[[], float] = time.monotonic,
    ):  # fmt: skip
        self.conversation, self.screen, self.read = conversation, screen, read
        self.notice = Notice(conversation, clock)
        self._shown: list[str] = list(conversation.known)

    def run(self) -> None:
        """Talk until the end of the input, ``/quit``, or Ctrl-C at the prompt.

        Raises:
            KeyboardInterrupt: Ctrl-C while no reply grows.
        """
        self._tell()
        standing = self.conversation.session.standing_help
        if standing:
            self.screen.line(standing, "help", head="! ")
        self.screen.line("/help lists commands. Ctrl-C stops a reply, Ctrl-D ends.", "dim")
        while True:
            try:
                line = self.read()
            except EOFError:
                self.screen.end()
                return
            self._tell()
            try:
                if not self._take(line):
                    return
            except PalError as error:
                self.screen.line(f"! {error}")

    def _tell(self) -> None:
        text = self.notice.due()
        if text is not None:
            self.screen.line(text, "bold")

    def _take(self, line: str) -> bool:
        """Do what a line asks for; return whether the chat goes on."""
        if not normalise_text(line):
            return True
        if line.lstrip().startswith("/") and not line.lstrip().startswith("//"):
            said = run_slash(self.conversation, line)
            if said.text:
                self.screen.line(said.text)
            if said.changed:
                self._help()
            self._shown = list(self.conversation.known)
            if said.then == "answer":
                self._answer()
            return said.then != "quit"
        self.conversation.say(without_slash(line))
        self._answer()
        return True

    def _answer(self) -> None:
        growing = Growing()
        try:
            self._show(growing, self.conversation.answer())
        except KeyboardInterrupt:
            self._stopped()
            known = growing.reply or growing.begun
            if known is not None:
                self.conversation.keep(known, growing.text, cut=growing.reply is None)
            return
        except DataError:  # it would stand in the way of all that follows
            self.conversation.drop_turn()
            raise
        reply = growing.reply
        assert reply is not None
        self.conversation.keep(reply, growing.text)
        if self.conversation.compare and reply.finish != "guard":
            self._compare(reply)

    def _show(self, growing: Growing, pieces: Iterator[Piece], *, beside: bool = False) -> None:
        """Show a reply while it grows; the help stands there already where it is beside another."""
        for piece in guarded(pieces):
            first, shown = growing.begun is None, growing.text
            new = growing.take(piece)
            if growing.taken_back:
                if shown:
                    self.screen.end()
                    self.screen.line("! The reply above is withdrawn.", "help")
                self.screen.line(new)
                self._help()
                return
            if first:
                if not beside:
                    self._help()
                self._head(growing)
            self.screen.flow(new)
        self.screen.end()
        if not growing.text.strip():
            self.screen.line("(empty reply)", "dim")
        elif growing.reply is not None and growing.reply.finish == "length":
            self.screen.line("(maximum length reached)", "dim")

    def _head(self, growing: Growing) -> None:
        """Show what is known of a reply before its words: persona, strategy and α."""
        begun = growing.begun
        assert begun is not None
        for sentence in begun.persona:
            if sentence not in self._shown:
                self.screen.line(f"+ {sentence}", "dim", head="  ")
        self._shown = list(begun.persona)
        if begun.strategy is not None and begun.strategy_probs is not None:
            share = percent(begun.strategy_probs[begun.strategy])
            self.screen.line(f"pal · {begun.strategy} {share} · α {begun.alpha:g}", "dim")

    def _help(self) -> None:
        """Show the help that stays on view, apart from all else."""
        if self.conversation.help:
            self.screen.line(self.conversation.help, "help", head="! ")

    def _compare(self, reply: ChatReply) -> None:
        """Show the reply with α = 0."""
        if not reply.alpha:
            self.screen.line("(α is 0 already: a reply with α = 0 is the same)", "dim")
            return
        try:
            self._show(Growing(), self.conversation.answer(plain=True), beside=True)
        except KeyboardInterrupt:
            self._stopped()

    def _stopped(self) -> None:
        self.screen.end("dim")
        self.screen.line("(stopped)", "dim")


def percent(share: float) -> str:
    """Return a share in the words of the page of `pal serve`: what is rare is not nothing.

    Args:
        share: between 0 and 1.

    Example:
        >>> percent(0.414), percent(0.004)
        ('41 %', '<1 %')
    """
    return "<1 %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


def without_slash(line: str) -> str:
    """Return what is said by a line: two slashes stand for one."""
    bare = line.strip()
    return bare[1:] if bare.startswith("//") else bare


def guarded(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Yield pieces; a failure is told by its kind alone, since its message can hold texts.

    Raises:
        PalError: the model failed, or what was asked cannot be answered.
    """
    try:
        yield from pieces
    except PalError:
        raise
    except Exception as error:
        kind = "out of memory" if "out of memory" in str(error).lower() else type(error).__name__
        raise PalError(f"the model failed ({kind}); /retry tries again") from None


def read_line(read: Callable[[], str], encoding: str) -> str:
    """Return the next line.

    Args:
        read: reads it.
        encoding: what it is read as.

    Raises:
        DataError: it is not text of that encoding, so nothing behind it can be read either.
    """
    try:
        return read()
    except UnicodeError as error:
        reason = first_line(getattr(error, "reason", error))
    raise DataError(
        f"standard input is not text in {encoding} ({reason}); give text in that "
        "encoding, or set PYTHONIOENCODING=utf-8"
    )


@contextlib.contextmanager
def line_editing(conversation: Conversation, out: TextIO) -> Iterator[Callable[[], str]]:
    """Yield what reads a line with the usual keys; earlier lines are kept in memory alone.

    Args:
        conversation: whose strategies are completed.
        out: where the prompt goes if standard output is no terminal.
    """
    encoding = sys.stdin.encoding or "utf-8"
    readline: Any = None
    with contextlib.suppress(ImportError):  # not there on every system
        import readline  # type: ignore[no-redef]

    def read() -> str:
        if out is sys.stdout:
            return read_as_text(read_line(lambda: input(PROMPT), encoding), encoding)
        out.write(PROMPT)
        out.flush()
        line = read_line(sys.stdin.readline, encoding)
        if not line:
            raise EOFError
        return read_as_text(line, encoding)

    if readline is None:
        yield read
        return

    def complete(text: str, state: int) -> str | None:
        found = completions(conversation, text)
        return found[state] if state < len(found) else None

    before = readline.get_completer(), readline.get_completer_delims()
    kept = readline.get_current_history_length()
    readline.set_completer(complete)
    readline.set_completer_delims("")
    libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
    try:
        yield read
    finally:
        readline.set_completer(before[0])
        readline.set_completer_delims(before[1])
        for place in range(readline.get_current_history_length() - 1, kept - 1, -1):
            readline.remove_history_item(place)


# ------------------------------------------------------------------------------ over a pipe


def answer_lines(
    conversation: Conversation, given: TextIO, out: TextIO, tell: Callable[[str], None], *,
    clock: Callable[[], float] = time.monotonic,
) -> None:  # fmt: skip
    """Answer a conversation line by line: a line of replies for every line that says something.

    Breaks within a reply become spaces, so that lines in and out go together. With ``compare`` the
    reply with α = 0 follows behind a tab. What slash commands answer goes to ``tell``.

    Args:
        conversation: what is talked about.
        given: the lines.
        out: the replies.
        tell: gets what is no reply.
        clock: seconds that pass.

    Raises:
        PalError: a line cannot be answered; the message has its number.
    """
    notice = Notice(conversation, clock)
    tell(str(notice.due()))
    if standing := conversation.session.standing_help:
        tell(standing)
    encoding = given.encoding or "utf-8"
    for number in count(1):
        try:
            raw = read_line(given.readline, encoding)
        except DataError as error:
            raise DataError(f"line {number}: {error}") from None
        if not raw:
            return
        line = read_as_text(raw, encoding)
        if not normalise_text(line):
            continue
        if (again := notice.due()) is not None:
            tell(again)
        answers = True
        try:
            if line.lstrip().startswith("/") and not line.lstrip().startswith("//"):
                said = run_slash(conversation, line)
                if said.text:
                    tell(said.text)
                if said.then == "quit":
                    return
                answers = said.then == "answer"
            else:
                conversation.say(without_slash(line))
            if answers:
                replies = _whole_replies(conversation)
                text = "\t".join(" ".join(reply.split()) for reply in replies)
                out.write(encodable(text, out) + "\n")
                out.flush()
        except PalError as error:
            raise type(error)(f"line {number}: {first_line(error)}") from None


def _whole_replies(conversation: Conversation) -> list[str]:
    growing = Growing()
    for piece in guarded(conversation.answer()):
        growing.take(piece)
    reply = growing.reply
    assert reply is not None
    conversation.keep(reply, growing.text)
    if not conversation.compare:
        return [reply.text]
    if not reply.alpha:  # the guard speaks, or the two are one
        return [reply.text, reply.text]
    other = Growing()
    for piece in guarded(conversation.answer(plain=True)):
        other.take(piece)
    assert other.reply is not None
    return [reply.text, other.reply.text]
