"""Settings: what is timed."""

from typing import Literal

from pydantic import Field

from pal.core.settings import Section


class SpeedSettings(Section):
    """Speed measurements.

    Attributes:
        sides: what ``bench generate`` measures.
        endings: ``fixed``: every response has ``decoding.max_new_tokens`` tokens; ``natural``: they
            are about as long as ESConv's (the end token's bias is set so).
        rounds: how often each side runs; medians are compared.
    """

    sides: list[Literal["ours", "doubled", "two_passes"]] = ["ours", "doubled", "two_passes"]
    endings: Literal["fixed", "natural"] = "fixed"
    rounds: int = Field(3, gt=0)
