"""A study in a real browser, with script and without; two raters at once; phones; keyboards."""

import os
import re
import threading
from pathlib import Path

import pytest

from pal.guard import GuardSettings
from pal.study.store import StudyStore
from tests.study.live import QUESTIONS, Gate, make_study, served
from tests.study.test_study import CRISIS, turns_of

browsers = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = browsers.expect

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 360, "height": 640}
MARKUP = '<img src=x onerror="window.hurt=1"><script>window.hurt=1</script><b>bold</b>'

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}")


@pytest.fixture(scope="module")
def browser():
    with browsers.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield started
        started.close()


@pytest.fixture
def opened(browser):
    """Open pages whose scripts raise nothing and which load nothing from elsewhere."""
    contexts, wrong, asked = [], [], []

    def make(url, **options):
        context = browser.new_context(**{"viewport": DESKTOP, **options})
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: "Security Policy" in said.text and wrong.append(said.text))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        return page

    yield make
    for context in contexts:
        context.close()
    assert not wrong
    assert [url for url in asked if not re.match(r"http://127\.0\.0\.1:\d+/|data:", url)] == []


@pytest.fixture
def file(tmp_path):
    return tmp_path / "study.db"


def begin(page):
    page.get_by_label("I am 18 or older.").check()
    page.get_by_label("I have read this").check()
    page.get_by_role("button", name="Begin").click()
    expect(page.get_by_role("heading", name="Talk with system A")).to_be_visible()


def say(page, text, *, wait=True):
    page.get_by_label("Your message").fill(text)
    page.get_by_role("button", name="Send").click()
    if wait:
        expect(page.locator("#turns .mine", has_text=text)).to_be_visible()
        expect(page.locator(".waiting")).to_have_count(0)
        expect(page.get_by_label("Your message")).to_be_editable()


def replies(page):
    """The replies on a page, of which there is one at least once it has come."""
    found = page.locator("#turns .theirs .text")
    found.first.wait_for()
    return found.all_inner_texts()


def end(page):
    page.locator("#end").click()


def choose(page, name, answer):
    group = page.get_by_role("group", name=name)
    group.get_by_role("radio", name=answer, exact=True).check()


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_a_whole_study_with_a_reload_at_every_step(opened, file, script):
    [token] = make_study(file, raters=1, min_messages=2)
    with served(file) as (address, _):
        page = opened(f"{address}/s/{token}", java_script_enabled=script)
        begin(page)
        for name, heading in (("zebra", "Talk with system B"), ("quartz", "Compare A and B")):
            say(page, "hello")
            page.reload()
            assert replies(page) == [f"reply 1 of {name}"]
            expect(page.locator("#missing")).to_contain_text("1 more message,")
            say(page, "my rent is due")
            assert replies(page) == [f"reply 1 of {name}", f"reply 3 of {name}"]
            page.reload()
            assert len(replies(page)) == 2
            end(page)
            expect(page.get_by_role("heading", name=heading)).to_be_visible()
            page.reload()
            expect(page.get_by_role("heading", name=heading)).to_be_visible()
        for number, name in enumerate(QUESTIONS):
            choose(page, name, ["A", "B", "Tie"][number % 3])
            if script:  # stored as it is chosen
                expect(page.locator("#saved")).to_have_text("Stored.")
                page.reload()
                expect(page.locator("input:checked")).to_have_count(number + 1)
        page.get_by_role("button", name="Hand in").click()
        expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    store = StudyStore(file)
    [task] = store.tasks(1)
    given = [store.answers(task.task)[name][0] for name in QUESTIONS]
    assert given == ["A", "B", "Tie", "A", "B", "Tie"]
    store.close()
    assert [len(turns) for turns in turns_of(file).values()] == [4, 4]


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_what_only_scripts_do_is_promised_with_scripts_alone(opened, file, script):
    tokens = make_study(file, raters=1)
    tokens += make_study(file.with_name("p.db"), kind="persona", raters=1, items=PERSONA)
    kept = "stored as you choose it" if script else "not when you stop"
    with served(file) as (address, _):
        page = opened(f"{address}/s/{tokens[0]}", java_script_enabled=script)
        begin(page)
        for _ in "AB":
            for text in ("hello", "my rent is due"):  # a reply brings a new page
                expect(page.get_by_text("Enter sends")).to_be_visible(visible=script)
                said = "Enter sends, Shift+Enter starts a line." if script else ""
                expect(page.get_by_label("Your message")).to_have_accessible_description(said)
                stop = page.get_by_role("button", name="Stop now")
                expect(stop).to_have_accessible_description(re.compile("not sent is not kept"))
                say(page, text)
            end(page)
        expect(page.get_by_role("heading", name="Compare A and B")).to_be_visible()
        expect(page.locator("#saved")).to_contain_text(kept, use_inner_text=True)
        expect(page.get_by_text("is not kept")).to_have_count(0)
    with served(file.with_name("p.db")) as (address, _):
        page = opened(f"{address}/s/{tokens[1]}", java_script_enabled=script)
        page.get_by_label("I am 18 or older.").check()
        page.get_by_label("I have read this").check()
        page.get_by_role("button", name="Begin").click()
        expect(page.locator("#saved")).to_contain_text(kept, use_inner_text=True)


def test_a_reload_while_the_system_writes(opened, file):
    [token] = make_study(file, raters=1)
    with served(file) as (address, server):
        gate = server.supporters["zebra"].before = Gate()
        page = opened(f"{address}/s/{token}")
        begin(page)
        say(page, "hello", wait=False)
        expect(page.locator(".waiting")).to_be_visible()
        assert gate.asked.wait(30)
        threading.Timer(0.2, gate.open).start()  # while the page asks for itself again
        page.reload()
        assert replies(page) == ["reply 1 of zebra"]
        assert len(server.supporters["zebra"].calls) == 1
    assert len(turns_of(file)[1, 0, "A"]) == 2


def test_two_raters_at_once(opened, file):
    tokens = make_study(file, raters=2)
    with served(file) as (address, server):
        both = threading.Barrier(2, timeout=15)  # breaks where one waits for the other's end
        for system in server.supporters.values():
            system.before = both.wait
        pages = [opened(f"{address}/s/{token}") for token in tokens]
        for page in pages:
            begin(page)
        for number, page in enumerate(pages):
            say(page, f"secret {number}", wait=False)
        for page in pages:
            expect(page.locator("#turns .theirs .text")).to_have_count(1)
        assert [replies(page) for page in pages] == [["reply 1 of zebra"], ["reply 1 of quartz"]]
        for number, page in enumerate(pages):
            page.reload()
            assert f"secret {number}" in page.content()
            assert f"secret {1 - number}" not in page.content()


def test_a_double_click_and_a_second_window(opened, file):
    [token] = make_study(file, raters=1)
    with served(file, seconds=0.3) as (address, _):
        page, other = (opened(f"{address}/s/{token}") for _ in range(2))
        begin(page)
        other.reload()
        page.get_by_label("Your message").fill("hello")
        page.get_by_role("button", name="Send").dblclick()
        expect(page.locator("#turns .theirs .text")).to_have_count(1)
        say(other, "what I wrote elsewhere", wait=False)
        expect(other.get_by_role("alert")).to_contain_text("not sent")
        expect(other.get_by_label("Your message")).to_have_value("what I wrote elsewhere")
        assert replies(other) == ["reply 1 of zebra"]
        page.locator("#end").dblclick()
        expect(page.get_by_role("heading", name="Talk with system B")).to_be_visible()
    assert len(turns_of(file)[1, 0, "A"]) == 2


def test_stop_and_withdraw(opened, file):
    [token] = make_study(file, raters=1)
    with served(file) as (address, _):
        page = opened(f"{address}/s/{token}")
        begin(page)
        say(page, "canary-word")
        page.get_by_role("button", name="Stop now").click()
        expect(page.get_by_role("heading", name="You have stopped")).to_be_visible()
        page.get_by_role("button", name="Go on").click()
        assert replies(page) == ["reply 1 of zebra"]
        page.get_by_text("Withdraw and delete all that I wrote").click()
        page.get_by_role("button", name="Withdraw and delete").click()  # without the tick
        expect(page.get_by_role("heading", name="Talk with system A")).to_be_visible()
        page.get_by_label("Yes, delete it").check()
        page.get_by_role("button", name="Withdraw and delete").click()
        expect(page.get_by_role("heading", name="You have withdrawn")).to_be_visible()
        page.go_back()
        page.reload()
        expect(page.get_by_role("heading", name="You have withdrawn")).to_be_visible()
        assert b"canary" not in b"".join(path.read_bytes() for path in file.parent.iterdir())


def test_html_is_shown_as_text(opened, file):
    items = {"i": {"sample": "s", "situation": MARKUP}}
    [token] = make_study(file, raters=1, items=items, consent=MARKUP, title=MARKUP)
    with served(file) as (address, server):
        server.supporters["zebra"].name = MARKUP
        page = opened(f"{address}/s/{token}")
        expect(page.get_by_role("heading", name=MARKUP)).to_be_visible()
        begin(page)
        say(page, MARKUP)
        assert replies(page) == [f"reply 1 of {MARKUP}"]
        assert page.locator("#turns .mine .text").inner_text() == MARKUP
        page.reload()
        assert replies(page) == [f"reply 1 of {MARKUP}"]
        end(page)
        say(page, "x")
        end(page)
        page.get_by_text("Your conversation with system A").click()
        expect(page.locator(".turns .mine").first).to_contain_text(MARKUP)
        assert page.evaluate("window.hurt") is None
        assert page.locator("main img, main script, main b b").count() == 0


def test_help_stays_on_view(opened, file):
    [token] = make_study(file, raters=1, min_messages=2)
    with served(file) as (address, server):
        page = opened(f"{address}/s/{token}", viewport=PHONE)
        standing = page.locator("footer .lines")
        expect(standing).to_contain_text("999")
        begin(page)
        say(page, CRISIS)
        shown = page.get_by_role("region", name="Help")
        expect(shown).to_contain_text("999")
        expect(shown).to_be_in_viewport()
        call = shown.get_by_role("link", name="116 123")
        expect(call).to_have_attribute("href", "tel:116123")
        expect(page.locator("#missing")).to_have_count(0)  # nobody in need is asked to go on
        assert "reply" not in replies(page)[0]
        server.supporters["zebra"].respond = lambda *a, **k: 1 / 0
        say(page, "are you there?", wait=False)
        expect(page.get_by_role("link", name="Try again")).to_be_visible()
        expect(shown).to_be_visible()
        page.reload()
        expect(shown).to_be_visible()


CONCERN = "I feel like everyone would be better off without me. I just want it to stop."


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_help_leaves_a_phone_room_and_its_first_numbers_are_never_hidden(opened, file, script):
    guard = GuardSettings(country="US").model_dump()
    tokens = make_study(file, raters=2, guard=guard)
    screen = {"viewport": {"width": 390, "height": 844}, "java_script_enabled": script}
    with served(file) as (address, _):
        page = opened(f"{address}/s/{tokens[0]}", **screen)
        begin(page)
        say(page, CRISIS)
        page.wait_for_load_state()  # with its style
        shown = page.get_by_role("region", name="Help")
        assert shown.bounding_box()["height"] < 844 / 8
        for number in ("911", "988"):
            expect(shown.get_by_role("link", name=number)).to_be_in_viewport(ratio=1)
        directory = shown.get_by_role("link", name="https://findahelpline.com")
        expect(directory).to_be_hidden()
        shown.get_by_role("link", name="911").focus()
        for reached in (shown.get_by_role("link", name="988"), shown.locator("summary")):
            page.keyboard.press("Tab")
            expect(reached).to_be_focused()
        page.keyboard.press("Enter")
        expect(directory).to_be_in_viewport()
        expect(shown.get_by_role("link", name="741741")).to_be_in_viewport()
        # What the guard asks stands there until it is answered, and is not gone then.
        page = opened(f"{address}/s/{tokens[1]}", **screen)
        begin(page)
        say(page, CONCERN)
        asked = page.get_by_role("region", name="Help").get_by_text("Are you thinking about")
        expect(asked).to_be_in_viewport()
        say(page, "My rent is due.")
        expect(asked).to_be_hidden()
        page.get_by_text("More help").click()
        expect(asked).to_be_in_viewport()


def test_a_lost_connection_is_told_and_nothing_is_lost(opened, file):
    [token] = make_study(file, raters=1)
    with served(file) as (address, _):
        page = opened(f"{address}/s/{token}")
        begin(page)
        page.context.set_offline(True)
        say(page, "hello", wait=False)
        expect(page.locator("#offline")).to_contain_text("No connection")
        expect(page.get_by_label("Your message")).to_have_value("hello")
        page.context.set_offline(False)
        page.get_by_role("button", name="Send").click()
        expect(page.locator("#turns .theirs .text")).to_have_text("reply 1 of zebra")
    assert len(turns_of(file)[1, 0, "A"]) == 2


def test_by_keyboard_alone(opened, file):
    [token] = make_study(file, raters=1)

    def reach(role, name):
        wanted = page.get_by_role(role, name=name, exact=True)
        for _ in range(40):
            page.keyboard.press("Tab")
            if wanted.evaluate("one => one === document.activeElement"):
                return
        raise AssertionError(f"{name} is not reached")

    with served(file) as (address, _):
        page = opened(f"{address}/s/{token}")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        reach("checkbox", "I am 18 or older.")
        page.keyboard.press("Space")
        reach("checkbox", "I have read this and agree to take part.")
        page.keyboard.press("Space")
        reach("button", "Begin")
        page.keyboard.press("Enter")
        for side in "AB":
            expect(page.get_by_role("heading", name=f"Talk with system {side}")).to_be_visible()
            reach("textbox", "Your message")
            page.keyboard.type("one line")
            page.keyboard.press("Shift+Enter")
            page.keyboard.type("and another")
            page.keyboard.press("Enter")
            expect(page.locator("#turns .theirs .text")).to_have_count(1)
            # The field has the focus again, and the reply is read out.
            assert page.evaluate("document.activeElement.id") == "text"
            expect(page.get_by_role("status").first).to_contain_text("reply 1 of")
            reach("button", "End this and talk with system B" if side == "A"
                  else "End this and compare")  # fmt: skip
            page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Compare A and B")).to_be_visible()
        for _ in QUESTIONS:
            for _ in range(20):
                page.keyboard.press("Tab")
                if page.evaluate("document.activeElement.type") == "radio":
                    break
            page.keyboard.press("ArrowRight")
        reach("button", "Hand in")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    assert turns_of(file)[1, 0, "A"][0] == ("rater", "one line\nand another")


PERSONA = {
    "p": {
        "sample": "d/1", "persona": ["i am a nurse.", "i have two dogs."],
        "context": [["Seeker", "I am so tired."], ["Supporter", "What happened?"]] * 8,
    }
}  # fmt: skip


def test_a_persona_is_judged(opened, file):
    [token] = make_study(file, kind="persona", raters=1, items=PERSONA)
    with served(file) as (address, _):
        page = opened(f"{address}/s/{token}")
        page.get_by_label("I am 18 or older.").check()
        page.get_by_label("I have read this").check()
        page.get_by_role("button", name="Begin").click()
        page.get_by_label("No, something else is wrong. Please say what.").check()
        expect(page.locator("#saved")).to_have_text("Stored.")
        page.get_by_role("button", name="Hand in").click()
        expect(page.get_by_role("alert")).to_have_text("Please say what is wrong.")
        page.get_by_label("What is wrong").fill("Too vague.")
        page.get_by_role("button", name="Hand in").click()
        expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    store = StudyStore(file)
    assert store.answers(store.tasks(1)[0].task)["Persona"] == ("Other", "Too vague.")
