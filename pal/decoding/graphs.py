"""Steps of fixed shapes: what lets a GPU repeat a recorded step without the host's help.

A small model's step is hundreds of short kernels, and starting them one by one takes a host longer
than a GPU needs to run them. A CUDA graph starts all of them at once, but only as it was recorded:
with the same shapes and the same places in memory. So here

- a step runs for more slots, rows and positions than there are, by rounding their numbers up; what
  is too much computes to no effect;
- all that a step reads and writes, the bookkeeping included, lies in a :class:`Workspace`;
- several steps run in a row before the host reads the tokens of all of them. A row that has ended
  goes on until then, to no effect.

The first step of some shapes runs as it is, which lets libraries prepare themselves; the second is
recorded. Without a GPU all steps run as they are: so tests hold them to the engine's other way.

Shapes: S slots, n of them in a step, B rows, T decoder positions, L encoder positions.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from pal.decoding.contrast import combine
from pal.decoding.sending import send
from pal.decoding.step import attend_cached, cache_format, choose_tokens, decode_step

logger = logging.getLogger(__name__)

LEAST = 16  # slots and rows of a step; fewer take no less time
ENCODED, OWN = 64, 32  # positions are rounded up to multiples of these
BLOCK = 8  # steps before the host reads their tokens
MOST_STEPS = 64  # of a block
MOST_GRAPHS = 64  # that are kept


def round_up(count: int, most: int) -> int:
    """Return the smallest of 16, 24, 32, 48, 64, 96, … that is not below ``count``; or ``most``.

    Example:
        >>> [round_up(count, 100) for count in (1, 17, 40, 97)]
        [16, 24, 48, 100]
    """
    size = LEAST
    while size < count:
        if size * 3 // 2 >= count:
            size = size * 3 // 2
            break
        size *= 2
    return min(size, most)


def multiple(count: int, of: int) -> int:
    """Return the smallest multiple of ``of`` that is not below ``count``."""
    return -(-count // of) * of


class Recorder(Protocol):
    """Records calls, to repeat them on the same tensors."""

    def warm_up(self, call: Callable[[], None]) -> None:
        """Run a call as it is."""
        ...

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        """Record a call without running it; return what runs it as it was recorded."""
        ...


class CudaRecorder:
    """Records what a call starts on a GPU as a CUDA graph.

    All graphs share memory for what lives within a call: none may leave anything there.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device):
        self.pool = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream(device)

    def warm_up(self, call: Callable[[], None]) -> None:
        """Run a call on the stream that records: libraries keep memory for each stream."""
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            call()
        current.wait_stream(self.stream)

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        """Record a call without running it; return what runs it as it was recorded."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"
        ):
            call()
        repeat: Callable[[], None] = graph.replay
        return repeat


def recorder_of(device: torch.device) -> Recorder | None:
    """Return what records steps on a device; None where all run as they are."""
    return CudaRecorder(device) if device.type == "cuda" and torch.cuda.is_available() else None


class Shape(NamedTuple):
    """What a recorded step depends on besides places in memory.

    Attributes:
        slots: branches that it computes.
        rows: for which it chooses a token.
        length: encoder positions.
        top: decoder positions.
        options: how tokens are chosen, and the last position of a response.
    """

    slots: int
    rows: int
    length: int
    top: int
    options: tuple[Any, ...]


class Workspace:
    """Tensors in which a run's branches live, at fixed places, and the graphs recorded on them.

    Args:
        decoder: a :class:`pal.decoding.engine.FastDecoder`, which is not kept.
        slots: number of branches.
        longest: encoder positions.
        steps: decoder positions.
        fixed: whether steps run on it with fixed shapes; then it also has what they need, such as
            keys and values of encoder states, which are on shelves otherwise.
    """

    def __init__(
        self, decoder: Any, *, slots: int, longest: int, steps: int, fixed: bool = False
    ):  # fmt: skip
        like = decoder.like
        layers, heads, width = len(decoder.layers), decoder.heads, decoder.size
        whole: Any = {"dtype": torch.long, "device": like.device}
        self.own = like.new_zeros(  # keys and values
            layers, 2, slots, heads, steps, width, dtype=cache_format(like)
        )
        self.token = torch.zeros(slots, **whole)
        self.position = torch.zeros(slots, **whole)
        self.history = torch.zeros(slots, steps, **whole)
        self.keys = torch.zeros(slots, **whole)
        self.repeats: OrderedDict[Shape, Callable[[], None]] = OrderedDict()
        if not fixed:
            return
        # Slots and positions that nothing was written to are read too.
        self.cross = like.new_zeros(layers, 2, slots, heads, longest, width)
        self.cross_mask = like.new_full((slots, 1, 1, longest), -torch.inf)  # added to scores
        self.every = torch.arange(slots, **whole)
        # Of rows: the slot, that of the branch without persona, and α; of slots: the row.
        self.indices = torch.zeros(3, slots, **whole)
        self.rows, self.others, self.sources = self.indices.unbind()
        self.weights = torch.zeros(slots, device=like.device)
        self.found = torch.zeros(MOST_STEPS, slots, **whole)  # the tokens of a block
        self.tick = torch.zeros(1, **whole)  # the step in it
        self.known: set[Shape] = set()  # shapes that ran once
        self.recorder = recorder_of(like.device)

    @property
    def slots(self) -> int:
        """Number of branches."""
        return len(self.token)

    @property
    def longest(self) -> int:
        """Encoder positions."""
        return self.cross.shape[4]

    def holds(self, *, slots: int, longest: int, steps: int) -> bool:
        """Return whether there is room for a run of these sizes."""
        return (
            slots <= self.slots and longest <= self.longest and steps <= self.own.shape[4]
        )  # fmt: skip

    def clear(self) -> None:
        """Begin as a new one, without a trace of the run before in what a step may read."""
        self.cross_mask.fill_(-torch.inf)
        for part in (self.own, self.cross, self.token, self.position):
            part.zero_()

    def lengthen(self, cross: Tensor, cross_mask: Tensor) -> None:
        """Take longer encoder states in the place of the ones that graphs were recorded on."""
        self.cross, self.cross_mask = cross, cross_mask  # what is padded is finite, as it must be
        self.repeats.clear()


# The workspace of the run before, by decoder: graphs are worth most to the next call.
_idle: WeakKeyDictionary[Any, Workspace] = WeakKeyDictionary()


def borrow_workspace(decoder: Any, *, slots: int, longest: int, steps: int) -> Workspace:
    """Return a workspace for fixed shapes of at least these sizes; a used one where it fits."""
    held = _idle.pop(decoder, None)
    if held is not None and held.holds(slots=slots, longest=longest, steps=steps):
        held.clear()
        return held
    del held  # its memory may be what the new one needs
    return fixed_workspace(decoder, slots=slots, longest=longest, steps=steps)


def fixed_workspace(decoder: Any, *, slots: int, longest: int, steps: int) -> Workspace:
    """Return a new workspace for fixed shapes, with sizes rounded up."""
    return Workspace(
        decoder, slots=max(slots, LEAST), longest=multiple(longest, ENCODED),
        steps=multiple(steps, OWN), fixed=True,
    )  # fmt: skip


def return_workspace(decoder: Any, workspace: Workspace) -> None:
    """Keep a workspace for the next call, until the decoder is dropped."""
    _idle[decoder] = workspace


class FixedSteps:
    """Runs steps of fixed shapes in a workspace.

    Args:
        engine: gives decoder, sampler and options.
        workspace: for fixed shapes.
    """

    def __init__(self, engine: Any, workspace: Workspace):
        self.engine, self.workspace = engine, workspace
        options, sampler = engine.plan.options, engine.sampler
        self.last = options.max_new_tokens + 1  # position of the last token
        self.options = (
            options.do_sample, options.repetition_penalty, options.least, self.last,
            sampler.temperature, sampler.top_k, sampler.top_p,
        )  # fmt: skip

    def lay_out(
        self, rows: Sequence[int], others: Sequence[int], weights: Sequence[float],
        sources: Sequence[int],
    ) -> None:  # fmt: skip
        """Take in which slots belong together, valid until a branch is added or removed.

        Args:
            rows: the slot of every row.
            others: the slot of its branch without persona; its own where it has none.
            weights: its α; 0 where it has no such branch.
            sources: the row of every slot in use.
        """
        space, rest = self.workspace, len(sources)
        padded = [[*part, *[0] * (space.slots - len(part))] for part in (rows, others, sources)]
        device = space.token.device
        space.indices.copy_(send(torch.tensor(padded), device))
        space.weights[: len(weights)] = send(torch.tensor(weights), device)
        # Slots out of use see something, lest their results, and what they leave, be no numbers.
        space.cross_mask[rest:, :, :, 0] = 0

    def run(
        self, count: int, *, slots: int, rows: int, length: int, top: int
    ) -> list[list[int]]:  # fmt: skip
        """Run steps and return the tokens of each, [count, rows].

        Args:
            count: how many steps.
            slots: number of branches, which come first.
            rows: number of rows.
            length: encoder positions of the longest branch.
            top: decoder positions, the last step's included.
        """
        space = self.workspace
        shape = Shape(
            round_up(slots, space.slots), round_up(rows, round_up(slots, space.slots)),
            min(multiple(length, ENCODED), space.longest),
            min(multiple(top, OWN), space.own.shape[4]), self.options,
        )  # fmt: skip
        space.tick.zero_()
        for _ in range(count):
            self._run_once(shape)
        found: list[list[int]] = space.found[:count, :rows].tolist()
        return found

    def _run_once(self, shape: Shape) -> None:
        space = self.workspace
        step = partial(self._compute, shape)
        if shape in space.repeats:
            space.repeats.move_to_end(shape)
        elif space.recorder is not None and shape in space.known:
            try:
                space.repeats[shape] = space.recorder.record(step)
            except RuntimeError as error:  # nothing has run yet
                logger.warning("no step can be recorded, so decoding is slower: %s", error)
                space.recorder = None
            if len(space.repeats) > MOST_GRAPHS:
                space.repeats.popitem(last=False)
        if shape in space.repeats:
            space.repeats[shape]()
        elif space.recorder is not None:
            space.recorder.warm_up(step)
            space.known.add(shape)
        else:
            step()

    def _compute(self, shape: Shape) -> None:
        """Run one step for all slots of a shape; nothing in it depends on what tensors hold."""
        space, decoder = self.workspace, self.engine.decoder
        slots, rows, length, top, _ = shape
        every, position = space.every[:slots], space.position[:slots]
        mask = space.cross_mask[:slots, :, :, :length]

        def attend_cross(layer: int, queries: Tensor) -> Tensor:
            keys, values = space.cross[layer, :, :slots, :, :length]
            return attend_cached(
                queries.view(slots, decoder.heads, decoder.size), keys, values, mask
            )

        hidden = decode_step(
            decoder, space.token[:slots], position, every, own=space.own,
            attend_cross=attend_cross, top=top,
        )  # fmt: skip
        mains, others = space.rows[:rows], space.others[:rows]
        new = choose_tokens(
            decoder, self.engine.sampler, self.engine.plan.options,
            combine(hidden[mains], hidden[others], space.weights[:rows]),
            length=space.position[mains] + 1, history=space.history[mains], keys=space.keys[mains],
        )  # fmt: skip
        space.found[:, :rows].index_copy_(0, space.tick, new[None])
        space.tick.add_(1)
        position.add_(1).clamp_(max=self.last)
        token = new[space.sources[:slots]]
        space.token[:slots].copy_(token)
        space.history[every, position] = token
