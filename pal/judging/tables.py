"""Results of judges as Markdown."""

from collections.abc import Mapping
from typing import Any

from pal.llm.base import GIVEN_UP, REPEAT
from pal.stats.estimates import cell, p_text, table

NOT_PEOPLE = (
    "Judged by language models, not by people: these are not results of a human evaluation, and "
    "stand beside none."
)


def pairs_tables(document: Mapping[str, Any]) -> str:
    """Return the results of comparisons as Markdown."""
    parts = [_head(document)]
    rows = [
        [
            f"{pair['a']} vs. {pair['b']}", row["question"],
            "{a_wins}, {ties}, {b_wins}".format(**row["items"]), cell(row["preference"]),
            p_text(row["p"]), p_text(row["p_holm"]), cell(row["kappa"]),
        ]
        for pair in document["pairs"]
        for row in pair["questions"]
    ]  # fmt: skip
    parts.append(
        table(
            ["pair", "question", "items: win, tie, loss", "preference", "p", "p (Holm)", "κ"], rows
        )
    )
    level = f"{100 * document['confidence']:g} %"
    parts.append(
        "An item is won by the system that the judges prefer over both orders. Preference: from "
        "−1 (the second system always) to 1 (the first), mean over orders and judges, with the "
        f"{level} bootstrap interval over dialogues. p: exact sign test over items. κ: Fleiss, "
        "between judges."
    )
    parts.append("## Place and consistency")
    rows = [
        [judge, name, cell(row), p_text(row["p"]), p_text(row["p_holm"]),
         cell(document["consistency"][judge][name])]
        for judge, found in document["position"].items()
        for name, row in found.items()
    ]  # fmt: skip
    parts.append(
        table(["judge", "question", "position bias", "p", "p (Holm)", "same in both orders"], rows)
    )
    parts.append(
        "Position bias: 1 if a judge always prefers the first position, −1 if always the second, "
        "0 if the position has no effect. It favours no system, since every pair is shown in "
        "both orders; it makes ties."
    )
    parts += _agreement(document, "κ")
    for pair in document["pairs"]:
        parts.append(
            f"{pair['a']} vs. {pair['b']}: {pair['items']} of {pair['items_exported']} items "
            f"judged; in {pair['same_text']} of {pair['samples']} samples both gave the same text, "
            "which is not judged."
        )
    parts += _unanswered(document)
    return "\n\n".join(parts)


def rating_tables(document: Mapping[str, Any]) -> str:
    """Return the results of ratings as Markdown."""
    systems = document["systems"]
    questions = list(next(iter(systems.values())))
    rows = [[name, *(cell(found[q]) for q in questions)] for name, found in systems.items()]
    low, high = document["scale"]
    parts = [
        _head(document),
        table(["system", *questions], rows),
        f"Ratings from {low} to {high}, mean over judges, with the "
        f"{100 * document['confidence']:g} % bootstrap interval over dialogues; "
        f"{document['rated']} of {document['samples']} samples have all ratings.",
    ]
    if document["tests"]:
        rows = [
            [f"{test['a']} − {test['b']}", test["metric"], f"{test['difference']:+.3f}",
             _interval(test), p_text(test["p"]), p_text(test["p_holm"])]
            for test in document["tests"]
        ]  # fmt: skip
        parts.append(
            table(["systems", "question", "difference", "interval", "p", "p (Holm)"], rows)
        )
        parts.append("p: paired permutation by dialogue, two-sided.")
    if len(document["judges"]) > 1:
        rows = [
            [judge, *(f"{found[q]:.2f}" for q in questions)]
            for judge, found in document["judges"].items()
        ]
        parts.append(table(["judge, mean over systems", *questions], rows))
    parts += _agreement(document, "κ, quadratic weights")
    parts += _unanswered(document)
    return "\n\n".join(parts)


def _interval(test: Mapping[str, Any]) -> str:
    if test["low"] is None:
        return "–"
    return f"[{test['low']:+.3f}, {test['high']:+.3f}]"


def _head(document: Mapping[str, Any]) -> str:
    rubric = document["rubric"]
    judges = ", ".join(
        f"{name} ({facts['model']})" for name, facts in document["judged_by"].items()
    )
    return (
        f"{NOT_PEOPLE} Judges: {judges}. Rubric: {rubric['name']}, version {rubric['version']} "
        f"({rubric['source']})."
    )


def _agreement(document: Mapping[str, Any], what: str) -> list[str]:
    if not document["agreement"]:
        return ["One judge: no agreement between judges to state."]
    rows = [
        [f"{pair['a']}, {pair['b']}", name, cell(figure)]
        for pair in document["agreement"]
        for name, figure in pair["kappa"].items()
    ]
    return ["## Agreement of two judges", table(["judges", "question", f"Cohen's {what}"], rows)]


def _unanswered(document: Mapping[str, Any]) -> list[str]:
    parts = []
    for judge, reasons in document["unanswered"].items():
        if reasons:
            listed = ", ".join(f"{reason}: {count}" for reason, count in reasons.items())
            parts.append(f"Judge {judge} left requests without an answer ({listed}).")
    if any(GIVEN_UP in reason for found in document["unanswered"].values() for reason in found):
        parts.append(f"{REPEAT}.")
    return parts
