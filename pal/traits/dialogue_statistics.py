"""``pal traits stats``: how long dialogues are (paper, Table 16), and what cards hold (Table 1)."""

from pal.traits.settings import TalkStepSettings


class StatsSettings(TalkStepSettings):
    """Count words and turns of dialogues by condition, or describe cards."""

    examples = (
        "pal traits stats input=later.jsonl output=statistics.json",
        "pal traits stats input=cards.jsonl",
    )


def stats(settings: StatsSettings) -> str:
    """Count words and turns of dialogues by condition, or describe cards; returns Markdown.

    ``input`` may be a file of cards; dialogues otherwise, or ``traits.dialogues``.

    Raises:
        PalError: inputs, settings or output cannot be used.
    """
    settings = StatsSettings.of(settings)
    from pal.traits.documents import write_document
    from pal.traits.sizes import build_sizes, show_sizes
    from pal.traits.talks import talk_files

    files = talk_files(settings.input, settings.traits.dialogues)
    return write_document(
        "stats", settings,
        lambda: build_sizes(files, settings.split, settings.data, settings.statistics), show_sizes,
    )  # fmt: skip
