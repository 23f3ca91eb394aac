"""Near duplicates of texts: MinHash sketches of their shingles, compared where bands agree.

A shingle is a run of words. The share of shingles that two texts have in common, of all that either
has, is their Jaccard similarity. A sketch is a row of minima of random permutations (``datasketch``
computes them): two texts agree in each with a probability that is their similarity. Texts whose
sketches agree in a whole band of minima are candidates, so no text is compared with all others.
"""

import re
import unicodedata
import zlib
from typing import Any

import numpy as np

from pal.data.spilled import SpilledBlocks

_WORD = re.compile(r"\w+")
# Scripts without spaces between words: every character counts as a word.
_CHARACTER = "぀-ヿ㐀-䶿一-鿿"
_WORD_OR_CHARACTER = re.compile(rf"[{_CHARACTER}]|[^\W{_CHARACTER}]+")

_MULTIPLIER = np.uint32(0x9E3779B1)
_MIX = np.uint64(0x9E3779B97F4A7C15)
BLOCK = 1 << 14
WORDS = 1 << 17  # whose hashes are kept


def split_words(text: str) -> list[str]:
    """Return the words of a text without case and punctuation.

    Example:
        >>> split_words("I'm FINE, thanks…")
        ['i', 'm', 'fine', 'thanks']
    """
    if text.isascii():
        return _WORD.findall(text.lower())
    return _WORD_OR_CHARACTER.findall(unicodedata.normalize("NFKC", text).casefold())


class Shingles:
    """Hashes the runs of words of texts; the same in every run of the program.

    Args:
        size: number of words in a run.
    """

    def __init__(self, size: int):
        self.size = size
        self._words: dict[str, int] = {}

    def of(self, words: list[str]) -> np.ndarray:
        """Return the hashes of the runs of ``words``; one of all words where they are fewer."""
        known = self._words
        try:
            ids = [known[word] for word in words]
        except KeyError:
            if len(known) >= WORDS:
                known.clear()
            for word in words:
                if word not in known:
                    known[word] = zlib.crc32(word.encode("utf-8", "surrogatepass"))
            ids = [known[word] for word in words]
        hashes = np.array(ids, dtype=np.uint32)
        size = min(self.size, len(hashes))
        joined = hashes[: len(hashes) - size + 1]
        for place in range(1, size):
            joined = joined * _MULTIPLIER + hashes[place : len(hashes) - size + 1 + place]
        return joined


class NearIndex:
    """Collects sketches, and finds pairs that are likely to be similar.

    A pair of similarity s is found with probability 1 − (1 − s^rows)^bands, or more: of texts that
    agree in a band, each is compared with the first and with the one before it.

    Args:
        rows: minima in a band; more of them find fewer dissimilar pairs.
        bands: number of bands; more of them miss fewer similar pairs.
        keeps_sketches: whether :meth:`similarities` is wanted.
        seed: seed of the permutations.
    """

    def __init__(self, *, rows: int, bands: int, keeps_sketches: bool = False, seed: int = 1):
        from datasketch import MinHash

        self.rows, self.bands = rows, bands
        self._sketch: Any = MinHash(rows * bands, seed=seed, hashfunc=_same)
        self._empty = self._sketch.hashvalues
        self._block = np.empty((BLOCK, rows * bands), dtype=np.uint32)
        self._filled = 0
        self._count = 0
        self._keys = SpilledBlocks()  # [bands, n] each
        self._sketches = SpilledBlocks() if keeps_sketches else None  # [n, bands * rows] each

    def add(self, shingles: np.ndarray) -> None:
        """Add a text; texts are numbered from 0 in the order in which they come."""
        self._sketch.hashvalues = self._empty
        self._sketch.update_batch(shingles.tolist())
        self._block[self._filled] = self._sketch.hashvalues
        self._filled += 1
        if self._filled == BLOCK:
            self._flush()

    def _flush(self) -> None:
        """Turn full sketches into one key a band."""
        block = self._block[: self._filled]  # [n, bands * rows]
        values = block.reshape(-1, self.bands, self.rows).astype(np.uint64)
        keys = np.zeros(values.shape[:2], dtype=np.uint64)  # [n, bands]
        for row in range(self.rows):
            keys = (keys ^ values[:, :, row]) * _MIX
            keys ^= keys >> np.uint64(29)
        if len(keys):
            self._keys.append(keys.T)
            if self._sketches is not None:
                self._sketches.append(block)
        self._count += self._filled
        self._filled = 0

    def pairs(self) -> np.ndarray:
        """Return the candidates, [n, 2], the lower number first, each pair once."""
        self._flush()
        count = self._count
        found = [np.empty(0, dtype=np.int64)]
        for band in range(self.bands if count else 0):
            keys = np.concatenate([block[band] for block in self._keys.blocks()])
            order = np.argsort(keys, kind="stable")
            ordered = keys[order]
            same = ordered[1:] == ordered[:-1]
            if not same.any():
                continue
            starts = np.concatenate([[0], np.flatnonzero(~same) + 1])
            first = np.repeat(order[starts], np.diff(np.append(starts, count)))
            later = np.flatnonzero(same) + 1
            for other in (order[later - 1], first[later]):
                found.append(other.astype(np.int64) * count + order[later])
        codes = np.unique(np.concatenate(found))
        return np.stack([codes // max(count, 1), codes % max(count, 1)], axis=1)

    def similarities(self, pairs: np.ndarray) -> np.ndarray:
        """Return the estimated Jaccard similarity of pairs, [n]."""
        self._flush()
        blocks = [] if self._sketches is None else self._sketches.blocks()  # all but one are full
        parts = np.array_split(pairs, max(1, len(pairs) // BLOCK))

        def sketches(numbers: np.ndarray) -> np.ndarray:
            found = np.empty((len(numbers), self.rows * self.bands), dtype=np.uint32)
            for number, block in enumerate(blocks):
                here = numbers // BLOCK == number
                found[here] = block[numbers[here] % BLOCK]
            return found

        return np.concatenate(
            [(sketches(part[:, 0]) == sketches(part[:, 1])).mean(axis=1) for part in parts]
        )


def _same(value: int) -> int:
    return value


def shared_share(one: list[str], other: list[str], size: int) -> float:
    """Return the Jaccard similarity of the runs of ``size`` words of two texts."""
    runs = [
        {tuple(words[n : n + size]) for n in range(max(1, len(words) - size + 1))}
        for words in (one, other)
    ]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])
