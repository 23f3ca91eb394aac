"""Settings: intervals and tests."""

from pydantic import Field

from pal.core.settings import Section


class StatisticsSettings(Section):
    """Intervals and tests.

    Attributes:
        resamples: bootstrap resamples of an interval, and permutations of a test.
        confidence: of the intervals.
        seed: of both.
    """

    resamples: int = Field(9999, gt=99)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    seed: int = 0
