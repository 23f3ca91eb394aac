"""Texts and keys go to the endpoint they are for, and nowhere else."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pal.config import load_settings
from pal.core.errors import ConfigError, PalError
from pal.llm import connect
from pal.llm.endpoint import find_key, is_this_machine, proxy_of
from pal.llm.settings import LlmSettings
from tests.jobs import command
from tests.llm.server import FakeServer
from tests.llm.test_client import answer, question, settings_for

PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy",
           "NO_PROXY", "no_proxy")  # fmt: skip


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in (*PROXIES, "OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def proxy(monkeypatch):
    """A proxy that the environment names; yields the lines of the requests it got."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            seen.append(self.requestline)
            self.send_error(403, "no way out")

        do_CONNECT = do_POST

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
    yield seen
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "0.0.0.0"])
def test_what_is_for_this_machine_passes_every_proxy(proxy, tmp_path, host):
    with FakeServer(answer) as server:
        settings = settings_for(tmp_path, f"http://{host}:{server.port}/v1", "llm.connections=4")
        outcomes = connect(settings.llm).ask([question(n) for n in range(4)], description="x")
    assert [outcome.reason for outcome in outcomes] == [None] * 4
    assert proxy == []


def test_what_is_for_this_machine_passes_every_proxy_over_ipv6_too(proxy, tmp_path):
    try:
        probe = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no loopback of IPv6 here")
    port = probe.getsockname()[1]
    probe.close()
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            asked.append(self.path)
            self.send_error(401)

    class Six(ThreadingHTTPServer):
        address_family = socket.AF_INET6

    with Six(("::1", port), Handler) as six:
        threading.Thread(target=six.serve_forever, args=(0.02,), daemon=True).start()
        settings = settings_for(tmp_path, f"http://[::1]:{port}/v1")
        with pytest.raises(PalError, match="refuses"):
            connect(settings.llm).ask([question(1, None)], description="x")
        six.shutdown()
    assert asked == ["/v1/chat/completions"]
    assert proxy == []


def test_other_machines_are_asked_through_the_proxy_of_the_environment(proxy, tmp_path):
    settings = settings_for(tmp_path, "http://model.example/v1")
    with pytest.raises(PalError, match="refuses"):
        connect(settings.llm).ask([question(1, None)], description="x")
    assert proxy == ["POST http://model.example/v1/chat/completions HTTP/1.1"]


def test_a_connection_that_fails_by_a_proxy_names_it(monkeypatch, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed.getsockname()[1]}")
    settings = settings_for(tmp_path, "http://model.example/v1", "llm.max_attempts=1")
    (outcome,) = connect(settings.llm).ask([question(1, None)], description="x")
    assert "by the proxy in HTTP_PROXY; NO_PROXY names hosts to ask directly" in outcome.reason
    monkeypatch.setenv("NO_PROXY", "model.example")
    assert proxy_of("http://model.example/v1") is None


@pytest.mark.parametrize(
    ("host", "here"),
    [("localhost", True), ("LOCALHOST.", True), ("vllm.localhost", True), ("127.0.0.1", True),
     ("127.8.8.8", True), ("127.1", True), ("[::1]", True), ("[::ffff:127.0.0.1]", True),
     ("0.0.0.0", True), ("localhost.example.org", False), ("128.0.0.1", False),
     ("[::2]", False), ("10.0.0.1", False), ("api.openai.com", False), ("127.example", False)],
)  # fmt: skip
def test_which_addresses_are_on_this_machine(host, here):
    assert is_this_machine(f"http://{host}:8000/v1") is here


def test_openais_key_goes_to_openai_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-openai")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-mine")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: mine\nAuthorization: Bearer sk-custom")
    with FakeServer(answer) as server:
        connect(settings_for(tmp_path, server.url).llm).ask([question(1)], description="x")
        (headers,) = server.headers
        assert "authorization" not in headers
        assert not any(
            word in f"{name} {value}".lower()
            for name, value in headers.items()
            for word in ("sk-", "org-mine", "proj-mine", "x-secret")
        )
        monkeypatch.setenv("SERVERS_KEY", "sk-for-server")
        settings = settings_for(tmp_path, server.url, "llm.api_key_env=SERVERS_KEY")
        connect(settings.llm).ask([question(2)], description="x")
        assert server.headers[1]["authorization"] == "Bearer sk-for-server"
    assert find_key(LlmSettings(base_url="https://api.openai.com/v1")) == "sk-for-openai"
    assert find_key(LlmSettings(base_url="https://api.other.example/v1")) is None
    assert find_key(LlmSettings(base_url="https://api.openai.com.other.example/v1")) is None


def test_a_key_needs_encryption_or_this_machine(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-mine")
    given = {"api_key_env": "MY_KEY"}
    assert find_key(LlmSettings(base_url="http://localhost:1/v1", **given)) == "sk-mine"
    assert find_key(LlmSettings(base_url="https://gpu.example/v1", **given)) == "sk-mine"
    with pytest.raises(ConfigError, match=r"would go to gpu\.example without encryption.*key_over"):
        find_key(LlmSettings(base_url="http://gpu.example/v1", **given))
    allowed = LlmSettings(base_url="http://gpu.example/v1", key_over_http=True, **given)
    assert find_key(allowed) == "sk-mine"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    with pytest.raises(ConfigError, match="without encryption"):
        find_key(LlmSettings(base_url="http://api.openai.com/v1"))


def test_a_server_that_wants_a_key_says_how_to_give_one(tmp_path):
    with FakeServer(answer, lambda number, body: "401") as server:
        settings = settings_for(tmp_path, server.url)
        with pytest.raises(PalError, match=r"llm\.api_key_env=NAME \(no key was sent\)"):
            connect(settings.llm).ask([question(1)], description="x")


def test_a_key_of_odd_characters_is_refused_and_not_shown(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-“quoted”")
    with pytest.raises(ConfigError, match="holds characters that no key has") as caught:
        find_key(LlmSettings(base_url="http://localhost:1/v1", api_key_env="MY_KEY"))
    assert "quoted" not in str(caught.value)


PASTED = "sk-proj-Pasted0123456789"


@pytest.mark.parametrize(
    "override",
    [f"llm.api_key_env={PASTED}", "llm.api_key_env=hf_Pasted0123456789",
     f"llm.base_url=https://api.example/v1?api_key={PASTED}",
     f"llm.base_url=https://api.example/v1#{PASTED}",
     f"llm.base_url=https://user:{PASTED}@api.example/v1",
     f"llm.base_url={PASTED}", f"llm.base_url=[{PASTED}]", f"llm.api_key_env=[{PASTED}]",
     f"llm.base_url=http://{PASTED}:{PASTED}/v1", f"llm.body={PASTED}", f"llm.body=[{PASTED}]"],
)  # fmt: skip
def test_a_pasted_key_is_never_printed_nor_kept(tmp_path, capsys, monkeypatch, override):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cards.jsonl").write_text('{"id": "1", "description": "A baker."}\n')
    key, _, value = override.partition("=")
    section, _, name = key.partition(".")
    (tmp_path / "given.yaml").write_text(f"{section}:\n  {name}: '{value}'\n")
    given = ["input=cards.jsonl", "output=out.jsonl", "llm.model=m"]
    endpoint = [] if key == "llm.base_url" else ["llm.base_url=http://localhost:9/v1"]
    for action in (["traits", "measure"], ["traits", "measure", "--dry-run"], ["annotate"]):
        for more in ([override], ["--config", "given.yaml"]):
            assert command(*action, *given, *endpoint, *more) == 2
            printed = capsys.readouterr()
            assert "Pasted" not in printed.out + printed.err
            assert printed.err.count("\n") == 1
    with pytest.raises(ConfigError) as caught:
        load_settings({section: {name: value}})
    assert "Pasted" not in str(caught.value)
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "given.yaml"]
    assert not any(b"Pasted" in path.read_bytes() for path in kept)


def test_a_secret_among_further_fields_is_in_no_record(tmp_path):
    with FakeServer(answer) as server:
        settings = settings_for(tmp_path, server.url, f"llm.body={{user_token: {PASTED}}}")
        model = connect(settings.llm)
        model.ask([question(1)], description="x")
        assert server.requests[0]["user_token"] == PASTED
    assert PASTED not in str(model.describe()) + model.name
    assert not any(PASTED.encode() in path.read_bytes() for path in tmp_path.iterdir())
