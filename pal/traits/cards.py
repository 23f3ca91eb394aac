"""Persona cards: extraction, filtering, trait sentences, expansion of one-line personas."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pal.core.settings import Seed
from pal.traits.settings import (
    CardFileSettings,
    CorpusStepSettings,
    ExpansionSettings,
    InventorySettings,
    PersonTextSettings,
)

if TYPE_CHECKING:
    from pal.llm.base import LanguageModel
    from pal.traits.readers import PersonText
    from pal.traits.steps import Records


class CardsSettings(CorpusStepSettings):
    """Extract a card of the seeker or author from every text."""

    examples = (
        "pal traits cards input=bundled:esconv split=test output=cards.jsonl "
        "llm.base_url=http://localhost:8000/v1 llm.model=qwen",
        "pal traits cards input=posts.csv traits.text_column=text output=cards.jsonl llm.model=…",
    )

    traits: PersonTextSettings = PersonTextSettings()


class FilterSettings(CardFileSettings):
    """Judge which cards say enough about a person and a problem."""

    examples = (
        "pal traits filter input=cards.jsonl output=kept.jsonl "
        "llm.base_url=http://localhost:8000/v1 llm.model=qwen",
        "pal traits filter input=cards.jsonl output=kept.jsonl llm.estimate_only=true llm.model=…",
    )


class DescribeSettings(CardFileSettings):
    """Add six trait sentences per inventory to every card."""

    examples = (
        "pal traits describe input=kept.jsonl output=described.jsonl "
        "llm.base_url=http://localhost:8000/v1 llm.model=qwen",
        "pal traits describe input=kept.jsonl output=described.jsonl traits.inventories=[hexaco] "
        "llm.model=…",
    )

    traits: InventorySettings = InventorySettings()


class ExpandSettings(CardFileSettings):
    """Expand every one-line persona to a card.

    Attributes:
        input: personas, one per line of text, or JSONL with ``persona``.
        seed: random seed of the model's sampling.
    """

    examples = (
        "pal traits expand input=personas.jsonl output=cards.jsonl "
        "llm.base_url=http://localhost:8000/v1 llm.model=qwen",
        "pal traits expand input=personas.txt limit=100 output=cards.jsonl llm.model=…",
    )

    seed: Seed = 42
    traits: ExpansionSettings = ExpansionSettings()


def cards(settings: CardsSettings) -> str:
    """Extract a card of the seeker or author from every text of ``input`` (Figure 11).

    Of a dialogue cut by ``traits.prefix_turns`` the card says how many ``turns`` it was read from;
    without, a card says what the seeker comes to say only later, so it is no persona to evaluate
    responses to early turns with.

    Raises:
        PalError: input, model or output cannot be used.
    """
    settings = CardsSettings.of(settings)
    (source,) = settings.require("input")
    from pal.core.errors import ConfigError
    from pal.traits.forms import CARD
    from pal.traits.readers import dialogue_texts, load_dialogues, load_posts

    label = _label(settings.traits.dataset, source)
    column, turns = settings.traits.text_column, settings.traits.prefix_turns
    if column is not None and turns is not None:
        raise ConfigError(
            "traits.prefix_turns cuts dialogues, and traits.text_column says that the input holds "
            "posts; give one of the two"
        )
    if column is None:
        rows = load_dialogues(source, settings.split, settings.data, settings.limit)
        texts = dialogue_texts(rows, label, turns)
    else:
        texts = load_posts(source, column, label, settings.limit)
    return _make_cards("cards", settings, texts, CARD, temperature=0.0, seed=None)


def expand(settings: ExpandSettings) -> str:
    """Expand every one-line persona of ``input`` to a card (Figure 15).

    Raises:
        PalError: input, model or output cannot be used.
    """
    settings = ExpandSettings.of(settings)
    (source,) = settings.require("input")
    from pal.traits.forms import EXPANDED
    from pal.traits.readers import load_personas

    texts = load_personas(source, _label(settings.traits.dataset, source), settings.limit)
    temperature = settings.traits.temperature
    seed = settings.seed if temperature else None
    return _make_cards("expand", settings, texts, EXPANDED, temperature=temperature, seed=seed)


def _label(given: str | None, source: str) -> str:
    from pathlib import Path

    return given or Path(source).stem


def _make_cards(
    command: str,
    settings: Any,
    texts: Sequence["PersonText"],
    schema: dict[str, Any],
    *,
    temperature: float,
    seed: int | None,
) -> str:
    from dataclasses import astuple

    from pal.llm.base import Request
    from pal.traits.forms import check_texts
    from pal.traits.steps import load_trait_prompt, run_step

    wording = load_trait_prompt(command)

    def make(model: "LanguageModel") -> "Records":
        requests = [
            Request(
                id=one.id, schema=schema, schema_name="card", temperature=temperature, seed=seed,
                messages=wording.fill(kind=one.kind, text=one.text, persona=one.text),
            )
            for one in texts
        ]  # fmt: skip
        outcomes = model.ask(requests, description=command, check=check_texts)
        return [
            {"id": one.id, "dataset": one.dataset,
             **({"failed": outcome.reason} if outcome.reason else outcome.value),
             **({"persona": one.text} if one.kind == "persona" else {}),
             **({"turns": one.turns} if one.turns is not None else {})}
            for one, outcome in zip(texts, outcomes, strict=True)
        ]  # fmt: skip

    return run_step(
        command, settings, make, prompts=[wording],
        facts={"texts": [list(astuple(one)) for one in texts]},
    )  # fmt: skip


def filter_cards(settings: FilterSettings) -> str:
    """Judge which cards of ``input`` say enough about a person and a problem (Figure 14).

    Adds ``keep``, ``reasons`` and ``criteria``; a dropped card stays in the file, marked.

    Raises:
        PalError: input, model or output cannot be used.
    """
    settings = FilterSettings.of(settings)
    (source,) = settings.require("input")
    from pal.llm.base import Request
    from pal.traits.forms import CRITERIA, VERDICT
    from pal.traits.readers import read_cards
    from pal.traits.steps import load_trait_prompt, run_step

    given, wording = read_cards(source)[: settings.limit], load_trait_prompt("filter")

    def make(model: "LanguageModel") -> "Records":
        requests = {
            index: Request(
                id=str(index), schema=VERDICT, schema_name="verdict",
                messages=wording.fill(description=card["description"],
                                      problem=card.get("problem") or ""),
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

    return run_step("filter", settings, make, prompts=[wording])


def describe_traits(settings: DescribeSettings) -> str:
    """Add six trait sentences per inventory to every card of ``input`` (Figure 12).

    Raises:
        PalError: input, inventory, model or output cannot be used.
    """
    settings = DescribeSettings.of(settings)
    (source,) = settings.require("input")
    from pal.llm.base import Request
    from pal.traits.forms import TEXT, check_texts, object_schema
    from pal.traits.inventories import load_inventory
    from pal.traits.readers import is_usable, persona_text, read_cards
    from pal.traits.steps import load_trait_prompt, run_step

    given, wording = read_cards(source)[: settings.limit], load_trait_prompt("describe")
    inventories = [load_inventory(name) for name in settings.traits.inventories]

    def make(model: "LanguageModel") -> "Records":
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
            answered = {
                inventory.name: outcome
                for inventory in inventories
                if (outcome := outcomes.get(f"{index}/{inventory.name}"))
            }
            reasons = [f"{name}: {o.reason}" for name, o in answered.items() if o.reason]
            if reasons:
                card = {**card, "failed": "; ".join(reasons)}
            elif answered:
                card = {**card, "traits": {name: o.value for name, o in answered.items()}}
            records.append(card)
        return records

    return run_step("describe", settings, make, prompts=[wording])
