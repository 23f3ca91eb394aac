"""Where answers come from: servers that know a model by one name do not answer for each other."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pal.core.errors import ConfigError
from pal.core.files import source_fingerprint
from pal.core.job import redact
from pal.llm.settings import LlmSettings


@dataclass(frozen=True)
class Origin:
    """A model at an endpoint, or a local one.

    Attributes:
        name: the model's, for records and people; further fields of requests are part of it.
        text: all that tells origins apart, as JSON without secrets.
        digest: hash of the whole, part of every cache key.
        request_name: what a request's own key holds of the model (see
            :func:`pal.llm.cache.request_key`); batch files know no endpoint.
    """

    name: str
    text: str
    digest: bytes
    request_name: str


def origin_of(llm: LlmSettings, dtype: str = "float32") -> Origin:
    """Return the origin that settings name.

    Args:
        llm: backend, endpoint, model and further fields of requests.
        dtype: number format of a local model's weights, which decides its answers too.

    Raises:
        ConfigError: no model is named, or a local one gets fields for an endpoint.
    """
    if llm.model is None:
        raise ConfigError("missing settings: give llm.model=… (the name the endpoint knows it by)")
    parts: dict[str, Any] = {"backend": llm.backend, "model": llm.model}
    if llm.backend == "transformers":
        if llm.body:
            raise ConfigError("llm.body is for endpoints; llm.backend=transformers sends nothing")
        parts |= {"dtype": dtype}
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


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def _normal(url: str) -> str:
    """Return an address as its server reads it: host in small letters, no slash at the end."""
    address = urlsplit(url)
    return f"{address.scheme}://{address.netloc.lower()}{address.path.rstrip('/')}" if url else ""
