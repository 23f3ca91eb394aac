"""Decoding with decoder-only language models: two branches a row, and shared dialogues read once.

The persona is text, so the second branch is the same dialogue without notes, and the contrast (PAL
paper, equation 6) is ``(1 + α) · logits(r | d with notes) − α · logits(r | d without)``.

- Samples of a dialogue begin alike. A *group* is one sequence that several rows are beginnings of;
  it is read once, and each row sees as much of it as is its own (an attention mask).
- Both branches of all rows go through the model in one call; a row whose α is zero, or that has no
  notes, has one branch.
- The strategies are scored as continuations, in one call: their texts are a tree that hangs on
  every row.
- A row that ends leaves, and waiting rows take its place.

The model is called as the library has it, with position ids and a mask of its own, so that any
decoder-only model works.

It is long because a batch of rows is one object: it begins, steps, repacks and joins on the same
tensors.

Shapes: n rows or branches, G groups, S rows of a group, C cached positions, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.cache_utils import Cache

from pal.decoding.contrast import combine
from pal.decoding.engine import Answer, Event
from pal.decoding.groups import GroupLayer, only_at
from pal.decoding.noise import keyed_gumbel
from pal.decoding.plan import DecodingPlan
from pal.decoding.sampling import Sampler
from pal.decoding.sending import send

MAIN, PLAIN = 0, 1
REFILL = 0.5  # waiting rows come in when at most this share of the rows is left


# ----------------------------------------------------------------------------- requests


@dataclass
class LanguageRequest:
    """A row to answer.

    Attributes:
        key: of its noise, from :func:`pal.decoding.noise.sample_keys`.
        ids: the dialogue with notes; a strategy is to follow.
        plain: the dialogue without.
        strategy: given strategy; predicted when None.
        alpha: contrast weight of each strategy in place of the plan's.
        limit: tokens of the response, at most, where that is fewer than the plan's.
    """

    key: int
    ids: Sequence[int]
    plain: Sequence[int]
    strategy: int | None = None
    alpha: Sequence[float] | None = None
    limit: int | None = None


class StrategyTree:
    """The texts of the strategies as a tree: what they share is computed once.

    Attributes:
        tokens: of the nodes: every proper beginning of a text is one.
        parents: of the nodes; −1 where it is the prompt.
        depths: of the nodes, from 0.
        steps: for each strategy, (node that predicts, −1 for the prompt; predicted token).
    """

    def __init__(self, texts: Sequence[Sequence[int]]):
        self.texts = [list(text) for text in texts]
        nodes: dict[tuple[int, ...], int] = {}
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []
        self.steps: list[list[tuple[int, int]]] = []
        for text in self.texts:
            before, steps = -1, []
            for depth, token in enumerate(text):
                steps.append((before, token))
                beginning = tuple(text[: depth + 1])
                if depth == len(text) - 1:
                    break
                if beginning not in nodes:
                    nodes[beginning] = len(self.tokens)
                    self.tokens.append(token)
                    self.parents.append(before)
                    self.depths.append(depth)
                before = nodes[beginning]
            self.steps.append(steps)

    def __len__(self) -> int:
        return len(self.tokens)

    def path(self, strategy: int) -> list[int]:
        """Return the nodes of a strategy's text, its last token left out."""
        return [node for node, _ in self.steps[strategy][1:]]

    def sees(self) -> Tensor:
        """Return which node attends to which, [N, N]."""
        seen = torch.eye(len(self), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen


def find_groups(sequences: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return groups of sequences that are beginnings of the first of their group, by index.

    Example:
        >>> find_groups([[1, 2], [5], [1, 2, 3]])
        [[2, 0], [1]]
    """
    order = sorted(range(len(sequences)), key=lambda index: (-len(sequences[index]), index))
    groups: list[list[int]] = []
    for index in order:
        ids = list(sequences[index])
        for group in groups:
            if list(sequences[group[0]][: len(ids)]) == ids:
                group.append(index)
                break
        else:
            groups.append([index])
    return groups


@dataclass
class OpenRow:
    """A row that is being answered.

    Attributes:
        number: of its request.
        request: what was asked for.
        places: (group, slot) of its branches: with notes, and without where it has that.
        positions: of the next token in each branch.
        token: the next token to read.
        answer: what it became so far.
    """

    number: int
    request: LanguageRequest
    places: list[tuple[int, int]]
    positions: list[int]
    token: int = 0
    answer: Answer = field(default_factory=lambda: Answer(0, [], 0.0))


# ----------------------------------------------------------------------------- engine


class LanguageEngine:
    """Answers requests with a decoder-only model.

    Args:
        model: of the library, in evaluation mode.
        plan: strategy, α and how tokens are chosen.
        strategies: token ids of the strategy texts, in the order of the strategy set.
        end: the token that ends a response.
        suppressed: tokens that no response may contain.
        rows: rows decoded at once, at most.
        positions: positions of dialogues read in one call, at most.
    """

    def __init__(
        self,
        model: Any,
        plan: DecodingPlan,
        *,
        strategies: Sequence[Sequence[int]],
        end: int,
        suppressed: Sequence[int],
        rows: int,
        positions: int,
    ):
        self.model, self.plan, self.end = model, plan, end
        if model.config._attn_implementation == "sdpa":
            model.set_attn_implementation("pal_grouped")
        self.tree = StrategyTree(strategies)
        self.sees = self.tree.sees()
        self.rows, self.positions = rows, positions
        self.device = model.device
        self.suppressed = torch.tensor(sorted(set(suppressed) - {end}), device=self.device)
        self.sampler = Sampler.from_options(plan.options) if plan.options.do_sample else None
        self.lowest = torch.finfo(model.dtype).min
        # Layers that see the nearest positions alone: all of them, or those that are named so.
        kinds = getattr(model.config, "layer_types", None)
        self.mixed = kinds is not None
        slides = kinds is None or "sliding_attention" in kinds
        self.window = getattr(model.config, "sliding_window", None) if slides else None

    def __call__(
        self, requests: Sequence[LanguageRequest], *, watch: Callable[[int], Any] | None = None
    ) -> list[Answer]:
        """Return one answer a request; those of one dialogue should stand together.

        Args:
            requests: any number of them.
            watch: is told after each step how many tokens all answers have so far.
        """
        run = self.open()
        for number, request in enumerate(requests):
            run.add(number, request)
        answers: dict[int, Answer] = {}
        tokens = 0
        while not run.idle:
            events = run.advance()
            answers |= {event.ticket: event.answer for event in events if event.ended}
            tokens += len(events)
            if watch is not None:
                watch(tokens)
        return [answers[number] for number in range(len(requests))]

    def open(self) -> "OpenLanguageRun":
        """Return a run that takes requests at any moment."""
        return OpenLanguageRun(self)

    def contrasts(self, request: LanguageRequest) -> bool:
        """Whether a request can have a second branch."""
        alpha = self.plan.alpha if request.alpha is None else request.alpha
        other = list(request.ids) != list(request.plain)
        return other and bool(self.plan.strategy_alpha or any(alpha))

    def call(
        self, tokens: Tensor, positions: Tensor, cache: Cache, mask: Tensor | None,
        at: tuple[Tensor, Tensor],
    ) -> Tensor:  # fmt: skip
        """Run the model on [G, n] tokens and return logits at some of them, float32, [N, V]."""
        with only_at(self.model, *at):
            logits: Tensor = self.model(
                input_ids=tokens, position_ids=positions,
                attention_mask=None if mask is None else self._masks(mask),
                past_key_values=cache, use_cache=True,
            ).logits  # fmt: skip
        return logits[0].float()

    def _masks(self, mask: Tensor) -> Any:
        """Return what the model's layers take for a mask, [G, n, C], of what each query sees."""
        full = self._additive(mask)
        if self.window is None:
            return full
        # What a query sees stands in the order of positions, itself last.
        near = mask & (mask.cumsum(-1) > mask.sum(-1, keepdim=True) - self.window)
        sliding = self._additive(near)
        if self.mixed:
            return {"full_attention": full, "sliding_attention": sliding}
        return sliding

    def _additive(self, mask: Tensor) -> Tensor:
        zeros = torch.zeros(mask.shape, dtype=self.model.dtype, device=self.device)
        return zeros.masked_fill_(~mask, self.lowest)[:, None]


class OpenLanguageRun:
    """A run that takes requests at any moment, and whose rows can be taken out."""

    def __init__(self, engine: LanguageEngine):
        self.engine = engine
        self.waiting: list[tuple[int, LanguageRequest]] = []
        self.batch: Batch | None = None

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.waiting and self.batch is None

    def add(self, ticket: int, request: LanguageRequest) -> None:
        """Queue a request; no other open one has its ticket."""
        self.waiting.append((ticket, request))

    @torch.inference_mode()
    def advance(self) -> list[Event]:
        """Take in what waits and run one step; return the new tokens."""
        alive = 0 if self.batch is None else len(self.batch.rows)
        if self.waiting and alive <= REFILL * self.engine.rows:
            count = self._next_wave(self.engine.rows - alive)
            new = Batch.begin(self.engine, self.waiting[:count])
            del self.waiting[:count]
            if self.batch is None:
                self.batch = new
            else:
                self.batch.repack()
                self.batch.join(new)
        if self.batch is None:
            return []
        events = self.batch.step()
        if not self.batch.rows:
            self.batch = None
        return events

    @torch.inference_mode()
    def drop(self, ticket: int) -> None:
        """Take a request out, answered or not; what has ended is no error."""
        self.waiting = [one for one in self.waiting if one[0] != ticket]
        if self.batch is not None and any(row.number == ticket for row in self.batch.rows):
            self.batch.rows = [row for row in self.batch.rows if row.number != ticket]
            if self.batch.rows:
                self.batch.repack()
            else:
                self.batch = None

    def _next_wave(self, room: int) -> int:
        """Return how many waiting requests come in: as many as rows and positions allow."""
        count, longest = 0, 0
        for _, request in self.waiting[:room]:
            longest = max(longest, len(request.ids), len(request.plain))
            if count and (count + 1) * longest > self.engine.positions * 4:
                break  # far more than shared dialogues take
            count += 1
        return count


class Batch:
    """Rows that are decoded together, and what their groups hold in the cache.

    Attributes:
        rows: those that have not ended.
        cache: keys and values of the groups.
        visible: which cached positions a slot of a group sees, [G, S, C].
    """

    def __init__(self, engine: LanguageEngine, rows: list[OpenRow], cache: Cache, visible: Tensor):
        self.engine, self.rows, self.cache, self.visible = engine, rows, cache, visible
        self._arranged: Any = None

    @property
    def used(self) -> int:
        """Positions held."""
        return int(self.cache.get_seq_length())

    # -- beginning

    @classmethod
    def begin(
        cls, engine: LanguageEngine, requests: Sequence[tuple[int, LanguageRequest]]
    ) -> "Batch":
        """Read the dialogues of requests and find their strategies."""
        branches = [(number, MAIN) for number in range(len(requests))]
        branches += [
            (number, PLAIN)
            for number, (_, request) in enumerate(requests)
            if engine.contrasts(request)
        ]
        texts = [
            requests[number][1].ids if branch == MAIN else requests[number][1].plain
            for number, branch in branches
        ]
        groups = find_groups(texts)
        slots = max(map(len, groups))
        longest = max(map(len, texts))
        device = engine.device
        tokens = torch.zeros(len(groups), longest, dtype=torch.long)
        visible = torch.zeros(len(groups), slots, longest, dtype=torch.bool)
        rows = [OpenRow(number, request, [], []) for number, request in requests]
        for place, group in enumerate(groups):
            ids = texts[group[0]]
            tokens[place, : len(ids)] = torch.tensor(ids)
            for slot, member in enumerate(group):
                visible[place, slot, : len(texts[member])] = True
        where = {
            member: (place, slot)
            for place, group in enumerate(groups) for slot, member in enumerate(group)
        }  # fmt: skip
        for member, (number, _) in enumerate(branches):  # with notes first
            rows[number].places.append(where[member])
            rows[number].positions.append(len(texts[member]))
        cache = Cache(layer_class_to_replicate=GroupLayer)
        batch = cls(engine, rows, cache, send(visible, device))
        flat = batch._flat()
        last = torch.tensor([len(texts[member]) - 1 for member in batch._order(branches)])
        logits = batch._read(tokens, flat, last)
        batch._choose_strategies(logits)
        return batch

    def _order(self, branches: Sequence[tuple[int, int]]) -> list[int]:
        """Return branches in the order of :meth:`_flat`: all with notes, then those without."""
        return [i for kind in (MAIN, PLAIN) for i, (_, b) in enumerate(branches) if b == kind]

    def _flat(self) -> list[tuple[int, int]]:
        """Return (group, slot) of all branches: those with notes, then those without."""
        main = [row.places[MAIN] for row in self.rows]
        return main + [row.places[PLAIN] for row in self.rows if len(row.places) > 1]

    def _read(self, tokens: Tensor, flat: Sequence[tuple[int, int]], last: Tensor) -> Tensor:
        """Read the dialogues, some groups at a time; return the logits behind each branch."""
        engine = self.engine
        count, length = tokens.shape
        at_once = max(1, engine.positions // length)
        group_of = torch.tensor([group for group, _ in flat])
        found: Tensor | None = None
        whole: Cache | None = None
        for start in range(0, count, at_once):
            part = send(tokens[start : start + at_once], engine.device)
            cache = Cache(layer_class_to_replicate=GroupLayer)
            mine = ((group_of >= start) & (group_of < start + len(part))).nonzero()[:, 0]
            at = (send(group_of[mine] - start, engine.device), send(last[mine], engine.device))
            positions = torch.arange(length, device=engine.device).expand(len(part), -1)
            logits = engine.call(part, positions, cache, None, at)
            if found is None:
                found = logits.new_empty(len(flat), logits.shape[-1])
            found[send(mine, engine.device)] = logits
            if whole is None:
                whole = cache
            else:
                for layer, more in zip(whole.layers, cache.layers, strict=True):
                    layer.join(more)  # type: ignore[union-attr,arg-type]
        assert found is not None
        assert whole is not None
        self.cache = whole
        return found

    def _choose_strategies(self, logits: Tensor) -> None:
        """Score the strategy texts behind every row, choose one, and keep its path."""
        engine, tree, flat = self.engine, self.engine.tree, self._flat()
        rows, count = len(self.rows), len(tree)
        alpha = torch.full((rows,), float(engine.plan.strategy_alpha), device=engine.device)
        steps = [self._contrasted(logits, alpha)[:, None]]  # behind the prompt
        used, slots = self.used, self.visible.shape[1]
        if count:
            groups = len(self.visible)
            tokens = send(torch.tensor(tree.tokens), engine.device).repeat(groups, slots)
            starts = torch.zeros(groups, slots, dtype=torch.long)
            for row in self.rows:
                for (group, slot), position in zip(row.places, row.positions, strict=True):
                    starts[group, slot] = position
            depths = torch.tensor(tree.depths)
            positions = send((starts[:, :, None] + depths).flatten(1), engine.device)
            own = torch.zeros(slots, count, slots, count, dtype=torch.bool)
            own[range(slots), :, range(slots)] = engine.sees
            before = self.visible[:, :, None].expand(-1, -1, count, -1).flatten(1, 2)
            before = before.clone()
            before[:, :, 0] = True  # empty slots see something, lest their scores be no numbers
            mask = torch.cat([
                before,
                send(own.view(slots * count, slots * count), engine.device).expand(groups, -1, -1),
            ], dim=2)  # fmt: skip
            at_group = torch.tensor([group for group, _ in flat]).repeat_interleave(count)
            at_column = torch.tensor(
                [slot * count + node for _, slot in flat for node in range(count)]
            )
            logits = engine.call(
                tokens, positions, self.cache, mask,
                (send(at_group, engine.device), send(at_column, engine.device)),
            ).view(len(flat), count, -1)  # fmt: skip
            steps.append(self._contrasted(logits, alpha))
        scores = torch.cat(steps, dim=1)  # [rows, 1 + nodes, V]
        total = scores.logsumexp(-1)
        sums = torch.stack([
            sum((scores[:, node + 1, token] - total[:, node + 1] for node, token in text),
                start=torch.zeros(rows, device=engine.device))
            for text in tree.steps
        ], dim=1)  # fmt: skip
        if engine.plan.choice == "sample":
            keys = send(torch.tensor([row.request.key for row in self.rows]), engine.device)
            ids = torch.arange(sums.shape[1], device=engine.device).expand(rows, -1)
            best = (sums.log_softmax(-1) + keyed_gumbel(keys, 0, ids)).argmax(-1)
        else:
            best = sums.argmax(-1)
        grown = torch.zeros(
            len(self.visible), slots, self.used, dtype=torch.bool, device=engine.device
        )
        grown[:, :, :used] = self.visible
        seen: list[tuple[int, int, int]] = []
        for row, chosen, probs in zip(
            self.rows, best.tolist(), sums.softmax(-1).tolist(), strict=True
        ):
            strategy = chosen if row.request.strategy is None else row.request.strategy
            weights = engine.plan.alpha if row.request.alpha is None else row.request.alpha
            row.answer = Answer(strategy, probs, weights[strategy])
            row.token = tree.texts[strategy][-1]
            path = tree.path(strategy)
            if row.answer.alpha == 0:
                row.places, row.positions = row.places[:1], row.positions[:1]
            for index, (group, slot) in enumerate(row.places):
                row.positions[index] += len(path)
                seen += [(group, slot, used + slot * count + node) for node in path]
        if seen:
            grown[send(torch.tensor(seen), engine.device).unbind(1)] = True
        self.visible = grown
        self.repack()

    def _contrasted(self, logits: Tensor, alpha: Tensor, *, words: bool = False) -> Tensor:
        """Return the logits of the rows, [rows, …], of those of all branches.

        Args:
            logits: of the branches with notes, then of those without.
            alpha: of the rows, [rows].
            words: whether a response's words are chosen, so that implausible ones are dropped.
        """
        rows = len(self.rows)
        main, plain = logits[:rows], logits[rows:]
        with_plain = [number for number, row in enumerate(self.rows) if len(row.places) > 1]
        if not with_plain:
            return main
        index = send(torch.tensor(with_plain), main.device)
        persona = main[index]
        combined = combine(persona, plain, alpha[index])
        if words and self.engine.plan.plausibility:
            possible = self._possible(persona.clone(), [self.rows[number] for number in with_plain])
            floor = possible.amax(-1, keepdim=True) + math.log(self.engine.plan.plausibility)
            combined = combined.masked_fill(possible < floor, -torch.inf)
        return main.index_copy(0, index, combined)

    # -- one step

    def step(self) -> list[Event]:
        """Read the next token of every row and choose the one behind it; return the new tokens."""
        engine, options = self.engine, self.engine.plan.options
        slots, at, order = self._arrange()
        groups, width = slots.shape
        tokens = torch.zeros(groups, width, dtype=torch.long)
        positions = torch.zeros_like(tokens)
        values = torch.tensor(
            [[row.token, row.positions[branch]] for row, branch in order], dtype=torch.long
        )
        tokens[at], positions[at] = values[:, 0], values[:, 1]
        used = self.used
        here = [send(index, engine.device) for index in at]
        place = send(slots[at], engine.device)
        self.visible = F.pad(self.visible, (0, width))
        self.visible[here[0], place, used + here[1]] = True
        mask = self.visible[
            torch.arange(groups, device=engine.device)[:, None], send(slots, engine.device)
        ]
        mask[:, :, 0] = True
        logits = engine.call(
            send(tokens, engine.device), send(positions, engine.device), self.cache, mask,
            (here[0], here[1]),
        )  # fmt: skip
        scores = self._contrasted(logits, self._alpha, words=True)
        scores = self._possible(self._penalised(scores), self.rows)
        if engine.sampler is None:
            drawn = scores.argmax(-1)
        else:
            said = torch.tensor([len(row.answer.tokens) for row in self.rows])
            steps = send(said, scores.device)
            drawn = engine.sampler.draw(scores, self._keys, steps + 2)
        events, left = [], []
        for row, token in zip(self.rows, drawn.tolist(), strict=True):
            row.token = token
            row.answer.tokens.append(token)
            row.positions = [position + 1 for position in row.positions]
            most = min(options.max_new_tokens, row.request.limit or options.max_new_tokens)
            ended = token == engine.end or len(row.answer.tokens) >= most
            events.append(Event(row.number, token, row.answer, ended))
            if not ended:
                left.append(row)
        if len(left) < len(events):
            self.rows, self._arranged = left, None
            if left:
                alive = {group for row in left for group, _ in row.places}
                if len(alive) <= 0.7 * groups:
                    self.repack()
        return events

    def _arrange(self) -> Any:
        """Return which slots are read at a step: kept until a row ends."""
        if self._arranged is None:
            by_group: list[list[tuple[int, OpenRow, int]]] = [[] for _ in range(len(self.visible))]
            for row in self.rows:
                for branch, (group, slot) in enumerate(row.places):
                    by_group[group].append((slot, row, branch))
            width = max(map(len, by_group))
            slots = torch.zeros(len(by_group), width, dtype=torch.long)
            column: dict[tuple[int, int], int] = {}
            for group, members in enumerate(by_group):
                for index, (slot, _, _) in enumerate(members):
                    slots[group, index] = slot
                    column[group, slot] = index
            order = [(row, MAIN) for row in self.rows]
            order += [(row, PLAIN) for row in self.rows if len(row.places) > 1]
            places = [row.places[branch] for row, branch in order]
            at = (
                torch.tensor([group for group, _ in places]),
                torch.tensor([column[place] for place in places]),
            )
            device = self.engine.device
            self._alpha = send(torch.tensor([row.answer.alpha for row in self.rows]), device)
            self._keys = send(torch.tensor([row.request.key for row in self.rows]), device)
            self._arranged = (slots, at, order)
        return self._arranged

    def _penalised(self, scores: Tensor) -> Tensor:
        """Make the tokens that a response holds already less probable."""
        penalty = self.engine.plan.options.repetition_penalty
        said = [row.answer.tokens for row in self.rows]
        longest = max(map(len, said))
        if penalty == 1.0 or not longest:
            return scores
        # A row that said less repeats its first token: a token is penalised once, however often it
        # stands there. One that said nothing is left as it is.
        padded = [ids + (ids[:1] or [0]) * (longest - len(ids)) for ids in said]
        known = send(torch.tensor(padded), scores.device)
        some = send(torch.tensor([bool(ids) for ids in said]), scores.device)[:, None]
        old = scores.gather(1, known)
        new = torch.where(old < 0, old * penalty, old / penalty)
        return scores.scatter(1, known, torch.where(some, new, old))

    def _possible(self, scores: Tensor, rows: Sequence[OpenRow]) -> Tensor:
        """Rule out, in place, what no response holds, and its end where that comes too early."""
        engine = self.engine
        scores[:, engine.suppressed] = -torch.inf
        least = engine.plan.options.least
        short = [len(row.answer.tokens) < least for row in rows]
        if any(short):
            scores[send(torch.tensor(short), scores.device), engine.end] = -torch.inf
        return scores

    # -- room

    def repack(self) -> None:
        """Drop groups without rows, and cached positions that no row of a group sees."""
        engine = self.engine
        kept = sorted({group for row in self.rows for group, _ in row.places})
        slots: dict[int, list[int]] = {group: [] for group in kept}
        for row in self.rows:
            for group, slot in row.places:
                slots[group].append(slot)
        width = max(map(len, slots.values()))
        index = send(torch.tensor(kept), engine.device)
        chosen = torch.zeros(len(kept), width, dtype=torch.long)
        real = torch.zeros(len(kept), width, dtype=torch.bool)
        new_place = {}
        for place, group in enumerate(kept):
            for number, slot in enumerate(slots[group]):
                chosen[place, number], real[place, number] = slot, True
                new_place[group, slot] = (place, number)
        visible = self.visible[index].gather(
            1, send(chosen, engine.device)[:, :, None].expand(-1, -1, self.visible.shape[2])
        )
        visible &= send(real, engine.device)[:, :, None]
        seen = visible.any(1)  # [G, C]
        most = int(seen.sum(1).max())
        # Seen columns first, in their order.
        columns = (~seen).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
        for layer in self.cache.layers:
            layer.keep(index, columns)  # type: ignore[union-attr]
        self.visible = visible.gather(2, columns[:, None].expand(-1, width, -1))
        for row in self.rows:
            row.places = [new_place[place] for place in row.places]
        self._arranged = None

    def join(self, other: "Batch") -> None:
        """Take in the rows of another batch."""
        groups = len(self.visible)
        slots = max(self.visible.shape[1], other.visible.shape[1])
        length = max(self.used, other.used)
        parts = [
            F.pad(part, (0, length - part.shape[2], 0, slots - part.shape[1]))
            for part in (self.visible, other.visible)
        ]
        self.visible = torch.cat(parts)
        for layer, more in zip(self.cache.layers, other.cache.layers, strict=True):
            layer.join(more)  # type: ignore[union-attr,arg-type]
        for row in other.rows:
            row.places = [(group + groups, slot) for group, slot in row.places]
        self.rows = self.rows + other.rows
        self._arranged = None
