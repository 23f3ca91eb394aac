"""Answers of a given form: how to ask for it, and how to read it strictly.

Servers differ in what they enforce, so there is a ladder; the first rung an endpoint proves to
honour is used for all of its answers, and recorded with each. Whatever the rung, an answer is
checked against the schema here.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator

from pal.llm.base import Request

# From what a server enforces best to what it need not know of: OpenAI's schemas; llama.cpp's form
# of them; valid JSON with the schema in the prompt; vLLM's constraint fields, new and old; a
# prompt alone.
RUNGS = (
    "json_schema", "json_object_schema", "json_object", "structured_outputs", "guided_json", "text",
)  # fmt: skip

PROBE = Request(
    id="probe",
    messages=(("user", "Probe of structured output: which number from 1 to 5 do you like?"),),
    schema={
        "type": "object",
        "properties": {"probe": {"type": "integer", "enum": [1, 2, 3, 4, 5]}},
        "required": ["probe"],
        "additionalProperties": False,
    },
    schema_name="probe",
    max_tokens=64,
)


def body_of(
    model: str,
    request: Request,
    rung: str,
    max_tokens: int | None = None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the body of a chat completion, as sent and as written to batch files.

    Args:
        model: the server's name of it.
        request: the question.
        rung: one of :data:`RUNGS`; free text asks for no form.
        max_tokens: in place of the request's.
        more: further fields, which take the place of those of the same name; None leaves one out.
    """
    messages = [{"role": role, "content": text} for role, text in request.messages]
    body: dict[str, Any] = {
        "model": model,
        "messages": messages,
        "max_tokens": max_tokens or request.max_tokens,
        "temperature": request.temperature,
    }
    if request.seed is not None:
        body["seed"] = request.seed
    body = {name: value for name, value in (body | dict(more or {})).items() if value is not None}
    if request.schema is None:
        return body
    if rung == "json_schema":
        form = {"name": request.schema_name, "schema": request.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body
    if rung == "json_object_schema":
        body["response_format"] = {"type": "json_object", "schema": request.schema}
    elif rung == "json_object":
        body["response_format"] = {"type": "json_object"}
    elif rung == "structured_outputs":
        body["structured_outputs"] = {"json": request.schema}
    elif rung == "guided_json":
        body["guided_json"] = request.schema
    if rung in ("json_object", "text"):
        last = messages[-1]
        messages[-1] = {**last, "content": f"{last['content']}\n\n{form_in_words(request.schema)}"}
    return body


def form_in_words(schema: dict[str, Any]) -> str:
    """Return the sentence that asks for the form where no server enforces it."""
    return (
        "Answer with one JSON value and nothing else, valid against this JSON schema: "
        + json.dumps(schema, ensure_ascii=False)
    )


def parse(text: str, schema: dict[str, Any] | None) -> tuple[Any, str | None]:
    """Return (value, None), or (None, why the text is no answer of this form).

    The whole text must be one JSON value; a fence around it and a leading ``<think>`` block are
    dropped. Where the form is a single number, a text with one number that stands alone counts,
    so ``Answer: 4.`` is 4 while ``4 out of 5``, ``4/5`` and ``4.5`` are malformed.
    """
    text = re.sub(r"\A\s*<think>.*?</think>", "", text, flags=re.DOTALL).strip()
    if schema is None:
        return (text, None) if text else (None, "empty")
    fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", text, flags=re.DOTALL)
    single = _single_number(schema)
    try:
        value = json.loads(fenced[1] if fenced else text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        value = None if single is None else _lone_number(text)
        if value is None:
            return None, f"not the JSON asked for: {shorten(text)!r}"
    if single and isinstance(value, int | float):
        value = {single: value}
    error = next(iter(Draft202012Validator(schema).iter_errors(value)), None)
    return (None, f"not the form asked for: {shorten(error.message)}") if error else (value, None)


def shorten(text: str, length: int = 120) -> str:
    """Return the text on one line, cut to so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _single_number(schema: dict[str, Any]) -> str | None:
    """The property's name where the form is an object of one integer; empty for a bare integer."""
    properties = schema.get("properties", {})
    if schema.get("type") == "integer":
        return ""
    if len(properties) == 1 and next(iter(properties.values())).get("type") == "integer":
        return next(iter(properties))
    return None


def _lone_number(text: str) -> int | None:
    if text.startswith(("{", "[")):  # JSON that was cut off
        return None
    found = [word for word in re.split(r"[\s:=]+", text) if re.search(r"\d", word)]
    bare = found[0].strip(".,;!?()[]\"'*`") if len(found) == 1 else ""
    return int(bare) if re.fullmatch(r"[0-9]{1,9}", bare) else None
