"""A language model behind a cache: nothing is asked twice, and nothing finished is lost."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pal.core.errors import DataError, PlannedStop
from pal.core.schema import LlmSettings
from pal.llm.base import Backend, Check, Outcome, Reply, Request
from pal.llm.batchfile import read_results, write_requests
from pal.llm.cache import Cache, key_of
from pal.llm.estimate import estimate


class CachedModel:
    """Answers requests from the cache, and the rest by a backend.

    Args:
        settings: batch files, estimate, prices.
        name: the model's.
        cache: where answers are kept.
        backend: asks what the cache does not hold.
    """

    def __init__(self, settings: LlmSettings, name: str, cache: Cache, backend: Backend | None):
        self.name = name
        self._settings = settings
        self._cache = cache
        self._backend = backend

    def describe(self) -> dict[str, Any]:
        """Return what a record of a run says of the model: backend, endpoint, form of answers."""
        return {
            "model": self.name,
            "backend": self._settings.backend,
            "endpoint": self._settings.base_url,
            "structured_output": getattr(self._backend, "rung", None),
        }

    def ask(
        self, requests: Sequence[Request], *, description: str, check: Check | None = None
    ) -> list[Outcome]:
        """Answer requests, in their order (see :class:`pal.llm.base.LanguageModel`).

        Requests alike but for their id are asked once. A stored value that ``check`` does not
        accept, as after a change of the check, is asked for again.

        Raises:
            PlannedStop: an estimate or a file of requests was asked for, not answers.
            PalError: two requests share an id, or the backend cannot go on.
        """
        if len({request.id for request in requests}) < len(requests):
            seen: set[str] = set()
            twice = next(r.id for r in requests if r.id in seen or seen.add(r.id))  # type: ignore[func-returns-value]
            raise DataError(f"{description}: the id {twice!r} occurs twice; give each item its own")
        keys = [key_of(self.name, request) for request in requests]
        replies = self._cache.read(keys)
        missing: dict[bytes, Request] = {}
        for key, request in zip(keys, requests, strict=True):
            value, reason = replies.get(key, (None, "not there"))
            if key not in replies or (reason is None and check and check(request, value)):
                missing.setdefault(key, request)
        for path in self._settings.batch_import if missing else []:
            found = read_results(Path(path), missing, check)
            self._cache.write(self.name, found.items())
            for key, reply in found.items():
                replies[key] = (reply.value, reply.reason)
                del missing[key]
        if missing:
            self._stop_if_planned(missing, description)
            self._ask_backend(missing, len(requests), description, check, replies)
        return [
            Outcome(request.id, *replies[key]) for key, request in zip(keys, requests, strict=True)
        ]

    def _stop_if_planned(self, missing: dict[bytes, Request], description: str) -> None:
        if self._settings.estimate_only:
            measured = self._cache.measured(self.name)
            raise PlannedStop(estimate(missing.values(), self._settings, measured, description))
        if self._settings.batch_export:
            files = write_requests(Path(self._settings.batch_export), missing, self._settings)
            raise PlannedStop(
                f"{description}: {len(missing):,} requests written to "
                f"{', '.join(map(str, files))}; run them, then give llm.batch_import=RESULTS in "
                "place of llm.batch_export"
            )

    def _ask_backend(
        self,
        missing: dict[bytes, Request],
        total: int,
        description: str,
        check: Check | None,
        replies: dict[bytes, tuple[Any, str | None]],
    ) -> None:
        from tqdm.auto import tqdm

        assert self._backend is not None
        bar = tqdm(
            total=total, initial=total - len(missing), desc=description, unit="request",
            dynamic_ncols=True, smoothing=0.05,
        )  # fmt: skip

        def done(key: bytes, reply: Reply) -> None:
            if reply.final:
                self._cache.write(self.name, [(key, reply)])
            replies[key] = (reply.value, reply.reason)
            bar.update()

        with bar:
            self._backend.answer(missing, check, done)
