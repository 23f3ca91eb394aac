"""Results of a human evaluation: wins, ties and losses with tests and agreement, as tables.

The unit of the test is the item: answers of several raters for one item are not independent, so
each item counts once, as won, tied or lost by its most frequent answer (tied if several are most
frequent). Ties are left out of the test. p-values are Holm-corrected over all questions of all
pairs.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pal.core.job import counted
from pal.human_eval.sheets import Votes
from pal.stats.agreement import count_rated, fleiss_kappa, sign_test
from pal.stats.permutation import holm

SHOWN_PROBLEMS = 20  # maximum number in the tables; human.json has all


def tally_votes(key: Mapping[str, Any], votes: Votes) -> list[dict[str, Any]]:
    """Return the results of every pair, as ``pairs`` of human.json.

    ``a_wins``, ``ties``, ``b_wins`` and ``n_sheets`` count answers, ``items`` counts items.

    Args:
        key: key of the sheets; its ``pairs`` name the systems.
        votes: answers of the raters.
    """
    results = [_compare_pair(pair, key, votes) for pair in key["pairs"]]
    tested = [row for pair in results for row in pair["questions"] if row["p"] is not None]
    for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = p
    return results


def same_text(same: int, samples: int) -> str:
    """Return the sentence on samples with identical texts, which are on no sheet."""
    return (
        f"in {same:,} of {counted(samples, 'sample')} both gave the same text; such a sample "
        "is on no sheet and is not counted"
    )


def _compare_pair(pair: Mapping[str, Any], key: Mapping[str, Any], votes: Votes) -> dict[str, Any]:
    """Return wins, ties and losses of one pair, with tests and agreement."""
    a, b = pair["a"], pair["b"]
    items = [name for name, item in key["items"].items() if {item["A"], item["B"]} == {a, b}]
    rows, kappas, reasons, rated = [], {}, {}, {}
    raters: set[str] = set()
    for question in key["questions"]:
        cast = [votes.answers.get(item, {}).get(question, {}) for item in items]
        raters.update(*cast)
        counts = [
            [sum(vote == name for vote in given.values()) for name in (a, "Tie", b)]
            for given in cast
            if given
        ]
        won, tied, lost = (sum(row[index] for row in counts) for index in range(3))
        outcomes = Counter(_outcome(row) for row in counts)
        rows.append(
            {
                "question": question,
                "a_wins": won,
                "ties": tied,
                "b_wins": lost,
                "n_sheets": won + tied + lost,
                "items": {"a_wins": outcomes[0], "ties": outcomes[1], "b_wins": outcomes[2]},
                "p": sign_test(outcomes[0], outcomes[2]),
                "p_holm": None,
            }
        )
        kappas[question], reason = fleiss_kappa(counts)
        if reason:
            reasons[question] = reason
        else:
            rated[question] = count_rated(counts)
    answered = sum(bool(votes.answers.get(item)) for item in items)
    return {
        "a": a,
        "b": b,
        "questions": rows,
        "kappa": kappas,
        "kappa_missing": reasons,
        "kappa_items": rated,
        "raters": len(raters),
        "items": answered,
        "items_exported": pair["items"],
        "samples": pair["samples"],
        "same_text": pair["same"],
    }


def _outcome(counts: Sequence[int]) -> int:
    """Return the most frequent of (won, tied, lost), 0 to 2; tied if several are most frequent."""
    top = [index for index, count in enumerate(counts) if count == max(counts)]
    return top[0] if len(top) == 1 else 1


def results_tables(results: Sequence[dict[str, Any]], problems: Sequence[dict[str, Any]]) -> str:
    """Return the paper's Table 4, the tests behind it, and the problems, as Markdown."""
    names = [f"{pair['a']} vs. {pair['b']}" for pair in results]
    questions = [row["question"] for row in results[0]["questions"]]
    head = " | ".join(f"{name}: Win | Lose | Draw" for name in names)
    lines = [f"| % | {head} |", f"| --- |{' ---: | ---: | ---: |' * len(names)}"]
    for index, question in enumerate(questions):
        cells = [cell for pair in results for cell in _shares(pair["questions"][index])]
        lines.append(f"| {question} | {' | '.join(cells)} |")
    lines += [
        "",
        "Percent of answers. Two-sided sign test over items, Holm-corrected over all rows below: "
        "† and bold p < 0.05, ‡ p < 0.1; without a mark no difference is shown.",
        "",
        "| pair | question | answers: win, lose, draw | of items | p | p (Holm) | κ |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, pair in zip(names, results, strict=True):
        for row in pair["questions"]:
            numbers = [row["p"], row["p_holm"], pair["kappa"][row["question"]]]
            cells = [
                name,
                row["question"],
                "{a_wins}, {b_wins}, {ties}".format(**row),
                "{a_wins}, {b_wins}, {ties}".format(**row["items"]),
                *("–" if number is None else f"{number:.3g}" for number in numbers),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for name, pair in zip(names, results, strict=True):
        # Conversations of raters are no samples that were compared before.
        same = f"; {same_text(pair['same_text'], pair['samples'])}" if pair["samples"] else ""
        lines.append(
            f"{name}: {counted(pair['raters'], 'rater')}, {pair['items']:,} of "
            f"{counted(pair['items_exported'], 'item')} answered{same}."
        )
        for count, found in _group(pair["kappa_items"]).items():
            if count < pair["items"]:
                lines.append(
                    f"κ for {', '.join(found)} is over {count:,} of "
                    f"{counted(pair['items'], 'item')}, those with two answers or more."
                )
        for reason, found in _group(pair["kappa_missing"]).items():
            lines.append(f"No κ for {', '.join(found)}: {reason}.")
    lines += ["", f"{counted(len(problems), 'problem')} in the answers."]
    for problem in problems[:SHOWN_PROBLEMS]:
        place = [problem["file"], problem["row"] and f"row {problem['row']}", problem["question"]]
        lines.append(f"- {', '.join(filter(None, place))}: {problem['problem']}")
    if len(problems) > SHOWN_PROBLEMS:
        lines.append(f"- and {len(problems) - SHOWN_PROBLEMS} more, all listed in the JSON output")
    return "\n".join(lines)


def _shares(row: Mapping[str, Any]) -> list[str]:
    """Return the percentages of wins, losses and draws of one question.

    As in all tables of the project, a figure is bold only where the difference is significant; the
    paper's Table 4 has the higher one of each pair in bold.
    """
    counts = row["a_wins"], row["b_wins"], row["ties"]
    if not row["n_sheets"]:
        return ["–"] * 3
    cells = [f"{100 * count / row['n_sheets']:.1f}" for count in counts]
    p = row["p_holm"]
    if p is not None and p < 0.1:
        ahead = row["items"]["a_wins"] < row["items"]["b_wins"]
        cells[ahead] = f"**{cells[ahead]}**†" if p < 0.05 else f"{cells[ahead]}‡"
    return cells


def _group(values: Mapping[str, Any]) -> dict[Any, list[str]]:
    """Return the questions of each value."""
    found: dict[Any, list[str]] = {}
    for question, value in values.items():
        found.setdefault(value, []).append(question)
    return found
