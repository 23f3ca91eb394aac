"""What training begins with: a model, its tokenizer, and the samples of a task as token ids.

It is long because each task and kind of model prepares the same parts in its own way.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from pyarrow import ArrowInvalid

from pal import __version__
from pal.core.errors import ConfigError, DataError, first_line
from pal.core.files import Streamed, fingerprint, make_private
from pal.core.job import process_state
from pal.data.batches import Collator
from pal.data.chat import ChatEncoder
from pal.data.dialogues import Dialogues
from pal.data.personachat import load_personachat
from pal.data.protocols import evaluation_rule, training_rule
from pal.data.samples import CorpusSamples, Sample
from pal.data.settings import DataSettings, ReadingSettings
from pal.data.sources import has_splits
from pal.data.spilled import Repeated, column_of
from pal.data.splits import CorpusSplits, load_split
from pal.data.tokenizer import (
    load_tokenizer,
    tokenizer_fingerprint,
    train_chat_tokenizer,
    train_tokenizer,
)
from pal.modeling.checkpoint import (
    REACHABLE,
    build_response_model,
    find_backbone,
    read_model_config,
)
from pal.modeling.language import (
    build_language_model,
    find_gguf_file,
    is_adapted,
    is_decoder_only,
    pad_id,
)
from pal.modeling.settings import ArchitectureSettings
from pal.persona.extractor import ExtractorEncoder, build_extractor
from pal.persona.language_extractor import encode_conversation
from pal.training.folder import SPOT_TOKENIZER, TOKENS
from pal.training.language import (
    PackingCollator,
    chat_encoder_of,
    dialogue_windows,
    keeps_apart,
    language_mode,
    put_entries,
)
from pal.training.losses import token_loss

logger = logging.getLogger(__name__)

Rows = Iterable[Mapping[str, Any]]


@dataclass
class Ingredients:
    """What a task brings to training.

    Attributes:
        model: the model to train.
        tokenizer: saved with every checkpoint.
        train: encoded training samples with ``labels`` and ``length``.
        validation: encoded validation samples.
        collator: makes batches of them.
        strategy_ids: the eight strategy tokens, for the accuracy of the first target token.
        language: whether the model is decoder-only.
        loss: of a step, from what the model returned; None where the model computes it itself.
    """

    model: Any
    tokenizer: Any
    train: Dataset
    validation: Dataset
    collator: Collator | PackingCollator
    strategy_ids: list[int] | None = None
    loss: Callable[..., Any] | None = None
    language: bool = False


def prepare(
    task: str,
    data: DataSettings,
    architecture: ArchitectureSettings,
    folder: Path,
    *,
    seed: int = 0,
) -> Ingredients:
    """Read a task's corpora, build or load tokenizer and model, encode the samples.

    Args:
        task: ``response`` or ``persona_extractor``.
        data: where the corpora are.
        architecture: what training starts from.
        folder: of the run; what is prepared lies there until it is finished.
        seed: of the run.

    Raises:
        PalError: corpora, tokenizer or base cannot be used.
    """
    # Read before the base, which can be a download of gigabytes.
    corpora = response_dialogues(data) if task == "response" else persona_conversations(data)
    language = check_base(task, architecture)
    if data.knowledge is not None and (language or task != "response"):
        raise ConfigError(
            "only MISC reads data.knowledge; leave it out, or give architecture.backbone=misc"
        )
    if language:
        parts = language_ingredients(task, corpora, data, architecture, folder, seed)
    elif task == "response":
        parts = response_ingredients(corpora, data, architecture, folder)
    else:
        parts = extractor_ingredients(corpora, architecture, folder)
    # Whatever number format a base was stored in: the weights that training adds to, and their
    # sums, are float32. Small steps vanish in the rounding of anything less.
    # A base that adapters are trained on stays as it is; the library makes those float32.
    if not is_adapted(parts.model):
        parts.model.float()
    return parts


def check_base(task: str, architecture: ArchitectureSettings) -> bool:
    """Return whether training starts from a decoder-only model, whose settings can be its own.

    Raises:
        ConfigError: a setting is for models of the other kind.
        PalError: the base cannot be read.
    """
    language = is_language_base(task, architecture)
    if architecture.misc_mode is not None and (language or task != "response"):
        raise ConfigError(
            "architecture.misc_mode is for MISC; leave it out, or give architecture.backbone=misc"
        )
    if language:
        if task == "response":
            language_mode(architecture)
        if architecture.lora.rank is not None and architecture.frozen_layers:
            raise ConfigError(
                "architecture.frozen_layers does nothing with architecture.lora, which trains no "
                "weights of the model's own; leave one of them out"
            )
        if architecture.from_scratch is not None and architecture.frozen_layers:
            raise ConfigError(
                "architecture.frozen_layers keeps pretrained weights as they are, and those of "
                "architecture.from_scratch are random; leave one of them out"
            )
        return True
    for given, value in (
        ("lora.rank", architecture.lora.rank),
        ("gguf_file", architecture.gguf_file),
        ("frozen_layers", architecture.frozen_layers or None),
    ):
        if value is not None:
            raise ConfigError(
                f"architecture.{given} is for decoder-only models, and this one has an encoder; "
                "leave it out"
            )
    return False


def is_language_base(task: str, architecture: ArchitectureSettings) -> bool:
    """Return whether what training starts from is a decoder-only model.

    Raises:
        PalError: the base cannot be read.
    """
    chosen = architecture
    if task == "response":
        return bool(
            find_backbone(
                chosen.base, chosen.from_scratch, chosen.backbone, chosen.gguf_file
            ).decoder_only
        )
    if chosen.from_scratch is not None:
        return is_decoder_only(str(chosen.from_scratch.get("model_type", "bart")))
    if find_gguf_file(chosen.base, chosen.gguf_file):
        return True
    where = f"architecture.base={chosen.base}"
    return is_decoder_only(
        read_model_config(chosen.base, where, own=False, remedy=REACHABLE).model_type
    )


def language_ingredients(
    task: str, corpora: Any, data: DataSettings, architecture: ArchitectureSettings, folder: Path,
    seed: int,
) -> Ingredients:  # fmt: skip
    """Load or build a decoder-only model for the corpora of a task, and encode its sequences."""
    chosen = architecture
    train: Rows
    validation: Rows
    train, validation = corpora
    if task == "response":
        mode = language_mode(chosen)
        texts = (turn["text"] for row in train for turn in row["dialog"])
        if mode != "none" and not any(
            turn.get("persona") for row in train for turn in row["dialog"]
        ):
            _warn_of_no_persona(data.train, mode)
    else:
        mode = "none"
        texts = (t for row in train for t in (*row["utterances"], *row["persona"]))
    gguf = (
        None if chosen.from_scratch is not None else find_gguf_file(chosen.base, chosen.gguf_file)
    )
    tokenizer = _language_tokenizer(chosen, folder, gguf, texts)
    encoder = chat_encoder_of(tokenizer, chosen, persona=mode == "prompt")
    model = build_language_model(
        base=chosen.base, gguf_file=gguf, from_scratch=chosen.from_scratch, tokenizer=tokenizer,
        lora=chosen.lora, frozen_layers=chosen.frozen_layers,
    )  # fmt: skip
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and chosen.max_context_tokens + chosen.max_target_tokens > positions:
        raise ConfigError(
            f"architecture.max_context_tokens={chosen.max_context_tokens} and max_target_tokens="
            f"{chosen.max_target_tokens} do not fit the model's {positions} positions together"
        )
    put_entries(model, encoder, task, mode, gguf)
    if task == "response":
        sequences, held_out = (
            Repeated(partial(_windows_of, rows, encoder, seed, dropout, most))
            for rows, dropout, most in (
                (train, chosen.persona_dropout, data.max_train_samples),
                (validation, 0.0, data.max_validation_samples),
            )
        )
    else:
        sequences, held_out = (
            Repeated(partial(_conversations_of, rows, encoder)) for rows in (train, validation)
        )
    for name, found in (("train", sequences), ("validation", held_out)):
        if not found:
            raise DataError(f"data.{name}={getattr(data, name) or data.train}: no samples in it")
    key = ["decoder-only", task, mode, dict(vars(encoder.form)), chosen.max_context_tokens]
    return Ingredients(
        model,
        tokenizer,
        *_encode_both(key, tokenizer, lambda item: item, sequences, held_out, folder),
        PackingCollator(pad_token_id=pad_id(tokenizer), packs=keeps_apart(model)),
        language=True,
    )


def _windows_of(
    rows: Rows, encoder: ChatEncoder, seed: int, dropout: float, most: int | None
) -> Iterator[dict[str, list[int]]]:
    found = (
        one for row in rows for one in dialogue_windows([row], encoder, seed=seed, dropout=dropout)
    )
    return islice(found, most)


def _conversations_of(rows: Rows, encoder: ChatEncoder) -> Iterator[dict[str, list[int]]]:
    return (one for row in rows for one in encode_conversation(encoder, row))


def _language_tokenizer(
    chosen: ArchitectureSettings, folder: Path, gguf: str | None, texts: Iterable[str]
) -> Any:
    """Load the tokenizer of a decoder-only base, or train one for a model from scratch."""
    if chosen.tokenizer or chosen.from_scratch is None:
        return load_tokenizer(chosen.tokenizer or chosen.base, None if chosen.tokenizer else gguf)
    spot = folder / SPOT_TOKENIZER
    if process_state().is_main_process:
        logger.info("training a tokenizer of %d entries", chosen.vocab_size)
        return train_chat_tokenizer(texts, chosen.vocab_size, spot)
    return load_tokenizer(spot)


def response_ingredients(
    corpora: Any, data: DataSettings, architecture: ArchitectureSettings, folder: Path
) -> Ingredients:
    """Build or load tokenizer and PAL model for dialogues, and encode their samples."""
    chosen = architecture
    backbone = find_backbone(chosen.base, chosen.from_scratch, chosen.backbone)
    own = backbone.own_entries(chosen, knowledge=data.knowledge is not None)
    mode = own["persona_mode"]
    train_samples, validation_samples = _samples_of(corpora, data)
    tokenizer = backbone.prepare_tokenizer(
        _tokenizer(chosen, folder, lambda: (t for s in train_samples for t in _texts(s)))
    )
    sizes = chosen.from_scratch
    model = build_response_model(
        base=chosen.base,
        from_scratch=None if sizes is None else {**backbone.scratch_entries(tokenizer), **sizes},
        backbone_name=chosen.backbone,
        vocab_size=len(tokenizer),
        pal_settings={
            "fusion": chosen.fusion,
            "max_context_tokens": chosen.max_context_tokens,
            "max_persona_tokens": chosen.max_persona_tokens,
            "max_target_tokens": chosen.max_target_tokens,
            **own,
            **backbone.token_entries(tokenizer),
        },
    )
    longest = max(
        chosen.max_context_tokens, chosen.max_persona_tokens, chosen.max_target_tokens + 1
    )
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and longest > positions:
        raise ConfigError(
            f"architecture: {longest} tokens do not fit the model's {positions} positions; lower "
            "max_*_tokens"
        )
    if mode != "none" and not any(sample.persona for sample in train_samples):
        _warn_of_no_persona(data.train, mode)
    if backbone.reads_knowledge and data.knowledge is None:
        logger.warning(
            "data.knowledge is null, so MISC is trained without knowledge, as an ablation; make "
            "some with `pal annotate annotate.knowledge=…`"
        )
    encoder = model.make_encoder(tokenizer, trusted=True)
    return Ingredients(
        model,
        tokenizer,
        *_encode_both(
            [
                "response",
                own,
                chosen.max_context_tokens,
                chosen.max_persona_tokens,
                chosen.max_target_tokens,
            ],
            tokenizer,
            encoder.encode,
            train_samples,
            validation_samples,
            folder,
        ),
        model.make_collator(),
        model.config.strategy_token_ids,
    )


def _warn_of_no_persona(source: str, mode: str) -> None:
    logger.warning(
        "%s holds no personas, so persona_mode=%s sees none; make them with `pal annotate` and "
        "give its output as data.train", source, mode,
    )  # fmt: skip


def response_dialogues(data: DataSettings) -> tuple[Dialogues, Dialogues]:
    """Return training and validation dialogues, cards in place of personas where given.

    Harmful supporter turns of the training dialogues are marked as left out.
    """
    listed = data.protocol == "file"
    whole = data.validation is not None and not has_splits(data.train) and not listed
    corpus = CorpusSplits(data.train, data)
    train_rows = corpus.load(None if whole else "train")
    if data.more is not None:
        train_rows = concatenate_datasets([train_rows, _more_dialogues(data)])
    if data.validation is not None:
        split = "validation" if listed or has_splits(data.validation) else None
        published = data.model_copy(update={"split": "published"})
        validation_rows = load_split(data.validation, split, how=published)
    else:
        validation_rows = corpus.load("validation")
    train = Dialogues(train_rows, cards=data.cards, harmful=not data.leave_out_harmful)
    return train, Dialogues(validation_rows, cards=data.cards)


def _more_dialogues(data: DataSettings) -> Dataset:
    """Return all dialogues of ``data.more``."""
    everything = ReadingSettings(
        reader=data.reader, columns=data.columns, strategy_labels=data.strategy_labels
    )
    return load_split(data.more, None, how=everything)


def response_samples(data: DataSettings) -> tuple[CorpusSamples, CorpusSamples]:
    """Return training samples and validation samples, by the rules of ``data.protocol``.

    Raises:
        DataError: one of the two is empty.
    """
    return _samples_of(response_dialogues(data), data)


def _samples_of(
    corpora: tuple[Dialogues, Dialogues], data: DataSettings
) -> tuple[CorpusSamples, CorpusSamples]:
    train, validation = corpora
    samples = tuple(
        CorpusSamples(rows, rule, limit=most, knowledge=data.knowledge)
        for rows, rule, most in (
            (train, training_rule(data), data.max_train_samples),
            (validation, evaluation_rule(data), data.max_validation_samples),
        )
    )
    for name, found in zip(("train", "validation"), samples, strict=True):
        if not found:
            raise DataError(f"data.{name}={getattr(data, name) or data.train}: no samples in it")
    return samples[0], samples[1]


def persona_conversations(
    data: DataSettings,
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Return training and validation conversations: of PersonaChat, and more for training alone.

    Dialogues that are given as more are read as one speaker's, the seeker's.

    Raises:
        DataError: a source cannot be read, or the dialogues have no personas.
    """
    rows = list(load_personachat(data.train, data.reader))
    if data.validation is not None:
        validation = list(load_personachat(data.validation, data.reader))
    else:
        order = np.random.default_rng(data.split_seed).permutation(len(rows))
        held_out = {int(index) for index in order[: max(1, len(rows) // 10)]}
        validation = [row for index, row in enumerate(rows) if index in held_out]
        rows = [row for index, row in enumerate(rows) if index not in held_out]
    if data.more is not None:
        more = [
            {
                "id": row["id"],
                "utterances": [t["text"] for t in row["dialog"] if t["speaker"] == "seeker"],
                "persona": row["persona"],
            }
            for row in _more_dialogues(data)
            if row["persona"]
        ]
        if not more:
            raise DataError(f"data.more={data.more}: no dialogue has a persona; leave it out")
        rows += more
    return rows[: data.max_train_samples], validation[: data.max_validation_samples]


def extractor_ingredients(
    corpora: Any, architecture: ArchitectureSettings, folder: Path
) -> Ingredients:
    """Build or load tokenizer and BART for persona conversations, and encode the pairs."""
    chosen = architecture
    rows, validation = corpora
    tokenizer = _tokenizer(
        chosen, folder, lambda: (t for row in rows for t in (*row["utterances"], *row["persona"]))
    )
    model = build_extractor(base=chosen.base, from_scratch=chosen.from_scratch, tokenizer=tokenizer)
    positions = getattr(model.config, "max_position_embeddings", 1024)
    if max(chosen.max_context_tokens, chosen.max_target_tokens) > positions:
        raise ConfigError(
            f"architecture: max_context_tokens={chosen.max_context_tokens} and max_target_tokens="
            f"{chosen.max_target_tokens} must fit the model's {positions} positions"
        )
    # kept with the model, so that annotation cuts its inputs as training did
    model.config.max_source_tokens = chosen.max_context_tokens
    model.config.max_target_tokens = chosen.max_target_tokens
    encoder = ExtractorEncoder.from_config(tokenizer, model.config)

    def encode(row: dict[str, Any]) -> dict[str, list[int]]:
        return {
            "input_ids": encoder.encode_source(row["utterances"]),
            "labels": encoder.encode_target(row["persona"]),
        }

    return Ingredients(
        model,
        tokenizer,
        *_encode_both(
            ["persona_extractor", chosen.max_context_tokens, chosen.max_target_tokens],
            tokenizer,
            encode,
            rows,
            validation,
            folder,
        ),
        Collator(
            pad_token_id=model.config.pad_token_id,
            decoder_start_token_id=model.config.decoder_start_token_id,
        ),
        loss=token_loss,
    )


def _texts(sample: Sample) -> list[str]:
    """Texts of the target and the turn before it: over a corpus, every utterance about once."""
    last = [turn["text"] for turn in sample.context[-1:]]
    return [*last, sample.response or "", *sample.persona]


def _tokenizer(architecture: ArchitectureSettings, folder: Path, texts: Callable[[], Any]) -> Any:
    """Load the tokenizer, or train one on the spot for a model from scratch."""
    chosen = architecture
    if chosen.tokenizer or chosen.from_scratch is None:
        return load_tokenizer(chosen.tokenizer or chosen.base)
    spot = folder / SPOT_TOKENIZER
    if process_state().is_main_process:
        logger.info("training a tokenizer of %d entries", chosen.vocab_size)
        return train_tokenizer(texts(), chosen.vocab_size, spot)
    return load_tokenizer(spot)


def _encode_both(
    key: Sequence[Any],
    tokenizer: Any,
    encode: Callable[[Any], dict[str, list[int]]],
    train: Iterable[Any],
    validation: Iterable[Any],
    folder: Path,
) -> tuple[Dataset, Dataset]:
    """Encode training and validation items, into files in the run's folder."""
    whole = [__version__, *key, tokenizer_fingerprint(tokenizer)]
    tokens = folder / TOKENS
    return encode_all(encode, train, tokens, whole), encode_all(encode, validation, tokens, whole)


def encode_all(
    encode: Callable[[Any], dict[str, list[int]]], items: Iterable[Any], folder: Path, key: Any
) -> Dataset:
    """Turn items into token ids, once: they are kept as Arrow, which an interrupted run reads.

    Args:
        encode: gives ``input_ids`` and more of an item.
        items: samples or JSON-serialisable values; they are asked for twice.
        folder: where the file goes.
        key: JSON-serialisable; with ``items`` all that decides the ids. A file of another key is
            not looked at.
    """
    count = 0

    def plain() -> Iterator[Any]:
        nonlocal count
        for item in items:
            count += 1
            yield _plain_sample(item) if isinstance(item, Sample) else item

    name = fingerprint([key, Streamed(plain())])
    path = folder / f"{name}.arrow"
    if path.exists():
        try:
            kept = Dataset.from_file(str(path))
            if len(kept) == count:
                return kept
        except (ArrowInvalid, OSError) as error:
            logger.warning("%s cannot be read (%s); made again", path, first_line(error))
        path.unlink()
    rest = iter(items)

    def encode_row(row: dict[str, int]) -> dict[str, Any]:  # called in order, once each
        encoded = encode(next(rest))
        return {**encoded, "length": len(encoded["input_ids"])}

    folder.mkdir(parents=True, exist_ok=True)
    make_private(folder)  # token ids are texts
    return Dataset.from_dict({"item": range(count)}).map(
        encode_row, remove_columns="item", cache_file_name=str(path), new_fingerprint=name,
        desc="tokenise",
    )  # fmt: skip


def _plain_sample(sample: Sample) -> dict[str, Any]:
    """Return a sample as JSON holds it, without copies of its turns."""
    found = {field.name: getattr(sample, field.name) for field in fields(sample)}
    if sample.knowledge is not None:
        found["knowledge"] = asdict(sample.knowledge)
    return found


def identity_facts(parts: Ingredients) -> dict[str, Any]:
    """Return the samples of a run as its identity hashes them."""
    return {
        f"{name} samples": {
            column: Streamed(column_of(rows, column)) for column in rows.column_names
        }
        for name, rows in (("training", parts.train), ("validation", parts.validation))
    }
