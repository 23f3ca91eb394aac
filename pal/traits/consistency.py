"""``pal traits compare``: whether dialogues preserve traits, and the spread without persona.

Scores of personas before a dialogue was written from them and as read from it afterwards (paper,
Figures 5-7 and 19-21), and how closely the seekers of dialogues written without persona crowd
(Figure 8; the figures are in :mod:`pal.traits.concentration`).
"""

from pal.core.errors import ConfigError
from pal.core.settings import InputPath
from pal.stats.settings import StatisticsSettings
from pal.traits.settings import ComparisonSettings, StepSettings


class CompareSettings(StepSettings):
    """Compare measurements before and after a dialogue.

    Attributes:
        input: measurements of the seekers of written dialogues.
    """

    examples = (
        "pal traits compare input=after.jsonl traits.before=before.jsonl output=consistency.json",
        "pal traits compare input=after.jsonl traits.without=without.jsonl",
    )

    input: InputPath | None = None
    traits: ComparisonSettings = ComparisonSettings()
    statistics: StatisticsSettings = StatisticsSettings()


def compare_measurements(settings: CompareSettings) -> str:
    """Compare the measurements of ``input`` with those of ``traits.before``; returns Markdown.

    A persona's two measurements are of one data set and model and have one card: ``card`` of the
    record, its ``id`` otherwise. With ``traits.without`` the document also compares how far the
    seekers of ``input`` and those of dialogues without persona are spread.

    Raises:
        PalError: inputs, settings or output cannot be used, or no persona is in both files.
    """
    settings = CompareSettings.of(settings)
    (path,) = settings.require("input")
    before, without = settings.traits.before, settings.traits.without
    if before is None and without is None:
        raise ConfigError(
            "compare: give traits.before=… or traits.without=…, measurements, or both"
        )
    from pal.traits.documents import write_document
    from pal.traits.inventories import load_inventory
    from pal.traits.shifts import build_shifts, show_shifts

    inventories = [load_inventory(source) for source in settings.traits.inventories]
    return write_document(
        "compare", settings,
        lambda: build_shifts(path, before, without, inventories, settings.statistics), show_shifts,
    )  # fmt: skip
