"""Measurement: a model fills in inventories for persona cards, one statement a request.

The description comes first and the statement last, so that a server can reuse what the requests of
a card share (Figure 13). An answer that does not come stays out, with its reason.
"""

import logging
from typing import Any

from pal.core.schema import Settings
from pal.llm.base import LanguageModel, Request
from pal.traits.cards import object_schema
from pal.traits.inventories import SCALE, load_inventory
from pal.traits.readers import is_usable, persona_text, read_cards
from pal.traits.scoring import score
from pal.traits.steps import Records, prompt, run_step

logger = logging.getLogger(__name__)

# Listed one by one: not every server enforces a smallest and a largest number.
ANSWER = object_schema({"answer": {"type": "integer", "enum": list(SCALE)}})


def measure(settings: Settings) -> str:
    """Let the model answer every statement of every inventory for every card of ``input``.

    Writes one record a card and inventory: answers as given, statements without answer and why, and
    the dimensions' scores. Cards that failed or were dropped by the filter are not asked about;
    failed ones are carried with their reason.

    Raises:
        PalError: input, inventory, model or output cannot be used.
    """
    (source,) = settings.require("input")
    given, wording = read_cards(source)[: settings.limit], prompt("measure")
    form = settings.traits.form
    inventories = [load_inventory(name) for name in settings.traits.inventories]
    usable = [card for card in given if is_usable(card)]
    failed = [card for card in given if "failed" in card]
    logger.info(
        "measure: %d statements about each of %d cards, %d questions; %d cards were dropped by the "
        "filter, %d had failed",
        sum(len(i.items_of(form)) for i in inventories), len(usable),
        sum(len(i.items_of(form)) for i in inventories) * len(usable),
        len(given) - len(usable) - len(failed), len(failed),
    )  # fmt: skip

    def make(model: LanguageModel) -> Records:
        texts = [persona_text(card, use_traits=settings.traits.use_traits) for card in usable]
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
                     "scores": score(inventory, answers, form)}
                )  # fmt: skip
        return records + [
            {key: card[key] for key in ("id", "dataset", "failed")} for card in failed
        ]

    return run_step(
        settings, "measure", make,
        inputs=[given, [inventory.model_dump(mode="json") for inventory in inventories]],
        prompts=[wording], choices=["form", "use_traits"],
    )  # fmt: skip
