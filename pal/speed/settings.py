"""Settings of the speed benchmarks."""

from typing import Literal

from pydantic import Field

from pal.core.settings import Count, ExtractorSource, Section


class RoundSettings(Section):
    """The number of rounds.

    Attributes:
        rounds: number of runs of each alternative; medians are compared.
    """

    rounds: int = Field(3, gt=0, le=1000)


class GenerationSpeedSettings(RoundSettings):
    """How generation is timed.

    Attributes:
        sides: alternatives to measure: of ours, doubled, two_passes; for a decoder-only model, of
            ours, guidance, two_passes. Null measures all.
        endings: fixed gives every response decoding.max_new_tokens tokens; natural gives responses
            about the lengths of ESConv, by a bias on the end token.
    """

    sides: list[Literal["ours", "doubled", "two_passes", "guidance"]] | None = None
    endings: Literal["fixed", "natural"] = "fixed"


class ScaleSettings(Section):
    """What is measured on a synthetic corpus.

    Attributes:
        stages: stages to run, in this order; eval reads what generate wrote.
        turns: number of turns in every dialogue.
        extractor: persona extractor, for the stage ``annotate``.
        canned: replace the models by stand-ins with fixed answers, so that only the work that grows
            with the corpus is measured.
    """

    stages: list[Literal["read", "annotate", "tokens", "generate", "eval", "audit"]] = [
        "read", "annotate", "tokens", "generate", "eval", "audit",
    ]  # fmt: skip
    turns: Count = 30
    extractor: ExtractorSource | None = None
    canned: bool = False
