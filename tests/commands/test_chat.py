"""``pal chat`` as people start it: in a terminal, over a pipe, stopped in the middle."""

import json
import re
import sys

import pytest

import pal
from pal.cli import parse_arguments
from pal.commands import load_settings
from pal.commands.chat import ChatSettings, chat
from pal.core.errors import ConfigError
from pal.decoding.settings import DecodingSettings
from pal.terminal.face import ENDED, NOTICE
from tests.conversation.test_session import CRISIS
from tests.jobs import command
from tests.terminal.live import TerminalChat, over_a_pipe

ANY_REPLY = """
from pal.guard import Guard
Guard.check_reply = lambda self, reply, verdict: None
"""
SLOW = (
    ANY_REPLY
    + """
import time
from pal.conversation.session import Session
advance = Session.advance
def slowly(self, live):
    time.sleep(0.3)
    return advance(self, live)
Session.advance = slowly
"""
)
FAILING = """
from pal.guard.lexicon import Lexicon
detect = Lexicon.detect
def fail(self, texts):
    for text in texts:
        if "zebra" in text:
            raise RuntimeError(text)
    return detect(self, texts)
Lexicon.detect = fail
"""
OPEN = "I lost my job last week."
CANARY = "zebra-quartz-lantern"
ESCAPE = "\x1b"


def test_over_a_pipe(response_model, language_model, tmp_path):
    """A line for a line, nothing else on standard output, and no text anywhere on the disk."""
    given = f"{OPEN}\n\n{CANARY} is what I call my dog.\n/strategy Question\nWhat now?\n{CRISIS}"
    home = {name: str(tmp_path) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    for model in (response_model, language_model):
        code, out, told = over_a_pipe(
            given, f"model={model}", "decoding.max_new_tokens=16", before=ANY_REPLY, cwd=tmp_path,
            **home,
        )  # fmt: skip
        assert code == 0, told
        lines = out.splitlines()
        assert len(lines) == 4
        session = pal.load(str(model), decoding=DecodingSettings(max_new_tokens=16))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pal.guard.Guard.check_reply", lambda self, reply, verdict: None)
            first = session.respond([{"role": "user", "content": OPEN}])
        assert lines[0] == " ".join(first.text.split())
        assert "findahelpline.com" in lines[3]
        assert ESCAPE not in out + told
        assert NOTICE in told
        assert told.startswith(f"loading {model}\n")
        assert "strategy: Question" in told
        assert "Traceback" not in told
        assert CANARY not in told
        for file in tmp_path.rglob("*"):
            assert not file.is_file() or CANARY.encode() not in file.read_bytes(), file


def test_a_pipe_of_another_encoding(response_model):
    given = f"{OPEN}\nI am in the café.\n".encode() + b"caf\xe9\n" + OPEN.encode()
    code, out, told = over_a_pipe(
        given, f"model={response_model}", "decoding.max_new_tokens=8", before=ANY_REPLY,
        PYTHONIOENCODING="ascii",
    )  # fmt: skip
    assert code == 0, told
    lines = out.splitlines()
    assert len(lines) == 4
    assert out.isascii()
    assert "not working" not in lines[1]
    assert "not working" in lines[2]  # what the guard cannot read
    assert "findahelpline.com" in lines[2]
    assert "not working" not in lines[3]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_pipe_that_is_no_text_is_told_in_a_line(response_model, encoding):
    code, out, told = over_a_pipe(
        f"{CANARY}\n".encode() + b"\xff\xfe\xff\n", f"model={response_model}",
        before=f"import sys; sys.stdin.reconfigure(encoding={encoding!r})",
    )  # fmt: skip
    assert (code, out) == (2, "")
    last = told.splitlines()[-1]
    assert last.startswith(f"pal: error: line 1: standard input is not text in {encoding} (")
    assert last.endswith("set PYTHONIOENCODING=utf-8")
    assert "Traceback" not in told
    assert CANARY not in told


def test_a_pipe_of_utf_16_is_read_or_gets_help(response_model):
    """Zero bytes between letters hide nothing from the guard."""
    for encoding in ("utf-16", "utf-16-be"):
        code, out, told = over_a_pipe(
            f"{CRISIS}\nI am in the café.\n".encode(encoding), f"model={response_model}",
            "decoding.max_new_tokens=8",
        )  # fmt: skip
        assert code == 0, told
        assert "findahelpline.com" in out.splitlines()[0]
        assert "Traceback" not in told


def test_a_pipe_with_a_mistake(response_model):
    code, out, told = over_a_pipe(f"/stratgy x\n{OPEN}\n", f"model={response_model}")
    assert (code, out) == (2, "")
    assert told.splitlines()[-1] == (
        "pal: error: line 1: no command /stratgy; did you mean '/strategy'?; /help lists all"
    )


def test_a_guard_that_fails_lets_nothing_be_generated(response_model):
    code, out, told = over_a_pipe(
        f"{CANARY}\n", f"model={response_model}", before=f"{FAILING}\n"
        "from pal.conversation.session import Session\nSession.live = None\n",
    )  # fmt: skip
    assert code == 0, told
    assert "not working" in out
    assert "findahelpline.com" in out
    assert CANARY not in out + told
    assert "Traceback" not in told


def test_in_a_narrow_terminal(response_model, tmp_path):
    """Twenty columns, the usual keys, a reply that is stopped, and the end of the input."""
    options = ["decoding.max_new_tokens=60", "decoding.min_new_tokens=40"]
    file = tmp_path / "saved.jsonl"
    chat = TerminalChat(
        f"model={response_model}", *options, columns=20, before=SLOW, cwd=tmp_path,
        HOME=str(tmp_path), TERM="xterm",
    )  # fmt: skip
    with chat:
        begin = chat.read("you> ")
        shown = re.sub(r"\x1b\[[0-9;?]*[a-z]", "", begin).replace("\r\n", "\n")
        own = shown[shown.index("This is a computer") :]
        assert NOTICE in " ".join(own.split())
        assert max(len(line) for line in own.splitlines() if " " in line.lstrip("! ")) <= 20
        chat.type(f"{OPEN}\r")
        chat.read("pal ·")
        chat.type("\x03")
        chat.read("(stopped)")
        chat.read("you> ")
        chat.type("\x1b[A")  # the line before, which is edited
        chat.type("\x01/strategy Question \x0b\r")
        assert "strategy: Question" in " ".join(chat.read("you> ").split())
        chat.type("/st\t auto\r")
        assert "auto (the model decides)" in " ".join(chat.read("you> ").split())
        chat.type(f"{CRISIS}\r")
        assert "findahelpline.com" in chat.read("you> ")
        chat.type(f"/save {file}\r")
        chat.read("you> ")
        chat.type("\x04")
        assert chat.rest()[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == [file.name]  # no history
    [record] = [json.loads(line) for line in file.read_text().splitlines()]
    assert record["dialog"][0]["text"] == OPEN


def test_interrupts_end_in_one_line(response_model, tmp_path):
    options = ["decoding.max_new_tokens=60", "decoding.min_new_tokens=40"]
    for in_a_reply in (False, True):
        chat = TerminalChat(
            f"model={response_model}", *options, before=SLOW, cwd=tmp_path, TERM="dumb"
        )
        with chat:
            chat.read("you> ")
            if in_a_reply:
                chat.type(f"{OPEN}\r")
                chat.read("pal ·")
                chat.type("\x03")
                chat.read("(stopped)")
            code, rest = chat.press_until_it_ends("\x03")
        assert code == 130
        assert rest.rstrip().endswith(f"pal: {ENDED}")
        assert "Traceback" not in rest
        assert ESCAPE not in rest


def test_compare_can_be_given_as_an_option():
    given = parse_arguments(["chat", "runs/pal", "--compare", "persona=[i have two kids]"])
    settings = load_settings("chat", None, [f"model={given.positional[0]}", *given.overrides])
    assert settings.compare
    assert settings.persona == ["i have two kids"]


def test_the_option_is_for_the_chat_alone(capsys):
    assert command("generate", "--compare") == 2
    assert "'compare' is a setting of chat" in capsys.readouterr().err


def test_what_is_missing_is_said_in_one_line(capsys, response_model):
    assert command("chat") == 2
    assert "model=" in capsys.readouterr().err
    assert command("chat", f"model={response_model}", "guard.helplines=/nowhere.yaml") == 2
    assert "/nowhere.yaml" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
def test_a_closed_stream_is_told(response_model, monkeypatch, capsys, stream):
    monkeypatch.setattr(sys, stream, None)
    with pytest.raises(ConfigError, match="open both"):
        chat(ChatSettings(model=str(response_model)))
