"""Words and turns of dialogues by speaker, and what cards hold, with intervals."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pal.core.files import read_jsonl
from pal.data.settings import ReadingSettings
from pal.stats.estimates import Estimate, cell, estimate, share_of, table, undefined
from pal.stats.resampling import ends, resampled_weights
from pal.stats.settings import StatisticsSettings
from pal.traits.documents import describe_failed, paper
from pal.traits.talks import Talk, read_talks

SPEAKERS = ("all", "seeker", "supporter")


def build_sizes(
    files: Mapping[str | None, str],
    split: str | None,
    data: ReadingSettings,
    statistics: StatisticsSettings,
) -> dict[str, Any]:
    """Return the document of ``pal traits stats``: of cards where the only file holds cards.

    Args:
        files: of :func:`pal.traits.talks.talk_files`.
        split: which split of a corpus; None for all.
        data: how they are read.
        statistics: resamples, confidence and seed.

    Raises:
        DataError: a file cannot be read.
    """
    cards = read_described_cards(files[None]) if None in files else None
    head = {"kind": "traits_statistics", "format": 1}
    if cards is not None:
        return {
            **head, "failed": sum("failed" in card for card in cards),
            "cards": describe_cards(cards, statistics), "dialogues": [],
            "paper": {"cards": paper()["cards"]},
        }  # fmt: skip
    groups, failed = read_talks(files, split, data)
    described = [
        {
            "dataset": dataset,
            "model": model,
            "conditions": {
                name: describe_talks(talks, statistics) for name, talks in conditions.items()
            },
        }
        for (dataset, model), conditions in groups.items()
    ]
    return {
        **head, "failed": failed, "cards": [], "dialogues": described,
        "paper": {"dialogues": paper()["dialogues"]},
    }  # fmt: skip


def describe_talks(talks: Sequence[Talk], statistics: StatisticsSettings) -> dict[str, Any]:
    """Count words (separated by spaces) and turns of dialogues, by speaker.

    Args:
        talks: of one condition.
        statistics: resamples (of dialogues), confidence and seed.

    Returns:
        ``n`` dialogues, and for ``all``, ``seeker`` and ``supporter`` the totals ``words`` and
        ``turns``, and estimates ``words_a_turn`` and ``turns_a_dialogue``.
    """
    counts = np.array(
        [
            [
                sum(len(t.text.split()) if words else 1 for t in talk.turns if who in _of(t))
                for who in SPEAKERS
                for words in (True, False)
            ]
            for talk in talks
        ],
        dtype=float,
    )
    count = len(talks)
    weights = resampled_weights(count, statistics.resamples, statistics.seed) if count > 1 else None
    found: dict[str, Any] = {"n": count}
    for number, who in enumerate(SPEAKERS):
        words, turns = counts[:, 2 * number], counts[:, 2 * number + 1]
        found[who] = {
            "words": int(words.sum()),
            "turns": int(turns.sum()),
            "words_a_turn": _ratio(words, turns, weights, statistics.confidence),
            "turns_a_dialogue": _ratio(turns, np.ones(count), weights, statistics.confidence),
        }
    return found


def describe_cards(
    cards: Iterable[Mapping[str, Any]], statistics: StatisticsSettings
) -> list[dict[str, Any]]:
    """Describe persona cards by data set: the columns of the paper's Table 1.

    Cards that ``filter`` dropped are counted but not described.

    Args:
        cards: records of ``pal traits cards`` or a later step; failed ones are counted apart.
        statistics: resamples, confidence and seed.

    Returns:
        By data set: ``n`` (kept), ``dropped`` (by reason), ``failed``, mean words of description
        and problem, and for age, gender and occupation the share known and the count of values.
    """
    by_dataset: dict[str, list[Mapping[str, Any]]] = {}
    for card in cards:
        by_dataset.setdefault(str(card.get("dataset", "all")), []).append(card)
    found = []
    for dataset, every in sorted(by_dataset.items()):
        made = [card for card in every if "failed" not in card]
        kept = [card for card in made if card.get("keep", True)]
        dropped = [card for card in made if not card.get("keep", True)]
        entry: dict[str, Any] = {
            "dataset": dataset,
            "n": len(kept),
            "dropped": len(dropped),
            "reasons": dict(Counter(r for card in dropped for r in card.get("reasons", []))),
            "failed": len(every) - len(made),
        }
        weights = (
            resampled_weights(len(kept), statistics.resamples, statistics.seed)
            if len(kept) > 1
            else None
        )
        ones = np.ones(len(kept))
        for key in ("description", "problem"):
            words = np.array([len(str(card.get(key) or "").split()) for card in kept], dtype=float)
            entry[f"{key}_words"] = _ratio(words, ones, weights, statistics.confidence)
        for key in ("age", "gender", "occupation"):
            known = [_known(card.get(key)) for card in kept]
            entry[f"{key}_known"] = share_of(
                sum(known), len(kept), statistics.confidence, "no cards"
            )
            if key != "occupation":
                entry[key] = dict(Counter(str(card.get(key) or "unknown") for card in kept))
        found.append(entry)
    return found


def show_sizes(document: Mapping[str, Any]) -> str:
    """Show a document of ``stats`` as Markdown."""
    parts = []
    printed = document["paper"]
    for group in document["dialogues"]:
        rows = []
        for name, one in group["conditions"].items():
            for who in SPEAKERS:
                figures = one[who]
                rows.append(
                    [name, who, str(one["n"]), str(figures["words"]), str(figures["turns"]),
                     cell(figures["words_a_turn"]), cell(figures["turns_a_dialogue"])]
                )  # fmt: skip
        for name, one in printed["dialogues"].items():
            for who in SPEAKERS:
                prefix = "" if who == "all" else f"{who}_"
                figures = [str(one[f"{prefix}{key}"]) for key in ("words", "turns", "words_a_turn")]
                rows.append([f"paper, {name} persona", who, "", *figures, ""])
        head = ["condition", "speaker", "dialogues", "words", "turns", "words a turn"]
        parts += [
            f"## {group['dataset']}, {group['model']}: dialogues",
            table([*head, "turns a dialogue"], rows),
        ]
    if document["cards"]:
        keys = ("description_words", "problem_words", "age_known", "gender_known")
        rows = [
            [one["dataset"], str(one["n"]), str(one["dropped"]), str(one["failed"]),
             *(cell(one[key]) for key in (*keys, "occupation_known"))]
            for one in document["cards"]
        ]  # fmt: skip
        rows += [
            [f"paper, {name}", str(one["personas"]), "", "", str(one["description_words"]),
             str(one["problem_words"]),
             *(f"{one[key] / one['personas']:.2f}" for key in ("age", "gender", "occupation"))]
            for name, one in printed["cards"].items()
        ]  # fmt: skip
        head = ["cards of", "kept", "dropped", "failed", "words of description", "of problem"]
        known = ["age known", "gender known", "occupation known"]
        parts.append(table([*head, *known], rows))
    if document["failed"]:
        parts.append(describe_failed(document["failed"]))
    return "\n\n".join(parts)


def read_described_cards(path: str | Path) -> list[dict[str, Any]] | None:
    """Return the records of a file of cards; None if it holds something else."""
    if Path(path).suffix != ".jsonl":
        return None
    rows = [row for _, row in read_jsonl(path) if isinstance(row, dict)]
    first = next((row for row in rows if "failed" not in row), {})
    return rows if "description" in first and "dialog" not in first else None


def _of(turn: Any) -> tuple[str, str]:
    return ("all", turn.speaker)


def _known(value: Any) -> bool:
    return str(value or "unknown").strip().lower() not in ("unknown", "none", "")


def _ratio(
    above: np.ndarray, below: np.ndarray, weights: np.ndarray | None, confidence: float
) -> Estimate:
    """Σ above / Σ below over N units, with a bootstrap interval."""
    if below.sum() == 0:
        return undefined(len(below), "there are none")
    value, low, high = float(above.sum() / below.sum()), None, None
    if weights is not None:
        total = weights @ below
        low, high = ends((weights @ above)[total > 0] / total[total > 0], confidence)
    return estimate(value, low, high, len(below))
