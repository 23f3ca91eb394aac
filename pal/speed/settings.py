"""Settings of the speed benchmarks."""

from typing import Literal

from pydantic import Field

from pal.core.settings import Section


class RoundSettings(Section):
    """The number of rounds.

    Attributes:
        rounds: number of runs of each side; medians are compared.
    """

    rounds: int = Field(3, gt=0, le=1000)


class GenerationSpeedSettings(RoundSettings):
    """How generation is timed.

    Attributes:
        sides: sides to measure: of ``ours``, ``doubled``, ``two_passes``, or of a decoder-only
            model ``ours``, ``guidance``, ``two_passes``; all of the model's when null.
        endings: with ``fixed``, every response has ``decoding.max_new_tokens`` tokens; with
            ``natural``, responses are about as long as in ESConv, by the bias of the end token.
    """

    sides: list[Literal["ours", "doubled", "two_passes", "guidance"]] | None = None
    endings: Literal["fixed", "natural"] = "fixed"
