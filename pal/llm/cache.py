"""The cache of answers: one SQLite file, keyed by a hash of the canonical request and its origin.

Each answer is committed before it is returned, so a kill at any moment loses only requests in
flight. Refusals and answers that stay malformed are stored with their reason; temporary failures
(a server that is down, a rate limit) are not. Several processes may read and write at once. The
file holds people's texts, so only the user may read it.
"""

import contextlib
import hashlib
import json
import logging
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pal.core.errors import DataError, OutputError, database_reason
from pal.core.files import dumps, make_private, not_written
from pal.llm.base import EndpointFacts, Reply, Request
from pal.llm.origin import Origin
from pal.llm.settings import OUTPUT_MODES

logger = logging.getLogger(__name__)

TABLES = """
CREATE TABLE IF NOT EXISTS origins (
    id INTEGER PRIMARY KEY, origin TEXT NOT NULL UNIQUE, output_mode TEXT, system_role INTEGER
);
CREATE TABLE IF NOT EXISTS replies (
    key BLOB PRIMARY KEY, origin INTEGER NOT NULL, value TEXT, reason TEXT, output_mode TEXT,
    seconds REAL, tokens_in INTEGER, tokens_out INTEGER, checksum INTEGER
) WITHOUT ROWID;
"""
COLUMNS = "key, origin, value, reason, output_mode, seconds, tokens_in, tokens_out, checksum"
OLD_TABLE = "answers"  # table of version 0.1, keyed by request_key alone, for any endpoint
WAIT = 60.0  # seconds for other processes to finish writing
LOOKUP = 500  # keys per query; older versions of SQLite accept at most 999


def request_key(model: str, request: Request) -> bytes:
    """Return the key of a request: a hash of the model and the whole request, 16 bytes.

    It names requests in batch files. The hashed format never changes, so results files stay
    readable in later versions.
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


def answer_key(origin: Origin, request: Request) -> bytes:
    """Return the key of an answer: a hash of the request and the origin, 16 bytes."""
    own = request_key(origin.request_name, request)
    return hashlib.blake2b(origin.digest + own, digest_size=16).digest()


class Cache:
    """The answers of all models in one file.

    Args:
        path: the SQLite file; created if it is missing.
        trust_old_answers: whether answers of version 0.1 are used for every origin.

    Raises:
        OutputError: the file cannot be created or written.
        DataError: the file is not a cache, or holds answers of version 0.1 without
            ``trust_old_answers``.
    """

    def __init__(self, path: str | Path, *, trust_old_answers: bool = False):
        self.path = Path(path)
        self._origins: dict[str, int] = {}
        if self.path.is_dir():
            raise OutputError(f"llm.cache={self.path} is a folder; give the name of a file in it")
        with self._errors("give llm.cache=FILE in a folder you may write"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(PermissionError):  # another user's file, shared on purpose
                for suffix in ("", "-wal", "-shm", "-journal"):
                    file = self.path.with_name(self.path.name + suffix)
                    if not suffix or file.exists():
                        make_private(file)
            # Calls are never concurrent, but in a notebook they come from a second thread.
            self._database = sqlite3.connect(
                self.path, timeout=WAIT, isolation_level=None, check_same_thread=False
            )
            self._set_up()
            old = self._count_old()
        self.reads_old = bool(old and trust_old_answers)
        if old and not trust_old_answers:
            raise DataError(
                f"{self.path}: {old:,} answers of version 0.1, which do not say which endpoint "
                "gave them; give llm.trust_old_answers=true if this one did, or another "
                "llm.cache=FILE"
            )

    def _set_up(self) -> None:
        """Create the tables, with retries, since several processes may do so at once."""
        last = time.monotonic() + WAIT
        while True:
            try:
                self._database.execute("PRAGMA journal_mode=WAL")
                self._database.execute("PRAGMA synchronous=NORMAL")
                self._database.executescript(TABLES)
                self._add_checksums()
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > last:
                    raise
                time.sleep(0.05)

    def _add_checksums(self) -> None:
        """Add the column to a file of a version without; its answers have none and are read."""
        columns = self._database.execute("PRAGMA table_info(replies)").fetchall()
        if "checksum" not in [column[1] for column in columns]:
            try:
                self._database.execute("ALTER TABLE replies ADD COLUMN checksum INTEGER")
            except sqlite3.OperationalError as error:
                if "duplicate column" not in str(error):  # another process was faster
                    raise

    def _count_old(self) -> int:
        query = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?"
        if not self._database.execute(query, (OLD_TABLE,)).fetchone()[0]:
            return 0
        return self._database.execute(f"SELECT COUNT(*) FROM {OLD_TABLE}").fetchone()[0]

    def read(self, keys: Iterable[bytes]) -> dict[bytes, tuple[Any, str | None]]:
        """Return (value, reason) for every stored key.

        Raises:
            DataError: the file is damaged.
        """
        return self._read(keys, "replies")

    def read_old(self, keys: Iterable[bytes]) -> dict[bytes, tuple[Any, str | None]]:
        """Return (value, reason) for every request key of version 0.1, if those are trusted."""
        return self._read(keys, OLD_TABLE) if self.reads_old else {}

    def _read(self, keys: Iterable[bytes], table: str) -> dict[bytes, tuple[Any, str | None]]:
        wanted = list(dict.fromkeys(keys))
        found: dict[bytes, tuple[Any, str | None]] = {}
        damaged = 0
        checksum = "NULL" if table == OLD_TABLE else "checksum"
        with self._errors("give another llm.cache=FILE"):
            for start in range(0, len(wanted), LOOKUP):
                part = wanted[start : start + LOOKUP]
                query = (
                    f"SELECT key, value, reason, {checksum} FROM {table} "
                    f"WHERE key IN ({_marks(len(part))})"
                )
                for key, value, reason, written in self._database.execute(query, part):
                    if written is not None and written != _checksum(key, value, reason):
                        damaged += 1
                    else:
                        found[key] = (None if value is None else json.loads(value), reason)
        if damaged:
            logger.warning("%s: damaged answers, asked for again: %d", self.path, damaged)
        return found

    def write(self, origin: Origin, replies: Iterable[tuple[bytes, Reply]]) -> None:
        """Add replies; they are on disk when this returns.

        Raises:
            OutputError: the disk is full or the file cannot be written.
        """
        rows = []
        for key, reply in replies:
            value = None if reply.reason else dumps(reply.value)
            rows.append((
                key, self._origin(origin), value, reply.reason, reply.output_mode, reply.seconds,
                reply.tokens_in, reply.tokens_out, _checksum(key, value, reply.reason),
            ))  # fmt: skip
        with self._errors("earlier answers are kept, run the same command again to continue"):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                self._database.executemany(
                    f"INSERT OR REPLACE INTO replies ({COLUMNS}) VALUES ({_marks(9)})", rows
                )
                self._database.execute("COMMIT")
            finally:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")

    def endpoint(self, origin: Origin) -> EndpointFacts:
        """Return the known facts about an origin's endpoint."""
        query = "SELECT output_mode, system_role FROM origins WHERE origin = ?"
        with self._errors("give another llm.cache=FILE"):
            row = self._database.execute(query, (origin.text,)).fetchone()
        if not row or row[0] not in (None, *OUTPUT_MODES):  # nothing known, or damaged
            return EndpointFacts()
        return EndpointFacts(row[0], row[1] != 0)

    def record_endpoint(self, origin: Origin, facts: EndpointFacts) -> None:
        """Store facts about an endpoint."""
        query = "UPDATE origins SET output_mode = ?, system_role = ? WHERE id = ?"
        number = self._origin(origin)
        with self._errors("give another llm.cache=FILE"):
            self._database.execute(query, (facts.output_mode, int(facts.system_role), number))

    def measured(self, origin: Origin) -> tuple[int, float | None, float | None]:
        """Return the number of timed answers, their mean seconds and mean tokens."""
        query = "SELECT COUNT(seconds), AVG(seconds), AVG(tokens_out) FROM replies WHERE origin = ?"
        number = self._origin(origin)
        with self._errors("give another llm.cache=FILE"):
            return self._database.execute(query, (number,)).fetchone()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _origin(self, origin: Origin) -> int:
        """Return the row id of an origin."""
        if origin.text not in self._origins:
            with self._errors("earlier answers are kept, run the same command again to continue"):
                self._database.execute(
                    "INSERT OR IGNORE INTO origins (origin) VALUES (?)", (origin.text,)
                )
                query = "SELECT id FROM origins WHERE origin = ?"
                row = self._database.execute(query, (origin.text,)).fetchone()
            self._origins[origin.text] = row[0]
        return self._origins[origin.text]

    @contextlib.contextmanager
    def _errors(self, remedy: str) -> Iterator[None]:
        """Convert errors of SQLite and the system to one-line errors."""
        try:
            yield
        except sqlite3.OperationalError as error:
            why = database_reason(error)
            raise OutputError(f"cannot use {self.path}: {why}; {remedy}") from None
        except OSError as error:
            raise not_written(self.path, error) from None
        except (sqlite3.DatabaseError, ValueError) as error:  # ValueError: JSON, or not UTF-8
            raise DataError(
                f"{self.path}: not a cache of answers, or a damaged one "
                f"({database_reason(error)}); give another llm.cache=FILE"
            ) from None


def _checksum(key: bytes, value: str | None, reason: str | None) -> int:
    """Return what tells whether an answer is as it was written."""
    return zlib.crc32(repr((bytes(key), value, reason)).encode("utf-8", "surrogatepass"))


def _marks(count: int) -> str:
    return ", ".join("?" * count)
