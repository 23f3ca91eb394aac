"""Speed of generation, beside what one would use instead: ``pal bench generate``.

Same weights, same inputs, same strategies, the paper's sampling settings, in one run:

- ours: :class:`pal.modeling.engine.Engine`, inputs sorted by length;
- doubled: transformers' own ``generate`` on a batch that holds every row twice, with a logits
  processor that contrasts the halves;
- two_passes: what the specification says of the authors' code.

Shares of the machine's ceilings count needed work alone, the same for all sides: no padding, no
second branch where α is zero (see :func:`needed`).
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from pal.bench.machine import Ceiling, Taken, machine, measure, measure_ceiling
from pal.bench.peers import DOUBLED_ROWS, TWO_PASS_ROWS, run_doubled, run_two_passes
from pal.bench.sides import check_output, encoder_flops
from pal.bench.work import Work, load_work
from pal.modeling.encoding import input_length
from pal.records import fingerprint, write_json
from pal.runs import describe_run
from pal.settings import Settings

PROFILED = 64  # contexts of the run that tells the phases apart
PHASES = ("encode", "decode", "choose")

NAMES = {
    "ours": "ours",
    "doubled": f"doubled batch of {DOUBLED_ROWS}",
    "two_passes": f"two passes, batch of {TWO_PASS_ROWS}",
}


@dataclass
class Side:
    """One side's figures.

    Attributes:
        taken: of each round.
        tokens: drawn by it in a round, end tokens included.
        padding: share of the encoder's positions that are padding.
    """

    taken: list[Taken]
    tokens: int
    padding: float

    @property
    def seconds(self) -> float:
        """Median of the rounds."""
        return statistics.median(taken.seconds for taken in self.taken)


def bench_generate(settings: Settings) -> str:
    """Measure generation; returns the Markdown tables.

    ``limit`` contexts (64 by default) of ``input``, drawn with ``seed``, or synthetic ones; weights
    of ``model``, or random ones; ours holds ``batch_rows`` rows and ``batch_tokens`` encoder
    positions at once, as ``pal generate`` does.

    Raises:
        PalError: model, input or output cannot be used.
    """
    output = check_output(settings)
    with torch.inference_mode():
        work = load_work(settings)
        longest = max(map(input_length, work.inputs))
        rows = max(1, min(settings.batch_rows, settings.batch_tokens // longest))
        ceiling = measure_ceiling(work.model.device, work.model.dtype)
        calls: dict[str, Callable[[], Any]] = {
            "ours": lambda: [answer.tokens for answer in work.answer(rows)],
            "doubled": lambda: run_doubled(work),
            "two_passes": lambda: run_two_passes(work),
        }
        sides, answers = measure_sides(work, {side: calls[side] for side in settings.bench.sides},
                                       settings.bench.rounds)  # fmt: skip
        phases = profile_phases(work, rows)
    lengths = [len(row) for row in next(iter(answers.values()))]
    flops = sum(needed(work, lengths).values())
    lines = table(sides, flops, ceiling)
    lines += ["", *phase_table(phases, ceiling), ""]
    lines.append(describe(work, lengths, settings, ceiling))
    if output:
        run = describe_run(settings, "bench generate", fingerprint(work.inputs), **machine())
        write_json(output, {
            "kind": "bench", "format": 1, "title": "generate", "contexts": len(work.inputs),
            "sides": {name: asdict(side) for name, side in sides.items()}, "phases": phases,
            "needed_flops": flops, "ceiling": asdict(ceiling), "run": run,
        })  # fmt: skip
    return "\n".join(lines)


def measure_sides(
    work: Work, calls: dict[str, Callable[[], Any]], rounds: int
) -> tuple[dict[str, Side], dict[str, list[list[int]]]]:
    """Run the sides in turn, so many rounds; returns their figures and responses."""
    from tqdm.auto import tqdm

    sides = {name: Side([], 0, 0.0) for name in calls}
    answers = {}
    with tqdm(total=rounds * len(calls), desc="bench generate") as bar:
        for _ in range(rounds):
            for name, call in calls.items():
                with watch_padding(work.model) as seen:
                    answers[name], taken = measure(call, work.model.device)
                side = sides[name]
                side.taken.append(taken)
                side.tokens = sum(map(len, answers[name]))
                side.padding = 1 - int(seen["real"]) / seen["all"]
                bar.update()
    return sides, answers


@contextmanager
def watch_padding(model: Any) -> Iterator[dict[str, Any]]:
    """Count the positions the encoder computes, and those that are not padding."""
    seen: dict[str, Any] = {"all": 0, "real": 0}

    def count(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        seen["all"] += kwargs["attention_mask"].numel()
        seen["real"] = seen["real"] + kwargs["attention_mask"].sum()

    handle = model.model.encoder.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def profile_phases(work: Work, rows: int) -> dict[str, dict[str, float]]:
    """Return seconds and needed floating-point operations of the engine's phases, on a part."""
    on_gpu = work.model.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, acc_events=True) as found:
        answers = work.answer(rows, PROFILED)
    events = {event.key: event for event in found.key_averages() if event.key in PHASES}
    flops = needed(work, [len(answer.tokens) for answer in answers])
    return {
        name: {
            "seconds": (event.device_time_total if on_gpu else event.cpu_time_total) / 1e6,
            "calls": event.count,
            "flops": flops[name],
        }
        for name, event in ((name, events[name]) for name in PHASES)
    }


def needed(work: Work, lengths: Sequence[int]) -> dict[str, float]:
    """Return the floating-point operations the first responses need at least, by phase.

    Encoding real tokens, each distinct persona once, keys and values of all branches, and the
    strategy step; a decoder pass a token and branch, where α is not zero two branches; one output
    projection a token.

    Args:
        work: with the inputs.
        lengths: tokens of each response.
    """
    config, model = work.model.config, work.model
    width, layers = config.d_model, config.decoder_layers
    linear = [m for m in model.model.decoder.modules() if isinstance(m, torch.nn.Linear)]
    keys_values = 2 * width * width * layers  # of the encoder states, made once
    branch = sum(m.weight.numel() for m in linear) - keys_values  # weights a token passes
    found = dict.fromkeys(PHASES, 0.0)
    inputs = work.inputs[: len(lengths)]
    personas = {tuple(row.get("persona_input_ids", ())) for row in inputs}
    for length in [len(row["input_ids"]) for row in inputs] + [len(ids) for ids in personas]:
        found["encode"] += encoder_flops(config, length)
    for row, tokens, strategy in zip(inputs, lengths, work.strategies, strict=False):
        longer, dialogue = input_length(row), len(row["input_ids"])
        contrasted = model.fusion is not None and config.alpha[strategy] != 0
        sides = [longer, *([dialogue] if contrasted else [])]
        if model.fusion is not None:  # both co-attentions, scores and sums
            found["encode"] += 8 * width * dialogue * len(row["persona_input_ids"])
        for length in sides:
            step = 2 * branch + 4 * layers * width * length
            found["encode"] += 2 * keys_values * length + step  # the strategy's
            found["decode"] += tokens * (step + 2 * layers * width * tokens)
        found["choose"] += 2 * tokens * width * config.vocab_size
    return found


def table(sides: dict[str, Side], flops: float, ceiling: Ceiling) -> list[str]:
    """Return the table of the sides."""
    first = next(iter(sides.values()))
    head = ["", "seconds (range)", "tokens/s", f"times {NAMES[next(iter(sides))]}",
            "peak memory, GiB",
            "encoder padding", "of matrix-product rate"]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "| --- " + "| ---: " * (len(head) - 1) + "|"]
    for name, side in sides.items():
        times = [taken.seconds for taken in side.taken]
        rate = side.tokens / side.seconds
        ratio = (first.tokens / first.seconds) / rate
        memory = max(taken.memory for taken in side.taken) / 2**30
        lines.append(
            f"| {NAMES[name]} | {side.seconds:.1f} ({min(times):.1f}-{max(times):.1f}) | "
            f"{rate:.1f} | {ratio:.2f} | {memory:.2f} | {side.padding:.1%} | "
            f"{flops / side.seconds / ceiling.flops:.0%} |"
        )
    return lines


def phase_table(phases: dict[str, dict[str, float]], ceiling: Ceiling) -> list[str]:
    """Return the table of our phases, of the profiled part."""
    total = sum(phase["seconds"] for phase in phases.values())
    lines = ["| phase (ours) | share of time | ms a call | of matrix-product rate |",
             "| --- | ---: | ---: | ---: |"]  # fmt: skip
    for name, phase in phases.items():
        lines.append(
            f"| {name} | {phase['seconds'] / total:.0%} | "
            f"{1000 * phase['seconds'] / phase['calls']:.1f} | "
            f"{phase['flops'] / phase['seconds'] / ceiling.flops:.0%} |"
        )
    return lines


def describe(work: Work, lengths: Sequence[int], settings: Settings, ceiling: Ceiling) -> str:
    """Say what was measured on what."""
    contexts = [len(row["input_ids"]) for row in work.inputs]
    personas = [len(row.get("persona_input_ids", ())) for row in work.inputs]
    parameters = sum(p.numel() for p in work.model.parameters()) / 1e6
    facts = machine()
    return (
        f"{len(contexts)} {work.source} of {statistics.mean(contexts):.0f} tokens on average "
        f"(personas {statistics.mean(personas):.0f}), responses of {statistics.mean(lengths):.1f}; "
        f"{parameters:.1f} million parameters, {settings.dtype}, {work.model.device}, "
        f"{facts['cpu']}, {facts['cores']} cores, {torch.get_num_threads()} threads; "
        f"matrix products {ceiling.flops / 1e9:.0f} GFLOP/s, memory {ceiling.bandwidth / 1e9:.0f} "
        "GB/s, measured in the same run."
    )
