"""Help texts, made from the settings classes: every key with its type, default and meaning."""

import shutil
import textwrap

import yaml

from pal.commands import COMMANDS, all_settings
from pal.core.errors import ConfigError, suggest
from pal.core.explain import Row, explain
from pal.core.job import redact
from pal.core.settings import CommandSettings

CLOSING = """\
settings: --config takes a YAML file or the name of a bundled one (small, pal, joint, …);
key=value overrides follow, dotted for nested keys: training.learning_rate=1e-5
--dry-run prints the settings that a command would run with; `pal settings` explains all settings"""


def general_help() -> str:
    """Return the help of ``pal`` itself: one line per command."""
    heads: dict[str, str] = {}
    for name, command in COMMANDS.items():
        head, _, action = name.partition(" ")
        if action:
            actions = [n.split()[1] for n in COMMANDS if n.startswith(f"{head} ")]
            heads.setdefault(head, f"{GROUPS[head]}: {', '.join(actions)}")
        else:
            heads[head] = command.summary
    width = max(map(len, heads)) + 2
    lines = [_hanging(f"  {name:{width}}", text) for name, text in heads.items()]
    return "\n".join([
        "usage: pal COMMAND [--config FILE_OR_NAME] [key=value …]",
        "",
        "Persona-augmented emotional support dialogue.",
        "",
        *lines,
        "",
        "pal COMMAND --help lists every setting of a command with its type, default and meaning",
        CLOSING,
    ])  # fmt: skip


# Commands that take an action as their first argument.
GROUPS = {
    "guard": "the check of conversations for signs of suicide and self-harm",
    "human-eval": "blinded sheets for people to judge",
    "judge": "language models as judges of systems",
    "study": "blinded chats with people over the web",
    "traits": "personality and style that language models infer from personas and dialogues",
    "bench": "speed on this machine, compared with alternatives",
}


def command_help(name: str) -> str:
    """Return a command's help: what it does, examples, every key in groups."""
    if name not in COMMANDS:
        return _actions_help(name)
    command, cls = COMMANDS[name], all_settings()[name]
    named = f" {cls.positional.upper()}" if cls.positional else ""
    lines = [
        f"usage: pal {name}{named} [--config FILE_OR_NAME] [--dry-run] [key=value …]", "",
        f"{command.summary[0].upper()}{command.summary[1:]}.", "", "examples:",
        *(f"  {example}" for example in cls.examples),
    ]  # fmt: skip
    group = None
    for row in explain(cls):
        if row.group != group:
            group = row.group
            lines += ["", f"{group}.*:" if group else "settings:"]
        lines.append(f"  {row.key}  [{row.type}; default {row.default}]")
        lines += _wrapped(row.meaning, 6)
    return "\n".join([*lines, "", CLOSING])


def _actions_help(head: str) -> str:
    found = {n.split()[1]: c.summary for n, c in COMMANDS.items() if n.startswith(f"{head} ")}
    width = max(map(len, found)) + 2
    return "\n".join([
        f"usage: pal {head} ACTION [--config FILE_OR_NAME] [key=value …]", "",
        *(_hanging(f"  {action:{width}}", text) for action, text in found.items()), "",
        f"pal {head} ACTION --help lists the settings of an action",
    ])  # fmt: skip


def settings_table(prefix: str = "") -> str:
    """Return a Markdown table of the keys that start with ``prefix`` or belong to that command.

    Raises:
        ConfigError: no key starts with the prefix and no command has that name.
    """
    rows: dict[Row, list[str]] = {}
    for name, cls in all_settings().items():
        for row in explain(cls):
            if not prefix or row.key.startswith(prefix) or prefix in (name, name.split()[0]):
                rows.setdefault(row, []).append(name)
    if not rows:
        known = [row.key for cls in all_settings().values() for row in explain(cls)]
        hint = suggest(prefix, [*dict.fromkeys(known), *COMMANDS])
        raise ConfigError(f"no setting starts with {prefix!r}{hint}")
    lines = ["| key | type | default | meaning | commands |", "| --- | --- | --- | --- | --- |"]
    for row, names in sorted(rows.items(), key=lambda item: (item[0].group, item[0].key)):
        cells = (f"`{row.key}`", row.type, f"`{row.default}`", row.meaning, ", ".join(names))
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def resolved_yaml(name: str, settings: CommandSettings) -> str:
    """Return the settings that a command would run with, as YAML that ``--config`` takes."""
    tree = redact(settings.model_dump(mode="json"))
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100)
    return f"# pal {name} --config THIS_FILE\n{text}"


def _width() -> int:
    return max(60, min(shutil.get_terminal_size((100, 24)).columns, 110))


def _wrapped(text: str, indent: int) -> list[str]:
    space = " " * indent
    return textwrap.wrap(text, _width(), initial_indent=space, subsequent_indent=space)


def _hanging(head: str, text: str) -> str:
    return textwrap.fill(
        text, _width(), initial_indent=head, subsequent_indent=" " * len(head)
    )  # fmt: skip
