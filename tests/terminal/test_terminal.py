"""The terminal chat within this process: slash commands, the guard's help, the screen."""

import dataclasses
import io
import json
import re

import pytest

import pal
from pal.core.errors import ConfigError, DataError, PalError
from pal.data.esconv import load_esconv
from pal.decoding.settings import DecodingSettings
from pal.guard import GuardSettings
from pal.persona.settings import PersonaSettings
from pal.terminal.conversation import Conversation
from pal.terminal.face import EVERY, NOTICE, Growing, Terminal, answer_lines, read_line
from pal.terminal.screen import Screen
from pal.terminal.slash import SLASH_COMMANDS, completions, run_slash
from tests.conversation.test_session import CRISIS
from tests.jobs import ROOT, command

HELP = "findahelpline.com"
SHORT = DecodingSettings(max_new_tokens=24)
OPEN = "I lost my job last week."


@pytest.fixture(autouse=True)
def any_reply_may_be_shown(monkeypatch):
    """Models that learnt nothing say what reads as a phone number now and then."""
    monkeypatch.setattr("pal.guard.Guard.check_reply", lambda self, reply, verdict: None)


@pytest.fixture(scope="module")
def session(response_model):
    return pal.load(str(response_model), decoding=SHORT)


@pytest.fixture(scope="module")
def wordy(session):
    """A seed whose reply to the first turn has several words, and the reply."""
    for seed in range(100):
        text = session.respond([{"role": "user", "content": OPEN}], seed=seed).text
        if len(set(text.split(" "))) > 7:
            return seed, text
    raise AssertionError("no reply has words")


@pytest.fixture
def talk(session):
    """Run a chat with these lines and return (conversation, what was shown)."""

    def run(*lines, clock=None, width=60, with_session=None, **more):
        conversation = Conversation(with_session or session, persona=more.pop("persona", []))
        out, rest = io.StringIO(), list(lines)

        def read():
            if not rest:
                raise EOFError
            out.write(f"you> {rest[0]}\n")
            return rest.pop(0)

        options = {} if clock is None else {"clock": clock}
        Terminal(conversation, Screen(out, width=width), read, **options).run()
        return conversation, out.getvalue()

    return run


def texts(conversation, role="assistant"):
    return [line.text for line in conversation.lines if line.role == role]


def after(shown, line):
    """What was shown after a line was typed, up to the next one."""
    return shown.partition(f"you> {line}\n")[2].partition("you> ")[0]


# ------------------------------------------------------------------------------ replies


def test_replies_are_the_sessions(session, talk):
    conversation, shown = talk(OPEN, "I feel so tired.")
    first = session.respond([{"role": "user", "content": OPEN}])
    assert texts(conversation)[0] == first.text
    second = session.respond([
        {"role": "user", "content": OPEN},
        {"role": "assistant", "content": first.text, "strategy": first.strategy},
        {"role": "user", "content": "I feel so tired."},
    ])  # fmt: skip
    assert texts(conversation)[1] == second.text
    assert " ".join(first.text.split()) in " ".join(after(shown, OPEN).split())
    assert f"{first.strategy} " in after(shown, OPEN)
    assert f"α {first.alpha:g}" in after(shown, OPEN)


def test_what_is_saved_is_answered_alike_by_generate(response_model, talk, tmp_path):
    file, out = tmp_path / "saved.jsonl", tmp_path / "out.jsonl"
    conversation, shown = talk(
        OPEN, "/persona add i have two kids", "I have two kids to feed.", f"/save {file}"
    )
    assert f"saved, readable by you only: {file}" in " ".join(shown.split())
    assert file.stat().st_mode & 0o777 == 0o600
    assert command("generate", f"model={response_model}", f"input={file}", f"output={out}",
                   "decoding.max_new_tokens=24") == 0  # fmt: skip
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [record["response"] for record in records] == texts(conversation)
    assert [record["persona"] for record in records] == [[], ["i have two kids"]]
    assert [record["reference"] for record in records] == texts(conversation)
    [row] = load_esconv(str(file))
    assert len(row["dialog"]) == 4


@pytest.mark.parametrize(("share", "words"), [
    (0.0, "0 %"), (0.004, "<1 %"), (0.0099, "<1 %"), (0.01, "1 %"), (0.414, "41 %"), (1.0, "100 %"),
])  # fmt: skip
def test_a_rare_strategy_is_not_shown_as_impossible(session, talk, monkeypatch, share, words):
    probs = dict.fromkeys(session.strategies, share)
    begun = Growing.take

    def take(self, piece):
        new = begun(self, piece)
        self.begun = dataclasses.replace(self.begun, strategy_probs=probs)
        return new

    monkeypatch.setattr(Growing, "take", take)
    assert f" {words} · α " in after(talk(OPEN)[1], OPEN)


def test_an_unanswered_turn_is_saved_as_a_request(response_model, session, tmp_path):
    conversation = Conversation(session, persona=[])
    conversation.say(OPEN)
    file, out = tmp_path / "saved.jsonl", tmp_path / "out.jsonl"
    run_slash(conversation, f"/save {file}")
    assert command("generate", f"model={response_model}", f"input={file}", f"output={out}",
                   "decoding.max_new_tokens=24") == 0  # fmt: skip
    expected = session.respond([{"role": "user", "content": OPEN}]).text
    assert json.loads(out.read_text())["response"] == expected


def test_a_persona_grows_with_what_is_said(response_model, extractor_model, talk):
    annotate = PersonaSettings(num_beams=1, max_new_tokens=12)
    inferring = pal.load(
        str(response_model), extractor=str(extractor_model), annotate=annotate, decoding=SHORT
    )
    _, shown = talk("/persona", with_session=inferring)
    assert "persona: nothing is inferred yet" in shown
    lines = [OPEN, "I have two dogs at home.", "My wife works at night.", "/persona"]
    conversation, shown = talk(*lines, with_session=inferring)
    assert conversation.infers
    known = conversation.known
    assert known
    assert f"+ {known[0]}" in " ".join(shown.split())
    assert "inferred" in after(shown, "/persona")
    conversation, shown = talk(
        *lines[:3], "/persona add i like tea", "/persona drop 1", "/persona", "/persona infer",
        "What now?", with_session=inferring,
    )  # fmt: skip
    assert "fixed" in after(shown, "/persona drop 1")
    assert "i like tea" in after(shown, "/persona")
    assert conversation.infers
    assert "i like tea" not in conversation.known
    _, shown = talk(*lines[:3], "/persona add i like tea", "Now?", "/persona infer",
                    with_session=inferring)  # fmt: skip
    assert "i like tea" not in after(shown, "/persona infer")  # it was said to a reply between


# ------------------------------------------------------------------------------ slash commands


def test_every_slash_command_is_tested_and_listed(talk, session):
    shown = after(talk("/help")[1], "/help")
    for one in SLASH_COMMANDS.values():
        assert one.usage in shown
    assert HELP in shown
    assert set(SLASH_COMMANDS) == {
        "/help", "/persona", "/strategy", "/alpha", "/seed", "/compare", "/undo", "/retry", "/new",
        "/save", "/save!", "/quit",
    }  # fmt: skip


def test_the_documentation_lists_what_help_lists(session):
    listed = set()
    for line in run_slash(Conversation(session, persona=[]), "/help").text.splitlines():
        name, _, forms = line.partition(" [")
        if forms:  # /compare [on | off]: alone, or with one of these
            listed |= {name, *(f"{name} {form}" for form in forms.rstrip("]").split(" | "))}
        elif line.startswith("/"):
            listed.add(line)
    rows = re.findall(r"^\| (`/.*?) \|", (ROOT / "docs/chat.md").read_text("utf-8"), re.MULTILINE)
    assert set(re.findall("`(.*?)`", " ".join(rows))) == listed


def test_persona_is_shown_and_changed(session):
    conversation = Conversation(session, persona=["i am a nurse"])
    assert "1. i am a nurse" in run_slash(conversation, "/persona").text
    run_slash(conversation, "/persona add  i have   two kids ")
    assert conversation.persona == ["i am a nurse", "i have two kids"]
    run_slash(conversation, "/persona drop 1")
    assert conversation.persona == ["i have two kids"]
    for line, what in (
        ("/persona drop 2", "there are 1"), ("/persona drop", "whole number"),
        ("/persona add", "give a sentence"), ("/persona infer", "no extractor"),
        ("/persona ad x", "did you mean 'add'"),
    ):  # fmt: skip
        with pytest.raises(PalError, match=what):
            run_slash(conversation, line)
        assert conversation.persona == ["i have two kids"]


def test_strategy_alpha_and_seed_are_what_replies_are_asked_with(session, talk):
    lines = ["/strategy information", "/alpha 0.6", "/seed 7", OPEN]
    conversation, shown = talk(*lines)
    expected = session.respond(
        [{"role": "user", "content": OPEN}], strategy="Information", alpha=0.6, seed=7
    )
    assert texts(conversation) == [expected.text]
    assert "Information" in after(shown, OPEN)
    conversation, _ = talk(*lines[:3], "/strategy auto", "/alpha own", "/seed 42", OPEN)
    assert texts(conversation) == [session.respond([{"role": "user", "content": OPEN}]).text]


def test_alpha_takes_numbers_and_strategies(session):
    conversation = Conversation(session, persona=[])
    assert run_slash(conversation, "/alpha").text.endswith("(the model's own)")
    run_slash(conversation, "/alpha Question=1, Reflection of feelings=0.5")
    assert conversation.alpha == {"Question": 1.0, "Reflection of feelings": 0.5}
    assert "Question=1, " in run_slash(conversation, "/alpha").text
    run_slash(conversation, "/alpha 0,0,0,0,0,0,0,1")
    assert conversation.alpha == [0.0] * 7 + [1.0]
    for line, what in (
        ("/alpha much", "'much' is not a number"), ("/alpha 1,2", "8 of them"),
        ("/alpha Qestion=1", "did you mean 'Question'"), ("/alpha nan", "finite"),
        ("/alpha Question=1,Question=2", "twice"), ("/alpha Question=", "not a number"),
        ("/strategy Qestion", "did you mean 'Question'"), ("/seed x", "whole number"),
        ("/compare maybe", "on or off"), ("/undo 3", "takes no argument"),
    ):  # fmt: skip
        with pytest.raises(PalError, match=what):
            run_slash(conversation, line)
        assert conversation.alpha == [0.0] * 7 + [1.0]


@pytest.mark.parametrize(
    ("given", "is_told"),
    [("0", False), ("2", False), ("2.5", True), ("9", True), ("-1", True), ("Question=9", True)],
)
def test_an_alpha_beyond_the_usual_is_set_and_the_range_told(session, given, is_told):
    conversation = Conversation(session, persona=[])
    for line in (f"/alpha {given}", "/alpha"):
        shown = run_slash(conversation, line).text
        assert ("; usual are 0 to 2" in shown) == is_told
        assert "\n" not in shown
    assert conversation.alpha is not None


def test_undo_and_retry(session, talk):
    conversation, _ = talk(OPEN, "I feel so tired.", "/undo")
    assert texts(conversation, "user") == [OPEN]
    assert len(texts(conversation)) == 1
    plain = texts(conversation)[0]
    conversation, _ = talk(OPEN, "/retry")
    assert texts(conversation, "user") == [OPEN]
    other = session.respond([{"role": "user", "content": OPEN}], seed=43).text
    assert texts(conversation) == [other] != [plain]
    _, shown = talk("/undo", "/retry", "/save x.jsonl")
    assert shown.count("nothing was said yet") == 3


def test_new_forgets_what_was_said(talk):
    conversation, _ = talk(OPEN, "/new", OPEN)
    again, _ = talk(OPEN)
    assert conversation.lines == again.lines
    chosen = ("/persona add i live alone", "/strategy Question", "/alpha 0.5")
    conversation, _ = talk(OPEN, *chosen, "/new", OPEN)
    assert conversation.lines == again.lines
    assert (conversation.strategy, conversation.alpha) == (None, None)


def test_quit_ends(talk):
    conversation, shown = talk("/quit", OPEN)
    assert not conversation.lines
    assert OPEN not in shown


def test_unknown_commands_are_told(talk):
    conversation, shown = talk("/stratgy Question", "/xyzzy", "//hello", "   ", "\u200b")
    assert "did you mean '/strategy'" in shown
    assert "no command /xyzzy; /help lists all" in shown
    assert texts(conversation, "user") == ["/hello"]


def test_a_file_is_not_replaced_in_silence(talk, tmp_path):
    file = tmp_path / "there.jsonl"
    file.write_text("mine\n")
    _, shown = talk(OPEN, f"/save {file}", f"/save {tmp_path}", "/save", width=400)
    assert f"{file} exists" in shown
    assert f"{tmp_path} is a folder" in shown
    assert "/save: give a file" in shown
    assert file.read_text() == "mine\n"
    talk(OPEN, f"/save! {file}")
    assert "seeker" in file.read_text()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "nowhere")
    assert "exists" in talk(OPEN, f"/save {tmp_path / 'link.jsonl'}")[1]
    _, shown = talk(OPEN, f"/save {tmp_path}/slip/x.jsonl", width=400)
    assert "there is no folder" in shown
    assert not (tmp_path / "slip").exists()
    _, shown = talk(OPEN, f"/save {file}/below.jsonl", "/save ~/\0x", width=400)
    assert "is not a folder" in shown
    assert "NUL" in shown


def test_compare_shows_the_reply_without_contrast(session, talk):
    messages = [{"role": "user", "content": OPEN}]
    persona = ["i have two kids", "i am a nurse"]
    conversation, shown = talk("/alpha 2", "/compare", OPEN, persona=persona)
    with_alpha = session.respond(messages, persona=persona, alpha=2.0)
    plain = session.respond(messages, persona=persona, alpha=0.0)
    assert with_alpha.text != plain.text
    both = " ".join(after(shown, OPEN).split())
    assert " ".join(with_alpha.text.split()) in both
    assert " ".join(plain.text.split()) in both
    assert "α 0" in both
    assert texts(conversation) == [with_alpha.text]
    _, shown = talk("/alpha 0", "/compare on", OPEN)
    assert "the same" in after(shown, OPEN)


def test_a_model_without_persona_or_contrast_says_so(session, monkeypatch):
    monkeypatch.setattr(session.model.config, "persona_mode", "none")
    for more in ({"persona": ["i am a nurse"]}, {"persona": [], "compare": True}):
        with pytest.raises(ConfigError, match="persona"):
            Conversation(session, **more)
    conversation = Conversation(session, persona=[])
    with pytest.raises(ConfigError, match="persona"):
        run_slash(conversation, "/persona add i am a nurse")
    assert conversation.persona is None


def test_commands_are_completed(session):
    conversation = Conversation(session, persona=[])
    assert completions(conversation, "/re") == ["/retry"]
    assert completions(conversation, "/strategy ref") == ["/strategy Reflection of feelings"]
    assert completions(conversation, "hello") == []


# ------------------------------------------------------------------------------ the guard


def test_help_is_shown_apart_and_stays(session, talk):
    conversation, shown = talk(CRISIS, "hello there", "/new", "/undo", "hello again")
    fixed = after(shown, CRISIS)
    assert "pal ·" not in fixed  # no reply was generated
    for line in (CRISIS, "hello there", "/new", "hello again"):
        lines = after(shown, line).splitlines()
        assert any(one.startswith("! ") and HELP in one for one in lines), line
    assert "pal ·" in after(shown, "hello again")
    for line in conversation.lines:
        assert HELP not in line.text


def test_what_is_taken_back_stays_in_the_guards_memory(talk):
    conversation, shown = talk(CRISIS, "/undo", "hello there")
    assert texts(conversation, "user") == ["hello there"]
    assert HELP in after(shown, "/undo")
    assert HELP in after(shown, "hello there")


def test_a_reply_that_may_not_be_shown_is_taken_back(session, talk, wordy, monkeypatch):
    seed, whole = wordy
    words = whole.split(" ")
    monkeypatch.setattr(
        session.guard, "check_reply",
        lambda reply, verdict: "Let us talk of that." if len(reply.split(" ")) > 4 else None,
    )  # fmt: skip
    conversation, shown = talk(f"/seed {seed}", OPEN, width=400)
    lines = after(shown, OPEN).splitlines()
    assert lines[1] == " ".join(words[:4])
    assert lines[2:4] == ["! The reply above is withdrawn.", "Let us talk of that."]
    assert texts(conversation) == ["Let us talk of that."]


def test_a_guard_that_fails_shows_help_and_no_reply(session, talk, monkeypatch, caplog):
    def fail(texts):
        raise RuntimeError(f"cannot read {texts[0]}")

    monkeypatch.setattr(session.guard._detectors[0], "detect", fail)
    monkeypatch.setattr(session.responder, "live", None)  # whoever generates fails
    _, shown = talk(OPEN)
    assert HELP in after(shown, OPEN)
    unavailable = session.guard._texts.unavailable
    assert unavailable in " ".join(after(shown, OPEN).split())
    assert OPEN not in caplog.text


def test_a_model_that_fails_ends_no_chat(session, talk, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError(f"cannot read {OPEN}")

    with monkeypatch.context() as broken:
        broken.setattr(type(session), "advance", fail)
        conversation, shown = talk(OPEN, "/persona")
    assert "the model failed (RuntimeError)" in after(shown, OPEN)
    assert f"read {OPEN}" not in shown + caplog.text
    assert texts(conversation, "user") == [OPEN]


@pytest.mark.parametrize("line", ["caf\udce9 hello", "word " * 15_000])
def test_what_cannot_be_read_gets_help_and_is_in_nobodys_way(talk, line):
    conversation, shown = talk(line, OPEN)
    assert shown.count(HELP) >= 2
    assert texts(conversation, "user") == [OPEN]
    assert len(texts(conversation)) == 1


def test_people_are_told_what_they_talk_to(response_model, talk):
    now = [0.0]

    def clock():
        now[0] += EVERY / 2 - 1
        return now[0]

    _, shown = talk("/seed", "/seed", "/seed", "/seed", clock=clock, width=200)
    assert shown.startswith(NOTICE)
    assert shown.count(NOTICE) == 2
    off = pal.load(str(response_model), guard=GuardSettings(off=True))
    _, shown = talk("/seed", "/seed", "/seed", "/seed", clock=clock, width=200, with_session=off)
    assert shown.count("THE GUARD IS OFF") == 2


# ------------------------------------------------------------------------------ a stopped reply


def test_a_stopped_reply_keeps_what_was_shown(session, talk, wordy, monkeypatch):
    seed, whole = wordy
    take, stopped = type(session).take, []

    def interrupt(self, turn, *given):
        if len(turn.shown.split()) >= 3 and not stopped:
            stopped.append(turn.shown)
            raise KeyboardInterrupt
        return take(self, turn, *given)

    monkeypatch.setattr(type(session), "take", interrupt)
    conversation, shown = talk(f"/seed {seed}", OPEN, "go on", width=400)
    assert after(shown, OPEN).splitlines()[1:] == [*stopped, "(stopped)"]
    cut = conversation.lines[1]
    assert (cut.text, cut.cut) == (stopped[0], True)
    assert whole.startswith(cut.text)
    assert conversation.record()["dialog"][1]["cut"] is True
    assert len(conversation.lines) == 4


@pytest.mark.parametrize("fault", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("step", ["prepare", "advance", "take"])
def test_a_retry_that_comes_to_nothing_leaves_the_reply(
    session, talk, monkeypatch, tmp_path, step, fault
):
    """Until another reply has words, the one before is there: to read, to go on from, to save."""
    given, fails = getattr(type(session), step), []

    def maybe(*arguments, **more):
        if fails:
            raise fault
        return given(*arguments, **more)

    def strike():
        fails.append(True)
        return "/retry"

    monkeypatch.setattr(type(session), step, maybe)
    conversation, out = Conversation(session, persona=[]), io.StringIO()
    lines = iter([lambda: OPEN, strike, lambda: f"/save {tmp_path / 'a'}", lambda: "/quit"])
    Terminal(conversation, Screen(out, width=400), lambda: next(lines)()).run()
    fails.clear()
    first = session.respond([{"role": "user", "content": OPEN}])
    assert texts(conversation) == [first.text]
    assert conversation.lines[1].strategy == first.strategy
    [record] = [json.loads(line) for line in (tmp_path / "a").read_text().splitlines()]
    assert [turn["text"] for turn in record["dialog"]] == [OPEN, first.text]
    lines = iter(["/retry", "And now?", "/quit"])
    Terminal(conversation, Screen(out), lambda: next(lines)).run()
    assert len(conversation.lines) == 4
    assert texts(conversation)[0] != first.text


def test_a_line_that_is_no_text_ends_the_chat_in_a_line(session):
    for encoding in ("utf-16", "utf-8"):
        raw = io.TextIOWrapper(io.BytesIO(b"caf\xe9 zebra\n"), encoding=encoding)
        with pytest.raises(DataError, match=f"not text in {encoding} .*PYTHONIOENCODING") as told:
            read_line(raw.readline, encoding)
        assert "zebra" not in str(told.value)
        assert told.value.__cause__ is None


# ------------------------------------------------------------------------------ the screen


@pytest.mark.parametrize("width", [8, 20, 79])
def test_lines_fit_the_width(talk, width):
    _, shown = talk("/help", OPEN, CRISIS, width=width)
    for line in shown.splitlines():
        words = line.removeprefix("! ").split()
        assert len(line) <= width or len(words) <= 1 or line.startswith("you> "), line


def test_words_flow_as_they_come():
    out = io.StringIO()
    screen = Screen(out, width=12)
    for piece in ("one", " two", " three", " fo", "ur\nfive", " äöü", " 日本語 日本"):
        screen.flow(piece)
    screen.end()
    assert out.getvalue() == "one two\nthree four\nfive äöü\n日本語 日本\n"


def test_nothing_moves_the_cursor():
    out = io.StringIO()
    Screen(out, width=80).line("a\x1b[2Jb\rc\x9b1md")
    assert out.getvalue() == "a[2Jbc1md\n"


def test_signs_that_an_encoding_lacks():
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    Screen(out, width=80).line("α = 0 · “fine” – don’t ☂")
    assert raw.getvalue() == b'alpha = 0 - "fine" - don\'t \\u2602\n'


def test_escapes_only_where_they_are_wanted(monkeypatch):
    class Tty(io.StringIO):
        def isatty(self):
            return True

    def written(out=None, **more):
        for name in ("NO_COLOR", "TERM"):
            monkeypatch.delenv(name, raising=False)
        for name, value in more.items():
            monkeypatch.setenv(name, value)
        out = out or Tty()
        Screen(out).line("words", "bold")
        return out.getvalue()

    assert written(TERM="xterm") == "\x1b[1mwords\x1b[0m\n"
    assert written(TERM="dumb") == written(NO_COLOR="1") == written(io.StringIO()) == "words\n"


# ------------------------------------------------------------------------------ over a pipe


def test_a_line_for_a_line(session):
    given = io.StringIO(f"{OPEN}\n\n/alpha 2\n/persona add i am a nurse\n/compare\nI am tired.\n")
    out, told = io.StringIO(), []
    conversation = Conversation(session, persona=[])
    answer_lines(conversation, given, out, told.append)
    lines = out.getvalue().split("\n")
    assert len(lines) == 3
    assert lines[2] == ""
    assert lines[0] == " ".join(texts(conversation)[0].split())
    left, right = lines[1].split("\t")
    assert left == " ".join(texts(conversation)[1].split()) != right
    assert told[:2] == [NOTICE, session.standing_help]
    assert "nurse" in told[3]


def test_a_line_that_cannot_be_answered_is_named(session):
    for line, what in (("/stratgy x", "line 2: no command"), ("/alpha x", "line 2: /alpha")):
        with pytest.raises(PalError, match=what):
            answer_lines(
                Conversation(session, persona=[]), io.StringIO(f"hello\n{line}\nhi\n"),
                io.StringIO(), [].append,
            )  # fmt: skip
