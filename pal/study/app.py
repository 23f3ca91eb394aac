"""The web pages of a study. What is in the file decides what a rater sees; no text is logged."""

import asyncio
import logging
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby
from typing import Any, Literal, TypeVar, cast
from urllib.parse import parse_qs, urlsplit

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from pal.core.errors import database_reason
from pal.data.texts import normalise_text
from pal.guard import Guard, Verdict
from pal.human_eval.personas import PERSONA_ANSWERS, PERSONA_QUESTION
from pal.study.questions import CHAT_ANSWERS, CHAT_QUESTIONS, contact_line
from pal.study.settings import StudyServerSettings
from pal.study.store import SIDES, Rater, Side, StudyStore, StudyTask, StudyTurn
from pal.study.systems import Supporter

logger = logging.getLogger(__name__)

LONGEST = 2000  # characters of a message or a reason
NEAR = 3  # as few messages as are left when a rater is told how many
MAX_BYTES = 64_000  # of a request; a message of 2000 characters takes at most 24 000
WORKERS = 64  # replies that are waited for at once, at most
ON_PAGE = {"study.css": "text/css", "study.js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "img-src data:",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

# Addresses and numbers in lines of help; the page of `pal serve` links the same ones.
LINKS = re.compile(
    r"(?P<http>https://\S*[^\s.,;)])|\bcall (?:or text )?(?P<tel>\d[\d ]*\d)"
    r"|\btext (?:\w+ to )?(?P<sms>\d[\d ]*\d)"
)

T = TypeVar("T")
Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Stage:
    """Where a rater is.

    Attributes:
        name: ``withdrawn``, ``expired``, ``stopped``, ``consent``, ``chat``, ``questions``,
            ``persona`` or ``done``: the name of the page.
        task: what they are at.
        side: whom they talk with.
        tasks: all their tasks.
    """

    name: str
    task: StudyTask | None = None
    side: Side | None = None
    tasks: tuple[StudyTask, ...] = ()


class StudyServer:
    """What the pages share.

    Args:
        store: the study's file.
        supporters: the systems by name; none in a persona study.
        guard: of the systems; says what help is on view.
        settings: limits.
    """

    def __init__(
        self, store: StudyStore, supporters: Mapping[str, Supporter], guard: Guard,
        settings: StudyServerSettings,
    ):  # fmt: skip
        self.store, self.supporters, self.guard, self.settings = store, supporters, guard, settings
        self.config = store.config
        self.prefix = urlsplit(self.config["address"]).path.rstrip("/")
        self.standing_help = guard.standing_help
        self.contact = contact_line(self.config)
        # A reply that takes long holds no thread that reads or writes the file.
        self._quick = ThreadPoolExecutor(8, "study-file")
        self._slow = ThreadPoolExecutor(WORKERS, "study-reply")
        self._running: dict[tuple[str, str], asyncio.Future[bool]] = {}
        self._pages = Environment(
            loader=FunctionLoader(_template), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        self._pages.filters["linked"] = linked

    def app(self) -> Starlette:
        """Return the application."""

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            yield
            for pool in (self._slow, self._quick):
                pool.shutdown(wait=False, cancel_futures=True)

        routes = [
            Route("/", self.front, methods=["GET"]),
            Route("/healthz", self.health, methods=["GET"]),
            Route("/static/{name}", self.static, methods=["GET"]),
            Route("/s/{token}", self._safe(self.show), methods=["GET"]),
            *(
                Route(f"/s/{{token}}/{name}", self._safe(self._posted(handle)), methods=["POST"])
                for name, handle in {
                    "consent": self._consent, "say": self._say, "end": self._end,
                    "answer": self._answer, "stop": self._stop, "resume": self._resume,
                    "withdraw": self._withdraw,
                }.items()
            ),
        ]  # fmt: skip
        own = ["127.0.0.1", "localhost", "[::1]", "testserver"]
        host = urlsplit(self.config["address"]).hostname
        hosts = [*own, *([host] if host and host not in own else [])]
        return Starlette(
            routes=routes, lifespan=lifespan,
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)],
        )  # fmt: skip

    # ------------------------------------------------------------------------- pages

    async def front(self, request: Request) -> Response:
        """Say that a link is needed."""
        return self._page("message", 200, heading=self.config["title"], text=(
            "To take part, open the link that you were given."
        ))  # fmt: skip

    async def health(self, request: Request) -> Response:
        """Say that the server runs."""
        return PlainTextResponse("ok", headers=HEADERS)

    async def static(self, request: Request) -> Response:
        """Send a file of the pages."""
        name = request.path_params["name"]
        if name not in ON_PAGE:
            return PlainTextResponse("not found", 404, headers=HEADERS)
        text = files("pal.study").joinpath("page", name).read_text(encoding="utf-8")
        return Response(text, media_type=f"{ON_PAGE[name]}; charset=utf-8", headers=HEADERS)

    async def show(self, request: Request) -> Response:
        """Show a rater where they are."""
        token = request.path_params["token"]
        rater = await self._in_file(self.store.rater_of, token)
        if rater is None:
            return self._unknown()
        return await self._stage_page(token, rater)

    async def _stage_page(
        self, token: str, rater: Rater, *, notice: str = "", draft: str = "", status: int = 200
    ) -> Response:
        """Return the page of the stage that a rater is at."""
        stage = await self._in_file(self._stage, rater)
        failed = False
        if stage.name == "chat":
            failed = not await self._answered(rater, stage.task, stage.side)
            found = await self._in_file(self.store.rater_of, token)
            rater = found or rater
            stage = await self._in_file(self._stage, rater)  # much can have happened meanwhile
        facts = await self._in_file(self._facts, rater, stage)
        return self._page(
            stage.name, status, here=f"{self.prefix}/s/{token}", notice=notice, draft=draft,
            failed=failed, **facts,
        )  # fmt: skip

    def _stage(self, rater: Rater) -> Stage:
        if rater.withdrawn is not None:
            return Stage("withdrawn")
        if rater.expires <= time.time():
            return Stage("expired")
        if rater.stopped is not None:
            return Stage("stopped")
        tasks = tuple(self.store.tasks(rater.rater))
        if rater.consented is None:
            return Stage("consent", tasks=tasks)
        task = next((one for one in tasks if not one.finished), None)
        if task is None:
            return Stage("done", tasks=tasks)
        if self.store.kind == "persona":
            return Stage("persona", task, None, tasks)
        side = next((side for side in SIDES if side not in task.ended), None)
        return Stage("chat" if side else "questions", task, cast(Side | None, side), tasks)

    def _facts(self, rater: Rater, stage: Stage) -> dict[str, Any]:
        """Return what a page shows."""
        facts: dict[str, Any] = {
            "heading": self.config["title"], "consent": self.config["consent"],
            "tasks": stage.tasks, "task": stage.task, "side": stage.side, "kind": self.store.kind,
        }  # fmt: skip
        if self.store.kind == "chat" and rater.withdrawn is None:
            verdict, _ = self._watched(rater.rater)
            if verdict is not None and verdict.pinned:
                facts |= self._help_parts(verdict)
        if stage.name == "consent":
            least, most = self.config["min_messages"], self.config["max_messages"]
            return facts | {"least": least, "most": most}
        if stage.task is None:
            return facts
        answers = self.store.answers(stage.task.task)
        if stage.name == "persona":
            return facts | {
                "question": PERSONA_QUESTION, "choices": PERSONA_ANSWERS, "longest": LONGEST,
                "given": answers.get(PERSONA_QUESTION.name, ("", "")),
            }  # fmt: skip
        shown = SIDES if stage.name == "questions" else SIDES[: SIDES.index(stage.side or "A") + 1]
        turns = {side: self.store.turns(stage.task.task, side) for side in shown}
        if stage.name == "questions":
            return facts | {
                "turns": turns, "questions": CHAT_QUESTIONS, "choices": CHAT_ANSWERS,
                "given": {name: answer for name, (answer, _) in answers.items()},
            }  # fmt: skip
        now = turns[stage.side or "A"]
        return facts | {"turns": now, "longest": LONGEST, **self._limits(now)}

    def _help_parts(self, verdict: Verdict) -> dict[str, str]:
        """Return the lines of help that are always on view, and those that open.

        On view are the emergency number and a helpline and, as long as the last message is the one
        that gave rise to it, what the guard says or asks above them.
        """
        more = verdict.help or ""
        first = [line for line in self.guard.first_help if line in more]
        if not first:  # never without help
            return {"help": more}
        if verdict.level:
            above = more.partition(first[0])[0].strip()
            first = [above, *first] if above else first
        for line in first:
            more = more.replace(line, "", 1)
        more = "\n".join(line for line in more.split("\n") if line)
        return {"help": "\n".join(first), "more_help": more}

    def _watched(
        self, rater: int, until: tuple[str, str] | None = None
    ) -> tuple[Verdict | None, int]:
        """Return the guard's last verdict on a rater, and the level that help is pinned for.

        The guard reads one conversation after the other, as the systems do; nothing of what it
        finds is stored.

        Args:
            rater: number of the rater.
            until: task and side of the conversation before which to end; None reads all.
        """
        verdict, pinned = None, 0
        for conversation, said in groupby(self.store.said(rater), key=lambda row: row[:2]):
            if conversation == until:
                break
            verdict = self.guard.review([text for _, _, text in said], pinned=pinned)
            pinned = verdict.pinned
        return verdict, pinned

    def _limits(self, turns: list[StudyTurn]) -> dict[str, Any]:
        said = sum(turn.speaker == "rater" for turn in turns)
        answered = len(turns) - said
        most = self.config["max_messages"]
        left = max(0, most - said)
        return {
            "most": most, "left": left, "is_near": said > 0 and left <= NEAR, "full": not left,
            "missing": max(0, self.config["min_messages"] - answered),
            "open": said > answered,
        }  # fmt: skip

    def _page(self, name: str, status: int, **facts: Any) -> Response:
        base = {
            "prefix": self.prefix, "standing_help": self.standing_help, "notice": "", "help": None,
            "more_help": "", "guard_off": self.guard.off, "contact": self.contact,
        }  # fmt: skip
        text = self._pages.get_template(f"{name}.html").render({**base, **facts})
        return Response(text, status, HEADERS, media_type="text/html; charset=utf-8")

    def _unknown(self) -> Response:
        return self._page("message", 404, heading="This link is not known", text=(
            "Please check that you have copied the whole link."
        ))  # fmt: skip

    def _safe(self, endpoint: Endpoint) -> Endpoint:
        """Return an endpoint whose faults the log has the kind of alone: messages hold texts."""

        async def safe(request: Request) -> Response:
            try:
                return await endpoint(request)
            except Exception as error:
                kind = _kind(error)
            # Outside of the block: where a log cannot be written, Python tells of what goes on.
            logger.error("a request failed: %s", kind)
            return self._page("message", 500, heading="Something went wrong", text=(
                "What you sent before is stored. Please open your link again in a moment."
            ))  # fmt: skip

        return safe

    # ------------------------------------------------------------------------- what raters do

    def _posted(self, handle: Callable[..., Any]) -> Callable[..., Any]:
        """Return the endpoint of a form: check the link, read the form, act, show the page."""

        async def endpoint(request: Request) -> Response:
            token = request.path_params["token"]
            rater = await self._in_file(self.store.rater_of, token)
            if rater is None:
                return self._unknown()
            form = await _read_form(request, self.settings.timeout)
            if form is None:
                return self._page("message", 413, heading="That was too long", text=(
                    "Please go back and shorten it."
                ))  # fmt: skip
            stage = await self._in_file(self._stage, rater)
            try:
                other = await handle(token, rater, stage, form)
            except (sqlite3.Error, OSError) as error:
                kind = _kind(error)
            else:
                # Nothing is done twice by a reload: what follows an action is a page of its own.
                return other or RedirectResponse(f"{self.prefix}/s/{token}", 303, headers=HEADERS)
            logger.error("what a rater sent could not be stored: %s", kind)
            notice = "This could not be stored. Nothing before it is lost; please send it again."
            draft = form.get("text", "").strip()
            return await self._stage_page(token, rater, notice=notice, draft=draft, status=503)

        return endpoint

    async def _consent(
        self, token: str, rater: Rater, stage: Stage, form: Mapping[str, str]
    ) -> Response | None:
        if stage.name != "consent":
            return None
        if not (form.get("agree") and form.get("adult")):
            notice = "To take part, please tick both boxes."
            return await self._stage_page(token, rater, notice=notice, status=400)
        await self._in_file(self.store.consent, rater.rater)
        return None

    async def _say(
        self, token: str, rater: Rater, stage: Stage, form: Mapping[str, str]
    ) -> Response | None:
        if stage.name not in ("chat", "questions"):
            return None
        task, side, number = form.get("task", ""), form.get("side", ""), form.get("number", "")
        text = form.get("text", "").strip()
        if not normalise_text(text):  # invisible characters alone are no text
            return await self._stage_page(
                token, rater, notice="Please write a message first.", status=400
            )
        if len(text) > LONGEST:
            notice = f"A message can have {LONGEST} characters; this has {len(text)}."
            return await self._stage_page(token, rater, notice=notice, draft=text, status=400)
        stored = False
        if number.isdecimal() and int(number[:6]) < 2 * self.config["max_messages"]:
            stored = await self._in_file(
                self.store.say, rater.rater, task, side, int(number[:6]), text
            )
        if not stored:
            notice = (
                "This message was not sent: the conversation has continued, perhaps in another "
                "window. Send it again if it still fits."
            )
            return await self._stage_page(token, rater, notice=notice, draft=text, status=409)
        return None

    async def _end(
        self, token: str, rater: Rater, stage: Stage, form: Mapping[str, str]
    ) -> Response | None:
        task = stage.task
        side = form.get("side", "")
        if stage.name != "chat" or task is None or stage.side is None:
            return None
        if (form.get("task"), side) != (task.task, stage.side):
            return None  # it has ended already
        turns = await self._in_file(self.store.turns, task.task, side)
        limits = self._limits(turns)
        if limits["open"] or limits["missing"]:
            notice = "Please chat a little longer with this system first."
            return await self._stage_page(token, rater, notice=notice, status=400)
        await self._in_file(self.store.end, rater.rater, task.task, stage.side)
        return None

    async def _answer(
        self, token: str, rater: Rater, stage: Stage, form: Mapping[str, str]
    ) -> Response | None:
        task = stage.task
        if stage.name not in ("questions", "persona") or task is None:
            return None
        if form.get("task") != task.task:
            return None  # it is finished already, or another rater's
        if stage.name == "persona":
            names, choices = [PERSONA_QUESTION.name], PERSONA_ANSWERS
        else:
            names, choices = [question.name for question in CHAT_QUESTIONS], CHAT_ANSWERS
        reason = form.get("reason", "").strip()[:LONGEST] if stage.name == "persona" else ""
        reason = reason if normalise_text(reason) else ""
        given = {name: (form[name], reason) for name in names if form.get(name) in choices}
        finish = names if form.get("finish") else ()
        notice = ""
        if finish and stage.name == "persona" and given.get(names[0]) == ("Other", ""):
            finish, notice = (), "Please say what is wrong."
        finished = await self._in_file(self.store.answer, rater.rater, task.task, given, finish)
        if not form.get("finish") or finished:
            return None
        missing = set(names) - set(await self._in_file(self.store.answers, task.task))
        if missing:
            notice = "Please answer " + ", ".join(name for name in names if name in missing) + "."
        return await self._stage_page(token, rater, notice=notice, status=400)

    async def _stop(
        self, token: str, rater: Rater, stage: Stage, form: Mapping[str, str]
    ) -> Response | None:
        await self._in_file(self.store.stop, rater.rater)
        return None

    async def _resume(
        self, token: str, rater: Rater, stage: Stage, form: Mapping[str, str]
    ) -> Response | None:
        await self._in_file(self.store.resume, rater.rater)
        return None

    async def _withdraw(
        self, token: str, rater: Rater, stage: Stage, form: Mapping[str, str]
    ) -> Response | None:
        if not form.get("sure"):
            notice = "To have all deleted, please tick the box beside the button."
            return await self._stage_page(token, rater, notice=notice, status=400)
        await self._in_file(self.store.withdraw, rater.rater)
        return None

    # ------------------------------------------------------------------------- replies

    async def _answered(self, rater: Rater, task: StudyTask | None, side: str | None) -> bool:
        """Have the last message of a conversation answered, if it is not; return whether it is.

        Requests for the same reply, such as a reload's, wait for one and the same.
        """
        if task is None or side is None:
            return True
        key = (task.task, side)
        running = self._running.get(key)
        if running is None or running.done():
            loop = asyncio.get_running_loop()
            running = loop.run_in_executor(self._slow, self._reply, rater, task, side)
            self._running[key] = running
            running.add_done_callback(lambda done: self._forget(key, done))
        try:
            return await asyncio.wait_for(asyncio.shield(running), self.settings.timeout)
        except TimeoutError:
            return False

    def _forget(self, key: tuple[str, str], done: asyncio.Future[bool]) -> None:
        if self._running.get(key) is done:
            del self._running[key]

    def _reply(self, rater: Rater, task: StudyTask, side: str) -> bool:
        """Answer an unanswered message; in a thread."""
        try:
            turns = self.store.turns(task.task, side)
            if not turns or turns[-1].speaker != "rater":
                return True
            _, pinned = self._watched(rater.rater, (task.task, side))
            messages = [_message(turn) for turn in turns]
            supporter = self.supporters[task.systems[side]]
            reply = supporter.respond(messages, id=f"{task.task}/{side}", pinned=pinned)
            details = {
                "strategy": reply.strategy, "alpha": reply.alpha, "persona": list(reply.persona),
                "finish": reply.finish, "tokens": reply.tokens,
            }  # fmt: skip
            speaker: Literal["guard", "system"]
            speaker = "guard" if reply.finish == "guard" else "system"
            text = reply.text
            if speaker == "system" and reply.guard.help:  # the page has it already
                text = text.removeprefix(f"{reply.guard.help}\n\n")
            self.store.reply(task.task, side, len(turns), speaker, text, details)
            return True
        except Exception as error:
            kind = _kind(error)
        logger.error("a reply failed: %s", kind)  # outside of the block, as in _safe
        return False

    async def _in_file(self, call: Callable[..., T], *arguments: Any) -> T:
        """Run what reads or writes the file in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._quick, call, *arguments)


def _kind(error: Exception) -> str:
    """Return what the log says of a fault; of the file also why, which holds no text of a rater."""
    name = type(error).__name__
    known = isinstance(error, sqlite3.OperationalError)
    return f"{name}: {database_reason(error)}" if known else name


def _message(turn: StudyTurn) -> dict[str, Any]:
    if turn.speaker == "rater":
        return {"role": "seeker", "content": turn.text}
    return {
        "role": "supporter", "content": turn.text, "strategy": turn.details.get("strategy"),
    }  # fmt: skip


async def _read_form(request: Request, seconds: float) -> dict[str, str] | None:
    """Return the fields of a form; None if it is too large, none if it does not come in time."""
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                body += part
                if len(body) > MAX_BYTES:
                    return None
    except (ClientDisconnect, TimeoutError):
        return {}
    try:
        fields = parse_qs(
            body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=50
        )
    except ValueError:
        return {}
    # Browsers send line ends as CR LF.
    return {
        name: values[-1].replace("\r\n", "\n").replace("\0", "") for name, values in fields.items()
    }


def _template(name: str) -> str:
    return files("pal.study").joinpath("page", name).read_text(encoding="utf-8")


def linked(help_lines: str) -> Markup:
    """Return lines of help as HTML, with links for addresses and for numbers as they stand."""
    made, end = Markup(), 0
    for found in LINKS.finditer(help_lines):
        kind = str(found.lastgroup)
        what, start = found[kind], found.start(kind)
        target = what if kind == "http" else f"{kind}:{what.replace(' ', '')}"
        made += help_lines[end:start]
        made += Markup('<a href="{}" target="_blank" rel="noreferrer noopener">{}</a>').format(
            target, what
        )
        end = found.end(kind)
    return made + help_lines[end:]
