"""Whether the file of a study is whole: its pages, the types of its columns, the JSON inside.

A disk or a copy that went wrong damages a file in the middle, and SQLite notices when it gets
there. What raters gave is not to be counted from such a file, so all of it is read before.
"""

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from pal.core.files import parse_json

# What columns hold, by their declared type.
KINDS: dict[str, Any] = {"INTEGER": int, "REAL": (int, float), "TEXT": str, "BLOB": bytes}
TABLES = ("study", "items", "raters", "tasks", "turns", "answers")
JSON_COLUMNS = {("study", "config"), ("items", "content"), ("turns", "details")}

# What the configuration holds, and what raters are shown of an item, by the kind of the study.
CONFIG: dict[str, Any] = {
    "title": str, "consent": str, "address": str, "min_messages": int, "max_messages": int,
    "seed": int, "systems": Mapping, "guard": Mapping,
}  # fmt: skip
CONTENT: dict[str, dict[str, Any]] = {
    "chat": {"sample": str, "situation": str},
    "persona": {"sample": str, "context": list, "persona": list},
}


def check_soundness(connection: sqlite3.Connection) -> None:
    """Read all of a study.

    Raises:
        ValueError: a part of it cannot be what was written.
        sqlite3.DatabaseError: SQLite cannot read a part of it.
    """
    said = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if said != "ok":
        raise ValueError(" ".join(said.split()))
    if connection.execute("PRAGMA foreign_key_check").fetchone():
        raise ValueError("a row belongs to none of another table")
    kind = None
    for table in TABLES:
        columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
        for row in connection.execute(f"SELECT * FROM {table}"):
            for (_, name, declared, needed, _, key), value in zip(columns, row, strict=True):
                where = f"{table}.{name}"
                absent = value is None and not (needed or key)
                if not absent and not isinstance(value, KINDS.get(declared, ())):
                    raise ValueError(f"{where} holds {value!r:.40}")
                if not absent and (table, name) in JSON_COLUMNS:
                    inside = parse_json(value)
                    wanted = {"study": CONFIG, "items": CONTENT.get(str(kind), {})}.get(table, {})
                    _check_entries(where, inside, wanted)
                if where == "study.kind":
                    kind = value
    if kind not in CONTENT:
        raise ValueError(f"study.kind holds {kind!r:.40}")


def _check_entries(where: str, inside: Any, wanted: Mapping[str, Any]) -> None:
    if not isinstance(inside, dict):
        raise ValueError(f"{where} holds no entries: {json.dumps(inside)[:40]}")
    for key, kind in wanted.items():
        if not isinstance(inside.get(key), kind) or isinstance(inside.get(key), bool):
            raise ValueError(f"{where}: {key} is {inside.get(key)!r:.40}")
