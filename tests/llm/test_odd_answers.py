"""Whatever a server sends becomes a value or a reason; the job continues."""

import json

import pytest

from pal.llm import Request, connect
from pal.llm.completion import read_completion
from tests.llm.server import FakeServer, completion
from tests.llm.test_client import answer, number_in, question, settings_for


def body(content, **more):
    return {**completion(content), **more}


ODD = {
    "half a surrogate pair": (body('{"answer": 4} \ud800'), "malformed: half a surrogate pair"),
    "an escaped half": (body('{"answer": "\\ud800"}'), "malformed: not the JSON asked for"),
    "usage is a number": (body('{"answer": 4}', usage=3), None),
    "usage is a list": (body('{"answer": 4}', usage=[1]), None),
    "nested counts": (body('{"answer": 4}', usage={"prompt_tokens": {"text": 3}}), None),
    "huge counts": (body('{"answer": 4}', usage={"completion_tokens": 10**30}), None),
    "true for a count": (body('{"answer": 4}', usage={"prompt_tokens": True}), None),
    "no usage": ({k: v for k, v in completion('{"answer": 4}').items() if k != "usage"}, None),
    "NaN": (body('{"answer": NaN}'), "malformed: not the JSON asked for"),
    "a key twice": (body('{"answer": 4, "answer": 2}'), "malformed: not the JSON asked for"),
    "a number of many digits": (body('{"answer": ' + "4" * 5000 + "}"), "malformed: not the JSON"),
    "deep nesting": (body("[" * 100_000), "malformed: not the JSON asked for"),
    "content in parts": (body([{"type": "text", "text": "4"}]), "malformed: "),
    "content is a number": (body(4), None),
    "content is an object": (body({"answer": 4}), "malformed: "),
    "an odd end": ({"choices": [{"message": {"content": "4"}, "finish_reason": [1]}]}, None),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_answer_ends_no_job(tmp_path, name):
    odd, reason = ODD[name]

    class Odd(FakeServer):
        def serve(self, handler, asked):
            if "statement 1" in asked["messages"][-1]["content"]:
                with self.lock:
                    self.requests.append(asked)
                return handler.reply(200, json.dumps(odd).encode())
            return super().serve(handler, asked)

    with Odd(answer) as server:
        settings = settings_for(tmp_path, server.url, "llm.max_attempts=1")
        requests = [question(n) for n in (0, 1, 2)]
        for _ in range(2):
            zero, one, two = connect(settings.llm).ask(requests, description="x")
            assert (zero.value, two.value) == ({"answer": 1}, {"answer": 3})
            if reason is None:
                assert one.value == {"answer": 4}
            else:
                assert one.value is None
                assert one.reason.startswith(reason)
                one.reason.encode()
        assert sum(number_in(asked) == 1 for asked in server.requests) == (3 if reason else 1)


@pytest.mark.parametrize(
    "text",
    ["null", "3", '"text"', "[]", '{"choices": 3}', '{"choices": {"0": 1}}', '{"choices": [3]}',
     '{"choices": [{"message": [["content", "4"]]}]}', '{"choices": [[1]]}', "[" * 50_000,
     '{"choices": [{"message": null}]}', "<html>", "\xff"],
)  # fmt: skip
def test_what_is_no_completion_is_asked_for_again_and_given_up(tmp_path, text):
    class Odd(FakeServer):
        def serve(self, handler, asked):
            return handler.reply(200, text.encode("latin-1"))

    with Odd(answer) as server:
        settings = settings_for(
            tmp_path, server.url, "llm.max_attempts=2", "llm.structured=json_schema"
        )
        (outcome,) = connect(settings.llm).ask([question(1)], description="x")
    assert outcome.reason.startswith("gave up after 2 attempts: ")


def test_a_free_text_with_half_a_character_is_malformed():
    request = Request("1", (("user", "x"),))
    assert read_completion(completion("a \udfff b"), request, None, None, None).reason == (
        "malformed: half a surrogate pair, which is not a character"
    )


def test_an_error_of_the_server_with_half_a_character_is_kept_whole(tmp_path):
    class Odd(FakeServer):
        def serve(self, handler, asked):
            return handler.reply(400, json.dumps({"error": {"message": "no \ud800"}}).encode())

    with Odd(answer) as server:
        settings = settings_for(tmp_path, server.url, "llm.structured=json_schema")
        (outcome,) = connect(settings.llm).ask([question(1)], description="x")
    assert outcome.reason.startswith("rejected by the server: ")
    outcome.reason.encode()
