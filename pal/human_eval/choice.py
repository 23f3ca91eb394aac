"""Choice of the texts that people compare: questions, pairs of systems, samples of each pair.

This differs from the PAL paper (section 4.5, appendix F): its workers talked with both systems
about a situation; here raters compare two responses to one real context, which can be repeated
exactly. Pairs of identical responses are left out and counted separately.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from pal.core.errors import ConfigError, DataError, suggest
from pal.core.files import read_jsonl
from pal.core.job import counted
from pal.data.predictions import read_predictions
from pal.data.samples import Sample
from pal.data.texts import normalise_text
from pal.human_eval.sheets import Question, TextComparison

logger = logging.getLogger(__name__)

# PAL paper, appendix F, Figure 7, worded for single responses.
PAL_QUESTIONS = (
    Question(
        "Coherence",
        "Which response makes more sense in itself and has more to do with what was said before?",
    ),
    Question(
        "Identification",
        "Which response explores your situation in more depth and helps more to find out what the "
        "problem is?",
    ),
    Question("Comforting", "Which response is more skilful at comforting you?"),
    Question("Suggestion", "Which response gives you more helpful suggestions for your problem?"),
    Question("Information", "Which response is more specific and contains more information?"),
    Question("Overall", "All in all, whose emotional support do you prefer?"),
)

# The trait paper, section 6.2 and Table 9, worded for two whole conversations.
DIALOGUE_QUESTIONS = (
    Question("Suggestion", "Which supporter gives more helpful advice?"),
    Question(
        "Consistency",
        "In which conversation do both keep to their roles more consistently and behave more "
        "coherently?",
    ),
    Question("Comforting", "Which supporter gives more emotional support?"),
    Question(
        "Identification",
        "Which supporter goes deeper into the seeker's situation and finds out better what the "
        "problem is?",
    ),
    Question("Overall", "All in all, which conversation is the better emotional support?"),
)


def choose_pairs(
    names: Sequence[str],
    pairs: Sequence[tuple[str, str]] | None,
    section: str = "human_eval",
) -> list[tuple[str, str]]:
    """Return the pairs of systems to compare: the given pairs, or the first with each other system.

    Args:
        names: names of the systems.
        pairs: the pairs; None for the usual ones.
        section: section of the settings that they are from, for messages.

    Raises:
        ConfigError: there are fewer than two systems, a name is unknown or is an answer, or a pair
            occurs twice.
    """
    if len(names) < 2:
        raise ConfigError(f"{section}.systems: expected two or more, name → file, got {len(names)}")
    if "Tie" in names:
        raise ConfigError(f"{section}.systems: 'Tie' is an answer; give that system another name")
    if pairs is None:
        return [(names[0], name) for name in names[1:]]
    for pair in pairs:
        for name in pair:
            if name not in names:
                raise ConfigError(
                    f"{section}.pairs: unknown system {name!r}{suggest(name, names)} "
                    f"({section}.systems has {', '.join(names)})"
                )
    distinct = {frozenset(pair) for pair in pairs}
    if not pairs or len(distinct) < len(pairs) or min(map(len, distinct)) < 2:
        raise ConfigError(f"{section}.pairs: expected pairs of different systems, each pair once")
    return list(pairs)


def read_responses(
    systems: Mapping[str, str], samples: Sequence[Sample], source: str, *, limited: bool = False
) -> dict[str, dict[str, str]]:
    """Return {system: {sample id: response}}.

    Args:
        systems: names and files of responses.
        samples: what was answered.
        source: where the samples are from, for messages.
        limited: whether ``samples`` are only the first of them (``limit``); then responses to
            others are left out.

    Raises:
        DataError: systems answered different samples, or samples that are not in ``input``.
    """
    known = {sample.id for sample in samples}
    responses: dict[str, dict[str, str]] = {}
    for name, path in systems.items():
        found = {record["id"]: record["response"] for record in read_predictions(path)}
        unknown = [sample for sample in found if sample not in known]
        if limited and len(unknown) < len(found):
            found = {sample: text for sample, text in found.items() if sample in known}
        elif unknown:
            raise DataError(
                f"{path}: not of the samples of {source}: {counted(len(unknown), 'id')}, the first "
                f"{unknown[0]!r}; give the input the responses were made from"
            )
        responses[name] = found
    for one, other in combinations(systems, 2):
        apart = sorted(responses[one].keys() ^ responses[other].keys())
        if apart:
            raise DataError(
                f"{systems[one]} and {systems[other]}: answered in one only: "
                f"{counted(len(apart), 'sample')}, the first {apart[0]!r}; give responses to "
                "the same samples"
            )
    return responses


def read_transcripts(systems: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return {system: {card: transcript}} for the cards with a dialogue from every system.

    Raises:
        DataError: there is no such card, or a file cannot be used (see :func:`_transcripts`).
    """
    found = {name: _transcripts(name, path) for name, path in systems.items()}
    shared = set.intersection(*map(set, found.values()))
    left = {card for texts in found.values() for card in texts} - shared
    if not shared:
        raise DataError(
            f"{', '.join(systems.values())}: no card has a dialogue in each; give files made from "
            "the same cards"
        )
    if left:
        logger.info(
            "left out for lack of a dialogue of every system: %s", counted(len(left), "card")
        )
    return {
        name: {card: text for card, text in texts.items() if card in shared}
        for name, texts in found.items()
    }


def samples_of_transcripts(transcripts: Mapping[str, Mapping[str, str]]) -> list[Sample]:
    """Return a sample without context for every card with a dialogue from all systems."""
    first = next(iter(transcripts.values()))
    return [Sample(card, card, 0, (), (), None, None) for card in first]


def _transcripts(name: str, path: str) -> dict[str, str]:
    """Return {card or id: transcript} of a file of dialogues.

    If the file holds several conditions, the name of the system selects one.

    Raises:
        DataError: a line is not a dialogue with an id, no dialogue has that condition, or a card
            occurs twice.
    """
    rows = list(read_jsonl(path))
    conditions = {row.get("condition") for _, row in rows if isinstance(row, dict)}
    if len(conditions) > 1 and name not in conditions:
        known = ", ".join(sorted(map(str, conditions)))
        raise DataError(
            f"{path}: no dialogue of condition {name!r} (it has {known}); "
            "name the system after its condition"
        )
    found: dict[str, str] = {}
    for number, record in rows:
        try:
            if len(conditions) > 1 and record.get("condition") != name:
                continue
            card = str(record.get("card") or record["id"])
            turns = [f"{turn['speaker'].capitalize()}: {normalise_text(turn['text'])}"
                     for turn in record["dialog"]]  # fmt: skip
        except (AttributeError, KeyError, TypeError):
            raise DataError(
                f"{path}, line {number}: expected a dialogue with id (or card) and dialog; to "
                "compare responses give input=, the dialogues they answer"
            ) from None
        if card in found:
            raise DataError(
                f"{path}, line {number}: {card!r} occurs twice; give one dialogue for each card"
            )
        found[card] = "\n".join(turns)
    return found


def draw_comparisons(
    pairs: Sequence[tuple[str, str]],
    samples: Sequence[Sample],
    responses: Mapping[str, Mapping[str, str]],
    *,
    items: int,
    seed: int,
) -> tuple[list[TextComparison], list[dict[str, Any]]]:
    """Draw the samples of each pair, preferring samples that earlier pairs do not use.

    A response in two items would reveal that it is from the system that the pairs share.

    Args:
        pairs: names of the systems of each pair.
        samples: the answered samples.
        responses: {system: {sample id: response}}.
        items: maximum number of samples per pair.
        seed: seed of the draw.

    Returns:
        The comparisons, and for every pair the numbers of samples, of drawn samples, and of samples
        with identical texts.

    Raises:
        DataError: two systems gave identical texts for all samples.
    """
    comparisons, facts = [], []
    used: Counter[str] = Counter()

    def rank(sample: Sample) -> tuple[int, str]:
        drawn = hashlib.blake2b(f"{seed}\0{sample.id}".encode()).hexdigest()
        return used[sample.id], drawn

    for a, b in pairs:
        common = [sample for sample in samples if sample.id in responses[a]]
        differing = [
            sample
            for sample in common
            if responses[a][sample.id].split() != responses[b][sample.id].split()
        ]
        if not differing:
            raise DataError(
                f"{a} and {b}: the same text in every response (compared: {len(common):,}), so "
                "there is nothing to compare; give responses of another model, or of other "
                "settings such as decoding.do_sample=false"
            )
        drawn = sorted(differing, key=rank)[:items]
        used.update(sample.id for sample in drawn)
        for sample in drawn:
            context = [(turn["speaker"].capitalize(), turn["text"]) for turn in sample.context]
            texts = responses[a][sample.id], responses[b][sample.id]
            comparisons.append(TextComparison((a, b), sample.id, context, texts))
        same = len(common) - len(differing)
        facts.append({"a": a, "b": b, "items": len(drawn), "samples": len(common), "same": same})
    return comparisons, facts
