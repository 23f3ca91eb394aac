"""Slash commands: what changes a conversation, and what of it is shown or saved."""

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pal.core.errors import OutputError, PalError, suggest
from pal.core.files import write_jsonl
from pal.core.settings import expand_home
from pal.data.texts import normalise_text
from pal.decoding.plan import alpha_of
from pal.terminal.conversation import Conversation

USUAL_ALPHA = 2  # the sliders of the page of `pal serve` end there

Then = Literal["ask", "answer", "quit"]


class SlashError(PalError):
    """A slash command that does not exist, or that cannot be done."""


@dataclass(frozen=True)
class SlashAnswer:
    """What a slash command answers.

    Attributes:
        text: what is shown.
        then: what happens next: ``ask`` for the next line, ``answer`` what was said, or ``quit``.
        changed: whether what was said is another thing now, so that help is shown again.
    """

    text: str = ""
    then: Then = "ask"
    changed: bool = False


@dataclass(frozen=True)
class SlashCommand:
    """One slash command.

    Attributes:
        usage: how it is written.
        about: what it does, in one line.
        run: gets the conversation, and what stands behind the name where it takes that.
    """

    usage: str
    about: str
    run: Callable[..., SlashAnswer]


def run_slash(conversation: Conversation, line: str) -> SlashAnswer:
    """Run a line that starts with a slash.

    Raises:
        PalError: there is no such command, or it cannot be done; nothing was changed.

    Example:
        >>> run_slash(conversation, "/strategy Question").text
        'strategy: Question'
    """
    name, _, rest = line.strip().partition(" ")
    command = SLASH_COMMANDS.get(name.lower())
    if command is None:
        hint = suggest(name.lower(), SLASH_COMMANDS)
        raise SlashError(f"no command {name[:40]}{hint}; /help lists all")
    rest = rest.strip()
    if len(inspect.signature(command.run).parameters) == 1:
        if rest:
            raise SlashError(f"{name} takes no argument")
        return command.run(conversation)
    return command.run(conversation, rest)


def _help(conversation: Conversation) -> SlashAnswer:
    lines = [f"{one.usage}\n  {one.about}" for one in SLASH_COMMANDS.values()]
    lines.append("//TEXT\n  send /TEXT as a message, not as a command")
    if conversation.session.standing_help:
        lines += ["", conversation.session.standing_help]
    return SlashAnswer("\n".join(lines))


def _persona(conversation: Conversation, rest: str) -> SlashAnswer:
    action, _, words = rest.partition(" ")
    known = list(conversation.known)
    if action == "add":
        sentence = normalise_text(words)
        if not sentence:
            raise SlashError("/persona add: give a sentence, such as: i have two dogs")
        conversation.know([*known, sentence])
    elif action == "drop":
        number = _number("/persona drop", words)
        if not 1 <= number <= len(known):
            raise SlashError(f"/persona drop: no sentence {number}; there are {len(known)}")
        conversation.know(known[: number - 1] + known[number:])
    elif action == "infer":
        if words:
            raise SlashError("/persona infer takes no argument")
        if conversation.session.inference is None:
            raise SlashError("/persona infer: no extractor; start with extractor=FOLDER")
        conversation.know(None)
    elif action:
        hint = suggest(action, ("add", "drop", "infer"))
        raise SlashError(f"/persona: unknown action {action[:40]!r}{hint}")
    return SlashAnswer(_known(conversation))


def _known(conversation: Conversation) -> str:
    how = ", inferred from the conversation" if conversation.infers else ""
    if conversation.session.inference is not None and not conversation.infers:
        how = ", fixed; /persona infer infers it again"
    if not conversation.known:
        return "persona: nothing is inferred yet" if conversation.infers else f"persona: empty{how}"
    lines = [f"  {number}. {one}" for number, one in enumerate(conversation.known, start=1)]
    return "\n".join([f"persona{how}:", *lines])


def _strategy(conversation: Conversation, rest: str) -> SlashAnswer:
    plan = conversation.session.responder.plan
    if rest.lower() == "auto":
        conversation.strategy = None
    elif rest:
        conversation.check(strategy=rest)
        conversation.strategy = plan.strategies.canonical(rest)
    else:
        names = ", ".join(conversation.session.strategies)
        return SlashAnswer(f"{_chosen(conversation)}\nchoices: auto, {names}")
    return SlashAnswer(_chosen(conversation))


def _chosen(conversation: Conversation) -> str:
    if conversation.strategy is not None:
        return f"strategy: {conversation.strategy}"
    given = conversation.session.responder.plan.given
    own = "the model decides" if given is None else conversation.session.strategies[given]
    return f"strategy: auto ({own})"


def _alpha(conversation: Conversation, rest: str) -> SlashAnswer:
    if rest:
        alpha = None if rest.lower() == "own" else _weights(rest)
        conversation.check(alpha=alpha)
        conversation.alpha = alpha
    plan = conversation.session.responder.plan
    given = alpha_of(conversation.alpha, own=plan.alpha, strategies=plan.strategies)
    usual = all(0 <= weight <= USUAL_ALPHA for weight in given)
    more = "" if usual else f"; usual are 0 to {USUAL_ALPHA}"
    return SlashAnswer(f"α: {_weighed(conversation)}{more}")


def _weights(text: str) -> Any:
    """Return α as it is written: a number, numbers with commas, or strategies and numbers."""
    parts = [part.strip() for part in text.strip("[]{}").split(",")]
    if any("=" in part or ":" in part for part in parts):
        pairs = [part.replace(":", "=").partition("=") for part in parts]
        names = [name.strip() for name, _, _ in pairs]
        if len(set(names)) < len(names):
            raise SlashError("/alpha: a strategy is named twice")
        return {name: _weight(value) for name, (_, _, value) in zip(names, pairs, strict=True)}
    numbers = [_weight(part) for part in parts]
    return numbers[0] if len(numbers) == 1 else numbers


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SlashError(
            f"/alpha: {text.strip()[:40]!r} is not a number; give 0.5, Question=1 or own"
        ) from None


def _weighed(conversation: Conversation) -> str:
    plan = conversation.session.responder.plan
    weights = alpha_of(conversation.alpha, own=plan.alpha, strategies=plan.strategies)
    own = " (the model's own)" if conversation.alpha is None else ""
    if len(set(weights)) == 1:
        return f"{weights[0]:g}{own}"
    pairs = zip(conversation.session.strategies, weights, strict=True)
    return ", ".join(f"{name}={weight:g}" for name, weight in pairs) + own


def _seed(conversation: Conversation, rest: str) -> SlashAnswer:
    if rest:
        conversation.seed = _number("/seed", rest)
    return SlashAnswer(f"seed: {conversation.seed}")


def _number(command: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        got = f"got {text[:40]!r}" if text else "got nothing"
        raise SlashError(f"{command}: give a whole number, {got}") from None


def _compare(conversation: Conversation, rest: str) -> SlashAnswer:
    if rest not in ("", "on", "off"):
        raise SlashError(f"/compare: give on or off, got {rest[:40]!r}")
    conversation.set_compare(not conversation.compare if not rest else rest == "on")
    return SlashAnswer(
        f"a reply with α = 0 after each reply: {'on' if conversation.compare else 'off'}"
    )


def _undo(conversation: Conversation) -> SlashAnswer:
    conversation.drop_turn()
    turns = sum(one.role == "user" for one in conversation.lines)
    return SlashAnswer(f"your last turn is removed; {turns} left", changed=True)


def _retry(conversation: Conversation) -> SlashAnswer:
    conversation.retry()
    return SlashAnswer(then="answer")


def _new(conversation: Conversation) -> SlashAnswer:
    conversation.begin_again()
    return SlashAnswer("a new conversation", changed=True)


def _save(conversation: Conversation, rest: str) -> SlashAnswer:
    return _write(conversation, rest, replace=False)


def _save_over(conversation: Conversation, rest: str) -> SlashAnswer:
    return _write(conversation, rest, replace=True)


def _write(conversation: Conversation, rest: str, *, replace: bool) -> SlashAnswer:
    if not rest:
        raise SlashError("/save: give a file, such as: /save chat.jsonl")
    try:
        path = Path(expand_home(rest))
        exists = os.path.lexists(path)
    except (ValueError, RuntimeError) as error:
        raise SlashError(f"/save: {error}") from None
    record = conversation.record()
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give a file")
    if not path.absolute().parent.exists():  # a slip in a name would hide what is private
        raise OutputError(
            f"{path}: there is no folder {path.parent}; make it first, or give another"
        )
    if exists and not replace:
        raise OutputError(f"{path} exists; give another name, or /save! {path} to replace it")
    write_jsonl(path, [record])
    return SlashAnswer(f"saved, readable by you only: {path.resolve()}")


def _quit(conversation: Conversation) -> SlashAnswer:
    return SlashAnswer(then="quit")


SLASH_COMMANDS: dict[str, SlashCommand] = {
    "/help": SlashCommand("/help", "list the commands", _help),
    "/persona": SlashCommand(
        "/persona [add TEXT | drop N | infer]", "show or change your persona", _persona
    ),
    "/strategy": SlashCommand(
        "/strategy [NAME | auto]", "show or set the strategy of replies", _strategy
    ),
    "/alpha": SlashCommand(
        "/alpha [0.5 | Question=1 | own]", "show or set α, the weight of the persona", _alpha
    ),
    "/seed": SlashCommand("/seed [N]", "show or set the random seed", _seed),
    "/compare": SlashCommand(
        "/compare [on | off]", "show a reply with α = 0 after each reply", _compare
    ),
    "/undo": SlashCommand("/undo", "remove your last turn and the reply to it", _undo),
    "/retry": SlashCommand("/retry", "ask for another reply to the same turn", _retry),
    "/new": SlashCommand("/new", "start a new conversation", _new),
    "/save": SlashCommand(
        "/save FILE", "write the conversation as JSON lines; /save! replaces a file", _save
    ),
    "/save!": SlashCommand("/save! FILE", "the same, replacing an existing file", _save_over),
    "/quit": SlashCommand("/quit", "end the chat", _quit),
}


def completions(conversation: Conversation, text: str) -> list[str]:
    """Return the lines that a beginning of a slash command can become."""
    if not text.startswith("/"):
        return []
    whole = [
        *SLASH_COMMANDS, "/persona add", "/persona drop", "/persona infer", "/strategy auto",
        *(f"/strategy {name}" for name in conversation.session.strategies),
        "/alpha own", "/compare on", "/compare off",
    ]  # fmt: skip
    return [one for one in whole if one.lower().startswith(text.lower())]
