import pytest

from pal.llm import connect
from pal.llm.settings import OUTPUT_MODES
from pal.llm.structured import body_of, parse
from tests.llm.server import FakeServer, mode_of
from tests.llm.test_client import SCHEMA, answer, question, settings_for


@pytest.mark.parametrize("mode", OUTPUT_MODES)
def test_the_ladder_ends_on_the_first_mode_the_endpoint_honours(tmp_path, mode):
    with FakeServer(lambda body: answer({"messages": [first_line(body)]}), modes=[mode]) as server:
        settings = settings_for(tmp_path, server.url)
        model = connect(settings.llm)
        assert model.ask([question(1)], description="x")[0].value == {"answer": 2}
        assert model.describe()["structured_output"] == mode
        tried = (
            OUTPUT_MODES[: OUTPUT_MODES.index(mode) + 1] if mode != "text" else OUTPUT_MODES[:-1]
        )
        assert [mode_of(body) for body in server.probes] == list(tried)
        assert mode_of(server.requests[0]) == mode
        connect(settings.llm).ask([question(2)], description="x")
        assert len(server.probes) == len(tried)


def first_line(body):
    return {"content": body["messages"][-1]["content"].split("\n")[0]}


def test_a_server_that_ignores_the_form_ends_on_text(tmp_path):
    class Ignorant(FakeServer):
        def serve(self, handler, body):
            self.modes = ()
            if "Probe of" in body["messages"][0]["content"]:
                from tests.llm.server import completion

                return handler.reply(200, completion("I like 3."))
            return super().serve(handler, body)

    with Ignorant(lambda body: "Answer: 4.") as server:
        model = connect(settings_for(tmp_path, server.url).llm)
        assert model.ask([question(1)], description="x")[0].value == {"answer": 4}
        assert model.describe()["structured_output"] == "text"


def test_a_mode_can_be_named(tmp_path):
    with FakeServer(answer) as server:
        settings = settings_for(tmp_path, server.url, "llm.structured=guided_json")
        connect(settings.llm).ask([question(1)], description="x")
        assert not server.probes
        assert server.requests[0]["guided_json"] == SCHEMA


@pytest.mark.parametrize(
    "text",
    ["4", " 4. ", "**4**", "Answer: 4", "I agree (4), strongly", '{"answer": 4}',
     '```json\n{"answer": 4}\n```', '```JSON\n{"answer": 4}\n```', '{"answer": "4"}',
     '{"answer": 4.0}', "<think>3 or 5?</think> 4"],
)  # fmt: skip
def test_a_number_that_stands_alone_is_read(text):
    assert parse(text, SCHEMA) == ({"answer": 4}, None)


@pytest.mark.parametrize(
    "text",
    ["4 out of 5", "4/5", "4.5", "2-3", "Q4", "4th", "-4", "6", "0", "four", "", "4 4", "1. 4",
     '{"answer": 6}', '{"answer": "6"}', '{"answer": " 4"}', '{"answer": "4.0"}',
     '{"answer": "04"}',
     '{"answer": "four"}', '{"answer": ["4"]}', '{"answer": 4, "more": 1}', '{"answer": true}',
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
    for mode in OUTPUT_MODES:
        content = body_of("m", request, mode)["messages"][0]["content"]
        assert content.startswith("statement 1")
