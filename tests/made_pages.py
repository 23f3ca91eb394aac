"""Every page the project makes, from small real inputs, in the states that people see.

A family of pages is a context: it is given what opens a tab and a folder, and yields its tabs by
the name of their state. What it starts ends with it. ``FAMILIES`` is the one list of all pages: a
new page, or a new state of one, is a name in it.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pal.benchmark.report.page import write_page
from pal.core.files import write_jsonl
from pal.data.strategies import STRATEGIES
from tests.benchmark import pages as benchmark
from tests.jobs import ESCONV, command

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
OPEN_ALL = "document.querySelectorAll('details').forEach((one) => { one.open = true })"
LONG = "averylongwordwithoutanyspace" * 6

Tab = Any  # playwright's Page
Tabs = Iterator[dict[str, Tab]]


def _shown(tab: Tab, path: Path) -> Tab:
    tab.goto(path.as_uri())
    tab.evaluate(OPEN_ALL)
    return tab


@contextmanager
def report_pages(opened: Callable[[], Tab], folder: Path) -> Tabs:
    """Yield the pages of ``pal report`` and ``pal traits report``, with and without contents."""
    from tests.benchmark.test_page_sections import judged
    from tests.traits.test_report import make_files, report, write

    cases, analysis = benchmark.cases(2), benchmark.analysis(30)
    cases["cases"][0]["responses"]["pal"]["response"] = LONG
    for name in ("prompt", "pal_alpha_0"):  # two systems look like four
        del analysis["strategies"]["systems"][name]
    parts = [
        cases, benchmark.human(), benchmark.alpha(), analysis, benchmark.results(),
        judged("judge-pairs"), judged("judge-ratings"),
    ]  # fmt: skip
    written = write_page(folder / "benchmark.html", parts, title="PAL on ESConv")
    files = make_files(folder)
    assert report(files, folder / "traits.html", files) == 0
    few = write(folder / "few.jsonl", [{"id": "a", "description": "x"}])
    assert report({"few": few}, folder / "few.html", ["few"]) == 0
    yield {
        "benchmark": _shown(opened(), written),
        "traits": _shown(opened(), folder / "traits.html"),
        "traits of cards alone": _shown(opened(), folder / "few.html"),
    }


@contextmanager
def quickstart_pages(opened: Callable[[], Tab], folder: Path) -> Tabs:
    """Yield the page of ``pal quickstart``, its scores by the real scorer."""
    from pal.commands.quickstart import CONTRAST, PLAIN, QuickstartSettings, write_page_of
    from pal.data.samples import build_samples
    from pal.data.settings import ReadingSettings
    from pal.data.splits import load_split

    samples = build_samples(load_split(str(ESCONV), "test"), "evaluation")
    paths = {CONTRAST: folder / "with.jsonl", PLAIN: folder / "without.jsonl"}
    for path, said in zip(paths.values(), ("I hear how hard it is.", "That is hard."), strict=True):
        write_jsonl(path, (
            {"id": one.id, "response": said, "reference": one.response, "alpha": 0.5,
             "strategy": STRATEGIES[number % 8], "reference_strategy": one.strategy}
            for number, one in enumerate(samples)
        ))  # fmt: skip
    given = ["eval", f"predictions={paths[CONTRAST]}", f"input={ESCONV}", "split=test"]
    metrics = folder / "metrics.json"
    assert command(*given, "metrics.names=[strategy, distinct, f1]", f"output={metrics}") == 0
    answered = SimpleNamespace(input=str(ESCONV), split="test", data=ReadingSettings(), seed=42)
    target, settings = folder / "report.html", QuickstartSettings.model_construct()
    write_page_of(
        settings, answered, folder / "cases.json", target, (paths[CONTRAST], paths[PLAIN]), metrics
    )
    yield {"quickstart": _shown(opened(), target)}


@contextmanager
def sheets(opened: Callable[[], Tab], folder: Path) -> Tabs:
    """Yield the two forms that ``pal human-eval`` writes for raters, with a choice made."""
    from pal.data.samples import build_samples
    from pal.data.splits import load_split
    from tests.human_eval.test_kit import arguments

    samples = build_samples(load_split(str(ESCONV), "test"), "evaluation")[:8]
    systems = {}
    for name, said in (("one", LONG), ("two", "I hear how hard it is.")):
        systems[name] = folder / f"{name}.jsonl"
        write_jsonl(systems[name], ({"id": one.id, "response": said} for one in samples))
    known = folder / "known.jsonl"
    write_jsonl(known, [
        {"id": "d", "dialog": [
            {"speaker": "seeker", "text": f"I am so tired. {LONG}", "persona": ["i am a nurse."]},
            {"speaker": "supporter", "text": "What happened?", "strategy": "Question"},
        ]}
    ])  # fmt: skip
    assert command(*arguments(systems, folder / "pairs", "human_eval.items=4")) == 0
    given = [f"input={known}", f"output={folder / 'personas'}", "human_eval.items=1"]
    assert command("human-eval", "personas", *given) == 0
    tabs = {name: _shown(opened(), folder / name / "for_raters" / "form.html")
            for name in ("pairs", "personas")}  # fmt: skip
    tabs["pairs"].locator("input[type=radio]").first.check()
    tabs["personas"].locator("input[value=Other]").first.check()
    for tab in tabs.values():
        tab.evaluate("HTMLAnchorElement.prototype.click = () => {}")  # no download
        tab.click("#save")
        tab.evaluate(OPEN_ALL)
    yield {"sheet of pairs": tabs["pairs"], "sheet of personas": tabs["personas"]}


@contextmanager
def chat_pages(opened: Callable[[], Tab], folder: Path) -> Tabs:
    """Yield the page of ``pal serve``: empty, after a chat, with help and a failure, and asking."""
    from tests.serve.scripted import scripted_server
    from tests.serve.test_page import FIXED, open_page, send

    with scripted_server() as (address, server):
        tabs = {"empty": open_page(opened(), address)}
        tabs["chat"] = open_page(opened(), address)
        tabs["chat"].check("#compare")
        server.plans = [{}, {}, {"text": LONG, "persona": ["x" * 200, "i swim"]}, {}]
        send(tabs["chat"], "I lost my job.")
        send(tabs["chat"], "https://example.org/" + "a" * 300)
        for name in ("help", "question"):
            tabs[name] = open_page(opened(), address)
            server.plans = [FIXED, "broken"]
            send(tabs[name], "I want to die.")
            send(tabs[name], "Still there?")
        tabs["question"].click("#save")
        for name in ("chat", "help"):
            tabs[name].evaluate(OPEN_ALL)
        yield {f"chat page, {name}": tab for name, tab in tabs.items()}


@contextmanager
def study_pages(opened: Callable[[], Tab], folder: Path) -> Tabs:
    """Yield the pages of a study, as a participant meets them."""
    from tests.study.live import QUESTIONS, make_study, served
    from tests.study.test_browser import PERSONA, begin, choose, end, say
    from tests.study.test_study import CRISIS

    names = (
        "consent", "start", "chat", "help opened", "questions", "done", "stopped", "withdrawn",
        "failed",
    )  # fmt: skip
    tokens = dict(zip(names, make_study(folder / "chat.db", raters=len(names)), strict=True))
    [late] = make_study(folder / "late.db", raters=1, days=-1.0)
    [judge] = make_study(folder / "persona.db", kind="persona", raters=1, items=PERSONA)
    tabs = {}

    def visit(name: str, address: str, token: str) -> Tab:
        tabs[name] = opened()  # in front: what lies behind is slow
        tabs[name].goto(f"{address}/s/{token}")
        return tabs[name]

    def press(tab: Tab, button: str, heading: str) -> None:
        tab.get_by_role("button", name=button).click()
        tab.get_by_role("heading", name=heading).wait_for()
        tab.evaluate(OPEN_ALL)

    with ExitStack() as stack:
        address, server = stack.enter_context(served(folder / "chat.db"))
        for name in names:
            tab = visit(name, address, tokens[name])
            if name == "consent":
                continue
            begin(tab)
            if name in ("chat", "help opened"):
                say(tab, f"hello, {LONG}")
                say(tab, CRISIS)
            if name == "help opened":
                tab.evaluate(OPEN_ALL)
            if name in ("questions", "done"):
                for _ in "AB":
                    say(tab, "hello")
                    end(tab)
                tab.evaluate(OPEN_ALL)
            if name == "done":
                for question in QUESTIONS:
                    choose(tab, question, "Tie")
                press(tab, "Hand in", "Thank you")
            if name in ("stopped", "withdrawn"):
                press(tab, "Stop now", "You have stopped")
            if name == "withdrawn":
                tab.get_by_label("Yes, delete it").check()
                press(tab, "Withdraw and delete", "You have withdrawn")
            if name == "failed":
                for system in server.supporters.values():
                    system.respond = None
                say(tab, "hm", wait=False)
                tab.get_by_role("link", name="Try again").wait_for()
        visit("unknown", address, "unknown")
        address, _ = stack.enter_context(served(folder / "late.db"))
        visit("expired", address, late)
        address, _ = stack.enter_context(served(folder / "persona.db"))
        tab = visit("persona", address, judge)
        tab.get_by_label("I am 18 or older.").check()
        tab.get_by_label("I have read this").check()
        tab.get_by_role("button", name="Begin").click()
        tab.get_by_label("No, something else is wrong.").check()
        yield {f"study, {name}": tab for name, tab in tabs.items()}


FAMILIES: dict[Callable[..., Any], list[str]] = {
    report_pages: ["benchmark", "traits", "traits of cards alone"],
    quickstart_pages: ["quickstart"],
    sheets: ["sheet of pairs", "sheet of personas"],
    chat_pages: ["chat page, empty", "chat page, chat", "chat page, help", "chat page, question"],
    study_pages: [
        "study, consent", "study, start", "study, chat", "study, help opened", "study, questions",
        "study, done", "study, stopped", "study, withdrawn", "study, failed", "study, unknown",
        "study, expired", "study, persona",
    ],
}  # fmt: skip
PAGES = {name: family for family, names in FAMILIES.items() for name in names}
