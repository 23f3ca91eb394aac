"""Models whose chat template knows no system role get that text before the first user turn."""

import json

import pytest

from pal.core.errors import CheckpointError
from pal.llm import Request, connect
from pal.llm.structured import without_system_role
from tests.llm.server import FakeServer
from tests.llm.test_client import SCHEMA, settings_for
from tests.llm.test_local import chat_model  # noqa: F401
from tests.llm.test_local import settings_for as local_settings

REFUSING = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
)


def ask(model, count=3):
    requests = [
        Request(str(n), (("system", "Be brief."), ("user", f"statement {n}")), SCHEMA)
        for n in range(count)
    ]
    return model.ask(requests, description="x")


class WithoutSystem(FakeServer):
    """Refuses system messages as servers do."""

    status, message = 400, "System role not supported"

    def serve(self, handler, body):
        if any(message["role"] == "system" for message in body["messages"]):
            with self.lock:
                self.refused = getattr(self, "refused", 0) + 1
            error = {"error": {"message": self.message, "type": "BadRequestError"}}
            return handler.reply(self.status, error)
        return super().serve(handler, body)


@pytest.mark.parametrize(
    ("status", "message"),
    [(400, "System role not supported"), (422, "Only user and assistant roles are supported!"),
     (400, "Developer instruction is not enabled for models/gemma"),
     (500, "Conversation roles must alternate user/assistant")],
)  # fmt: skip
def test_an_endpoint_that_refuses_is_asked_so_once(tmp_path, status, message):
    with WithoutSystem(lambda body: {"answer": 2}) as server:
        server.status, server.message = status, message
        settings = settings_for(tmp_path, server.url, "llm.connections=1", "llm.max_attempts=1")
        model = connect(settings.llm)
        assert [outcome.value for outcome in ask(model)] == [{"answer": 2}] * 3
        assert server.refused == 1
        assert [body["messages"] for body in server.requests] == [
            [{"role": "user", "content": f"Be brief.\n\nstatement {n}"}] for n in range(3)
        ]
        assert model.describe()["system_role"] is False
        ask(connect(settings.llm), 5)  # a later run knows
        assert server.refused == 1
    with FakeServer(lambda body: {"answer": 2}) as other:  # another endpoint does not
        settings = settings_for(tmp_path, other.url)
        model = connect(settings.llm)
        ask(model, 1)
        assert other.requests[0]["messages"][0] == {"role": "system", "content": "Be brief."}
        assert model.describe()["system_role"] is True


def test_another_refusal_is_none_of_the_roles(tmp_path):
    with FakeServer(lambda body: {"answer": 2}, lambda number, body: "400") as server:
        settings = settings_for(tmp_path, server.url)
        model = connect(settings.llm)
        assert all(o.reason.startswith("rejected by the server") for o in ask(model))
        assert len(server.requests) == 3
        assert model.describe()["system_role"] is True


def test_a_local_template_that_refuses_is_used_all_the_same(chat_model, tmp_path, monkeypatch):  # noqa: F811
    import shutil

    def model_with(template, name):
        folder = tmp_path / name
        shutil.copytree(chat_model, folder)
        for file in folder.glob("chat_template*"):
            file.unlink()
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config["chat_template"] = template
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        return connect(local_settings(folder, tmp_path / f"{name}.sqlite").llm)

    plain = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
    refusing = model_with(REFUSING + plain, "refusing")
    system = ("system", "Be brief.")
    (merged,) = refusing.ask(
        [Request("1", (system, ("user", "one")), max_tokens=8)], description="x"
    )
    assert refusing.describe()["system_role"] is False
    (same,) = model_with(plain, "plain").ask(
        [Request("1", (("user", "Be brief.\n\none"),), max_tokens=8)], description="x"
    )
    assert merged == same
    broken = model_with("{{ raise_exception('never') }}", "broken")
    with pytest.raises(CheckpointError, match=r"chat template cannot be used \(never\)"):
        broken.ask([Request("1", (system, ("user", "one")))], description="x")


def test_where_the_text_goes():
    system, user, reply = ("system", "S"), ("user", "U"), ("assistant", "A")
    assert without_system_role([user]) == (user,)
    assert without_system_role([system, user, reply, user]) == (("user", "S\n\nU"), reply, user)
    assert without_system_role([system, system, reply]) == (("user", "S\n\nS"), reply)
