"""The strategy set: names, tokens, ids and α. The only place that knows there are eight.

Order, names and α are those of the paper's Table 2; ids are positions in ``STRATEGIES``.
"""

from pal.errors import PalError, suggest

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
