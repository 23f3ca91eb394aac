"""Formatting of numbers, and plain tables of numbers.

All values of a column have the same number of decimals, so that they align.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MISSING = "–"


def decimals(values: Iterable[float | None]) -> int:
    """Return the number of decimals for a column of these values."""
    largest = max((abs(value) for value in values if value is not None), default=0)
    return next((n for limit, n in ((1, 3), (100, 2), (1000, 1)) if largest < limit), 0)


def show(value: float | None, digits: int = 2) -> str:
    """Return a number as text, or a dash for None.

    Example:
        >>> show(-1.5)
        '−1.50'
    """
    return MISSING if value is None else f"{value:z,.{digits}f}".replace("-", "−")


def show_p(p: float | None) -> str:
    """Return a p-value as text; small ones as a bound."""
    if p is None:
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


@dataclass(frozen=True)
class NumberGrid:
    """A plain table of numbers: column names, and rows of (name, kind, cells)."""

    columns: list[str]
    rows: list[tuple[str, str, list[str]]]


def number_grid(
    columns: Mapping[str, Callable], rows: Iterable[tuple[str, str, Any]], *, drop: bool = True
) -> NumberGrid:
    """Return a table of numbers, each column with its own number of decimals.

    Args:
        columns: name → function from a row's object to the number.
        rows: (name, kind, object) of every row.
        drop: whether columns without any number are left out.
    """
    rows = list(rows)
    taken = {name: [take(item) for _, _, item in rows] for name, take in columns.items()}
    if drop:
        taken = {n: values for n, values in taken.items() if any(v is not None for v in values)}
    shown = {
        name: [show(v, 0 if all(isinstance(x, int | None) for x in values) else decimals(values))
               for v in values]
        for name, values in taken.items()
    }  # fmt: skip
    return NumberGrid(
        list(shown),
        [(name, kind, [c[i] for c in shown.values()]) for i, (name, kind, _) in enumerate(rows)],
    )
