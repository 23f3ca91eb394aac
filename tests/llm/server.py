"""An OpenAI-compatible server on the loopback that answers, and fails, as a test says."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pal.llm.structured import PROBE

FAULTS = ("429", "500", "400", "401", "cut", "malformed", "refusal", "filter", "length", "stall",
          "drop", "empty")  # fmt: skip


class FakeServer:
    """Context manager; ``answer(body)`` returns the text, or the object whose JSON is the text.

    Args:
        answer: the model.
        faults: gets the request's number from 0 and its body; names one of FAULTS, or None.
        latency: seconds each answer takes.
        modes: forms of structured output it honours; others get status 400.
        port: 0 takes any free one.

    Attributes:
        requests: bodies received, in order; a probe of structured output is not among them.
        delivered: bodies whose answer was sent in full.
        headers: of each request.
        unknown: status for a form that it does not honour.
    """

    def __init__(self, answer, faults=None, *, latency=0.0, modes=("json_schema",), port=0,
                 stall=5.0, retry_after="0.2"):  # fmt: skip
        self.answer: Callable[[dict], str | dict] = answer
        self.faults = faults or (lambda number, body: None)
        self.latency, self.modes, self.port = latency, modes, port
        self.stall, self.retry_after = stall, retry_after
        self.unknown = 400
        self.requests: list[dict] = []
        self.delivered: list[dict] = []
        self.probes: list[dict] = []
        self.headers: list[dict] = []
        self.times: list[float] = []
        self.lock = threading.Lock()

    def __enter__(self):
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_):
                pass

            def do_GET(self):
                self.reply(200, {"object": "list", "data": [{"id": "fake", "object": "model"}]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.serve(self, body)

            def reply(self, status, value, headers=(), cut=False):
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                for name, text in headers:
                    self.send_header(name, text)
                self.end_headers()
                self.wfile.write(data[: len(data) // 2] if cut else data)
                if cut:
                    self.close_connection = True

        class Server(ThreadingHTTPServer):
            request_queue_size = 256
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_):
                pass  # a client that was killed

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def serve(self, handler, body):
        if body["messages"][0]["content"].startswith(PROBE.messages[0][1]):
            with self.lock:
                self.probes.append(body)
            if mode_of(body) in self.modes:
                return handler.reply(200, completion('{"probe": 4}'))
            return handler.reply(self.unknown, {"error": {"message": "unknown field"}})
        with self.lock:
            number = len(self.requests)
            self.requests.append(body)
            self.headers.append({k.lower(): v for k, v in handler.headers.items()})
            self.times.append(time.monotonic())
        fault = self.faults(number, body)
        assert fault is None or fault in FAULTS, fault
        time.sleep(self.stall if fault == "stall" else self.latency)
        if fault == "drop":
            handler.close_connection = True
            return None
        if fault in ("429", "500", "400", "401"):
            echoed = f"status {fault}; you sent {handler.headers.get('Authorization')}"
            headers = [("Retry-After", self.retry_after)] if fault == "429" else []
            return handler.reply(int(fault), {"error": {"message": echoed}}, headers)
        if fault == "refusal":
            return handler.reply(200, completion(None, refusal="I can not."))
        if fault == "filter":
            return handler.reply(200, completion("", finish="content_filter"))
        if fault == "malformed":
            return handler.reply(200, completion("I would say 4 out of 5"))
        if fault == "empty":
            return handler.reply(200, {"choices": []})
        value = self.answer(body)
        text = value if isinstance(value, str) else json.dumps(value)
        if fault == "length":
            return handler.reply(200, completion(text[:3], finish="length"))
        if fault == "cut":
            return handler.reply(200, completion(text), cut=True)
        handler.reply(200, completion(text))
        with self.lock:
            self.delivered.append(body)
        return None


def completion(text, *, refusal=None, finish="stop"):
    message = {"role": "assistant", "content": text, "refusal": refusal}
    return {
        "id": "x", "object": "chat.completion", "created": 0, "model": "fake",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }  # fmt: skip


def mode_of(body):
    """Which mode of the ladder a body asks for."""
    asked = body.get("response_format", {})
    form = "json_object_schema" if "schema" in asked else asked.get("type")
    fields = [name for name in ("structured_outputs", "guided_json") if name in body]
    return form or (fields[0] if fields else "text")
