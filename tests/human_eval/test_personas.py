"""Sheets on which people judge inferred personas, and what becomes of their answers."""

import csv
import io
import json
import shutil
import subprocess

import numpy as np
import pytest

from pal.human_eval.personas import (
    PERSONA_ANSWERS,
    Judgements,
    read_persona_key,
    tally_judgements,
)
from pal.stats.agreement import fleiss_kappa
from pal.stats.settings import StatisticsSettings
from tests.jobs import command
from tests.stats_of import holds, least

NASTY = ["=SUM(A1)", 'I said "no", twice;\tsee', "<script>alert(1)</script>", "I have 😊 cats."]
QUICK = "statistics.resamples=500"


@pytest.fixture
def corpus(tmp_path):
    """Six dialogues with three samples each; the first sample of each has no persona."""
    path = tmp_path / "pesconv.jsonl"
    rows = []
    for number in range(6):
        dialog = []
        for turn in range(3):
            known = [] if turn == 0 else [NASTY[number % 4], f"I am person {number}."]
            said = f"{NASTY[turn]} It is matter {number}, turn {turn}."
            dialog.append({"speaker": "seeker", "text": said, "persona": known})
            dialog.append({"speaker": "supporter", "text": "I see.", "strategy": "Others"})
        rows.append({"id": f"dialogue-{number}", "dialog": dialog})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def exported(corpus, tmp_path):
    folder = tmp_path / "sheets"
    items = "human_eval.items=8"
    assert command("human-eval", "personas", f"input={corpus}", f"output={folder}", items) == 0
    return folder


def sheet_of(folder):
    text = (folder / "for_raters" / "sheet.csv").read_text(encoding="utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def fill(folder, path, answer):
    """Write a filled-in sheet; ``answer`` gives (answer, reason) by number."""
    rows = sheet_of(folder)
    for number, row in enumerate(rows):
        row["answer"], row["reason"] = answer(number)
        row["rater"] = path.stem
    with path.open("w", newline="", encoding="utf-8-sig") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def score(folder, files, *more):
    answers = ",".join(map(str, files))
    output = folder.parent / "personas.json"
    call = ["human-eval", "score", f"input={folder}", f"output={output}", QUICK, *more]
    assert command(*call, f"human_eval.answers=[{answers}]") == 0
    return json.loads(output.read_text())


def test_sheets_are_blind_and_from_as_many_dialogues_as_there_are(exported, corpus):
    rows, key = sheet_of(exported), read_persona_key(exported)
    assert len(rows) == 8
    assert {row["item"] for row in rows} == set(key["items"])
    dialogues = [item["dialogue"] for item in key["items"].values()]
    assert len(set(dialogues)) == 6
    assert max(map(dialogues.count, dialogues)) == 2
    for path in (exported / "for_raters").iterdir():
        text = path.read_text(encoding="utf-8")
        assert "dialogue-" not in text
        assert "pesconv" not in text
        assert oct(path.stat().st_mode)[-3:] == "600"
    guide = (exported / "for_raters" / "guidelines.md").read_text()
    assert all(f"**{name}**" in guide for name in PERSONA_ANSWERS)
    form = (exported / "for_raters" / "form.html").read_text()
    assert "<script>alert" not in form
    assert all(row["persona"] and not row["answer"] for row in rows)


def test_again_it_is_not_written_and_nothing_else_is_replaced(exported, corpus, tmp_path, capsys):
    before = (exported / "key.json").stat().st_mtime_ns
    call = ["human-eval", "personas", f"input={corpus}"]
    assert command(*call, f"output={exported}", "human_eval.items=8") == 0
    assert (exported / "key.json").stat().st_mtime_ns == before
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("x")
    assert command(*call, f"output={other}", "overwrite=true") == 2
    assert (other / "thesis.txt").exists()
    assert "not an export" in capsys.readouterr().err


def test_answers_come_back_with_kappa_and_reasons(exported, tmp_path):
    names = list(PERSONA_ANSWERS)
    plans = {
        "anna": lambda n: (names[n % 2], ""),
        "bo": lambda n: ("hallucinated" if n == 0 else names[n % 2].upper(), ""),
        "cy": lambda n: ("Other", "it says too much") if n == 7 else (names[n % 2], "unasked"),
    }
    files = [fill(exported, tmp_path / f"{name}.csv", plan) for name, plan in plans.items()]
    found = score(exported, files)
    assert found["kind"] == "human-personas"
    assert found["answers"] == {
        "Reasonable": 11, "Contradictory": 11, "Hallucinatory": 1, "Other": 1
    }  # fmt: skip
    [reason] = found["reasons"]
    assert (reason["rater"], reason["reason"]) == ("cy", "it says too much")
    counts = [[2, 0, 1, 0], *[[0, 3, 0, 0], [3, 0, 0, 0]] * 3, [0, 2, 0, 1]]
    assert found["kappa"]["value"] == pytest.approx(fleiss_kappa(counts)[0])
    assert found["kappa"]["low"] < found["kappa"]["value"] < found["kappa"]["high"] + 1e-9
    assert found["shares"]["Reasonable"]["value"] == pytest.approx(11 / 24)
    text = (exported.parent / "personas.md").read_text()
    assert "it says too much" in text
    assert "| Hallucinatory | 1 |" in text
    assert found["problems"] == []


def test_what_cannot_be_counted_is_listed(exported, tmp_path):
    def plan(number):
        return [("yes", ""), ("", ""), ("Other", ""), ("Reasonable", "")][min(number, 3)]

    path = fill(exported, tmp_path / "anna.csv", plan)
    again = fill(exported, tmp_path / "bo.csv", lambda n: ("Contradictory", ""))
    text = again.read_text(encoding="utf-8-sig").replace("bo\n", "anna\n").replace("bo\r", "anna\r")
    again.write_text(text.replace("I see.", "I was changed.", 2), encoding="utf-8-sig")
    found = score(exported, [path, again])
    problems = [one["problem"] for one in found["problems"]]
    for part in ("'yes' is none of", "not answered", "Other without a reason", "not those of the",
                 "answered this otherwise"):  # fmt: skip
        assert any(part in problem for problem in problems), (part, problems)


def test_one_rater_has_no_kappa_and_a_reason_why(exported, tmp_path):
    found = score(exported, [fill(exported, tmp_path / "a.csv", lambda n: ("Reasonable", ""))])
    assert found["kappa"]["value"] is None
    assert "two raters" in found["kappa"]["reason"]


def test_without_personas_and_with_a_damaged_key(tmp_path, exported, capsys):
    bare = tmp_path / "bare.jsonl"
    bare.write_text(json.dumps({"dialog": [
        {"speaker": "seeker", "text": "Hello."},
        {"speaker": "supporter", "text": "Hi.", "strategy": "Others"},
    ]}) + "\n")  # fmt: skip
    assert command("human-eval", "personas", f"input={bare}", f"output={tmp_path / 'x'}") == 2
    remedy = "`pal annotate` infers them; train its extractor for longer"
    assert remedy in capsys.readouterr().err
    key = json.loads((exported / "key.json").read_text())
    key["items"] = [1]
    (exported / "key.json").write_text(json.dumps(key))
    assert command("human-eval", "score", f"input={exported}", "human_eval.answers=[x.csv]") == 2
    assert "or damaged" in capsys.readouterr().err


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH to open the form in")
def test_the_form_writes_what_the_sheet_holds(exported, tmp_path):
    """The browser runs the form, answers all items, and its CSV is scored."""
    form = exported / "for_raters" / "form.html"
    text = form.read_text(encoding="utf-8")
    act = (
        "document.querySelectorAll('input[value=Other]').forEach((one) => one.click());"
        "document.querySelectorAll('fieldset input[type=text]').forEach((one, n) => {"
        "one.value = '=odd ' + n; one.dispatchEvent(new Event('input'));});"
        "$('rater').value = 'anna'; $('rater').dispatchEvent(new Event('input'));"
        "document.title = 'csv:' + btoa(unescape(encodeURIComponent(csv())));"
        "document.body.replaceChildren(node('pre', document.title));"
    )
    page = tmp_path / "acted.html"
    page.write_text(text.replace("keep();\n</script>", f"keep();\n{act}\n</script>"))
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    import base64

    coded = done.stdout.partition("<pre>csv:")[2].partition("</pre>")[0]
    filled = tmp_path / "anna.csv"
    filled.write_bytes(base64.b64decode(coded))
    found = score(exported, [filled])
    assert found["problems"] == []
    assert found["answers"]["Other"] == 8
    assert found["reasons"][0]["reason"].startswith("=odd")


@pytest.mark.parametrize("seeds", [
    pytest.param(range(3), id="three seeds"),
    pytest.param(range(20), id="twenty seeds", marks=pytest.mark.recovery),
])  # fmt: skip
def test_planted_shares_and_agreement_come_back(seeds):
    """100 items, three raters who see the truth or answer by lot, as in a study of that size."""
    names, mix, lot = list(PERSONA_ANSWERS), np.array([0.7, 0.15, 0.1, 0.05]), 0.3
    shown = (1 - lot) * mix + lot / 4
    # Two raters both see the truth, or one or both draw a lot that meets the other's answer.
    meet = (1 - lot) ** 2 + 2 * lot * (1 - lot) / 4 + lot**2 / 4
    chance = float((shown**2).sum())
    kappa = (meet - chance) / (1 - chance)
    key = {"items": {f"i{n}": {"sample": f"d{n}/1", "dialogue": f"d{n}"} for n in range(100)}}
    held = {"share": [], "kappa": []}
    for seed in seeds:
        draw = np.random.default_rng(seed)
        found = Judgements()
        for item in key["items"]:
            truth = draw.choice(4, p=mix)
            seen = [draw.integers(4) if draw.random() < lot else truth for _ in range(3)]
            found.answers[item] = {f"r{n}": (names[one], "") for n, one in enumerate(seen)}
        result = tally_judgements(key, found, StatisticsSettings(resamples=1000))
        held["share"] += [
            holds(result["shares"][name], share) for name, share in zip(names, shown, strict=True)
        ]
        held["kappa"].append(holds(result["kappa"], kappa))
    for what, some in held.items():
        assert sum(some) >= least(len(some)), (what, sum(some), len(some))
    print({what: f"{sum(some)} of {len(some)}" for what, some in held.items()})
