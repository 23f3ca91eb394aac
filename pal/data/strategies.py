"""The strategy set: names, tokens, ids and α of the strategies, defined only here.

:class:`StrategySet` is the object; :data:`ESCONV` is the set of the corpus and of the paper, in the
order of its Table 2. The constants and functions below it are views of :data:`ESCONV`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pal.core.errors import PalError, suggest


@dataclass(frozen=True)
class StrategySet:
    """A set of support strategies, from which a model chooses one before it answers.

    Args:
        names: canonical names; the id of a strategy is its position.
        definitions: name → definition of the strategy, for prompts.
        alpha: contrast weight of each strategy, in the order of the names; empty means 0 for all.
        aliases: other name in files → canonical name.

    Raises:
        PalError: there are no names, a name occurs twice, or the parts do not fit together.

    Example:
        >>> two = StrategySet(("Ask", "Comfort"), aliases={"Question": "Ask"})
        >>> two.canonical("question"), two.id("Comfort"), two.token("ask")
        ('Ask', 1, '[Ask]')
    """

    names: Sequence[str]
    definitions: Mapping[str, str] = field(default_factory=dict)
    alpha: Sequence[float] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "alpha", tuple(self.alpha) or (0.0,) * len(self.names))
        lower = [name.strip().lower() for name in self.names]
        if not lower or len(set(lower)) < len(lower) or not all(lower):
            raise PalError(f"a strategy set needs distinct names, got {list(self.names)}")
        if len(self.alpha) != len(self.names):
            raise PalError(
                f"a strategy set of {len(self.names)} needs as many α, got {len(self.alpha)}"
            )
        unknown = [n for n in (*self.definitions, *self.aliases.values()) if n not in self.names]
        if unknown:
            raise PalError(f"{unknown[0]!r} is not one of the strategies {', '.join(self.names)}")

    @cached_property
    def _by_lower_name(self) -> dict[str, str]:
        aliases = {alias.strip().lower(): name for alias, name in self.aliases.items()}
        return aliases | {name.strip().lower(): name for name in self.names}

    def __len__(self) -> int:
        return len(self.names)

    def canonical(self, name: str) -> str:
        """Return the canonical name of a strategy, accepting aliases and any letter case.

        Raises:
            PalError: the name is not a strategy; the message lists the allowed names.
        """
        found = self._by_lower_name.get(name.strip().lower()) if isinstance(name, str) else None
        if found is None:
            part = [one for one in self.names if str(name).strip().lower() in one.lower()]
            words = {word: one for one in self.names for word in one.lower().split()}
            near = {word: one for word, one in words.items() if len(word) > 3}
            near |= self._by_lower_name
            hint = suggest(str(name).strip().lower(), near, near)
            if len(part) == 1 and str(name).strip():
                hint = f"; did you mean {part[0]!r}?"
            raise PalError(
                f"unknown strategy {name!r:.80}{hint} (allowed: {', '.join(self.names)})"
            )
        return found

    def id(self, name: str) -> int:
        """Return the id, from 0, of a strategy's name or alias.

        Raises:
            PalError: the name is not a strategy.
        """
        return self.names.index(self.canonical(name))

    def token(self, name: str) -> str:
        """Return the special token of a strategy, such as ``[Question]``.

        Raises:
            PalError: the name is not a strategy.
        """
        return f"[{self.canonical(name)}]"

    @property
    def tokens(self) -> tuple[str, ...]:
        """The special tokens, in the order of ids."""
        return tuple(f"[{name}]" for name in self.names)


ESCONV = StrategySet(
    names=(
        "Question",
        "Restatement or Paraphrasing",
        "Reflection of feelings",
        "Self-disclosure",
        "Affirmation and Reassurance",
        "Providing Suggestions",
        "Information",
        "Others",
    ),
    # After the ESConv paper and "From Personas to Talks", appendix G.
    definitions={
        "Question": "ask, openly or for details, about the problem, so that the seeker can put it "
        "into words and see it more clearly.",
        "Restatement or Paraphrasing": "say again, shortly, in other words, what the seeker said, "
        "so that they see their situation better.",
        "Reflection of feelings": "name and put into words what the seeker feels, to show that it "
        "is understood.",
        "Self-disclosure": "tell of a similar experience or feeling of one's own, for empathy and "
        "closeness.",
        "Affirmation and Reassurance": "affirm the seeker's strengths, motives and abilities; "
        "reassure and encourage.",
        "Providing Suggestions": "offer ways forward without taking the decision out of the "
        "seeker's hands.",
        "Information": "give facts, knowledge or resources that are useful to the seeker.",
        "Others": "exchange pleasantries, or give support that fits none of the other seven.",
    },
    # PAL paper, Table 2 (low 0, medium 0.375, high 0.75).
    alpha=(0.0, 0.75, 0.0, 0.0, 0.75, 0.75, 0.75, 0.375),
    aliases={
        "Questions": "Question",
        "Other": "Others",
        "Greeting": "Others",
        "Restatement": "Restatement or Paraphrasing",
        "Approval and Reassurance": "Affirmation and Reassurance",
        "Direct Guidance": "Providing Suggestions",
    },
)

STRATEGIES: tuple[str, ...] = tuple(ESCONV.names)
DEFINITIONS: dict[str, str] = dict(ESCONV.definitions)
PAPER_ALPHA: tuple[float, ...] = tuple(ESCONV.alpha)
STRATEGY_TOKENS: tuple[str, ...] = ESCONV.tokens

# Added to the base tokenizer in this order (the authors' released checkpoints rely on it).
ADDED_TOKENS: tuple[str, ...] = ("</s>", "<s>", "<persona>", "<input>", *STRATEGY_TOKENS)


def canonical_strategy(name: str) -> str:
    """Return :meth:`StrategySet.canonical` of :data:`ESCONV`."""
    return ESCONV.canonical(name)


def strategy_id(name: str) -> int:
    """Return :meth:`StrategySet.id` of :data:`ESCONV`."""
    return ESCONV.id(name)


def strategy_token(name: str) -> str:
    """Return :meth:`StrategySet.token` of :data:`ESCONV`."""
    return ESCONV.token(name)
