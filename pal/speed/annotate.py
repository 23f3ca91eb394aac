"""Speed of persona annotation, compared with the alternative.

Both sides use the same weights, dialogues and beams, in one run:

- ours: as in ``pal annotate``: each prefix once, sorted by length, batches by a token budget;
- generate: transformers' ``generate`` on the prefixes in file order, each tokenised as a whole,
  in batches of a fixed number of rows.
"""

import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch

from pal.core.job import process_state
from pal.data.batches import lengths_mask, pad, plan_batches
from pal.data.tokenizer import load_tokenizer, train_tokenizer
from pal.modeling.settings import ArchitectureSettings
from pal.persona.extractor import (
    BeamExtractor,
    ExtractorEncoder,
    build_extractor,
    load_extractor,
)
from pal.persona.settings import ExtractionSettings
from pal.speed.machine import Ceiling, machine, measure_call, measure_ceiling
from pal.speed.sides import Side, decoder_flops, encoder_flops, sides_document, sides_table

ROWS = 16  # rows of a batch of the other side

Answers = list[list[str]]


def measure_annotation(
    model: Any,
    encoder: ExtractorEncoder,
    prefixes: Sequence[tuple[str, ...]],
    source: str,
    *,
    how: ExtractionSettings,
    batch_tokens: int,
    batch_rows: int,
) -> tuple[str, dict[str, Any]]:
    """Measure annotation and return the Markdown table and the JSON document.

    Args:
        model: the extractor.
        encoder: encoder of the extractor's texts.
        prefixes: utterances of a seeker up to a turn, in the order of the dialogues.
        source: source of the prefixes, in words.
        how: settings of beams and maximum output length.
        batch_tokens: maximum number of encoder positions in a batch, beams included.
        batch_rows: maximum number of rows in a batch.
    """
    state, dtype = process_state(), str(model.dtype).removeprefix("torch.")
    model.to(state.device)
    extractor = BeamExtractor(
        model, encoder, num_beams=how.num_beams,
        max_new=how.max_new_tokens,
    )  # fmt: skip
    lengths = [len(encoder.encode_source(prefix)) for prefix in prefixes]
    in_order = [list(range(len(prefixes)))[at : at + ROWS] for at in range(0, len(prefixes), ROWS)]
    ceilings: dict[str, Ceiling] = {dtype: measure_ceiling(state.device, model.dtype)}

    def fresh() -> ExtractorEncoder:  # it remembers what it has tokenised
        return ExtractorEncoder.from_config(encoder.tokenizer, model.config)

    (ours, plan), first = measure_call(
        lambda: annotate_ours(
            extractor, prefixes, fresh(), tokens=batch_tokens // how.num_beams, rows=batch_rows
        ),
        state.device,
    )  # fmt: skip
    theirs, second = measure_call(lambda: run_generate(model, extractor, prefixes, in_order, fresh),
                             state.device)  # fmt: skip
    targets = [
        len(encoder.encode_target(sentences)) + 1 for sentences in ours
    ]  # with the end token, as far as texts become the same ids again
    beams = how.num_beams
    flops = sum(
        encoder_flops(model.config, length) + beams * decoder_flops(model.config, 0, target)
        + decoder_flops(model.config, length, 0)
        for length, target in zip(lengths, targets, strict=True)
    )  # fmt: skip
    tokens = sum(lengths) + sum(targets)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    sides = []
    for name, batches, taken in (
        ("ours", plan, first),
        (f"generate, file order, batch of {ROWS}", in_order, second),
    ):
        sides.append(
            Side(
                name, taken.seconds, len(prefixes), tokens, 1 - tokens / sum(
                    len(b) * (max(lengths[i] for i in b) + max(targets[i] for i in b))
                    for b in batches
                ),
                flops, taken.memory, dtype,
                traffic=sum(weights * max(targets[i] for i in b) for b in batches),
            )
        )  # fmt: skip
    same = sum(one == other for one, other in zip(ours, theirs, strict=True))
    lines = [
        sides_table(sides, "prefixes", ceilings),
        f"{len(prefixes)} prefixes of {sum(lengths) / len(lengths):.0f} tokens on average, "
        f"{source}; {beams} beams, "
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} million parameters, "
        f"{dtype}, {state.device}, {machine()['cpu']}, {machine()['cores']} cores, "
        f"{torch.get_num_threads()} threads. The same sentences for {same} of {len(prefixes)} "
        "prefixes. Tokens are those read and those of the beam that won.",
    ]
    return "\n".join(lines), {**sides_document("annotate", sides, ceilings), "same": same}


def build_or_load_extractor(
    source: str | None,
    architecture: ArchitectureSettings,
    prefixes: Sequence[tuple[str, ...]],
    *,
    seed: int = 42,
    dtype: str = "float32",
) -> tuple[Any, ExtractorEncoder]:
    """Return the extractor and its encoder.

    Args:
        source: folder or hub id; None makes random weights of ``architecture.from_scratch``.
        architecture: sizes, and the tokenizer, which is trained on the spot unless given.
        prefixes: texts to train it on.
        seed: seed of random weights.
        dtype: number format of the weights.

    Raises:
        PalError: the model cannot be used.
    """
    chosen = architecture
    if source:
        model, tokenizer = load_extractor(source, dtype)
    else:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = (
                load_tokenizer(chosen.tokenizer)
                if chosen.tokenizer
                else train_tokenizer((t for p in prefixes for t in p), chosen.vocab_size, folder)
            )
            torch.manual_seed(seed)
            model = build_extractor(
                base="", from_scratch=chosen.from_scratch, tokenizer=tokenizer
            ).to(getattr(torch, dtype))
            model.config.max_source_tokens = chosen.max_context_tokens
            model.config.max_target_tokens = chosen.max_target_tokens
    return model.eval(), ExtractorEncoder.from_config(tokenizer, model.config)


def annotate_ours(
    extractor: BeamExtractor, prefixes: Sequence[Any], encoder: Any, *, tokens: int, rows: int
) -> tuple[Answers, list[list[int]]]:
    """Annotate as ``pal annotate`` does; return the sentences and the batches of prefixes."""
    from tqdm.auto import tqdm

    places: dict[tuple[int, ...], list[int]] = {}
    for place, prefix in enumerate(prefixes):
        places.setdefault(tuple(encoder.encode_source(prefix)), []).append(place)
    sources = list(places)
    answers: Answers = [[] for _ in prefixes]
    plan = plan_batches(list(map(len, sources)), max_tokens=max(tokens, 1), max_rows=rows)
    for batch in tqdm(plan, desc="ours"):
        found = extractor([list(sources[index]) for index in batch])
        for index, sentences in zip(batch, found, strict=True):
            for place in places[sources[index]]:
                answers[place] = sentences
    return answers, [[places[sources[index]][0] for index in batch] for batch in plan]


def run_generate(
    model: Any,
    extractor: BeamExtractor,
    prefixes: Sequence[Any],
    batches: list[list[int]],
    fresh_encoder: Callable[[], ExtractorEncoder],
) -> Answers:
    """Annotate with the unmodified ``generate`` of the model, with the extractor's options."""
    from tqdm.auto import tqdm

    answers = []
    for batch in tqdm(batches, desc="generate"):
        # an encoder for each, as one remembers what it has tokenised
        sources = [fresh_encoder().encode_source(prefixes[index]) for index in batch]
        with torch.inference_mode():
            rows = model.generate(
                input_ids=pad(sources, model.config.pad_token_id).to(model.device),
                attention_mask=lengths_mask(sources).to(model.device),
                generation_config=extractor.options,
            )
        answers += [extractor.encoder.decode(row) for row in rows[:, 1:].tolist()]
    return answers
