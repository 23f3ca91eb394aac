import pytest

from pal.llm import connect
from pal.llm.structured import RUNGS, body_of, parse
from tests.llm.server import FakeServer, rung_of
from tests.llm.test_client import SCHEMA, answer, question, settings_for


@pytest.mark.parametrize("rung", RUNGS)
def test_the_ladder_ends_on_the_first_rung_the_endpoint_honours(tmp_path, rung):
    with FakeServer(lambda body: answer({"messages": [first_line(body)]}), rungs=[rung]) as server:
        settings = settings_for(tmp_path, server.url)
        model = connect(settings)
        assert model.ask([question(1)], description="x")[0].value == {"answer": 2}
        assert model.describe()["structured_output"] == rung
        tried = RUNGS[: RUNGS.index(rung) + 1] if rung != "text" else RUNGS[:-1]
        assert [rung_of(body) for body in server.probes] == list(tried)
        assert rung_of(server.requests[0]) == rung
        connect(settings).ask([question(2)], description="x")
        assert len(server.probes) == len(tried)


def first_line(body):
    return {"content": body["messages"][-1]["content"].split("\n")[0]}


def test_a_server_that_ignores_the_form_ends_on_text(tmp_path):
    class Ignorant(FakeServer):
        def serve(self, handler, body):
            self.rungs = ()
            if "Probe of" in body["messages"][0]["content"]:
                from tests.llm.server import completion

                return handler.reply(200, completion("I like 3."))
            return super().serve(handler, body)

    with Ignorant(lambda body: "Answer: 4.") as server:
        model = connect(settings_for(tmp_path, server.url))
        assert model.ask([question(1)], description="x")[0].value == {"answer": 4}
        assert model.describe()["structured_output"] == "text"


def test_a_rung_can_be_named(tmp_path):
    with FakeServer(answer) as server:
        settings = settings_for(tmp_path, server.url, "llm.structured=guided_json")
        connect(settings).ask([question(1)], description="x")
        assert not server.probes
        assert server.requests[0]["guided_json"] == SCHEMA


@pytest.mark.parametrize(
    "text",
    ["4", " 4. ", "**4**", "Answer: 4", "I agree (4), strongly", '{"answer": 4}',
     '```json\n{"answer": 4}\n```', "<think>3 or 5?</think> 4"],
)  # fmt: skip
def test_a_number_that_stands_alone_is_read(text):
    assert parse(text, SCHEMA) == ({"answer": 4}, None)


@pytest.mark.parametrize(
    "text",
    ["4 out of 5", "4/5", "4.5", "2-3", "Q4", "4th", "-4", "6", "0", "four", "", "4 4", "1. 4",
     '{"answer": 6}', '{"answer": "4"}', '{"answer": 4, "more": 1}', '{"answer": true}',
     '{"answer": NaN}', '{"answer": 4', "[4]", "٤"],
)  # fmt: skip
def test_anything_else_is_malformed(text):
    value, reason = parse(text, SCHEMA)
    assert value is None
    assert reason.startswith(("not the JSON asked for", "not the form asked for"))


def test_other_forms_take_nothing_but_json():
    schema = {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2}
    assert parse('["a", "b"]', schema) == (["a", "b"], None)
    assert parse('["a"]', schema)[0] is None
    assert parse('Here: ["a", "b"]', schema)[0] is None
    assert parse("3", schema)[0] is None
    assert parse("3", {"type": "integer"}) == (3, None)
    assert parse(" text ", None) == ("text", None)
    assert parse("  ", None) == (None, "empty")


def test_the_forms_of_openai_and_of_llama_cpp():
    request = question(1)
    openai = body_of("m", request, "json_schema")["response_format"]
    assert openai["json_schema"]["schema"] == request.schema
    llama = body_of("m", request, "json_object_schema")
    assert llama["response_format"] == {"type": "json_object", "schema": request.schema}
    assert "JSON schema" not in llama["messages"][-1]["content"]
    assert "schema" not in body_of("m", request, "json_object")["response_format"]


def test_the_shared_prefix_stays_first():
    request = question(1)
    for rung in RUNGS:
        content = body_of("m", request, rung)["messages"][0]["content"]
        assert content.startswith("statement 1")
