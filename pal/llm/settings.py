"""Settings: which language model is asked, and how."""

import re
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from pal.core.settings import INERT, Count, InputPath, OutputPath, Section, Unshown

# How answers of a given form are asked for, from what a server enforces best to what it need not
# know of: OpenAI's schemas; llama.cpp's form of them; valid JSON with the schema in the prompt;
# vLLM's constraint fields, new and old; a prompt alone.
OUTPUT_MODES = (
    "json_schema", "json_object_schema", "json_object", "structured_outputs", "guided_json", "text",
)  # fmt: skip


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _check_variable(name: str) -> str:
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", name):
        raise ValueError(
            "expected the name of an environment variable, of capital letters, digits and _ "
            "(export the key under that name; the key itself is no setting)"
        )
    return name


def _check_address(url: str) -> str:
    """Accept an address that holds no secret; a slash at its end says nothing."""
    try:
        address = urlsplit(url)
        _ = address.port
    except ValueError:
        raise ValueError("expected http://HOST:PORT/v1 or https://HOST/v1") from None
    plain = not (address.query or address.fragment or "?" in url or "#" in url)
    if (
        address.scheme not in ("http", "https") or not address.hostname or not plain
        or "@" in address.netloc or re.search(r"[\s\x00-\x1f]", url)
    ):  # fmt: skip
        raise ValueError(
            "expected http://HOST:PORT/v1 or https://HOST/v1 without user, password or query "
            "(a key belongs into the environment variable that llm.api_key_env names)"
        )
    return url.rstrip("/")


class LlmSettings(Section):
    """A language model: an OpenAI-compatible endpoint, or a local one.

    Attributes:
        backend: ``openai`` (any endpoint of its form: vLLM, llama.cpp, Ollama …) or
            ``transformers``.
        base_url: the endpoint, such as ``http://localhost:8000/v1``. Texts go nowhere else; a proxy
            that the environment names carries them to other machines, never to this one.
        model: the endpoint's name of it; a hub id or folder for ``transformers``.
        api_key_env: environment variable that holds the endpoint's key. Null sends no key, except
            the one in OPENAI_API_KEY to api.openai.com.
        key_over_http: send the key to another machine without encryption (plain ``http``).
        connections: requests under way at once.
        requests_per_minute: rate limit; none when null.
        timeout: seconds an answer may take.
        max_attempts: of a request whose failure may pass.
        backoff: seconds the first wait between two attempts lasts at most; it doubles each time.
        structured: how answers of a given form are asked for; ``auto`` probes the endpoint once.
        body: further fields of every request to an endpoint, such as ``{chat_template_kwargs:
            {enable_thinking: false}}``; null takes a field out, so ``{max_tokens: null,
            max_completion_tokens: 4000}`` suits models that want it so.
        cache: SQLite file of all answers.
        trust_old_answers: use answers of a cache written by version 0.1, which does not say which
            endpoint gave them, as answers of this one.
        batch_export: write the requests the cache does not hold to this file, and stop.
        batch_import: read answers from these files of results first.
        estimate_only: report what the requests would take, and stop.
        price_in: of a million prompt tokens, for the estimate.
        price_out: of a million answer tokens.
        batch_rows: rows a batch of a ``transformers`` model holds at most.
    """

    renamed: ClassVar = {"tries": "max_attempts"}
    model_config = ConfigDict(hide_input_in_errors=True)

    backend: Literal["openai", "transformers"] = "openai"
    base_url: Annotated[str | None, AfterValidator(lambda url: url and _check_address(url)),
                        Unshown()] = None  # fmt: skip
    model: str | None = None
    api_key_env: Annotated[str | None, AfterValidator(lambda name: name and _check_variable(name)),
                           Unshown(), INERT] = None  # fmt: skip
    key_over_http: Annotated[bool, INERT] = False
    connections: Annotated[Count, INERT] = 32
    requests_per_minute: Annotated[float | None, Field(gt=0), INERT] = None
    timeout: Annotated[float, Field(gt=0), INERT] = 120
    max_attempts: Annotated[Count, INERT] = 6
    backoff: Annotated[float, Field(gt=0), INERT] = 1
    structured: Literal["auto", *OUTPUT_MODES] = "auto"  # type: ignore[valid-type]
    body: Annotated[dict[str, Any], Unshown()] = Field(default_factory=dict)
    cache: OutputPath = "runs/llm_cache.sqlite"
    trust_old_answers: Annotated[bool, INERT] = False
    batch_export: OutputPath | None = None
    batch_import: Annotated[list[InputPath], BeforeValidator(_listed), INERT] = Field(
        default_factory=list
    )
    estimate_only: Annotated[bool, INERT] = False
    price_in: Annotated[float | None, Field(ge=0), INERT] = None
    price_out: Annotated[float | None, Field(ge=0), INERT] = None
    batch_rows: Count = 16
