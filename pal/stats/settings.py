"""Settings of intervals and tests."""

from pydantic import Field

from pal.core.settings import Section, Seed


class ConfidenceSettings(Section):
    """Intervals.

    Attributes:
        confidence: confidence level of the intervals.
    """

    confidence: float = Field(0.95, gt=0.5, lt=1)


class StatisticsSettings(ConfidenceSettings):
    """Intervals and tests.

    Attributes:
        resamples: number of bootstrap resamples of an interval, and of permutations of a test.
        seed: seed of resamples and permutations.
    """

    resamples: int = Field(9999, gt=99, le=10**7)
    seed: Seed = 0
