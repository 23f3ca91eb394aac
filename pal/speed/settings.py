"""Settings: what is timed."""

from typing import Literal

from pydantic import Field

from pal.core.settings import Section


class RoundSettings(Section):
    """How often something is timed.

    Attributes:
        rounds: how often each side runs; medians are compared.
    """

    rounds: int = Field(3, gt=0, le=1000)


class GenerationSpeedSettings(RoundSettings):
    """How generation is timed.

    Attributes:
        sides: which sides are measured.
        endings: ``fixed``: every response has ``decoding.max_new_tokens`` tokens; ``natural``: they
            are about as long as those of ESConv (the bias of the end token is set so).
    """

    sides: list[Literal["ours", "doubled", "two_passes"]] = ["ours", "doubled", "two_passes"]
    endings: Literal["fixed", "natural"] = "fixed"
