"""The origin of answers: equal model names at different endpoints are different origins."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pal.core.errors import ConfigError
from pal.core.files import source_fingerprint
from pal.core.job import redact
from pal.data.sources import check_downloaded, check_model_place
from pal.llm.settings import LlmSettings

REMEDY = "give a folder or hub id of a chat model"


@dataclass(frozen=True)
class Origin:
    """A model at an endpoint, or a local one.

    Attributes:
        name: name of the model with further fields of requests, for records.
        text: everything that distinguishes origins, as JSON without secrets.
        digest: hash of the origin, part of every cache key.
        request_name: name of the model in the key of a request (see
            :func:`pal.llm.cache.request_key`), without the endpoint, as batch files have none.
    """

    name: str
    text: str
    digest: bytes
    request_name: str


def origin_of(llm: LlmSettings, dtype: str = "float32") -> Origin:
    """Return the origin that settings name.

    Args:
        llm: backend, endpoint, model and further fields of requests.
        dtype: number format of a local model's weights, which also affects its answers.

    Raises:
        ConfigError: no model is named, or a local one gets fields for an endpoint.
        CheckpointError: nothing is at the path of a local one.
    """
    if llm.model is None:
        place = "" if llm.backend != "openai" or llm.base_url else " and llm.base_url=…"
        raise ConfigError(
            f"missing settings: give llm.model=… (the name the endpoint knows it by){place}"
        )
    parts: dict[str, Any] = {"backend": llm.backend, "model": llm.model}
    if llm.engine and llm.backend != "vllm":
        raise ConfigError(
            f"llm.engine is for llm.backend=vllm; llm.backend={llm.backend} has none, so remove it"
        )
    if llm.backend != "openai":
        if llm.model.startswith("package:"):
            raise ConfigError(f"llm.model={llm.model}: a package is not read here; {REMEDY}")
        if llm.body and llm.backend == "transformers":
            raise ConfigError("llm.body is for endpoints; llm.backend=transformers sends nothing")
        if llm.backend == "transformers":
            check_model_place(llm.model, f"llm.model={llm.model}", REMEDY)
        parts |= {"dtype": dtype}
        if llm.backend == "vllm":
            parts |= {"engine": llm.engine, "body": llm.body}
        if Path(llm.model).is_dir():
            parts["weights"] = source_fingerprint(llm.model)
    else:
        parts |= {"endpoint": _normal(llm.base_url or ""), "body": llm.body}
    shown = redact(llm.body)
    return Origin(
        name=f"{llm.model} {json.dumps(shown, sort_keys=True)}" if llm.body else llm.model,
        text=_canonical(redact(parts)),
        digest=hashlib.blake2b(_canonical(parts).encode(), digest_size=16).digest(),
        request_name=f"{llm.model} {json.dumps(llm.body, sort_keys=True)}"
        if llm.body
        else llm.model,
    )


def check_local_model(llm: LlmSettings) -> None:
    """Refuse a local model of the hub that HF_HUB_OFFLINE keeps from being fetched.

    It is for where the model is to be loaded: a cache that holds every answer needs none.

    Args:
        llm: settings with the model, which is named.

    Raises:
        CheckpointError: it is neither a folder nor was anything of it downloaded before.

    Example:
        >>> check_local_model(LlmSettings(backend="transformers", model="owner/name"))
        CheckpointError: llm.model=owner/name: no such folder, and not downloaded before, …
    """
    if llm.backend == "transformers":
        check_downloaded(str(llm.model), f"llm.model={llm.model}", REMEDY)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def _normal(url: str) -> str:
    """Return a canonical address: host in lower case, no slash at the end."""
    address = urlsplit(url)
    return f"{address.scheme}://{address.netloc.lower()}{address.path.rstrip('/')}" if url else ""
