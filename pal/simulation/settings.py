"""Settings of simulated dialogues."""

from typing import Annotated, Any

from pydantic import Field

from pal.core.settings import Count, Section, Unshown
from pal.supporter.settings import SupporterSettings


class SimulatedSupporterSettings(SupporterSettings):
    """The supporter of simulated dialogues; all but ``persona`` is for a language model alone.

    Attributes:
        persona: show the supporter the card's description from the start. Otherwise it knows only
            the persona that it infers (with extractor), or nothing.
        strategy_first: have the model choose one of the eight strategies first, and then respond
            with it. With false its turns have no strategy, and no model can be trained on the
            dialogues.
    """

    strategy_first: bool = True


class SimulationSettings(Section):
    """Simulated seekers.

    Attributes:
        supporter: settings that differ from llm where a language model is the supporter, such as
            {model: …}.
        exchanges: maximum number of exchanges, each a turn of the seeker and one of the supporter.
        least: number of exchanges after which the seeker may end the dialogue.
        use_traits: show the seeker's model a card's trait sentences, if it has any.
        temperature: sampling temperature of the seeker.
        max_tokens: maximum length of a seeker's turn, in tokens.
    """

    supporter: Annotated[dict[str, Any], Unshown()] = Field(default_factory=dict)
    exchanges: int = Field(8, gt=0, le=100)
    least: int = Field(3, gt=0, le=100)
    use_traits: bool = True
    temperature: float = Field(0.7, ge=0, le=2)
    max_tokens: Count = 300
