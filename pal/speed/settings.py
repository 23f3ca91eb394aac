"""Settings of the speed benchmarks."""

from typing import Literal

from pydantic import Field

from pal.core.settings import Count, Section, Source


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


class ScaleSettings(Section):
    """What is measured on a synthetic corpus.

    Attributes:
        stages: what is run, in this order; ``eval`` reads what ``generate`` wrote.
        turns: turns of every dialogue.
        extractor: persona extractor, for the stage ``annotate``.
        canned: let a stand-in answer in place of the models, so that only the work that grows with
            the corpus is measured.
    """

    stages: list[Literal["read", "annotate", "tokens", "generate", "eval", "audit"]] = [
        "read", "annotate", "tokens", "generate", "eval", "audit",
    ]  # fmt: skip
    turns: Count = 30
    extractor: Source | None = None
    canned: bool = False
