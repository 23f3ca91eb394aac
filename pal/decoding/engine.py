"""Continuous batching: many rows are decoded at once, and a waiting row replaces a finished one.

The engine gives the results of ``model.generate`` (to rounding), faster:

- A row has a second branch only if its α is not zero, and both run in one pass of the decoder.
- Keys and values of the encoder states are computed once, for the branches that continue after the
  strategy step; keys and values of the decoder are written in place.
- The output projection is linear, so the contrast (PAL paper, equation 6) is computed from the two
  hidden states before it, with one projection per row instead of two.
- Temperature, top-p and sampling use only the top-k tokens, not the vocabulary.
- The device sends the sampled tokens to the host once per step, the strategies once per group of
  encoded rows, and nothing else. On a GPU steps have fixed shapes, are recorded and repeated, and
  the tokens of several come at once (:mod:`pal.decoding.graphs`).

It is long because a run shares its state (slots, caches, masks) among all steps, from admission to
the last token.

Shapes: n active branches, B active rows, d model width, H heads, T decoder positions, L encoder
positions, V vocabulary, k tokens that can be sampled.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import record_function

from pal.decoding.contrast import combine
from pal.decoding.graphs import (
    BLOCK,
    ENCODED,
    FixedSteps,
    Workspace,
    borrow_workspace,
    fixed_workspace,
    multiple,
    return_workspace,
)
from pal.decoding.noise import keyed_gumbel
from pal.decoding.plan import DecodingPlan
from pal.decoding.sampling import Sampler
from pal.decoding.sending import send
from pal.decoding.shelves import Shelves
from pal.decoding.states import EncodedInputs
from pal.decoding.step import choose_tokens, decode_step

MAIN, PLAIN = 0, 1

# Matrix products of fewer rows round differently on CPUs, so the strategy step never has fewer: the
# probabilities of a row then do not depend on the number of other rows.
LEAST_ROWS = 4

POSITIONS = 128  # an open run has room for encoder states in multiples of this


class FastLayer(Protocol):
    """A decoder layer that computes one position per branch."""

    def __call__(
        self, x: Tensor, own: Callable[[Tensor], Tensor], cross: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return the layer's output, [n, d].

        Args:
            x: input of the layer, one position per branch, [n, d].
            own: self-attention: function from queries, keys and values, [n, 3d], to the
                attention over the branch's own positions, [n, d].
            cross: cross-attention: function from queries, [n, d], to the attention over the
                encoder states, [n, d].
        """
        ...

    def keys_values(self, states: Tensor) -> Tensor:
        """Return keys and values, [B, L, 2d], of encoder states, [B, L, d]."""
        ...

    def attend_to_states(self, queries: Tensor, groups: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Attend once to encoder states without computing their keys and values; return [n, d].

        Args:
            queries: queries of the rows of all groups, and possibly of rows without states,
                [n, d].
            groups: encoder states, [B, L, d], and the mask added to the scores, [B, 1, L].
        """
        ...


class FastDecoder(Protocol):
    """The decoder of a backbone as the engine uses it: one position per branch at a time.

    On a GPU a step is recorded once and repeated (:mod:`pal.decoding.graphs`). So ``embed``, the
    layers and ``project`` compute the same operations at every call, read no value on the host,
    and the weights stay where they are in memory. A decoder is hashable, and has weak references.

    Attributes:
        layers: layers of the decoder.
        heads: number of heads of every attention.
        size: width of a head.
        like: a tensor with the device and number format of the states.
        start: id of the start token.
        end: id of the end token.
        strategies: token ids of the strategies, in the order of the strategy set.
    """

    layers: Sequence[FastLayer]
    heads: int
    size: int
    like: Tensor
    start: int
    end: int
    strategies: Sequence[int]

    def embed(self, tokens: Tensor, positions: Tensor | int) -> Tensor:
        """Return the first layer's input, [n, d], for tokens [n] at positions [n] or at one."""
        ...

    def project(self, hidden: Tensor) -> Tensor:
        """Return logits, [n, V], of hidden states [n, d]; −inf for tokens never in a response."""
        ...

    def project_strategies(self, hidden: Tensor) -> Tensor:
        """Return the logits of the strategies, [n, 8], of hidden states [n, d]."""
        ...


# Function from request indices to encoder states, in groups: positions in the list, and states.
Encode = Callable[[Sequence[int]], Iterable[tuple[Sequence[int], EncodedInputs]]]


@dataclass
class DecodingRequest:
    """A row to answer.

    Attributes:
        key: key of the row's noise, from :func:`pal.decoding.noise.sample_keys`.
        strategy: id of the given strategy, 0 to 7; the model predicts it if None.
        alpha: contrast weight of each strategy in place of the plan's.
        limit: tokens of the response, at most, where that is fewer than the plan's.
    """

    key: int
    strategy: int | None = None
    alpha: Sequence[float] | None = None
    limit: int | None = None


@dataclass
class Answer:
    """The result of a row.

    Attributes:
        strategy: id of the strategy, 0 to 7.
        strategy_probs: the model's probabilities of the eight strategies.
        alpha: contrast weight of the row.
        tokens: token ids of the response, with the end token if it was reached.
    """

    strategy: int
    strategy_probs: list[float]
    alpha: float
    tokens: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Event:
    """A token that a row of an open run got.

    Attributes:
        ticket: which row.
        token: its id.
        answer: the result so far.
        ended: whether that is all of it.
    """

    ticket: int
    token: int
    answer: Answer
    ended: bool


@dataclass
class Branch:
    """One active branch: its request, main or plain, and its number of encoder positions."""

    request: int
    kind: int
    length: int


class Engine:
    """Answers requests with a decoder.

    Args:
        decoder: decoder of a model, from ``model.fast_decoder``.
        plan: α, strategies and sampling options, without beams.
        rows: number of rows with two branches that the memory holds; with fewer second branches,
            more rows are decoded at once.
        contrasts: whether rows may have a second branch; by default, whether the plan has any α.
        fixed: whether steps have fixed shapes, recorded where the device can; by default, whether
            the decoder is on a GPU. Results are the same, to rounding.
        block: steps of fixed shapes before the host reads their tokens. An open run reads the
            tokens of every step.

    Attributes:
        phase: context in which each phase runs, by name: ``encode``; then ``decode`` and
            ``choose`` of every step, or ``step`` of fixed shapes. It names them in profiles.
        steps: number of steps run.
    """

    phase: Callable[[str], AbstractContextManager[object]] = staticmethod(record_function)

    def __init__(
        self, decoder: FastDecoder, plan: DecodingPlan, *, rows: int = 64,
        contrasts: bool | None = None, fixed: bool | None = None, block: int = BLOCK,
    ):  # fmt: skip
        self.decoder, self.plan, self.rows = decoder, plan, rows
        self.sampler = Sampler.from_options(plan.options)
        self.contrasts = bool(plan.strategy_alpha or any(plan.alpha))
        if contrasts is not None:
            self.contrasts = contrasts
        self.fixed = decoder.like.device.type == "cuda" if fixed is None else fixed
        self.block, self.steps = block, 0
        self.strategies = torch.tensor(decoder.strategies, device=decoder.like.device)

    @torch.inference_mode()
    def __call__(
        self,
        requests: Sequence[DecodingRequest],
        lengths: Sequence[int],
        encode: Encode,
        *,
        watch: Callable[[int], Any] | None = None,
    ) -> list[Answer]:
        """Return one answer per request.

        Args:
            requests: requests to answer.
            lengths: encoder positions of each request, the longer of dialogue and persona.
            encode: function from request indices to encoder states; see
                :func:`pal.modeling.encoding.encode_sorted`.
            watch: is told, whenever the host has read tokens, how many all answers have so far.
        """
        order = sorted(range(len(requests)), key=lambda index: (lengths[index], -index))
        run = _Run(self, encode, rows=min(self.rows, len(requests)), longest=max(lengths))
        run.requests, run.lengths = dict(enumerate(requests)), dict(enumerate(lengths))
        run.waiting = order  # the longest last, since they are popped from the end
        while run.waiting or run.branches:
            run.admit()
            run.step()
            if watch is not None:
                watch(run.tokens)
        if self.fixed:
            return_workspace(self.decoder, run.workspace)
        return [run.answers[index] for index in range(len(requests))]

    @torch.inference_mode()
    def open(self, encode: Encode) -> "OpenRun":
        """Return a run that takes requests at any moment.

        Args:
            encode: function from tickets of requests to encoder states.
        """
        return OpenRun(self, encode)


class _Run:
    """The state of one call: tensors in which the active branches come first."""

    borrows = True  # whether the tensors are those of the call before, where they fit

    def __init__(self, engine: Engine, encode: Encode, *, rows: int, longest: int):
        self.engine, self.encode = engine, encode
        self.requests: dict[int, DecodingRequest] = {}
        self.lengths: dict[int, int] = {}
        self.waiting: list[int] = []
        self.answers: dict[int, Answer] = {}
        self.branches: list[Branch] = []
        self.sides = 2 if engine.contrasts else 1
        self.size, self.changed = self.sides * rows, True
        self.longest = longest  # encoder positions of a branch; padding beyond is dropped
        self.block = engine.block
        self.tokens = 0  # of all answers, as far as the host has read them
        self._hold(self._make_workspace())

    def _make_workspace(self) -> Workspace:
        engine = self.engine
        make: Callable[..., Workspace] = Workspace
        if engine.fixed:
            make = borrow_workspace if self.borrows else fixed_workspace
        return make(
            engine.decoder, slots=self.size, longest=self.longest,
            steps=engine.plan.options.max_new_tokens + 2,
        )  # fmt: skip

    def _hold(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.own, self.token, self.keys = workspace.own, workspace.token, workspace.keys
        self.position, self.history = workspace.position, workspace.history
        self.fixed: FixedSteps | None = None
        if self.engine.fixed:
            self.fixed = FixedSteps(self.engine, workspace)
            self.cross, self.cross_mask = workspace.cross, workspace.cross_mask
        else:
            self.shelves = Shelves(self.engine.decoder)

    def admit(self) -> None:
        """Encode as many waiting requests as there is room for."""
        room = (self.size - len(self.branches)) // self.sides
        if not self.waiting or room < min(len(self.waiting), max(1, self.size // 8)):
            return
        group = [self.waiting.pop() for _ in range(min(room, len(self.waiting)))]
        self.make_room(group)
        with self.engine.phase("encode"):
            self._begin([
                ([group[index] for index in chosen], encoded)
                for chosen, encoded in self.encode(group)
            ])  # fmt: skip
        self.changed = True

    def make_room(self, group: Sequence[int]) -> None:
        """See to it that the encoder positions of these requests fit.

        No later length exceeds theirs, since the longest come first.
        """
        lengths = [self.lengths[index] for index in group]
        self.bound = max(lengths + [branch.length for branch in self.branches])

    def _measure(self, group: list[int], mask: Tensor) -> None:
        """See to it that the positions of encoded requests fit: a fusion may give more than it got.

        Args:
            group: the requests.
            mask: of the states that the decoder reads, [B, L].
        """
        if mask.shape[1] <= max(self.lengths[index] for index in group):
            return  # so on a GPU nothing is read where a fusion gives no more
        places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
        for index, length in zip(group, (mask.bool() * places).amax(1).tolist(), strict=True):
            self.lengths[index] = max(self.lengths[index], length)
        if self.fixed is None:
            return
        longest = max(self.lengths[index] for index in group)
        if longest > self.longest:
            self._lengthen(longest)
        if longest > self.bound:
            self.bound = longest
            for slot, branch in enumerate(self.branches):  # made for shorter ones
                self.cross[:, :, slot, :, branch.length : longest] = 0

    def _lengthen(self, longest: int) -> None:
        """Make the room for encoder states longer; shelves are made as long as they need be."""
        self.longest = longest
        if self.fixed is None:
            return
        missing = multiple(longest, ENCODED) - self.cross.shape[4]
        if missing > 0:
            self.cross = F.pad(self.cross, (0, 0, 0, missing))
            self.cross_mask = F.pad(self.cross_mask, (0, missing), value=-torch.inf)
            self.workspace.lengthen(self.cross, self.cross_mask)

    def _begin(self, groups: list[tuple[list[int], EncodedInputs]]) -> None:
        """Choose the strategies of encoded requests, and add their branches."""
        engine = self.engine
        for group, encoded in groups:
            self._measure(group, encoded.mask)
        contrasts = engine.contrasts and any(encoded.is_fused for _, encoded in groups)
        mains = [(encoded.states, encoded.mask) for _, encoded in groups]
        plains = [(encoded.dialogue_states, encoded.dialogue_mask) for _, encoded in groups]
        hidden, own = self._start([*mains, *plains] if contrasts else mains)
        requests = [request for group, _ in groups for request in group]
        rows = len(requests)
        if contrasts:
            hidden = combine(hidden[:rows], hidden[rows:], engine.plan.strategy_alpha)
        keys = send(torch.tensor([self.requests[i].key for i in requests]), self.keys.device)
        chosen = self._choose_strategies(requests, hidden, keys)
        first = 0
        for (group, _), main, plain in zip(groups, mains, plains, strict=True):
            place = slice(first, first + len(group))
            self._add(group, MAIN, *main, own[:, :, place], chosen[place], keys[place])
            kept = [row for row, request in enumerate(group) if self.answers[request].alpha]
            if contrasts and kept:
                states, mask = plain
                there = send(torch.tensor(kept), keys.device)
                self._add(
                    [group[row] for row in kept], PLAIN, states[there], mask[there],
                    own[:, :, rows + first :][:, :, there], chosen[place][there],
                    keys[place][there],
                )  # fmt: skip
            first += len(group)

    def _start(self, inputs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Run the decoder on the start token, the only step of most plain branches.

        Args:
            inputs: encoder states [B, L, d] and mask [B, L] of groups of rows, n rows in total.

        Returns:
            The last hidden states of the decoder, [n, d], and the keys and values of its
            self-attention, [layers, 2, n, H, w] with w the width of a head.
        """
        decoder, count = self.engine.decoder, sum(len(states) for states, _ in inputs)
        kept: list[Tensor] = []
        groups = [
            (x, torch.zeros_like(m, dtype=x.dtype).masked_fill_(~m.bool(), -torch.inf)[:, None])
            for x, m in inputs
        ]

        def attend_own(qkv: Tensor) -> Tensor:  # a single position attends to itself
            _, keys, values = qkv.view(-1, 3, decoder.heads, decoder.size).unbind(1)
            kept.append(torch.stack([keys, values]))
            return values.flatten(1)

        start = torch.full((max(count, LEAST_ROWS),), decoder.start, device=decoder.like.device)
        x = decoder.embed(start, 0)
        for layer in decoder.layers:
            x = layer(x, attend_own, partial(layer.attend_to_states, groups=groups))
        return x[:count], torch.stack(kept)[:, :, :count]

    def _choose_strategies(self, group: list[int], hidden: Tensor, keys: Tensor) -> Tensor:
        """Return the strategy tokens of requests, [B], and start their answers."""
        engine = self.engine
        tokens = engine.strategies
        padded = F.pad(hidden, (0, 0, 0, max(0, LEAST_ROWS - len(hidden))))
        logits = engine.decoder.project_strategies(padded)[: len(hidden)].float()
        scores = logits
        if engine.plan.choice == "sample":
            scores = logits.log_softmax(-1) + keyed_gumbel(keys, 0, tokens.expand(len(keys), -1))
        rows = torch.cat([scores.argmax(-1, keepdim=True), logits.softmax(-1)], dim=1).tolist()
        found = []
        for request, (predicted, *probs) in zip(group, rows, strict=True):
            asked = self.requests[request]
            found.append(int(predicted) if asked.strategy is None else asked.strategy)
            alpha = engine.plan.alpha if asked.alpha is None else asked.alpha
            self.answers[request] = Answer(found[-1], probs, alpha[found[-1]])
        return tokens[send(torch.tensor(found), tokens.device)]

    def _add(
        self,
        group: list[int],
        kind: int,
        states: Tensor,
        mask: Tensor,
        own: Tensor,
        strategies: Tensor,
        keys: Tensor,
    ) -> None:
        """Add one branch for each of these requests, whose strategy tokens are known."""
        decoder = self.engine.decoder
        first, rows = len(self.branches), len(group)
        place = slice(first, first + rows)
        lengths = [min(mask.shape[1], self.lengths[index]) for index in group]
        if self.fixed is None:
            self.shelves.add(states, mask, lengths)
        else:
            states, mask = states[:, : self.longest], mask[:, : self.longest]
            length = mask.shape[1]
            for layer, cross in zip(decoder.layers, self.cross, strict=True):
                both = layer.keys_values(states).view(rows, length, 2, decoder.heads, decoder.size)
                cross[:, place, :, :length] = both.permute(2, 0, 3, 1, 4)
                cross[:, place, :, length : self.bound] = 0
            self.cross_mask[place] = -torch.inf
            self.cross_mask[place, 0, 0, :length].masked_fill_(mask.bool(), 0.0)
        self.own[:, :, place, :, 0] = own
        self.token[place] = strategies
        self.history[place] = decoder.start
        self.history[place, 1] = strategies
        self.position[place] = 1
        self.keys[place] = keys
        self.branches += [
            Branch(index, kind, its) for index, its in zip(group, lengths, strict=True)
        ]

    def _lay_out(self) -> None:
        """Compute the indices that are valid until a branch is added or removed."""
        device = self.token.device
        mains = [slot for slot, branch in enumerate(self.branches) if branch.kind == MAIN]
        plain = {b.request: slot for slot, b in enumerate(self.branches) if b.kind == PLAIN}
        self.slots = mains
        self.length = max(branch.length for branch in self.branches)
        self.steps = [1 + len(self.answers[branch.request].tokens) for branch in self.branches]
        self.changed = False
        if self.fixed is not None:
            requests = [self.branches[slot].request for slot in mains]
            row_of = {request: row for row, request in enumerate(requests)}
            self.fixed.lay_out(
                mains,
                [plain.get(request, slot) for request, slot in zip(requests, mains, strict=True)],
                [self.answers[r].alpha if r in plain else 0.0 for r in requests],
                [row_of[branch.request] for branch in self.branches],
            )
            return
        paired = [r for r, s in enumerate(mains) if self.branches[s].request in plain]
        requests = [self.branches[mains[row]].request for row in paired]
        indices = (mains, paired, [plain[request] for request in requests])
        whole = send(torch.tensor([i for part in indices for i in part], dtype=torch.long), device)
        self.mains, self.paired, self.plains = whole.split([len(index) for index in indices])
        self.weights = send(torch.tensor([self.answers[r].alpha for r in requests]), device)
        self.all = torch.arange(len(self.branches), device=device)

    def step(self) -> list[Event]:
        """Run one decoder step for all active branches; return the sampled tokens.

        With fixed shapes a closed run makes several, and returns those that end a row.
        """
        if self.changed:
            self._lay_out()
        if self.fixed is not None:
            return self._step_fixed(self.fixed)
        self.engine.steps += 1
        active = len(self.branches)
        position = self.position[:active]
        top = max(self.steps) + 1
        self.steps = [step + 1 for step in self.steps]
        with self.engine.phase("decode"):
            states = decode_step(
                self.engine.decoder, self.token[:active], position, self.all, own=self.own,
                attend_cross=self.shelves.attend, top=top,
            )  # fmt: skip
            hidden = states[self.mains]
        if len(self.plains):
            contrasted = combine(hidden[self.paired], states[self.plains], self.weights)
            hidden = hidden.index_copy(0, self.paired, contrasted)
        slots = self.mains
        with self.engine.phase("choose"):
            new = choose_tokens(
                self.engine.decoder, self.engine.sampler, self.engine.plan.options, hidden,
                length=self.position[slots] + 1, history=self.history[slots], keys=self.keys[slots],
            )  # fmt: skip
        self.position[:active] += 1
        self.history[slots, self.position[slots]] = new
        self.token[slots] = new
        self.token[self.plains] = new[self.paired]
        return self._take_in(new.tolist())

    def _step_fixed(self, fixed: FixedSteps) -> list[Event]:
        """Run several steps of fixed shapes, and take in the tokens of all."""
        most = self.engine.plan.options.max_new_tokens
        left = max(self._left(self.branches[slot].request) for slot in self.slots)
        count = min(self.block, left)
        top = min(max(self.steps) + count, most + 2)
        self.steps = [step + count for step in self.steps]
        self.engine.steps += count
        with self.engine.phase("step"):
            found = fixed.run(
                count, slots=len(self.branches), rows=len(self.slots), length=self.length, top=top
            )
        return self._take_in(found[0]) if self.block == 1 else self._take_in_block(found)

    def _left(self, request: int) -> int:
        """Return how many tokens more a request's response may have."""
        most, asked = self.engine.plan.options.max_new_tokens, self.requests[request].limit
        return min(most, asked or most) - len(self.answers[request].tokens)

    def _take_in(self, new: list[int]) -> list[Event]:
        """Store the new tokens; remove rows that end, and branches that are no longer needed."""
        end, most = self.engine.decoder.end, self.engine.plan.options.max_new_tokens
        events = []
        self.tokens += len(self.slots)
        for row, slot in enumerate(self.slots):
            request = self.branches[slot].request
            answer = self.answers[request]
            answer.tokens.append(new[row])
            full = len(answer.tokens) >= min(most, self.requests[request].limit or most)
            events.append(Event(request, new[row], answer, new[row] == end or full))
        self._leave({event.ticket for event in events if event.ended})
        return events

    def _take_in_block(self, found: list[list[int]]) -> list[Event]:
        """Store the new tokens of several steps; what a row has behind its end counts for nothing.

        Args:
            found: the tokens of each step, [steps, rows].
        """
        end, events = self.engine.decoder.end, []
        for slot, column in zip(self.slots, zip(*found, strict=True), strict=True):
            request = self.branches[slot].request
            left = self._left(request)
            new = column[:left]
            if end in new:
                new = new[: new.index(end) + 1]
            answer = self.answers[request]
            answer.tokens += new
            self.tokens += len(new)
            if new[-1] == end or len(new) == left:
                events.append(Event(request, new[-1], answer, True))
        self._leave({event.ticket for event in events})
        return events

    def _leave(self, requests: set[int]) -> None:
        """Remove the branches of requests."""
        if self.fixed is not None:
            self._close_gaps(requests)
            return
        for slot in range(len(self.branches) - 1, -1, -1):
            if self.branches[slot].request in requests:
                self._remove(slot)

    def _remove(self, slot: int) -> None:
        """Remove a branch by moving the last active branch into its slot."""
        last = len(self.branches) - 1
        self.shelves.remove(slot)
        if slot != last:
            steps = self.steps[last]
            self.own[:, :, slot, :, :steps] = self.own[:, :, last, :, :steps]
            for part in (self.token, self.position, self.history, self.keys):
                part[slot] = part[last]
            self.branches[slot], self.steps[slot] = self.branches[last], self.steps[last]
        self.branches.pop()
        self.steps.pop()
        self.changed = True

    def _close_gaps(self, requests: set[int]) -> None:
        """Remove the branches of requests by moving the last ones into their slots, all at once."""
        if not requests:
            return
        count = sum(branch.request not in requests for branch in self.branches)
        gaps = [s for s, b in enumerate(self.branches[:count]) if b.request in requests]
        movers = [
            slot for slot, branch in enumerate(self.branches)
            if slot >= count and branch.request not in requests
        ]  # fmt: skip
        if movers:
            device = self.token.device
            to, source = send(torch.tensor([gaps, movers]), device).unbind()
            moved = [self.branches[slot] for slot in movers]
            steps = max(1 + len(self.answers[branch.request].tokens) for branch in moved)
            length = max(branch.length for branch in moved)
            for own, cross in zip(self.own, self.cross, strict=True):
                own[:, to, :, :steps] = own[:, source, :, :steps]
                cross[:, to, :, :length] = cross[:, source, :, :length]
            for part in (self.cross_mask, self.token, self.position, self.history, self.keys):
                part[to] = part[source]
            for gap, branch in zip(gaps, moved, strict=True):
                self.branches[gap] = branch
        del self.branches[count:]
        self.changed = True


class OpenRun(_Run):
    """A run that takes requests at any moment, and whose rows can be taken out.

    A row gets the tokens that it would get in a call of its own.
    """

    borrows = False

    def __init__(self, engine: Engine, encode: Encode):
        super().__init__(engine, encode, rows=engine.rows, longest=POSITIONS)
        self.bound, self.block = POSITIONS, 1

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.waiting and not self.branches

    def add(self, ticket: int, request: DecodingRequest, length: int) -> None:
        """Queue a request.

        Args:
            ticket: number of the request, which no other open one has.
            request: what to answer.
            length: its encoder positions, the longer of dialogue and persona.
        """
        self.requests[ticket], self.lengths[ticket] = request, length
        self.waiting.insert(0, ticket)

    @torch.inference_mode()
    def advance(self) -> list[Event]:
        """Take in what waits and run one step; return the new tokens."""
        if self.idle:
            return []
        self.admit()
        events = self.step()
        for event in events:
            if event.ended:
                self._forget(event.ticket)
        return events

    @torch.inference_mode()
    def drop(self, ticket: int) -> None:
        """Take a request out, answered or not; what has ended is no error."""
        if ticket in self.waiting:
            self.waiting.remove(ticket)
        if any(branch.request == ticket for branch in self.branches):
            if self.changed:
                self._lay_out()
            self._leave({ticket})
        self._forget(ticket)

    def _forget(self, ticket: int) -> None:
        for kept in (self.requests, self.lengths, self.answers):
            kept.pop(ticket, None)  # type: ignore[attr-defined]

    def make_room(self, group: Sequence[int]) -> None:
        """Make the room for encoder states longer where a request needs it."""
        longest = max(self.lengths[ticket] for ticket in group)
        if longest > self.longest:
            self._lengthen(multiple(longest, POSITIONS))
        self.bound = self.longest
