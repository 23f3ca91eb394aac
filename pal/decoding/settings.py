"""Settings of decoding."""

from typing import Annotated, Literal

from pydantic import Field

from pal.core.settings import Section

Weight = Annotated[float, Field(ge=-100, le=100)]


class SamplingOptions(Section):
    """How tokens are chosen from logits; the defaults are those of the PAL paper, section 4.3.

    Attributes:
        do_sample: sample tokens; false takes the most probable token.
        temperature: sampling temperature, by which the logits are divided.
        top_k: sample among this many of the most probable tokens; 0 means all.
        top_p: sample among the most probable tokens whose probabilities sum to this (nucleus
            sampling).
        repetition_penalty: penalty on the scores of tokens that have already occurred; 1 means
            none.
        num_beams: beam width; beam search (more than 1) needs ``do_sample: false``.
        min_new_tokens: minimum length of a response, in tokens; null means 10, as in the paper, and
            1 for decoder-only models, which with more continue as the other speaker.
        max_new_tokens: maximum length of a response, in tokens.
    """

    do_sample: bool = True
    temperature: float = Field(0.5, gt=0)
    top_k: int = Field(10, ge=0, le=2**31 - 1)
    top_p: float = Field(0.9, gt=0, le=1)
    repetition_penalty: float = Field(1.03, gt=0)
    num_beams: int = Field(1, gt=0, le=1024)
    min_new_tokens: int | None = Field(None, ge=0, le=2**20)
    max_new_tokens: int = Field(50, gt=0, le=2**20)

    @property
    def least(self) -> int:
        """The minimum length, as it is used: the paper's where none is given."""
        return 10 if self.min_new_tokens is None else self.min_new_tokens


class SampleSettings(Section):
    """The choice of samples, for commands that do not decode.

    Attributes:
        samples: which supporter turns are samples: evaluation (those after a seeker turn) or
            training (all but a dialogue's first turn).
    """

    samples: Literal["evaluation", "training"] = "evaluation"


class DecodingSettings(SampleSettings, SamplingOptions):
    """Response generation (PAL paper, section 3.4 and appendix D).

    Attributes:
        strategy: how strategies are chosen: argmax, sample, gold, or the name of one strategy for
            all samples.
        alpha: contrast weight α: one number for all strategies, eight numbers, or a mapping by
            name, {Question: 1} (others keep the model's own α). Usual are 0 to 2; 0 is without
            contrast, and a negative α prefers what the model says without the persona. Null means
            the model's own.
        strategy_alpha: contrast weight α in the prediction of the strategy; null means the model's
            own.
        plausibility: drop tokens whose probability with persona is below this share of the most
            probable token's, so that a large α cannot select implausible tokens; 0 drops none. For
            decoder-only models.
    """

    strategy: str = "argmax"
    alpha: Weight | list[Weight] | dict[str, Weight] | None = Field(
        None, examples=["1.0", "{Question: 1}"]
    )
    strategy_alpha: Weight | None = None
    plausibility: float = Field(0.0, ge=0, le=1)
