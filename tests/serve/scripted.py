"""A server that speaks the API of ``pal serve`` and fails or waits as a test tells it to."""

import asyncio
import json
import threading
from contextlib import contextmanager
from types import SimpleNamespace

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pal.data.strategies import ESCONV
from pal.serve.app import HEADERS, PAGE, files
from pal.serve.running import listen, run_server

CALM = {
    "level": 0, "pinned": 0, "status": "ok", "action": "reply", "text": None, "help": None,
    "categories": [],
}  # fmt: skip
HELP = "Please talk to a person now.\nIn danger now: call 999.\nShout: text SHOUT to 85258."


class Scripted:
    """The server.

    Attributes:
        bodies: of the requests so far.
        plans: what the next requests meet, one each: names of faults, or keyword arguments of
            :meth:`_events`; a calm reply where there is none.
        go: replies whose plan has ``waits`` go on when it is set.
    """

    def __init__(self):
        self.bodies, self.plans, self.go = [], [], threading.Event()
        self.facts = {
            "model": "scripted", "strategies": list(ESCONV.names), "alpha": [0.5] * 8,
            "extractor": True, "max_tokens": 50, "guard": {"off": False, "version": "1"},
            "help": HELP,
        }  # fmt: skip
        self.token = None
        self.settings = SimpleNamespace(drain=1, timeout=60)

    def app(self):
        """Return the application."""
        return Starlette(routes=[
            Route("/page.json", self._page_facts),
            Route("/v1/chat/completions", self._complete, methods=["POST"]),
            *(Route(path, self._page) for path in PAGE),
        ])  # fmt: skip

    async def _page(self, request):
        name, kind = PAGE[request.url.path]
        contents = files("pal.serve").joinpath("page", name).read_bytes()
        return Response(contents, headers={**HEADERS, "Content-Type": kind})

    def _refused(self, request):
        given = request.headers.get("authorization")
        if self.token is not None and given != f"Bearer {self.token}":
            return JSONResponse({"error": {"message": "give the token"}}, status_code=401)
        return None

    async def _page_facts(self, request):
        return self._refused(request) or JSONResponse(self.facts)

    async def _complete(self, request):
        refused = self._refused(request)
        if refused is not None:
            return refused
        self.bodies.append(await request.json())
        plan = self.plans.pop(0) if self.plans else {}
        if plan == "busy":
            error = {"error": {"message": "full"}}
            return JSONResponse(error, status_code=429, headers={"Retry-After": "7"})
        if plan == "broken":
            return Response("Internal Server Error", status_code=500)
        return StreamingResponse(self._events(**plan), media_type="text/event-stream")

    async def _events(
        self, text="I hear you.", guard=None, persona=("i have a dog",), finish="stop",
        waits=False, fault=None, taken_back=None, strategy="Question", verdict=True,
    ):  # fmt: skip
        """Yield the events of one reply.

        Args:
            text: what it says.
            guard: what differs from a calm verdict.
            persona: sentences.
            finish: why it ends.
            waits: stand still after the first word until ``go`` is set.
            fault: ``cut`` ends the stream in the middle; ``error`` sends an error; ``noise`` sends
                what is no JSON.
            taken_back: what the guard says in place of it in the end.
            strategy: of the reply.
            verdict: whether the guard's verdict comes with it.
        """
        spoken = finish == "content_filter"
        shares = dict.fromkeys(ESCONV.names, 0.06) | {"Question": 0.58}
        fields = {
            "strategy": None if spoken else strategy,
            "strategy_probs": None if spoken else shares, "alpha": None if spoken else 0.5,
            "persona": list(persona), "guard": CALM | (guard or {}),
        }  # fmt: skip

        def event(content, end=None, known=False):
            choice = {"index": 0, "delta": {"content": content}, "finish_reason": end}
            if known and verdict:
                choice["pal"] = fields
            return f"data: {json.dumps({'choices': [choice]})}\n\n"

        if spoken:
            yield event(text, finish, known=True) + "data: [DONE]\n\n"
            return
        first, *others = text.split(" ")
        yield event(first, known=True)
        while waits and not self.go.is_set():
            await asyncio.sleep(0.02)
        if fault == "cut":
            return
        if fault == "error":
            yield 'data: {"error": {"message": "out of memory", "type": "server_error"}}\n\n'
            return
        if fault == "noise":
            yield "data: {oops\n\n"
            return
        for word in others:
            yield event(f" {word}")
        if taken_back is not None:
            fields |= {"strategy": None, "strategy_probs": None, "alpha": None}
            yield event(f"\n\n{taken_back}", "content_filter", known=True)
        else:
            yield event("", finish, known=True)
        yield "data: [DONE]\n\n"


@contextmanager
def scripted_server():
    """Yield (address, server)."""
    server, socket, stop = Scripted(), listen("127.0.0.1", 0), threading.Event()
    thread = threading.Thread(
        target=run_server, args=(server, socket), kwargs={"stop": stop}, daemon=True
    )
    thread.start()
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}", server
    finally:
        server.go.set()
        stop.set()
        thread.join(timeout=10)
