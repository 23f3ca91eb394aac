"""Sides of a benchmark: what each took for the same work, and the table of them all."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pal.bench.machine import Ceiling
from pal.errors import OutputError
from pal.settings import Settings


@dataclass(frozen=True)
class Side:
    """What one side took.

    Attributes:
        name: of the side.
        seconds: wall time.
        samples: samples (training) or prefixes (annotation) done.
        tokens: tokens other than padding.
        positions: tokens and padding.
        flops: floating-point operations of matrix products the work needs, padding apart.
        traffic: bytes of weights (and of the optimiser's state) it cannot do without moving.
        memory: bytes at the peak beyond those held before.
        dtype: of the matrix products.
        idle: share of the time spent waiting for the next batch; None where it is not apart.
        warm_up: seconds of the first step, not among the others; None where nothing is left out.
    """

    name: str
    seconds: float
    samples: int
    tokens: int
    positions: int
    flops: float
    traffic: float
    memory: int
    dtype: str = "float32"
    idle: float | None = None
    warm_up: float | None = None


def check_output(settings: Settings) -> Path | None:
    """Return where the JSON goes, if anywhere.

    Raises:
        OutputError: there is an older measurement.
    """
    output = Path(settings.output) if settings.output else None
    if output and output.exists() and not settings.overwrite:
        raise OutputError(f"{output} exists; give overwrite=true to replace it, or another output")
    return output


def render(sides: Sequence[Side], unit: str, ceilings: dict[str, Ceiling]) -> str:
    """Return the table; the first side is ours."""
    lines = [
        f"| | seconds | tokens/s | {unit}/s | ours is faster by | padding | peak memory, GB | "
        "FLOP/s, of ceiling | bandwidth, of ceiling | waiting for data | first step, s |",
        "| --- |" + " ---: |" * 10,
    ]
    for side in sides:
        ceiling = ceilings[side.dtype]
        cells = [
            f"{side.seconds:.1f}",
            f"{side.tokens / side.seconds:.1f}",
            f"{side.samples / side.seconds:.2f}",
            f"{sides[0].tokens / sides[0].seconds / (side.tokens / side.seconds):.2f}",
            f"{1 - side.tokens / side.positions:.1%}",
            f"{side.memory / 1e9:.2f}",
            f"{side.flops / side.seconds / ceiling.flops:.0%}",
            f"{side.traffic / side.seconds / ceiling.bandwidth:.0%}",
            "–" if side.idle is None else f"{side.idle:.2%}",
            "–" if side.warm_up is None else f"{side.warm_up:.1f}",
        ]
        lines.append(f"| {side.name} | {' | '.join(cells)} |")
    rates = (
        f"{dtype} {c.flops / 1e9:.0f} GFLOP/s, reads {c.bandwidth / 1e9:.0f} GB/s"
        for dtype, c in ceilings.items()
    )
    return "\n".join([*lines, "", f"Ceilings, measured before: {'; '.join(rates)}."])


def document(title: str, sides: Sequence[Side], ceilings: dict[str, Ceiling], run: Any) -> Any:
    """Return the JSON document of a benchmark."""
    return {
        "kind": "bench", "format": 1, "title": title, "sides": [asdict(side) for side in sides],
        "ceilings": {dtype: asdict(ceiling) for dtype, ceiling in ceilings.items()}, "run": run,
    }  # fmt: skip


def encoder_flops(config: Any, length: int) -> float:
    """Operations of matrix products for encoding so many tokens of one row."""
    width, inner = config.d_model, config.encoder_ffn_dim
    return config.encoder_layers * (
        2 * length * (4 * width**2 + 2 * width * inner) + 4 * length**2 * width
    )


def decoder_flops(config: Any, source: int, target: int) -> float:
    """Operations for decoding so many tokens of one row that reads so many encoder states."""
    width, inner = config.d_model, config.decoder_ffn_dim
    layer = (
        2 * target * (6 * width**2 + 2 * width * inner)
        + 4 * source * width**2  # keys and values of what is read
        + 4 * target * (source + target / 2) * width
    )
    return config.decoder_layers * layer + 2 * target * width * config.vocab_size
