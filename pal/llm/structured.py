"""Structured answers: requesting a JSON schema, and parsing strictly.

Servers differ in what they enforce, so there are several output modes
(:data:`pal.llm.settings.OUTPUT_MODES`). The first mode that an endpoint supports is used for all of
its answers and recorded with each. In every mode, an answer is checked against the schema here.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator

from pal.core.files import parse_json
from pal.llm.base import Request

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
    output_mode: str,
    max_tokens: int | None = None,
    more: Mapping[str, Any] | None = None,
    *,
    system_role: bool = True,
) -> dict[str, Any]:
    """Return the body of a chat completion request, for sending and for batch files.

    Args:
        model: name of the model at the server.
        request: the request.
        output_mode: one of :data:`pal.llm.settings.OUTPUT_MODES`; not used for free text.
        max_tokens: replaces the request's own value.
        more: further fields, which replace those of the same name; None removes one.
        system_role: False puts the system text before the first user turn.
    """
    pairs = request.messages if system_role else without_system_role(request.messages)
    messages = [{"role": role, "content": text} for role, text in pairs]
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
    if output_mode == "json_schema":
        form = {"name": request.schema_name, "schema": request.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body
    if output_mode == "json_object_schema":
        body["response_format"] = {"type": "json_object", "schema": request.schema}
    elif output_mode == "json_object":
        body["response_format"] = {"type": "json_object"}
    elif output_mode == "structured_outputs":
        body["structured_outputs"] = {"json": request.schema}
    elif output_mode == "guided_json":
        body["guided_json"] = request.schema
    if output_mode in ("json_object", "text"):
        last = messages[-1]
        messages[-1] = {**last, "content": f"{last['content']}\n\n{form_in_words(request.schema)}"}
    return body


def without_system_role(messages: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    r"""Return (role, text) pairs for a model without a system role.

    The system text is put before the first user turn, as the makers of such models advise.

    Example:
        >>> without_system_role([("system", "Be brief."), ("user", "Hello")])
        (('user', 'Be brief.\n\nHello'),)
    """
    said = [text for role, text in messages if role == "system"]
    turns = [(role, text) for role, text in messages if role != "system"]
    if not said:
        return tuple(turns)
    first = next((index for index, (role, _) in enumerate(turns) if role == "user"), None)
    if first is None:
        return (("user", "\n\n".join(said)), *turns)
    turns[first] = ("user", "\n\n".join([*said, turns[first][1]]))
    return tuple(turns)


def form_in_words(schema: dict[str, Any]) -> str:
    """Return the sentence that requests the schema where no server enforces it."""
    return (
        "Answer with one JSON value and nothing else, valid against this JSON schema: "
        + json.dumps(schema, ensure_ascii=False)
    )


def parse(text: str, schema: dict[str, Any] | None) -> tuple[Any, str | None]:
    r"""Return (value, None), or (None, why the text is not a valid answer).

    The whole text must be one JSON value; a code fence around it and a leading ``<think>`` block
    are dropped. A string counts as the number, truth value or choice that it spells exactly, if the
    schema allows no other reading: ``{"answer": "4"}`` is 4. If the schema is a single integer, a
    text with exactly one separate number counts, so ``Answer: 4.`` is 4 while ``4 out of 5``,
    ``4/5`` and ``4.5`` are malformed.

    Example:
        >>> parse('```json\n{"stars": "4"}\n```', {"properties": {"stars": {"type": "integer"}}})
        ({'stars': 4}, None)
    """
    if not _is_text(text):
        return None, "half a surrogate pair, which is not a character"
    text = re.sub(r"\A\s*<think>.*?</think>", "", text, flags=re.DOTALL).strip()
    if schema is None:
        return (text, None) if text else (None, "empty")
    fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", text, flags=re.DOTALL | re.IGNORECASE)
    single = _single_number(schema)
    try:
        value = parse_json(fenced[1] if fenced else text)
    except ValueError:
        value = None if single is None else _lone_number(text)
        if value is None:
            return None, f"not the JSON asked for: {shorten(text)!r}"
    if single and isinstance(value, int | float):
        value = {single: value}
    value = _as_meant(value, schema)
    try:
        error = next(iter(Draft202012Validator(schema).iter_errors(value)), None)
    except RecursionError:
        return None, "not the form asked for: it is nested too deeply"
    return (None, f"not the form asked for: {shorten(error.message)}") if error else (value, None)


def _as_meant(value: Any, schema: Any) -> Any:
    """Return a value with strings, and integers such as 4.0, converted to the schema's types."""
    if not isinstance(schema, dict):
        return value
    if isinstance(value, dict):
        inside = schema.get("properties", {})
        return {key: _as_meant(item, inside.get(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_meant(item, schema.get("items")) for item in value]
    kind = schema.get("type")
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, str):
        return value
    if kind in ("integer", "number", "boolean"):
        forms = {"integer": r"-?(0|[1-9]\d{0,14})", "boolean": "true|false",
                 "number": r"-?(0|[1-9]\d{0,14})(\.\d{1,14})?"}  # fmt: skip
        return json.loads(value) if re.fullmatch(forms[kind], value, re.ASCII) else value
    choices = schema.get("enum", [])
    if kind is None and value not in choices:
        alike = [choice for choice in choices if json.dumps(choice) == value]
        return alike[0] if len(alike) == 1 else value
    return value


def shorten(text: str, length: int = 120) -> str:
    """Return the text on one line, truncated to ``length`` characters; surrogates are escaped."""
    line = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _single_number(schema: dict[str, Any]) -> str | None:
    """Return the property of a schema of one integer, an empty string for a bare integer."""
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
