import csv
import io
import json
import re
import shutil
import subprocess
import unicodedata
from collections import Counter

import pytest

from pal.data.samples import build_samples
from pal.data.splits import load_split
from pal.human_eval.choice import DIALOGUE_QUESTIONS, PAL_QUESTIONS
from pal.human_eval.sheets import (
    Question,
    TextComparison,
    read_answers,
    read_key,
    unguard_cell,
    write_sheets,
)
from tests.jobs import ESCONV, command

SOURCE = ESCONV / "test.jsonl"
NAMES = [question.name for question in PAL_QUESTIONS]
SYSTEMS = ["zeta_alpha_075", "joint_baseline", "hard_prompt"]
NASTY = [
    "=SUM(A1:A9)", "+1 for you", "-no, really", "@home", 'He said "stop", then\nleft; fine.',
    "Oh 😊, naïve café…", "<script>alert(1)</script> & </script>", "comma, semicolon; tab\tend",
]  # fmt: skip


@pytest.fixture(scope="module")
def samples():
    return build_samples(load_split(str(SOURCE), None), "evaluation")


@pytest.fixture(scope="module")
def systems(samples, tmp_path_factory):
    """Three systems' responses; the second says the same as the first in three samples."""
    folder = tmp_path_factory.mktemp("systems")
    paths = {}
    for system, name in enumerate(SYSTEMS):
        rows = []
        for number, sample in enumerate(samples):
            text = NASTY[number] if number < len(NASTY) else f"Reply {number}"
            rows.append({"id": sample.id, "response": text + (" twice" if system else "")})
            if system == 1 and number in (10, 11, 12):
                rows[-1]["response"] = f"Reply  {number}"
        paths[name] = folder / f"{name}.jsonl"
        paths[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return paths


def arguments(systems, output, *more):
    files = ", ".join(f"{name}: {path}" for name, path in systems.items())
    return ["human-eval", "export", f"input={SOURCE}", f"output={output}",
            f"human_eval.systems={{{files}}}", *more]  # fmt: skip


@pytest.fixture(scope="module")
def exported(systems, tmp_path_factory):
    folder = tmp_path_factory.mktemp("human") / "export"
    assert command(*arguments(systems, folder, "human_eval.items=10")) == 0
    return folder


def read_sheet(path):
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))


def write_sheet(path, rows, encoding="utf-8", **form):
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]), **form)
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue().encode(encoding, errors="replace"))
    return path


def filled(exported, prefer, rater=""):
    """A rater's sheet: ``prefer`` tells by item number and question which system wins, or Tie."""
    key = read_key(exported)
    rows = read_sheet(exported / "for_raters" / "sheet.csv")
    for number, row in enumerate(rows):
        item = key["items"][row["item"]]
        for question in NAMES:
            system = prefer(number, question)
            if system not in ("Tie", ""):
                system = "A" if system in ("first", item["A"]) else "B"
            row[question] = system
        row["rater"] = rater
    return rows


def always_zeta(number, question):
    return SYSTEMS[0] if question != "Overall" else "Tie"


def test_what_is_handed_out_is_blind(exported, samples):
    for path in (exported / "for_raters").iterdir():
        text = path.read_text(encoding="utf-8")
        ids = {sample.id for sample in samples} | {sample.dialogue_id for sample in samples}
        for secret in [*SYSTEMS, "zeta", "human_eval", ".jsonl", "alpha", str(exported), *ids]:
            assert secret not in text, f"{secret} in {path.name}"
    assert {path.name for path in (exported / "for_raters").iterdir()} == {
        "sheet.csv", "form.html", "guidelines.md",
    }  # fmt: skip
    rows = read_sheet(exported / "for_raters" / "sheet.csv")
    assert list(rows[0]) == ["item", "context", "response A", "response B", *NAMES, "rater"]
    assert all(re.fullmatch("[bcdfghjkmnpqrstv]{12}", row["item"]) for row in rows)
    assert not any(row[name] for row in rows for name in [*NAMES, "rater"])


def test_sides_are_balanced_and_the_order_is_not_the_input_order(exported, samples):
    key = read_key(exported)
    sides = Counter(
        (frozenset((item["A"], item["B"])), item["A"]) for item in key["items"].values()
    )
    assert len(sides) == 4
    assert set(sides.values()) == {5}
    rows = read_sheet(exported / "for_raters" / "sheet.csv")
    order = [key["items"][row["item"]]["sample"] for row in rows]
    inputs = [sample.id for sample in samples]
    assert order != sorted(order, key=inputs.index)
    pairs = [frozenset(key["items"][row["item"]][side] for side in "AB") for row in rows]
    assert pairs != sorted(pairs, key=pairs.index)  # pairs are mixed, not one after the other
    assert len(set(order)) == 20  # no context comes twice


def test_the_key_tells_the_truth(exported, systems, samples):
    texts = {
        name: {row["id"]: row["response"] for row in map(json.loads, path.open())}
        for name, path in systems.items()
    }
    contexts = {
        s.id: "\n".join(f"{turn['speaker'].capitalize()}: {turn['text']}" for turn in s.context)
        for s in samples
    }
    key = read_key(exported)
    for row in read_sheet(exported / "for_raters" / "sheet.csv"):
        item = key["items"][row["item"]]
        assert row["context"] == contexts[item["sample"]]
        for side in "AB":
            shown = row[f"response {side}"]
            assert unguard_cell(shown) == texts[item[side]][item["sample"]]
            assert shown[0] not in "=+-@"
    assert key["pairs"][0] == {
        "a": SYSTEMS[0], "b": SYSTEMS[1], "items": 10, "samples": len(samples), "same": 3,
    }  # fmt: skip


def test_the_same_seed_gives_the_same_sheets_and_another_gives_others(systems, exported, tmp_path):
    def sheet(folder):
        return (folder / "for_raters" / "sheet.csv").read_text(encoding="utf-8")

    again, other = tmp_path / "again", tmp_path / "other"
    assert command(*arguments(systems, again, "human_eval.items=10")) == 0
    assert command(*arguments(systems, other, "human_eval.items=10", "human_eval.seed=1")) == 0
    assert sheet(again) == sheet(exported)
    assert sheet(other) != sheet(exported)
    assert not set(read_key(other)["items"]) & set(read_key(exported)["items"])


def test_export_again_and_over_other_things(systems, exported, tmp_path, capsys):
    before = (exported / "key.json").stat().st_mtime_ns
    assert command(*arguments(systems, exported, "human_eval.items=10")) == 0
    assert (exported / "key.json").stat().st_mtime_ns == before
    assert "Keep" in capsys.readouterr().out
    assert command(*arguments(systems, exported, "human_eval.items=11")) == 2
    assert "overwrite=true" in capsys.readouterr().err
    (tmp_path / "notes.txt").write_text("mine")
    assert command(*arguments(systems, tmp_path)) == 2
    assert "is not an export" in capsys.readouterr().err


def test_fewer_differing_responses_than_items(systems, tmp_path, capsys, samples):
    more = "human_eval.items=1000", f"human_eval.pairs=[[{SYSTEMS[1]}, {SYSTEMS[0]}]]"
    assert command(*arguments(systems, tmp_path / "x", *more)) == 0
    said = capsys.readouterr().out
    assert f"{SYSTEMS[1]} vs. {SYSTEMS[0]}: {len(samples) - 3} items (1000 were asked for)" in said
    assert f"in 3 of {len(samples)} samples both gave the same text" in said


def test_a_limit_takes_the_responses_to_the_first_samples(systems, tmp_path, capsys, samples):
    folder = tmp_path / "x"
    assert command(*arguments(systems, folder, "limit=5", "human_eval.items=1000")) == 0
    asked = {item["sample"] for item in read_key(folder)["items"].values()}
    assert asked == {sample.id for sample in samples[:5]}
    lines = systems[SYSTEMS[0]].read_text().splitlines()[5:]
    (tmp_path / "later.jsonl").write_text("\n".join(lines) + "\n")
    later = systems | {SYSTEMS[0]: tmp_path / "later.jsonl"}
    assert command(*arguments(later, tmp_path / "y", "limit=5")) == 2
    assert "give the input the responses were made from" in capsys.readouterr().err


def test_whole_dialogues_of_two_conditions(tmp_path, capsys):
    """Without ``input`` dialogues are compared, by card, with the questions of Table 9."""
    files = {}
    for name, says in (("traits_both", "Yes."), ("traits_none", "No.")):
        rows = [
            {"id": f"{name}-{n}", "card": f"card-{n}", "condition": name.partition("_")[2],
             "persona": ["I am a nurse."], "dialog": [
                {"speaker": "seeker", "text": f"Hello {n}"},
                {"speaker": "supporter", "text": says, "strategy": "Question"}]}
            for n in range(6)
        ]  # fmt: skip
        files[name] = tmp_path / f"{name}.jsonl"
        files[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "export"
    given = [item for item in arguments(files, folder) if not item.startswith("input=")]
    assert command(*given, "human_eval.items=4") == 0
    names = [question.name for question in DIALOGUE_QUESTIONS]
    assert names == ["Suggestion", "Consistency", "Comforting", "Identification", "Overall"]
    rows = read_sheet(folder / "for_raters" / "sheet.csv")
    assert list(rows[0]) == ["item", "context", "response A", "response B", *names, "rater"]
    key = read_key(folder)
    for row in rows:
        item, number = key["items"][row["item"]], key["items"][row["item"]]["sample"][-1]
        says = "Yes." if item["A"] == "traits_both" else "No."
        assert row["response A"] == f"Seeker: Hello {number}\nSupporter: {says}"
    for path in (folder / "for_raters").iterdir():
        text = path.read_text(encoding="utf-8")
        assert not any(word in text for word in (*files, "card-", "nurse", '"Question"'))
    both = tmp_path / "continued.jsonl"  # several conditions in one file: told by the names
    both.write_text(files["traits_both"].read_text() + files["traits_none"].read_text())
    one = arguments({"both": both, "none": both}, tmp_path / "one")
    assert command(*[item for item in one if not item.startswith("input=")]) == 0
    assert len(read_key(tmp_path / "one")["items"]) == 6
    wrong = arguments({"both": both, "nobody": both}, tmp_path / "wrong")
    assert command(*[item for item in wrong if not item.startswith("input=")]) == 2
    assert "no dialogue of condition 'nobody' (it has both, none)" in capsys.readouterr().err
    files["traits_none"].write_text("".join(json.dumps(row) + "\n" for row in [{"id": 1}]))
    capsys.readouterr()
    assert command(*given) == 2
    assert "line 1: expected a dialogue with id (or card) and dialog" in capsys.readouterr().err


def test_mistakes_in_export(systems, tmp_path, capsys):
    def error(systems, *more):
        assert command(*arguments(systems, tmp_path / "x", *more)) == 2
        return capsys.readouterr().err

    one = dict(list(systems.items())[:1])
    assert "expected two or more, name → file, got 1" in error(one)
    assert "did you mean 'hard_prompt'" in error(systems, "human_eval.pairs=[[hard_promt, joint]]")
    assert "each pair once" in error(
        systems, f"human_eval.pairs=[[{SYSTEMS[0]}, {SYSTEMS[1]}], [{SYSTEMS[1]}, {SYSTEMS[0]}]]"
    )
    assert "each pair once" in error(systems, f"human_eval.pairs=[[{SYSTEMS[0]}, {SYSTEMS[0]}]]")
    twin = {**one, "twin": systems[SYSTEMS[0]]}
    [line] = error(twin).splitlines()
    assert "there is nothing to compare; give responses of another model" in line
    assert "'Tie' is an answer" in error({**one, "Tie": systems[SYSTEMS[1]]})
    lines = systems[SYSTEMS[1]].read_text().splitlines(keepends=True)
    short, strange = tmp_path / "short.jsonl", tmp_path / "strange.jsonl"
    short.write_text("".join(lines[1:]))
    assert "answered in one only: 1 sample, the first" in error({**one, "short": short})
    strange.write_text("".join(lines) + '{"id": "elsewhere/3", "response": "x"}\n')
    assert ": 1 id, the first" in error({**one, "strange": strange})
    assert not (tmp_path / "x").exists()


def score(exported, answers, output, capsys, code=0):
    paths = ", ".join(str(path) for path in answers)
    found = command("human-eval", "score", f"input={exported}", f"output={output}",
                    f"human_eval.answers=[{paths}]")  # fmt: skip
    said = capsys.readouterr()
    assert found == code, said.err
    return said.out if code == 0 else said.err


def result(output, pair=0):
    found = json.loads(output.read_text())
    rows = {row["question"]: row for row in found["pairs"][pair]["questions"]}
    return found, found["pairs"][pair], rows


def test_one_rater(exported, tmp_path, capsys):
    sheet = write_sheet(tmp_path / "anna.csv", filled(exported, always_zeta))
    output = tmp_path / "human.json"
    table = score(exported, [sheet], output, capsys)
    found, pair, rows = result(output)
    assert (found["kind"], found["format"], found["problems"]) == ("human", 1, [])
    assert (pair["a"], pair["b"], pair["raters"], pair["items"]) == (*SYSTEMS[:2], 1, 10)
    row = rows["Comforting"]
    assert (row["a_wins"], row["ties"], row["b_wins"], row["n_sheets"]) == (10, 0, 0, 10)
    assert row["p"] == pytest.approx(2 / 1024)
    assert row["p_holm"] == pytest.approx(20 / 1024)  # ten tests: Overall has no wins or losses
    assert (rows["Overall"]["ties"], rows["Overall"]["p"], rows["Overall"]["p_holm"]) == (
        10, None, None,
    )  # fmt: skip
    assert pair["kappa"] == dict.fromkeys(NAMES)
    assert "one answer per item" in pair["kappa_missing"]["Coherence"]
    assert pair["same_text"] == 3
    assert found["run"]["command"] == "human-eval score"
    head = f"{SYSTEMS[0]} vs. {SYSTEMS[1]}: Win | Lose | Draw"
    assert f"| % | {head} | {SYSTEMS[0]} vs. {SYSTEMS[2]}: Win | Lose | Draw |" in table
    assert "| Comforting | **100.0**† | 0.0 | 0.0 |" in table
    assert output.with_suffix(".md").read_text().strip() == table.strip()
    before = output.stat().st_mtime_ns
    assert score(exported, [sheet], output, capsys) == table
    assert output.stat().st_mtime_ns == before


def test_several_raters_count_once_an_item_in_the_test(exported, tmp_path, capsys):
    def contrary(number, question):
        return SYSTEMS[1] if number % 2 else always_zeta(number, question)

    def third(number, question):
        return {"Coherence": "Tie"}.get(question, always_zeta(number, question))

    folder = tmp_path / "answers"
    for name, prefer in (("anna", always_zeta), ("bo", contrary), ("cy", third)):
        write_sheet(folder / f"{name}.csv", filled(exported, prefer))
    output = tmp_path / "human.json"
    score(exported, [folder], output, capsys)
    key = read_key(exported)
    numbers = [n for n, i in enumerate(key["items"].values()) if SYSTEMS[1] in (i["A"], i["B"])]
    odd = sum(number % 2 for number in numbers)
    assert 0 < odd < 10
    _, pair, rows = result(output)
    row = rows["Comforting"]  # two of three always prefer the first
    assert (row["a_wins"], row["b_wins"], row["n_sheets"]) == (30 - odd, odd, 30)
    assert row["items"] == {"a_wins": 10, "ties": 0, "b_wins": 0}
    assert row["p"] == pytest.approx(2 / 1024)
    row = rows["Coherence"]  # one each on odd items: no single most frequent answer
    assert row["items"] == {"a_wins": 10 - odd, "ties": odd, "b_wins": 0}
    assert pair["raters"] == 3
    shares = [(20 + 10 - odd) / 30, odd / 30]
    agree = ((10 - odd) + odd / 3) / 10
    chance = sum(share**2 for share in shares)
    assert pair["kappa"]["Comforting"] == pytest.approx((agree - chance) / (1 - chance))


def test_everything_that_cannot_be_counted_is_listed(exported, tmp_path, capsys):
    rows = filled(exported, always_zeta, rater="anna")
    key = read_key(exported)
    mine = [
        i for i, row in enumerate(rows) if SYSTEMS[1] in list(key["items"][row["item"]].values())
    ]
    rows[mine[0]]["Coherence"] = "both"
    rows[mine[1]]["Coherence"] = "  "
    for name in NAMES:
        rows[mine[2]][name] = ""
    rows[mine[3]]["response A"] += " No."
    rows[mine[4]]["item"] = "zzz"
    rows.append(dict(rows[mine[5]]))
    rows.append(dict(rows[mine[6]], Coherence="Tie"))
    rows[mine[7]] |= {"Coherence": " tie ", "Identification": rows[mine[7]]["Comforting"].lower()}
    folder = tmp_path / "answers"
    path = write_sheet(folder / "anna.csv", rows)
    (folder / "sheet.xlsx").write_bytes(b"PK\x03\x04\0\0\0binary")
    (folder / "other.csv").write_text("item,context\nx,y\n")
    foreign = filled(exported, always_zeta)
    for row in foreign:
        row["item"] = "b" * 12
    write_sheet(folder / "foreign.csv", foreign)
    output = tmp_path / "human.json"
    table = score(exported, [folder], output, capsys)
    found, pair, counted = result(output)
    told = {(p["file"].rpartition("/")[2], p["row"], p["question"]): p for p in found["problems"]}

    def said(name, row, question=None):
        return told.pop((name, row, question))["problem"]

    assert "'both' is none of A, B, Tie" in said("anna.csv", mine[0] + 2, "Coherence")
    assert said("anna.csv", mine[1] + 2, "Coherence") == "empty"
    assert said("anna.csv", mine[2] + 2) == "not answered"
    assert "not those of the sheet" in said("anna.csv", mine[3] + 2)
    assert said("anna.csv", mine[4] + 2) == "unknown item id"
    assert "they count once" in said("anna.csv", len(rows))
    assert "answered this otherwise" in said("anna.csv", len(rows) + 1, "Coherence")
    assert "they count once" in said("anna.csv", len(rows) + 1)
    assert "save it from the spreadsheet as CSV" in said("sheet.xlsx", None)
    assert "response A, response B, Coherence" in said("other.csv", None)
    assert "another export" in said("foreign.csv", None)
    assert not told
    assert "11 problems in the answers." in table
    assert f"{path}, row {mine[0] + 2}, Coherence: 'both' is none of A, B, Tie" in table
    assert pair["items"] == 7
    # Of ten items: three rows out, one word unknown, one empty, one disputed.
    assert (counted["Coherence"]["n_sheets"], counted["Coherence"]["ties"]) == (4, 1)
    assert (counted["Identification"]["n_sheets"], counted["Identification"]["a_wins"]) == (7, 7)


@pytest.mark.parametrize(
    ("encoding", "form"),
    [
        ("utf-8", {}),
        ("utf-8-sig", {"delimiter": ";", "lineterminator": "\r\n"}),
        ("utf-16", {"delimiter": "\t"}),
        ("cp1252", {"delimiter": ";", "quoting": csv.QUOTE_ALL}),
        ("utf-8", {"lineterminator": "\n", "quoting": csv.QUOTE_ALL}),
    ],
)
def test_sheets_as_spreadsheets_save_them(systems, tmp_path, encoding, form, samples):
    folder = tmp_path / "export"
    more = f"human_eval.items={len(samples)}"
    assert command(*arguments(dict(list(systems.items())[:2]), folder, more)) == 0
    rows = filled(folder, always_zeta)
    assert any("😊" in row["response A"] for row in rows)
    for row in rows:  # as Excel shows and saves line ends inside a cell
        row["response A"] = row["response A"].replace("\n", "\r\n")
        if encoding.startswith("utf"):  # as some systems spell accents
            row["response B"] = unicodedata.normalize("NFD", row["response B"])
    path = write_sheet(tmp_path / "anna.csv", rows, encoding, **form)
    votes = read_answers([path], read_key(folder))
    assert votes.problems == []
    assert len(votes.answers) == len(samples) - 3
    assert all(v["Comforting"] == {"anna": SYSTEMS[0]} for v in votes.answers.values())


def test_excels_line_names_the_separator_of_a_sheet(exported, tmp_path):
    rows = filled(exported, always_zeta)
    rows[1]["item"] = "x"
    path = write_sheet(tmp_path / "anna.csv", rows, delimiter="|")
    path.write_text("sep=|\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    votes = read_answers([path], read_key(exported))
    assert len(votes.answers) == len(rows) - 1
    (problem,) = votes.problems
    assert (problem["row"], problem["problem"]) == (4, "unknown item id")  # two lines lead the rows
    path = write_sheet(tmp_path / "anna.csv", rows, delimiter=";")
    path.write_text("sep=,\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    (problem,) = read_answers([path], read_key(exported)).problems
    assert "names ',' as the separator, and the header has ';'" in problem["problem"]


def test_who_the_rater_is(exported, tmp_path):
    key = read_key(exported)
    rows = filled(exported, always_zeta)

    def raters(*paths):
        votes = read_answers(paths, key)
        names = {name for item in votes.answers.values() for cast in item.values() for name in cast}
        return names, votes.problems

    one = write_sheet(tmp_path / "one" / "sheet.csv", rows)
    two = write_sheet(tmp_path / "two" / "sheet.csv", rows)
    assert raters(one) == ({"sheet"}, [])
    assert raters(one, two) == ({"one/sheet", "two/sheet"}, [])
    rows[3]["rater"] = " anna "
    assert raters(write_sheet(one, rows)) == ({"anna"}, [])
    rows[4]["rater"] = "bo"
    names, problems = raters(write_sheet(one, rows))
    assert names == {"anna", "bo"}
    assert len(problems) == len(rows) - 2
    assert "no rater is named, and the file has several: anna, bo" in problems[0]["problem"]


def test_mistakes_in_score(exported, tmp_path, capsys):
    output = tmp_path / "human.json"
    sheet = write_sheet(tmp_path / "anna.csv", filled(exported, always_zeta))
    assert command("human-eval", "score", f"input={exported}") == 2
    assert "human_eval.answers=[…]" in capsys.readouterr().err
    assert "the folder that human-eval export wrote" in score(
        tmp_path, [sheet], output, capsys, code=2
    )
    assert "no such file or folder" in score(exported, [tmp_path / "no"], output, capsys, code=2)
    (tmp_path / "empty").mkdir()
    assert "holds no answers" in score(exported, [tmp_path / "empty"], output, capsys, code=2)
    assert "give a .json name" in score(exported, [sheet], tmp_path / "h.md", capsys, code=2)
    assert not output.exists()


def test_sheets_serve_other_comparisons(tmp_path):
    """Whole dialogues without a context and other questions, as another study may ask them."""
    questions = [Question("Consistency", "Which dialogue keeps its roles better?")]
    comparisons = [
        TextComparison(("with", "without"), f"{n}", (), (f"Seeker: yes {n}", f"Seeker: no {n}"))
        for n in range(7)
    ]
    facts = {"pairs": [{"a": "with", "b": "without", "items": 7, "samples": 7, "same": 0}]}
    key = write_sheets(tmp_path, comparisons, questions, seed=3, facts=facts)
    assert key == read_key(tmp_path)
    assert sorted(Counter(item["A"] for item in key["items"].values()).values()) == [3, 4]
    rows = read_sheet(tmp_path / "for_raters" / "sheet.csv")
    for row in rows:
        row["Consistency"] = "a" if "yes" in row["response A"] else "b"
    votes = read_answers([write_sheet(tmp_path / "one.csv", rows)], key)
    assert votes.problems == []
    assert {str(item) for item in votes.answers.values()} == {"{'Consistency': {'one': 'with'}}"}


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)

# A download would keep the browser from ending, so the link it hangs on is not followed.
FILL_IN = """<script>
HTMLAnchorElement.prototype.click = () => {};
document.getElementById("rater").value = "=Anna, \\"1\\"";
document.getElementById("rater").dispatchEvent(new Event("input"));
for (;;) {
  for (const set of document.querySelectorAll("fieldset")) {
    const choice = set.textContent.startsWith("Overall") ? "Tie" : "A";
    set.querySelector(`input[value=${choice}]`).click();
  }
  if (document.getElementById("next").disabled) break;
  document.getElementById("next").click();
}
document.getElementById("save").click();
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH to open the form in")
def test_the_form_in_a_browser(exported, tmp_path):
    page = (exported / "for_raters" / "form.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)\s*=|https?:|@import|url\(", page.split("<script type")[0])
    changed = tmp_path / "form.html"
    changed.write_text(page.replace("</body>", FILL_IN), encoding="utf-8")
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
         changed.as_uri()],
        capture_output=True, text=True, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    from html import unescape

    text = unescape(re.search(r'<textarea id="csv"[^>]*>(.*?)</textarea>', done.stdout, re.S)[1])
    key = read_key(exported)
    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    assert not [cell for cell in cells if cell[:1] in set("=+-@")]
    path = tmp_path / "answers.csv"
    path.write_text(text, encoding="utf-8", newline="")
    votes = read_answers([path], key)
    assert votes.problems == []
    assert len(votes.answers) == 20
    for item, answers in votes.answers.items():
        rater = '=Anna, "1"'
        assert answers["Coherence"] == {rater: key["items"][item]["A"]}
        assert answers["Overall"] == {rater: "Tie"}
    assert "20 of 20 items completed" in done.stdout
    assert "Saved as answers-Anna-1.csv." in done.stdout
