"""Completion of commands and keys in the shell, through argcomplete.

eval "$(register-python-argcomplete pal)"
"""

import argparse


def complete() -> None:
    """Print the possible continuations of the command line and exit."""
    import argcomplete

    from pal.commands import COMMANDS, all_settings
    from pal.core.settings import fields_of

    parser = argparse.ArgumentParser(prog="pal")
    heads = parser.add_subparsers()

    def keys(name: str) -> list[str]:
        return [f"{key}=" for key, _, _ in fields_of(all_settings()[name])]

    groups: dict[str, argparse._SubParsersAction] = {}
    for name in COMMANDS:
        head, _, action = name.partition(" ")
        if action and head not in groups:
            groups[head] = heads.add_parser(head).add_subparsers()
        command = (groups[head] if action else heads).add_parser(action or head)
        command.add_argument("--config")
        command.add_argument("--dry-run", action="store_true")
        given = command.add_argument("settings", nargs="*")
        given.completer = lambda name=name, **_: keys(name)  # type: ignore[union-attr]
    argcomplete.autocomplete(parser, always_complete_options=False)
