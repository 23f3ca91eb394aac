"""Settings from Python, for the functions of any command.

Example:
    >>> from pal.config import load_settings
    >>> settings = load_settings("quickstart", ["output_dir=runs/mine"])
    >>> settings.decoding.top_k
    10
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pal.commands import TASKS, all_settings, whole_settings
from pal.commands import load_settings as load_command_settings
from pal.core.reader import Reader


def load_settings(
    config: str | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    *,
    command: str | None = None,
    fixed: Mapping[str, Any] | None = None,
) -> Any:
    """Read settings from a file, overrides and fixed values, in that order.

    Args:
        config: a YAML file, the name of a bundled one, or a tree; None for the defaults alone.
        overrides: ``dotted.key=value`` items.
        command: whose settings, such as ``generate``; None for the keys of all commands, which
            every command's function takes: it picks those that are its own.
        fixed: nested values that win over both.

    Raises:
        ConfigError: every mistake of file and overrides, in one line.
    """
    if command is not None:
        return load_command_settings(command, config, overrides, fixed=fixed)
    whole = whole_settings()
    return Reader(whole, "any command", all_settings(), TASKS).read(config, overrides, fixed)
