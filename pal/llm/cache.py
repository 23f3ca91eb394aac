"""Answers on disk: one SQLite file, by a hash of the canonical request.

An answer is committed on its own before it counts as given, so a kill at any moment loses only what
was in flight. Refusals and answers that stay malformed are kept with their reason; failures that
may pass (a dead server, a limit) are not. Several processes may read and write at once.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pal.core.errors import DataError, OutputError
from pal.core.files import dumps
from pal.llm.base import Reply, Request

TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    key BLOB PRIMARY KEY, model TEXT NOT NULL, value TEXT, reason TEXT, rung TEXT,
    seconds REAL, tokens_in INTEGER, tokens_out INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS endpoints (
    url TEXT, model TEXT, rung TEXT NOT NULL, PRIMARY KEY (url, model)
) WITHOUT ROWID;
"""
LOOKUP = 500  # keys a query; SQLite took 999 at most for long


def key_of(model: str, request: Request) -> bytes:
    """Return the cache key: a hash of all that decides the answer, 16 bytes.

    The form below is never changed, so answers survive changes of the code.
    """
    canonical = {
        "model": model,
        "messages": request.messages,
        "schema": request.schema,
        "max_tokens": request.max_tokens,
        "temperature": float(request.temperature),
        "seed": request.seed,
    }
    text = json.dumps(canonical, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class Cache:
    """The answers of all models in one file.

    Args:
        path: the SQLite file; made where there is none.

    Raises:
        OutputError: it cannot be made or written.
        DataError: it is something else.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.executescript(TABLES)
        except sqlite3.OperationalError as error:
            raise OutputError(
                f"cannot write {self.path}: {error}; give llm.cache=FILE in a folder you may write"
            ) from None
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"{self.path}: not a cache of answers ({error}); give another llm.cache=FILE"
            ) from None

    def read(self, keys: Iterable[bytes]) -> dict[bytes, tuple[Any, str | None]]:
        """Return (value, reason) of every key that is there."""
        wanted = list(dict.fromkeys(keys))
        found = {}
        for start in range(0, len(wanted), LOOKUP):
            part = wanted[start : start + LOOKUP]
            query = f"SELECT key, value, reason FROM answers WHERE key IN ({_marks(len(part))})"
            for key, value, reason in self._database.execute(query, part):
                found[key] = (None if value is None else json.loads(value), reason)
        return found

    def write(self, model: str, replies: Iterable[tuple[bytes, Reply]]) -> None:
        """Add replies; they are on disk when this returns.

        Raises:
            OutputError: the disk is full or the file cannot be written.
        """
        rows = [
            (
                key, model, None if reply.reason else dumps(reply.value), reply.reason,
                reply.rung, reply.seconds, reply.tokens_in, reply.tokens_out,
            )
            for key, reply in replies
        ]  # fmt: skip
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(f"INSERT OR REPLACE INTO answers VALUES ({_marks(8)})", rows)
            self._database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise OutputError(
                f"cannot write {self.path}: {error}; earlier answers are kept, "
                "run the same command again to go on"
            ) from None

    def rung(self, url: str, model: str) -> str | None:
        """Return the rung an earlier probe of this endpoint ended on."""
        query = "SELECT rung FROM endpoints WHERE url = ? AND model = ?"
        row = self._database.execute(query, (url, model)).fetchone()
        return row[0] if row else None

    def record_rung(self, url: str, model: str, rung: str) -> None:
        """Keep the result of a probe."""
        self._database.execute(
            "INSERT OR REPLACE INTO endpoints VALUES (?, ?, ?)", (url, model, rung)
        )

    def measured(self, model: str) -> tuple[int, float | None, float | None]:
        """Return how many answers of a model were timed, their mean seconds and mean tokens."""
        query = "SELECT COUNT(seconds), AVG(seconds), AVG(tokens_out) FROM answers WHERE model = ?"
        return self._database.execute(query, (model,)).fetchone()

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _marks(count: int) -> str:
    return ", ".join("?" * count)
