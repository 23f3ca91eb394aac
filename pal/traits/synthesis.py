"""Dialogues that a model writes: from a persona card, without one, and days after a real dialogue.

The model writes exchanges: what the seeker says, then the supporter's strategy and words. They are
written in ESConv's form, so training and analysis read them like any corpus.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pal.core.settings import Seed
from pal.traits.readers import DROPPED
from pal.traits.settings import (
    CardFileSettings,
    ContinuationSettings,
    CorpusStepSettings,
    SynthesisSettings,
)

if TYPE_CHECKING:
    from pal.llm.base import LanguageModel, Outcome, Request
    from pal.traits.steps import Records

logger = logging.getLogger(__name__)

MAX_TOKENS = 4096  # about 60 turns of 45 words
TITLES = {"hexaco": "HEXACO personality", "csi": "Communication style"}
# Inventories whose traits each condition gives.
CONDITIONS = {"none": [], "hexaco": ["hexaco"], "csi": ["csi"], "both": ["hexaco", "csi"]}


class SynthesizeSettings(CardFileSettings):
    """Write a dialogue for every card.

    Attributes:
        seed: random seed of the model's sampling, from which each dialogue gets its own seed.
    """

    examples = (
        "pal traits synthesize input=cards.jsonl output=talks.jsonl "
        "llm.base_url=http://localhost:8000/v1 llm.model=qwen",
        "pal traits synthesize input=cards.jsonl output=plain.jsonl traits.without_persona=true "
        "llm.model=…",
    )

    seed: Seed = 42
    traits: SynthesisSettings = SynthesisSettings()


class ContinueSettings(CorpusStepSettings):
    """Write the talk days after every dialogue, under every condition.

    Attributes:
        seed: random seed of the model's sampling, from which each dialogue gets its own seed.
    """

    examples = (
        "pal traits continue input=bundled:esconv split=test traits.measurements=measured.jsonl "
        "output=later.jsonl llm.base_url=http://localhost:8000/v1 llm.model=qwen",
        "pal traits continue input=mine.jsonl traits.conditions=[none] output=later.jsonl "
        "llm.model=…",
    )

    seed: Seed = 42
    traits: ContinuationSettings = ContinuationSettings()


def synthesize(settings: SynthesizeSettings) -> str:
    """Write a dialogue for every card of ``input`` (Figure 17).

    With ``traits.without_persona`` the card gives nothing but its id: as many dialogues, each under
    a seed of its own, for the ablation (Figure 8).

    Raises:
        PalError: input, model or output cannot be used.
    """
    settings = SynthesizeSettings.of(settings)
    (source,) = settings.require("input")
    from pal.traits.readers import is_usable, persona_text, read_cards
    from pal.traits.steps import load_trait_prompt, run_step

    given, wording = read_cards(source)[: settings.limit], load_trait_prompt("synthesize")
    bare, use_traits = settings.traits.without_persona, settings.traits.use_traits
    condition = "without_persona" if bare else "persona"
    dropped = sum("failed" not in card and not is_usable(card) for card in given)
    if dropped:
        logger.info("synthesize: the filter dropped %d of %d cards, which get no dialogue",
                    dropped, len(given))  # fmt: skip

    def make(model: "LanguageModel") -> "Records":
        requests = [
            _request(
                wording, [condition, card["dataset"], card["id"]], seed=settings.seed,
                turns=settings.traits.turns, temperature=settings.traits.temperature,
                persona=None if bare else persona_text(card, use_traits=use_traits),
            )
            for card in given
            if is_usable(card)
        ]  # fmt: skip
        outcomes = _ask(model, requests)
        records: Records = []
        for card in given:
            head = {"id": card["id"], "dataset": card["dataset"], "condition": condition}
            if not is_usable(card):
                if "failed" in card:
                    records.append({**head, "failed": card["failed"]})
                continue
            outcome = outcomes["\n".join([condition, card["dataset"], card["id"]])]
            persona = [] if bare else card_sentences(card)
            records.append({**head, "card": card["id"], **_result(outcome, persona, model)})
        return records

    return run_step("synthesize", settings, make, prompts=[wording], noun="dialogues", apart=True)


def continue_dialogues(settings: ContinueSettings) -> str:
    """Write, for every dialogue of ``input``, the talk days later under every condition.

    Condition ``none`` is Figure 18; ``hexaco``, ``csi`` and ``both`` are Figure 16 with those
    scores (``traits.measurements``) and trait sentences (``traits.cards``). The conditions cover
    the same dialogues: one whose traits are not known is listed as failed under all, with the
    reason, as far as ``traits.cards`` has it: the filter dropped its card, or the card failed.

    Raises:
        PalError: input, traits, model or output cannot be used.
    """
    settings = ContinueSettings.of(settings)
    (source,) = settings.require("input")
    from pathlib import Path

    from pal.traits.inventories import load_inventory
    from pal.traits.readers import load_dialogues, read_cards, talk_json
    from pal.traits.steps import load_trait_prompt, run_step

    chosen = settings.traits
    dialogues = load_dialogues(source, settings.split, settings.data, settings.limit)
    label = chosen.dataset or Path(source).stem
    wording, conditions = load_trait_prompt("continue"), chosen.conditions
    inventories = [load_inventory(name) for name in chosen.inventories]
    known: dict[str, dict[str, dict[str, Any]]] = {}
    cards: list[dict[str, Any]] | None = None
    if set(conditions) != {"none"}:
        cards = read_cards(chosen.cards) if chosen.cards else None
        known = known_traits(cards, chosen.measurements, inventories)
    needed = {name for condition in conditions for name in CONDITIONS[condition]}
    card_of = {card["id"]: card for card in cards or ()}
    missing = {
        row["id"]: _why_unknown(card_of.get(row["id"]), lacking)
        for row in dialogues
        if (lacking := needed - known.get(row["id"], {}).keys())
    }
    if missing:
        _log_missing(missing, len(dialogues), chosen.cards)

    def make(model: "LanguageModel") -> "Records":
        requests = [
            _request(
                wording, [condition, row["id"]], seed=settings.seed, turns=chosen.turns,
                temperature=chosen.temperature, days=chosen.days,
                dialogue=talk_json(row["dialog"]),
                traits=[known[row["id"]][name] for name in CONDITIONS[condition]],
            )
            for row in dialogues
            if row["id"] not in missing
            for condition in conditions
        ]  # fmt: skip
        outcomes = _ask(model, requests)
        return [
            {"id": f"{row['id']}@{condition}", "dataset": label, "condition": condition,
             "card": row["id"],
             **({"failed": missing[row["id"]]} if row["id"] in missing else
                _result(outcomes[f"{condition}\n{row['id']}"], [], model))}
            for row in dialogues
            for condition in conditions
        ]  # fmt: skip

    return run_step(
        "continue", settings, make, prompts=[wording], apart=True,
        noun=f"dialogues (one for each of {len(conditions)} conditions)",
        facts={"talks": [[row["id"], talk_json(row["dialog"])] for row in dialogues]},
    )  # fmt: skip


def esconv_dialog(
    exchanges: Sequence[Mapping[str, Any]], persona: Sequence[str]
) -> list[dict[str, Any]]:
    """Return written exchanges in ESConv's form, the persona known from the first turn on."""
    dialog: list[dict[str, Any]] = []
    for exchange in exchanges:
        seeker, supporter = (" ".join(exchange[name].split()) for name in ("seeker", "supporter"))
        dialog.append({"speaker": "seeker", "text": seeker})
        dialog.append({"speaker": "supporter", "text": supporter, "strategy": exchange["strategy"]})
    return [{**dialog[0], "persona": list(persona)}, *dialog[1:]]


def card_sentences(card: Mapping[str, Any]) -> list[str]:
    """Return a card's description as persona sentences, cleaned as any other."""
    from pal.data.cards import split_sentences
    from pal.persona.cleaning import clean_sentences

    return clean_sentences(split_sentences(card["description"]))


def known_traits(
    cards: Sequence[Mapping[str, Any]] | None,
    measurements: str | None,
    inventories: Sequence[Any],
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what is known of the seekers: dialogue id → inventory → name and six traits.

    Args:
        cards: those of a file with trait sentences.
        measurements: a file of measurements.
        inventories: whose traits.

    Raises:
        ConfigError: neither is given.
        DataError: the file cannot be read.
    """
    from pal.core.errors import ConfigError, DataError
    from pal.core.files import read_jsonl

    if cards is None and measurements is None:
        raise ConfigError(
            "traits.conditions asks for traits: give traits.measurements= (scores, from pal traits "
            "measure) and/or traits.cards= (trait sentences, from pal traits describe), or "
            "traits.conditions=[none]"
        )
    scores: dict[tuple[str, str], Mapping[str, Any]] = {}
    for line, record in read_jsonl(measurements) if measurements else ():
        if isinstance(record, dict) and "failed" in record:
            continue
        if not _is_measured(record):
            raise DataError(
                f"{measurements}, line {line}: no measurement; give what `pal traits measure` wrote"
            )
        if None not in record["scores"].values():
            scores[record["id"], record["inventory"]] = record["scores"]
    sentences = {
        (card["id"], name): written
        for card in cards or ()
        if "failed" not in card
        for name, written in (card.get("traits") or {}).items()
    }
    by_name = {inventory.name: inventory for inventory in inventories}
    known: dict[str, dict[str, dict[str, Any]]] = {}
    for person, name in dict.fromkeys([*scores, *sentences]):
        if name not in by_name:
            continue
        score, sentence = scores.get((person, name), {}), sentences.get((person, name), {})
        known.setdefault(person, {})[name] = {
            "name": TITLES.get(name, name),
            "traits": [
                {"name": d.name, "definition": d.definition, "score": score.get(key),
                 "sentence": sentence.get(key)}
                for key, d in by_name[name].dimensions.items()
            ],
        }  # fmt: skip
    return known


def _why_unknown(card: Mapping[str, Any] | None, lacking: set[str]) -> str:
    """Return why a seeker's traits are not known.

    Args:
        card: the seeker's, if there is one.
        lacking: inventories whose traits are needed and not known.
    """
    if card is not None and "failed" in card:
        return f"its card failed: {card['failed']}"
    if card is not None and card.get("keep", True) is not True:
        return DROPPED
    return f"no scores and no trait sentences for {' and '.join(sorted(lacking))}"


def _log_missing(missing: Mapping[str, str], dialogues: int, cards: str | None) -> None:
    """Log how many dialogues are not continued, why, and where the user finds more."""
    from pal.traits.steps import is_rehearsed

    counts = ", ".join(f"{why} ({n})" for why, n in Counter(missing.values()).most_common())
    more = (
        "the run will list them" if is_rehearsed()
        else f"{cards} has the reasons of the filter" if cards is not None
        else "traits.measurements= gives scores (the output of pal traits measure), traits.cards= "
        "trait sentences (that of pal traits describe) and whose card the filter dropped"
    )  # fmt: skip
    logger.info(
        "continue: %d of %d dialogues are not continued under any condition: %s; %s",
        len(missing), dialogues, counts, more,
    )  # fmt: skip


def _is_measured(record: Any) -> bool:
    """Return whether a record is a measurement, as far as a prompt needs it."""
    if not isinstance(record, dict) or not isinstance(record.get("scores"), dict):
        return False
    return (
        isinstance(record.get("id"), str) and isinstance(record.get("inventory"), str)
        and all(score is None or isinstance(score, int | float)
                for score in record["scores"].values())
    )  # fmt: skip


def _request(
    wording: Any,
    key: list[str],
    *,
    seed: int,
    turns: tuple[int, int],
    temperature: float,
    **values: Any,
) -> "Request":
    """One dialogue to write, under a seed of its own: equal prompts then give different talks."""
    from pal.core.files import fingerprint
    from pal.data.strategies import DEFINITIONS, STRATEGIES
    from pal.llm.base import Request
    from pal.traits.forms import dialog_schema

    return Request(
        id="\n".join(key), schema=dialog_schema(turns, STRATEGIES), schema_name="dialogue",
        max_tokens=MAX_TOKENS, temperature=temperature,
        seed=int(fingerprint([seed, key])[:7], 16),
        messages=wording.fill(strategies=DEFINITIONS, turns=turns, **values),
    )  # fmt: skip


def _ask(model: "LanguageModel", requests: "list[Request]") -> "dict[str, Outcome]":
    from pal.traits.forms import check_dialog

    outcomes = model.ask(requests, description="dialogues", check=check_dialog)
    return {outcome.id: outcome for outcome in outcomes}


def _result(outcome: "Outcome", persona: list[str], model: "LanguageModel") -> dict[str, Any]:
    if outcome.reason:
        return {"failed": outcome.reason}
    dialog = esconv_dialog(outcome.value["dialog"], persona)
    return {"model": model.name, "dialog": dialog, "persona": persona}
