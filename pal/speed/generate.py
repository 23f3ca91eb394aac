"""Speed of generation, compared with the alternatives: ``pal bench generate``.

This is of encoder-decoders; :mod:`pal.speed.language` is of decoder-only models. All sides use the
same weights, inputs, strategies and the sampling of the paper, in one run:

- ours: :class:`pal.decoding.engine.Engine`, inputs sorted by length; for a family without a fast
  decoder our ``generate`` with the cache of both branches, which has no phases to tell apart. On a
  GPU one engine serves all rounds, as one serves all of ``pal generate``, so that the first round
  alone records steps;
- doubled: transformers' own ``generate`` on a batch that holds every row twice, with a logits
  processor that contrasts the halves;
- two_passes: the method of the authors' code, as the specification describes it.

Percentages of the machine's ceilings count only necessary work, the same for all sides: no padding,
no second branch where α is zero (see :func:`needed` and :func:`moved`).
"""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from pal.decoding.engine import Engine
from pal.modeling.encoding import input_length
from pal.speed.machine import Ceiling, Taken, machine, measure_ceiling, synchronize
from pal.speed.peers import DOUBLED_ROWS, TWO_PASS_ROWS, run_doubled, run_two_passes
from pal.speed.sides import (
    Side,
    encoder_flops,
    layer_sizes,
    run_rounds,
    sides_document,
    sides_table,
)
from pal.speed.workload import Workload

PROFILED = 64  # number of contexts in the profiling run, on a CPU
PHASES = ("encode", "decode", "choose")

Call = Callable[[Workload], list[list[int]]]

NAMES = {
    "ours": "ours",
    "doubled": f"doubled batch of {DOUBLED_ROWS}",
    "two_passes": f"two passes, batch of {TWO_PASS_ROWS}",
}


def measure_generation(
    workload: Workload, *, sides: Sequence[str], rows: int, tokens: int, rounds: int
) -> tuple[str, dict[str, Any]]:
    """Measure generation and return the Markdown tables and the JSON document.

    Args:
        workload: model and inputs of all sides.
        sides: names in :data:`NAMES`.
        rows: that ours holds at once, at most.
        tokens: encoder positions that ours holds at once, at most.
        rounds: number of rounds of all sides in turn.
    """
    with torch.inference_mode():
        longest = max(map(input_length, workload.inputs))
        rows = max(1, min(rows, tokens // longest))
        dtype = str(workload.model.dtype).removeprefix("torch.")
        ceiling = measure_ceiling(workload.model.device, workload.model.dtype)
        on_gpu = workload.model.device.type == "cuda"
        engine = workload.make_engine(rows) if on_gpu else None
        calls: dict[str, Call] = {
            "ours": lambda workload: [answer.tokens for answer in workload.answer(rows, engine)],
            "doubled": run_doubled,
            "two_passes": run_two_passes,
        }
        taken = run_rounds(
            workload, {side: calls[side] for side in sides}, rounds, watch=watch_padding
        )
        phases: dict[str, dict[str, float]] = {}
        if engine is not None:
            phases = clock_phases(workload, engine)
        elif not on_gpu and workload.decoder is not None:
            phases = profile_phases(workload, rows)
    lengths = [len(row) for row in taken[sides[0]].answers]
    flops = sum(needed(workload, lengths).values())
    measured = [
        Side(
            NAMES[name], statistics.median(run.seconds for run in side.runs), len(lengths),
            sum(map(len, side.answers)), padding_share(side.seen), flops,
            max(run.memory for run in side.runs), dtype,
            rounds=tuple(run.seconds for run in side.runs), processor=_processor(side.runs),
        )
        for name, side in taken.items()
    ]  # fmt: skip
    ceilings: dict[str, Ceiling] = {dtype: ceiling}
    lines = [sides_table(measured, "responses", ceilings), ""]
    if phases:
        lines += [*phase_table(phases, ceiling), ""]
    lines.append(describe_workload(workload, lengths))
    return "\n".join(lines), {**sides_document("generate", measured, ceilings), "phases": phases}


def padding_share(seen: Mapping[str, Any]) -> float:
    """Return the share of padding; an encoder of ours that computes none counts no positions."""
    return 1 - int(seen["real"]) / seen["all"] if seen["all"] else 0.0


def _processor(runs: Sequence[Taken]) -> float | None:
    found = [run.processor for run in runs if run.processor is not None]
    return statistics.median(found) if found else None


@contextmanager
def watch_padding(model: Any) -> Iterator[dict[str, Any]]:
    """Count the positions that the encoder computes, and those that are not padding."""
    seen: dict[str, Any] = {"all": 0, "real": 0}

    def count(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        seen["all"] += kwargs["attention_mask"].numel()
        seen["real"] = seen["real"] + kwargs["attention_mask"].sum()

    handle = model.get_encoder().register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def profile_phases(workload: Workload, rows: int) -> dict[str, dict[str, float]]:
    """Return what the engine's phases took on a part, and needed: operations, bytes moved."""
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as found:
        answers = workload.first(PROFILED).answer(rows)
    events = {event.key: event for event in found.key_averages() if event.key in PHASES}
    lengths = [len(answer.tokens) for answer in answers]
    calls = {name: events[name].count for name in PHASES}
    flops, traffic = needed(workload, lengths), moved(workload, lengths, calls)
    return {
        name: {
            "seconds": event.cpu_time_total / 1e6, "calls": event.count, "flops": flops[name],
            "traffic": traffic[name],
        }
        for name, event in ((name, events[name]) for name in PHASES)
    }  # fmt: skip


def clock_phases(workload: Workload, engine: Engine) -> dict[str, dict[str, float]]:
    """Return what the phases of an engine with steps of fixed shapes took, and needed.

    A recorded step is one piece, so decoding and choosing are not told apart; and a profile does
    not say whose a recorded kernel is, so the phases are timed, with a wait at both ends.

    Args:
        workload: what is answered; once before, so that all steps are recorded.
        engine: answers it.
    """
    workload.answer(engine.rows, engine)
    clock = PhaseClock(workload.model.device)
    engine.phase, engine.steps = clock, 0  # type: ignore[method-assign,assignment]
    try:
        answers = workload.answer(engine.rows, engine)
    finally:
        del engine.phase
    lengths, steps = [len(answer.tokens) for answer in answers], engine.steps
    calls = {"encode": clock.calls["encode"], "decode": steps, "choose": steps}
    flops, traffic = needed(workload, lengths), moved(workload, lengths, calls)
    parts = {"encode": ("encode",), "step": ("decode", "choose")}
    return {
        name: {
            "seconds": clock.seconds[name], "calls": calls[of[0]],
            "flops": sum(flops[part] for part in of), "traffic": sum(traffic[part] for part in of),
        }
        for name, of in parts.items()
    }  # fmt: skip


class PhaseClock:
    """Times what runs in its contexts, by name, and waits for the device at both ends.

    Args:
        device: on which it runs.

    Attributes:
        seconds: of all contexts of a name.
        calls: their number.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time one context."""
        synchronize(self.device)
        started = time.perf_counter()
        yield
        synchronize(self.device)
        self.seconds[name] += time.perf_counter() - started  # type: ignore[assignment]
        self.calls[name] += 1


def needed(workload: Workload, lengths: Sequence[int]) -> dict[str, float]:
    """Return the minimum floating-point operations of the first responses, by phase.

    Encoding real tokens, each distinct persona once, keys and values of all branches, and the
    strategy step; a decoder pass a token and branch, where α is not zero two branches; one output
    projection a token.

    Args:
        workload: the workload.
        lengths: number of tokens of each response.
    """
    config, model = workload.model.config, workload.model
    width, size = config.d_model, layer_sizes(config)
    layers, heads = size.decoder_layers, size.heads
    keys_values, branch = decoder_weights(workload)
    found = dict.fromkeys(PHASES, 0.0)
    inputs = workload.inputs[: len(lengths)]
    personas = {tuple(row.get("persona_input_ids", ())) for row in inputs}
    for length in [len(row["input_ids"]) for row in inputs] + [len(ids) for ids in personas]:
        found["encode"] += encoder_flops(config, length)
    for row, tokens, sides in zip(inputs, lengths, branches(workload), strict=False):
        if model.fusion is not None:  # both co-attentions, scores and sums
            found["encode"] += 8 * width * len(row["input_ids"]) * len(row["persona_input_ids"])
        for length in sides:
            step = 2 * branch + 4 * layers * heads * length
            found["encode"] += 2 * keys_values * length + step  # the strategy's
            found["decode"] += tokens * (step + 2 * layers * heads * tokens)
        found["choose"] += 2 * tokens * width * config.vocab_size
    return found


def moved(workload: Workload, lengths: Sequence[int], calls: dict[str, int]) -> dict[str, float]:
    """Return the minimum bytes read from memory for the first responses, by phase.

    They are the weights once per call, and for every token the keys and values of its branches.

    Args:
        workload: the workload.
        lengths: number of tokens of each response.
        calls: number of calls of each phase.
    """
    config, size = workload.model.config, workload.model.dtype.itemsize
    keys_values, branch = decoder_weights(workload)
    encoder = sum(
        p.numel() for layer in workload.model.model.encoder.layers for p in layer.parameters()
    )
    weights = {
        "encode": encoder + keys_values, "decode": branch,
        "choose": config.d_model * config.vocab_size,
    }  # fmt: skip
    found = {name: size * weights[name] * calls[name] for name in PHASES}
    cached = 2 * size * config.d_model * config.decoder_layers  # of a position
    for tokens, sides in zip(lengths, branches(workload), strict=False):
        found["decode"] += cached * tokens * sum(length + tokens / 2 for length in sides)
    return found


def decoder_weights(workload: Workload) -> tuple[int, int]:
    """Return the weights that meet every encoder position, and those that meet every token."""
    decoder, size = workload.model.get_decoder(), layer_sizes(workload.model.config)
    linear = [m for m in decoder.modules() if isinstance(m, torch.nn.Linear)]
    keys_values = 2 * size.projection * size.decoder_layers
    return keys_values, sum(m.weight.numel() for m in linear) - keys_values


def branches(workload: Workload) -> Iterator[list[int]]:
    """Yield, row by row, the encoder positions of its branches: two where α is not zero."""
    for row, strategy in zip(workload.inputs, workload.strategies, strict=True):
        model = workload.model
        contrasted = model.fusion is not None and model.config.alpha[strategy] != 0
        yield [input_length(row), *([len(row["input_ids"])] if contrasted else [])]


def phase_table(phases: dict[str, dict[str, float]], ceiling: Ceiling) -> list[str]:
    """Return the table of the engine's phases in the profiling run."""
    total = sum(phase["seconds"] for phase in phases.values())
    lines = [
        "| phase (ours) | share of time | ms per call | FLOP/s, of ceiling | bandwidth, of "
        "ceiling |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, phase in phases.items():
        lines.append(
            f"| {name} | {phase['seconds'] / total:.0%} | "
            f"{1000 * phase['seconds'] / phase['calls']:.1f} | "
            f"{phase['flops'] / phase['seconds'] / ceiling.flops:.0%} | "
            f"{phase['traffic'] / phase['seconds'] / ceiling.bandwidth:.0%} |"
        )
    return lines


def describe_workload(workload: Workload, lengths: Sequence[int]) -> str:
    """Return a description of the workload and the machine."""
    contexts = [len(row["input_ids"]) for row in workload.inputs]
    personas = [len(row.get("persona_input_ids", ())) for row in workload.inputs]
    parameters = sum(p.numel() for p in workload.model.parameters()) / 1e6
    dtype, device = str(workload.model.dtype).removeprefix("torch."), workload.model.device
    facts = machine()
    return (
        f"{len(contexts)} {workload.source} of {statistics.mean(contexts):.0f} tokens on average "
        f"(personas {statistics.mean(personas):.0f}), responses of {statistics.mean(lengths):.1f}; "
        f"{parameters:.1f} million parameters, {dtype}, {device}, "
        f"{facts['cpu']}, {facts['cores']} cores, {torch.get_num_threads()} threads."
    )
