"""``pal traits strategies``: whether traits affect the supporter's choice of strategies.

Distributions by condition and their differences (paper, Tables 5-8).
"""

from pal.traits.settings import TalkStepSettings


class StrategiesSettings(TalkStepSettings):
    """Compare the supporter's strategies by condition."""

    examples = (
        "pal traits strategies input=later.jsonl output=strategies.json",
        "pal traits strategies 'traits.dialogues={with: a.jsonl, without: b.jsonl}'",
    )


def strategies(settings: StrategiesSettings) -> str:
    """Compare the strategies of dialogues or predictions by condition; returns Markdown.

    Raises:
        PalError: inputs, settings or output cannot be used, or no supporter turn has a strategy.
    """
    settings = StrategiesSettings.of(settings)
    from pal.traits.documents import write_document
    from pal.traits.strategy_mixes import build_strategies, show_strategies
    from pal.traits.talks import read_talks, talk_files

    files = talk_files(settings.input, settings.traits.dialogues)
    return write_document(
        "strategies", settings,
        lambda: build_strategies(
            *read_talks(files, settings.split, settings.data), settings.statistics
        ),
        show_strategies,
    )  # fmt: skip
