"""Sides of a measurement: their time and memory for the same work, and the table of all sides."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from pal.speed.machine import Ceiling, Taken, measure_call

WARM_UP = 2  # number of contexts that each side answers before the measurement


@dataclass(frozen=True)
class Side:
    """The measurement of one side.

    Attributes:
        name: name of the side.
        seconds: wall time, in seconds; the median of several rounds.
        samples: number of samples (training), prefixes (annotation) or responses (generation).
        tokens: number of tokens that are generated, or read and generated, without padding.
        padding: share of the computed positions that are padding; None if not measured.
        flops: floating-point operations of the necessary matrix products, without padding.
        memory: peak memory beyond that before, in bytes.
        dtype: number format of the matrix products.
        traffic: minimum bytes of weights (and optimiser state) to move; None if known by phase.
        idle: share of the time spent waiting for the next batch; None if not measured.
        warm_up: seconds of the first step, which is not counted; None if all steps are counted.
        rounds: seconds of each round, if there are several.
        positions: positions that the model computed, padding included; None if not counted.
        same: share of the tokens that are those of the first side; None if not compared.
        processor: seconds that the processor computed, all threads together; None if not counted.
    """

    name: str
    seconds: float
    samples: int
    tokens: int
    padding: float | None
    flops: float
    memory: int
    dtype: str = "float32"
    traffic: float | None = None
    idle: float | None = None
    warm_up: float | None = None
    rounds: tuple[float, ...] = ()
    positions: int | None = None
    same: float | None = None
    processor: float | None = None


@dataclass
class RunSide:
    """What a side did in all rounds.

    Attributes:
        runs: time and memory of each round.
        answers: tokens of its responses; rounding may change one.
        seen: what was counted in the last round.
    """

    answers: list[list[int]]
    seen: Mapping[str, Any]
    runs: list[Taken] = field(default_factory=list)


def run_rounds(
    workload: Any,
    calls: Mapping[str, Callable[[Any], list[list[int]]]],
    rounds: int,
    *,
    watch: Callable[[Any], AbstractContextManager[Mapping[str, Any]]],
) -> dict[str, RunSide]:
    """Run the sides in turn, so many rounds, after a few rows each that are not counted.

    Whoever runs first would pay for what is loaded once: weights from disk, libraries' kernels.

    Args:
        workload: what is answered; it has ``model`` and ``first``.
        calls: what answers, by side.
        rounds: number of rounds.
        watch: counts what a model computes.
    """
    from tqdm.auto import tqdm

    taken: dict[str, RunSide] = {}
    for call in calls.values():
        call(workload.first(WARM_UP))
    with tqdm(total=rounds * len(calls), desc="bench generate") as bar:
        for _ in range(rounds):
            for name, call in calls.items():
                with watch(workload.model) as seen:
                    found, run = measure_call(partial(call, workload), workload.model.device)
                side = taken.setdefault(name, RunSide(found, seen))
                side.answers, side.seen = found, seen
                side.runs.append(run)
                bar.update()
    return taken


def sides_table(sides: Sequence[Side], unit: str, ceilings: dict[str, Ceiling]) -> str:
    """Return the table; the first side is ours. Columns of which nothing is known are left out."""
    rows = [_cells(side, sides[0], unit, ceilings[side.dtype]) for side in sides]
    heads = [head for head in rows[0] if any(row[head] for row in rows)]
    lines = [f"| | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
    lines += [
        f"| {side.name} | {' | '.join(row[head] or '–' for head in heads)} |"
        for side, row in zip(sides, rows, strict=True)
    ]
    rates = (
        f"{dtype} {c.flops / 1e9:.0f} GFLOP/s, reads {c.bandwidth / 1e9:.0f} GB/s"
        for dtype, c in ceilings.items()
    )
    return "\n".join([*lines, "", f"Ceilings, measured in the same run: {'; '.join(rates)}."])


def _cells(side: Side, first: Side, unit: str, ceiling: Ceiling) -> dict[str, str]:
    rate, moved = side.tokens / side.seconds, side.traffic
    spread = f" ({min(side.rounds):.1f}–{max(side.rounds):.1f})" if len(side.rounds) > 1 else ""
    return {
        "seconds": f"{side.seconds:.1f}{spread}",
        "processor s": "" if side.processor is None else f"{side.processor:.1f}",
        "tokens/s": f"{rate:.1f}",
        f"{unit}/s": f"{side.samples / side.seconds:.2f}",
        "speedup of ours": f"{first.tokens / first.seconds / rate:.2f}",
        "padding": "" if side.padding is None else f"{side.padding:.1%}",
        "positions computed": "" if side.positions is None else f"{side.positions:,}",
        "same tokens": "" if side.same is None else f"{side.same:.1%}",
        "peak memory, GiB": f"{side.memory / 2**30:.2f}",
        "FLOP/s, of ceiling": f"{side.flops / side.seconds / ceiling.flops:.0%}",
        "bandwidth, of ceiling": (
            "" if moved is None else f"{moved / side.seconds / ceiling.bandwidth:.0%}"
        ),
        "waiting for data": "" if side.idle is None else f"{side.idle:.2%}",
        "first step, s": "" if side.warm_up is None else f"{side.warm_up:.1f}",
    }


def sides_document(
    title: str, sides: Sequence[Side], ceilings: dict[str, Ceiling]
) -> dict[str, Any]:
    """Return the JSON document of a measurement, without the record of the run."""
    return {
        "kind": "bench", "format": 1, "title": title, "sides": [asdict(side) for side in sides],
        "ceilings": {dtype: asdict(ceiling) for dtype, ceiling in ceilings.items()},
    }  # fmt: skip


@dataclass(frozen=True)
class LayerSizes:
    """What layers of an encoder-decoder are made of, whatever its family calls it.

    Attributes:
        encoder_layers: their number.
        decoder_layers: their number.
        heads: width of all heads together; that of the model, unless T5 says otherwise.
        projection: weights of a projection from the model's width to the heads' or back.
        encoder_inner: weights of an encoder layer's feed-forward part.
        decoder_inner: those of a decoder layer's.
    """

    encoder_layers: int
    decoder_layers: int
    heads: int
    projection: int
    encoder_inner: int
    decoder_inner: int


def layer_sizes(config: Any) -> LayerSizes:
    """Return the sizes that a configuration of any family describes."""
    width = config.d_model
    if hasattr(config, "d_ff"):  # T5
        heads = config.d_kv * config.num_heads
        inner = (3 if config.is_gated_act else 2) * width * config.d_ff
        return LayerSizes(
            config.num_layers, config.num_decoder_layers, heads, width * heads, inner, inner
        )
    return LayerSizes(
        config.encoder_layers, config.decoder_layers, width, width**2,
        2 * width * config.encoder_ffn_dim, 2 * width * config.decoder_ffn_dim,
    )  # fmt: skip


def encoder_flops(config: Any, length: int) -> float:
    """Operations of matrix products for encoding so many tokens of one row."""
    size = layer_sizes(config)
    return size.encoder_layers * (
        2 * length * (4 * size.projection + size.encoder_inner) + 4 * length**2 * size.heads
    )


def decoder_flops(config: Any, source: int, target: int) -> float:
    """Operations for decoding so many tokens of one row that reads so many encoder states."""
    size = layer_sizes(config)
    layer = (
        2 * target * (6 * size.projection + size.decoder_inner)
        + 4 * source * size.projection  # keys and values of what is read
        + 4 * target * (source + target / 2) * size.heads
    )
    return size.decoder_layers * layer + 2 * target * config.d_model * config.vocab_size
