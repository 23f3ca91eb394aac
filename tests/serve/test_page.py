"""The web page in a real browser: against the real server, and against one that fails on demand."""

import json
import re
import shutil
from pathlib import Path

import pytest

import pal
from pal.data.records import parse_dialogue
from pal.data.strategies import ESCONV
from pal.decoding.settings import DecodingSettings
from pal.guard import GuardSettings
from tests.conversation.test_session import CRISIS, any_reply_may_be_shown  # noqa: F401
from tests.serve.live import served
from tests.serve.scripted import HELP, scripted_server
from tests.test_faces import MESSAGES

browsers = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = browsers.expect
expect.set_options(timeout=30_000)  # a busy machine is no fault of the page

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)
PAGE = Path(pal.__file__).parent / "serve" / "page"
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 320, "height": 640}
PINNED = {
    "level": 2, "pinned": 2, "action": "fixed", "help": HELP, "categories": ["ideation_active"],
}  # fmt: skip
FIXED = {"text": f"I am a program.\n\n{HELP}", "guard": PINNED, "finish": "content_filter"}
MARKUP = '<img src=x onerror="window.hurt=1"><script>window.hurt=1</script><b>bold</b>'

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")


@pytest.fixture(scope="module")
def browser():
    with browsers.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield started
        started.close()


@pytest.fixture
def context(browser):
    made = browser.new_context(viewport=DESKTOP)
    made.set_default_timeout(30_000)
    yield made
    made.close()


@pytest.fixture
def page(context):
    """A page whose scripts raise nothing and which loads nothing from elsewhere."""
    opened, wrong, asked = context.new_page(), [], []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda said: _is_violation(said.text) and wrong.append(said.text))
    opened.on("request", lambda request: asked.append(request.url))
    yield opened
    assert not wrong
    kept = re.compile(r"https?://127\.0\.0\.1:\d+/|data:|blob:")
    assert [url for url in asked if not kept.match(url)] == []


def _is_violation(text):
    return "Content Security Policy" in text or "Uncaught" in text


@pytest.fixture
def scripted():
    with scripted_server() as (address, server):
        server.address = address
        yield server


@pytest.fixture(scope="module")
def session(response_model, extractor_model):
    return pal.load(
        str(response_model), extractor=str(extractor_model), guard=GuardSettings(country="GB")
    )


def open_page(page, address):
    page.goto(f"{address}/")
    expect(page.locator("#model")).not_to_be_empty()
    return page


def send(page, text, *, wait=True):
    page.fill("#message", text)
    page.press("#message", "Enter")
    if wait:
        done(page)


def done(page):
    expect(page.locator("#send")).to_be_visible()


def said(page, kind="reply"):
    return page.locator(f".message.{kind} .text").all_inner_texts()


def bodies_of(page):
    """The bodies that the page sends from now on."""
    bodies = []

    def note(request):
        if request.method == "POST":
            bodies.append(json.loads(request.post_data))

    page.on("request", note)
    return bodies


# ------------------------------------------------------------------------- with the real server


@pytest.mark.usefixtures("any_reply_may_be_shown")
def test_a_chat_with_everything(page, session):
    with served(session) as (address, _):
        open_page(page, address)
        bodies = bodies_of(page)
        for text in ("I lost my job.", "I have two kids and a dog.", "I worked as a nurse."):
            send(page, text)
        texts = said(page)
        assert len(texts) == 3
        messages = [
            {"role": "user", "content": "I lost my job."},
            {"role": "assistant", "content": texts[0]},
        ]
        given = bodies[-1]
        assert given["stream"] is True
        assert given["pinned"] == 0
        strategy = given["messages"][1].pop("strategy")
        assert strategy in ESCONV.names
        assert given["messages"][:2] == messages
        assert len(given["messages"]) == 5
        assert not {"alpha", "persona", "strategy"} & set(given)
        # What the page shows is what the same call gives in Python.
        same = session.respond([*given["messages"][:1]])
        assert (same.text, same.strategy) == (texts[0], strategy)
        # Bars: eight a turn, with their shares as text.
        bars = page.locator(".message.reply .bars")
        expect(bars).to_have_count(3)
        shares = bars.nth(0).locator("li").all_inner_texts()
        assert len(shares) == 8
        assert all("%" in share for share in shares)
        for name, share in same.strategy_probs.items():
            shown = "<1 %" if 0 < share < 0.01 else f"{int(100 * share + 0.5)} %"
            assert any(name in one and shown in one for one in shares), (name, share)
        # α of one strategy is moved, by keyboard.
        page.locator("#alpha-card summary").click()
        slider = page.get_by_label("Question", exact=True).and_(page.locator("input[type=range]"))
        slider.focus()
        page.keyboard.press("End")
        page.select_option("#strategy", "Question")
        expect(page.locator("#strategy-name")).to_have_text("(Question)")
        page.check("#compare")
        send(page, "I like to swim.")
        with_persona, without = bodies[-2:]
        assert with_persona["alpha"] == {"Question": 2}
        assert with_persona["strategy"] == without["strategy"] == "Question"
        assert (without["persona"], without["alpha"]) == ([], 0)
        assert without["messages"] == with_persona["messages"]
        other = session.respond(without["messages"], persona=[], alpha=0, strategy="Question")
        assert said(page, "without")[-1] == other.text
        assert "α 2" in page.locator(".message.reply .who").last.inner_text()
        # Undo takes one turn and gives the message back.
        page.click("#undo")
        assert len(said(page)) == 3
        expect(page.locator("#message")).to_have_value("I like to swim.")
        expect(page.locator("#message")).to_be_focused()
        # A reload keeps what was said.
        page.reload()
        expect(page.locator("#model")).not_to_be_empty()
        assert said(page)[:3] == texts
        expect(page.locator("#compare")).to_be_checked()
        expect(page.locator("#alpha-card summary")).to_contain_text("1 changed")
        page.locator("#alpha-card summary").click()
        page.click("#alpha-reset")
        page.uncheck("#compare")
        page.select_option("#strategy", "")
        send(page, "I like to swim.")
        assert not {"alpha", "persona", "strategy"} & set(bodies[-1])
        kept = "JSON.stringify([localStorage.length, document.cookie])"
        assert page.evaluate(kept) == '[0,""]'


def _known_by_turn(row, known):
    grown = known[: sum(turn["speaker"] == "seeker" for turn in row["dialog"])]
    turns = [{**turn, "persona": grown} for turn in row["dialog"]]
    return {**row, "dialog": turns, "persona": grown}


@pytest.mark.usefixtures("any_reply_may_be_shown")
def test_the_persona_grows_and_can_be_changed(page, session, monkeypatch):
    """What the extractor finds is shown as inferred, until the user changes it."""
    known = ["i have two kids", "i am a nurse"]

    def annotate(rows):
        return [_known_by_turn(row, known) for row in rows]

    monkeypatch.setattr(session.inference, "annotate", annotate)
    with served(session) as (address, _):
        open_page(page, address)
        bodies, sentences = bodies_of(page), page.locator("#persona li span[dir]")
        send(page, "I have two kids.")
        assert sentences.all_text_contents() == ["i have two kids (new)"]
        send(page, "I am a nurse.")
        assert sentences.all_text_contents() == ["i have two kids", "i am a nurse (new)"]
        expect(page.locator("#persona-note")).to_contain_text("Inferred")
        page.fill("#persona-new", "I live in Leeds.")
        page.press("#persona-new", "Enter")
        page.get_by_role("button", name="Remove: i have two kids").click()
        expect(page.locator("#persona-note")).to_contain_text("by you")
        send(page, "And now?")
        assert bodies[-1]["persona"] == ["i am a nurse", "I live in Leeds."]
        page.click("#persona-infer")
        assert sentences.all_text_contents() == ["i have two kids", "i am a nurse (new)"]
        send(page, "And then?")
        assert "persona" not in bodies[-1]


def test_what_the_user_wrote_is_never_shown_as_inferred(page, scripted):
    """After a turn of the guard's and an undo, too, nothing but an inferred list comes back."""
    open_page(page, scripted.address)
    sentences = page.locator("#persona li")

    def know(sentence):
        page.fill("#persona-new", sentence)
        page.press("#persona-new", "Enter")

    def infer():
        page.click("#persona-infer")
        said = "inferred again from the next reply that the model writes"
        expect(page.locator("#announce")).to_contain_text(said)

    know("I play the cello.")
    given = {"persona": ["I play the cello."]}
    scripted.plans = [given, {**FIXED, **given}, given]
    for text in ("Hello.", CRISIS, "And now?"):
        send(page, text)
    page.click("#undo")
    infer()
    assert sentences.all_text_contents() == ["Nothing is known yet."]
    scripted.plans = [{**FIXED, "persona": []}]
    send(page, CRISIS)
    assert sentences.all_text_contents() == ["Nothing is known yet."]
    page.reload()
    expect(page.locator("#model")).not_to_be_empty()
    assert sentences.all_text_contents() == ["Nothing is known yet."]
    send(page, "I have a dog.")
    found = sentences.locator("span[dir]")
    assert found.all_text_contents() == ["i have a dog (new)"]
    know("I play the cello.")
    scripted.plans = [{"persona": ["i have a dog", "I play the cello."]}]
    send(page, "Hm.")
    infer()
    assert found.all_text_contents() == ["i have a dog (new)"]  # the last list that was inferred


def test_a_sentence_that_is_removed_stays_away_where_nothing_is_inferred(page, scripted):
    scripted.facts["extractor"] = False
    scripted.plans = [{"persona": ["I play the cello."]}]
    open_page(page, scripted.address)
    page.fill("#persona-new", "I play the cello.")
    page.press("#persona-new", "Enter")
    send(page, "Hello.")
    page.get_by_role("button", name="Remove: I play the cello.").click()
    assert page.locator("#persona li").all_text_contents() == ["Nothing is known yet."]
    send(page, "And now?")
    assert "persona" not in scripted.bodies[-1]


def test_a_reload_keeps_the_message_that_is_being_written(page, scripted):
    """Also what an undo put back; what was sent, or left with a new chat, does not come again."""
    open_page(page, scripted.address)
    field = page.locator("#message")

    def reload():
        page.reload()
        expect(page.locator("#model")).not_to_be_empty()

    page.fill("#message", "half a\nsentence")
    reload()
    expect(field).to_have_value("half a\nsentence")
    expect(page.locator("#send")).to_be_enabled()
    send(page, "Hello.")
    reload()
    expect(field).to_have_value("")
    page.click("#undo")
    reload()
    expect(field).to_have_value("Hello.")
    send(page, "Hello again.")
    page.fill("#message", "and more")
    page.click("#new")
    page.click("#new-yes")
    reload()
    expect(field).to_have_value("")


def test_help_stays_once_it_is_called_for(page, session):
    with served(session) as (address, _):
        open_page(page, address)
        bodies, pinned = bodies_of(page), page.locator("#pinned")
        expect(pinned).to_be_hidden()
        expect(page.locator("#standing")).to_contain_text("116 123")
        send(page, CRISIS)
        expect(pinned).to_be_visible()
        expect(pinned).to_contain_text("Samaritans: call 116 123.")
        assert page.locator("#pinned a").first.get_attribute("href") == "tel:999"
        assert len(said(page)) == 1
        assert "Samaritans" not in said(page)[0]  # it stands below, once
        assert "computer program" in said(page)[0]
        expect(page.locator("#alarm")).to_contain_text("116 123")
        page.click("#undo")
        expect(pinned).to_be_visible()
        send(page, "Never mind. The weather is nice.")
        assert bodies[-1]["pinned"] >= 2
        assert bodies[-1]["messages"] == [
            {"role": "user", "content": "Never mind. The weather is nice."}
        ]
        expect(pinned).to_be_visible()
        page.reload()
        expect(pinned).to_be_visible()
        page.click("#new")
        page.click("#new-yes")
        assert said(page) == []
        expect(pinned).to_be_visible()
        send(page, "Hello again.")
        assert bodies[-1]["pinned"] >= 2
        expect(pinned).to_be_visible()
        assert "Samaritans" not in said(page)[0]
        send(page, "I like tea.")  # what the model reads holds no lines of help
        assert "Samaritans" not in json.dumps(bodies[-1])
        expect(page.locator("#standing")).to_contain_text("not a crisis service")


# Notes every state of the page in which words of a reply stand: whether help is on view, and which.
WATCH = """() => {
  window.states = [];
  const look = () => {
    const words = [...document.querySelectorAll(".message.reply .text")]
      .map((one) => one.textContent.trim()).join("|");
    if (words) window.states.push([!document.querySelector("#pinned").hidden, words]);
  };
  new MutationObserver(look).observe(document, {
    subtree: true, childList: true, characterData: true, attributes: true,
  });
}"""


@pytest.mark.usefixtures("any_reply_may_be_shown")
def test_the_page_gives_the_guards_levels(page, response_model):
    """Help is there before any word of the model's, for all the messages of the other faces."""
    short = DecodingSettings(max_new_tokens=12)
    session = pal.load(str(response_model), decoding=short, guard=GuardSettings(country="GB"))
    found = {text: session.guard.review([text]) for text in MESSAGES}
    helped = 0
    with served(session) as (address, _):
        page.add_init_script("sessionStorage.clear()")
        open_page(page, address)
        for text, verdict in found.items():
            page.reload()  # as somebody else, who has not asked for help before
            expect(page.locator("#model")).not_to_be_empty()
            expect(page.locator("#pinned")).to_be_hidden()
            page.evaluate(WATCH)
            send(page, text)
            [words] = said(page)
            states = page.evaluate("window.states")
            if verdict.help is None:
                expect(page.locator("#pinned")).to_be_hidden()
                continue
            helped += 1
            expect(page.locator("#pinned")).to_be_visible()
            shown = page.locator("#pinned-lines").inner_text()
            for line in verdict.help.splitlines():
                assert line in shown
            assert states
            assert all(on_view for on_view, _ in states), text
            if verdict.action == "fixed":
                assert words == verdict.text
                assert {spoken for _, spoken in states} == {verdict.text}
    assert helped >= 17


def test_a_server_without_guard_says_so(page, response_model):
    session = pal.load(str(response_model), guard=GuardSettings(off=True))
    with served(session) as (address, _):
        open_page(page, address)
        expect(page.locator("#off")).to_contain_text("nobody watches")
        expect(page.locator("#standing")).to_contain_text("findahelpline.com")
        send(page, "Hello.")
        assert len(said(page)) == 1


def test_a_token_comes_with_the_address_and_leaves_it(page, session):
    with served(session, token="s3cret & more") as (address, _):
        page.goto(f"{address}/")
        expect(page.locator("#startup")).to_contain_text("needs a token")
        expect(page.locator("#send")).to_be_disabled()
        page.fill("#token", "wrong")
        page.press("#token", "Enter")
        expect(page.locator("#startup")).to_contain_text("did not accept the token")
        expect(page.locator("#token-form")).to_be_visible()
        expect(page.locator("#token")).to_have_value("wrong")  # to be corrected
        page.goto(f"{address}/#token=s3cret%20%26%20more")
        expect(page.locator("#model")).not_to_be_empty()
        expect(page.locator("#token-form")).to_be_hidden()
        assert page.url == f"{address}/"
        page.reload()
        expect(page.locator("#model")).not_to_be_empty()
        send(page, "Hello.")
        assert len(said(page)) == 1


# ------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("busy", "busy. Please wait 7 seconds"),
        ("broken", "gave no reply (500)"),
        ({"fault": "cut"}, "broke off before its end"),
        ({"fault": "error"}, "broke off (out of memory)"),
        ({"fault": "noise"}, "cannot be read"),
        ({"verdict": False}, "without the check for signs of a crisis"),
    ],
)
def test_a_failure_shows_help_and_can_be_tried_again(page, scripted, plan, message):
    open_page(page, scripted.address)
    send(page, "Hello.")
    scripted.plans = [plan]
    send(page, "I feel so low.")
    failure = page.locator("#failure")
    expect(failure).to_contain_text(message)
    expect(failure.locator("a").first).to_have_text("999")
    expect(failure.locator("a").first).to_be_visible()
    if plan == {"verdict": False}:
        assert said(page) == ["I hear you.", ""]
    page.click("#retry")
    done(page)
    expect(failure).to_be_hidden()
    assert said(page) == ["I hear you.", "I hear you."]
    assert scripted.bodies[-1] == scripted.bodies[-2]
    assert [one["content"] for one in scripted.bodies[-1]["messages"]] == [
        "Hello.", "I hear you.", "I feel so low.",
    ]  # fmt: skip


def test_help_on_view_stays_when_the_server_is_gone(page, scripted):
    open_page(page, scripted.address)
    scripted.plans = [FIXED]
    send(page, "I want to die.")
    page.context.set_offline(True)
    send(page, "Are you there?")
    expect(page.locator("#failure")).to_contain_text("cannot be reached")
    expect(page.locator("#pinned")).to_contain_text("Shout: text SHOUT to 85258.")
    page.context.set_offline(False)
    page.click("#retry")
    done(page)
    assert said(page) == ["I am a program.", "I hear you."]
    # The verdict is calm and says that nothing is pinned: only then it goes.
    expect(page.locator("#pinned")).to_be_hidden()


def test_a_page_without_server_facts_still_shows_help(page, scripted):
    page.route("**/page.json", lambda route: route.fulfill(status=503, body="no"))
    page.goto(scripted.address)
    expect(page.locator("#startup")).to_contain_text("503")
    expect(page.locator("#standing")).to_contain_text("local emergency number")
    expect(page.locator("#send")).to_be_disabled()
    page.unroute("**/page.json")
    page.locator("#startup button").click()
    expect(page.locator("#model")).to_have_text("scripted")
    expect(page.locator("#startup")).to_be_hidden()


def test_a_reply_is_stopped(page, scripted):
    open_page(page, scripted.address)
    scripted.plans = [{"waits": True, "text": "One two three."}]
    send(page, "Hello.", wait=False)
    expect(page.locator(".message.reply .text")).to_have_text("One")
    expect(page.locator("#undo")).to_be_disabled()
    page.keyboard.press("Escape")
    done(page)
    expect(page.locator(".message.reply .state")).to_have_text("Stopped.")
    expect(page.locator("#failure")).to_be_hidden()
    send(page, "Go on.")
    assert [one["content"] for one in scripted.bodies[-1]["messages"]] == [
        "Hello.",
        "One",
        "Go on.",
    ]
    scripted.plans = [{"waits": True}]
    send(page, "More.", wait=False)
    page.click("#stop")
    done(page)
    expect(page.locator("#message")).to_be_focused()


def test_a_message_sent_while_a_reply_is_written_goes_out_after_it(page, scripted):
    open_page(page, scripted.address)
    scripted.plans = [{"waits": True, "text": "One two."}, {"text": "Three."}]
    send(page, "Hello.", wait=False)
    expect(page.locator(".message.reply .text")).to_have_text("One")
    send(page, "And more.", wait=False)
    expect(page.locator("#keys")).to_contain_text("Not sent yet")
    expect(page.locator("#message")).to_have_value("And more.")
    scripted.go.set()
    expect(page.locator(".message.reply .text").nth(1)).to_have_text("Three.")
    expect(page.locator("#keys")).to_contain_text("Enter sends")
    assert [one["content"] for one in scripted.bodies[-1]["messages"]] == [
        "Hello.", "One two.", "And more.",
    ]  # fmt: skip


def test_a_message_waits_for_its_writer_where_the_reply_is_one_of_the_guard(page, scripted):
    open_page(page, scripted.address)
    scripted.plans = [
        {"waits": True, "text": "Yes, do it.", "taken_back": "I have no good answer to that."}
    ]
    send(page, "Shall I?", wait=False)
    expect(page.locator("#stop")).to_be_visible()
    send(page, "Nobody cares.", wait=False)
    expect(page.locator("#keys")).to_contain_text("Not sent yet")
    scripted.go.set()
    done(page)
    expect(page.locator("#message")).to_have_value("Nobody cares.")
    expect(page.locator("#keys")).to_contain_text("Enter sends")
    assert len(scripted.bodies) == 1


def test_a_stop_before_the_reply_is_no_accusation(page, scripted):
    open_page(page, scripted.address)
    scripted.plans = [{"waits": True, "verdict": False}]
    with page.expect_response("**/v1/chat/completions"):  # the plan is taken
        send(page, "Hello.", wait=False)
    page.click("#stop")
    done(page)
    expect(page.locator("#failure")).to_have_class("banner failure mild")
    stopped = "Stopped before a reply came."
    expect(page.locator("#failure-text")).to_have_text(stopped)
    expect(page.locator("#announce")).to_have_text(stopped)
    expect(page.locator(".message.reply")).to_be_hidden()  # it would say the same once more
    expect(page.locator("#failure-help")).to_be_hidden()
    scripted.plans = ["broken"]
    page.click("#retry")
    done(page)
    expect(page.locator("#failure")).to_have_class("banner failure")
    expect(page.locator("#failure-help")).to_be_visible()
    expect(page.locator(".message.reply")).to_be_hidden()
    # Once the chat goes on, the place of the reply says what became of it.
    scripted.plans = [{"waits": True, "verdict": False}]
    with page.expect_response("**/v1/chat/completions"):
        page.click("#retry")
    page.click("#stop")
    done(page)
    send(page, "Well.")
    expect(page.locator("#failure")).to_be_hidden()
    expect(page.locator(".message.reply .state").first).to_have_text(stopped)


def test_a_reload_in_the_middle_of_a_reply(page, scripted):
    open_page(page, scripted.address)
    scripted.plans = [{"waits": True}]
    send(page, "Hello.", wait=False)
    expect(page.locator(".message.reply .text")).to_have_text("I")
    page.reload()
    expect(page.locator("#model")).not_to_be_empty()
    expect(page.locator("#failure")).to_contain_text("reloaded")
    page.click("#retry")
    done(page)
    assert said(page) == ["I hear you."]
    assert len(scripted.bodies[-1]["messages"]) == 1


def test_the_guard_takes_back_what_was_shown(page, scripted):
    open_page(page, scripted.address)
    scripted.plans = [{"text": "Yes, do it.", "taken_back": "I have no good answer to that."}]
    send(page, "Hello.")
    assert said(page) == ["I have no good answer to that."]
    expect(page.locator(".message.reply .state")).to_contain_text("withdrawn")
    expect(page.locator(".message.reply .bars")).to_be_hidden()
    send(page, "Well.")
    assert "Yes, do it" not in json.dumps(scripted.bodies[-1])


def test_a_new_chat_ends_a_reply_and_its_late_words_go_nowhere(page, scripted):
    open_page(page, scripted.address)
    scripted.plans, ended = [{"waits": True}], []
    page.on("requestfailed", lambda request: ended.append(request.failure))
    send(page, "Hello.", wait=False)
    expect(page.locator(".message.reply .text")).to_have_text("I")
    page.click("#new")
    page.click("#new-yes")
    expect(page.locator("#announce")).to_contain_text("New chat")
    assert ended == ["net::ERR_ABORTED"]  # so that the server stops too
    scripted.go.set()
    done(page)
    assert said(page) == []
    send(page, "Anew.")
    assert said(page) == ["I hear you."]
    assert len(scripted.bodies[-1]["messages"]) == 1
    assert "Hello." not in page.evaluate("JSON.stringify(sessionStorage)")


def test_a_new_chat_begins_with_the_settings_that_the_page_starts_with(page, scripted):
    open_page(page, scripted.address)
    page.select_option("#strategy", "Question")
    page.check("#compare")
    page.locator("#alpha-card summary").click()
    page.locator("#alpha-2").fill("1.5")
    send(page, "I am sad.")
    assert scripted.bodies[0]["strategy"] == "Question"
    assert len(scripted.bodies) == 2
    page.click("#new")
    expect(page.locator("#new-dialog")).to_contain_text("strategy and weights that you chose")
    page.click("#new-yes")
    expect(page.locator("#strategy")).to_have_value("")
    expect(page.locator("#strategy-name")).to_be_empty()
    expect(page.locator("#compare")).not_to_be_checked()
    expect(page.locator("#alpha-count")).to_be_empty()
    expect(page.locator("#alpha-2")).to_have_value("0.5")
    expect(page.locator("#announce")).to_contain_text("settings that the page starts with")
    send(page, "Hello.")
    assert not {"strategy", "alpha", "persona"} & set(scripted.bodies[-1])
    assert len(scripted.bodies) == 3
    # Without a turn there is nothing to ask about, and the settings go as well.
    page.click("#new")
    page.click("#new-yes")
    page.check("#compare")
    page.click("#new")
    expect(page.locator("#compare")).not_to_be_checked()


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize("with_help", [False, True])
def test_a_reload_shows_the_end_of_the_chat(page, scripted, size, with_help):
    page.set_viewport_size(size)
    open_page(page, scripted.address)
    scripted.plans = [{"text": f"Reply {n}. " + "Tell me more. " * 5} for n in range(9)]
    if with_help:
        scripted.plans[4] = FIXED
    for number in range(9):
        send(page, f"Message {number}.")
    page.evaluate("scrollTo(0, 0)")
    expect(page.locator(".message.reply").last).not_to_be_in_viewport()
    page.reload()
    expect(page.locator("#model")).not_to_be_empty()
    last = page.locator(".message.reply .text").last
    expect(last).to_be_in_viewport()
    for _ in range(200):  # the page settles: what is drawn with the model's facts moves it
        end, under = last.bounding_box(), page.locator("#composer").bounding_box()
        if end["y"] + end["height"] <= under["y"] + 1:
            break
        page.wait_for_timeout(50)
    assert end["y"] + end["height"] <= under["y"] + 1


def test_a_reload_shows_that_a_reply_is_missing(page, scripted):
    page.set_viewport_size(PHONE)
    open_page(page, scripted.address)
    for number in range(6):
        send(page, f"Message {number}.")
    scripted.plans = [{"waits": True}]
    send(page, "Hello.", wait=False)
    expect(page.locator(".message.reply .text").last).to_have_text("I")
    page.evaluate("scrollTo(0, 0)")
    page.reload()
    expect(page.locator("#model")).not_to_be_empty()
    for _ in range(200):
        end, under = page.locator("#retry").bounding_box(), page.locator("#composer").bounding_box()
        if end["y"] + end["height"] <= under["y"] + 1:
            break
        page.wait_for_timeout(50)
    page.click("#retry", trial=True)
    assert end["y"] + end["height"] <= under["y"] + 1


def test_a_window_that_becomes_narrow_closes_the_panels(page, scripted):
    """As a phone's page begins; what is opened there afterwards stays open."""
    open_page(page, scripted.address)
    page.locator("#alpha-card summary").click()
    expect(page.locator("details.card[open]")).to_have_count(3)
    for number in range(4):
        send(page, f"Message {number}.")
    page.set_viewport_size(PHONE)
    expect(page.locator("details.card[open]")).to_have_count(0)
    expect(page.locator(".message.reply .text").last).to_be_in_viewport()
    page.locator("#strategy-card summary").click()
    page.set_viewport_size({"width": 390, "height": 400})  # as with a keyboard on the screen
    page.select_option("#strategy", "Question")
    expect(page.locator("details.card[open]")).to_have_count(1)
    page.set_viewport_size({"width": 1280, "height": 860})
    expect(page.locator("details.card[open]")).to_have_count(3)


def test_a_page_without_a_chat_starts_at_its_top(page, scripted):
    page.set_viewport_size(PHONE)
    open_page(page, scripted.address)
    page.reload()
    expect(page.locator("#model")).not_to_be_empty()
    assert page.evaluate("scrollY") == 0


def test_help_does_not_cover_what_the_guard_says(page, scripted):
    page.set_viewport_size(PHONE)
    open_page(page, scripted.address)
    send(page, "I lost my job.")
    scripted.plans = [FIXED]
    send(page, "I want to die.")
    help_box, text = page.locator("#pinned"), page.locator(".message.reply .text").last
    expect(text).to_be_in_viewport()
    expect(page.locator("#pinned a").last).to_be_in_viewport()
    box, under = help_box.bounding_box(), text.bounding_box()
    assert box["y"] >= 0
    assert under["y"] >= box["y"] + box["height"]
    assert under["y"] + under["height"] <= page.locator("#composer").bounding_box()["y"]


@pytest.mark.parametrize("size", [PHONE, {"width": 800, "height": 400}])
def test_help_on_view_is_short_on_a_small_screen_once_it_was_seen(page, scripted, size):
    page.set_viewport_size(size)
    open_page(page, scripted.address)
    lines = [*HELP.split("\n"), "More: https://findahelpline.com"]
    guard = PINNED | {"help": "\n".join(lines)}
    fixed = FIXED | {"guard": guard}
    scripted.plans = [fixed, fixed | {"guard": guard | {"pinned": 1}}, fixed, fixed]
    send(page, "I want to die.")
    help_box, more = page.locator("#pinned"), page.locator("#pinned-more")
    whole = help_box.bounding_box()["height"]
    for line in lines:
        expect(help_box.get_by_text(line)).to_be_visible()
    send(page, "It is me.")
    for line, is_kept in zip(lines, (False, True, True, False), strict=True):
        expect(help_box.get_by_text(line)).to_be_visible(visible=is_kept)
    expect(page.locator("#pinned a").first).to_be_in_viewport(ratio=1)
    assert help_box.bounding_box()["height"] < 0.75 * whole
    page.reload()
    expect(more).to_have_attribute("aria-expanded", "false")
    more.click()
    expect(help_box.get_by_text(lines[-1])).to_be_visible()
    more.click()
    expect(help_box.get_by_text(lines[-1])).to_be_hidden()
    send(page, "I want to die.")  # the alarm is higher than before: all of it again
    expect(help_box.get_by_text(lines[-1])).to_be_visible()
    page.set_viewport_size(DESKTOP)
    send(page, "Hm.")
    expect(more).to_be_hidden()
    expect(help_box.get_by_text(lines[-1])).to_be_visible()


@pytest.mark.parametrize("size", [PHONE, {"width": 800, "height": 400}])
def test_help_with_one_contact_is_never_shortened(page, scripted, size):
    page.set_viewport_size(size)
    open_page(page, scripted.address)
    lines = ["In danger now: call your local emergency number.", "https://findahelpline.com"]
    guard = PINNED | {"help": "\n".join(lines)}
    scripted.plans = [FIXED | {"guard": guard}] * 2
    send(page, "I want to die.")
    send(page, "It is me.")
    for line in lines:
        expect(page.locator("#pinned").get_by_text(line)).to_be_visible()
    expect(page.locator("#pinned-more")).to_be_hidden()


# Parts of the page's header of which another part of the page takes the click, at any height.
COVERED = """async () => {
  const found = new Set();
  for (let y = 0; y <= document.documentElement.scrollHeight; y += 17) {
    window.scrollTo(0, y);
    await new Promise(requestAnimationFrame);
    for (const part of document.querySelectorAll(".top h1, .top button")) {
      const box = part.getBoundingClientRect();
      const [x, middle] = [box.left + box.width / 2, box.top + box.height / 2];
      if (middle < 0 || middle > innerHeight) continue;
      const hit = document.elementFromPoint(x, middle);
      if (!hit?.closest(".top")) found.add(`${part.id}: ${hit?.id || hit?.className}`);
    }
  }
  return [...found];
}"""


def gets_there(page, place):
    """Wait until the help on view is at a place."""
    for _ in range(200):
        if place(page.locator("#pinned").bounding_box()["y"]):
            return
        page.wait_for_timeout(50)
    raise AssertionError(page.locator("#pinned").bounding_box())


@pytest.mark.parametrize("size", [DESKTOP, PHONE, {"width": 800, "height": 400}])
def test_help_on_view_covers_nothing_of_the_header(page, scripted, size):
    page.set_viewport_size(size)
    open_page(page, scripted.address)
    scripted.plans = [FIXED] * 8
    for number in range(8):
        send(page, f"I want to die {number}.")
    expect(page.locator("#pinned")).to_be_in_viewport()
    if size is DESKTOP:  # with room for both, the header is there without scrolling back
        assert page.evaluate("scrollY") > 200
        top, pinned = page.locator(".top").bounding_box(), page.locator("#pinned").bounding_box()
        assert top["y"] == 0
        assert pinned["y"] >= top["height"] - 1
        expect(page.locator("#new")).to_be_in_viewport(ratio=1)
        page.set_viewport_size(PHONE)  # a window that is made narrow has no gap above the help
        page.mouse.wheel(0, 10_000)
        gets_there(page, lambda y: y < 1)
        page.set_viewport_size(size)
        gets_there(page, lambda y: y > 9)
    assert page.evaluate(COVERED) == []


def test_a_comparison_begins_with_the_next_reply(page, scripted):
    """A tick asks for nothing by itself: no reply begins that nobody sent a message for."""
    open_page(page, scripted.address)
    send(page, "Hello.")
    page.get_by_label("Show the next replies without the persona too").check()
    expect(page.locator("#send")).to_be_visible()
    expect(page.locator("#stop")).to_be_hidden()
    send(page, "And more.")
    assert said(page, "without") == ["I hear you."]
    assert [one.get("alpha") for one in scripted.bodies] == [None, None, 0]


def test_a_comparison_asked_for_while_a_reply_is_written(page, scripted):
    open_page(page, scripted.address)
    scripted.plans = [{"waits": True}]
    send(page, "Hello.", wait=False)
    expect(page.locator(".message.reply .text")).to_have_text("I")
    page.check("#compare")
    scripted.go.set()
    done(page)
    assert said(page, "without") == ["I hear you."]


def test_a_comparison_that_fails_is_asked_again_alone(page, scripted):
    open_page(page, scripted.address)
    page.check("#compare")
    scripted.plans = [{}, "broken"]
    send(page, "Hello.")
    assert said(page) == ["I hear you."]
    expect(page.locator("#failure")).to_be_hidden()
    box = page.locator(".message.without")
    expect(box.locator(".state")).to_contain_text("500")
    box.get_by_role("button", name="Try again").click()
    expect(box.locator(".text")).to_have_text("I hear you.")
    assert len(scripted.bodies) == 3


def test_markup_is_text_wherever_it_comes_from(page, scripted):
    scripted.facts["model"] = scripted.facts["help"] = MARKUP
    plans = [{"text": MARKUP, "persona": [MARKUP]}]
    plans += [{"text": MARKUP, "guard": PINNED | {"help": MARKUP}, "finish": "content_filter"}]
    scripted.plans = plans
    open_page(page, scripted.address)
    send(page, MARKUP)
    page.fill("#persona-new", MARKUP + "2")
    page.press("#persona-new", "Enter")
    send(page, MARKUP)
    page.reload()
    expect(page.locator("#model")).to_have_text(MARKUP)
    assert said(page)[0] == MARKUP
    assert said(page, "user") == [MARKUP, MARKUP]
    expect(page.locator("#pinned-lines")).to_contain_text("<script>")
    assert page.locator("#persona li span[dir]").all_text_contents() == [MARKUP, MARKUP + "2"]
    assert page.locator("img, b, body script").count() == 0
    assert page.evaluate("window.hurt") is None


# ------------------------------------------------------------------------- notices, transcript


def test_the_notice_comes_at_the_start_and_every_three_hours(page, scripted):
    page.clock.install()
    open_page(page, scripted.address)
    notices = page.locator(".notice")
    expect(notices).to_have_count(1)
    expect(notices).to_contain_text("a program, not a person")
    send(page, "Hello.")
    page.clock.fast_forward("02:59:00")
    expect(notices).to_have_count(1)
    page.clock.fast_forward("00:02:00")
    expect(notices).to_have_count(2)
    expect(notices.last).to_contain_text("not a crisis service")
    page.clock.run_for(100)
    expect(page.locator("#announce")).to_contain_text("a program")
    page.clock.fast_forward("02:50:00")
    expect(notices).to_have_count(2)
    page.clock.fast_forward("00:11:00")
    expect(notices).to_have_count(3)
    page.reload()
    expect(notices).to_have_count(3)


def test_a_transcript_is_saved_after_a_question(page, scripted):
    open_page(page, scripted.address)
    expect(page.locator("#save")).to_be_disabled()
    scripted.plans = [{"text": "Why is that?"}, FIXED]
    send(page, "I am sad.")
    send(page, "I want to die.")
    asked = len(scripted.bodies)
    page.click("#save")
    expect(page.locator("#save-dialog")).to_contain_text("Anybody who uses this device")
    page.click("#save-cancel")
    page.click("#save")
    with page.expect_download() as download:
        page.click("#save-text")
    text = Path(download.value.path()).read_text()
    assert "You: I am sad.\nReply [Question, α 0.5]: Why is that?\n" in text
    assert "- i have a dog" in text
    page.click("#save")
    with page.expect_download() as download:
        page.click("#save-data")
    record = json.loads(Path(download.value.path()).read_text())
    row = parse_dialogue(record, "chat", "chat.jsonl", requests=True)
    assert [turn["text"] for turn in row["dialog"]] == [
        "I am sad.", "Why is that?", "I want to die.", "I am a program.",
    ]  # fmt: skip
    assert row["dialog"][1]["strategy"] == "Question"
    assert [turn.get("alpha") for turn in record["dialog"]] == [None, 0.5, None, None]
    assert row["dialog"][0]["persona"] == row["dialog"][2]["persona"] == ["i have a dog"]
    assert len(scripted.bodies) == asked  # nothing is sent
    for kept in (text, json.dumps(record)):
        assert "ideation" not in kept


# ------------------------------------------------------------------------- for everybody


def test_by_keyboard_alone(page, scripted):
    """Everything can be reached with Tab, and what has the focus is marked and not covered."""
    open_page(page, scripted.address)
    scripted.plans = [FIXED]
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_be_focused()
    page.keyboard.type("I want to die.")
    page.keyboard.press("Enter")
    done(page)
    page.locator("#alpha-card").evaluate("card => (card.open = true)")
    page.fill("#message", "more")  # so that it can be sent
    page.focus(".skip")
    wanted = {"message", "send", "undo", "save", "new", "persona-new", "strategy", "compare"}
    wanted |= {f"alpha-{place}" for place in range(8)}
    met = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        name, mark, covered = page.evaluate(FOCUSED)
        if name == "body":
            break
        met.add(name)
        assert mark != "none", f"{name} does not show that it has the focus"
        assert not covered, f"{name} has the focus and lies under something"
    assert wanted <= met
    page.focus("#new")
    page.keyboard.press("Enter")
    expect(page.locator("#new-dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#new-dialog")).to_be_hidden()
    expect(page.locator("#new")).to_be_focused()
    page.focus("#message")
    page.keyboard.press("Shift+Enter")
    assert "\n" in page.input_value("#message")


FOCUSED = """() => {
  const one = document.activeElement;
  if (one === document.body) return ["body", "", false];
  const box = one.getBoundingClientRect();
  const at = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  const free = at && (one.contains(at) || at.contains(one));
  return [one.id || one.textContent, getComputedStyle(one).outlineStyle, !free];
}"""

SMALL = """() => [...document.querySelectorAll("button, select, textarea, input, summary")]
  .filter((one) => one.checkVisibility())
  .map((one) => [one.id || one.textContent, (one.type === "checkbox" ? one.parentElement : one)
    .getBoundingClientRect()])
  .filter(([, box]) => box.height < 43.9 || box.width < 43.9)
  .map(([name, box]) => `${name}: ${box.width} x ${box.height}`)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_size_and_scheme(browser, scripted, tmp_path, size, scheme):
    """Nothing overflows, targets are large enough, and axe finds nothing (contrast is among it)."""
    context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
    page = open_page(context.new_page(), scripted.address)
    page.check("#compare") if size is DESKTOP else page.locator("#strategy-card summary").click()
    page.check("#compare")
    long = {"text": "Donaudampfschifffahrtsgesellschaft" * 4, "persona": ["x" * 200, "i swim"]}
    scripted.plans = [{}, {}, long, {}, FIXED, "broken"]
    states = []

    def look(name):
        page.screenshot(path=str(tmp_path / f"{name}.png"), full_page=True)
        wide = page.evaluate("document.documentElement.scrollWidth")
        states.append((name, wide, page.evaluate(SMALL), violations_of(page)))

    look("empty")
    send(page, "I lost my job.")
    send(page, "https://example.org/" + "a" * 300)
    for card in ("#persona-card", "#alpha-card"):
        page.locator(card).evaluate("card => (card.open = true)")
    look("chat")
    send(page, "I want to die.")
    send(page, "Still there?")
    look("help")
    page.click("#save")
    look("question")
    context.close()
    assert [one[0] for one in states] == ["empty", "chat", "help", "question"]
    for name, wide, small, violations in states:
        assert wide <= size["width"], name
        assert small == [], name
        assert violations == [], name


def violations_of(page):
    """What axe finds, or nothing where it is not installed (its contrast is then not checked)."""
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        return []
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = Axe().run(page, options={"runOnly": rules}).response["violations"]
    return [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in found]


def test_replies_are_announced_once_and_whole(page, scripted):
    open_page(page, scripted.address)
    scripted.plans = [{"waits": True, "text": "One two three."}]
    send(page, "Hello.", wait=False)
    region = page.locator("#announce")
    assert region.get_attribute("aria-live") == "polite"
    expect(region).to_have_text("Writing a reply.")
    expect(page.locator(".message.reply")).to_have_attribute("aria-busy", "true")
    scripted.go.set()
    done(page)
    expect(region).to_have_text(
        "One two three. Strategy: Question. New in the persona: i have a dog."
    )
    expect(page.locator(".message.reply")).to_have_attribute("aria-busy", "false")
    assert page.locator("[aria-live]").count() == 2  # this one, and the one for help


def test_the_files_name_nothing_outside():
    """No address but the directory of helplines, no markup built from text, no code in the page."""
    text = {name: (PAGE / name).read_text() for name in ("index.html", "page.css", "page.js")}
    found = set(re.findall(r"https?://[\w./-]+", "".join(text.values())))
    assert found == {"https://findahelpline.com"}
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text["page.js"]
    )
    assert not re.search(r"\son\w+=|<style|style=|<script>(?!$)", text["index.html"])
