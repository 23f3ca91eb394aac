"""Decoding of many rows at once: a row that ends leaves, and a waiting one takes its place.

It gives what ``PalForConditionalGeneration.generate`` gives (to rounding), faster:

- a row has a second branch only where its α is not zero; both run in one pass of the decoder;
- keys and values of the encoder states are computed once, the decoder's own written in place;
- the output projection is linear, so the contrast (PAL paper, equation 6) is made of the two hidden
  states before it: one projection a row, not two;
- temperature, top-p and the draw see the top-k tokens alone, not the vocabulary;
- the host learns the drawn tokens once a step and nothing else.

Shapes: n active branches, B active rows, d model width, H heads, T decoder positions, L encoder
positions, V vocabulary, k tokens that can be drawn.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.profiler import record_function
from transformers import GenerationConfig

from pal.decoding.noise import keyed_gumbel
from pal.modeling.packed import join
from pal.modeling.pal import EncodedInputs

MAIN, PLAIN = 0, 1

# Gives the encoder states of some requests, in groups: positions in the list given, and states.
Encode = Callable[[Sequence[int]], Iterable[tuple[Sequence[int], EncodedInputs]]]


@dataclass
class Request:
    """A row to answer.

    Attributes:
        key: of its noise, from :func:`pal.decoding.noise.sample_keys`.
        strategy: given strategy, 0 to 7; predicted when None.
    """

    key: int
    strategy: int | None = None


@dataclass
class Answer:
    """What a row became.

    Attributes:
        strategy: 0 to 7.
        strategy_probs: the model's distribution, 8 of them.
        alpha: contrast weight it was decoded with.
        tokens: of the response, its end token included where it came.
    """

    strategy: int
    strategy_probs: list[float]
    alpha: float
    tokens: list[int] = field(default_factory=list)


@dataclass
class Branch:
    """One active branch: which request's, main or plain, and how many encoder positions it has."""

    request: int
    kind: int
    length: int


class Engine:
    """Answers requests with a model.

    Args:
        model: the response model, in evaluation mode.
        options: ``do_sample``, ``temperature``, ``top_k``, ``top_p``, ``repetition_penalty``,
            ``min_new_tokens``, ``max_new_tokens``; no beams.
        alpha: contrast weight of each strategy, [8].
        strategy_alpha: contrast weight of the strategy step.
        strategy_choice: how a strategy is predicted.
        rows: how many rows with two branches the memory holds; where branches fall away, more rows
            are decoded at once.
    """

    def __init__(
        self,
        model: Any,
        options: GenerationConfig,
        *,
        alpha: Sequence[float],
        strategy_alpha: float,
        strategy_choice: Literal["argmax", "sample"] = "argmax",
        rows: int = 64,
    ):
        self.model, self.options = model, options
        self.alpha, self.strategy_alpha = list(alpha), strategy_alpha
        self.strategy_choice, self.rows = strategy_choice, rows
        decoder = model.model.decoder
        self.embed, self.embed_norm = decoder.embed_tokens, decoder.layernorm_embedding
        self.positions = decoder.embed_positions.weight
        self.layers = [_Layer(layer) for layer in decoder.layers]
        self.heads = model.config.decoder_attention_heads
        self.size = model.config.d_model // self.heads
        bias = model.final_logits_bias[0].clone()
        bias[model.suppressed_tokens(options)] = -torch.inf
        self.project = join([model.lm_head], bias)
        self.strategy_tokens = torch.tensor(model.config.strategy_token_ids, device=bias.device)
        self.strategy_of = {t: s for s, t in enumerate(model.config.strategy_token_ids)}
        self.end = model.config.eos_token_id

    @torch.inference_mode()
    def __call__(
        self,
        requests: Sequence[Request],
        lengths: Sequence[int],
        encode: Encode,
    ) -> list[Answer]:
        """Return one answer a request.

        Args:
            requests: what to answer.
            lengths: encoder positions of each request, the longer of dialogue and persona.
            encode: gives the encoder states of some requests, named by their indices; see
                :func:`pal.modeling.encoding.encode_sorted`.
        """
        order = sorted(range(len(requests)), key=lambda index: (lengths[index], -index))
        run = _Run(self, requests, order, encode, lengths)
        while run.waiting or run.branches:
            run.admit()
            run.step()
        return run.finish()


class _Layer:
    """A decoder layer's modules, with weights joined where one product does for several."""

    def __init__(self, layer: Any):
        own, cross = layer.self_attn, layer.encoder_attn
        self.qkv = join([own.q_proj, own.k_proj, own.v_proj])
        self.kv = join([cross.k_proj, cross.v_proj])
        self.own_out, self.own_norm = own.out_proj, layer.self_attn_layer_norm
        self.cross_q, self.cross_out = cross.q_proj, cross.out_proj
        self.cross_norm = layer.encoder_attn_layer_norm
        self.fc1, self.activation, self.fc2 = layer.fc1, layer.activation_fn, layer.fc2
        self.norm = layer.final_layer_norm


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Attention of one query a branch, [n, H, w], to keys and values [n, H, L, w]; [n, H, w].

    Two products and a softmax take half the time of ``scaled_dot_product_attention`` on a CPU: its
    kernel is made for many queries.
    """
    scores = (queries * queries.shape[-1] ** -0.5)[:, :, None] @ keys.transpose(2, 3) + mask
    return (scores.softmax(-1) @ values).squeeze(2)


class _Run:
    """The state of one call: memory of the active branches, which lie first in every tensor."""

    def __init__(
        self,
        engine: Engine,
        requests: Sequence[Request],
        order: list[int],
        encode: Encode,
        lengths: Sequence[int],
    ):
        self.engine, self.requests, self.encode = engine, requests, encode
        self.lengths, longest = lengths, max(lengths)
        self.waiting = order  # the longest last, where they are taken from
        self.answers: dict[int, Answer] = {}
        self.branches: list[Branch] = []
        self.sides = 2 if engine.model.fusion is not None else 1
        size = self.sides * min(engine.rows, len(requests))
        steps = engine.options.max_new_tokens + 2
        like = engine.project.weight
        layers, heads, width = len(engine.layers), engine.heads, engine.size
        self.own = like.new_zeros(layers, 2, size, heads, steps, width)  # keys and values
        self.cross = like.new_empty(layers, 2, size, heads, longest, width)
        self.cross_mask = like.new_full((size, 1, 1, longest), -torch.inf)  # added to scores
        whole: Any = {"dtype": torch.long, "device": like.device}
        self.token = torch.zeros(size, **whole)
        self.position = torch.zeros(size, **whole)
        self.history = torch.zeros(size, steps, **whole)
        self.keys = torch.zeros(size, **whole)
        self.probs: list[tuple[list[int], Tensor]] = []  # read at the end: no further wait for them
        self.size, self.changed = size, True

    def admit(self) -> None:
        """Encode waiting requests, as many as there is room for, once there is room for some."""
        room = (self.size - len(self.branches)) // self.sides
        if not self.waiting or room < min(len(self.waiting), max(1, self.size // 8)):
            return
        group = [self.waiting.pop() for _ in range(min(room, len(self.waiting)))]
        # No later length exceeds this: the longest come first.
        lengths = [self.lengths[index] for index in group]
        self.bound = max(lengths + [branch.length for branch in self.branches])
        with record_function("encode"):
            for chosen, encoded in self.encode(group):
                self._place([group[index] for index in chosen], encoded)
        self.changed = True

    def _place(self, group: list[int], encoded: EncodedInputs) -> None:
        """Give some requests branches."""
        engine = self.engine
        sides = [(MAIN, encoded.states, encoded.mask)]
        if encoded.is_fused and (engine.strategy_alpha or any(engine.alpha)):
            sides.append((PLAIN, encoded.dialogue_states, encoded.dialogue_mask))
        keys = torch.tensor([self.requests[i].key for i in group], device=self.keys.device)
        for kind, states, mask in sides:
            first, rows = len(self.branches), len(group)
            length = mask.shape[1]
            place = slice(first, first + rows)
            for layer, cross in zip(engine.layers, self.cross, strict=True):
                both = layer.kv(states).view(rows, length, 2, engine.heads, engine.size)
                cross[:, place, :, :length] = both.permute(2, 0, 3, 1, 4)
                cross[:, place, :, length : self.bound] = 0
            self.cross_mask[place] = -torch.inf
            self.cross_mask[place, 0, 0, :length].masked_fill_(mask.bool(), 0.0)
            self.token[place] = engine.model.start_tokens(rows)[:, 0]
            self.history[place] = self.token[place, None]
            self.position[place] = 0
            self.keys[place] = keys
            self.branches += [
                Branch(index, kind, min(length, self.lengths[index])) for index in group
            ]

    def finish(self) -> list[Answer]:
        """Return the answers in the order of their requests."""
        for requests, probs in self.probs:
            for request, row in zip(requests, probs.tolist(), strict=True):
                self.answers[request].strategy_probs = row
        return [self.answers[index] for index in range(len(self.requests))]

    def step(self) -> None:
        """Run the decoder once for all active branches, and take in what the rows chose."""
        if self.changed:
            self._lay_out()
        with record_function("decode"):
            hidden = self._decode()[self.mains]
        if len(self.plains):
            weight = self.weights[:, None].to(hidden.dtype)
            contrasted = (1 + weight) * hidden[self.paired] - weight * self.hidden[self.plains]
            hidden = hidden.index_copy(0, self.paired, contrasted)
        new = torch.empty(len(self.mains), dtype=torch.long, device=hidden.device)
        with record_function("choose"):
            if len(self.fresh):
                new[self.fresh] = self._choose_strategies(hidden[self.fresh])
            if len(self.running):
                new[self.running] = self._choose_tokens(hidden[self.running])
        slots = self.mains
        self.position[: len(self.branches)] += 1
        self.history[slots, self.position[slots]] = new
        self.token[slots] = new
        self.token[self.plains] = new[self.paired]
        self._take_in(new.tolist())

    def _lay_out(self) -> None:
        """Make the indices that hold until a branch comes or goes."""
        device = self.token.device
        mains = [slot for slot, branch in enumerate(self.branches) if branch.kind == MAIN]
        plain = {b.request: slot for slot, b in enumerate(self.branches) if b.kind == PLAIN}
        fresh = [r for r, s in enumerate(mains) if self.branches[s].request not in self.answers]
        running = sorted(set(range(len(mains))) - set(fresh))
        paired = [r for r, s in enumerate(mains) if self.branches[s].request in plain]
        weights = []
        for row in paired:
            answer = self.answers.get(self.branches[mains[row]].request)
            weights.append(self.engine.strategy_alpha if answer is None else answer.alpha)
        indices = (mains, fresh, running, paired,
                   [plain[self.branches[mains[row]].request] for row in paired])  # fmt: skip
        whole = torch.tensor([i for index in indices for i in index], dtype=torch.long).to(device)
        self.mains, self.fresh, self.running, self.paired, self.plains = whole.split(
            [len(index) for index in indices]
        )
        self.weights = torch.tensor(weights, device=device)
        self.slots = mains
        active = len(self.branches)
        self.all = torch.arange(active, device=device)
        self.length = max(branch.length for branch in self.branches)
        self.steps = [
            0 if (a := self.answers.get(b.request)) is None else 1 + len(a.tokens)
            for b in self.branches
        ]
        self.changed = False

    def _decode(self) -> Tensor:
        """Return the decoder's last states, [n, d]."""
        engine, active = self.engine, len(self.branches)
        heads, width = engine.heads, engine.size
        position = self.position[:active]
        top = max(self.steps) + 1
        self.steps = [step + 1 for step in self.steps]
        seen = torch.arange(top, device=position.device)[None] <= position[:, None]
        own_mask = torch.zeros_like(seen, dtype=self.own.dtype).masked_fill_(~seen, -torch.inf)
        own_mask = own_mask[:, None, None]
        cross_mask = self.cross_mask[:active, :, :, : self.length]
        x = engine.embed_norm(engine.embed(self.token[:active]) * engine.model.embed_scale)
        x = x + engine.positions[position]
        for layer, own, cross in zip(engine.layers, self.own, self.cross, strict=True):
            qkv = layer.qkv(x).view(active, 3, heads, width)
            own[0][self.all, :, position] = qkv[:, 1]
            own[1][self.all, :, position] = qkv[:, 2]
            attended = _attend(
                qkv[:, 0], own[0, :active, :, :top], own[1, :active, :, :top], own_mask
            )
            x = layer.own_norm(x + layer.own_out(attended.reshape(active, -1)))
            queries = layer.cross_q(x).view(active, heads, width)
            attended = _attend(
                queries, cross[0, :active, :, : self.length], cross[1, :active, :, : self.length],
                cross_mask,
            )  # fmt: skip
            x = layer.cross_norm(x + layer.cross_out(attended.reshape(active, -1)))
            x = layer.norm(x + layer.fc2(layer.activation(layer.fc1(x))))
        self.hidden = x
        return x

    def _choose_strategies(self, hidden: Tensor) -> Tensor:
        """Return the strategy tokens of rows at their first step, and note the distributions."""
        engine = self.engine
        tokens = engine.strategy_tokens
        bias = engine.model.final_logits_bias[0, tokens]
        logits = torch.addmm(bias, hidden, engine.project.weight[tokens].t()).float()
        scores = logits
        if engine.strategy_choice == "sample":
            keys = self.keys[self.mains[self.fresh]]
            scores = logits.log_softmax(-1) + keyed_gumbel(keys, 0, tokens.expand(len(keys), -1))
        chosen = scores.argmax(-1)
        fresh = [self.branches[slot].request for slot in self.slots]
        fresh = [request for request in fresh if request not in self.answers]
        given = [self.requests[request].strategy for request in fresh]
        if any(strategy is not None for strategy in given):
            wanted = torch.tensor([-1 if s is None else s for s in given], device=chosen.device)
            chosen = torch.where(wanted >= 0, wanted, chosen)
        self.probs.append((fresh, logits.softmax(-1)))
        return tokens[chosen]

    def _choose_tokens(self, hidden: Tensor) -> Tensor:
        """Return the next token of rows, [B]; the order of operations is the library's."""
        options = self.engine.options
        slots = self.mains[self.running]
        length = self.position[slots] + 1  # tokens so far, start and strategy included
        scores = self.engine.project(hidden).float()
        if (options.repetition_penalty or 1.0) != 1.0:
            seen = self.history[slots]  # beyond its length the start token, which is there anyway
            found = scores.gather(1, seen)
            penalty = options.repetition_penalty
            scores.scatter_(1, seen, torch.where(found < 0, found * penalty, found / penalty))
        if options.min_new_tokens:
            early = length - 2 < options.min_new_tokens
            scores[:, self.engine.end].masked_fill_(early, -torch.inf)
        if not options.do_sample:
            return scores.argmax(-1)
        count = min(options.top_k or scores.shape[-1], scores.shape[-1])
        values, tokens = scores.topk(count, dim=-1)
        values = values / (options.temperature or 1.0)
        if options.top_p is not None and options.top_p < 1.0:
            below = values.flip(-1).softmax(-1).cumsum(-1) <= 1 - options.top_p
            below[:, -1] = False
            values = values.masked_fill(below.flip(-1), -torch.inf)
        noisy = values + keyed_gumbel(self.keys[slots], length, tokens)
        return tokens.gather(1, noisy.argmax(-1, keepdim=True)).squeeze(1)

    def _take_in(self, new: list[int]) -> None:
        """Note what every row chose; rows that end, and branches no longer needed, leave."""
        engine = self.engine
        leaving: set[tuple[int, int]] = set()
        for row, slot in enumerate(self.slots):
            request = self.branches[slot].request
            answer = self.answers.get(request)
            if answer is None:
                strategy = engine.strategy_of[new[row]]
                self.answers[request] = Answer(strategy, [], engine.alpha[strategy])
                if not engine.alpha[strategy]:
                    leaving.add((request, PLAIN))
                self.changed = True
                continue
            answer.tokens.append(new[row])
            if new[row] == engine.end or len(answer.tokens) == engine.options.max_new_tokens:
                leaving |= {(request, MAIN), (request, PLAIN)}
        for slot in range(len(self.branches) - 1, -1, -1):
            if (self.branches[slot].request, self.branches[slot].kind) in leaving:
                self._remove(slot)

    def _remove(self, slot: int) -> None:
        """Put the last active branch into this one's place."""
        last = len(self.branches) - 1
        if slot != last:
            length = self.branches[last].length
            steps = self.steps[last]
            self.own[:, :, slot, :, :steps] = self.own[:, :, last, :, :steps]
            self.cross[:, :, slot, :, :length] = self.cross[:, :, last, :, :length]
            for part in (self.cross_mask, self.token, self.position, self.history, self.keys):
                part[slot] = part[last]
            self.branches[slot], self.steps[slot] = self.branches[last], self.steps[last]
        self.branches.pop()
        self.steps.pop()
        self.changed = True
