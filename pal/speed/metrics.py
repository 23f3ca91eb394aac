"""Speed of scores, compared with plain Python: ``pal bench metrics``.

A measurement is a list of pairs (:class:`TimedPair`): the seconds of both sides, taken in turn in
the same process on the same inputs, and compared by their medians. It counts only if both sides
give the same values, so that is checked first, and stated.
"""

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pal.core.errors import DataError, PalError
from pal.core.settings import bundled
from pal.data.predictions import read_predictions
from pal.metrics import Predictions, compute_metrics
from pal.metrics.text import tokenize
from pal.speed.machine import clock, machine

PAIRS = 2000  # about the samples of ESConv's test split (2,295)
ROUNDS = 7
TOLERANCE = 1e-8  # percentage points; plain Python's EAD loses digits where n-grams are few

# Words of a response (split at spaces) in ESConv, all splits, of the 14,642 supporter turns that
# follow a seeker turn: the share of turns up to a length, and that length.
SHARES = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1)
LENGTHS = (1, 6, 8, 11, 14, 16, 19, 23, 28, 36, 46, 60, 72, 108, 166)


@dataclass(frozen=True)
class TimedPair:
    """The times of one task on both sides.

    Args:
        name: name of the task.
        ours: seconds of each round of this package.
        plain: seconds of each round of the comparison.
    """

    name: str
    ours: list[float]
    plain: list[float]

    @property
    def ratio(self) -> float:
        """Speedup: median time of the plain side divided by that of this package."""
        return statistics.median(self.plain) / statistics.median(self.ours)


def measure_metrics(
    responses: list[str], references: list[str], source: str
) -> tuple[str, dict[str, Any]]:
    """Measure ROUGE-L and Distinct (with EAD) against plain Python.

    Both sides read the same tokens, so the table has times without and with tokenisation.

    Args:
        responses: texts of the responses.
        references: texts of the references, equally many.
        source: source of the texts, in words.

    Returns:
        The Markdown table, and the document with all seconds; neither holds a text.

    Raises:
        PalError: the values of the two sides differ.
    """
    from tqdm.auto import tqdm

    predictions = Predictions(responses, references)
    differences = check_same_values(predictions)
    work: dict[str, Callable[[], object]] = {
        "tokens": lambda: make_tokens(responses, references),
        "plain rouge": lambda: plain_rouge(predictions),
        "rouge": lambda: compute_metrics(predictions, ["rouge"]),
        "plain distinct": lambda: plain_distinct(predictions),
        "distinct": lambda: compute_metrics(predictions, ["distinct"]),
        "together": lambda: compute_metrics(predictions, ["rouge", "distinct"]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in tqdm(range(ROUNDS), desc="bench metrics", unit="round", dynamic_ncols=True):
        for name, call in work.items():
            seconds[name].append(clock(call))
    tokens = seconds["tokens"]
    plain = add(seconds["plain rouge"], seconds["plain distinct"])
    rows = [
        TimedPair("ROUGE-L and Distinct together", seconds["together"], plain),
        TimedPair("ROUGE-L", seconds["rouge"], seconds["plain rouge"]),
        TimedPair("Distinct", seconds["distinct"], seconds["plain distinct"]),
        TimedPair("word tokens (both sides the same)", tokens, tokens),
        TimedPair(
            "together, word tokens included", add(seconds["together"], tokens), add(plain, tokens)
        ),
    ]
    notes = [
        f"{len(responses):,} pairs, {source}. Median of {ROUNDS} rounds (fastest – slowest), one "
        f"process, {machine()['cpu']}, {machine()['cores']} cores.",
        f"Same values: over {', '.join(differences)} the largest difference is "
        f"{max(differences.values()):.1g} percentage points (allowed: {TOLERANCE:g}).",
        "plain: Python without libraries, as in the authors' scripts: the longest common "
        "subsequence by a full table, n-grams by loops over slices. Both sides read the same word "
        f"tokens ({predictions.word_tokenizer}), made once; the last row counts that time on both.",
    ]
    document = {
        "kind": "bench", "format": 1, "title": "metrics", "pairs": len(responses),
        "source": source,
        "rows": [
            {"name": r.name, "ours": r.ours, "plain": r.plain, "ratio": r.ratio} for r in rows
        ],
        "differences": differences, "tolerance": TOLERANCE,
    }  # fmt: skip
    return timing_table(rows, len(responses), "pairs", notes), document


def timing_table(rows: Sequence[TimedPair], items: int, unit: str, notes: Sequence[str]) -> str:
    """Return rows as a Markdown table: seconds, items a second, and the ratio of the medians."""
    lines = [
        f"| | ours, s | plain, s | ours, {unit}/s | plain, {unit}/s | ratio |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        cells = [_spread(row.ours), _spread(row.plain)]
        cells += [f"{items / statistics.median(side):,.0f}" for side in (row.ours, row.plain)]
        lines.append(f"| {row.name} | {' | '.join(cells)} | {row.ratio:.1f} |")
    return "\n".join([*lines, "", *notes])


def add(*sides: Sequence[float]) -> list[float]:
    """Add seconds round by round."""
    return [sum(parts) for parts in zip(*sides, strict=True)]


def load_pairs(
    path: str | None, *, count: int | None, seed: int
) -> tuple[list[str], list[str], str]:
    """Return responses, references, and their source in words.

    Args:
        path: records with ``response`` and ``reference``; None cuts pairs out of the bundled
            corpus, as long as those of ESConv.
        count: maximum number of pairs.
        seed: seed of the synthetic pairs.

    Raises:
        DataError: the predictions cannot be read, or a record has no reference.
    """
    if path is None:
        responses, references = synthetic_pairs(count or PAIRS, seed)
        return responses, references, f"the bundled corpus cut to ESConv's lengths (seed {seed})"
    records = read_predictions(path)[:count]
    for record in records:
        if not isinstance(record.get("reference"), str):
            raise DataError(
                f"{path}: record {record['id']!r} has no text as 'reference', got "
                f"{record.get('reference')!r}; give responses that have one each"
            )
    responses = [record["response"] for record in records]
    return responses, [record["reference"] for record in records], Path(path).name


def synthetic_pairs(count: int, seed: int) -> tuple[list[str], list[str]]:
    """Cut responses and references out of the bundled corpus's supporter turns.

    Lengths are drawn from :data:`LENGTHS`; a text begins at any word and may run on into the next
    turns, so that few are alike.
    """
    from pal.data.esconv import load_esconv

    words = [
        word
        for dialogue in load_esconv(str(bundled("sample", "esconv", "train.jsonl")))
        for turn in dialogue["dialog"]
        if turn["speaker"] == "supporter"
        for word in turn["text"].split()
    ]
    chance = random.Random(seed)
    texts = []
    for _ in range(2 * count):
        length = round(float(np.interp(chance.random(), SHARES, LENGTHS)))
        start = chance.randrange(len(words) - length)
        texts.append(" ".join(words[start : start + length]))
    return texts[:count], texts[count:]


def make_tokens(responses: list[str], references: list[str]) -> None:
    """Compute all tokens without any cache."""
    tokenize.cache_clear()
    for text in responses + references:
        tokenize(text)


def check_same_values(predictions: Predictions) -> dict[str, float]:
    """Return the largest difference between both sides for each metric, percentage points.

    Raises:
        PalError: one is larger than :data:`TOLERANCE`, or only one side has a value.
    """
    report = compute_metrics(predictions, ["rouge", "distinct"])
    single = plain_rouge(predictions)
    ours: dict[str, Any] = {**report.values, "rouge_l of each pair": report.per_sample["rouge_l"]}
    plain: dict[str, Any] = {
        "rouge_l": sum(single) / len(single),
        "rouge_l of each pair": np.array(single),
        **plain_distinct(predictions),
    }
    differences = {}
    for key in sorted(ours.keys() | plain.keys()):
        gap = np.abs(ours.get(key, math.nan) - plain.get(key, math.nan)).max()
        if not gap <= TOLERANCE:
            raise PalError(
                f"bench metrics: {key} differs from plain Python's by {gap:.3g} percentage points "
                f"on the same {len(predictions):,} pairs (expected at most {TOLERANCE:g}; nan: one "
                "side has no value), so their times are not compared; run the tests of pal.metrics"
            )
        differences[key] = float(gap)
    return differences


def plain_rouge(predictions: Predictions) -> list[float]:
    """Return ROUGE-L of every pair, percent, in plain Python."""
    values = []
    for response, reference in zip(
        predictions.response_tokens, predictions.reference_tokens, strict=True
    ):
        common = plain_lcs(response, reference)
        if common == 0:
            values.append(0.0)
            continue
        precision, recall = common / len(response), common / len(reference)
        values.append(100 * (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision))
    return values


def plain_lcs(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, by the textbook's full table."""
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i in range(1, len(first) + 1):
        for j in range(1, len(second) + 1):
            if first[i - 1] == second[j - 1]:
                table[i][j] = table[i - 1][j - 1] + 1
            else:
                table[i][j] = max(table[i - 1][j], table[i][j - 1])
    return table[-1][-1]


def plain_distinct(predictions: Predictions) -> dict[str, float]:
    """Return Distinct-1 to 3 and EAD-1 and 2, percent, in plain Python."""
    values = {}
    for n in (1, 2, 3):
        found, total = {}, 0
        for tokens in predictions.response_tokens:
            for i in range(len(tokens) - n + 1):
                found[tuple(tokens[i : i + n])] = 1
                total += 1
        if total:
            values[f"distinct_{n}"] = 100 * len(found) / total
            if n < 3:
                size = predictions.vocab_size
                values[f"ead_{n}"] = 100 * len(found) / (size * (1 - ((size - 1) / size) ** total))
    return values


def _spread(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.4f} ({min(seconds):.4f} – {max(seconds):.4f})"
