"""A language model behind a cache: no request is sent twice, and no answer is lost."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pal.core.errors import DataError, PlannedStop
from pal.llm.base import Backend, Check, Outcome, Reply, Request
from pal.llm.batchfile import read_results, write_requests
from pal.llm.cache import Cache, answer_key, request_key
from pal.llm.estimate import describe_volumes, volume_of
from pal.llm.origin import Origin, check_local_model
from pal.llm.settings import LlmSettings

Replies = dict[bytes, tuple[Any, str | None]]


class CachedModel:
    """Answers requests from the cache, and missing ones through a backend.

    Args:
        settings: settings of the model, with batch files, estimate and prices.
        origin: the model and endpoint that answer.
        cache: store of the answers.
        backend: answers requests that are not in the cache.
        system_role: whether the endpoint takes a system message, for files of requests.
    """

    def __init__(
        self,
        settings: LlmSettings,
        origin: Origin,
        cache: Cache,
        backend: Backend | None,
        *,
        system_role: bool = True,
    ):
        self.name = origin.name
        self.origin, self.cache = origin, cache
        self._settings = settings
        self._backend = backend
        self._system_role = system_role

    def describe(self) -> dict[str, Any]:
        """Return the facts for the record of a run: backend, endpoint, output mode."""
        facts = self._backend.facts if self._backend else None
        return {
            "model": self.name,
            "backend": self._settings.backend,
            "endpoint": self._settings.base_url,
            "structured_output": facts.output_mode if facts else None,
            "system_role": facts.system_role if facts else self._system_role,
        }

    def ask(
        self, requests: Sequence[Request], *, description: str, check: Check | None = None
    ) -> list[Outcome]:
        """Answer requests, in their order (see :class:`pal.llm.base.LanguageModel`).

        Requests that differ only in their id are sent once. A stored value that ``check`` does not
        accept, for example after a change of the check, is requested again.

        Raises:
            PlannedStop: the settings ask for an estimate or a file of requests instead of answers.
            PalError: two requests share an id, or the backend cannot continue.
        """
        if len({request.id for request in requests}) < len(requests):
            seen: set[str] = set()
            twice = next(r.id for r in requests if r.id in seen or seen.add(r.id))  # type: ignore[func-returns-value]
            raise DataError(f"{description}: the id {twice!r} occurs twice; give each item its own")
        keys = [answer_key(self.origin, request) for request in requests]
        replies = self.cache.read(keys)
        if self.cache.reads_old:
            self._take_old(keys, requests, replies)
        missing: dict[bytes, Request] = {}
        for key, request in zip(keys, requests, strict=True):
            value, reason = replies.get(key, (None, "not there"))
            if key not in replies or (reason is None and check and check(request, value)):
                missing.setdefault(key, request)
        for path in self._settings.batch_import if missing else []:
            self._take_results(Path(path), missing, check, replies)
        if missing:
            self.answer_missing(missing, len(requests), description, check, replies)
        return [
            Outcome(request.id, *replies[key]) for key, request in zip(keys, requests, strict=True)
        ]

    def answer_missing(
        self,
        missing: dict[bytes, Request],
        total: int,
        description: str,
        check: Check | None,
        replies: Replies,
    ) -> None:
        """Send the requests that are not in the cache, and add their replies.

        Args:
            missing: the requests, by answer key.
            total: number of all requests, for the progress bar.
            description: label of the progress bar.
            check: function that returns why an answer is not acceptable, or None.
            replies: replies by answer key; new ones are added to it.

        Raises:
            PlannedStop: the settings ask for an estimate or a file of requests instead of answers.
            PalError: the backend cannot continue.
        """
        self._stop_if_planned(missing, description)
        check_local_model(self._settings)
        from tqdm.auto import tqdm

        assert self._backend is not None
        bar = tqdm(
            total=total, initial=total - len(missing), desc=description, unit="request",
            dynamic_ncols=True, smoothing=0.05,
        )  # fmt: skip

        def done(key: bytes, reply: Reply) -> None:
            if reply.final:
                self.cache.write(self.origin, [(key, reply)])
            replies[key] = (reply.value, reply.reason)
            bar.update()

        with bar:
            self._backend.answer(missing, check, done)

    def _take_old(
        self, keys: Sequence[bytes], requests: Sequence[Request], replies: Replies
    ) -> None:
        """Use stored answers of version 0.1 for missing ones; their table is not changed."""
        own = {
            key: request_key(self.origin.request_name, request)
            for key, request in zip(keys, requests, strict=True)
            if key not in replies
        }
        old = self.cache.read_old(own.values())
        replies.update({key: old[before] for key, before in own.items() if before in old})

    def _take_results(
        self, path: Path, missing: dict[bytes, Request], check: Check | None, replies: Replies
    ) -> None:
        """Move requests that a results file answers from ``missing`` to replies and cache."""
        own = {
            request_key(self.origin.request_name, request): key for key, request in missing.items()
        }
        found = read_results(path, {name: missing[key] for name, key in own.items()}, check)
        self.cache.write(self.origin, ((own[name], reply) for name, reply in found.items()))
        for name, reply in found.items():
            replies[own[name]] = (reply.value, reply.reason)
            del missing[own[name]]

    def _stop_if_planned(self, missing: dict[bytes, Request], description: str) -> None:
        if self._settings.estimate_only:
            volume = volume_of(missing.values(), description)
            measured = self.cache.measured(self.origin)
            raise PlannedStop(describe_volumes([volume], self._settings, measured))
        if self._settings.batch_export:
            files = write_requests(
                Path(self._settings.batch_export),
                {request_key(self.origin.request_name, one): one for one in missing.values()},
                self._settings, system_role=self._system_role,
            )  # fmt: skip
            raise PlannedStop(
                f"{description}: {len(missing):,} requests written to "
                f"{', '.join(map(str, files))}; run them, then give llm.batch_import=RESULTS in "
                "place of llm.batch_export"
            )
