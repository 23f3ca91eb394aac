"""Sheets that spreadsheets would run, damaged keys and sheets, exports killed early."""

import csv
import io
import json
import random
import stat
import time

import pytest

from pal.core.errors import DataError
from pal.human_eval.sheets import (
    Question,
    TextComparison,
    guard_cell,
    read_answers,
    read_key,
    unguard_cell,
    write_sheets,
)
from tests.jobs import command, start

QUESTIONS = [Question("Overall", "Which one is better?")]
RUN_BY_SPREADSHEETS = [
    "=1+1", "hello;=1+1", "see\tthis\t=A1", "one\n=2+2", "one\r\n@two", "\tx", "\r=1", "  =1",
    '"=1"', "'=1'", "a; '-1", ";\t=1", "\uff1dSUM(A1)",
]  # fmt: skip


def cells_after(text, separator):
    """The cells that a spreadsheet makes of a text which it splits at ``separator``."""
    return [part.lstrip(" \"'\u00a0") and part for part in text.split(separator)]


@pytest.mark.parametrize("text", RUN_BY_SPREADSHEETS)
def test_no_cell_of_a_guarded_text_is_a_formula_wherever_it_is_split(text):
    guarded = guard_cell(text)
    for separator in (";", "\t", "\n", "\r", "\0"):
        for cell in cells_after(guarded, separator):
            assert not cell.lstrip(' "').startswith(tuple("=+-@\t\r\uff1d")), (guarded, separator)
    assert unguard_cell(guarded) == text


def test_any_text_is_read_back_unchanged():
    draw = random.Random(7)
    for _ in range(20_000):
        text = "".join(draw.choices("a =+-@;,'\"\t\r\n\uff1d", k=draw.randint(0, 12)))
        assert unguard_cell(guard_cell(text)) == text


def make_sheets(folder, texts=RUN_BY_SPREADSHEETS):
    comparisons = [
        TextComparison(("one", "two"), f"s{n}", [("Seeker", text)], (text, f"{text} more"))
        for n, text in enumerate(texts)
    ]
    facts = {"a": "one", "b": "two", "items": len(texts), "samples": len(texts), "same": 0}
    return write_sheets(folder, comparisons, QUESTIONS, seed=1, facts={"pairs": [facts]})


def test_a_sheet_of_such_texts_counts_when_it_comes_back(tmp_path):
    key = make_sheets(tmp_path)
    sheet = (tmp_path / "for_raters" / "sheet.csv").read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(sheet, newline="")))
    for row in rows:
        row |= {"Overall": "A", "rater": "anna"}
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path = tmp_path / "anna.csv"
    path.write_text(buffer.getvalue(), encoding="utf-8", newline="")
    votes = read_answers([path], key)
    assert votes.problems == []
    assert len(votes.answers) == len(RUN_BY_SPREADSHEETS)


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        (["items"], [], "items"),
        (["items", "X"], "text", "items.X"),
        (["items", "X"], {"A": "one", "B": 2, "sample": "s", "texts": "t"}, "items.X"),
        (["questions"], {"Overall": 1}, "questions"),
        (["questions"], [1], "questions"),
        (["pairs"], None, "pairs"),
        (["pairs"], ["one"], "pairs.0"),
        (["pairs"], [{"a": "one", "b": "two", "items": True, "samples": 1, "same": 0}], "pairs.0"),
    ],
)
def test_a_damaged_key_is_one_line(tmp_path, capsys, path, value, place):
    key = make_sheets(tmp_path)
    node = key
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    (tmp_path / "key.json").write_text(json.dumps(key))
    with pytest.raises(DataError, match=f"the key is damaged \\({place}:"):
        read_key(tmp_path)
    sheet = tmp_path / "for_raters" / "sheet.csv"
    assert command("human-eval", "score", f"input={tmp_path}", f"human_eval.answers=[{sheet}]") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "key.json" in error


def test_a_key_cut_short_is_one_line(tmp_path, capsys):
    make_sheets(tmp_path)
    whole = (tmp_path / "key.json").read_bytes()
    sheet = tmp_path / "for_raters" / "sheet.csv"
    for end in range(0, len(whole) - 2, 97):
        (tmp_path / "key.json").write_bytes(whole[:end])
        done = command("human-eval", "score", f"input={tmp_path}", f"human_eval.answers=[{sheet}]")
        assert done == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_an_open_quote_in_the_header_of_a_sheet_is_named(tmp_path):
    key = make_sheets(tmp_path)
    sheet = (tmp_path / "for_raters" / "sheet.csv").read_text(encoding="utf-8-sig")
    for name in ("item", "response B", "rater"):
        path = tmp_path / "answers.csv"
        path.write_text(sheet.replace(f'"{name}"', f'"{name}', 1), encoding="utf-8")
        votes = read_answers([path], key)
        assert not votes.answers
        (problem,) = votes.problems
        expected = "is not closed" if name == "rater" else f"columns missing or duplicated: {name}"
        assert expected in problem["problem"]


def test_any_damage_of_a_sheet_is_a_problem_and_no_crash(tmp_path):
    key = make_sheets(tmp_path)
    raw = (tmp_path / "for_raters" / "sheet.csv").read_bytes()
    draw, path = random.Random(3), tmp_path / "answers.csv"
    for _ in range(300):
        damaged = bytearray(raw)
        for _ in range(draw.randint(1, 6)):
            at = draw.randrange(len(damaged))
            damaged[at : at + draw.randint(0, 2)] = draw.choice(
                [b'"', b"\0", b"\r", b"\n", b";", b"\xff", b"", b"A"]
            )
        path.write_bytes(damaged)
        assert read_answers([path], key).problems


@pytest.fixture
def systems(tmp_path):
    paths = []
    for name in ("pal", "joint"):
        path = tmp_path / f"{name}.jsonl"
        rows = [
            {"id": f"{n}", "dialog": [{"speaker": "seeker", "text": "Hello."},
             {"speaker": "supporter", "text": f"{name} {n}"}]}
            for n in range(40)
        ]  # fmt: skip
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        paths.append(path)
    return paths


def test_systems_as_people_write_them(systems, tmp_path):
    """``{pal:file}`` without a space after the colon is a name and a file."""
    pal, joint = systems
    given = f"human_eval.systems={{pal:{pal},joint:{joint}}}"
    assert command("human-eval", "export", f"output={tmp_path / 'out'}", given) == 0
    assert read_key(tmp_path / "out")["pairs"][0]["b"] == "joint"


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*") if path.is_file() and path.name != "run.json"
    }  # fmt: skip


def test_an_export_killed_at_any_moment_is_run_again_to_the_same_bytes(systems, tmp_path):
    pal, joint = systems
    given = ["human-eval", "export", f"human_eval.systems={{pal: {pal}, joint: {joint}}}"]
    whole = tmp_path / "whole"
    process = start(*given, f"output={whole}")
    begin = time.time()
    assert process.wait() == 0
    lasts = time.time() - begin
    draw = random.Random(1)
    for number in range(6):
        folder = tmp_path / f"killed-{number}"
        process = start(*given, f"output={folder}")
        time.sleep(lasts * (0.3 + 0.7 * draw.random()))
        process.kill()
        process.wait()
        assert not folder.exists() or contents(folder) == contents(whole)
        assert command(*given, f"output={folder}") == 0
        assert contents(folder) == contents(whole)
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_a_killed_export_left_is_no_obstacle(systems, tmp_path):
    pal, joint = systems
    folder = tmp_path / "out"
    (tmp_path / ".out.unfinished" / "for_raters").mkdir(parents=True)
    (tmp_path / ".out.unfinished" / "for_raters" / "sheet.csv").write_text("half")
    (tmp_path / ".out.lock").touch()
    folder.mkdir()
    given = ["human-eval", "export", f"human_eval.systems={{pal: {pal}, joint: {joint}}}"]
    assert command(*given, f"output={folder}") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"out", "pal.jsonl", "joint.jsonl"}
    assert {path.name for path in folder.iterdir()} == {"for_raters", "key.json", "run.json"}


def test_overwrite_removes_exports_alone(systems, tmp_path, capsys):
    """Another command's folder, or one whose record cannot be read, stays as it is."""
    pal, joint = systems
    given = ["human-eval", "export", f"human_eval.systems={{pal: {pal}, joint: {joint}}}"]
    for record in ('{"command": "train"}', "{", "[]"):
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        (folder / "run.json").write_text(record)
        assert command(*given, f"output={folder}", "overwrite=true") == 2
        assert "is not an export" in capsys.readouterr().err
        assert (folder / "run.json").read_text() == record
    export = tmp_path / "export"
    assert command(*given, f"output={export}") == 0
    assert command(*given, f"output={export}", "human_eval.items=3", "overwrite=true") == 0
    assert len(read_key(export)["items"]) == 3


def test_sheets_and_results_are_for_the_user_alone(systems, tmp_path, capsys):
    pal, joint = systems
    folder, output = tmp_path / "out", tmp_path / "human.json"
    given = ["human-eval", "export", f"human_eval.systems={{pal: {pal}, joint: {joint}}}"]
    assert command(*given, f"output={folder}") == 0
    sheet = folder / "for_raters" / "sheet.csv"
    scored = ["human-eval", "score", f"input={folder}", f"human_eval.answers=[{sheet}]"]
    assert command(*scored, f"output={output}") == 2
    assert f"{sheet}: no answer is filled in" in capsys.readouterr().err
    assert not output.exists()
    rows = list(csv.DictReader(io.StringIO(sheet.read_text(encoding="utf-8-sig"))))
    rows[0]["Overall"] = "A"
    with sheet.open("w", newline="", encoding="utf-8-sig") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert command(*scored, f"output={output}") == 0
    files = [sheet, sheet.with_name("form.html"), folder / "key.json", output,
             output.with_suffix(".md")]  # fmt: skip
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
