"""``pal study`` with trained models, from the first command to the results."""

import json
import re
import shutil
import signal
import socket

import httpx
import pytest

import pal
from pal.commands.study import _links_astray
from pal.core.files import read_json
from pal.data.esconv import load_esconv
from pal.guard import GuardSettings
from pal.study.store import StudyStore
from pal.study.systems import load_supporters
from tests.jobs import ESCONV, command, start
from tests.study.live import QUESTIONS, make_study
from tests.study.test_study import CRISIS, Person

SITUATIONS = """\
My mother is ill and I am worried about her.
I want to kill myself tonight.
I lost my job and the rent is due.
"""


def create(tmp_path, *arguments):
    (tmp_path / "situations.txt").write_text(SITUATIONS)
    return command(
        "study", "create", f"input={tmp_path / 'situations.txt'}", f"output={tmp_path / 's.db'}",
        "guard.country=GB", "study.min_messages=1", *arguments,
    )  # fmt: skip


def two(model, other=None, extractor="null"):
    return (
        f"study.systems={{zebra: {{model: {model}, extractor: {extractor}}}, "
        f"quartz: {{model: {other or model}, decoding: {{alpha: 0}}}}}}"
    )


def serving(path, said=None):
    process = start("study", "serve", str(path), "study_server.port=0")
    for line in process.stderr:
        if said is not None:
            said.append(line)
        if found := re.search(r"study is at (http://127\S+:\d+)", line):
            return process, found[1]
    raise AssertionError(process.wait())


def end_of(process):
    process.kill()
    process.communicate()


def test_a_study_with_trained_models(response_model, extractor_model, tmp_path, capsys):
    systems = two(response_model, extractor=extractor_model)
    assert create(tmp_path, systems, "study.raters=2", "study.items=1") == 0
    shown = capsys.readouterr().out
    assert "signs of a crisis: 1" in shown  # the one of a crisis
    links = re.findall(r"^http://127.0.0.1:8010/s/(\S{22})$", shown, re.MULTILINE)
    assert len(set(links)) == 2
    file, told = tmp_path / "s.db", []
    process, address = serving(file, told)
    assert sum("nobody has checked these entries" in line for line in told) == 1
    try:
        first = Person(address, links[0])
        assert "999" in first.text
        first.begin()
        for text in ("Hi, I am a nurse.", "I have two dogs."):
            first.say(text)
            assert text in first.text
        said = first.text
    finally:
        end_of(process)
    process, address = serving(file)
    try:
        people = [Person(address, link) for link in links]
        assert re.findall('class="text">.*?<', people[0].text) == re.findall(
            'class="text">.*?<', said
        )
        people[1].begin()
        people[1].say("hello")
        people[1].end()
        people[1].say("hello")
        people[1].end()
        people[1].all_answered("A")
        assert "Thank you" in people[1].text
        assert "999" in people[0].say(CRISIS)
        process.terminate()
        assert process.wait(timeout=120) == 0
        assert "Traceback" not in process.stderr.read()
    finally:
        end_of(process)
    store = StudyStore(file)
    [task] = store.tasks(1)
    turns = store.turns(task.task, "A")
    speakers = [turn.speaker for turn in turns]
    assert speakers[::2] == ["rater"] * 3
    assert speakers[5] == "guard"
    # A model that learnt next to nothing says what the guard takes for a phone number at times.
    for turn in turns[1:4:2]:
        assert turn.speaker == "guard" or turn.details["strategy"]
        assert turn.details["persona"] == [] or task.systems["A"] == "zebra"
    [done] = store.tasks(2)
    won = done.systems["A"]
    spoke = any(turn.speaker == "guard" for side in "AB" for turn in store.turns(done.task, side))
    store.close()
    assert command("study", "export", f"input={file}", f"output={tmp_path / 'out'}") == 0
    if spoke:
        assert "No task counts yet. Tasks left out" in capsys.readouterr().out
        return
    [pair] = read_json(tmp_path / "out" / "results.json")["pairs"]
    assert (pair["a"], pair["b"]) == ("zebra", "quartz")
    for row in pair["questions"]:
        assert (row["a_wins"], row["b_wins"]) == ((1, 0) if won == "zebra" else (0, 1))
    assert len(pair["questions"]) == len(QUESTIONS)


def test_the_same_words_get_the_reply_of_the_plain_session(response_model, tmp_path, capsys):
    """After a kill between message and reply, the reply is the one that would have come."""
    assert create(tmp_path, two(response_model), "study.seed=5") == 0
    store = StudyStore(tmp_path / "s.db")
    supporters = load_supporters(store.config, rows=4, timeout=60)
    messages = [{"role": "seeker", "content": "I lost my job."}]
    session = pal.load(str(response_model), guard=GuardSettings(country="GB"), seed=5)
    for _ in range(2):
        reply = supporters["zebra"].respond(messages, id="abc/A", pinned=0)
        assert reply == session.respond(messages, id="abc/A")
    for supporter in supporters.values():
        supporter.close()


def test_weights_that_changed_are_refused(response_model, tmp_path, capsys):
    copy = tmp_path / "model"
    shutil.copytree(response_model, copy)
    assert create(tmp_path, two(response_model, copy)) == 0
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    capsys.readouterr()
    assert command("study", "serve", f"input={tmp_path / 's.db'}", "study_server.port=0") == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "study.systems.quartz: model or extractor is not what it was" in line


@pytest.mark.parametrize(("arguments", "what"), [
    ([], "expected two, name → model, got 0"),
    (["study.systems={a: {model: .}}"], "expected two, name → model, got 1"),
    (["study.systems={a: {model: .}, b: {}}"], "study.systems"),
    (["study.systems={a: {model: .}, Tie: {model: .}}"], "'Tie' is an answer"),
    (["study.kind=persona", "study.systems={a: {model: .}}"], "a persona study has no systems"),
    (["study.systems={a: {model: .}, b: {model: .}}", "study.min_messages=30"], "is more than"),
    (["study.kind=persona"], "situations.txt"),
    (["study.kind=nonsense"], "study.kind"), (["study.days=0"], "study.days"),
    (["study.address=ftp://x"], "study.address: should be an address that begins with http://"),
    (["study.systems={a b: {model: x}, c: {model: y}}"], "should be a name of letters, digits"),
    (["study.kind=persona", "study.address=http://127.0.0.1:80100"], "study.address=http"),
])  # fmt: skip
def test_mistakes_are_told_in_a_line(arguments, what, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text("{}")  # which makes a model of the folder
    assert create(tmp_path, *arguments) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert what in line
    assert not (tmp_path / "s.db").exists()


def test_a_port_that_is_taken(tmp_path, capsys):
    items = {"p": {"sample": "d/1", "persona": ["i am a nurse."], "context": []}}
    make_study(tmp_path / "s.db", kind="persona", items=items)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        given = f"study_server.port={port}"
        assert command("study", "serve", f"input={tmp_path / 's.db'}", given) == 2
    assert given in capsys.readouterr().err


@pytest.mark.parametrize("address", [
    "http://127.0.0.1:8010", "http://localhost:8010/study", "http://localhost", "https://[::1]",
])  # fmt: skip
def test_links_to_another_port_of_this_machine_are_warned_of(address):
    said = _links_astray(address, 8743)
    assert "\n" not in said
    wanted = {"http://localhost": 80, "https://[::1]": 443}.get(address, 8010)
    for part in (address, f"study_server.port={wanted},", "study.address=http://127.0.0.1:8743"):
        assert part in said
    assert _links_astray(address, wanted) is None


def test_links_to_a_proxy_elsewhere_are_not_warned_of():
    assert _links_astray("https://study.example.org", 8010) is None
    assert _links_astray("http://study.example.org:8010", 8743) is None
    assert _links_astray("http://localhost:80100", 8743) is None


def test_the_port_of_another_server_is_told_from_that_of_a_study(tmp_path, capsys):
    for given in ("serve.port=8742", "port=8742"):
        assert command("study", "serve", str(tmp_path / "s.db"), given) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert "did you mean 'study_server.port'?" in line


def test_a_persona_study_needs_no_model(tmp_path, capsys):
    corpus = tmp_path / "pesconv.jsonl"
    rows = [dict(row) for row in load_esconv(str(ESCONV), "validation")][:6]
    lines = []
    for row in rows:
        turns = [
            {"speaker": turn["speaker"], "text": turn["text"], "strategy": turn["strategy"],
             "persona": [f"i am person {row['id']}."]}
            for turn in row["dialog"]
        ]  # fmt: skip
        lines.append(json.dumps({"id": row["id"], "dialog": turns}))
    corpus.write_text("\n".join(lines))
    assert command(
        "study", "create", f"input={corpus}", f"output={tmp_path / 'p.db'}", "study.kind=persona",
        "study.items=4", "study.raters=3", "study.address=http://localhost:9",
    ) == 0  # fmt: skip
    shown, said = capsys.readouterr()
    assert shown.rstrip().endswith("p.db study_server.port=9")
    assert "guard.country is not set" in said
    assert sum("study.contact is not set" in line for line in said.splitlines()) == 1
    assert "fewer than" not in said
    [token, *_] = re.findall(r"/s/(\S{22})$", shown, re.MULTILINE)
    told = []
    process, address = serving(tmp_path / "p.db", told)
    assert told[0] == f"loading {tmp_path / 'p.db'}\n"
    [warned] = [line for line in told if "links are dead" in line]
    assert f"study.address={address}" in warned
    try:
        person = Person(address, token)
        person.begin()
        assert "Task 1 of 4" in person.text
        assert "i am person" in person.text
        assert httpx.get(f"{address}/healthz").text == "ok"
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)
        assert "stopped; requests that had begun were finished" in process.stderr.read()
    finally:
        end_of(process)
    assert command(
        "study", "create", f"input={corpus}", f"output={tmp_path / 'q.db'}", "study.kind=persona",
        "study.items=999", "guard.country=US", "study.contact=Dr. Lee",
    ) == 0  # fmt: skip
    said = capsys.readouterr().err
    assert "fewer than study.items=999" in said
    assert "guard.country" not in said
    assert "study.contact" not in said
    own = tmp_path / "consent.txt"
    own.write_text("Ask Dr. Lee.")
    assert command(
        "study", "create", f"input={corpus}", f"output={tmp_path / 'r.db'}", "study.kind=persona",
        f"study.consent={own}",
    ) == 0  # fmt: skip
    assert "study.contact" not in capsys.readouterr().err
    given = (f"study.consent={own}", "study.contact= Dr. Lee ")
    assert command(
        "study", "create", f"input={corpus}", f"output={tmp_path / 't.db'}", "study.kind=persona",
        *given,
    ) == 0  # fmt: skip
    store = StudyStore(tmp_path / "t.db")
    assert (store.config["consent"], store.config["contact"]) == ("Ask Dr. Lee.", "Dr. Lee")
    store.close()
