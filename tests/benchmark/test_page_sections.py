"""What the page says of itself: summary, seeds, notices, and who judged."""

import json
import re

import pytest

from pal.benchmark.report.page import check_protocols
from pal.benchmark.report.parts import KINDS
from pal.benchmark.report.summary import join_words, seeds_of_systems, summarise_results
from pal.core.errors import DataError
from pal.core.settings import bundled
from pal.data.samples import load_stamped_samples
from pal.data.settings import SourceSettings
from pal.judging.tables import NOT_PEOPLE
from pal.report.parts import check_part
from tests.benchmark import pages
from tests.benchmark.test_report import CHROMIUM, in_a_browser, load, write
from tests.jobs import command

SAMPLE = str(bundled("sample", "esconv"))


def with_tests(*tests, systems=("joint", "pal_alpha_0", "pal")):
    """Results with just these tests: (metric, a, b, difference, adjusted p)."""
    part = pages.results()
    part["systems"] = {name: part["systems"][name] for name in systems}
    part["tests"] = [
        {"metric": metric, "a": a, "b": b, "difference": difference, "low": difference - 1,
         "high": difference + 1, "p": p_holm, "p_holm": p_holm}
        for metric, a, b, difference, p_holm in tests
    ]  # fmt: skip
    return check_part(part, "x", KINDS)


def test_the_summary_names_only_significant_effects():
    part = with_tests(
        ("distinct_2", "pal_alpha_0", "pal", -2.5, 0.01),  # the other way round: PAL has more
        ("bleu_2", "pal", "pal_alpha_0", -0.75, 0.049),
        ("ppl", "pal", "pal_alpha_0", -3.0, 0.05),  # not below the level
        ("bleu_4", "pal", "pal_alpha_0", 1.0, 0.9),
        ("length", "pal", "pal_alpha_0", 9.0, 0.001),  # not of Table 3
        ("ppl", "joint", "pal_alpha_0", 4.0, 0.001),  # lower is better
        ("bleu_2", "joint", "pal_alpha_0", 0.5, 0.8),
    )
    what, effects, limits = summarise_results(part)
    assert what.startswith("3 systems (Blenderbot-Joint, PAL (α = 0) and PAL) were compared on ")
    assert "2,295 samples of 195 dialogues" in what
    assert what.endswith("over 3 seeds (13, 42 and 87).")
    assert (
        "the contrast (PAL against PAL (α = 0)) made D-2 (+2.50) significantly better and B-2 "
        "(−0.750) significantly worse, and left 2 of 4 without a significant change"
    ) in effects
    assert (
        "the persona (PAL (α = 0) against Blenderbot-Joint) made PPL (−4.00) significantly "
        "better, and left 1 of 2"
    ) in effects
    assert limits.startswith("The contrast cost PAL B-2 (−0.750); ")
    assert "do not show what people would prefer" in limits
    assert "nothing about PAL on ESConv" not in limits
    assert "nothing about PAL on ESConv" in summarise_results(part, ["toys"])[2]
    assert all(one.endswith(".") and ". " not in one for one in (what, effects, limits))


def test_a_summary_without_effects_or_tests():
    none = summarise_results(with_tests(("bleu_2", "pal", "pal_alpha_0", 1.0, 0.4)))
    assert "changed none of 1 metrics significantly" in none[1]
    assert "cost PAL nothing that chance does not explain" in none[2]
    other = summarise_results(
        with_tests(("bleu_2", "pal", "prompt", 1.0, 0.01), ("ppl", "pal", "prompt", 1.0, 0.4),
                   systems=("prompt", "pal"))
    )  # fmt: skip
    assert "of 2 comparisons in the metrics of Table 3, 1 is significant" in other[1]
    alone = summarise_results(with_tests(systems=("pal",)))
    assert alone[0].startswith("PAL answered 2,295 samples")
    assert alone[1].startswith("Nothing was tested")


def test_the_summary_stands_above_the_contents(tmp_path):
    part = pages.results()
    text = load(write(tmp_path, part)).text.partition("Contents")[0]
    for sentence in summarise_results(check_part(part, "x", KINDS)):
        assert sentence in text
    assert "summary" not in load(write(tmp_path, pages.human())).text


def test_seeds_are_said_of_each_system():
    part = pages.results()
    part["systems"]["joint"]["runs"] = part["systems"]["joint"]["runs"][:1]
    part["systems"]["prompt"]["runs"] = [part["systems"]["prompt"]["runs"][0] | {"seed": None}]
    said = seeds_of_systems(check_part(part, "x", KINDS))
    assert said == (
        "Blenderbot-Joint: seed 13; Hard Prompt: one set of responses without a seed; "
        "PAL (α = 0) and PAL: 3 seeds (13, 42 and 87)"
    )
    assert join_words(["a"]) == "a"


def test_every_section_with_figures_says_its_seeds(tmp_path):
    parts = [pages.cases(2) | {"seed_of": {"pal": 13, "theirs": None}},
             pages.human() | {"seed_of": {"pal": 87, "joint": 87}}, pages.alpha(),
             pages.analysis() | {"seed_of": {"pal": 1, "joint": 2}}, pages.results()]  # fmt: skip
    page = write(tmp_path, *parts)
    text = page.read_text(encoding="utf-8")
    sections = re.findall(r'<section id="([a-z]+)".*?</section>', text, flags=re.DOTALL)
    bodies = re.findall(r'<section id="[a-z]+".*?</section>', text, flags=re.DOTALL)
    for name, body in zip(sections, bodies, strict=True):
        if name != "made":
            assert "seed" in re.sub("<[^>]+>", "", body), name
    said = load(page).text
    assert "Responses: PAL of seed 13, theirs without a seed." in said
    assert "Judged by people. Responses of seed 87." in said
    assert "Responses: PAL of seed 1, Blenderbot-Joint of seed 2." in said
    assert "Responses of one model, of seed 42." in said
    assert said.count("Of the dialogues themselves: no seed takes part.") == 2
    unknown = load(write(tmp_path, pages.human())).text
    assert "Of which seed the responses are, their records do not say." in unknown


def figure(value=0.25, **more):
    return {"n": 9, "value": value, "low": value - 0.1, "high": value + 0.1, "reason": None, **more}


def judged(kind):
    shared = {
        "kind": kind, "format": 1, "confidence": 0.95, "run": {},
        "rubric": {"name": "pal_table4", "version": 1, "source": "x"},
        "judged_by": {"one": {"model": "qwen"}, "two": {"model": "llama"}},
        "unanswered": {"two": {"refused": 3}},
        "agreement": [{"a": "one", "b": "two", "kappa": {"Overall": figure(0.61)}}],
        "seed_of": {"pal": 42, "joint": 42},
    }  # fmt: skip
    if kind == "judge-pairs":
        votes = {"a_wins": 20, "ties": 5, "b_wins": 3}
        row = {
            "question": "Overall",
            **votes,
            "items": {"a_wins": 10, "ties": 2, "b_wins": 1},
            "p": 0.01,
            "p_holm": 0.06,
            "preference": figure(0.73),
            "kappa": figure(0.44),
        }
        return {
            **shared, "pairs": [{"a": "pal", "b": "joint", "questions": [row], "items": 13}],
            "position": {"one": {"Overall": figure(-0.31, p=0.001, p_holm=0.002)}},
            "consistency": {"one": {"Overall": figure(0.83)}},
        }  # fmt: skip
    test = {"metric": "Empathy", "a": "pal", "b": "joint", "difference": 0.51, "low": 0.2,
            "high": 0.8, "p": 0.01, "p_holm": 0.03}  # fmt: skip
    return {
        **shared, "scale": [0, 4], "rated": 11, "samples": 12, "tests": [test],
        "systems": {"pal": {"Empathy": figure(3.21)}, "joint": {"Empathy": figure(2.7)}},
        "judges": {"one": {"Empathy": 3.0}, "two": {"Empathy": 2.9}},
    }  # fmt: skip


def test_language_models_judge_in_sections_of_their_own(tmp_path):
    page = write(
        tmp_path, pages.results(), pages.human(), judged("judge-pairs"), judged("judge-ratings")
    )
    text = page.read_text(encoding="utf-8")
    bodies = dict(re.findall(r'<section id="([a-z-]+)"(.*?)</section>', text, flags=re.DOTALL))
    for name in ("judged-pairs", "judged-ratings"):
        assert NOT_PEOPLE in bodies[name]
        assert "qwen" in bodies[name]
        assert "Responses of seed 42." in bodies[name]
        assert "Judged by people" not in bodies[name]
        assert "refused: 3" in bodies[name]
    assert NOT_PEOPLE not in bodies["human"]
    said = load(page).text
    assert "Overall 10, 2, 1 0.73 0.63 to 0.83 0.010 0.060 0.44 0.34 to 0.54" in said
    assert "one Overall −0.31 −0.41 to −0.21 ✓ 0.002 0.83 0.73 to 0.93" in said
    assert "PAL 3.21 3.11 to 3.31" in said
    assert "PAL − Blenderbot-Joint Empathy 0.51 0.20 to 0.80 0.010 ✓ 0.030" in said


def answers(path, samples, **record):
    rows = [
        {"id": s.id, "response": f"{s.response} {path.stem}", "reference": s.response,
         "strategy": s.strategy, "reference_strategy": s.strategy}
        for s in samples
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if record:
        path.with_name(path.name + ".run.json").write_text(json.dumps(record))
    return path


def stamped(**given):
    return load_stamped_samples(SAMPLE, "test", SourceSettings(**given))


def test_scores_of_eval_are_rows_of_one_table(tmp_path, capsys):
    samples, stamp = stamped()
    toy = "The models are toys or start from random weights: x."
    files = []
    for seed in (7, 8):
        folder = tmp_path / str(seed)
        folder.mkdir()
        one = answers(folder / "mine.jsonl", samples, protocol=stamp, seed=seed, notices=[toy])
        files.append(folder / "scores.json")
        given = [f"predictions={one}", "metrics.names=[bleu, f1]", f"output={files[-1]}"]
        assert command("eval", *given) == 0
    document = json.loads(files[0].read_text())
    assert (document["kind"], document["seed"]) == ("scores", 7)
    assert document["protocol"] == stamp
    page = tmp_path / "p.html"
    assert command("report", f"report.include=[{files[0]}, {files[1]}]", f"output={page}") == 0
    assert json.loads((tmp_path / "p.html.run.json").read_text())["protocol"] == stamp
    said = load(page).text
    top = said.partition("Contents")[0]
    assert "mine was scored" in top or "mine were scored" in top
    assert "bundled sample: small" in top, "known by its dialogues, whatever the file's name"
    assert toy in top
    value = document["metrics"]["bleu_2"]["value"]
    assert re.search(rf"mine, seed 7 {value:.2f} ", said)
    assert "mine, seed 8 " in said
    assert "nothing is bold" in said
    assert "(best)" not in said


def test_protocols_stand_in_all_results_and_two_do_not_mix(tmp_path, capsys):
    """human-eval, judge (by its reader) and analyze: the stamp of the responses, or a refusal."""
    samples, stamp = stamped()
    _, other = stamped(protocol="not_first")
    assert stamp["bundled"]
    a = answers(tmp_path / "a.jsonl", samples, protocol=stamp, seed=3)
    b = answers(tmp_path / "b.jsonl", samples, protocol=stamp, seed=4)
    c = answers(tmp_path / "c.jsonl", samples, protocol=other)

    sheets = tmp_path / "sheets"
    given = ["human-eval", "export", f"input={SAMPLE}", "split=test"]
    assert command(*given, f"human_eval.systems={{a: {a}, b: {b}}}", f"output={sheets}") == 0
    key = json.loads((sheets / "key.json").read_text())
    assert (key["protocol"], key["seed_of"]) == (stamp, {"a": 3, "b": 4})
    item, found = next(iter(key["items"].items()))
    assert found
    filled = tmp_path / "anna.csv"
    columns = ["item", *key["questions"], "rater"]
    rows = [columns, [item, *("A" for _ in key["questions"]), "anna"]]
    filled.write_text("".join(",".join(row) + "\n" for row in rows))
    output = tmp_path / "human.json"
    assert command("human-eval", "score", f"input={sheets}", f"human_eval.answers={filled}",
                   f"output={output}") == 0  # fmt: skip
    assert json.loads(output.read_text())["protocol"] == stamp

    output = tmp_path / "analysis.json"
    assert command("analyze", f"analyze.systems={{a: {a}, b: {b}}}", "metrics.embedder=null",
                   f"output={output}") == 0  # fmt: skip
    analysis = json.loads(output.read_text())
    assert (analysis["protocol"], analysis["seed_of"]) == (stamp, {"a": 3, "b": 4})

    capsys.readouterr()
    for arguments in (
        [*given, f"human_eval.systems={{a: {a}, c: {c}}}", f"output={tmp_path / 'other'}"],
        ["analyze", f"analyze.systems={{a: {a}, c: {c}}}", "metrics.embedder=null"],
        ["judge", "pairs", f"input={SAMPLE}", "split=test", f"judging.systems={{a: {a}, c: {c}}}",
         f"output={tmp_path / 'j.json'}", "llm.model=m", "llm.base_url=http://127.0.0.1:9/v1"],
        ["judge", "ratings", f"input={SAMPLE}", "split=test", f"judging.systems={{c: {c}}}",
         f"output={tmp_path / 'j.json'}", "llm.model=m", "llm.base_url=http://127.0.0.1:9/v1"],
        ["eval", f"predictions={c}", f"input={SAMPLE}", "split=test", "metrics.names=[f1]"],
    ):  # fmt: skip
        assert command(*arguments) == 2, arguments
        error = capsys.readouterr().err
        assert "are of different protocols (protocols" in error
        assert "c.jsonl" in error
        assert error.count("\n") == 1


def test_a_page_compares_what_is_of_systems():
    one, two = (stamped(protocol=name)[1] for name in ("hub", "all_turns"))
    validation = load_stamped_samples(SAMPLE, "validation", SourceSettings())[1]
    results = {**pages.results(), "protocol": one}
    corpus = {**pages.analysis(), "strategies": None, "protocol": two}
    alpha = {**pages.alpha(), "protocol": validation}
    check_protocols([("a", results), ("b", corpus), ("c", alpha)])
    for part in (pages.human(), judged("judge-pairs"), judged("judge-ratings"), pages.cases(2),
                 pages.analysis(), pages.alpha()):  # fmt: skip
        with pytest.raises(DataError, match="a and b are of different protocols"):
            check_protocols([("a", results), ("b", {**part, "protocol": two})])


@in_a_browser
def test_a_table_wider_than_its_place_says_so_and_paper_shows_all_of_it(tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    page = write(tmp_path, *pages.all_parts(), judged("judge-pairs"), judged("judge-ratings"))
    regions = """[...document.querySelectorAll(".scroll")].map((one) => [
        one.scrollWidth > one.clientWidth,
        [...one.children].some((cue) => cue.className === "scroll-cue"
          && cue.checkVisibility({visibilityProperty: true}) && cue.clientHeight > 0),
        getComputedStyle(one).backgroundImage.split("gradient").length - 1])"""
    too_wide = """[...document.querySelectorAll("table")].filter((one) =>
        one.getBoundingClientRect().right > innerWidth).length"""
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 375, "height": 800})
        shown.goto(page.as_uri())
        shown.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
        shown.wait_for_timeout(300)
        found = [one for one in shown.evaluate(regions) if one[2]]
        assert {wide for wide, _, _ in found} == {True, False}
        assert all(wide == said for wide, said, _ in found), found
        assert all(shades == 4 for _, _, shades in found)
        shown.emulate_media(media="print")
        shown.set_viewport_size({"width": 1040, "height": 700})  # A4 across, less its margins
        assert shown.evaluate(too_wide) == 0
        assert not any(said for _, said, _ in shown.evaluate(regions))
        browser.close()
