"""The strategy set: names, tokens, ids and α. The only place that knows there are eight.

Order, names and α are those of the paper's Table 2; ids are positions in ``STRATEGIES``.
"""

from pal.core.errors import PalError, suggest

STRATEGIES: tuple[str, ...] = (
    "Question",
    "Restatement or Paraphrasing",
    "Reflection of feelings",
    "Self-disclosure",
    "Affirmation and Reassurance",
    "Providing Suggestions",
    "Information",
    "Others",
)

# What each strategy is, after the ESConv paper and "From Personas to Talks", appendix G.
DEFINITIONS: dict[str, str] = {
    "Question": "ask, openly or for details, about the problem, so that the seeker can put it into "
    "words and see it more clearly.",
    "Restatement or Paraphrasing": "say again, shortly, in other words, what the seeker said, so "
    "that they see their situation better.",
    "Reflection of feelings": "name and put into words what the seeker feels, to show that it is "
    "understood.",
    "Self-disclosure": "tell of a similar experience or feeling of one's own, for empathy and "
    "closeness.",
    "Affirmation and Reassurance": "affirm the seeker's strengths, motives and abilities; reassure "
    "and encourage.",
    "Providing Suggestions": "offer ways forward without taking the decision out of the seeker's "
    "hands.",
    "Information": "give facts, knowledge or resources that are useful to the seeker.",
    "Others": "exchange pleasantries, or give support that fits none of the other seven.",
}

# Contrast weight of each strategy, PAL paper, Table 2 (low 0, medium 0.375, high 0.75).
PAPER_ALPHA: tuple[float, ...] = (0.0, 0.75, 0.0, 0.0, 0.75, 0.75, 0.75, 0.375)

ALIASES: dict[str, str] = {
    "Questions": "Question",
    "Other": "Others",
    "Greeting": "Others",
    "Restatement": "Restatement or Paraphrasing",
    "Approval and Reassurance": "Affirmation and Reassurance",
    "Direct Guidance": "Providing Suggestions",
}

_BY_LOWER_NAME = {name.lower(): name for name in STRATEGIES} | {
    alias.lower(): name for alias, name in ALIASES.items()
}


def canonical_strategy(name: str) -> str:
    """Return the canonical name of a strategy, accepting aliases and any letter case.

    Raises:
        PalError: the name is no strategy; the message lists the allowed names.
    """
    found = _BY_LOWER_NAME.get(name.strip().lower()) if isinstance(name, str) else None
    if found is None:
        hint = suggest(str(name), [*STRATEGIES, *ALIASES])
        raise PalError(f"unknown strategy {name!r}{hint} (allowed: {', '.join(STRATEGIES)})")
    return found


def strategy_id(name: str) -> int:
    """Return the id, 0 to 7, of a strategy name or alias."""
    return STRATEGIES.index(canonical_strategy(name))


def strategy_token(name: str) -> str:
    """Return the tokenizer's special token of a strategy, ``[Question]`` and so on."""
    return f"[{canonical_strategy(name)}]"


STRATEGY_TOKENS: tuple[str, ...] = tuple(f"[{name}]" for name in STRATEGIES)

# Added to the base tokenizer in this order (the authors' released checkpoints rely on it).
ADDED_TOKENS: tuple[str, ...] = ("</s>", "<s>", "<persona>", "<input>", *STRATEGY_TOKENS)
