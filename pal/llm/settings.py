"""Settings of the language model."""

import re
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from pal.cluster.settings import ClusterResources
from pal.core.settings import INERT, Count, InputPath, OutputPath, Section, Unshown, expand_home

# Ways to request structured answers, from the most strictly enforced to those that need no support:
# OpenAI's schemas; llama.cpp's variant of them; valid JSON with the schema in the prompt; vLLM's
# constraint fields, new and old; a prompt alone.
OUTPUT_MODES = (
    "json_schema", "json_object_schema", "json_object", "structured_outputs", "guided_json", "text",
)  # fmt: skip


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _check_variable(name: str) -> str:
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", name):
        raise ValueError(
            "expected the name of an environment variable, of capital letters, digits and _ "
            "(export the key under that name; the key itself is not a setting)"
        )
    return name


def _check_address(url: str) -> str:
    """Check that an address holds no secret, and drop a slash at its end."""
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
            "(a key belongs in the environment variable that llm.api_key_env names)"
        )
    return url.rstrip("/")


def _check_engine(engine: dict[str, Any]) -> dict[str, Any]:
    """Refuse options that have a setting of their own, and code that comes with a model."""
    settings = {"model": "llm.model", "dtype": "dtype", "tokenizer": "llm.model"}
    for name in engine:
        if name in settings:
            raise ValueError(f"{name} is not for the engine's options; give {settings[name]}")
        if name == "trust_remote_code":
            raise ValueError("trust_remote_code: no code of a model is run; remove it")
    for name in ("tensor_parallel_size", "pipeline_parallel_size"):
        size = engine.get(name, 1)
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} should be a whole number from 1")
    return engine


class LlmSettings(Section):
    """A language model: an OpenAI-compatible endpoint, or a local one.

    Attributes:
        backend: openai (any OpenAI-compatible endpoint: vLLM, llama.cpp, Ollama …), transformers
            (a local model in this process) or vllm (a local model in processes of a Ray cluster, or
            of this machine, which load it for each list of requests).
        base_url: address of the endpoint, such as http://localhost:8000/v1. Texts are sent nowhere
            else. A proxy from the environment is used for other machines, never for this one.
        model: name of the model at the endpoint; a hub id or folder for a local model.
        api_key_env: environment variable that holds the endpoint's key. Null sends no key, except
            the one in OPENAI_API_KEY to api.openai.com.
        key_over_http: send the key to another machine without encryption (plain ``http``).
        connections: maximum number of concurrent requests.
        requests_per_minute: rate limit; none when null.
        timeout: maximum time for one answer, in seconds.
        max_attempts: maximum number of attempts per request, where failures are temporary.
        backoff: maximum wait before the second attempt, in seconds; it doubles each time.
        structured: how structured output is requested; auto probes the endpoint once.
        body: additional fields of every request to an endpoint, such as {chat_template_kwargs:
            {enable_thinking: false}}. Null removes a field: {max_tokens: null,
            max_completion_tokens: 4000} suits models that require the second field. With vllm:
            chat_template_kwargs, and fields of its SamplingParams.
        cache: SQLite file that keeps all answers.
        trust_old_answers: treat answers in a cache written by version 0.1, which does not record
            the endpoint, as answers from this one.
        batch_export: write the requests that are not in the cache to this file, and stop.
        batch_import: read answers from these batch result files first.
        estimate_only: report an estimate of time and cost, and stop.
        price_in: price of a million prompt tokens, for the estimate.
        price_out: price of a million completion tokens, for the estimate.
        batch_rows: maximum number of rows in a batch of a ``transformers`` model.
        engine: options of vLLM's LLM class: {tensor_parallel_size: 2, max_model_len: 8192}.
        workers: number of vllm processes, each with a model of its own. Null starts as many as the
            cluster has room for.
        resources: what each vllm process requests from the cluster. By default one core and, where
            there are GPUs, as many of them as engine spreads the model over.
    """

    renamed: ClassVar = {"tries": "max_attempts"}
    model_config = ConfigDict(hide_input_in_errors=True)

    backend: Literal["openai", "transformers", "vllm"] = "openai"
    base_url: Annotated[str | None, AfterValidator(lambda url: url and _check_address(url)),
                        Unshown()] = None  # fmt: skip
    model: Annotated[str, AfterValidator(expand_home)] | None = None
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
    engine: Annotated[dict[str, Any], AfterValidator(_check_engine)] = Field(default_factory=dict)
    workers: Annotated[Count | None, INERT] = None
    resources: ClusterResources = ClusterResources()
