"""The command line: arguments in, one call, exit code out.

Every command takes ``--config FILE_OR_NAME``, ``key=value`` overrides, ``--dry-run``, ``--help``.
Exit codes: 0 done, 2 a mistake of the user's (one line says which), 130 interrupted.
"""

import errno
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pal.core.errors import (
    ConfigError,
    PalError,
    PlannedStop,
    one_line,
    suggest,
    system_refusal,
)
from pal.core.interrupts import INTERRUPTED

# What a machine refuses, whatever the program does: told in one line.
REFUSALS = {
    errno.ENOSPC: "the disk is full; free space",
    errno.EDQUOT: "the quota is used up; free space",
    errno.EACCES: "no permission to read or write it; change its mode",
    errno.EPERM: "the system does not permit it; change its mode",
    errno.EROFS: "it is on a read-only file system; choose another place",
    errno.EISDIR: "a folder, not a file; give a file",
    errno.ENOTDIR: "there is a file where a folder is needed; choose another place",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ELOOP: "its symbolic links form a cycle; give the file itself",
    errno.EIO: "the disk could not be read or written; free space or check it",
    errno.EFBIG: "the file may not grow any more; raise `ulimit -f`",
    errno.EMFILE: "too many files are open; raise `ulimit -n`",
}
OPTIONS = ("--config", "--dry-run", "--help", "--version")
# Options that are short for a setting.
SWITCHES = {"--compare": "compare=true"}


class UsageError(PalError):
    """Arguments that name no command, or an option that does not exist."""


@dataclass
class Arguments:
    """What stands on a command line.

    Attributes:
        command: name of the command, its action included; empty for ``pal --help``.
        config: settings file.
        overrides: ``key=value`` items.
        dry_run: print the settings and stop.
        help: print help and stop.
        positional: what else stands there.
    """

    command: str = ""
    config: str | None = None
    overrides: list[str] = field(default_factory=list)
    dry_run: bool = False
    help: bool = False
    version: bool = False
    positional: list[str] = field(default_factory=list)


def parse_arguments(items: Sequence[str]) -> Arguments:
    """Read a command line.

    Raises:
        UsageError: no such command, action or option; the message names the closest one.
    """
    from pal.commands import COMMANDS

    found, rest = Arguments(), list(items)
    words: list[str] = []
    while rest:
        item = rest.pop(0)
        if item in ("-h", "--help"):
            found.help = True
        elif item == "--version":
            found.version = True
        elif item == "--dry-run":
            found.dry_run = True
        elif item == "--config" or item.startswith("--config="):
            name = item.partition("=")[2] or (rest.pop(0) if rest else "")
            if not name:
                raise UsageError("--config: give a YAML file or the name of a bundled one")
            found.config = name
        elif item in SWITCHES:
            found.overrides.append(SWITCHES[item])
        elif item.startswith("-") and len(item) > 1 and not item[1:2].isdigit():
            raise UsageError(_unknown_option(item, words, rest))
        elif "=" in item:
            found.overrides.append(item)
        else:
            words.append(item)
    if not words:
        return found
    heads = list(dict.fromkeys(name.split()[0] for name in COMMANDS))
    head, *more = words
    if head not in heads:
        raise UsageError(f"unknown command {head!r}{suggest(head, heads)}; `pal --help` lists all")
    actions = [name.split()[1] for name in COMMANDS if name.startswith(f"{head} ")]
    if head in COMMANDS:
        found.command, found.positional = head, more
    elif more:
        action, *found.positional = more
        if action not in actions:
            raise UsageError(
                f"unknown action {action!r} of {head}{suggest(action, actions)} "
                f"(allowed: {', '.join(actions)})"
            )
        found.command = f"{head} {action}"
    elif found.help:
        found.command = head
    else:
        raise UsageError(f"{head}: give an action: {', '.join(actions)}")
    return found


def _unknown_option(item: str, words: Sequence[str], rest: Sequence[str]) -> str:
    """Return what to say of an option that does not exist: most are meant as settings.

    A value is repeated only behind a key of the option's own name: it may be a secret.

    Args:
        item: the option.
        words: words before it.
        rest: what stands behind it.
    """
    from pal.commands import COMMANDS
    from pal.core.reader import keys_ending_in
    from pal.core.settings import fields_of

    name, _, value = item.lstrip("-").partition("=")
    name = name.replace("-", "_")
    follows = bool(rest) and not rest[0].startswith("-") and "=" not in rest[0]
    value = value or (rest[0] if follows else "")
    meant = {option.lstrip("-").replace("-", "_"): option for option in OPTIONS}
    around = [*words, *rest]
    command = next((one for one in (" ".join(around[:2]), *around[:1]) if one in COMMANDS), None)
    if command is not None:
        cls = COMMANDS[command].load_settings_class()
        fields = {key: field for key, field, _ in fields_of(cls)}
        for last in (name, *(key.rpartition(".")[2] for key in fields)):
            found = [last] if last in fields else keys_ending_in(cls, last)
            is_switch = bool(found) and found[0] in fields and fields[found[0]].annotation is bool
            shown = (value or ("true" if is_switch else "…")) if last == name else "…"
            if found:
                meant.setdefault(last, " or ".join(f"{key}={shown}" for key in found))
    hint = suggest(name, meant, meant)
    listed = f"`pal {command} --help` lists them" if command else "`pal settings` lists them"
    told = f"{hint} Settings" if hint else "; settings"
    given = item.partition("=")[0]
    return f"unknown option {given!r}{told} are given as key=value, and {listed}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        _make_printable()
        if "_ARGCOMPLETE" in os.environ:
            from pal.commands.completion import complete

            complete()
        given = parse_arguments(sys.argv[1:] if arguments is None else arguments)
        return _run(given)
    except PalError as error:
        return _fail(str(error))
    except PlannedStop as stop:
        print(stop)
        return 0
    except KeyboardInterrupt as stop:
        _say(str(stop) or INTERRUPTED)
        return 130
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        refusal = system_refusal(error)
        if refusal is not None and refusal.errno in REFUSALS:
            place = refusal.filename2 or refusal.filename or "a file"
            return _fail(f"{str(place)[-300:]}: {REFUSALS[refusal.errno]} and run again")
        if not isinstance(error, RuntimeError) or "out of memory" not in str(error).lower():
            raise
        return _fail(
            "out of memory; lower batch_tokens (annotate, generate, eval) or "
            "training.per_device_train_batch_size, and run the same command again"
        )


def _run(given: Arguments) -> int:
    from pal.commands import COMMANDS, load_settings
    from pal.commands.help import command_help, general_help, resolved_yaml
    from pal.core.runtime import configure_runtime, show_messages

    if given.version:
        from pal import __version__

        print(f"pal {__version__}")
        return 0
    if given.help or not given.command:
        print(command_help(given.command) if given.command else general_help())
        return 0 if given.help else 2
    configure_runtime()
    show_messages()
    command = COMMANDS[given.command]
    cls = command.load_settings_class()
    overrides = given.overrides
    if given.positional:
        named = cls.positional
        if not named or len(given.positional) > 1:
            from pal.core.reader import quote_hint

            what = given.positional[-1] if named else given.positional[0]
            raise ConfigError(f"{what!r} is not of the form key=value{quote_hint(what)}")
        overrides = [f"{named}={given.positional[0]}", *overrides]
    settings = load_settings(given.command, given.config, overrides)
    if given.dry_run:
        print(resolved_yaml(given.command, settings), end="")
        return 0
    from pal.commands.common import check_models

    check_models(settings)
    result: Any = command.load_function()(settings)
    if isinstance(result, str):
        print(result)
    return 0


def _make_printable() -> None:
    """Print what a terminal's encoding lacks as an escape, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _end_progress_bars() -> None:
    """Let bars of work that failed end their line, so that what is said next has one of its own."""
    bars = getattr(getattr(sys.modules.get("tqdm"), "tqdm", None), "_instances", ())
    for bar in list(bars):
        bar.close()


def _say(text: str) -> None:
    print(f"\npal: {one_line(text)}", file=sys.stderr)


def _fail(text: str) -> int:
    _end_progress_bars()
    print(f"pal: error: {one_line(text)}", file=sys.stderr)
    return 2


def run_program(*head: str) -> None:
    """Run ``pal`` as a program: a Ctrl-C at any moment, also while libraries load, is one line.

    Args:
        *head: what stands before the arguments of the process, such as the command of a script.
    """
    # Threads that wait for each other sleep: spinning costs much where other work takes a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is loaded
    if not (sys.stderr and sys.stderr.isatty()):  # into a file: a bar's line every ten seconds
        os.environ.setdefault("TQDM_MININTERVAL", "10")
    else:
        _draw_bars_of_unknown_size()
    try:
        code = main([*head, *sys.argv[1:]])
    except KeyboardInterrupt:
        _say(INTERRUPTED)
        code = 130
    _leave_process_group(code)
    sys.exit(code)


def _draw_bars_of_unknown_size() -> None:
    """Let bars be drawn on a terminal that says its size is 0, as one of ``script`` without one.

    tqdm draws them there with −1 columns or below the last row, which is nothing.
    """
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):
        return
    if 0 in size:
        from tqdm import std

        shape = ((size.columns or 80) - 1, (size.lines or 24) - 1)
        vars(std)["_screen_shape_wrapper"] = lambda: lambda stream: shape


def _leave_process_group(code: int) -> None:
    """Take leave of the other processes of a launcher, those of a finished command together.

    A process that ends with the group's threads still running is aborted now and then.
    """
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return
    if code == 0:
        distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    run_program()
