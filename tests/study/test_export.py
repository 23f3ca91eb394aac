"""What a study found, in the files of the human evaluation."""

import csv
import json
import re
import stat

import pytest

import pal
from pal.core.files import read_json
from pal.study.draw import deal, draw_items
from pal.study.store import StudyStore
from tests.jobs import command
from tests.study.live import QUESTIONS, make_study


@pytest.fixture
def file(tmp_path):
    return tmp_path / "study.db"


def finish(store, rater, *, answers, guard=False, words="hello"):
    """Have a rater talk with both and answer."""
    store.consent(rater)
    for task in store.tasks(rater):
        for side in "AB":
            assert store.say(rater, task.task, side, 0, words)
            speaker = "guard" if guard else "system"
            assert store.reply(task.task, side, 1, speaker, f"from {task.systems[side]}", {
                "strategy": None if guard else "Question", "alpha": None, "finish": "stop",
            })  # fmt: skip
            store.end(rater, task.task, side)
        given = {name: (answer, "") for name, answer in zip(QUESTIONS, answers, strict=True)}
        assert store.answer(rater, task.task, given, QUESTIONS)


def export(file, folder, *more):
    return command("study", "export", f"input={file}", f"output={folder}", *more)


def test_results_say_who_won_and_not_which_side(file, tmp_path, capsys):
    """Raters 1 and 3 have the first system at A, 2 and 4 at B."""
    make_study(file, raters=6, each=2)
    store = StudyStore(file)
    finish(store, 1, answers=["A", "A", "B", "Tie", "A", "A"])
    finish(store, 2, answers=["B", "B", "A", "Tie", "A", "B"])
    finish(store, 3, answers=["A", "Tie", "B", "Tie", "B", "A"], words="=cmd|'x' <b>")
    finish(store, 4, answers=["A"] * 6, guard=True)
    store.consent(5)
    store.say(5, store.tasks(5)[0].task, "A", 0, "only begun")
    store.close()
    folder = tmp_path / "export"
    assert export(file, folder) == 0
    shown = capsys.readouterr().out
    assert "same text" not in shown
    assert "the guard replaced a system's reply: 2." in shown
    assert (
        "6 links: 4 finished, 1 started but not finished (0 of them stopped for now), 1 not begun"
        in shown
    )
    document = read_json(folder / "results.json")
    [pair] = document["pairs"]
    assert (pair["a"], pair["b"], pair["raters"], pair["items"]) == ("zebra", "quartz", 3, 2)
    counts = {row["question"]: (row["a_wins"], row["ties"], row["b_wins"])
              for row in pair["questions"]}  # fmt: skip
    assert counts == {
        "Coherence": (6, 0, 0), "Identification": (4, 2, 0), "Comforting": (0, 0, 6),
        "Suggestion": (0, 6, 0), "Information": (2, 0, 4), "Overall": (6, 0, 0),
    }  # fmt: skip
    assert pair["kappa_items"] == {"Identification": 2, "Information": 2}
    # Of the three answers to each item one pair in three agrees; half the answers are expected.
    assert pair["kappa"]["Information"] == pytest.approx((1 / 3 - 5 / 9) / (1 - 5 / 9))
    assert document["problems"] == []
    for path in [folder, *folder.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path

    score = tmp_path / "human.json"
    assert command(
        "human-eval", "score", f"input={folder}", f"human_eval.answers={folder / 'answers'}",
        f"output={score}",
    ) == 0  # fmt: skip
    again = read_json(score)
    assert again["pairs"] == document["pairs"]
    assert again["problems"] == []

    lines = (folder / "conversations.jsonl").read_text().splitlines()
    assert len(lines) == 4 * 2 * 2 + 1
    systems = {(row["system"], row["dialog"][1]["text"]) for row in map(json.loads, lines[:16])}
    assert systems == {("zebra", "from zebra"), ("quartz", "from quartz")}
    assert len(pal.load_esconv(str(folder / "conversations.jsonl"), requests=True)) == 17


def test_an_export_is_replaced_only_where_it_is_one(file, tmp_path, capsys):
    make_study(file)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("x")
    assert export(file, mine, "overwrite=true") == 2
    assert "not an export" in capsys.readouterr().err
    assert (mine / "thesis.tex").exists()
    folder = tmp_path / "export"
    assert export(file, folder) == 0
    assert "No task counts yet" in capsys.readouterr().out
    assert export(file, folder) == 2
    assert "overwrite=true" in capsys.readouterr().err
    assert export(file, folder, "overwrite=true") == 0
    assert not list(tmp_path.glob(".*"))


def test_judgements_of_personas(file, tmp_path, capsys):
    items = {
        f"p{n}": {"sample": f"d/{n}", "persona": ["=1+1", "i own a shop."], "context": []}
        for n in range(2)
    }
    make_study(file, kind="persona", raters=3, each=2, items=items)
    store = StudyStore(file)
    given = {
        1: ["Reasonable", "Other"], 2: ["Reasonable", "Contradictory"],
        3: ["Reasonable", "Hallucinatory"],
    }  # fmt: skip
    for rater, answers in given.items():
        store.consent(rater)
        for task, answer in zip(store.tasks(rater), answers, strict=True):
            reason = "=HYPERLINK(1)" if answer == "Other" else ""
            store.answer(rater, task.task, {"Persona": (answer, reason)}, ["Persona"])
    store.close()
    folder = tmp_path / "export"
    assert export(file, folder) == 0
    shown = capsys.readouterr().out
    assert "| Reasonable | 3 | 50.0 |" in shown
    assert "6 judgements of 2 samples" in shown
    found = read_json(folder / "results.json")
    assert found["answers"] == {
        "Reasonable": 3, "Contradictory": 1, "Hallucinatory": 1, "Other": 1
    }  # fmt: skip
    expected = 0.25 + 3 / 36
    assert found["kappa"] == pytest.approx((0.5 - expected) / (1 - expected))
    with open(folder / "judgements.csv", encoding="utf-8-sig") as handle:
        rows = list(csv.DictReader(handle))
    [other] = [row for row in rows if row["answer"] == "Other"]
    assert other["reason"] == "'=HYPERLINK(1)"
    assert other["persona sentences"].startswith("'=1+1")


def test_every_reason_that_was_typed_is_exported(file, tmp_path, capsys):
    """A reason beside another answer than Other is among the judgements, and changes no result."""
    persona = ["i own a shop.", "i sing."]
    items = {f"p{n}": {"sample": f"d/{n}", "persona": persona, "context": []} for n in range(2)}
    plain = tmp_path / "plain.db"
    answers = [("Contradictory", "sold it"), ("Other", "too vague"), ("Reasonable", "but dull"),
               ("Hallucinatory", "")]  # fmt: skip
    for path in (file, plain):
        make_study(path, kind="persona", raters=2, each=2, items=items)
        store = StudyStore(path)
        given = iter(answers)
        for rater in (1, 2):
            store.consent(rater)
            for task in store.tasks(rater):
                answer, reason = next(given)
                kept = reason if path == file or answer == "Other" else ""
                store.answer(rater, task.task, {"Persona": (answer, kept)}, ["Persona"])
        store.close()
        assert export(path, tmp_path / path.stem) == 0
    typed, without = capsys.readouterr().out.split("written to", 1)
    assert "judgements.csv holds 3 reasons, 1 of them of Other." in typed
    assert "judgements.csv holds 1 reason, 1 of them of Other." in without
    with open(tmp_path / "study" / "judgements.csv", encoding="utf-8-sig") as handle:
        rows = list(csv.DictReader(handle))
    assert [(row["answer"], row["reason"]) for row in rows] == answers
    assert {row["persona sentences"] for row in rows} == {"i own a shop. | i sing."}
    found = read_json(tmp_path / "study" / "results.json")
    assert found == read_json(tmp_path / "plain" / "results.json")
    assert found["reasons"] == ["too vague"]


# A count of one before a plural, as in "1 raters"; decimals and "1 of 3 items" are none.
ONE_OF_MANY = re.compile(r"(?<![\d.,])1 (?!of )[a-z]+s\b|of 1 [a-z]+s\b|\b1 have\b")


def test_one_of_a_kind_is_counted_as_one(file, tmp_path, capsys):
    items = {"p": {"sample": "d/1", "persona": ["i sing."], "context": []}}
    make_study(file, kind="persona", raters=1, items=items)
    store = StudyStore(file)
    store.consent(1)
    store.answer(1, store.tasks(1)[0].task, {"Persona": ("Other", "vague")}, ["Persona"])
    store.close()
    assert export(file, tmp_path / "personas") == 0
    shown = capsys.readouterr().out
    for part in ("1 judgement of 1 sample;", "holds 1 reason,", "1 link: 1 finished"):
        assert part in shown
    assert not ONE_OF_MANY.findall(shown)

    chats = tmp_path / "chats.db"
    make_study(chats, raters=1)
    store = StudyStore(chats)
    finish(store, 1, answers=["A"] * 6)
    store.close()
    folder = tmp_path / "chats"
    assert export(chats, folder) == 0
    assert command(
        "human-eval", "score", f"input={folder}", f"human_eval.answers={folder / 'answers'}"
    ) == 0  # fmt: skip
    shown = capsys.readouterr().out
    assert shown.count("1 rater, 1 of 1 item answered") == 2
    assert not ONE_OF_MANY.findall(shown)
    assert ONE_OF_MANY.findall("1 raters, 1 of 1 items; 1 have expired") == [
        "1 raters", "of 1 items", "1 have"
    ]  # fmt: skip


def test_results_of_chats_are_there_once_a_task_counts(file, tmp_path):
    make_study(file, raters=1)
    assert export(file, tmp_path / "export") == 0
    assert not (tmp_path / "export" / "results.json").exists()
    assert "No task counts yet" in (tmp_path / "export" / "results.md").read_text()
    store = StudyStore(file)
    finish(store, 1, answers=["A"] * 6)
    store.close()
    assert export(file, tmp_path / "export", "overwrite=true") == 0
    assert (tmp_path / "export" / "results.json").exists()


def test_nothing_of_who_withdrew_is_exported(file, tmp_path):
    tokens = make_study(file, raters=2)
    store = StudyStore(file)
    finish(store, 1, answers=["A"] * 6, words="canary")
    finish(store, 2, answers=["A"] * 6)
    store.close()
    link = f"http://127.0.0.1:8010/s/{tokens[0]}"
    assert command("study", "withdraw", f"input={file}", f"link={link}") == 0
    assert export(file, tmp_path / "export") == 0
    assert b"canary" not in b"".join(
        path.read_bytes() for path in (tmp_path / "export").rglob("*") if path.is_file()
    )
    assert read_json(tmp_path / "export" / "results.json")["pairs"][0]["raters"] == 1
    assert b"canary" not in file.read_bytes()


def test_raters_are_counted_as_they_are_now(file, tmp_path, capsys):
    """Who went on has not stopped, who has finished is not among the stopped."""
    make_study(file, raters=5)
    store = StudyStore(file)
    finish(store, 1, answers=["A"] * 6)
    for rater in (2, 3, 4):
        store.consent(rater)
    for rater in (1, 2, 3, 4):
        store.stop(rater)
    store.resume(3)
    store.withdraw(4)
    store.close()
    assert export(file, tmp_path / "export") == 0
    assert (
        "5 links: 1 finished, 2 started but not finished (1 of them stopped for now), "
        "1 not begun, 1 withdrawn for good and deleted; 0 expired." in capsys.readouterr().out
    )


def test_a_link_that_no_rater_has(file, capsys):
    make_study(file)
    assert command("study", "withdraw", f"input={file}", "link=nonsense") == 2
    assert "no rater has this link" in capsys.readouterr().err


@pytest.mark.parametrize(("raters", "items", "each"), [(1, 1, 1), (6, 3, 1), (7, 4, 3), (5, 2, 9)])
def test_items_and_sides_are_dealt_evenly(raters, items, each):
    names = [f"i{n}" for n in range(items)]
    starts = set()
    for seed in range(20):
        dealt = deal(names, raters=raters, each=each, systems=("x", "y"), seed=seed)
        assert all(len({task.item for task in tasks}) == min(each, items) for tasks in dealt)
        flat = [task for tasks in dealt for task in tasks]
        times = [sum(task.item == name for task in flat) for name in names]
        assert max(times) - min(times) <= 1
        for some in [flat, *([t for t in flat if t.item == name] for name in names)]:
            first = sum(task.systems == ("x", "y") for task in some)
            assert abs(2 * first - len(some)) <= 1
        starts.add(dealt[0][0].systems)
        assert dealt == deal(names, raters=raters, each=each, systems=("x", "y"), seed=seed)
    assert starts == {("x", "y"), ("y", "x")}


def test_samples_come_from_many_dialogues():
    shown = [{"sample": f"d{d}/{t}"} for d in range(10) for t in range(8)]
    drawn = draw_items(shown, 10, seed=1)
    assert len({one["sample"].split("/")[0] for one in drawn.values()}) == 10
    assert len(draw_items(shown, 1000, seed=1)) == 80
    assert list(draw_items(shown, 10, seed=2)) != list(drawn)


def test_a_model_that_is_not_there_gets_no_links(tmp_path, capsys):
    (tmp_path / "told.txt").write_text("I lost my job.\nMy dog died.\n")
    missing = tmp_path / "nowhere"
    assert command(
        "study", "create", f"input={tmp_path / 'told.txt'}", f"output={tmp_path / 's.db'}",
        f"study.systems={{p: {{model: {missing}}}, q: {{model: {missing}}}}}",
    ) == 2  # fmt: skip
    assert "study.systems.p" in capsys.readouterr().err
    assert not (tmp_path / "s.db").exists()
