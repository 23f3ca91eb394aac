"""PESConv: the seeker's persona known at every turn (PAL paper, section 3.2 and Table 1).

The extractor reads the seeker's turns so far; what it newly infers is added to what is known.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pal.core.errors import ConfigError
from pal.core.files import output_lock
from pal.core.job import claimed, finish, is_finished, record_path, run_batches
from pal.core.runs import identity_of, write_run
from pal.core.schema import Settings
from pal.data.batches import lengths_mask, pad, plan_batches
from pal.data.esconv import write_pesconv, write_released
from pal.data.splits import load_split
from pal.modeling.checkpoint import model_fingerprint
from pal.modeling.packed import inference_twin
from pal.persona.extractor import ExtractorEncoder, load_extractor

logger = logging.getLogger(__name__)

# What a model trained on PersonaChat says of anyone (filtered by the authors too).
LEAKAGE = ("my favorite color is", "my favorite band")

# The form of a language model's answer.
SENTENCES = {
    "type": "object",
    "properties": {"sentences": {"type": "array", "items": {"type": "string"}}},
    "required": ["sentences"],
    "additionalProperties": False,
}


def clean_sentences(sentences: Iterable[str]) -> list[str]:
    """Drop empty and duplicate sentences, odd lengths (under 2, over 25 words) and leakage."""
    kept: dict[str, str] = {}
    for sentence in sentences:
        sentence = " ".join(sentence.split())
        key = sentence.lower()
        if 2 <= len(sentence.split()) <= 25 and not any(leak in key for leak in LEAKAGE):
            kept.setdefault(key, sentence)
    return list(kept.values())


def annotated_prefixes(dialog: Sequence[dict[str, Any]], start: str) -> dict[int, tuple[str, ...]]:
    """Return, for every seeker turn to annotate, the seeker's utterances up to it.

    Args:
        dialog: the turns of a dialogue.
        start: ``third_utterance`` (of the conversation; the paper) or ``third_seeker_turn``
            (the released data).
    """
    prefixes: dict[int, tuple[str, ...]] = {}
    said: tuple[str, ...] = ()
    for index, turn in enumerate(dialog):
        if turn["speaker"] != "seeker":
            continue
        said = (*said, turn["text"])
        if index >= 2 if start == "third_utterance" else len(said) >= 3:
            prefixes[index] = said
    return prefixes


def add_personas(
    dialogue: dict[str, Any], inferred: dict[tuple[str, ...], list[str]], start: str
) -> dict[str, Any]:
    """Return the dialogue with the persona known at every turn; new sentences join the known."""
    prefixes = annotated_prefixes(dialogue["dialog"], start)
    known: list[str] = []
    dialog = []
    for index, turn in enumerate(dialogue["dialog"]):
        if index in prefixes:
            known = clean_sentences([*known, *inferred[prefixes[index]]])
        dialog.append({**turn, "persona": known})
    return {**dialogue, "dialog": dialog, "persona": known}


def beam_cache(config: Any) -> Any:
    """Return a cache for beam search that leaves the encoder's keys and values where they are.

    Beams change places within their own row only, and those of a row read the same encoder states,
    so the library's copy of these, which are most of the cache, changes nothing at each step.
    """
    from transformers import DynamicCache, EncoderDecoderCache

    class BeamCache(EncoderDecoderCache):
        def reorder_cache(self, beam_idx: Any) -> None:
            self.self_attention_cache.reorder_cache(beam_idx)

    return BeamCache(DynamicCache(config=config), DynamicCache(config=config))


def batch_budget(settings: Settings) -> int:
    """Return the encoder positions of a batch: each is held once for every beam."""
    return max(settings.batch_tokens // settings.annotate.num_beams, 1)


class BeamExtractor:
    """Runs the extractor on batches of token ids."""

    def __init__(self, model: Any, encoder: ExtractorEncoder, *, num_beams: int, max_new: int):
        from transformers import GenerationConfig

        self.model, self.encoder = inference_twin(model), encoder
        config = model.config
        self.options = GenerationConfig(
            num_beams=num_beams,
            max_new_tokens=max_new,
            do_sample=False,
            early_stopping=num_beams > 1,
            decoder_start_token_id=config.decoder_start_token_id,
            pad_token_id=config.pad_token_id,
            eos_token_id=config.eos_token_id,
            bos_token_id=config.bos_token_id,
        )

    def __call__(self, sources: Sequence[list[int]]) -> list[list[str]]:
        """Return the sentences inferred from each source."""
        import torch

        device = self.model.device
        with torch.inference_mode():
            generated = self.model.generate(
                input_ids=pad(sources, self.model.config.pad_token_id).to(device),
                attention_mask=lengths_mask(sources).to(device),
                generation_config=self.options,
                past_key_values=beam_cache(self.model.config),
            )
        return [self.encoder.decode(row) for row in generated[:, 1:].tolist()]


def annotate(settings: Settings) -> Path:
    """Infer personas for every dialogue of ``input`` and write PESConv to ``output``.

    Prefixes that occur in several dialogues are computed once. The trained extractor computes them
    in batches planned from all prefixes, sorted by length; a language model
    (``annotate.extractor=llm``) is asked for each. Interrupted, the same command goes on.

    Raises:
        PalError: inputs, checkpoint, endpoint or output cannot be used.
    """
    source, target = settings.require("input", "output")
    dialogues = load_split(
        source, settings.split, mode=settings.data.split, seed=settings.data.split_seed,
        requests=True,
    )  # fmt: skip
    if settings.limit is not None:
        dialogues = dialogues.select(range(min(settings.limit, len(dialogues))))
    rows = list(dialogues)
    start = settings.annotate.start
    prefixes = dict.fromkeys(
        prefix for row in rows for prefix in annotated_prefixes(row["dialog"], start).values()
    )
    if settings.annotate.extractor == "llm":
        _annotate_by_llm(settings, Path(target), rows, list(prefixes))
    else:
        _annotate_by_bart(settings, Path(target), rows, list(prefixes))
    return Path(target)


def _annotate_by_bart(
    settings: Settings, output: Path, rows: list[dict[str, Any]], prefixes: list[tuple[str, ...]]
) -> None:
    (checkpoint,) = settings.require("model")
    model, tokenizer = load_extractor(checkpoint, settings.dtype)
    encoder = ExtractorEncoder.from_config(tokenizer, model.config)
    encoded = {prefix: tuple(encoder.encode_source(prefix)) for prefix in prefixes}
    sources = list(dict.fromkeys(encoded.values()))

    identity = identity_of(
        settings, "annotate", "dtype", "batch_tokens", "batch_rows",
        dialogues=rows, sources=sources, weights=model_fingerprint(model),
    )  # fmt: skip
    if is_finished(output, identity, overwrite=settings.overwrite):
        logger.info("%s is finished already; overwrite=true would make it anew", output)
        return
    with claimed(output) as state:
        extractor = BeamExtractor(
            model.to(state.device),
            encoder,
            num_beams=settings.annotate.num_beams,
            max_new=settings.annotate.max_new_tokens,
        )
        positions = getattr(model.config, "max_position_embeddings", 1024)
        if settings.annotate.max_new_tokens >= positions:
            raise ConfigError(
                f"annotate.max_new_tokens={settings.annotate.max_new_tokens} does not fit the "
                f"model's {positions} positions"
            )
        results = run_batches(
            plan_batches(
                [len(source) for source in sources],
                max_tokens=batch_budget(settings),
                max_rows=settings.batch_rows,
            ),
            lambda batch: extractor([list(sources[index]) for index in batch]),
            output=output, identity=identity, state=state, description="annotate",
            overwrite=settings.overwrite,
        )  # fmt: skip
        if results is not None:
            inferred = {source: results[index] for index, source in enumerate(sources)}
            by_prefix = {prefix: inferred[source] for prefix, source in encoded.items()}
            _write(
                settings, output, identity, rows, by_prefix,
                prefixes=len(prefixes), distinct_sources=len(sources),
            )  # fmt: skip
            finish(output, identity)


def _annotate_by_llm(
    settings: Settings, output: Path, rows: list[dict[str, Any]], prefixes: list[tuple[str, ...]]
) -> None:
    """Ask a language model; a prefix without answer adds nothing and is listed in the record."""
    from pal.llm import connect
    from pal.llm.base import Request
    from pal.llm.prompts import load_prompt

    prompt, llm = (
        load_prompt(Path(__file__).parents[1] / "persona" / "prompts", "persona"),
        settings.llm,
    )
    identity = identity_of(
        settings, "annotate", dialogues=rows, prompt=[prompt.version, prompt.system, prompt.user],
        model=[llm.backend, llm.base_url, llm.model, llm.body],
    )  # fmt: skip
    if is_finished(output, identity, overwrite=settings.overwrite):
        logger.info("%s is finished already; overwrite=true would make it anew", output)
        return
    with output_lock(output):
        requests = [
            Request(
                id=str(index), schema=SENTENCES, schema_name="persona",
                messages=prompt.fill(utterances=prefix),
            )
            for index, prefix in enumerate(prefixes)
        ]  # fmt: skip
        model = connect(settings)
        outcomes = model.ask(requests, description="annotate")
        answers = dict(zip(prefixes, outcomes, strict=True))
        unanswered = [
            {"dialogue": row["id"], "turn": turn, "reason": answers[prefix].reason}
            for row in rows
            for turn, prefix in annotated_prefixes(row["dialog"], settings.annotate.start).items()
            if answers[prefix].reason
        ]
        if unanswered:
            logger.warning(
                "%d turns have no answer and add nothing to the persona; %s lists them",
                len(unanswered), record_path(output),
            )  # fmt: skip
        inferred = {
            prefix: [] if outcome.reason else outcome.value["sentences"]
            for prefix, outcome in answers.items()
        }
        _write(
            settings, output, identity, rows, inferred,
            prefixes=len(prefixes), prompts={prompt.name: prompt.version}, unanswered=unanswered,
            llm=model.describe(),
        )  # fmt: skip


def _write(
    settings: Settings,
    output: Path,
    identity: str,
    rows: list[dict[str, Any]],
    inferred: dict[tuple[str, ...], list[str]],
    **facts: Any,
) -> None:
    output.unlink(missing_ok=True)  # the record first: a kill between the two is harmless
    write_run(
        record_path(output), settings, "annotate", identity, dialogues=len(rows), **facts
    )  # fmt: skip
    write = write_pesconv if settings.annotate.layout == "pesconv" else write_released
    write(output, [add_personas(row, inferred, settings.annotate.start) for row in rows])
    logger.info("personas of %d dialogues written to %s", len(rows), output)
