"""Settings: which language model is asked, and how."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pal.core.settings import Section


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class LlmSettings(Section):
    """A language model: an OpenAI-compatible endpoint, or a local one.

    Attributes:
        backend: ``openai`` (any endpoint of its form: vLLM, llama.cpp, Ollama …) or
            ``transformers``.
        base_url: the endpoint, such as ``http://localhost:8000/v1``; texts go nowhere else.
        model: the endpoint's name of it; a hub id or folder for ``transformers``.
        api_key_env: environment variable that holds the key; this machine's servers need none.
        connections: requests under way at once.
        requests_per_minute: rate limit; none when None.
        timeout: seconds an answer may take.
        tries: of a request whose failure may pass.
        backoff: seconds the first wait between two tries lasts at most; it doubles each time.
        structured: how answers of a given form are asked for; ``auto`` probes the endpoint once.
        body: further fields of every request to an endpoint, such as ``{chat_template_kwargs:
            {enable_thinking: false}}``; null takes a field out, so ``{max_tokens: null,
            max_completion_tokens: 4000}`` suits models that want it so.
        cache: SQLite file of all answers.
        batch_export: write the requests the cache does not hold to this file, and stop.
        batch_import: read answers from these files of results first.
        estimate_only: tell what the requests would take, and stop.
        price_in: of a million prompt tokens, for the estimate.
        price_out: of a million answer tokens.
        batch_rows: rows a batch of a ``transformers`` model holds at most.
    """

    backend: Literal["openai", "transformers"] = "openai"
    base_url: str | None = None
    model: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    connections: int = Field(32, gt=0)
    requests_per_minute: float | None = Field(None, gt=0)
    timeout: float = Field(120, gt=0)
    tries: int = Field(6, gt=0)
    backoff: float = Field(1, gt=0)
    structured: Literal[
        "auto",
        "json_schema",
        "json_object_schema",
        "json_object",
        "structured_outputs",
        "guided_json",
        "text",
    ] = "auto"
    body: dict[str, Any] = Field(default_factory=dict)
    cache: str = "runs/llm_cache.sqlite"
    batch_export: str | None = None
    batch_import: Annotated[list[str], BeforeValidator(_listed)] = Field(default_factory=list)
    estimate_only: bool = False
    price_in: float | None = Field(None, ge=0)
    price_out: float | None = Field(None, ge=0)
    batch_rows: int = Field(16, gt=0)
