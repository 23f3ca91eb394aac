"""Language models: any OpenAI-compatible endpoint or a local one, behind one cache."""

import json

from pal.core.errors import ConfigError
from pal.core.schema import Settings
from pal.llm.asking import CachedModel
from pal.llm.base import Backend, LanguageModel, Outcome, Request
from pal.llm.cache import Cache
from pal.llm.structured import RUNGS

__all__ = ["LanguageModel", "Outcome", "Request", "connect"]


def connect(settings: Settings) -> LanguageModel:
    """Return the model that ``settings.llm`` names; nothing is sent or loaded before a question.

    Raises:
        ConfigError: no model or endpoint is named, or the endpoint's key is not there.
    """
    llm = settings.llm
    if llm.model is None:
        raise ConfigError("missing settings: give llm.model=… (the name the endpoint knows it by)")
    cache = Cache(llm.cache)
    # Other fields, other answers: they are part of the name that answers are kept under.
    name = f"{llm.model} {json.dumps(llm.body, sort_keys=True)}" if llm.body else llm.model
    backend: Backend | None = None
    if llm.backend == "transformers":
        from pal.llm.local import TransformersBackend

        if llm.body:
            raise ConfigError("llm.body is for endpoints; llm.backend=transformers sends nothing")
        backend = TransformersBackend(llm, settings.dtype)
    elif not (llm.estimate_only or llm.batch_export):
        from pal.llm.client import OpenAIBackend

        url = llm.base_url or ""
        rung = cache.rung(url, name) if llm.structured == "auto" else llm.structured
        rung = rung if rung in RUNGS else None
        backend = OpenAIBackend(llm, rung, lambda found: cache.record_rung(url, name, found))
    return CachedModel(llm, name, cache, backend)
