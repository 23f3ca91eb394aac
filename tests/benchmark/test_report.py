"""The report page: what it shows, that it shows it as text, and that its controls work."""

import copy
import html
import json
import random
import re
import shutil
import stat
import subprocess
import time
from html.parser import HTMLParser

import pytest

from pal.benchmark.report.page import write_page
from pal.core.errors import DataError
from tests.benchmark import pages
from tests.jobs import command, start

HOSTILE = (
    "</script><script>window.hurt=1</script><img src=x onerror=window.hurt=1>"
    '" onload="window.hurt=1" \' onfocus=\'window.hurt=1 {{ 7 * 7 }} <!-- &amp;'
)


class Page(HTMLParser):
    """Elements, ids and visible text of a page."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.ids, self.links, self.words, self.attributes = [], [], [], [], []
        self._hidden = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "a":
            self.links.append(found["href"])
        self._hidden = tag in ("script", "style")

    def handle_data(self, data):
        if not self._hidden:
            self.words.append(data)

    def handle_endtag(self, tag):
        self._hidden = False

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def write(tmp_path, *parts, title="PAL on ESConv"):
    return write_page(tmp_path / "report.html", parts, title=title)


def load(path):
    return Page(path.read_text(encoding="utf-8"))


def sections(page):
    found = [value for tag, name, value in page.attributes if (tag, name) == ("section", "id")]
    assert {f"#{name}" for name in found} <= set(page.links)  # all are in the contents
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A page of all five kinds."""
    return write(tmp_path_factory.mktemp("whole"), *pages.all_parts())


def test_a_section_for_all_that_is_there_in_the_pages_order(whole):
    page = load(whole)
    assert sections(page) == [
        "results", "significance", "training", "similarity", "strategies", "personas", "alpha",
        "human", "cases", "made",
    ]  # fmt: skip
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert page.tags.count("h1") == 1


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (pages.results, ["results", "significance", "training", "made"]),
        (pages.analysis, ["similarity", "strategies", "personas", "made"]),
        (pages.alpha, ["alpha", "made"]),
        (pages.human, ["human", "made"]),
        (pages.cases, ["cases"]),
    ],
)
def test_each_kind_alone(tmp_path, make, expected):
    assert sections(load(write(tmp_path, make()))) == expected


def test_what_is_missing_is_left_out(tmp_path):
    """Files with as little in them as their formats allow."""
    least = pages.results(seeds=(None,))
    least["tests"], least["run"], least["notes"] = [], {}, []
    for system in least["systems"].values():
        system["authors"], system["printed"] = {}, None
        system["runs"][0] |= {
            "curve": [],
            "epoch": None,
            "validation_nll": None,
            "predictions": "x.jsonl",
        }
    page = load(write(tmp_path, least))
    assert sections(page) == ["results"]
    for word in ("authors", "printed", "±", "None", "nan"):
        assert word not in page.text

    analysis = pages.analysis()
    analysis["similarity"] = analysis["personas"] = None
    analysis["strategies"] = {
        "gold": None,
        "systems": {"a": {"label": "A", "n": 3, "top": None, "confusion": None,
                          "distribution": {"Others": 3}, "per_strategy": []}},
    }  # fmt: skip
    assert sections(load(write(tmp_path, analysis))) == ["strategies", "made"]
    one = pages.alpha()
    one["objectives"], one["chosen"], one["baselines"] = one["objectives"][:1], None, []
    assert "against trial of every trial" in write(tmp_path, one).read_text()
    assert "B-2 and trial" in load(write(tmp_path, one)).text


def test_results_table(whole):
    page = load(whole)
    table = page.text.partition("paper’s Table 3")[2].partition("Further scores")[0]
    summary = pages.results()["systems"]["pal"]["summary"]
    accuracy = summary["accuracy"]
    assert f"{accuracy['mean']:.2f} ±{accuracy['sd']:.2f} {accuracy['low']:.2f} to" in table
    assert "PAL, printed in the paper 34.51 15.92 8.75" in table
    assert "ACC ↑ , higher is better % PPL ↓ , lower is better B-2" in table
    assert 0 < table.count("(best)") <= 10
    assert "– a" in table
    assert "a No value: needs personas" in table
    assert ("td", "title", "needs personas") in page.attributes
    others = page.text.partition("Further scores: strategies")[2].partition("Mean ±")[0]
    assert "macro F1" in others
    assert "ACC" not in others
    headings = ["strategies", "likeness to the reference", "diversity and repetition", "persona"]
    places = [others.find(heading) for heading in headings[1:]]
    assert 0 < places[0] < places[1] < places[2]
    assert others.find("METEOR") > places[0]
    assert others.find("rep-4") > places[1]
    assert others.find("persona words") > places[2]
    assert "Further scores: others" not in page.text
    authors = page.text.partition("As the authors’ scripts compute it")[2]
    assert f"authors’ scripts {1.04 * summary['ppl']['mean']:.2f}" in authors
    assert "tokens of" not in authors


def with_one_test(key, p_holm, *, pal=9.0, other=8.0):
    """Results where PAL has one value of a metric, all others have another, and tests say so."""
    part = pages.results()
    for name, system in part["systems"].items():
        system["summary"][key] = {"mean": pal if name == "pal" else other}
    difference = {"difference": pal - other, "low": 0.1, "high": 2.0, "p": p_holm}
    part["tests"] = [
        {"metric": key, "a": "pal", "b": name, **difference, "p_holm": p_holm}
        for name in part["systems"] if name != "pal"
    ]  # fmt: skip
    return part


@pytest.mark.parametrize(
    ("key", "p_holm", "pal", "marked"),
    [
        ("bleu_4", 0.01, 9.0, ["9.00"]),
        ("bleu_4", 0.05, 9.0, []),  # the best, and perhaps by chance
        ("bleu_4", None, 9.0, []),
        ("bleu_4", 0.01, 8.0, []),  # equal
        ("bleu_4", 0.01, 7.0, []),  # three share the best value
        ("ppl", 0.01, 7.0, ["7.00"]),  # lower is better
        ("length", 0.01, 9.0, []),  # neither is better
    ],
)
def test_bold_is_what_differs_significantly_from_the_best_other_one(
    tmp_path, key, p_holm, pal, marked
):
    page = load(write(tmp_path, with_one_test(key, p_holm, pal=pal)))
    tables = page.text.partition("As the authors’ scripts")[0]
    assert re.findall(r"(\S+) \(best\)", tables) == marked
    assert ("Nothing is bold" in page.text) == (not marked)


def test_without_tests_nothing_is_bold(tmp_path):
    part = pages.results() | {"tests": []}
    page = load(write(tmp_path, part))
    assert "(best)" not in page.text
    assert "Nothing is bold" in page.text


def test_notices_stand_at_the_top(tmp_path):
    said = ["The dialogues are the bundled sample.", "<b>The models are toys.</b>"]
    page = load(write(tmp_path, pages.results() | {"notices": said}, pages.cases(2)))
    assert page.text.index(said[0]) < page.text.index("Contents")
    assert page.text.index(said[1]) < page.text.index("Contents")
    assert "notices" not in load(write(tmp_path, pages.results())).text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"input": "/opt/x/data/sample/esconv"}, "bundled sample"),
        ({"data": {"train": "/opt/pal/_bundled/sample/esconv/test.jsonl"}}, "bundled sample"),
        ({"architecture": {"from_scratch": {"d_model": 64}}}, "The models are toys"),
    ],
)
def test_a_notice_follows_from_the_settings_of_a_run(tmp_path, settings, words):
    part = pages.analysis()
    part["run"] = part["run"] | {"settings": settings}
    assert words in load(write(tmp_path, part)).text.partition("Contents")[0]
    plain = {"input": "/opt/esconv", "architecture": {"from_scratch": None}, "data": None}
    part["run"] = part["run"] | {"settings": plain}
    assert words not in load(write(tmp_path, part)).text.partition("Contents")[0]


def test_a_page_says_whose_responses_its_figures_and_cases_show(tmp_path):
    cases = pages.cases(2) | {"seed": 87}
    text = load(write(tmp_path, pages.analysis() | {"seeds": [13, 42, 87]}, cases)).text
    assert "Over 3 seeds (13, 42, 87): counts are sums, scores are means." in text
    assert "Responses of seed 87." in text
    one = load(write(tmp_path, pages.analysis() | {"seeds": [42]})).text
    assert "Responses of seed 42." in one


def test_significance_is_said_in_words(whole, tmp_path):
    text = load(whole).text.partition("Significance Paired")[2].partition("Training")[0]
    significant = [test for test in pages.results()["tests"] if test["p_holm"] < 0.05]
    assert len(significant) > 10
    assert text.count("✓ for ") + text.count("✓ yes") == len(significant)

    part = pages.results()
    test = {"a": "pal", "b": "joint", "difference": 2, "low": 1, "high": 3, "p": 0.00002}
    part["tests"] = [
        {"metric": "bleu_2", **test, "p_holm": 0.05},
        {"metric": "bleu_2", **test, "p_holm": 0.0499},
        {"metric": "ppl", **test, "p_holm": 0.01},
        {"metric": "length", **test, "p_holm": 0.01},
    ]
    text = load(write(tmp_path, part)).text.partition("Significance Paired")[2]
    row = "PAL Blenderbot-Joint +2.00 +1.00 to +3.00 < 0.001"
    assert f"PPL {row} 0.010 ✓ for Blenderbot-Joint" in text, "lower is better"
    assert f"B-2 {row} 0.050 no B-2 {row} 0.050 ✓ for PAL" in text
    assert f"length {row} 0.010 ✓ yes" in text


def test_captions_and_counts(whole):
    text = load(whole).text
    caption = "R² 0.041 over dialogues; R² 0.870 over level means; Spearman’s"
    assert text.count(caption) == 3
    assert text.count("\N{GREEK SMALL LETTER RHO} 0.190; p < 0.001; n = 60.") == 3
    assert "left out: 150 without a survey, 3 without a persona" in text
    counts = pages.analysis()["strategies"]["systems"]["joint"]["confusion"][0]
    assert f"{100 * counts[0] / sum(counts):.0f} {counts[0]}" in text
    assert "★ chosen" in text
    assert "Chosen: largest mean relative gain" in text
    assert "PAL against Blenderbot-Joint" in text
    assert "In 2 of 50 samples both gave the same text" in text
    assert "Coherence 68 6 26 100 34, 6, 13 < 0.001 ✓ < 0.001 0.41" in text
    assert "Suggestion 45 7 48 100 22, 7, 24 0.840 1.000 −0.02" in text
    assert 'title="all answers are the same">–</td>' in whole.read_text()
    assert "sheet_2.csv 14 test-00003/5 Overall answer 'C'; expected A, B or tie" in text
    assert "PAL (α = 0), PAL" in text, "systems with one training share its plot"


def test_the_same_parts_give_the_same_bytes(tmp_path, whole):
    parts = pages.all_parts()
    assert write(tmp_path, *parts).read_bytes() == whole.read_bytes()
    assert write(tmp_path, *reversed(parts)).read_bytes() == whole.read_bytes()


def test_several_of_a_kind(tmp_path):
    second = pages.analysis() | {"title": "fastText"}
    page = load(write(tmp_path, pages.analysis(), second, pages.cases(2), pages.cases(3)))
    assert len(page.ids) == len(set(page.ids))
    assert "Persona and support: ESConv test" in page.text
    assert "Persona and support: fastText" in page.text


def test_nothing_is_loaded(whole):
    text = whole.read_text(encoding="utf-8")
    page = load(whole)
    urls = [value for _, name, value in page.attributes if name in ("src", "href", "action")]
    assert all(url.startswith("#") or url == "data:," for url in urls)
    assert not re.search(r"@import|url\(|https?://|<(iframe|object|embed|base|form)\b", text)
    policy = next(v for _, name, v in page.attributes if name == "content" and "default" in v)
    assert policy.startswith("default-src 'none'; ")
    assert re.search(r"script-src 'sha256-[^']+';", policy)


def test_a_page_as_large_as_a_real_one_stays_small(tmp_path):
    cases = pages.cases()
    turns = max(cases["dialogues"].values(), key=len) * 2
    cases["dialogues"] = {f"test-{number:05d}": turns for number in range(200)}
    case = cases["cases"][0] | {"turn": 30}
    cases["cases"] = [case | {"dialogue": name, "id": f"{name}/30"} for name in cases["dialogues"]]
    path = write(tmp_path, pages.results(), pages.analysis(1150), pages.alpha(200), cases)
    assert path.stat().st_size < 3e6


def hostile(value, key=None):
    """Replace every free text and every name of a part by one that would do harm as HTML."""
    fixed = ("kind", "direction", "speaker", "metric", "key")
    if isinstance(value, dict):
        return {
            name + HOSTILE * (key in ("responses", "systems", "missing", "kappa")):
            hostile(found, name) for name, found in value.items()
        }  # fmt: skip
    if isinstance(value, list):
        return [hostile(item) for item in value]
    if isinstance(value, str) and key not in fixed:
        return value + HOSTILE
    return value


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    """A page whose labels, notes, ids and dialogues all try to be HTML."""
    parts = [hostile(part) for part in pages.all_parts()]
    cases = parts[0]
    cases["dialogues"] = {f"{name}{HOSTILE}": turns for name, turns in cases["dialogues"].items()}
    return write(tmp_path_factory.mktemp("poisoned"), *parts, title=HOSTILE)


def test_texts_stay_texts(whole, poisoned):
    good, bad = load(whole), load(poisoned)
    assert bad.tags.count("script") == good.tags.count("script")
    assert "img" not in bad.tags
    assert not [a for a in bad.attributes if a[1] in ("onload", "onerror", "onfocus")]
    assert HOSTILE in html.unescape(poisoned.read_text(encoding="utf-8"))
    assert "49" not in re.findall(r"onfocus='window.hurt=1 (\S+)", bad.text)
    block = re.search(r'<script type="application/json">(.*?)</script>', poisoned.read_text())
    data = json.loads(block[1])
    assert data["cases"][0]["reference"].endswith(HOSTILE)
    assert "<" not in block[1]


def test_the_command(tmp_path, capsys):
    files = []
    for part in pages.all_parts():
        files.append(tmp_path / f"{part['kind']}.json")
        files[-1].write_text(json.dumps(part), encoding="utf-8")
    include = f"report.include=[{', '.join(map(str, files))}]"
    output = tmp_path / "page.html"
    assert command("report", include, f"output={output}") == 0
    assert f"written to {output}" in capsys.readouterr().err
    first = output.read_bytes()
    assert json.loads((tmp_path / "page.html.run.json").read_text())["command"] == "report"
    assert command("report", include, f"output={output}") == 0
    assert command("report", include, f"output={output}", "report.cases=3") == 2
    assert "overwrite=true" in capsys.readouterr().err
    few = command("report", include, f"output={output}", "report.cases=3", "overwrite=true")
    assert few == 0
    assert "any (3)" in output.read_text()
    none = command("report", include, f"output={output}", "report.cases=0", "overwrite=true")
    assert none == 0
    assert 'id="cases"' not in output.read_text()
    assert "Hello from seat nowhere" in first.decode()
    assert "Hello from seat nowhere" not in output.read_text()


def test_a_report_killed_at_any_moment_is_run_again_to_the_same_bytes(tmp_path):
    files = []
    for part in pages.all_parts():
        files.append(tmp_path / f"{part['kind']}.json")
        files[-1].write_text(json.dumps(part), encoding="utf-8")
    given = ["report", f"report.include=[{', '.join(map(str, files))}]"]
    whole, page = tmp_path / "whole.html", tmp_path / "page.html"
    process = start(*given, f"output={whole}")
    begin = time.time()
    assert process.wait() == 0
    lasts, draw = time.time() - begin, random.Random(4)
    for _ in range(6):
        process = start(*given, f"output={page}")
        time.sleep(lasts * (0.3 + 0.7 * draw.random()))
        process.kill()
        process.wait()
        assert not page.exists() or page.read_bytes() == whole.read_bytes()
    assert command(*given, f"output={page}") == 0
    assert page.read_bytes() == whole.read_bytes()
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def changed(make, *path, to):
    part = copy.deepcopy(make())
    place = part
    for key in path[:-1]:
        place = place[key]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return json.dumps(part)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "expected an object of kind results, scores, analysis, alpha, human, "),
        ('{"metrics": {}}', "got kind None"),
        ('{"kind": "result", "format": 1}', "did you mean 'results'?"),
        ('{"kind": "cases", "format": 2}', "cases of format 2, but only format 1 can be read"),
        ('{"kind": "cases", ', "not valid JSON"),
        ("", "empty"),
        (changed(pages.results, "systems", "pal", "label", to=None), "systems.pal.label: missing"),
        (changed(pages.results, "samples", to="many"), "samples: expected a whole number"),
        (changed(pages.alpha, "trials", 3, "alpha", to=[0.5]), "trials.3.alpha: expected at "),
        (changed(pages.results, "confidence", to=float("nan")), "NaN is not a JSON number"),
        (changed(pages.cases, "cases", 0, "turn", to=99), "answers turn 99 of dialogue 'test-0000"),
        (changed(pages.cases, "cases", 0, "dialogue", to="x"), "which has 0 here"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, capsys, text, message):
    path = tmp_path / "part.json"
    path.write_text(text, encoding="utf-8")
    assert command("report", f"report.include=[{path}]", f"output={tmp_path / 'p.html'}") == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(path) in error
    assert error.count("\n") == 1
    assert not (tmp_path / "p.html").exists()


def test_other_mistakes(tmp_path, capsys):
    assert command("report", f"output={tmp_path / 'p.html'}") == 2
    assert "report.include=[results.json" in capsys.readouterr().err
    assert command("report", "report.include=[nowhere.json]") == 2
    assert "give output=…" in capsys.readouterr().err
    page = f"output={tmp_path / 'p.html'}"
    assert command("report", "report.include=[nowhere.json]", page) == 2
    assert "nowhere.json: no such file" in capsys.readouterr().err
    assert command("report", "report.include=[x.json]", f"output={tmp_path / 'p.json'}") == 2
    assert "ends in .html" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"part 2 of the report: expected an object of kind"):
        write(tmp_path, pages.human(), {"kind": "other"})


# In a browser -------------------------------------------------------------------------------------

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
in_a_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH"
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--virtual-time-budget=3000", "--window-size=1200,900",
)  # fmt: skip

TOOLS = """
const one = (selector) => document.querySelector(selector);
const all = (selector) => [...document.querySelectorAll(selector)];
const position = () => one("[data-position]").textContent;
const shown = () => one(".case-head h3").textContent;
const set = (name, value, event) => {
  one(`[data-${name}]`).value = value;
  one(`[data-${name}]`).dispatchEvent(new Event(event, {bubbles: true}));
};
const press = (key, target = document.body) => {
  target.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
};
const done = (outcome) => {
  document.documentElement.dataset.outcome = JSON.stringify(outcome);
};
"""


def dump(address, folder):
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", address],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    outcome = re.search(r'data-outcome="([^"]*)"', done.stdout)
    assert outcome, f"the script did not end: {done.stderr[-2000:]}"
    return json.loads(html.unescape(outcome[1]))


def browse(page, folder, script, fragment=""):
    """Open a copy of the page, run a script in it, and return what it handed to ``done``."""
    text = page.read_text(encoding="utf-8")
    # The page allows its own script alone: the test's own needs a wider policy.
    text, count = re.subn(r"script-src 'sha256-[^']+'", "script-src 'unsafe-inline'", text)
    assert count == 1
    driven = folder / "driven.html"
    driven.write_text(
        text.replace("</body>", f"<script>{TOOLS}{script}</script></body>"), encoding="utf-8"
    )
    return dump(driven.as_uri() + fragment, folder)


@in_a_browser
def test_case_studies_can_be_browsed(whole, tmp_path):
    outcome = browse(
        whole, tmp_path,
        """
        const log = {};
        one("#cases").scrollIntoView();
        log.start = [position(), shown(), one("[data-previous]").disabled];
        one("[data-next]").click(); one("[data-next]").click();
        log.next = [position(), shown(), location.hash];
        one("[data-previous]").click();
        log.previous = [position(), shown()];
        press("ArrowRight"); press("ArrowRight"); press("ArrowLeft");
        log.keys = [position(), shown()];
        press("ArrowRight", one("[data-search]"));
        log.typing = position();
        set("strategy", "Information", "change");
        log.filtered = [];
        const note = () => [position(), shown(), one(".response.gold .chip").textContent];
        log.filtered.push(note());
        while (!one("[data-next]").disabled && log.filtered.length < 99) {
          one("[data-next]").click();
          log.filtered.push(note());
        }
        set("search", "UNION", "input");
        log.both = [position(), shown(), one(".case").textContent.toLowerCase().includes("union")];
        set("search", "no such words anywhere", "input");
        log.none = [position(), one("[data-next]").disabled, all(".case-head").length];
        set("search", "", "input"); set("strategy", "*", "change");
        log.cleared = position();
        log.resources = performance.getEntriesByType("resource").length;
        done(log);
        """,
    )  # fmt: skip
    cases = pages.cases()["cases"]
    ids = [case["id"] for case in cases]
    total = len(ids)
    assert outcome["start"] == [f"1 of {total}", ids[0], True]
    assert outcome["next"] == [f"3 of {total}", ids[2], "#case=" + ids[2].replace("/", "%2F")]
    assert outcome["previous"] == [f"2 of {total}", ids[1]]
    assert outcome["keys"] == [f"3 of {total}", ids[2]]
    assert outcome["typing"] == f"3 of {total}"
    expected = [case["id"] for case in cases if case["strategy"] == "Information"]
    assert 1 < len(expected) < total
    assert outcome["filtered"] == [
        [f"{number} of {len(expected)}", name, "Information"]
        for number, name in enumerate(expected, start=1)
    ]
    assert outcome["both"][2]
    assert int(outcome["both"][0].split()[-1]) < len(expected)
    assert outcome["none"] == ["no such case", True, 0]
    assert outcome["cleared"].endswith(f"of {total}")
    assert outcome["resources"] == 0


@in_a_browser
def test_a_case_shows_all_there_is(whole, tmp_path):
    case = pages.cases()["cases"][5]
    outcome = browse(
        whole, tmp_path,
        """
        done({
          position: position(), id: shown(),
          bubbles: all(".bubble p").map((p) => p.textContent),
          speakers: all(".bubble .who").map((p) => p.textContent),
          persona: all(".persona li").map((p) => p.textContent),
          labels: all(".response h4").map((p) => p.textContent),
          responses: all(".response p").map((p) => p.textContent),
          strategies: all(".response .chip").map((p) => p.textContent),
        });
        """,
        fragment=f"#case={case['id']}",
    )  # fmt: skip
    assert outcome["id"] == case["id"]
    assert outcome["position"].startswith("6 of ")
    turns = pages.corpus()[case["dialogue"]][: case["turn"]]
    assert outcome["bubbles"] == [turn["text"] for turn in turns]
    assert outcome["speakers"][0] == "Seeker"
    assert f"Supporter · {turns[1]['strategy']}" in outcome["speakers"]
    assert outcome["persona"] == case["persona"]
    found = case["responses"].values()
    assert outcome["responses"] == [case["reference"], *(r["response"] for r in found)]
    same = case["strategy"]
    chips = [f"✓ {r['strategy']}" if r["strategy"] == same else r["strategy"] for r in found]
    assert outcome["strategies"] == [same, *chips]
    assert outcome["labels"] == [
        "Reference", "Blenderbot-Joint", "Hard Promptα 0.375", "PAL (α = 0)α 0.375", "PALα 0.375",
    ]  # fmt: skip


@in_a_browser
def test_tables_can_be_filtered_and_the_theme_changed(whole, tmp_path):
    outcome = browse(
        whole, tmp_path,
        """
        const seen = () => all("#significance-table tbody tr").filter((row) => !row.hidden);
        const kinds = () => [...new Set(seen().map((row) => row.dataset.group))];
        const log = {first: kinds(), themes: [], grounds: []};
        const select = one('[data-filter="significance-table"]');
        select.value = "ppl"; select.dispatchEvent(new Event("change"));
        log.second = kinds();
        select.value = ""; select.dispatchEvent(new Event("change"));
        log.all = seen().length;
        for (let time = 0; time < 3; time += 1) {
          one("#theme").click();
          log.themes.push(one("#theme").textContent);
          log.grounds.push(getComputedStyle(document.body).backgroundColor);
        }
        done(log);
        """,
    )  # fmt: skip
    assert outcome["first"] == ["accuracy"]
    assert outcome["second"] == ["ppl"]
    assert outcome["all"] == len(pages.results()["tests"])
    assert outcome["themes"] == ["Theme: light", "Theme: dark", "Theme: system"]
    assert outcome["grounds"][0] != outcome["grounds"][1]


@in_a_browser
def test_no_text_becomes_markup_in_a_browser(poisoned, tmp_path):
    outcome = browse(
        poisoned, tmp_path,
        """
        all("details").forEach((one) => { one.open = true; });
        one("[data-next]").click();
        setTimeout(() => done({
          hurt: window.hurt ?? null, images: all("img").length, title: document.title,
          bubble: one(".bubble p").textContent, hash: location.hash, id: shown(),
        }), 500);
        """,
    )  # fmt: skip
    assert outcome["hurt"] is None
    assert outcome["images"] == 0
    assert outcome["title"].startswith(HOSTILE[:40])
    assert outcome["bubble"].endswith(HOSTILE)
    assert outcome["id"].endswith(HOSTILE)


@in_a_browser
def test_the_page_allows_no_script_but_its_own(whole, tmp_path):
    """Were a text to slip through as markup, the page's policy would still stop it."""
    attack = "<script>document.documentElement.dataset.hurt = 1</script>"
    page = tmp_path / "attacked.html"
    text = whole.read_text(encoding="utf-8")
    page.write_text(text.replace("</body>", f"{attack}</body>"), encoding="utf-8")
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert 'data-hurt="1"' not in done.stdout
    assert "1 of " in done.stdout, "its own script ran"


@in_a_browser
@pytest.mark.parametrize("page", ["whole", "poisoned"])
def test_a_phone_never_scrolls_sideways(page, tmp_path, request):
    """In a frame as wide as a phone: the smallest window of a browser on a desk is wider."""
    text = request.getfixturevalue(page).read_text(encoding="utf-8")
    text = re.sub(r"script-src 'sha256-[^']+'", "script-src 'unsafe-inline'", text)
    script = """
    document.querySelectorAll("details").forEach((one) => { one.open = true; });
    const width = document.documentElement.clientWidth;
    const wide = [...document.querySelectorAll("body *")].filter((one) =>
      !one.closest(".scroll, figure, .hidden") && one.getBoundingClientRect().right > width + 1);
    parent.postMessage([innerWidth, document.documentElement.scrollWidth - width,
      wide.slice(0, 9).map((one) => `${one.tagName}.${one.className}`)], "*");
    """
    inner = tmp_path / "inner.html"
    inner.write_text(text.replace("</body>", f"<script>{script}</script></body>"), "utf-8")
    outer = tmp_path / "outer.html"
    outer.write_text(
        "<script>onmessage = (event) => { document.documentElement.dataset.outcome ="
        ' JSON.stringify(event.data); };</script><iframe src="inner.html" width=375 height=800'
        ' style="border:0"></iframe>'
    )
    assert dump(outer.as_uri(), tmp_path) == [375, 0, []]


def test_an_interval_beyond_the_axis_ends_in_an_arrow():
    from pal.report.charts import Plot

    def heights(low, high):
        plot = Plot("p", "t", (0, 1), (0, 1), x_label="x", y_label="y")
        plot.interval(0.5, low, high, "level")
        path = re.findall(r'class="line level" d="([^"]+)"', str(plot.svg()))[0]
        arrows = re.findall(r"l4 -?6l4 -?6", path)
        return (
            path.count("h8"),
            arrows,
            [float(n) for n in re.findall(r"(?:V|M[-\d.]+ )([-\d.]+)", path)],
        )

    caps, arrows, inside = heights(0.2, 0.8)
    assert (caps, arrows) == (2, [])
    caps, arrows, cut = heights(-50, 50)
    assert caps == 0
    assert arrows == ["l4 6l4 -6", "l4 -6l4 6"]  # down at the bottom, up at the top
    assert 0 < min(cut) < min(inside) < max(inside) < max(cut) < 400
