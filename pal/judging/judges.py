"""Judges: language models that are asked about all items, each for itself."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pal.llm import connect
from pal.llm.base import Request, refuse_silence
from pal.llm.facts import changed_llm
from pal.llm.prompts import Prompt, load_prompt
from pal.llm.settings import LlmSettings

logger = logging.getLogger(__name__)

# The answers of a judge, by id of the request; None where there is none.
Answers = dict[str, dict[str, Any]]


def load_judge_prompt(kind: str) -> Prompt:
    """Return the prompt for ``pairs`` or ``ratings``."""
    return load_prompt(Path(__file__).parent / "prompts", kind)


def judges_of(llm: LlmSettings, named: Mapping[str, Mapping[str, Any]]) -> dict[str, LlmSettings]:
    """Return the settings of every judge, by name.

    Args:
        llm: settings that all share, and the only judge's where none is named.
        named: what differs for each.

    Raises:
        ConfigError: a judge has a key that a language model has not, or a value that fits none.
    """
    if not named:
        return {(llm.model or "judge").rpartition("/")[2]: llm}
    return {
        name: changed_llm(llm, changes, f"judging.judges.{name}") for name, changes in named.items()
    }


def ask_judges(
    judges: Mapping[str, LlmSettings], requests: Sequence[Request], dtype: str
) -> tuple[dict[str, Answers], dict[str, dict[str, str]], dict[str, dict[str, Any]]]:
    """Put all requests to every judge.

    Returns:
        The answers of each judge by id of the request; why requests have none; and what each
        judge is, for the record.

    Raises:
        PalError: a judge cannot be used, or answers nothing.
    """
    answers: dict[str, Answers] = {}
    failures: dict[str, dict[str, str]] = {}
    facts = {}
    for name, llm in judges.items():
        model = connect(llm, dtype)
        outcomes = model.ask(requests, description=f"judge {name}")
        refuse_silence(outcomes, f"judge {name}")
        answers[name] = {one.id: one.value for one in outcomes if one.reason is None}
        failures[name] = {one.id: one.reason for one in outcomes if one.reason is not None}
        facts[name] = model.describe()
        if failures[name]:
            logger.warning(
                "judge %s: %d of %d requests got no answer", name, len(failures[name]),
                len(requests),
            )  # fmt: skip
    return answers, failures, facts
