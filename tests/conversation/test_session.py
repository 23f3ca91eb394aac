"""The session that all faces share: its replies are those of ``pal generate``, behind a guard."""

import json
import logging

import pytest

import pal
from pal.conversation.batching import Batcher, BusyError
from pal.conversation.session import Ask, Session
from pal.core.errors import ConfigError, DataError
from pal.decoding.settings import DecodingSettings
from pal.guard import GuardSettings, load_guard
from pal.modeling.responder import load_model_and_tokenizer, make_responder
from pal.persona.settings import PersonaSettings
from tests.jobs import command
from tests.modeling.small import bundled_dialogues

pytestmark = pytest.mark.usefixtures("any_reply_may_be_shown")

CRISIS = "I can't do this anymore. I want to kill myself tonight."
FAR_LATER = [
    {"role": role, "content": text}
    for role, text in [*[("user", "We had soup."), ("assistant", "i see.")] * 4, ("user", "Good.")]
]
LEAST_ROWS = 3


def messages_of(turns):
    roles = {"seeker": "user", "supporter": "assistant"}
    return [
        {"role": roles[turn["speaker"]], "content": turn["text"], "strategy": turn["strategy"]}
        for turn in turns
    ]


@pytest.fixture
def any_reply_may_be_shown(monkeypatch):
    """Models that learnt nothing say what reads as a phone number now and then."""
    monkeypatch.setattr("pal.guard.Guard.check_reply", lambda self, reply, verdict: None)


def beginnings(rows, count=20):
    """Beginnings of dialogues that end with a seeker whom the guard lets be answered, by id."""
    guard, found = load_guard(GuardSettings()), {}
    for row in rows:
        ends = [n for n, turn in enumerate(row["dialog"]) if turn["speaker"] == "seeker"]
        turns = row["dialog"][: ends[min(len(ends) - 1, 2 + len(found) % 4)] + 1]
        said = [turn["text"] for turn in turns if turn["speaker"] == "seeker"]
        if guard.review(said).action == "reply":
            found[row["id"]] = turns
        if len(found) == count:
            break
    return found


@pytest.fixture(scope="module")
def asked():
    """Twenty of the bundled corpus."""
    return beginnings(bundled_dialogues())


def generated(model, asked, tmp_path, *more):
    """What ``pal generate`` writes for dialogues that wait for an answer."""
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [
        {"id": name, "request": True, "dialog": [
            {key: turn[key] for key in ("speaker", "text", "strategy")} for turn in turns
        ]}
        for name, turns in asked.items()
    ]  # fmt: skip
    given.write_text("\n".join(map(json.dumps, rows)))
    assert command("generate", f"model={model}", f"input={given}", f"output={out}", *more) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    return {record["id"].rpartition("/")[0]: record for record in records}


@pytest.fixture(params=["response_model", "language_model"])
def model(request):
    return str(request.getfixturevalue(request.param))


def same(reply, record):
    return (
        reply.text == record["response"] and reply.strategy == record["strategy"]
        and reply.alpha == record["alpha"] and reply.tokens == record["tokens"]
        and reply.strategy_probs == record["strategy_probs"]
    )  # fmt: skip


def test_replies_are_those_of_generate(model, asked, tmp_path):
    wanted = generated(model, asked, tmp_path)
    session = pal.load(model, rows=LEAST_ROWS)
    for name, turns in asked.items():
        reply = session.respond(messages_of(turns), id=name)
        assert same(reply, wanted[name])
        pieces = list(session.respond(messages_of(turns), id=name, stream=True))
        assert "".join(piece.text for piece in pieces) == reply.text
        assert pieces[-1].reply == reply
        assert pieces[0].growing.strategy == reply.strategy
        assert len(pieces) > 1 or len(reply.text.split()) < 2
    together = session.respond([messages_of(turns) for turns in asked.values()], id="chat")
    assert together == [session.respond(messages_of(turns)) for turns in asked.values()]


def test_seed_strategy_and_alpha_are_those_of_generate(model, asked, tmp_path):
    chosen = dict(list(asked.items())[:4])
    wanted = generated(
        model, chosen, tmp_path, "seed=7", "decoding.strategy=Information", "decoding.alpha=0.6"
    )
    session = pal.load(model)
    for name, turns in chosen.items():
        reply = session.respond(
            messages_of(turns), strategy="Information", alpha=0.6, seed=7, id=name
        )
        assert same(reply, wanted[name])
        other = session.respond(messages_of(turns), strategy="Information", seed=8, id=name)
        assert other.text != reply.text


def test_beams_come_whole(response_model, asked, tmp_path):
    """Where the library decodes, a stream has one piece, and what is asked for still holds."""
    chosen = dict(list(asked.items())[:3])
    options = ["decoding.num_beams=2", "decoding.do_sample=false"]
    wanted = generated(response_model, chosen, tmp_path, *options)
    decoding = DecodingSettings(num_beams=2, do_sample=False)
    session = pal.load(str(response_model), decoding=decoding)
    for name, turns in chosen.items():
        reply, record = session.respond(messages_of(turns), id=name), wanted[name]
        assert (reply.text, reply.strategy) == (record["response"], record["strategy"])
        assert reply.strategy_probs == pytest.approx(record["strategy_probs"], abs=1e-5)
        short = session.respond(messages_of(turns), id=name, max_new_tokens=3, alpha=0.25)
        assert short.tokens <= 3
        assert short.alpha == 0.25


def test_personas_are_inferred_as_annotate_does(response_model, extractor_model, asked, tmp_path):
    given, noted = tmp_path / "dialogues.jsonl", tmp_path / "noted.jsonl"
    rows = [{"id": name, "request": True, "dialog": [
        {key: turn[key] for key in ("speaker", "text", "strategy")} for turn in turns
    ]} for name, turns in list(asked.items())[:5]]  # fmt: skip
    given.write_text("\n".join(map(json.dumps, rows)))
    options = ["annotate.num_beams=2", "annotate.max_new_tokens=12"]
    out = tmp_path / "out.jsonl"
    assert command(
        "annotate", f"model={extractor_model}", f"input={given}", f"output={noted}", *options
    ) == 0  # fmt: skip
    assert command(
        "generate", f"model={response_model}", f"input={noted}", f"output={out}"
    ) == 0  # fmt: skip
    records = [json.loads(line) for line in out.read_text().splitlines()]
    settings = PersonaSettings(num_beams=2, max_new_tokens=12)
    session = pal.load(str(response_model), extractor=str(extractor_model), annotate=settings)
    assert any(record["persona"] for record in records)
    for (name, turns), record in zip(asked.items(), records, strict=False):
        reply = session.respond(messages_of(turns), id=name)
        assert list(reply.persona) == record["persona"]
        assert same(reply, record)
        assert session.respond(messages_of(turns), persona=[], id=name).persona == ()


def test_a_persona_is_what_the_reply_knows(model, asked):
    session, turns = pal.load(model), next(iter(asked.values()))
    reply = session.respond(messages_of(turns), persona=["i have two dogs", "i work at night"])
    assert reply.persona == ("i have two dogs", "i work at night")
    assert reply.strategy_probs != session.respond(messages_of(turns)).strategy_probs


@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_ends_before_a_stop(model, asked, stream):
    session, turns = pal.load(model), next(iter(asked.values()))
    whole = session.respond(messages_of(turns)).text
    for width in (1, 4, 9):
        mark = whole[len(whole) // 2 :][:width]
        given = session.respond(messages_of(turns), stop=[mark, "§"], stream=stream)
        pieces = list(given) if stream else []
        reply = pieces[-1].reply if stream else given
        assert reply.text == whole[: whole.find(mark)].rstrip()
        assert reply.finish == "stop"
        if stream:
            assert "".join(piece.text for piece in pieces) == reply.text


def test_the_guard_reads_notes_that_are_given(model, asked):
    session, turns = pal.load(model), next(iter(asked.values()))
    calm = session.respond(messages_of(turns), persona=["i have two dogs"])
    assert calm.guard.action == "reply"
    for notes in (["i have two dogs", "i want to kill myself"], "i want to kill myself"):
        told = session.respond(messages_of(turns), persona=notes)
        assert (told.guard.action, told.finish) == ("fixed", "guard")


def test_one_stop_is_one_text(model, asked):
    session, turns = pal.load(model), next(iter(asked.values()))
    whole = session.respond(messages_of(turns)).text
    mark = whole[len(whole) // 2 :][:4]
    one, several = (session.respond(messages_of(turns), stop=stop) for stop in (mark, [mark]))
    assert one == several


def test_a_limit_cuts(model, asked):
    session, turns = pal.load(model), next(iter(asked.values()))
    reply = session.respond(messages_of(turns), max_new_tokens=4)
    assert (reply.tokens, reply.finish) == (4, "length")


# ----------------------------------------------------------------------------- the guard


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_is_generated_where_the_guard_speaks(model, stream, monkeypatch):
    session = pal.load(model)
    monkeypatch.setattr(session.responder, "live", None)  # whoever generates fails
    messages = [{"role": "user", "content": CRISIS}]
    if stream:
        [piece] = session.respond(messages, stream=True)
        reply = piece.reply
        assert piece.text == reply.text
    else:
        monkeypatch.setattr(session, "live", lambda: type("Idle", (), {"idle": True})())
        reply = session.respond(messages)
    assert reply.finish == "guard"
    assert reply.guard.level >= 2
    assert "findahelpline.com" in reply.text
    assert reply.strategy is None


def test_help_stands_before_a_response_that_needs_it(model):
    session = pal.load(model)
    messages = [{"role": "user", "content": "hello, how are you?"}]
    plain = session.respond(messages)
    pinned = session.respond(messages, pinned=2)
    assert pinned.guard.action == "reply_with_help"
    assert pinned.text == f"{pinned.guard.help}\n\n{plain.text}"
    pieces = list(session.respond(messages, pinned=2, stream=True))
    assert pieces[0].text.startswith(pinned.guard.help)
    assert "".join(piece.text for piece in pieces) == pinned.text


@pytest.mark.parametrize("pinned", [0, 2])
def test_help_that_comes_back_is_not_taken_for_the_models_words(model, pinned):
    """Neither while it stays on view nor once it has ended."""
    session = pal.load(model)
    messages = [{"role": "user", "content": "hello, how are you?"}]
    first = session.respond(messages, pinned=2)
    said = first.text.removeprefix(first.guard.help).strip()
    later = {"role": "user", "content": "i feel a little better"}
    back, clean = (
        session.respond([*messages, {"role": "assistant", "content": text}, later], pinned=pinned)
        for text in (first.text, said)
    )
    assert back == clean


def test_the_whole_help_is_taken_out_where_some_of_it_is_help_too(model):
    """Behind a reply that was replaced; whatever the order in which it is looked for."""
    session = pal.load(model)
    help = session.guard.review(["hello"], pinned=2).help
    assert any(help.endswith(f"\n{other}") for other in session.guard.helps)
    turns = [{"role": "user", "content": "hello"}, {"role": "user", "content": "and then?"}]
    back, clean = (
        session.respond([turns[0], {"role": "assistant", "content": text}, turns[1]])
        for text in (f"I don't know.\n\n{help}", "I don't know.")
    )
    assert back == clean


def test_no_help_of_a_guards_text_is_taken_for_the_models_words(model):
    """The fixed text stays, as what was said; the lines below it, with numbers, do not."""
    session = pal.load(model)
    asked = {"role": "user", "content": CRISIS}
    given = session.respond([asked])
    back, clean = (
        session.respond([asked, {"role": "assistant", "content": text}, *FAR_LATER])
        for text in (given.text, given.guard.text)
    )
    assert back.guard.action == "reply_with_help"
    assert back == clean


@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_that_may_not_be_shown_is_replaced(model, stream, monkeypatch, caplog):
    session = pal.load(model)
    words = session.respond([{"role": "user", "content": "hello"}]).text.split(" ")
    bad = words[len(words) // 2]

    def check(reply, verdict):
        return "Let us talk about something else." if bad in reply.split(" ") else None

    monkeypatch.setattr(session.guard, "check_reply", check)
    messages = [{"role": "user", "content": "hello"}]
    if stream:
        pieces = list(session.respond(messages, stream=True))
        reply = pieces[-1].reply
        shown = "".join(piece.text for piece in pieces[:-1])
        assert bad not in shown.split(" ")
        assert pieces[-1].text.strip() == reply.text
    else:
        reply = session.respond(messages)
    assert reply.finish == "guard"
    assert reply.text == "Let us talk about something else."


def test_there_is_no_session_without_a_guard(response_model):
    parts = load_model_and_tokenizer(str(response_model))
    responder = make_responder(*parts, DecodingSettings(), 0)
    with pytest.raises(ConfigError, match="guard"):
        Session(responder, None)


# ----------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        ("hello", "list of messages"),
        ([], "no user message"),
        ([{"role": "user"}], "content"),
        ([{"role": "user", "content": " "}], "content"),
        ([{"role": "user", "content": ["a", 3]}], "content"),
        ([{"role": "robot", "content": "secret words"}], "role"),
        ([{"role": "system", "content": "secret words"}], "persona"),
        ([{"content": "secret words"}], "role"),
        ([7], "object"),
        ([{"role": "assistant", "content": "secret words"}], "no user message"),
        ([{"role": "user", "content": "hi"},
          {"role": "assistant", "content": "secret words", "strategy": "Nonsense"}], "strategy"),
    ],
)  # fmt: skip
def test_messages_that_cannot_be_used(response_model, messages, what):
    session = pal.load(str(response_model))
    with pytest.raises(DataError, match=what) as caught:
        session.respond(messages)
    assert "secret words" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_the_model_does_not_take(response_model):
    session, messages = pal.load(str(response_model)), [{"role": "user", "content": "hi"}]
    for asked, what in (
        ({"strategy": "Nonsense"}, "strategy"), ({"strategy": 8}, "strategy"),
        ({"alpha": [1, 2]}, "alpha"), ({"alpha": "much"}, "alpha"), ({"alpha": {"No": 1}}, "alpha"),
        ({"alpha": float("nan")}, "alpha"), ({"max_new_tokens": 0}, "max_new_tokens"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=what):
            session.respond(messages, **asked)
    with pytest.raises(DataError, match="missing key 'content'; it has 'role', 'text'"):
        session.respond([{"role": "user", "text": "hi"}])
    with pytest.raises(ConfigError, match="one dialogue"):
        session.respond([messages], stream=True)
    with pytest.raises(DataError, match="persona"):
        session.respond([messages, messages], persona=[["a"]])


# ----------------------------------------------------------------------------- many at once


def wait_for(batcher, asks, **more):
    """The replies of requests, or what went wrong."""
    import queue

    done = queue.Queue()
    batcher.submit_all(asks, lambda number, piece: done.put((number, piece)), **more)
    found = {}
    while len(found) < len(asks):
        number, piece = done.get(timeout=60)
        if isinstance(piece, Exception) or piece.reply is not None:
            found[number] = piece if isinstance(piece, Exception) else piece.reply
    return [found[number] for number in range(len(asks))]


@pytest.mark.parametrize("stream", [False, True])
def test_replies_side_by_side_are_those_of_one_alone(model, asked, stream):
    session = pal.load(model, rows=LEAST_ROWS)
    options = session.options.model_copy(update={"do_sample": False})
    asks = []
    for number, (name, turns) in enumerate(asked.items()):
        more = {0: {"strategy": "Question"}, 1: {"alpha": 0.0}, 2: {"options": options}}
        asks.append(Ask(messages_of(turns), id=name, **more.get(number % 4, {})))
    batcher = Batcher(session, queue=len(asks))
    together = wait_for(batcher, asks, stream=stream)
    batcher.close()
    greedy = DecodingSettings(do_sample=False)
    alone = {None: pal.load(model), "greedy": pal.load(model, decoding=greedy)}
    for ask, reply in zip(asks, together, strict=True):
        session = alone[None if ask.options is None else "greedy"]
        assert reply == session.respond(
            ask.messages, strategy=ask.strategy, alpha=ask.alpha, id=ask.id
        )
    assert len({reply.text for reply in together}) > len(asks) // 2


def test_a_full_queue_refuses_and_a_cancelled_row_is_free(model, asked):
    session = pal.load(model, rows=1)
    batcher = Batcher(session, queue=2)
    messages = messages_of(next(iter(asked.values())))
    with session.lock:  # nothing moves
        handles = []
        while batcher.waiting < 2:
            handles.append(batcher.submit(Ask(messages), lambda piece: None))
        with pytest.raises(BusyError, match="2 requests are already waiting"):
            batcher.submit_all([Ask(messages)] * 2, lambda number, piece: None)
        for handle in handles:
            batcher.cancel(handle)
    [reply] = wait_for(batcher, [Ask(messages)])
    assert reply == session.respond(messages)
    assert batcher.waiting == batcher.active == 0
    batcher.close()
    with pytest.raises(BusyError, match="shutting down"):
        batcher.submit(Ask(messages), lambda piece: None)


def test_a_model_that_fails_takes_no_other_request_with_it(model, asked, caplog, monkeypatch):
    session = pal.load(model)
    batcher = Batcher(session, queue=9)
    messages = messages_of(next(iter(asked.values())))
    wanted = session.respond(messages)
    with monkeypatch.context() as broken:

        def fail(live):
            raise RuntimeError(f"cannot read {messages[0]['content']}")

        broken.setattr(session, "advance", fail)
        [error] = wait_for(batcher, [Ask(messages)])
        assert "RuntimeError" in str(error)
    assert wait_for(batcher, [Ask(messages)]) == [wanted]
    batcher.close()
    assert messages[0]["content"] not in caplog.text + str(error)


def test_no_text_is_logged(model, caplog):
    canary = "zebra-quartz-lantern"
    session = pal.load(model)
    with caplog.at_level(logging.DEBUG):
        session.respond([{"role": "user", "content": canary}], persona=[f"i own a {canary}"])
        session.respond([{"role": "user", "content": f"{CRISIS} {canary}"}])
    assert canary not in caplog.text


def test_a_running_event_loop_is_no_hindrance(response_model):
    import asyncio

    async def cell():
        return pal.load(str(response_model)).respond([{"role": "user", "content": "hello"}])

    assert asyncio.run(cell()).text
