"""``pal traits correlate``: whether communication style correlates with personality as expected.

Pearson's r of every personality dimension with every style dimension, for each data set and model
(paper, Tables 2-4 and 10-15), and the six pairs that theory ties together.
"""

from pal.core.errors import ConfigError
from pal.core.settings import InputPath
from pal.stats.settings import StatisticsSettings
from pal.traits.settings import InventorySettings, StepSettings


class CorrelateSettings(StepSettings):
    """Correlate personality with communication style.

    Attributes:
        input: measurements, as ``pal traits measure`` writes them.
    """

    examples = (
        "pal traits correlate input=measured.jsonl output=correlations.json",
        "pal traits correlate input=measured.jsonl statistics.resamples=999",
    )

    input: InputPath | None = None
    traits: InventorySettings = InventorySettings()
    statistics: StatisticsSettings = StatisticsSettings()


def correlate(settings: CorrelateSettings) -> str:
    """Correlate the two inventories of ``input``, measurements; returns Markdown.

    Raises:
        PalError: inputs, settings or output cannot be used.
    """
    settings = CorrelateSettings.of(settings)
    (path,) = settings.require("input")
    from pal.traits.correlation_tables import build_correlations, show_correlations
    from pal.traits.documents import write_document
    from pal.traits.inventories import load_inventory

    if len(settings.traits.inventories) != 2:
        raise ConfigError(
            "traits.inventories: correlate needs two, personality first and then style, got "
            f"{len(settings.traits.inventories)}"
        )
    rows, columns = map(load_inventory, settings.traits.inventories)
    return write_document(
        "correlate", settings,
        lambda: build_correlations(path, rows, columns, settings.statistics), show_correlations,
    )  # fmt: skip
