"""Speed of persona annotation, beside what one would use instead: ``pal bench annotate``.

Same weights, same dialogues, same beams, in one run:

- ours: as ``pal annotate`` does it, prefixes once each, sorted, batches by a budget of tokens;
- generate: transformers' ``generate`` on the prefixes in file order, each tokenised as a whole,
  in batches of a fixed number of rows.
"""

import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from pal.speed.machine import Ceiling, machine, measure, measure_ceiling
from pal.speed.sides import Side, check_output, decoder_flops, document, encoder_flops, render
from pal.data.batches import lengths_mask, pad, plan_batches
from pal.data.splits import load_split
from pal.data.tokenizer import load_tokenizer, train_tokenizer
from pal.core.errors import ConfigError, DataError
from pal.core.job import process_state
from pal.commands.annotate import BeamExtractor, annotated_prefixes, batch_budget
from pal.persona.extractor import ExtractorEncoder, build_extractor, load_extractor
from pal.core.files import fingerprint, write_json
from pal.core.runs import describe_run
from pal.core.schema import Settings, bundled

DIALOGUES = 16
ROWS = 16  # of a batch of the other side

Answers = list[list[str]]


def bench_annotate(settings: Settings) -> str:
    """Measure annotation; returns the Markdown table.

    ``limit`` dialogues of ``input`` (16 of the bundled corpus by default), drawn with ``seed``, by
    ``model`` or by random weights of ``architecture.from_scratch``.

    Raises:
        PalError: model, input or output cannot be used.
    """
    output = check_output(settings)
    prefixes, source = load_prefixes(settings)
    model, encoder = load_work(settings, prefixes)
    state = process_state()
    model.to(state.device)
    extractor = BeamExtractor(
        model, encoder, num_beams=settings.annotate.num_beams,
        max_new=settings.annotate.max_new_tokens,
    )  # fmt: skip
    lengths = [len(encoder.encode_source(prefix)) for prefix in prefixes]
    in_order = [list(range(len(prefixes)))[at : at + ROWS] for at in range(0, len(prefixes), ROWS)]
    ceilings: dict[str, Ceiling] = {
        settings.dtype: measure_ceiling(state.device, getattr(torch, settings.dtype))
    }

    def fresh() -> ExtractorEncoder:  # it remembers what it has tokenised
        return ExtractorEncoder.from_config(encoder.tokenizer, model.config)

    (ours, plan), first = measure(lambda: run_ours(settings, extractor, prefixes, fresh()),
                                  state.device)  # fmt: skip
    theirs, second = measure(lambda: run_generate(model, extractor, prefixes, in_order, fresh),
                             state.device)  # fmt: skip
    targets = [
        len(encoder.encode_target(sentences)) + 1 for sentences in ours
    ]  # with the end token, as far as texts become the same ids again
    beams = settings.annotate.num_beams
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
                flops, taken.memory, settings.dtype,
                traffic=sum(weights * max(targets[i] for i in b) for b in batches),
            )
        )  # fmt: skip
    same = sum(one == other for one, other in zip(ours, theirs, strict=True))
    lines = [
        render(sides, "prefixes", ceilings),
        f"{len(prefixes)} prefixes of {sum(lengths) / len(lengths):.0f} tokens on average, "
        f"{source}; {beams} beams, "
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} million parameters, "
        f"{settings.dtype}, {state.device}, {machine()['cpu']}, {machine()['cores']} cores, "
        f"{torch.get_num_threads()} threads. The same sentences for {same} of {len(prefixes)} "
        "prefixes. Tokens are those read and those of the beam that won.",
    ]
    if output:
        run = describe_run(settings, "bench annotate", fingerprint(lengths), **machine())
        write_json(output, {**document("annotate", sides, ceilings, run), "same": same})
    return "\n".join(lines)


def load_prefixes(settings: Settings) -> tuple[list[tuple[str, ...]], str]:
    """Return the prefixes to annotate, in the dialogues' order, and where they are from.

    Raises:
        DataError: there are none.
    """
    source = settings.input or str(bundled("sample", "esconv", "train.jsonl"))
    rows = list(load_split(source, settings.split))
    random.Random(settings.seed).shuffle(rows)
    found = [
        prefix
        for row in rows[: settings.limit or DIALOGUES]
        for prefix in annotated_prefixes(row["dialog"], settings.annotate.start).values()
    ]
    if not found:
        raise DataError(f"input={source}: nothing to annotate in it")
    return found, f"from {Path(source).name}"


def load_work(
    settings: Settings, prefixes: Sequence[tuple[str, ...]]
) -> tuple[Any, ExtractorEncoder]:
    """Return the extractor and its encoder.

    Raises:
        PalError: the model cannot be used, or there is none.
    """
    chosen = settings.architecture
    if settings.model:
        model, tokenizer = load_extractor(settings.model, settings.dtype)
    elif chosen.from_scratch is None:
        raise ConfigError(
            "bench annotate: give model=, or sizes as architecture.from_scratch (--config small "
            "task=persona_extractor has them)"
        )
    else:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = (
                load_tokenizer(chosen.tokenizer)
                if chosen.tokenizer
                else train_tokenizer((t for p in prefixes for t in p), chosen.vocab_size, folder)
            )
            torch.manual_seed(settings.seed)
            model = build_extractor(
                base="", from_scratch=chosen.from_scratch, tokenizer=tokenizer
            ).to(getattr(torch, settings.dtype))
            model.config.max_source_tokens = chosen.max_context_tokens
            model.config.max_target_tokens = chosen.max_target_tokens
    return model.eval(), ExtractorEncoder.from_config(tokenizer, model.config)


def run_ours(
    settings: Settings, extractor: BeamExtractor, prefixes: Sequence[Any], encoder: Any
) -> tuple[Answers, list[list[int]]]:
    """Annotate as ``pal annotate`` does; returns sentences and, by prefix, the batches."""
    from tqdm.auto import tqdm

    places: dict[tuple[int, ...], list[int]] = {}
    for place, prefix in enumerate(prefixes):
        places.setdefault(tuple(encoder.encode_source(prefix)), []).append(place)
    sources = list(places)
    answers: Answers = [[] for _ in prefixes]
    plan = plan_batches(
        list(map(len, sources)), max_tokens=batch_budget(settings), max_rows=settings.batch_rows
    )
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
    """Annotate with the model's ``generate`` as it comes, with the extractor's options."""
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
