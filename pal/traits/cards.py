"""Persona cards: extracted from texts, filtered, with trait sentences; and grown from one line."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pal.core.schema import Settings
from pal.llm.base import LanguageModel, Request
from pal.traits.inventories import load_inventory
from pal.traits.readers import (
    Item,
    is_usable,
    load_items,
    load_personas,
    persona_text,
    read_cards,
)
from pal.traits.steps import Records, prompt, run_step

AGES = ("teenage", "young", "middle-aged", "old", "unknown")
GENDERS = ("male", "female", "unknown")
CRITERIA = ("emotions", "events", "background", "cause_and_consequence", "specific")


def object_schema(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of an object that has exactly these properties."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


TEXT = {"type": "string"}
PERSON = {
    "age": {"type": "string", "enum": list(AGES)},
    "gender": {"type": "string", "enum": list(GENDERS)},
    "occupation": TEXT,
    "description": TEXT,
}
CARD = object_schema({**PERSON, "problem": TEXT})
EXPANDED = object_schema(PERSON)
VERDICT = object_schema(
    {
        **{name: {"type": "boolean"} for name in CRITERIA},
        "keep": {"type": "boolean"},
        "reasons": {"type": "array", "items": TEXT},
    }
)


def check_texts(_: Request, value: Any) -> str | None:
    """Return which text of an answer is empty, or None."""
    empty = [key for key, text in value.items() if isinstance(text, str) and not text.strip()]
    return f"empty {', '.join(empty)}" if empty else None


def cards(settings: Settings) -> str:
    """Extract a card of the seeker or author from every text of ``input`` (Figure 11).

    Raises:
        PalError: input, model or output cannot be used.
    """
    return _from_items(settings, "cards", load_items(settings), CARD, 0.0)


def expand(settings: Settings) -> str:
    """Grow every one-line persona of ``input`` into a card (Figure 15).

    Raises:
        PalError: input, model or output cannot be used.
    """
    items = load_personas(settings)
    return _from_items(settings, "expand", items, EXPANDED, settings.traits.temperature)


def _from_items(
    settings: Settings, command: str, items: list[Item], schema: dict[str, Any], temperature: float
) -> str:
    wording = prompt(command)

    def make(model: LanguageModel) -> Records:
        requests = [
            Request(
                id=item.id, schema=schema, schema_name="card", temperature=temperature,
                seed=settings.seed if temperature else None,
                messages=wording.fill(**{"kind": item.kind, "text": item.text,
                                         "persona": item.text}),
            )
            for item in items
        ]  # fmt: skip
        outcomes = model.ask(requests, description=command, check=check_texts)
        return [
            {"id": item.id, "dataset": item.dataset,
             **({"failed": outcome.reason} if outcome.reason else outcome.value),
             **({"persona": item.text} if item.kind == "persona" else {})}
            for item, outcome in zip(items, outcomes, strict=True)
        ]  # fmt: skip

    return run_step(
        settings, command, make, inputs=[asdict(item) for item in items], prompts=[wording],
        choices=["temperature"] if temperature else [],
    )  # fmt: skip


def filter_cards(settings: Settings) -> str:
    """Judge which cards of ``input`` tell enough of a person and a problem (Figure 14).

    Adds ``keep``, ``reasons`` and ``criteria``; a dropped card stays in the file, marked.

    Raises:
        PalError: input, model or output cannot be used.
    """
    (source,) = settings.require("input")
    given, wording = read_cards(source)[: settings.limit], prompt("filter")

    def make(model: LanguageModel) -> Records:
        requests = {
            index: Request(
                id=str(index), schema=VERDICT, schema_name="verdict",
                messages=wording.fill(description=card["description"],
                                      problem=card.get("problem", "")),
            )
            for index, card in enumerate(given)
            if "failed" not in card
        }  # fmt: skip
        outcomes = {int(o.id): o for o in model.ask([*requests.values()], description="filter")}
        records = []
        for index, card in enumerate(given):
            outcome = outcomes.get(index)
            if outcome is None:
                records.append(card)
            elif outcome.reason:
                records.append({**card, "failed": outcome.reason})
            else:
                value = outcome.value
                criteria = {name: value[name] for name in CRITERIA}
                verdict = {"keep": value["keep"], "reasons": value["reasons"]}
                records.append({**card, **verdict, "criteria": criteria})
        return records

    return run_step(settings, "filter", make, inputs=given, prompts=[wording])


def describe(settings: Settings) -> str:
    """Add six trait sentences to every card of ``input``, once an inventory (Figure 12).

    Raises:
        PalError: input, inventory, model or output cannot be used.
    """
    (source,) = settings.require("input")
    given, wording = read_cards(source)[: settings.limit], prompt("describe")
    inventories = [load_inventory(name) for name in settings.traits.inventories]

    def make(model: LanguageModel) -> Records:
        requests = [
            Request(
                id=f"{index}/{inventory.name}", schema_name="sentences",
                schema=object_schema(dict.fromkeys(inventory.dimensions, TEXT)),
                messages=wording.fill(dimensions=inventory.dimensions,
                                      description=persona_text(card, use_traits=False)),
            )
            for inventory in inventories
            for index, card in enumerate(given)
            if is_usable(card)
        ]  # fmt: skip
        asked = model.ask(requests, description="describe", check=check_texts)
        outcomes = {outcome.id: outcome for outcome in asked}
        records = []
        for index, card in enumerate(given):
            found = {i.name: outcomes.get(f"{index}/{i.name}") for i in inventories}
            answered = {name: outcome for name, outcome in found.items() if outcome}
            reasons = [f"{name}: {o.reason}" for name, o in answered.items() if o.reason]
            if reasons:
                card = {**card, "failed": "; ".join(reasons)}
            elif answered:
                card = {**card, "traits": {name: o.value for name, o in answered.items()}}
            records.append(card)
        return records

    definitions = [
        [i.name, i.version, [[key, d.name, d.definition] for key, d in i.dimensions.items()]]
        for i in inventories
    ]
    return run_step(settings, "describe", make, inputs=[given, definitions], prompts=[wording])
