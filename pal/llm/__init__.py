"""Language models: any OpenAI-compatible endpoint or a local one, behind one cache.

Example:
    >>> from pal.llm import Request, connect
    >>> from pal.llm.settings import LlmSettings
    >>> model = connect(LlmSettings(base_url="http://localhost:8000/v1", model="qwen"))
    >>> model.ask([Request("1", (("user", "Hello"),))], description="greeting")
    [Outcome(id='1', value='Hi there!', reason=None)]
"""

from typing import Any

from pal.llm.base import LanguageModel, Outcome, Request
from pal.llm.settings import LlmSettings

__all__ = ["LanguageModel", "Outcome", "Request", "connect"]


def connect(llm: LlmSettings, dtype: str = "float32") -> LanguageModel:
    """Return the model that settings name; nothing is sent or loaded before the first request.

    Args:
        llm: settings of the model.
        dtype: number format of a local model's weights.

    Raises:
        PalError: no model or endpoint is named, its key is missing or may not be sent, or the
            cache cannot be used.
    """
    from pal.llm.asking import CachedModel
    from pal.llm.cache import Cache
    from pal.llm.origin import origin_of

    origin = origin_of(llm, dtype)
    cache = Cache(llm.cache, trust_old_answers=llm.trust_old_answers)
    known = cache.endpoint(origin)
    backend: Any = None
    if llm.backend == "transformers":
        from pal.llm.local import TransformersBackend

        backend = TransformersBackend(llm, dtype)
    elif llm.estimate_only or llm.batch_export:
        pass
    elif llm.backend == "vllm":
        from pal.llm.vllm_backend import VllmBackend

        backend = VllmBackend(llm, dtype)
    else:
        from pal.llm.client import OpenAIBackend

        backend = OpenAIBackend(llm, known, lambda found: cache.record_endpoint(origin, found))
    return CachedModel(llm, origin, cache, backend, system_role=known.system_role)
