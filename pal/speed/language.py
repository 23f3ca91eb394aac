"""Speed of decoder-only models, compared with the alternatives: ``pal bench generate``.

All sides have the same weights, dialogues, strategies (as text) and α, draw with the same noise,
and write responses of the same length:

- ours: :class:`pal.decoding.language.LanguageEngine`. It scores all strategies besides, since its
  records hold their probabilities;
- guidance: transformers' classifier-free guidance, one row at a time, because it takes one scale
  for a call and makes no position ids for padded rows. Its ``u + scale · (c − u)``, with
  ``scale = 1 + α``, is our ``(1 + α) · c − α · u`` on log-probabilities in place of logits: less a
  number that is the same for all tokens. A repetition penalty divides by the sign of a score, so
  that the number matters there; hence there is no penalty unless one is given;
- two_passes: a plain loop in batches as large as ours, padded on the left, with the library's
  cache: a step is a pass with notes and one without.

Words are written without a second branch where α is zero or nothing is known. Ours reads the
dialogues of both branches wherever there are notes, since its strategies are contrasted too.

It is long because each side is written out, as somebody without this package would write it.
"""

import os
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, LogitsProcessorList

from pal.core.errors import ConfigError
from pal.core.job import process_state
from pal.data.batches import pad
from pal.data.chat import ChatEncoder
from pal.data.samples import Sample
from pal.data.strategies import STRATEGIES, strategy_id
from pal.data.tokenizer import load_tokenizer, train_chat_tokenizer
from pal.decoding.contrast import combine
from pal.decoding.language import LanguageEngine, LanguageRequest, find_groups
from pal.decoding.noise import sample_keys
from pal.decoding.plan import DecodingPlan
from pal.decoding.sampling import Sampler
from pal.decoding.settings import DecodingSettings
from pal.modeling.checkpoint import find_backbone, read_model_config
from pal.modeling.language import (
    build_language_model,
    find_gguf_file,
    is_decoder_only,
    language_task,
    make_chat_encoder,
)
from pal.modeling.responder import load_model_and_tokenizer
from pal.modeling.settings import ArchitectureSettings
from pal.speed.machine import machine, measure_ceiling
from pal.speed.sides import Side, run_rounds, sides_document, sides_table
from pal.training.language import chat_encoder_of, language_mode, put_entries

LANGUAGE_SIDES = ("ours", "guidance", "two_passes")


def measures_language(model: str | None, architecture: ArchitectureSettings) -> bool:
    """Return whether a model, or what random weights are made of, is decoder-only.

    The default base is not looked at, so that nothing has to be there for it.

    Raises:
        PalError: model or base cannot be read.
    """
    chosen = architecture
    if model is not None:
        return language_task(read_model_config(model, f"model={model}")) is not None
    if chosen.from_scratch is not None:
        return is_decoder_only(str(chosen.from_scratch.get("model_type")))
    if chosen.base == ArchitectureSettings().base:
        return False
    return bool(find_backbone(chosen.base, None, chosen.backbone, chosen.gguf_file).decoder_only)


def stand_in_notes(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return dialogues in which what a seeker says of themselves, "I …", is their persona.

    So the bundled corpus, which holds no personas, has something to contrast.
    """
    noted = []
    for row in rows:
        known: list[str] = []
        dialog = []
        for turn in row["dialog"]:
            if turn["speaker"] == "seeker":
                said = [s.strip() for s in turn["text"].replace("!", ".").split(".")]
                known = list(dict.fromkeys([*known, *(s for s in said if s.startswith("I "))]))
            dialog.append({**turn, "persona": known})
        noted.append({**row, "dialog": dialog})
    return noted


# ----------------------------------------------------------------------------- workload


@dataclass
class LanguageWorkload:
    """The common workload of all sides.

    Attributes:
        model: decoder-only, whose weights all sides share.
        encoder: its text side.
        plan: α of each strategy, and how tokens are chosen.
        requests: what is answered: prompts, given strategies and keys of the noise.
        dialogues: number of dialogues that the requests are of.
        source: where they are from, in words.
        attention: how the library's own passes attend.
    """

    model: Any
    encoder: ChatEncoder
    plan: DecodingPlan
    requests: list[LanguageRequest]
    dialogues: int
    source: str
    attention: str

    def first(self, count: int) -> "LanguageWorkload":
        """Return the workload of the first rows."""
        return replace(self, requests=self.requests[:count])

    def alpha(self, request: LanguageRequest) -> float:
        """Return the α of a row; 0 where both of its branches are the same."""
        assert request.strategy is not None
        same = list(request.ids) == list(request.plain)
        return 0.0 if same else self.plan.alpha[request.strategy]

    def prompts(self, request: LanguageRequest) -> tuple[list[int], list[int]]:
        """Return both branches of a row with the strategy's text behind them."""
        assert request.strategy is not None
        text = list(self.encoder.strategy_ids[request.strategy])
        return [*request.ids, *text], [*request.plain, *text]

    def suppressed(self) -> list[int]:
        """Return the tokens that no response holds, its end apart."""
        return sorted(set(self.encoder.special) - {self.encoder.end})


def load_language_workload(
    samples: Sequence[Sample],
    source: str,
    *,
    model: str | None,
    architecture: ArchitectureSettings,
    decoding: DecodingSettings,
    natural: bool = False,
    seed: int = 42,
    dtype: str = "float32",
) -> LanguageWorkload:
    """Return a trained model, a pretrained base or random weights, with the prompts of samples.

    Args:
        samples: what is answered, those of a dialogue together.
        source: where they are from, in words.
        model: folder or hub id of a trained model; None takes ``architecture``.
        architecture: base as it is, not trained here, or sizes of random weights.
        decoding: sampling options, and α.
        natural: asks for responses that end by themselves, which is refused.
        seed: of random weights, of strategies where samples have none, and of noise.
        dtype: of the weights.

    Raises:
        PalError: model, tokenizer or settings cannot be used.
    """
    if natural:
        raise ConfigError(
            "bench.endings=natural sets the end token's bias, and decoder-only models have none; "
            "give bench.endings=fixed"
        )
    if model is not None:
        loaded, tokenizer = load_model_and_tokenizer(model, dtype)
        encoder = make_chat_encoder(tokenizer, loaded.config)
    else:
        loaded, encoder = _untrained(samples, architecture, seed)
        loaded.to(getattr(torch, dtype)).eval()
    loaded.to(process_state().device)
    options = decoding.model_copy(update={"min_new_tokens": decoding.max_new_tokens})
    if "repetition_penalty" not in decoding.model_fields_set:
        options.repetition_penalty = 1.0
    plan, draw = DecodingPlan.from_settings(options, loaded.config), random.Random(seed)
    keys = sample_keys(seed, [sample.id for sample in samples]).tolist()
    requests = []
    for key, sample in zip(keys, samples, strict=True):
        inputs = encoder.encode(sample)
        strategy = draw.randrange(len(STRATEGIES))
        strategy = strategy if sample.strategy is None else strategy_id(sample.strategy)
        requests.append(
            LanguageRequest(key, inputs["input_ids"], inputs["plain_input_ids"], strategy)
        )
    dialogues = len({sample.dialogue_id for sample in samples})
    attention = loaded.config._attn_implementation
    return LanguageWorkload(loaded, encoder, plan, requests, dialogues, source, attention)


def _untrained(
    samples: Sequence[Sample], chosen: ArchitectureSettings, seed: int
) -> tuple[Any, ChatEncoder]:
    """Return a base as it is, or random weights, with its text side."""
    mode = language_mode(chosen)
    gguf = None
    if chosen.from_scratch is None:
        gguf = find_gguf_file(chosen.base, chosen.gguf_file)
    if chosen.tokenizer or chosen.from_scratch is None:
        name = chosen.tokenizer or chosen.base
        tokenizer = load_tokenizer(name, None if chosen.tokenizer else gguf)
    else:
        texts = [turn["text"] for sample in samples for turn in sample.context]
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = train_chat_tokenizer(texts, chosen.vocab_size, Path(folder))
    torch.manual_seed(seed)
    model = build_language_model(
        base=chosen.base, gguf_file=gguf, from_scratch=chosen.from_scratch, tokenizer=tokenizer
    )
    encoder = chat_encoder_of(tokenizer, chosen, persona=mode == "prompt")
    put_entries(model, encoder, "response", mode, None)
    return model, encoder


# ----------------------------------------------------------------------------- sides


def run_ours(workload: LanguageWorkload, *, rows: int, tokens: int) -> list[list[int]]:
    """Answer with the engine.

    Args:
        workload: what is answered.
        rows: decoded at once, at most.
        tokens: positions of dialogues read in one call, at most.
    """
    workload.model.set_attn_implementation(workload.attention)
    engine = LanguageEngine(
        workload.model, workload.plan, strategies=workload.encoder.strategy_ids,
        end=workload.encoder.end, suppressed=workload.encoder.special, rows=rows, positions=tokens,
    )  # fmt: skip
    return [answer.tokens for answer in engine(workload.requests)]


class ResponseRules(LogitsProcessor):
    """What the engine does to contrasted logits, as the last processor of greedy search.

    Args:
        workload: whose options and tokens.
        keys: of the rows' noise, [B].
        begin: column of the first token of the responses.
    """

    def __init__(self, workload: LanguageWorkload, keys: Sequence[int], begin: int):
        options = workload.plan.options
        self.options, self.begin, self.end = options, begin, workload.encoder.end
        self.suppressed = workload.suppressed()
        self.sampler = Sampler.from_options(options) if options.do_sample else None
        self.keys = torch.tensor(list(keys), device=workload.model.device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores, [B, V], in which only the chosen token is possible."""
        said, scores = input_ids[:, self.begin :], scores.float()
        if self.options.repetition_penalty != 1.0 and said.shape[1]:
            old = scores.gather(1, said)
            penalty = self.options.repetition_penalty
            scores = scores.scatter(1, said, torch.where(old < 0, old * penalty, old / penalty))
        scores[:, self.suppressed] = -torch.inf
        if said.shape[1] < self.options.least:
            scores[:, self.end] = -torch.inf
        if self.sampler is None:
            chosen = scores.argmax(-1)
        else:  # the engine counts a start and a strategy before the first token
            chosen = self.sampler.draw(scores, self.keys, said.shape[1] + 2)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen[:, None], 0.0)


def run_guidance(workload: LanguageWorkload) -> list[list[int]]:
    """Answer with transformers' ``generate`` and its guidance, row by row."""
    model, options = workload.model, workload.plan.options
    model.set_attn_implementation(workload.attention)
    answers = []
    for request in workload.requests:
        ids, plain = (torch.tensor([one], device=model.device) for one in workload.prompts(request))
        # What is left open the model's own options would decide, so everything is said.
        greedy = GenerationConfig(
            do_sample=False, temperature=1.0, top_k=0, top_p=1.0, repetition_penalty=1.0,
            min_length=0, min_new_tokens=0, max_new_tokens=options.max_new_tokens, num_beams=1,
            eos_token_id=workload.encoder.end, pad_token_id=workload.encoder.end,
            guidance_scale=1 + workload.alpha(request),
        )  # fmt: skip
        found = model.generate(
            ids, attention_mask=torch.ones_like(ids), generation_config=greedy,
            negative_prompt_ids=plain, past_key_values=DynamicCache(config=model.config),
            logits_processor=LogitsProcessorList([
                ResponseRules(workload, [request.key], ids.shape[1])
            ]),
        )  # fmt: skip
        answers.append(found[0, ids.shape[1] :].tolist())
    return answers


def run_in_turn(workload: LanguageWorkload, *, rows: int) -> list[list[int]]:
    """Answer in batches of ``rows``, padded on the left, with a pass for each branch at every step.

    Rows whose α is zero are in the first pass alone.
    """
    model = workload.model
    model.set_attn_implementation(workload.attention)
    answers = []
    for start in range(0, len(workload.requests), rows):
        chosen = workload.requests[start : start + rows]
        alpha = torch.tensor([workload.alpha(one) for one in chosen], device=model.device)
        second = alpha.nonzero()[:, 0]
        prompts = [workload.prompts(one) for one in chosen]
        main = PaddedPass(model, [ids for ids, _ in prompts])
        plain = PaddedPass(model, [prompts[row][1] for row in second.tolist()])
        rules = ResponseRules(workload, [one.key for one in chosen], 0)
        said = torch.zeros(len(chosen), 0, dtype=torch.long, device=model.device)
        for step in range(workload.plan.options.max_new_tokens):
            new = said[:, -1:] if step else None
            scores = main(new).float()
            if len(second):
                without = plain(None if new is None else new[second]).float()
                contrasted = combine(scores[second], without, alpha[second])
                scores = scores.index_copy(0, second, contrasted)
            scores = rules(said, scores)  # type: ignore[arg-type]
            said = torch.cat([said, scores.argmax(-1, keepdim=True)], dim=1)
        answers += said.tolist()
    return answers


class PaddedPass:
    """One branch of a batch, with its cache.

    Args:
        model: of the library.
        prompts: token ids of the rows; none is no branch.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]]):
        self.model, self.cache = model, DynamicCache(config=model.config)
        longest = max(map(len, prompts), default=0)
        # Whatever stands on the left, the mask hides it.
        flipped = pad([list(one)[::-1] for one in prompts], 0) if prompts else torch.zeros(0, 0)
        self.ids = flipped.long().flip(1).to(model.device)
        lengths = torch.tensor([len(one) for one in prompts])[:, None]
        mask = torch.arange(longest)[None] >= longest - lengths if prompts else flipped
        self.mask = mask.long().to(model.device)

    def __call__(self, new: Tensor | None) -> Tensor:
        """Read the prompts, or one more token of each row, and return the next logits, [B, V]."""
        if new is not None:
            self.ids = new
            self.mask = torch.cat([self.mask, torch.ones_like(new)], dim=1)
        positions = (self.mask.cumsum(1) - 1).clamp(min=0)[:, -self.ids.shape[1] :]
        logits: Tensor = self.model(
            input_ids=self.ids, attention_mask=self.mask, position_ids=positions,
            past_key_values=self.cache, use_cache=True, logits_to_keep=1,
        ).logits  # fmt: skip
        return logits[:, -1]


# ----------------------------------------------------------------------------- measurement


@contextmanager
def watch_positions(model: Any) -> Iterator[dict[str, Any]]:
    """Count the positions that the model computes, padding included."""
    seen: dict[str, Any] = {"positions": 0}

    def count(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        seen["positions"] += ids.numel()

    handle = model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def measure_language(
    workload: LanguageWorkload, *, sides: Sequence[str], rows: int, tokens: int, rounds: int
) -> tuple[str, dict[str, Any]]:
    """Measure generation and return the Markdown table and the JSON document.

    Args:
        workload: model and prompts of all sides.
        sides: names in :data:`LANGUAGE_SIDES`.
        rows: that ours and the two passes hold at once, at most.
        tokens: positions that ours reads in one call, at most.
        rounds: number of rounds of all sides in turn.
    """
    calls: dict[str, Callable[[LanguageWorkload], list[list[int]]]] = {
        "ours": partial(run_ours, rows=rows, tokens=tokens),
        "guidance": run_guidance,
        "two_passes": partial(run_in_turn, rows=rows),
    }
    names = {
        "ours": f"ours, {rows} rows at most",
        "guidance": "transformers' guidance, row by row",
        "two_passes": f"two passes, batch of {rows}",
    }
    model = workload.model
    dtype = str(model.dtype).removeprefix("torch.")
    with torch.inference_mode():
        ceilings = {dtype: measure_ceiling(model.device, model.dtype)}
        taken = run_rounds(
            workload, {side: calls[side] for side in sides}, rounds, watch=watch_positions
        )
    first, flops = taken[sides[0]].answers, needed_by_language(workload)
    measured = [
        Side(
            names[name], statistics.median(run.seconds for run in side.runs), len(side.answers),
            sum(map(len, side.answers)), None, flops, max(run.memory for run in side.runs), dtype,
            rounds=tuple(run.seconds for run in side.runs), positions=side.seen["positions"],
            same=same_share(side.answers, first),
        )
        for name, side in taken.items()
    ]  # fmt: skip
    lines = [sides_table(measured, "responses", ceilings), "", describe_language(workload)]
    return "\n".join(lines), sides_document("generate", measured, ceilings)


def same_share(answers: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> float:
    """Return the share of tokens that are the same at the same place.

    Rounding may turn one choice, after which a response goes its own way.
    """
    pairs = [
        one == other
        for row, theirs in zip(answers, others, strict=True)
        for one, other in zip(row, theirs, strict=True)
    ]
    return sum(pairs) / len(pairs)


def needed_by_language(workload: LanguageWorkload) -> float:
    """Return the minimum floating-point operations of the matrix products of the responses.

    Every distinct beginning of a dialogue is read once, every token in each branch, and each
    token's projection to the vocabulary is one.
    """
    model, config = workload.model, workload.model.config
    head = model.get_output_embeddings()
    weights = sum(
        module.weight.numel() for module in model.modules()
        if type(module).__name__ in ("Linear", "Conv1D") and module is not head
    )  # fmt: skip
    width = config.hidden_size
    heads = config.num_attention_heads * getattr(
        config, "head_dim", width // config.num_attention_heads
    )
    attended = 4 * config.num_hidden_layers * heads  # of a position that is looked at
    drawn, total = workload.plan.options.max_new_tokens, 0.0
    branches: list[list[int]] = []
    for request in workload.requests:
        texts = workload.prompts(request)
        for ids, begin in zip(texts, (request.ids, request.plain), strict=True):
            if ids is texts[1] and not workload.alpha(request):
                continue
            branches.append(list(begin))
            steps = len(ids) - len(begin) + drawn - 1
            total += steps * (2 * weights + attended * (len(begin) + steps / 2))
        total += 2 * drawn * width * config.vocab_size
    for group in find_groups(branches):
        length = len(branches[group[0]])
        total += length * (2 * weights + attended * length / 2)
    return total


def describe_language(workload: LanguageWorkload) -> str:
    """Return a description of the workload and the machine."""
    requests, model = workload.requests, workload.model
    lengths = [len(request.ids) for request in requests]
    noted = sum(list(request.ids) != list(request.plain) for request in requests)
    contrasted = sum(workload.alpha(request) != 0 for request in requests)
    options = workload.plan.options
    way = "sampled with the same noise" if options.do_sample else "greedy"
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    dtype, facts = str(model.dtype).removeprefix("torch."), machine()
    return (
        f"{len(requests)} contexts of {workload.dialogues} dialogues ({workload.source}), prompts "
        f"of {statistics.mean(lengths):.0f} tokens on average, {noted} with notes, {contrasted} "
        f"with a contrast; responses of {options.max_new_tokens} tokens, {way}, repetition penalty "
        f"{options.repetition_penalty:g}; {parameters:.1f} million parameters, {dtype}, "
        f"{model.device}, {facts['cpu']}, {facts['cores']} cores, {torch.get_num_threads()} "
        f"threads, load {os.getloadavg()[0]:.1f}. Ours scores all strategies besides, which the "
        "others are given."
    )
