"""``pal settings``: every key of every command, as Markdown."""

from pal.core.settings import CommandSettings


class ShowSettings(CommandSettings):
    """Explain all keys as Markdown.

    Attributes:
        prefix: show only keys that start with this text, or the keys of the command with this name.
    """

    positional = "prefix"
    examples = ("pal settings", "pal settings decoding")

    prefix: str = ""


def show_settings(settings: ShowSettings) -> str:
    """Return the table of keys.

    Raises:
        ConfigError: no key starts with the prefix and no command has that name.
    """
    from pal.commands.help import settings_table

    return settings_table(settings.prefix)
