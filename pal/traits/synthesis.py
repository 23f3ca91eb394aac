"""Dialogues written by a model: from a persona card, from none, and days after a real one.

The model writes exchanges: what the seeker says, then the supporter's strategy and words. They are
written in ESConv's form, so training and analysis read them like any corpus.
"""

from collections.abc import Mapping
from typing import Any

from pal.commands.annotate import clean_sentences
from pal.core.errors import ConfigError, DataError
from pal.core.files import fingerprint, read_jsonl
from pal.core.schema import Settings
from pal.data.cards import split_sentences
from pal.data.strategies import DEFINITIONS, STRATEGIES
from pal.llm.base import LanguageModel, Outcome, Request
from pal.traits.cards import object_schema
from pal.traits.inventories import load_inventory
from pal.traits.readers import (
    dataset_label,
    is_usable,
    load_dialogues,
    persona_text,
    read_cards,
    talk_json,
)
from pal.traits.steps import Records, prompt, run_step

EXCHANGE = object_schema(
    {
        "seeker": {"type": "string"},
        "strategy": {"type": "string", "enum": [*STRATEGIES]},
        "supporter": {"type": "string"},
    }
)
TITLES = {"hexaco": "HEXACO personality", "csi": "Communication style"}
MAX_TOKENS = 4096  # about 60 turns of 45 words


def dialog_schema(turns: tuple[int, int]) -> dict[str, Any]:
    """Return the schema of a dialogue of (fewest, most) turns, two an exchange.

    Exchanges make the alternation of speakers, their number and the supporter's strategy part of
    the form, which a server that enforces the schema cannot miss.
    """
    fewest = -(-turns[0] // 2)
    most = max(fewest, turns[1] // 2)
    return object_schema(
        {"dialog": {"type": "array", "items": EXCHANGE, "minItems": fewest, "maxItems": most}}
    )


def check_dialog(exchanges: list[dict[str, Any]]) -> str | None:
    """Return what is wrong with exchanges that have the form of :func:`dialog_schema`, or None."""
    for index, exchange in enumerate(exchanges):
        for speaker in ("seeker", "supporter"):
            if not exchange[speaker].strip():
                return f"exchange {index}: no text of the {speaker}"
    return None


def esconv_dialog(exchanges: list[dict[str, Any]], persona: list[str]) -> list[dict[str, Any]]:
    """Return written exchanges in ESConv's form, the persona known from the first turn on."""
    dialog: list[dict[str, Any]] = []
    for exchange in exchanges:
        seeker, supporter = (" ".join(exchange[name].split()) for name in ("seeker", "supporter"))
        dialog.append({"speaker": "seeker", "text": seeker})
        dialog.append({"speaker": "supporter", "text": supporter, "strategy": exchange["strategy"]})
    return [{**dialog[0], "persona": persona}, *dialog[1:]]


def _request(settings: Settings, wording: Any, key: list[str], **values: Any) -> Request:
    """One dialogue to write, under a seed of its own: equal prompts then give different talks."""
    return Request(
        id="\n".join(key), schema=dialog_schema(settings.traits.turns), schema_name="dialogue",
        max_tokens=MAX_TOKENS, temperature=settings.traits.temperature,
        seed=int(fingerprint([settings.seed, key])[:7], 16),
        messages=wording.fill(strategies=DEFINITIONS, turns=settings.traits.turns, **values),
    )  # fmt: skip


def _ask(model: LanguageModel, settings: Settings, requests: list[Request]) -> dict[str, Outcome]:
    outcomes = model.ask(
        requests,
        description="dialogues",
        check=lambda _, value: check_dialog(value["dialog"]),
    )
    return {outcome.id: outcome for outcome in outcomes}


def synthesize(settings: Settings) -> str:
    """Write a dialogue for every card of ``input`` (Figure 17).

    With ``traits.without_persona`` the card gives nothing but its id: as many dialogues, each under
    a seed of its own, for the ablation (Figure 8).

    Raises:
        PalError: input, model or output cannot be used.
    """
    (source,) = settings.require("input")
    given, wording = read_cards(source)[: settings.limit], prompt("synthesize")
    bare, use_traits = settings.traits.without_persona, settings.traits.use_traits
    condition = "without_persona" if bare else "persona"

    def make(model: LanguageModel) -> Records:
        requests = [
            _request(
                settings, wording, [condition, card["dataset"], card["id"]],
                persona=None if bare else persona_text(card, use_traits=use_traits),
            )
            for card in given
            if is_usable(card)
        ]  # fmt: skip
        outcomes = _ask(model, settings, requests)
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

    return run_step(
        settings, "synthesize", make, inputs=[given, settings.seed], prompts=[wording], apart=True,
        choices=["without_persona", "use_traits", "turns", "temperature"],
    )  # fmt: skip


def continue_dialogues(settings: Settings) -> str:
    """Write, for every dialogue of ``input``, the talk days later under every condition.

    Condition ``none`` is Figure 18; ``hexaco``, ``csi`` and ``both`` are Figure 16 with those
    scores (``traits.measurements``) and trait sentences (``traits.cards``). The conditions cover
    the same dialogues: one whose traits are not known is listed as failed under all.

    Raises:
        PalError: input, traits, model or output cannot be used.
    """
    dialogues, label, wording = (
        load_dialogues(settings),
        dataset_label(settings),
        prompt("continue"),
    )
    conditions, known = settings.traits.conditions, known_traits(settings)
    wanted = {
        "none": [], "hexaco": ["hexaco"], "csi": ["csi"], "both": ["hexaco", "csi"],
    }  # fmt: skip
    needed = {name for condition in conditions for name in wanted[condition]}
    missing = {
        row["id"]: f"no {' and '.join(sorted(lacking))} traits known"
        for row in dialogues
        if (lacking := needed - known.get(row["id"], {}).keys())
    }

    def make(model: LanguageModel) -> Records:
        requests = [
            _request(
                settings, wording, [condition, row["id"]], days=settings.traits.days,
                dialogue=talk_json(row["dialog"]),
                traits=[known[row["id"]][name] for name in wanted[condition]],
            )
            for row in dialogues
            if row["id"] not in missing
            for condition in conditions
        ]  # fmt: skip
        outcomes = _ask(model, settings, requests)
        return [
            {"id": f"{row['id']}@{condition}", "dataset": label, "condition": condition,
             "card": row["id"],
             **({"failed": missing[row["id"]]} if row["id"] in missing else
                _result(outcomes[f"{condition}\n{row['id']}"], [], model))}
            for row in dialogues
            for condition in conditions
        ]  # fmt: skip

    return run_step(
        settings, "continue", make, apart=True, prompts=[wording],
        inputs=[[[row["id"], talk_json(row["dialog"])] for row in dialogues], known, settings.seed],
        choices=["conditions", "days", "turns", "temperature"],
    )  # fmt: skip


def _result(outcome: Outcome, persona: list[str], model: LanguageModel) -> dict[str, Any]:
    if outcome.reason:
        return {"failed": outcome.reason}
    dialog = esconv_dialog(outcome.value["dialog"], persona)
    return {"model": model.name, "dialog": dialog, "persona": persona}


def card_sentences(card: Mapping[str, Any]) -> list[str]:
    """Return a card's description as persona sentences, cleaned as any other."""
    return clean_sentences(split_sentences(card["description"]))


def known_traits(settings: Settings) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what is known of the seekers: dialogue id → inventory → name and six traits.

    Raises:
        ConfigError: neither cards nor measurements are given, though a condition needs them.
        DataError: a file of them cannot be read.
    """
    chosen = settings.traits
    if set(chosen.conditions) == {"none"}:
        return {}
    if chosen.cards is None and chosen.measurements is None:
        raise ConfigError(
            "traits.conditions asks for traits: give traits.measurements= (scores) and/or "
            "traits.cards= (trait sentences), or traits.conditions=[none]"
        )
    scores: dict[tuple[str, str], Mapping[str, Any]] = {}
    if chosen.measurements:
        for line, record in read_jsonl(chosen.measurements):
            if not isinstance(record, dict) or not {"scores", "failed"} & record.keys():
                raise DataError(
                    f"{chosen.measurements}, line {line}: no measurement; give what `pal traits "
                    "measure` wrote"
                )
            if "scores" in record and None not in record["scores"].values():
                scores[record["id"], record["inventory"]] = record["scores"]
    sentences = {
        (card["id"], name): written
        for card in (read_cards(chosen.cards) if chosen.cards else ())
        if "failed" not in card
        for name, written in card.get("traits", {}).items()
    }
    inventories = {i.name: i for i in map(load_inventory, chosen.inventories)}
    known: dict[str, dict[str, dict[str, Any]]] = {}
    for person, name in dict.fromkeys([*scores, *sentences]):
        if name not in inventories:
            continue
        score, sentence = scores.get((person, name), {}), sentences.get((person, name), {})
        known.setdefault(person, {})[name] = {
            "name": TITLES.get(name, name),
            "traits": [
                {"name": d.name, "definition": d.definition, "score": score.get(key),
                 "sentence": sentence.get(key)}
                for key, d in inventories[name].dimensions.items()
            ],
        }  # fmt: skip
    return known
