"""Sentence vectors stored on disk, so that no text is embedded twice over all runs."""

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from pal.core.errors import OutputError, database_reason
from pal.core.files import fingerprint, source_fingerprint
from pal.metrics.base import Embedder
from pal.metrics.similarity import load_embedder


class StoredEmbedder:
    """An embedder with a cache on disk, which loads its model only for new texts.

    The file holds hashes of texts, not texts. A hash of the model's name and, for a folder, of its
    files separates the vectors of different models.

    Args:
        name: a folder or a hub id, see :func:`pal.metrics.load_embedder`.
        path: the SQLite file; created if missing.
    """

    def __init__(self, name: str, path: str | Path):
        self.name, self.path = name, Path(path)
        self.model = fingerprint([source_fingerprint(name)])
        self._embedder: Embedder | None = None

    def load(self) -> "StoredEmbedder":
        """Load the model now, so that a missing model is reported before any work.

        Raises:
            CheckpointError: no model can be loaded.
        """
        if self._embedder is None:
            self._embedder = load_embedder(self.name)
        return self

    def __call__(self, texts: list[str]) -> np.ndarray:
        """Return the vectors of texts, [n, d].

        Raises:
            OutputError: the file cannot be read or written.
        """
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        keys = [self._key(text) for text in texts]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=60)) as store:
                store.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, v BLOB)")
                known = dict.fromkeys(keys, b"")
                for start in range(0, len(keys), 500):
                    some = keys[start : start + 500]
                    marks = ",".join("?" * len(some))
                    known.update(
                        store.execute(f"SELECT key, v FROM vectors WHERE key IN ({marks})", some)
                    )
                new = {key: text for key, text in zip(keys, texts, strict=True) if not known[key]}
                if new:
                    self.load()
                    assert self._embedder is not None
                    vectors = np.asarray(self._embedder(list(new.values())), dtype=np.float32)
                    rows = list(zip(new, (v.tobytes() for v in vectors), strict=True))
                    with store:
                        store.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
                    known.update(rows)
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
            raise OutputError(
                f"{self.path}: cannot keep sentence vectors ({database_reason(error)}); free space "
                "or delete the file, which is then made again"
            ) from error
        return np.stack([np.frombuffer(known[key], dtype=np.float32) for key in keys])

    def _key(self, text: str) -> bytes:
        return hashlib.blake2b(f"{self.model}\n{text}".encode(), digest_size=16).digest()
