"""Settings of a language model as supporter."""

from pydantic import Field

from pal.core.settings import Count, Section


class SupporterSettings(Section):
    """How a language model is asked for the supporter's next turn.

    Attributes:
        persona: show the model the seeker's persona, sentence by sentence.
        strategy_first: have the model choose one of the eight strategies first, and then respond
            with it. False asks for a response alone, and strategies are not scored.
        temperature: sampling temperature of the replies; 0 takes the most probable token.
        max_tokens: maximum length of a reply, in tokens.
    """

    persona: bool = False
    strategy_first: bool = False
    temperature: float = Field(0.0, ge=0, le=2)
    max_tokens: Count = 400
