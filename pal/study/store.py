"""The SQLite file of a study: every turn and every answer, in a transaction of its own.

What a rater was shown as stored is on the disk (``synchronous=FULL``), so a kill loses nothing. The
file and the two beside it that SQLite keeps are readable by the user alone. Links hold a random
token of 128 bits, of which only a hash is stored. Deleted texts are overwritten.
"""

import hashlib
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pal.core.errors import DataError, OutputError, database_reason, first_line
from pal.core.files import no_such, not_written
from pal.study.soundness import check_soundness

FORMAT = 1
BUSY_SECONDS = 30.0  # how long a writer waits for another
SIDES = ("A", "B")

Side = Literal["A", "B"]

SCHEMA = """
CREATE TABLE study (
    one INTEGER PRIMARY KEY CHECK (one = 1), format INTEGER NOT NULL, kind TEXT NOT NULL,
    config TEXT NOT NULL, created REAL NOT NULL
);
CREATE TABLE items (item TEXT PRIMARY KEY, place INTEGER NOT NULL, content TEXT NOT NULL);
CREATE TABLE raters (
    rater INTEGER PRIMARY KEY, token BLOB NOT NULL UNIQUE, expires REAL NOT NULL,
    consented REAL, stopped REAL, withdrawn REAL
);
CREATE TABLE tasks (
    task TEXT PRIMARY KEY, rater INTEGER NOT NULL REFERENCES raters,
    item TEXT NOT NULL REFERENCES items, place INTEGER NOT NULL, a TEXT, b TEXT,
    a_ended REAL, b_ended REAL, finished REAL, UNIQUE (rater, place), UNIQUE (rater, item)
);
CREATE TABLE turns (
    task TEXT NOT NULL REFERENCES tasks, side TEXT NOT NULL CHECK (side IN ('A', 'B')),
    number INTEGER NOT NULL, speaker TEXT NOT NULL CHECK (speaker IN ('rater', 'system', 'guard')),
    text TEXT NOT NULL, details TEXT, at REAL NOT NULL, PRIMARY KEY (task, side, number)
);
CREATE TABLE answers (
    task TEXT NOT NULL REFERENCES tasks, question TEXT NOT NULL, answer TEXT NOT NULL,
    reason TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (task, question)
);
"""


@dataclass(frozen=True)
class Rater:
    """Who holds a link.

    Attributes:
        rater: number.
        expires: time after which the link takes nothing but a withdrawal, in seconds since 1970.
        consented: when the rater agreed; None before.
        stopped: when the rater stopped; None if not.
        withdrawn: when all of theirs was deleted; None if not.
    """

    rater: int
    expires: float
    consented: float | None
    stopped: float | None
    withdrawn: float | None


@dataclass(frozen=True)
class StudyTask:
    """One item for one rater.

    Attributes:
        task: opaque id.
        rater: number of the rater.
        item: id of the situation or persona sample.
        place: place in the rater's order, from 0.
        systems: names of the systems behind A and B; empty in a persona study.
        ended: sides whose conversation the rater has ended.
        finished: whether all is answered and handed in.
        content: what the item shows.
    """

    task: str
    rater: int
    item: str
    place: int
    systems: Mapping[str, str]
    ended: tuple[str, ...]
    finished: bool
    content: Mapping[str, Any]


@dataclass(frozen=True)
class StudyTurn:
    """One turn of a conversation; ``speaker`` is ``rater``, ``system`` or ``guard``."""

    number: int
    speaker: str
    text: str
    details: Mapping[str, Any]
    at: float


@dataclass(frozen=True)
class NewTask:
    """A task to be stored: id of the item, and the systems behind A and B (chat studies)."""

    item: str
    systems: tuple[str, str] | None = None


def hash_token(token: str) -> bytes:
    """Return what is stored of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


class StudyStore:
    """The file of one study; safe to share between threads, each of which has its connection.

    Args:
        path: file that :meth:`create` made.

    Raises:
        DataError: it is no such file.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_file():
            maker = "`pal study create` makes it"
            if self.path.is_dir():
                raise DataError(f"{path}: a folder, not the file of a study; {maker}")
            raise DataError(f"{path}: {no_such(path, remedy=maker)}")
        if not self.path.stat().st_size:  # SQLite would make a database of it
            raise DataError(f"{path}: the file is empty; `pal study create` makes a study")
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        try:
            row = self._connection().execute("SELECT format, kind, config FROM study").fetchone()
            if row is not None and row[0] == FORMAT:
                check_soundness(self._connection())
        except ValueError as error:
            self.close()
            raise DataError(
                f"{path}: a damaged study ({first_line(error)}); put a copy from before in its "
                "place"
            ) from None
        except sqlite3.DatabaseError as error:
            self.close()
            raise DataError(
                f"{path}: not a study, or not writable here ({database_reason(error)}); give the "
                "file that `pal study create` made, in a folder that can be written"
            ) from None
        if row is None or row[0] != FORMAT:
            self.close()
            raise DataError(f"{path}: not a study of format {FORMAT}; create it again")
        self.kind: str = row[1]
        self.config: dict[str, Any] = json.loads(row[2])

    @classmethod
    def create(
        cls, path: str | Path, *, kind: str, config: Mapping[str, Any],
        items: Mapping[str, Mapping[str, Any]], raters: Sequence[Sequence[NewTask]], expires: float,
    ) -> list[str]:  # fmt: skip
        """Make the file of a study, completely or not at all.

        Args:
            path: the new file.
            kind: ``chat`` or ``persona``.
            config: what the server needs.
            items: id → what raters are shown of it.
            raters: the tasks of each rater, in order.
            expires: when the links end, in seconds since 1970.

        Returns:
            The token of every rater, which is stored nowhere.

        Raises:
            OutputError: the file exists or cannot be written.
        """
        path = Path(path)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        tokens = [secrets.token_urlsafe(16) for _ in raters]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            try:
                connection = _connect(unfinished, journal="DELETE")
                with _transaction(connection):
                    for statement in SCHEMA.split(";\n"):
                        connection.execute(statement)
                    _fill(connection, kind, config, items, raters, tokens, expires)
                connection.close()
                os.link(unfinished, path)  # fails where the name is taken
            finally:
                os.unlink(unfinished)
            _sync_folder(path.parent)
        except FileExistsError:
            raise OutputError(
                f"{path} exists, and answers of raters are never overwritten; give another name"
            ) from None
        except (OSError, sqlite3.Error) as error:
            raise not_written(path, error) from error
        return tokens

    # ------------------------------------------------------------------------- reading

    def rater_of(self, token: str) -> Rater | None:
        """Return who holds a token."""
        return self._rater("token = ?", hash_token(token))

    def raters(self) -> list[Rater]:
        """Return all raters in order."""
        rows = self._connection().execute(f"SELECT {_RATER} FROM raters ORDER BY rater")
        return [Rater(*row) for row in rows]

    def tasks(self, rater: int) -> list[StudyTask]:
        """Return a rater's tasks in order."""
        return self._tasks("tasks.rater = ?", rater)

    def all_tasks(self) -> list[StudyTask]:
        """Return the tasks of all raters."""
        return self._tasks("1 = 1")

    def turns(self, task: str, side: str) -> list[StudyTurn]:
        """Return the turns of a conversation in order."""
        rows = self._connection().execute(
            "SELECT number, speaker, text, details, at FROM turns WHERE task = ? AND side = ? "
            "ORDER BY number", (task, side),
        )  # fmt: skip
        return [
            StudyTurn(number, speaker, text, json.loads(details or "{}"), at)
            for number, speaker, text, details, at in rows
        ]

    def answers(self, task: str) -> dict[str, tuple[str, str]]:
        """Return {question: (answer, reason)} of a task."""
        rows = self._connection().execute(
            "SELECT question, answer, reason FROM answers WHERE task = ?", (task,)
        )
        return {question: (answer, reason) for question, answer, reason in rows}

    def said(self, rater: int) -> list[tuple[str, str, str]]:
        """Return (task, side, text) of all that a rater wrote to systems, oldest first."""
        return self._connection().execute(
            "SELECT turns.task, side, text FROM turns JOIN tasks USING (task) "
            "WHERE rater = ? AND speaker = 'rater' ORDER BY place, side, number", (rater,),
        ).fetchall()  # fmt: skip

    # ------------------------------------------------------------------------- writing

    def consent(self, rater: int) -> None:
        """Note that a rater has agreed."""
        self._mark(rater, "consented = coalesce(consented, ?)", time.time())

    def stop(self, rater: int) -> None:
        """Note that a rater has stopped."""
        self._mark(rater, "stopped = coalesce(stopped, ?)", time.time())

    def resume(self, rater: int) -> None:
        """Let a rater go on who had stopped."""
        self._mark(rater, "stopped = NULL")

    def withdraw(self, rater: int) -> None:
        """Delete all that a rater wrote, answered and was told; the link stays used up."""
        connection = self._connection()
        with _transaction(connection):
            for table in ("answers", "turns"):
                connection.execute(
                    f"DELETE FROM {table} WHERE task IN (SELECT task FROM tasks WHERE rater = ?)",
                    (rater,),
                )
            connection.execute("DELETE FROM tasks WHERE rater = ?", (rater,))
            connection.execute(
                "UPDATE raters SET withdrawn = coalesce(withdrawn, ?), consented = NULL, "
                "stopped = NULL WHERE rater = ?", (time.time(), rater),
            )  # fmt: skip
        self.flush()

    def say(self, rater: int, task: str, side: str, number: int, text: str) -> bool:
        """Store a rater's message as turn ``number``.

        Returns:
            Whether that turn is this message now: true also if it was stored before, false if the
            conversation has gone on otherwise or takes no message.
        """
        connection = self._connection()
        with _transaction(connection):
            row = connection.execute(
                "SELECT speaker, text FROM turns WHERE task = ? AND side = ? AND number = ?",
                (task, side, number),
            ).fetchone()
            mine = self._may_write(connection, rater, task)
            if row is not None:
                return bool(mine and tuple(row) == ("rater", text))
            last = connection.execute(
                "SELECT count(*), coalesce(max(number), -1) FROM turns WHERE task = ? AND side = ?",
                (task, side),
            ).fetchone()
            # The rater speaks on even numbers, so an unanswered message takes none behind it.
            if not mine or side in mine.ended or number % 2 or last != (number, number - 1):
                return False
            _add_turn(connection, task, side, number, "rater", text, {})
        return True

    def reply(
        self, task: str, side: str, number: int, speaker: Literal["system", "guard"], text: str,
        details: Mapping[str, Any],
    ) -> bool:  # fmt: skip
        """Store the reply to the message before it, unless it has one or the rater has withdrawn.

        Returns:
            Whether it was stored.
        """
        connection = self._connection()
        with _transaction(connection):
            row = connection.execute(
                "SELECT speaker FROM turns WHERE task = ? AND side = ? ORDER BY number DESC",
                (task, side),
            ).fetchone()
            count = len(self.turns(task, side))
            if row is None or row[0] != "rater" or count != number:
                return False
            _add_turn(connection, task, side, number, speaker, text, details)
        return True

    def end(self, rater: int, task: str, side: Side) -> None:
        """Note that the rater has ended the conversation with a side."""
        connection = self._connection()
        column = {"A": "a_ended", "B": "b_ended"}[side]
        with _transaction(connection):
            if self._may_write(connection, rater, task):
                connection.execute(
                    f"UPDATE tasks SET {column} = coalesce({column}, ?) WHERE task = ?",
                    (time.time(), task),
                )

    def answer(
        self,
        rater: int,
        task: str,
        given: Mapping[str, tuple[str, str]],
        finish: Sequence[str] = (),
    ) -> bool:
        """Store answers; later ones take the place of earlier ones until the task is finished.

        Args:
            rater: who answers.
            task: what is answered.
            given: {question: (answer, reason)}.
            finish: questions that must be answered for the task to be finished; none leaves it
                open.

        Returns:
            Whether the task is finished.
        """
        connection = self._connection()
        with _transaction(connection):
            if self._may_write(connection, rater, task):
                connection.executemany(
                    "INSERT INTO answers VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                    "answer = excluded.answer, reason = excluded.reason, at = excluded.at",
                    [(task, name, *words, time.time()) for name, words in given.items()],
                )
                if finish and set(finish) <= set(self.answers(task)):
                    connection.execute(
                        "UPDATE tasks SET finished = ? WHERE task = ?", (time.time(), task)
                    )
            row = connection.execute(
                "SELECT finished FROM tasks WHERE task = ? AND rater = ?", (task, rater)
            ).fetchone()
        return row is not None and row[0] is not None

    def flush(self) -> None:
        """Bring all into the file itself, and empty the one beside it, where old texts could be."""
        connection = self._connection()
        deadline = time.monotonic() + BUSY_SECONDS
        while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            if time.monotonic() > deadline:
                raise OutputError(
                    f"{self.path}: deleted, but traces are left in {self.path.name}-wal while "
                    "another program reads the file; end that and start the server again"
                )
            time.sleep(0.05)

    def close(self) -> None:
        """Close the connections of all threads."""
        with self._guard:
            for connection in self._opened:
                with suppress(sqlite3.Error):
                    connection.close()
            self._opened.clear()
            self._local = threading.local()

    # ------------------------------------------------------------------------- inside

    def _connection(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = _connect(self.path)
            self._local.connection = found
            with self._guard:
                self._opened.append(found)
        return found

    def _rater(self, where: str, value: Any) -> Rater | None:
        row = self._connection().execute(
            f"SELECT {_RATER} FROM raters WHERE {where}", (value,)
        ).fetchone()  # fmt: skip
        return None if row is None else Rater(*row)

    def _tasks(self, where: str, *values: Any) -> list[StudyTask]:
        rows = self._connection().execute(
            "SELECT task, rater, item, tasks.place, a, b, a_ended, b_ended, finished, content "
            f"FROM tasks JOIN items USING (item) WHERE {where} ORDER BY rater, tasks.place", values,
        )  # fmt: skip
        return [
            StudyTask(
                task, rater, item, place, {} if a is None else {"A": a, "B": b},
                tuple(s for s, at in (("A", a_ended), ("B", b_ended)) if at is not None),
                finished is not None, json.loads(content),
            )
            for task, rater, item, place, a, b, a_ended, b_ended, finished, content in rows
        ]  # fmt: skip

    def _may_write(self, connection: sqlite3.Connection, rater: int, task: str) -> StudyTask | None:
        """Return the task if it is the rater's, open, and the rater is taking part."""
        row = connection.execute(
            "SELECT 1 FROM raters JOIN tasks USING (rater) WHERE rater = ? AND task = ? AND "
            "consented IS NOT NULL AND stopped IS NULL AND withdrawn IS NULL AND expires > ? AND "
            "finished IS NULL", (rater, task, time.time()),
        ).fetchone()  # fmt: skip
        return None if row is None else self._tasks("task = ?", task)[0]

    def _mark(self, rater: int, change: str, *values: Any) -> None:
        connection = self._connection()
        with _transaction(connection):
            connection.execute(
                f"UPDATE raters SET {change} WHERE rater = ? AND withdrawn IS NULL AND expires > ?",
                (*values, rater, time.time()),
            )


_RATER = "rater, expires, consented, stopped, withdrawn"


def _connect(path: Path, journal: str = "WAL") -> sqlite3.Connection:
    # Opened for writing only where it exists: a new file would not be private.
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None,
        check_same_thread=False,
    )  # fmt: skip
    for pragma in (
        f"journal_mode={journal}", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON",
        "trusted_schema=OFF", "temp_store=MEMORY",
    ):  # fmt: skip
        connection.execute(f"PRAGMA {pragma}")
    return connection


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Write all that the block writes, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _add_turn(
    connection: sqlite3.Connection, task: str, side: str, number: int, speaker: str, text: str,
    details: Mapping[str, Any],
) -> None:  # fmt: skip
    connection.execute(
        "INSERT INTO turns VALUES (?, ?, ?, ?, ?, ?, ?)",
        (task, side, number, speaker, text, json.dumps(details), time.time()),
    )


def _fill(
    connection: sqlite3.Connection, kind: str, config: Mapping[str, Any],
    items: Mapping[str, Mapping[str, Any]], raters: Sequence[Sequence[NewTask]],
    tokens: Sequence[str], expires: float,
) -> None:  # fmt: skip
    connection.execute(
        "INSERT INTO study VALUES (1, ?, ?, ?, ?)",
        (FORMAT, kind, json.dumps(config), time.time()),
    )
    connection.executemany(
        "INSERT INTO items VALUES (?, ?, ?)",
        [(item, place, json.dumps(shown)) for place, (item, shown) in enumerate(items.items())],
    )
    for number, (token, tasks) in enumerate(zip(tokens, raters, strict=True), start=1):
        connection.execute(
            "INSERT INTO raters (rater, token, expires) VALUES (?, ?, ?)",
            (number, hash_token(token), expires),
        )
        connection.executemany(
            "INSERT INTO tasks (task, rater, item, place, a, b) VALUES (?, ?, ?, ?, ?, ?)",
            [
                (secrets.token_hex(8), number, new.item, place, *(new.systems or (None, None)))
                for place, new in enumerate(tasks)
            ],
        )


def _sync_folder(folder: Path) -> None:
    """Have the name of a new file on the disk."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
