"""A chat endpoint on loopback whose answers follow from the messages alone."""

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator

WORDS = (
    "I",
    "am",
    "so",
    "sorry",
    "to",
    "hear",
    "that",
    "what",
    "happened",
    "then",
    "you",
    "can",
    "?",
)
STRATEGIES = ("Question", "Others", "Self-disclosure", "Reflection of feelings")


def answer_to(messages, strategy_first=False):
    """Return the answer: words, and a strategy, drawn by a hash of what was asked."""
    text = "\n".join(f"{one['role']}: {one['content']}" for one in messages)
    draw = hashlib.sha256(text.encode()).digest()
    words = " ".join(WORDS[byte % len(WORDS)] for byte in draw[: 3 + draw[0] % 12])
    if not strategy_first:
        return f" {words}.\n"
    if draw[1] % 7 == 0:
        return words  # no JSON, as small models answer now and then
    return json.dumps({"strategy": STRATEGIES[draw[2] % len(STRATEGIES)], "response": words})


@contextlib.contextmanager
def serve_chat(strategy_first: bool = False) -> Iterator[tuple[str, list]]:
    """Serve it; yields the base URL and the list of bodies that were sent."""
    bodies: list = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            bodies.append(body)
            said = answer_to(body["messages"], strategy_first)
            message = {"role": "assistant", "content": said}
            reply = {
                "id": "1", "object": "chat.completion", "created": 0, "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }  # fmt: skip
            sent = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", bodies
    finally:
        server.shutdown()
        server.server_close()
