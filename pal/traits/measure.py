"""Measurement: a model fills in inventories for persona cards, one statement per request.

The description comes first and the statement last, so that a server can reuse what the requests of
a card share (Figure 13). An answer that does not come stays out, with its reason.
"""

import logging
from typing import TYPE_CHECKING, Any

from pal.traits.forms import ANSWER
from pal.traits.settings import CardFileSettings, MeasuringSettings

if TYPE_CHECKING:
    from pal.llm.base import LanguageModel
    from pal.traits.steps import Records

logger = logging.getLogger(__name__)

__all__ = ["ANSWER", "MeasureSettings", "measure"]


class MeasureSettings(CardFileSettings):
    """Let a model fill in inventories for every card."""

    examples = (
        "pal traits measure input=described.jsonl output=measured.jsonl "
        "llm.base_url=http://localhost:8000/v1 llm.model=qwen",
        "pal traits measure input=cards.jsonl traits.form=short output=measured.jsonl "
        "llm.estimate_only=true llm.model=…",
    )

    traits: MeasuringSettings = MeasuringSettings()


def measure(settings: MeasureSettings) -> str:
    """Let the model answer every statement of every inventory for every card of ``input``.

    Writes one record a card and inventory: answers as given, statements without answer and why, and
    the dimensions' scores. Cards that failed or were dropped by the filter are not asked about;
    failed ones are carried with their reason.

    Raises:
        PalError: input, inventory, model or output cannot be used.
    """
    settings = MeasureSettings.of(settings)
    (source,) = settings.require("input")
    from pal.llm.base import Request
    from pal.traits.inventories import load_inventory
    from pal.traits.readers import is_usable, persona_text, read_cards
    from pal.traits.scoring import score_dimensions
    from pal.traits.steps import load_trait_prompt, run_step

    given, wording = read_cards(source)[: settings.limit], load_trait_prompt("measure")
    form, use_traits = settings.traits.form, settings.traits.use_traits
    inventories = [load_inventory(name) for name in settings.traits.inventories]
    usable = [card for card in given if is_usable(card)]
    failed = [card for card in given if "failed" in card]
    statements = sum(len(inventory.items_of(form)) for inventory in inventories)
    logger.info(
        "measure: %d statements about each of %d cards, %d questions; cards dropped by the filter: "
        "%d, failed before: %d",
        statements, len(usable), statements * len(usable), len(given) - len(usable) - len(failed),
        len(failed),
    )  # fmt: skip

    def make(model: "LanguageModel") -> "Records":
        texts = [persona_text(card, use_traits=use_traits) for card in usable]
        requests = [
            Request(
                id=f"{index}/{inventory.name}/{item.id}", schema=ANSWER, schema_name="answer",
                max_tokens=16,
                messages=wording.fill(description=text, statement=item.text,
                                      scale=inventory.scale),
            )
            for index, text in enumerate(texts)
            for inventory in inventories
            for item in inventory.items_of(form)
        ]  # fmt: skip
        outcomes = {o.id: o for o in model.ask(requests, description="measure")}
        records: list[dict[str, Any]] = []
        for index, card in enumerate(usable):
            for inventory in inventories:
                found = {
                    item.id: outcomes[f"{index}/{inventory.name}/{item.id}"]
                    for item in inventory.items_of(form)
                }
                answers = {key: o.value["answer"] for key, o in found.items() if not o.reason}
                records.append(
                    {"id": card["id"], "dataset": card["dataset"], "inventory": inventory.name,
                     "version": inventory.version, "form": form, "model": model.name,
                     "answers": answers,
                     "unanswered": {key: o.reason for key, o in found.items() if o.reason},
                     "scores": score_dimensions(inventory, answers, form)}
                )  # fmt: skip
        return records + [
            {key: card[key] for key in ("id", "dataset", "failed")} for card in failed
        ]

    return run_step(
        "measure", settings, make, prompts=[wording],
        noun="measurements (one for each card and inventory)",
    )  # fmt: skip
