"""The trait report: from the commands' own documents to one page."""

import json
import random
import re

import pytest

from pal.traits.inventories import load_inventory
from pal.traits.scoring import score_dimensions
from tests.benchmark.test_report import HOSTILE, Page, sections
from tests.jobs import command

TIES = {"X": ("X", 1), "P": ("C", 1), "VA": ("A", -1), "Q": ("O", 1), "E": ("E", 1),
        "IM": ("H", -1)}  # fmt: skip
FAST = "statistics.resamples=199"


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def measure(inventories, card, latent, draw):
    """A card's answers from what its seeker is like, some items unanswered."""
    for name, inventory in inventories.items():
        answers, missing = {}, {}
        for item in inventory.items:
            if draw.random() < 0.002:
                missing[item.id] = "refused"
                continue
            answer = 3 + latent[name][item.dimension] * item.keyed + draw.gauss(0, 0.8)
            answers[item.id] = min(5, max(1, round(answer)))
        yield {"id": card, "dataset": "ESConv", "inventory": name, "version": inventory.version,
               "form": "full", "model": "small", "answers": answers, "unanswered": missing,
               "scores": score_dimensions(inventory, answers)}  # fmt: skip


def make_files(folder):
    """Write cards, measurements, dialogues and every document made of them; return their paths."""
    draw = random.Random(5)
    inventories = {name: load_inventory(name) for name in ("hexaco", "csi")}
    before, after, without, cards, talks = [], [], [], [], []
    for number in range(40):
        card = f"card-{number}"
        first = {d: draw.gauss(0, 0.7) for d in inventories["hexaco"].dimensions}
        second = {
            d: sign * 0.7 * first[other] + draw.gauss(0, 0.5) for d, (other, sign) in TIES.items()
        }
        shifted = {**first, "E": first["E"] + 0.6}
        before += measure(inventories, card, {"hexaco": first, "csi": second}, draw)
        after += measure(inventories, card, {"hexaco": shifted, "csi": second}, draw)
        alone = {"hexaco": {d: v / 3 for d, v in first.items()},
                 "csi": {d: v / 3 for d, v in second.items()}}  # fmt: skip
        without += measure(inventories, f"alone-{number}", alone, draw)
        cards.append({"id": card, "dataset": "ESConv", "age": "old", "gender": "unknown",
                      "occupation": HOSTILE, "description": f"Person {number}. {HOSTILE}",
                      "problem": HOSTILE,
                      "traits": {"hexaco": {"H": HOSTILE}, "csi": {}}})  # fmt: skip
        for condition, strategies in (("none", ("Information", "Others")),
                                      ("both", ("Question", "Others"))):  # fmt: skip
            talks.append({"id": f"{card}@{condition}", "dataset": "ESConv", "card": card,
                          "condition": condition, "model": "small", "persona": [], "dialog": [
                {"speaker": "seeker", "text": HOSTILE},
                {"speaker": "supporter", "text": "Hello.",
                 "strategy": draw.choices(strategies, (0.7, 0.3))[0]}] * 3})  # fmt: skip
    cards.append({"id": "lost", "dataset": "ESConv", "failed": "refused by the model"})
    found = {
        name: write(folder / f"{name}.jsonl", rows)
        for name, rows in (("before", before), ("after", after), ("without", without),
                           ("cards", cards), ("talks", talks))
    }  # fmt: skip
    made = {
        "correlate": [f"input={found['before']}"],
        "compare": [f"input={found['after']}", f"traits.before={found['before']}",
                    f"traits.without={found['without']}"],
        "strategies": [f"input={found['talks']}"],
        "stats": [f"input={found['talks']}"],
    }  # fmt: skip
    for action, given in made.items():
        found[action] = folder / f"{action}.json"
        assert command("traits", action, *given, f"output={found[action]}", FAST) == 0
    found["held"] = folder / "held.json"
    given = [f"input={found['cards']}", f"output={found['held']}"]
    assert command("traits", "stats", *given, FAST) == 0
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("traits"))


def report(files, output, names):
    include = ", ".join(str(files[name]) for name in names)
    return command("traits", "report", f"output={output}", f"report.include=[{include}]")


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory):
    page = tmp_path_factory.mktemp("page") / "report.html"
    assert report(files, page, files) == 0
    return page.read_text(encoding="utf-8")


def test_a_section_for_all_that_is_there(whole):
    page = Page(whole)
    assert sections(page) == [
        "correlations", "pairs", "reliability", "consistency", "concentration", "strategies",
        "dialogues", "cards", "cases", "unanswered", "making", "made",
    ]  # fmt: skip
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)


def test_what_is_shown_is_in_the_documents(whole, files):
    text = Page(whole).text.replace("−", "-")
    group = json.loads(files["correlate"].read_text())["groups"][0]
    for line in group["cells"].values():
        for cell in line.values():
            assert f"{cell['r']['value']:z.2f}" in text
    compared = json.loads(files["compare"].read_text())
    for one in compared["groups"][0]["dimensions"]:
        delta = one["delta"]
        assert f"Δ {delta['value']:z.2f} ({delta['low']:z.2f} to {delta['high']:z.2f})" in text
    for group in compared["concentration"]:
        for one in group["statistics"]:
            assert f"{one['ratio']['value']:z.2f}" in text
    group = json.loads(files["strategies"].read_text())["groups"][0]
    for condition in group["conditions"].values():
        for one in condition["shares"].values():
            assert f"{100 * one['value']:z.1f}" in text
    assert f"{group['comparisons'][0]['chi2']:.1f} (2)" in text  # χ², with degrees of freedom
    for one in json.loads(files["stats"].read_text())["dialogues"][0]["conditions"].values():
        assert f"{one['supporter']['words_a_turn']['value']:.2f}" in text
    assert "218,433" in text  # Table 16
    assert "paper, Table 2: gpt-4o-mini" in text
    assert "refused by the model" in text


def test_texts_stay_texts_and_numbers_are_numbers(whole):
    page = Page(whole)
    assert "window.hurt=1" in page.text
    assert not [a for a in page.attributes if a[1].startswith("on")]
    assert page.tags.count("img") == 0
    assert page.tags.count("script") == 1
    assert not re.search(r"\bnan\b", whole, re.IGNORECASE)
    assert "http" not in whole.replace("http-equiv", "")


def test_the_same_files_give_the_same_page(whole, files, tmp_path):
    again = tmp_path / "again.html"
    assert report(files, again, files) == 0
    assert again.read_text(encoding="utf-8") == whole


def test_the_command_says_once_what_it_wrote(files, tmp_path, capsys):
    page = tmp_path / "page.html"
    given = [f"output={page}", f"report.include={files['correlate']}"]
    for said in (f"written to {page}\n", f"{page} is already finished; "):
        assert command("traits", "report", *given) == 0
        shown = capsys.readouterr()
        assert (shown.out + shown.err).count(str(page)) == 1
        assert said in shown.err


def test_a_second_group_adds_lines_and_no_table(whole, files, tmp_path):
    """Two models are compared in one matrix, not in two tables of one layout."""
    twice = {}
    for name in ("correlate", "compare", "strategies", "stats"):
        document = json.loads(files[name].read_text())
        for kind in {"groups", "concentration", "dialogues"} & set(document):
            document[kind] += [{**one, "model": "second"} for one in document[kind]]
        twice[name] = tmp_path / f"{name}.json"
        twice[name].write_text(json.dumps(document))
    assert report(twice, tmp_path / "twice.html", twice) == 0
    text = (tmp_path / "twice.html").read_text(encoding="utf-8")

    def tables(text):
        bodies = re.findall(r'<section id="([a-z]+)"(.*?)</section>', text, flags=re.DOTALL)
        return {name: body.count("<table") for name, body in bodies}

    once, found = tables(whole), tables(text)
    measured = ["correlations", "pairs", "reliability", "consistency", "concentration",
                "strategies", "dialogues"]  # fmt: skip
    assert [found[name] for name in measured] == [once[name] for name in measured]
    assert max(found[name] for name in measured) == 2  # strategies: shares, and differences
    assert "ESConv, second" in text
    assert "4 of 6 (ESConv, small: 40 personas) and 4 of 6 (ESConv, second: 40 personas)" in text


def test_inventories_and_dimensions_have_their_full_names(whole):
    """No heading, label of a line or head of a column is a bare code or a key."""
    labels = re.findall(r"<(?:th|h[1-6]|b)\b[^>]*>(?:<span>)?([^<]+)", whole)
    assert {"Honesty-Humility", "Verbal aggressiveness", "Emotionality"} <= set(labels)
    codes = {"H", "E", "X", "A", "C", "O", "P", "VA", "Q", "IM", "hexaco", "csi", "both", "none"}
    assert not codes & set(labels)
    assert not [label for label in labels if "_" in label and not label.endswith(".jsonl")]
    assert "HEXACO Personality Inventory" in whole
    assert "Communication Styles Inventory (CSI)" in whole
    assert "are not the published ones" in whole


def test_undefined_figures_are_told(files, tmp_path):
    """Three personas have no correlation: the page says so, with the number and the reason."""
    few = [json.loads(line) for line in files["before"].read_text().splitlines()][:6]
    measured, document = write(tmp_path / "few.jsonl", few), tmp_path / "few.json"
    assert command("traits", "correlate", f"input={measured}", f"output={document}", FAST) == 0
    assert report({"few": document}, tmp_path / "few.html", ["few"]) == 0
    text = Page((tmp_path / "few.html").read_text(encoding="utf-8")).text
    assert "undefined, n = 3, fewer than 4 personas with both scores" in text


def test_cases_can_be_left_out(files, tmp_path):
    page = tmp_path / "report.html"
    include = ", ".join(str(files[name]) for name in ("cards", "talks"))
    given = [f"output={page}", f"report.include=[{include}]"]
    assert command("traits", "report", *given, "report.cases=0") == 0
    assert sections(Page(page.read_text(encoding="utf-8"))) == ["unanswered"]


def test_failures_beside_a_file_are_counted_and_a_card_is_shown_once(files, tmp_path):
    """A dialogue's seeker has a card under the same id; failed dialogues lie in a file beside."""
    cards = [json.loads(line) for line in files["cards"].read_text().splitlines()][:1]
    own = write(tmp_path / "own.jsonl", [{**cards[0], "description": "First."}])
    read = write(tmp_path / "read.jsonl", [{**cards[0], "description": "Second."}])
    talks = write(tmp_path / "talks.jsonl", map(json.loads, files["talks"].open()))
    write(tmp_path / "talks.failed.jsonl", [
        {"id": "y", "dataset": "ESConv", "condition": "none", "failed": "3 turns, expected 6"}
    ])  # fmt: skip
    found = {"own": own, "read": read, "talks": talks}
    assert report(found, tmp_path / "report.html", found) == 0
    text = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert text.count("card-0, ESConv") == 1
    assert "First." in text
    assert "Second." not in text
    assert "dialogues 1 81 3 turns, expected 6" in text


def test_who_answered_is_told_without_the_endpoints_path(files, tmp_path):
    cards = write(tmp_path / "cards.jsonl", [{"id": "a", "description": "x"}])
    (tmp_path / "cards.jsonl.run.json").write_text(json.dumps({
        "command": "traits cards", "prompts": {"cards": "1.1"},
        "llm": {"model": "small-model", "backend": "openai", "structured_output": "json_object",
                "endpoint": "https://model.example:8000/v1/secret-part"},
    }))  # fmt: skip
    assert report({"cards": cards}, tmp_path / "report.html", ["cards"]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    text = Page(page).text
    assert "cards.jsonl traits cards small-model model.example json_object cards 1.1" in text
    assert "secret-part" not in page


def test_mistakes_end_in_one_line(files, tmp_path, capsys):
    def error(*given):
        capsys.readouterr()
        assert command("traits", "report", f"output={tmp_path / 'x.html'}", *given) == 2
        said = capsys.readouterr().err.strip()
        assert len(said.splitlines()) == 1
        return said

    assert "give report.include=" in error()
    strange = write(tmp_path / "strange.jsonl", [{"id": "a", "colour": "red"}])
    assert "none of dialog, answers, description" in error(f"report.include=[{strange}]")
    wrong = write(tmp_path / "wrong.jsonl", [{"id": "a", "description": "x"}, {"id": ["b"]}])
    assert "wrong.jsonl, line 2: id" in error(f"report.include=[{wrong}]")
    other = tmp_path / "other.json"
    other.write_text('{"kind": "results", "format": 1}')
    assert "traits_correlation" in error(f"report.include=[{other}]")
