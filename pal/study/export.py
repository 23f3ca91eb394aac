"""What a study found: files for ``pal human-eval score``, the conversations, and the results.

An item of the results is a situation (or a persona sample), so several raters of one item give
Fleiss' κ, and the sign test counts an item once. In a chat study each rater has conversations of
their own; the key and the answers hold a sentence in place of the two texts, and
``conversations.jsonl`` holds what was said.
"""

import csv
import io
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pal.core.files import make_private, write_json, write_jsonl, write_text
from pal.core.job import counted
from pal.human_eval.personas import PERSONA_ANSWERS, PERSONA_QUESTION
from pal.human_eval.results import results_tables, tally_votes
from pal.human_eval.sheets import (
    KEY,
    TEXTS,
    guard_cell,
    join_turns,
    read_answers,
    text_checksum,
)
from pal.stats.agreement import count_rated, fleiss_kappa
from pal.study.questions import CHAT_QUESTIONS
from pal.study.store import SIDES, StudyStore, StudyTask

ANSWER_FOLDER = "answers"
SEPARATOR = " | "  # between the sentences of a persona in a cell
SPEAKERS = {"rater": "seeker", "system": "supporter", "guard": "supporter"}


def write_export(store: StudyStore, folder: Path) -> str:
    """Write what was found into a new folder that the user alone can read.

    Only tasks that were handed in count. Those in which the guard spoke in place of a system are
    left out of the results, and stand among the conversations.

    Args:
        store: the study.
        folder: the folder; it exists and is empty.

    Returns:
        The tables.
    """
    make_private(folder)
    tables = (
        _write_chats(store, folder) if store.kind == "chat" else _write_judgements(store, folder)
    )
    text = f"{tables}\n\n{_progress(store)}"
    write_text(folder / "results.md", text + "\n", private=True)
    return text


def _progress(store: StudyStore) -> str:
    """Return how far the raters are."""
    raters, tasks = store.raters(), store.all_tasks()
    left = Counter(task.rater for task in tasks if not task.finished)
    active = [rater for rater in raters if rater.withdrawn is None]
    started = [rater for rater in active if rater.consented is not None]
    open_raters = [rater for rater in started if left[rater.rater]]
    ended = sum(rater.expires <= time.time() for rater in active)
    return (
        f"{counted(len(raters), 'link')}: {len(started) - len(open_raters)} finished, "
        f"{len(open_raters)} started but not finished "
        f"({sum(rater.stopped is not None for rater in open_raters)} of them stopped for now), "
        f"{len(active) - len(started)} not begun, "
        f"{len(raters) - len(active)} withdrawn for good and deleted; {ended} expired."
    )


# ----------------------------------------------------------------------------- chats


def _write_chats(store: StudyStore, folder: Path) -> str:
    a, b = store.config["systems"]
    conversations = []
    handed_in: list[StudyTask] = []  # without what the guard said
    guarded = 0
    for task in store.all_tasks():
        found = {side: store.turns(task.task, side) for side in SIDES}
        spoke = any(turn.speaker == "guard" for turns in found.values() for turn in turns)
        guarded += task.finished and spoke
        if task.finished and not spoke:
            handed_in.append(task)
        for side, turns in found.items():
            if turns:
                conversations.append(_conversation(task, side, turns))
    write_jsonl(folder / "conversations.jsonl", conversations)
    texts = tuple(f"the rater's own conversation with {name}" for name in (a, b))
    names = [question.name for question in CHAT_QUESTIONS]
    items: dict[str, dict[str, str]] = {}
    contexts: dict[str, str] = {}
    for task in handed_in:
        contexts[task.item] = join_turns([("Situation", task.content["situation"])])
        items[task.item] = {
            "sample": task.content["sample"], "A": a, "B": b,
            "texts": text_checksum([contexts[task.item], *texts]),
        }  # fmt: skip
    pair = {"a": a, "b": b, "items": len(items), "samples": 0, "same": 0}
    key = {
        "kind": "human-key", "format": 1, "pairs": [pair], "questions": names,
        "items": {item: items[item] for item in sorted(items)}, "study": {"guarded": guarded},
    }  # fmt: skip
    write_json(folder / KEY, key, private=True)
    (folder / ANSWER_FOLDER).mkdir()
    make_private(folder / ANSWER_FOLDER)
    sides = {a: "A", b: "B"}
    for rater in sorted({task.rater for task in handed_in}):
        rows = []
        for task in handed_in:
            if task.rater == rater:
                given = store.answers(task.task)
                # The key has the first system at A; what raters called A was drawn for each task.
                words = [sides.get(task.systems.get(given[name][0], ""), "Tie") for name in names]
                rows.append([task.item, contexts[task.item], *texts, *words, f"rater-{rater}"])
        _write_sheet(
            folder / ANSWER_FOLDER / f"rater-{rater}.csv", ["item", *TEXTS, *names, "rater"], rows
        )
    said = f"Tasks left out because the guard replaced a system's reply: {guarded}."
    if not handed_in:
        return f"No task counts yet. {said}"
    votes = read_answers([folder / ANSWER_FOLDER], key)
    results = tally_votes(key, votes)
    document = {"kind": "human", "format": 1, "pairs": results, "problems": votes.problems}
    write_json(folder / "results.json", {**document, "guarded": guarded}, private=True)
    return f"{results_tables(results, votes.problems)}\n\n{said}"


def _conversation(task: StudyTask, side: str, turns: Sequence[Any]) -> dict[str, Any]:
    """Return a conversation in the layout of the project's dialogues."""
    dialog = []
    for turn in turns:
        shown = {"speaker": SPEAKERS[turn.speaker], "text": turn.text}
        if turn.speaker == "system":
            shown["strategy"] = turn.details.get("strategy")
        dialog.append(shown)
    unanswered = {"request": True} if turns[-1].speaker == "rater" else {}
    return {
        **unanswered,
        "id": f"{task.task}-{side}", "situation": task.content["situation"], "dialog": dialog,
        "system": task.systems[side], "side": side, "rater": task.rater, "item": task.item,
        "finished": task.finished,
        "replies": [
            {"turn": turn.number, "by": turn.speaker, **turn.details}
            for turn in turns if turn.speaker != "rater"
        ],
    }  # fmt: skip


# ----------------------------------------------------------------------------- personas


def _write_judgements(store: StudyStore, folder: Path) -> str:
    rows, reasons = [], []
    typed = 0
    judged: dict[str, Counter[str]] = {}
    for task in store.all_tasks():
        answer, reason = store.answers(task.task).get(PERSONA_QUESTION.name, ("", ""))
        if not task.finished or not answer:
            continue
        judged.setdefault(task.item, Counter())[answer] += 1
        sentences = SEPARATOR.join(task.content["persona"])
        rows.append([task.content["sample"], f"rater-{task.rater}", sentences, answer, reason])
        typed += bool(reason)
        # The results list the reasons of Other alone, which says nothing without one.
        reasons += [reason] if reason and answer == "Other" else []
    names = ["sample", "rater", "persona sentences", "answer", "reason"]
    _write_sheet(folder / "judgements.csv", names, rows)
    counts = [[given[name] for name in PERSONA_ANSWERS] for given in judged.values()]
    kappa, why = fleiss_kappa(counts)
    totals = {name: sum(given[name] for given in judged.values()) for name in PERSONA_ANSWERS}
    document = {
        "kind": "persona-judgements", "format": 1, "answers": totals, "samples": len(judged),
        "kappa": kappa, "kappa_missing": why, "kappa_items": count_rated(counts),
        "reasons": reasons,
    }  # fmt: skip
    write_json(folder / "results.json", document, private=True)
    return _judgement_table(document, typed)


def _judgement_table(found: Mapping[str, Any], typed: int) -> str:
    total = sum(found["answers"].values())
    if not total:
        return "No sample is judged yet."
    lines = ["| judgement | answers | % |", "| --- | ---: | ---: |"]
    for name, count in found["answers"].items():
        lines.append(f"| {name} | {count} | {100 * count / total:.1f} |")
    judgements = counted(total, "judgement")
    agreed = (
        f"no κ: {found['kappa_missing']}" if found["kappa"] is None
        else f"Fleiss' κ {found['kappa']:.3f} over {counted(found['kappa_items'], 'sample')}"
    )  # fmt: skip
    lines += ["", f"{judgements} of {counted(found['samples'], 'sample')}; {agreed}."]
    if typed:
        reasons = counted(typed, "reason")
        lines += [f"judgements.csv holds {reasons}, {len(found['reasons'])} of them of Other."]
    return "\n".join(lines)


def _write_sheet(path: Path, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a CSV that no spreadsheet runs, with the mark by which Excel recognises UTF-8."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(names)
    writer.writerows([guard_cell(str(cell)) for cell in row] for row in rows)
    write_text(path, "\ufeff" + buffer.getvalue(), private=True)
